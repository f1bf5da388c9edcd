//! The folder that worktrees go into.

use std::path::Path;

/// Makes it, where it is not there; where that fails, git says why as soon as it needs it.
///
/// Trees in it have nothing to do with each other, and ext4 is told so (chattr(1), `T`): it then gives each a part of the
/// disk of its own. Side by side, the files of every new tree are looked for among those of the trees that just went,
/// which without a journal takes longer than to write them: of 1,000 files 0.2 to 1 s, and 0.04 s apart.
pub(super) fn make(folder: &Path) {
    if !folder.exists() && std::fs::create_dir_all(folder).is_ok() {
        let _ = spread(folder); // a hint, which other file systems do not know
    }
}

#[cfg(target_os = "linux")]
fn spread(folder: &Path) -> std::io::Result<()> {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let folder = std::fs::File::open(folder)?;
    let flags = ioctl_getflags(&folder)?;
    Ok(ioctl_setflags(&folder, flags | IFlags::TOPDIR)?)
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps)] // as on Linux
fn spread(_: &Path) -> std::io::Result<()> {
    Ok(())
}
