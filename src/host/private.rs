//! Files and directories that no other user can read or write.
//!
//! They are used only if they belong to this user, have no permissions for others, and are no symbolic links.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::OFlags;

/// Permissions of group and others.
const OTHERS: u32 = 0o077;
/// Write permissions of group and others.
const OTHERS_WRITE: u32 = 0o022;

fn is_own(about: &Metadata) -> bool {
    about.uid() == rustix::process::geteuid().as_raw()
}

/// Returns whether `path` is a directory that this user alone can enter.
pub fn is_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir() && is_own(&about) && about.mode() & OTHERS == 0)
}

/// Returns whether `path` is a directory in which this user alone can create files.
pub fn is_own_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir() && is_own(&about) && about.mode() & OTHERS_WRITE == 0)
}

/// Creates the directory `path` in an existing one. If it exists it must be private.
pub fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ if is_dir(path) => Ok(()),
        _ => Err(io::Error::new(
            ErrorKind::PermissionDenied,
            format!("'{}' is not a directory of this user alone", path.display()),
        )),
    }
}

/// Opens the private file `path` with `options`; `None` if it does not exist or is not private.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<Option<File>> {
    // Opening a FIFO would otherwise wait for its other end.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = match options.mode(0o600).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => return Ok(None),
        Err(error) => return Err(error),
    };
    let about = file.metadata()?;
    Ok((about.is_file() && is_own(&about) && about.mode() & OTHERS == 0).then_some(file))
}

/// Returns the content of the private file `path`, of at most `limit` bytes; `None` if there is no such file.
pub fn read(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(file) = open(path, OpenOptions::new().read(true))? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= limit).then_some(content))
}

/// Replaces the private file `name` of `dir` atomically: a reader, also after a crash, finds the old content or the new one.
pub fn replace(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?; // mode 0600
    file.write_all(content)?;
    file.as_file().sync_data()?;
    file.persist(dir.join(name)).map_err(|error| error.error)?;
    Ok(())
}

/// Removes the directory `path` with its content, if it exists.
pub fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
