//! The places of a run's workers: worktrees beside the run's own, numbered, made once and used again.
//!
//! Which task has a place is written down in the run's folder, not in the worktree: a worker may remove that.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Context as _, Result};
use crate::ledger::Task;
use crate::run::id::Oid;

/// What a place is called, in the run's folder and behind the run's id in the worktree's name: this and its number.
const PREFIX: &str = "w";

/// The places of one run.
#[derive(Debug)]
pub(super) struct Slots {
    /// The run's folder.
    dir: PathBuf,
    known: Mutex<Option<Vec<Slot>>>,
}

/// One place.
#[derive(Clone, Debug)]
struct Slot {
    number: u32,
    /// Whose work it holds; none once that is all committed and the place was cleared.
    claim: Option<Claim>,
    /// Whether somebody is at work in it.
    busy: bool,
    /// Whether its task goes on in it.
    reserved: bool,
}

/// Who has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub task: Task,
    /// The commit that it began at: the run's newest, or for an integrator what was integrated so far.
    pub tip: String,
}

/// A place that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub number: u32,
    /// What it still holds.
    pub claim: Option<Claim>,
}

impl Slots {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, known: Mutex::new(None) }
    }

    /// A place for `task`: its own, else one that nobody needs, else a new one. `standing` are the numbers of worktrees
    /// that there are.
    pub(super) fn take(&self, task: &Task, standing: impl FnOnce() -> Vec<u32>) -> Taken {
        let mut known = self.known(standing);
        let slots = known.get_or_insert_default();
        let own = slots.iter().position(|slot| slot.claim.as_ref().is_some_and(|claim| claim.task == *task));
        let is_free = |slot: &Slot| {
            let from_before = slot.claim.as_ref().is_none_or(|claim| claim.task.iteration < task.iteration);
            !slot.busy && (from_before || !slot.reserved)
        };
        let position = own.or_else(|| slots.iter().position(is_free)).unwrap_or_else(|| {
            let is_taken = |number: &u32| slots.iter().any(|slot| slot.number == *number);
            let number = (1..=u32::MAX).find(|number| !is_taken(number)).unwrap_or(u32::MAX);
            slots.push(Slot { number, claim: None, busy: false, reserved: false });
            slots.len() - 1
        });
        slots[position].busy = true;
        Taken { number: slots[position].number, claim: slots[position].claim.clone() }
    }

    /// The place of `task`.
    pub(super) fn of(&self, task: &Task) -> Option<Taken> {
        let known = self.lock();
        let mut slots = known.iter().flatten();
        let slot = slots.find(|slot| slot.claim.as_ref().is_some_and(|claim| claim.task == *task))?;
        Some(Taken { number: slot.number, claim: slot.claim.clone() })
    }

    /// Every place, with who has it.
    pub(super) fn all(&self, standing: impl FnOnce() -> Vec<u32>) -> Vec<Taken> {
        let known = self.known(standing);
        known.iter().flatten().map(|slot| Taken { number: slot.number, claim: slot.claim.clone() }).collect()
    }

    /// Writes down who has a place. Nobody has it: it holds nothing that is not committed.
    pub(super) fn claim(&self, number: u32, claim: Option<Claim>) -> Result<()> {
        let path = self.path(number);
        let staged = path.with_extension("new");
        let written = match &claim {
            Some(Claim { task, tip }) => {
                std::fs::write(&staged, format!("{} {} {tip}\n", task.iteration, task.subgoal))
                    .and_then(|()| std::fs::rename(&staged, &path))
            }
            None => {
                // The second is what a driver leaves that is killed while it writes a claim down.
                [&path, &staged].into_iter().try_for_each(|file| match std::fs::remove_file(file) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                })
            }
        };
        written.context(format!("'{}' cannot be written", path.display()))?;
        self.change(number, |slot| slot.claim = claim);
        Ok(())
    }

    /// Nobody is at work in it any more; `reserved` where its task goes on in it.
    pub(super) fn leave(&self, number: u32, reserved: bool) {
        self.change(number, |slot| {
            slot.busy = false;
            slot.reserved = reserved;
        });
    }

    /// It is gone.
    pub(super) fn forget(&self, number: u32) -> Result<()> {
        self.claim(number, None)?;
        if let Some(slots) = self.lock().as_mut() {
            slots.retain(|slot| slot.number != number);
        }
        Ok(())
    }

    fn change(&self, number: u32, change: impl FnOnce(&mut Slot)) {
        let mut known = self.lock();
        if let Some(slot) = known.iter_mut().flatten().find(|slot| slot.number == number) {
            change(slot);
        }
    }

    fn known(&self, standing: impl FnOnce() -> Vec<u32>) -> MutexGuard<'_, Option<Vec<Slot>>> {
        let mut known = self.lock();
        if known.is_none() {
            let mut numbers: Vec<u32> = names(&self.dir).iter().filter_map(|name| number(name)).collect();
            numbers.extend(standing());
            numbers.sort_unstable();
            numbers.dedup();
            let slot = |number| {
                let claim = read(&self.path(number));
                Slot { number, reserved: claim.is_some(), claim, busy: false }
            };
            *known = Some(numbers.into_iter().map(slot).collect());
        }
        known
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Slot>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, number: u32) -> PathBuf {
        self.dir.join(name(number))
    }
}

/// The place's name.
pub(super) fn name(number: u32) -> String {
    format!("{PREFIX}{number}")
}

/// The number in a place's name.
pub(super) fn number(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The names in a folder.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn read(path: &Path) -> Option<Claim> {
    let text = std::fs::read_to_string(path).ok()?;
    let mut words = text.split_whitespace();
    let task = Task { iteration: words.next()?.parse().ok()?, subgoal: words.next()?.to_owned() };
    let tip: Oid = words.next()?.parse().ok()?;
    is_name(&task.subgoal).then(|| Claim { task, tip: tip.into() })
}

/// Whether `name` is what a task is called: a subgoal's id, perhaps with what a conflict of it adds. A worker can write the
/// file that it is read from.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
        && !name.starts_with(['.', '-'])
        && !name.contains("..")
        && name.strip_suffix(".lock").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_was_being_written_goes_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("w4.new"), "1 a").unwrap();
        let slots = Slots::new(dir.path().to_owned());
        assert_eq!(slots.all(|| vec![4]).len(), 1);
        slots.forget(4).unwrap();
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }
}
