//! The directory that a store lives in: whose it is, who uses it, what lies in it. Called at start
//! and by the offline tools; its files are specified in `docs/log-format.md`.
//!
//! Invariant: whoever holds a [`DataDirectory`] is alone in it, and it is a store's of a version
//! that this program knows.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use crate::log::{Lsn, Slots, StoreId, name};

const LOCK: &str = "LOCK";
const FORMAT: &str = "FORMAT";
const UNFINISHED_FORMAT: &str = "FORMAT.tmp";
/// The first line of `FORMAT`.
const KIND: &str = "annulus store";
/// The version of the directory that is written, and the newest that is read.
const VERSION: u32 = 1;
/// What a file system may have put into a directory that is otherwise empty.
const LOST_AND_FOUND: &str = "lost+found";
/// `FORMAT` is shorter; a longer file is another's.
const FORMAT_BYTES_MAX: u64 = 4096;

/// Whether a directory may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A missing or empty one becomes a store's.
    Create,
    /// It must be a store's already.
    Refuse,
}

/// Why a directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refuses something.
    #[error("{verb} {}: {error}{}", .path.display(), advice(.error))]
    Io {
        /// What was tried.
        verb: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process uses it.
    #[error("{} is in use by {}; stop that process first, or name another directory",
            .path.display(), user(*.process))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Its number, where it is known.
        process: Option<u32>,
    },
    /// It holds something that is not a store's.
    #[error("{} is no store of annulus: it holds {found}, and no FORMAT file; name another \
             directory, or an empty one", .path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The name of something in it.
        found: String,
    },
    /// Its `FORMAT` is missing, but not its log.
    #[error("{} holds {found}, but its FORMAT file is missing; bring it back from a backup of the \
             directory", .path.display())]
    NoFormat {
        /// The directory.
        path: PathBuf,
        /// The name of a file of a store in it.
        found: String,
    },
    /// There is no store to look at.
    #[error("{} holds no store; name the directory that annulus was started with", .0.display())]
    Empty(PathBuf),
    /// Its `FORMAT` cannot be understood.
    #[error("{}/FORMAT is not as annulus writes it; if this is a store's directory, bring the file \
             back from a backup, otherwise name another directory", .0.display())]
    Garbled(PathBuf),
    /// A newer program made it.
    #[error("{} has version {found} of the format, and this annulus reads version {VERSION}; start \
             it with the annulus that wrote it, or a newer one", .path.display())]
    Newer {
        /// The directory.
        path: PathBuf,
        /// The version in it.
        found: u32,
    },
}

fn user(process: Option<u32>) -> String {
    process.map_or("another process".to_owned(), |process| format!("process {process}"))
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; make the directory and its files this user's (chown), or name another directory"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; mount the file system for writing, or name another directory"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the file system"
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
            "; name a directory, not a file"
        }
        _ => "",
    }
}

/// What lies in a directory, each kind in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The numbers of the segments.
    pub segments: Vec<u64>,
    /// What the snapshots hold, and as of when.
    pub snapshots: Vec<(Slots, Lsn)>,
    /// The names of unfinished files.
    pub unfinished: Vec<String>,
}

/// A store's directory, locked until this is dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    id: StoreId,
    /// Open and locked. `None` where the file system is read-only, so that nobody writes.
    _lock: Option<File>,
}

impl DataDirectory {
    /// Opens a store's directory, or makes one.
    ///
    /// # Errors
    /// It is in use, it is another's or a newer version's, or the system refuses.
    pub fn open(path: &Path, missing: Missing) -> Result<Self, DirectoryError> {
        if missing == Missing::Create {
            create(path)?;
        }
        if !is_there(&path.join(FORMAT))? {
            // Nothing is put into a directory that may be another's.
            check_vacant(path)?;
            if missing == Missing::Refuse {
                return Err(DirectoryError::Empty(path.to_owned()));
            }
        }
        let lock = lock(path, missing)?;
        if missing == Missing::Create && !is_there(&path.join(FORMAT))? {
            write_format(path)?;
        }
        let id = read_format(path)?;
        Ok(Self { path: path.to_owned(), id, _lock: lock })
    }

