//! The private store of a clone, in the user's state directory, for what is not trusted in the record in git.
//!
//! ```text
//! <state>/git-agentloop/clones/<id>/clone     the clone's inode and the store's key
//! <state>/git-agentloop/clones/<id>/runs/<run>/…
//! ```
//!
//! A clone is identified by a random id in its common directory together with that directory's inode: a repository that was
//! moved keeps its store, and a copy, which has the id but another inode, has none until it gets an id of its own. The
//! device number is ignored, because it changes when a machine is restarted.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use super::private;
use crate::error::{Context as _, Error, Result};
use crate::run::goal::RunId;

/// File of a clone's id, in its common directory.
const ID: &str = "agentloop/clone";
/// Directory of all stores, in a base.
const CLONES: &str = "clones";
/// Directory of runs, in a store.
const RUNS: &str = "runs";
/// File that makes a directory a store: `<inode> <key>`.
const SECRET: &str = "clone";
/// File in the base of the home directory that names further bases, with NUL after each path.
const ELSEWHERE: &str = "elsewhere";
/// Longest file of a store that is read whole, in bytes.
const LIMIT: u64 = 4 << 20;
/// Number of attempts, and time between them, to get the lock that another process holds.
const ATTEMPTS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(5);

/// The directories that stores may be in, `…/git-agentloop` each. A new store is created in the first that can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bases {
    own: Vec<PathBuf>,
    /// Bases that processes with another `XDG_STATE_HOME` have used.
    elsewhere: Vec<PathBuf>,
}

impl Bases {
    /// Returns the bases of this process: in `XDG_STATE_HOME`, in the home directory, and those that other processes of this
    /// user have listed there. Hosts may start servers with a minimal environment.
    #[must_use]
    pub fn of_process() -> Self {
        let bases = Self::of(std::env::var_os("XDG_STATE_HOME").map(PathBuf::from), std::env::home_dir());
        bases.with_elsewhere()
    }

    /// Returns the bases in these directories. A path that is not absolute is ignored (XDG Base Directory Specification).
    fn of(state: Option<PathBuf>, home: Option<PathBuf>) -> Self {
        let states = [state, home.map(|home| home.join(".local/state"))].into_iter().flatten();
        let mut own: Vec<PathBuf> =
            states.filter(|path| path.is_absolute()).map(|state| state.join("git-agentloop")).collect();
        own.dedup();
        Self { own, elsewhere: Vec::new() }
    }

    /// Returns a single base, for tests.
    #[cfg(test)]
    pub(crate) fn below(state: PathBuf) -> Self {
        Self::of(Some(state), None)
    }

    fn with_elsewhere(mut self) -> Self {
        let Some(home) = self.own.last().filter(|home| private::is_own_dir(home)) else { return self };
        if let Ok(Some(list)) = private::read(&home.join(ELSEWHERE), LIMIT) {
            let paths =
                list.split(|byte| *byte == 0).map(|path| PathBuf::from(std::ffi::OsString::from_vec(path.into())));
            self.elsewhere = paths.filter(|path| path.is_absolute() && !self.own.contains(path)).collect();
        }
        self
    }

    /// Returns whether a store could probably be created in one of them.
    #[must_use]
    pub fn are_writable(&self) -> bool {
        use rustix::fs::{Access, access};
        let there = |base: &PathBuf| base.ancestors().find(|path| path.symlink_metadata().is_ok()).map(Path::to_owned);
        let is_writable = |path: PathBuf| path.is_dir() && access(&path, Access::WRITE_OK | Access::EXEC_OK).is_ok();
        self.own.iter().filter_map(there).any(is_writable)
    }

    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.own.iter().chain(&self.elsewhere)
    }

    /// Lists `base` where a process without `XDG_STATE_HOME` looks for it.
    fn publish(&self, base: &Path) -> io::Result<()> {
        let Some(home) = self.own.last().filter(|home| *home != base) else { return Ok(()) };
        fs::create_dir_all(home)?;
        let mut list = private::read(&home.join(ELSEWHERE), LIMIT)?.unwrap_or_default();
        if list.split(|byte| *byte == 0).any(|path| path == base.as_os_str().as_bytes()) {
            return Ok(());
        }
        list.extend_from_slice(base.as_os_str().as_bytes());
        list.push(0);
        private::replace(home, ELSEWHERE, &list)
    }
}

/// The random id of a clone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct CloneId(String);

impl CloneId {
    const BYTES: usize = 16;

    fn new() -> Result<Self> {
        random::<{ Self::BYTES }>().map(|bytes| Self(to_hex(&bytes)))
    }

    fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        from_hex::<{ Self::BYTES }>(text).map(|_| Self(text.to_owned()))
    }

    /// Reads the id in the common directory `common`. No symbolic link is followed, and a FIFO is not waited for.
    fn read(common: &Path) -> Option<Self> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        let file = OpenOptions::new().read(true).custom_flags(flags).open(common.join(ID)).ok()?;
        let mut text = String::new();
        file.take(2 * Self::BYTES as u64 + 2).read_to_string(&mut text).ok()?;
        Self::parse(&text)
    }
}

