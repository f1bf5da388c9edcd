//! Reads files of the commit that a run starts from.

use gix::ObjectId;
use gix::bstr::ByteSlice as _;

use super::repository::Repository;
use crate::error::{Context as _, Result};

impl Repository {
    /// Returns the content of the file `path` in `commit`; `None` if it has no such file.
    pub fn file_at(&self, commit: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let (gix, cannot) = (self.gix(), "the commit to start from cannot be read");
        let tree = gix.find_object(Self::id(commit)?).and_then(gix::Object::peel_to_tree).context(cannot)?;
        let entry = tree.lookup_entry_by_path(path).context(cannot)?.filter(|entry| entry.mode().is_blob());
        entry.map(|entry| Ok(entry.object().context(cannot)?.detach().data)).transpose()
    }

    /// Lists the paths of all files in `commit`.
    pub fn paths_at(&self, commit: &str) -> Result<Vec<String>> {
        let git = self.git("ls-tree").args(["-r", "--full-tree", "--name-only"]);
        Ok(git.revision(commit).records()?.iter().map(|name| name.to_str_lossy().into_owned()).collect())
    }

    /// Reports whether `pathspec` matches a file in `commit`.
    pub fn matches_at(&self, commit: &str, pathspec: &str) -> Result<bool> {
        let nothing = ObjectId::empty_tree(self.gix().object_hash()).to_string();
        let git = self.git("diff-tree").args(["-r", "--name-only"]);
        Ok(!git.revision(&nothing).revision(commit).path(pathspec).records()?.is_empty())
    }
}
