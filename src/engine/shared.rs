//! Small files that a user's runs share, in the user's state directory and in no repository.
//!
//! They are an optimization and no record: a file that cannot be read or parsed is started anew.

use std::fs::File;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Size above which a file is ignored, in bytes: a thousand worktrees with long names take less.
const LARGEST: u64 = 1 << 20;

/// Reads the file `name` in `dir`; a missing or invalid one is the default.
pub(super) fn read<T: Default + DeserializeOwned>(dir: &Path, name: &str) -> T {
    let path = dir.join(name);
    let small = path.metadata().is_ok_and(|found| found.is_file() && found.len() <= LARGEST);
    let text = if small { std::fs::read(path).unwrap_or_default() } else { Vec::new() };
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Changes the file `name` in `dir`: under a lock, as other runs write it too, and by a rename, as they read it.
pub(super) fn update<T: Default + Serialize + DeserializeOwned, R>(
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