/// The key of a store: texts that it signed were written by a driver of this clone.
#[derive(Clone)]
pub struct Key(hmac::Key);

/// The start of an HMAC-SHA-256, which only the holder of the key can compute.
pub type Mac = [u8; 16];

impl Key {
    fn new(bytes: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }

    /// Computes the code over `parts`, with the length of each.
    #[must_use]
    pub fn mac(&self, parts: &[&[u8]]) -> Mac {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut mac = Mac::default();
        mac.copy_from_slice(&context.sign().as_ref()[..size_of::<Mac>()]);
        mac
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// The private store of one clone.
#[derive(Clone, Debug)]
pub struct Store {
    id: CloneId,
    dir: PathBuf,
    secret: Secret,
    key: Key,
}

/// The content of the file that makes a directory the store of a clone.
#[derive(Clone, PartialEq, Eq)]
struct Secret {
    inode: u64,
    key: [u8; 32],
}

impl Secret {
    fn parse(text: &[u8]) -> Option<Self> {
        let (inode, key) = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(' ')?;
        Some(Self { inode: inode.parse().ok()?, key: from_hex(key)? })
    }

    fn to_line(&self) -> String {
        format!("{} {}\n", self.inode, to_hex(&self.key))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret {{ inode: {}, … }}", self.inode)
    }
}

impl Store {
    /// Finds the store of the clone with this common directory; `None` if there is none that can be trusted.
    #[must_use]
    pub fn find(common: &Path, bases: &Bases) -> Option<Self> {
        let (id, inode) = (CloneId::read(common)?, common.metadata().ok()?.ino());
        bases.all().find_map(|base| {
            let clones = base.join(CLONES);
            let dir = clones.join(&id.0);
            if !private::is_dir(&clones) || !private::is_dir(&dir) {
                return None;
            }
            let secret = Secret::parse(&private::read(&dir.join(SECRET), LIMIT).ok()??)?;
            (secret.inode == inode).then(|| Self::new(id.clone(), dir, secret))
        })
    }

    fn new(id: CloneId, dir: PathBuf, secret: Secret) -> Self {
        let key = Key::new(secret.key);
        Self { id, dir, secret, key }
    }

    /// Returns the store of the clone with this common directory, and creates it if it is missing.
    pub fn ensure(common: &Path, bases: &Bases) -> Result<Self> {
        if let Some(found) = Self::find(common, bases) {
            return Ok(found);
        }
        let failed = || format!("cannot give the clone at '{}' a private store", common.display());
        let ours = common.join(ID).with_file_name("");
        fs::create_dir_all(&ours).context(failed())?;
        let _lock = lock_dir(&ours).context(failed())?;
        if let Some(found) = Self::find(common, bases) {
            return Ok(found);
        }
        let inode = common.metadata().context(failed())?.ino();
        let mut cause = Error::failed("neither XDG_STATE_HOME nor HOME is an absolute path");
        for base in &bases.own {
            match Self::make(inode, base) {
                Ok(store) => {
                    store.mark(common).context(failed())?;
                    bases.publish(base).unwrap_or_else(|error| {
                        tracing::debug!("processes without XDG_STATE_HOME will not find {}: {error}", base.display());
                    });
                    return Ok(store);
                }
                Err(error) => cause = error,
            }
        }
        Err(cause).context(failed())
    }

    /// Creates a store under a new id. It is complete once it can be found; one that is never marked costs a kilobyte.
    fn make(inode: u64, base: &Path) -> Result<Self> {
        let (id, key) = (CloneId::new()?, random::<32>()?);
        let dir = base.join(CLONES).join(&id.0);
        let failed = format!("cannot write '{}'", dir.display());
        let store = Self::new(id, dir, Secret { inode, key });
        store.write_secret().context(failed)?;
        Ok(store)
    }

    fn write_secret(&self) -> io::Result<()> {
        make_store_dir(&self.dir)?;
        private::replace(&self.dir, SECRET, self.secret.to_line().as_bytes())
    }

    /// Writes the clone's id into its common directory, and the secret into the store, if they are missing: agents can
    /// remove both, and a driver restores them.
    pub fn mark(&self, common: &Path) -> io::Result<()> {
        if !private::read(&self.dir.join(SECRET), LIMIT).is_ok_and(|text| text == Some(self.secret.to_line().into())) {
            self.write_secret()?;
        }
        if let Err(error) = self.note_place(common) {
            tracing::debug!("where the clone is cannot be noted in its store: {error}");
        }
        // An id that belongs to another store of this clone was made while this one's was missing.
        if CloneId::read(common).as_ref() == Some(&self.id) || Self::find(common, &Bases::of_process()).is_some() {
            return Ok(());
        }
        let path = common.join(ID);
        let dir = path.with_file_name("");
        fs::create_dir_all(&dir)?;
        let mut file = tempfile::Builder::new().prefix(".clone-").tempfile_in(&dir)?;
        writeln!(file, "{}", self.id.0)?;
        file.as_file().sync_data()?;
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(&path)?;
        }
        file.persist(&path).map_err(|error| error.error)?;
        Ok(())
    }

    /// Returns the key.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Returns the clone's id as text.
    #[must_use]
    pub fn clone_id(&self) -> &str {
        &self.id.0
    }

    /// Lists the runs that the store has files of.
    #[must_use]
    pub fn runs(&self) -> Vec<RunId> {
        let entries = fs::read_dir(self.dir.join(RUNS)).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }

    /// Returns the part of the store for `run`.
    #[must_use]
    pub fn run(&self, run: &RunId) -> RunStore {
        RunStore { runs: self.dir.join(RUNS), dir: self.dir.join(RUNS).join(run.as_str()) }
    }
}

/// The part of a store for one run. Its directory is created by the first write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunStore {
    runs: PathBuf,
    dir: PathBuf,
}