    /// Looks whether a store can be opened or made there, as far as can be told without touching
    /// anything.
    ///
    /// # Errors
    /// As [`DataDirectory::open`], except that it may be in use.
    pub fn look(path: &Path) -> Result<(), DirectoryError> {
        if !is_there(path)? {
            return Ok(());
        }
        rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|errno| failed("using", path)(errno.into()))?;
        let has_format = is_there(&path.join(FORMAT))?;
        if has_format { read_format(path).map(drop) } else { check_vacant(path) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's id.
    pub fn id(&self) -> StoreId {
        self.id
    }

    /// What lies in it. Names that mean nothing are passed over.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(&self) -> Result<Listing, DirectoryError> {
        let mut listing = Listing::default();
        for name in names(&self.path)? {
            if let Some(sequence) = name::parse_segment(&name) {
                listing.segments.push(sequence);
            } else if let Some(snapshot) = name::parse_snapshot(&name) {
                listing.snapshots.push(snapshot);
            } else if name.ends_with(name::UNFINISHED_SUFFIX) {
                listing.unfinished.push(name);
            }
        }
        listing.segments.sort_unstable();
        listing.snapshots.sort_unstable();
        listing.unfinished.sort_unstable();
        Ok(listing)
    }

    /// Removes a file; that it is gone is durable after [`DataDirectory::sync`].
    ///
    /// # Errors
    /// The errors of unlink(2).
    pub fn remove(&self, name: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(failed("removing", &path))
    }

    /// Makes a file's content durable, whoever wrote it.
    ///
    /// # Errors
    /// The errors of open(2) and fsync(2).
    pub fn make_durable(&self, name: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        let file = File::open(&path).map_err(failed("opening", &path))?;
        file.sync_all().map_err(failed("syncing", &path))
    }

    /// Cuts a file to `bytes`, durably.
    ///
    /// # Errors
    /// The errors of open(2), ftruncate(2) and fsync(2).
    pub fn cut(&self, name: &str, bytes: u64) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        let file = OpenOptions::new().write(true).open(&path).map_err(failed("opening", &path))?;
        let cut = file.set_len(bytes).and_then(|()| file.sync_all());
        cut.map_err(failed("cutting", &path))
    }

    /// Gives a file another name, which must be free; durable after [`DataDirectory::sync`].
    ///
    /// # Errors
    /// The errors of rename(2).
    pub fn rename(&self, name: &str, new_name: &str) -> Result<(), DirectoryError> {
        let path = self.path.join(name);
        fs::rename(&path, self.path.join(new_name)).map_err(failed("renaming", &path))
    }

    /// Makes a file of all that `content` gives, whole and durable under its name or not at all.
    ///
    /// # Errors
    /// The errors of reading the content, and of making a file.
    pub fn write(&self, name: &str, content: &mut dyn Read) -> Result<(), DirectoryError> {
        let path = self.path.join(format!("{name}{}", name::UNFINISHED_SUFFIX));
        let mut write = || {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            io::copy(content, &mut file)?;
            file.sync_all()
        };
        write().map_err(failed("writing", &path))?;
        fs::rename(&path, self.path.join(name)).map_err(failed("renaming", &path))?;
        self.sync()
    }

    /// Makes durable which files there are.
    ///
    /// # Errors
    /// The errors of fsync(2).
    pub fn sync(&self) -> Result<(), DirectoryError> {
        sync(&self.path)
    }
}

/// An error of the system, told with what was tried.
pub(super) fn failed(
    verb: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    move |error| DirectoryError::Io { verb, path, error }
}

fn create(path: &Path) -> Result<(), DirectoryError> {
    if path.is_dir() {
        return Ok(());
    }
    let parents = parents_of_missing(path);
    // What clients store is for nobody else to read.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed("creating", path))?;
    parents.into_iter().try_for_each(sync)
}

