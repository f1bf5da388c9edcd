//! Ports for the programs in a worktree: ten in a row that no other worktree of this user has and no process listens on.
//!
//! A small file of the user, changed under a lock, maps worktrees to ports for as long as they exist, so that runs of
//! several repositories do not collide. If that file cannot be used, the ports follow from the worktree's path.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::shared;
use crate::process;

/// File name, in `git-agentloop` of the user's state directory.
const FILE_NAME: &str = "ports.json";
/// First port that is allotted: above those that services use by convention, below those that systems allot by themselves
/// (32768 on Linux, 49152 on macOS and by RFC 6335).
const FIRST: u16 = 20_000;
/// Number of ports of a worktree, from its base on.
const SPAN: u16 = 10;
/// Number of worktrees that can have ports at once.
const PLACES: u16 = 1_000;

/// Ports of one user's worktrees on one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    dir: Option<PathBuf>,
}

/// Base port of each worktree, by its path.
type Bases = BTreeMap<String, u16>;

impl Ports {
    /// Returns the ports of this process's user.
    pub(super) fn of_user() -> Self {
        Self { dir: process::state_dir() }
    }

    /// Returns the first of the ports that `place` has for as long as it exists.
    pub(super) fn base(&self, place: &Path) -> u16 {
        let allotted = self.dir.as_ref().map(|dir| allot(dir, place));
        match allotted {
            Some(Ok(base)) => base,
            Some(Err(error)) => {
                tracing::debug!(%error, "ports are handed out without regard to other runs");
                find_free_base(place, &Bases::new())
            }
            None => find_free_base(place, &Bases::new()),
        }
    }
}

fn allot(dir: &Path, place: &Path) -> std::io::Result<u16> {
    shared::update(dir, FILE_NAME, |bases: &mut Bases| {
        let name = place.to_string_lossy().into_owned();
        if let Some(base) = bases.get(&name).filter(|base| is_valid_base(**base)) {
            return *base;
        }
        bases.retain(|place, base| Path::new(place).exists() && is_valid_base(*base));
        let base = find_free_base(place, bases);
        bases.insert(name, base);
        base
    })
}

fn is_valid_base(base: u16) -> bool {
    base.checked_sub(FIRST).is_some_and(|offset| offset % SPAN == 0 && offset / SPAN < PLACES)
}

/// Returns a base that no other worktree has and whose ports are free; without one, the base that follows from the path.
fn find_free_base(place: &Path, taken: &Bases) -> u16 {
    let spread = place
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .fold(0u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    let start = u16::try_from(spread % u32::from(PLACES)).unwrap_or_default();
    let bases = (0..PLACES).map(|step| FIRST + (start + step) % PLACES * SPAN);
    let mut untaken = bases.filter(|base| !taken.values().any(|other| other == base));
    untaken.find(|base| (*base..base + SPAN).all(is_free)).unwrap_or(FIRST + start * SPAN)
}

fn is_free(port: u16) -> bool {
    let listens = |address: SocketAddr| match TcpListener::bind(address) {
        Err(error) => error.kind() == ErrorKind::AddrInUse,
        Ok(_) => false,
    };
    !listens((Ipv4Addr::LOCALHOST, port).into()) && !listens((Ipv6Addr::LOCALHOST, port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worktree_keeps_its_ports_for_as_long_as_it_exists() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports { dir: Some(dir.path().join("state")) };
        let places: Vec<PathBuf> = (0..20).map(|number| dir.path().join(format!("place-{number}"))).collect();
        for place in &places {
            std::fs::create_dir(place).unwrap();
        }
        let bases: Vec<u16> = places.iter().map(|place| ports.base(place)).collect();
        let distinct: std::collections::BTreeSet<u16> = bases.iter().copied().collect();
        assert_eq!(distinct.len(), places.len());
        assert!(bases.iter().all(|base| is_valid_base(*base)), "{bases:?}");
        let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, bases[3])); // a port in use does not change its worktree's base
        assert_eq!(places.iter().map(|place| ports.base(place)).collect::<Vec<_>>(), bases);
        std::fs::remove_dir(&places[0]).unwrap();
        ports.base(dir.path());
        let text = std::fs::read_to_string(dir.path().join("state").join(FILE_NAME)).unwrap();
        assert!(!text.contains("place-0\"") && text.contains("place-1\""), "{text}");
    }

    #[test]
    fn ports_that_are_in_use_are_left_out() {
        let place = Path::new("/some/place");
        let first = find_free_base(place, &Bases::new());
        let Ok(_server) = TcpListener::bind((Ipv4Addr::LOCALHOST, first + SPAN - 1)) else { return };
        assert_ne!(find_free_base(place, &Bases::new()), first);
        let nowhere = Ports { dir: Some("/proc/nowhere".into()) };
        assert!(is_valid_base(nowhere.base(place)) && is_valid_base(Ports::default().base(place)));
    }
}
