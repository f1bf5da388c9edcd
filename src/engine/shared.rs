//! Small files in which a user's runs tell each other something: in the user's state directory, and of no repository.
//!
//! They are a courtesy and no record: one that cannot be read, or that somebody damaged, is begun anew.

use std::fs::File;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is read of one at most, in bytes: a thousand places with long names have less.
const LARGEST: u64 = 1 << 20;

/// What the file `name` in `dir` holds.
pub(super) fn read<T: Default + DeserializeOwned>(dir: &Path, name: &str) -> T {
    let path = dir.join(name);
    let small = path.metadata().is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    let text = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Changes it: under a lock, as other runs write too, and renamed into place, as they read.
pub(super) fn change<T: Default + Serialize + DeserializeOwned, R>(
    dir: &Path,
    name: &str,
    change: impl FnOnce(&mut T) -> R,
) -> std::io::Result<R> {
    std::fs::create_dir_all(dir)?;
    let lock = File::options().create(true).append(true).open(dir.join(format!("{name}.lock")))?;
    lock.lock()?;
    let mut content = read(dir, name);
    let result = change(&mut content);
    let new = dir.join(format!("{name}.new"));
    std::fs::write(&new, serde_json::to_vec(&content)?)?;
    std::fs::rename(new, dir.join(name))?;
    Ok(result)
}