/// The directories that get an entry when `path` is made, with those on the way to it.
fn parents_of_missing(path: &Path) -> Vec<&Path> {
    let ancestors = path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty());
    let missing = ancestors.take_while(|ancestor| !ancestor.is_dir());
    let parents = missing.filter_map(Path::parent);
    parents
        .map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
        .collect()
}

fn sync(path: &Path) -> Result<(), DirectoryError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(failed("syncing", path))
}

fn is_there(path: &Path) -> Result<bool, DirectoryError> {
    path.try_exists().map_err(failed("looking for", path))
}

/// The names in a directory that are text; ours all are.
fn names(path: &Path) -> Result<Vec<String>, DirectoryError> {
    let read = || {
        let mut names = Vec::new();
        for entry in fs::read_dir(path)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    read().map_err(failed("reading", path))
}

/// Refuses a directory without `FORMAT` that holds anything else.
fn check_vacant(path: &Path) -> Result<(), DirectoryError> {
    let (path, names) = (path.to_owned(), names(path)?);
    let is_ours = |name: &&String| {
        name::parse_segment(name).is_some() || name::parse_snapshot(name).is_some()
    };
    if let Some(found) = names.iter().find(is_ours).cloned() {
        return Err(DirectoryError::NoFormat { path, found });
    }
    let harmless = [LOCK, UNFINISHED_FORMAT, LOST_AND_FOUND];
    match names.into_iter().find(|name| !harmless.contains(&name.as_str())) {
        Some(found) => Err(DirectoryError::Foreign { path, found }),
        None => Ok(()),
    }
}

fn lock(directory: &Path, missing: Missing) -> Result<Option<File>, DirectoryError> {
    let path = directory.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = match options.open(&path) {
        Ok(file) => file,
        Err(error)
            if missing == Missing::Refuse && error.kind() == io::ErrorKind::ReadOnlyFilesystem =>
        {
            return Ok(None);
        }
        Err(error) => return Err(failed("opening", &path)(error)),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let read = (&file).take(FORMAT_BYTES_MAX).read_to_string(&mut text);
            let process = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(DirectoryError::InUse { path: directory.to_owned(), process });
        }
        Err(TryLockError::Error(error)) => return Err(failed("locking", &path)(error)),
    }
    // For people, and for the message above. A full disk is no reason not to look at a store.
    let line = format!("{}\n", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all(line.as_bytes()));
    Ok(Some(file))
}

fn write_format(directory: &Path) -> Result<(), DirectoryError> {
    let mut id = [0; 16];
    let source = Path::new("/dev/urandom");
    let drawn = File::open(source).and_then(|mut source| source.read_exact(&mut id));
    drawn.map_err(failed("reading", source))?;
    let text = format!("{KIND}\nversion {VERSION}\nid {}\n", StoreId(id));
    let unfinished = directory.join(UNFINISHED_FORMAT);
    let write = || {
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(failed("writing", &unfinished))?;
    let path = directory.join(FORMAT);
    fs::rename(&unfinished, &path).map_err(failed("writing", &path))?;
    sync(directory)
}

fn read_format(directory: &Path) -> Result<StoreId, DirectoryError> {
    let path = directory.join(FORMAT);
    let mut text = Vec::new();
    let read =
        File::open(&path).and_then(|file| file.take(FORMAT_BYTES_MAX).read_to_end(&mut text));
    read.map_err(failed("reading", &path))?;
    let garbled = || DirectoryError::Garbled(directory.to_owned());
    let text = String::from_utf8(text).map_err(|_| garbled())?;
    let mut lines = text.lines();
    let kind = lines.next().filter(|kind| *kind == KIND);
    let version = kind.and_then(|_| lines.next()?.strip_prefix("version ")?.parse().ok());
    match version.ok_or_else(garbled)? {
        VERSION => {}
        found if found > VERSION => {
            return Err(DirectoryError::Newer { path: directory.to_owned(), found });
        }
        _ => return Err(garbled()),
    }
    let id = lines.next().and_then(|line| line.strip_prefix("id ")).and_then(StoreId::parse);
    id.filter(|_| lines.next().is_none()).ok_or_else(garbled)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
pub(crate) mod tests;
