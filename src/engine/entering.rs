//! The folder of a worktree in which agents and checks start.

use std::path::{Path, PathBuf};

use crate::run::folder::Folder;

/// Returns the path of `folder` in `place`, and creates it if it is missing. Returns `place` itself if a link or a file is
/// in the way: a worker must not choose where the next one starts.
#[must_use]
pub fn enter(place: &Path, folder: &Folder) -> PathBuf {
    let mut path = place.to_owned();
    for part in folder.as_str().split('/').filter(|part| !part.is_empty()) {
        path.push(part);
        let is_folder = match path.symlink_metadata() {
            Ok(found) => found.is_dir(),
            Err(_) => std::fs::create_dir(&path).is_ok(),
        };
        if !is_folder {
            return place.to_owned();
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_entered_unless_a_link_leads_elsewhere() {
        let (place, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |folder: &str| enter(place.path(), &Folder::try_from(folder.to_owned()).unwrap());
        assert_eq!(at(""), place.path());
        assert_eq!(at("a/b"), place.path().join("a/b"));
        assert!(place.path().join("a/b").is_dir());
        std::os::unix::fs::symlink(elsewhere.path(), place.path().join("link")).unwrap();
        std::fs::write(place.path().join("file"), "").unwrap();
        for folder in ["link", "link/deep", "a/../link", "file/x"] {
            if let Ok(folder) = Folder::try_from(folder.to_owned()) {
                assert_eq!(enter(place.path(), &folder), place.path());
            }
        }
        assert!(!elsewhere.path().join("deep").exists());
    }
}
