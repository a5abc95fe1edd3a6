//! The files that the kernel knows of the failing file system, by the number it knows them by.
//!
//! Each is held open by path only, so that a number stays with its file whatever is renamed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo};
use rustix::fs::{AtFlags, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::diary::Identity;

/// A file, and the name by which it was found or that it was given last.
struct Node {
    file: Arc<OwnedFd>,
    name: OsString,
    identity: Identity,
    lookups: u64,
}

pub(super) struct Nodes {
    state: Mutex<State>,
}

struct State {
    by_number: HashMap<u64, Node>,
    by_identity: HashMap<Identity, u64>,
    next: u64,
}

const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Nodes {
    /// With this folder as the root.
    pub(super) fn new(root: OwnedFd) -> rustix::io::Result<Self> {
        let identity = identity(&fstat(&root)?);
        let number = INodeNo::ROOT.0;
        let root = Node { file: Arc::new(root), name: OsString::new(), identity, lookups: 1 };
        let state = State {
            by_number: HashMap::from([(number, root)]),
            by_identity: HashMap::from([(identity, number)]),
            next: number + 1,
        };
        Ok(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn file(&self, number: INodeNo) -> Result<Arc<OwnedFd>, Errno> {
        self.state().by_number.get(&number.0).map(|node| node.file.clone()).ok_or(Errno::STALE)
    }

    pub(super) fn name(&self, number: INodeNo) -> String {
        let state = self.state();
        let node = state.by_number.get(&number.0);
        node.map(|node| node.name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What the host knows a file by.
    pub(super) fn identity(&self, number: INodeNo) -> Result<Identity, Errno> {
        self.state().by_number.get(&number.0).map(|node| node.identity).ok_or(Errno::STALE)
    }

    /// Finds a file in a folder and counts that the kernel knows it.
    pub(super) fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr, Errno> {
        let folder = self.file(parent)?;
        let file = openat(&*folder, name, PATH_ONLY, Mode::empty())?;
        let stat = fstat(&file)?;
        let identity = identity(&stat);
        let mut state = self.state();
        let state = &mut *state;
        let number = *state.by_identity.entry(identity).or_insert_with(|| {
            state.next += 1;
            state.next - 1
        });
        let file = Arc::new(file);
        let new = || Node { file, name: name.to_owned(), identity, lookups: 0 };
        let node = state.by_number.entry(number).or_insert_with(new);
        node.lookups += 1;
        name.clone_into(&mut node.name);
        Ok(attributes(number, &stat))
    }

    pub(super) fn attributes(&self, number: INodeNo) -> Result<FileAttr, Errno> {
        let file = self.file(number)?;
        Ok(attributes(number.0, &fstat(&*file)?))
    }

    /// The kernel forgets so many of its look-ups.
    pub(super) fn forget(&self, number: INodeNo, lookups: u64) {
        let mut state = self.state();
        let Some(node) = state.by_number.get_mut(&number.0) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0 {
            let identity = node.identity;
            state.by_number.remove(&number.0);
            state.by_identity.remove(&identity);
        }
    }

    /// The size that goes with a name, if it is the last one of a regular file.
    pub(super) fn size_of_last_name(&self, parent: INodeNo, name: &OsStr) -> i64 {
        let Ok(folder) = self.file(parent) else { return 0 };
        let stat = rustix::fs::statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map_or(0, |stat| if stat.st_nlink == 1 && is_file(&stat) { stat.st_size } else { 0 })
    }

    /// A path by which the file can be opened anew or changed.
    pub(super) fn path(file: &OwnedFd) -> String {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}", file.as_raw_fd())
    }
}

/// What rules are matched with.
pub(super) fn text(name: &OsStr) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

fn is_file(stat: &Stat) -> bool {
    rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
}

#[allow(clippy::unnecessary_cast, reason = "the widths differ between machines")]
fn identity(stat: &Stat) -> Identity {
    (stat.st_dev as u64, stat.st_ino as u64)
}

pub(super) fn kind(mode: rustix::fs::FileType) -> FileType {
    match mode {
        rustix::fs::FileType::Directory => FileType::Directory,
        rustix::fs::FileType::Symlink => FileType::Symlink,
        rustix::fs::FileType::Fifo => FileType::NamedPipe,
        rustix::fs::FileType::Socket => FileType::Socket,
        rustix::fs::FileType::CharacterDevice => FileType::CharDevice,
        rustix::fs::FileType::BlockDevice => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

#[allow(clippy::unnecessary_cast, reason = "the widths differ between machines")]
fn attributes(number: u64, stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanos: u64| -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos as u32)
    };
    let changed = time(stat.st_ctime as i64, stat.st_ctime_nsec as u64);
    FileAttr {
        ino: INodeNo(number),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime as i64, stat.st_atime_nsec as u64),
        mtime: time(stat.st_mtime as i64, stat.st_mtime_nsec as u64),
        ctime: changed,
        crtime: changed,
        kind: kind(rustix::fs::FileType::from_raw_mode(stat.st_mode)),
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: stat.st_rdev as u32,
        blksize: stat.st_blksize as u32,
        flags: 0,
    }
}
