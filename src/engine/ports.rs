//! Ports for what works in a place: ten in a row that no other place of this user has, and nobody listens on yet.
//!
//! Who has which is in one small file a user, under a lock, for as long as the place stands: runs of several
//! repositories do not get into each other's way. Where that file cannot be had, a place's name says where to look.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::shared;
use crate::process;

/// The file's name in the user's state directory, below `git-agentloop`.
const NAME: &str = "ports.json";
/// The first port that is handed out: above what services have by convention, and below what systems hand out by
/// themselves (32768 on Linux, 49152 on macOS and by RFC 6335).
const FIRST: u16 = 20_000;
/// Ports that a place has, from its base on.
const SPAN: u16 = 10;
/// Places that have ports at once.
const PLACES: u16 = 1_000;

/// The ports of one user's places on one machine.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports {
    dir: Option<PathBuf>,
}

/// Who has which base, by the place's path.
type Bases = BTreeMap<String, u16>;

impl Ports {
    /// Those of this process's user.
    pub(super) fn of_user() -> Self {
        Self { dir: process::state_dir() }
    }

    /// The first of the ports that `place` has for as long as it stands.
    pub(super) fn base(&self, place: &Path) -> u16 {
        let claimed = self.dir.as_ref().map(|dir| claim(dir, place));
        match claimed {
            Some(Ok(base)) => base,
            Some(Err(error)) => {
                tracing::debug!(%error, "ports are handed out without regard to other runs");
                free(place, &Bases::new())
            }
            None => free(place, &Bases::new()),
        }
    }
}

fn claim(dir: &Path, place: &Path) -> std::io::Result<u16> {
    shared::change(dir, NAME, |bases: &mut Bases| {
        let name = place.to_string_lossy().into_owned();
        if let Some(base) = bases.get(&name).filter(|base| are_ours(**base)) {
            return *base;
        }
        bases.retain(|place, base| Path::new(place).exists() && are_ours(*base));
        let base = free(place, bases);
        bases.insert(name, base);
        base
    })
}

fn are_ours(base: u16) -> bool {
    base.checked_sub(FIRST).is_some_and(|offset| offset % SPAN == 0 && offset / SPAN < PLACES)
}

/// A base that nobody has and whose ports are free; where there is none, the one that the place's name leads to.
fn free(place: &Path, taken: &Bases) -> u16 {
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
    fn a_place_keeps_its_ports_for_as_long_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let ports = Ports { dir: Some(dir.path().join("state")) };
        let places: Vec<PathBuf> = (0..20).map(|number| dir.path().join(format!("place-{number}"))).collect();
        for place in &places {
            std::fs::create_dir(place).unwrap();
        }
        let bases: Vec<u16> = places.iter().map(|place| ports.base(place)).collect();
        let distinct: std::collections::BTreeSet<u16> = bases.iter().copied().collect();
        assert_eq!(distinct.len(), places.len());
        assert!(bases.iter().all(|base| are_ours(*base)), "{bases:?}");
        let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, bases[3])); // what is at work there changes nothing
        assert_eq!(places.iter().map(|place| ports.base(place)).collect::<Vec<_>>(), bases);
        std::fs::remove_dir(&places[0]).unwrap();
        ports.base(dir.path());
        let text = std::fs::read_to_string(dir.path().join("state").join(NAME)).unwrap();
        assert!(!text.contains("place-0\"") && text.contains("place-1\""), "{text}");
    }

    #[test]
    fn ports_that_somebody_listens_on_are_left_out() {
        let place = Path::new("/some/place");
        let first = free(place, &Bases::new());
        let Ok(_server) = TcpListener::bind((Ipv4Addr::LOCALHOST, first + SPAN - 1)) else { return };
        assert_ne!(free(place, &Bases::new()), first);
        let nowhere = Ports { dir: Some("/proc/nowhere".into()) };
        assert!(are_ours(nowhere.base(place)) && are_ours(Ports::default().base(place)));
    }
}