impl RunStore {
    /// Returns the content of the file `name`; `None` if there is no such file.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.dir.join(name);
        private::read(&path, LIMIT).context(format!("cannot read '{}'", path.display()))
    }

    /// Replaces the content of the file `name` atomically.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.dir.join(name);
        self.make()
            .and_then(|()| private::replace(&self.dir, name, content))
            .context(format!("cannot write '{}'", path.display()))
    }

    /// Removes the file `name`, if it exists.
    pub fn forget(&self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("cannot remove '{}'", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Returns the directory `name`, such as an inbox, and creates it if it is missing.
    pub fn make_dir(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        let made = self.make().and_then(|()| private::make_dir(&path));
        made.context(format!("cannot make '{}'", path.display()))?;
        Ok(path)
    }

    /// Opens or creates the file `name` to read it and append to it.
    pub fn append_to(&self, name: &str) -> Result<File> {
        let path = self.dir.join(name);
        let failed = format!("cannot write '{}'", path.display());
        self.make().context(failed.as_str())?;
        let file = private::open(&path, OpenOptions::new().read(true).append(true).create(true));
        file.context(failed.as_str())?
            .ok_or_else(|| Error::failed(failed).because("it is not a file of this user alone"))
    }

    /// Opens the file `name` to read it; `None` if there is no such file.
    pub fn open(&self, name: &str) -> Result<Option<File>> {
        let path = self.dir.join(name);
        private::open(&path, OpenOptions::new().read(true)).context(format!("cannot read '{}'", path.display()))
    }

    /// Returns whether the store has a directory of the run.
    #[must_use]
    pub fn exists(&self) -> bool {
        private::is_dir(&self.dir)
    }

    /// Puts the files called `names` aside, for a run that is discarded, and removes the run's other files except `lock`.
    pub fn put_aside(&self, names: &[&str], lock: &str) -> Result<()> {
        for name in names {
            self.rename(name, &aside(name))?;
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if name == lock || names.iter().any(|kept| name == *aside(kept)) {
                continue;
            }
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_dir { private::remove_dir(&path) } else { fs::remove_file(&path) };
            removed.context(format!("cannot remove '{}'", path.display()))?;
        }
        Ok(())
    }

    /// Reports whether the file `name` is put aside.
    #[must_use]
    pub fn has_aside(&self, name: &str) -> bool {
        self.dir.join(aside(name)).symlink_metadata().is_ok()
    }

    /// Brings back the files called `names` that were put aside and have no successor.
    pub fn bring_back(&self, names: &[&str]) -> Result<()> {
        let mut missing = names.iter().filter(|name| self.dir.join(name).symlink_metadata().is_err());
        missing.try_for_each(|name| self.rename(&aside(name), name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        match fs::rename(self.dir.join(from), self.dir.join(to)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).context(format!("cannot rename '{}'", self.dir.join(from).display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes the run's directory.
    pub fn remove(&self) -> Result<()> {
        private::remove_dir(&self.dir).context(format!("cannot remove '{}'", self.dir.display()))
    }

    fn make(&self) -> io::Result<()> {
        // A store that was removed is created again for as long as its driver lives.
        if let Some(store) = self.runs.parent() {
            make_store_dir(store)?;
        }
        private::make_dir(&self.runs)?;
        private::make_dir(&self.dir)
    }
}

/// Returns the name of the file `name` of a run that is discarded.
fn aside(name: &str) -> String {
    format!("{name}.discarded")
}

/// Creates the directory of a store, and its parents.
fn make_store_dir(store: &Path) -> io::Result<()> {
    if private::is_dir(store) {
        return Ok(());
    }
    if let Some(clones) = store.parent() {
        fs::create_dir_all(clones.parent().unwrap_or(clones))?;
        private::make_dir(clones)?;
    }
    private::make_dir(store)
}

/// Locks a directory against other processes; the wait is bounded, as a hostile process may keep the lock.
fn lock_dir(path: &Path) -> io::Result<File> {
    let dir = File::open(path)?;
    for _ in 0..ATTEMPTS {
        match dir.try_lock() {
            Ok(()) => return Ok(dir),
            Err(TryLockError::WouldBlock) => sleep(PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, format!("another process keeps '{}' locked", path.display())))
}

fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::failed("the operating system gives no random bytes"))?;
    Ok(bytes)
}

/// Encodes `bytes` in lower-case hexadecimal.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// Decodes lower-case hexadecimal.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

mod gone;
#[cfg(test)]
mod tests;
