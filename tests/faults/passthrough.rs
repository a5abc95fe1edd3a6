//! The failing file system: a folder seen through FUSE, each call after a question to the faults.
//!
//! Nothing is cached, so that every read and write of the process under test arrives here with its
//! own size. Syncs are counted and failed, but not passed on: nobody cuts the power of this layer.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{self, AtFlags, FallocateFlags, Mode, OFlags, Timestamps};

use super::nodes::{Nodes, kind, text};
use super::plan::{Call, Faults};

/// Nothing is remembered by the kernel.
const NO_TIME: Duration = Duration::ZERO;

/// `fallocate(2)` with this keeps the size.
const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;

pub(super) struct Passthrough {
    nodes: Nodes,
    faults: Arc<Faults>,
    opened: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
}

/// An error of the kernel's, from a call or from a rule.
struct Failure(i32);

impl From<rustix::io::Errno> for Failure {
    fn from(errno: rustix::io::Errno) -> Self {
        Self(errno.raw_os_error())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<i32> for Failure {
    fn from(errno: i32) -> Self {
        Self(errno)
    }
}

impl From<Failure> for Errno {
    fn from(failure: Failure) -> Self {
        Errno::from_i32(failure.0)
    }
}

type Outcome<T> = Result<T, Failure>;

impl Passthrough {
    pub(super) fn new(root: OwnedFd, faults: Arc<Faults>) -> rustix::io::Result<Self> {
        let nodes = Nodes::new(root)?;
        Ok(Self { nodes, faults, opened: Mutex::default(), next: AtomicU64::new(1) })
    }

    fn opened(&self) -> MutexGuard<'_, HashMap<u64, Arc<File>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, handle: FileHandle) -> Outcome<Arc<File>> {
        self.opened().get(&handle.0).cloned().ok_or(Failure(libc::EBADF))
    }

    /// Opens a file that is known, for what the flags ask of access.
    fn open_node(&self, number: INodeNo, flags: OFlags) -> Outcome<FileHandle> {
        let node = self.nodes.file(number)?;
        let access = flags.intersection(OFlags::ACCMODE | OFlags::DIRECTORY) | OFlags::CLOEXEC;
        let file = fs::open(Nodes::path(&node), access, Mode::empty())?;
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.opened().insert(handle, Arc::new(File::from(file)));
        Ok(FileHandle(handle))
    }

    fn write_file(
        &self,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: OpenFlags,
    ) -> Outcome<u32> {
        let name = self.nodes.name(number);
        let is_halved = self.faults.arrives(Call::Write, &name)?;
        let file = self.file(handle)?;
        let size = file.metadata()?.len();
        let wanted = if is_halved { data.len().div_ceil(2) } else { data.len() };
        let growth = (offset + wanted as u64).saturating_sub(size) as i64;
        let missing = growth - self.faults.room_for(growth);
        let possible = wanted - (missing as usize).min(wanted);
        if possible == 0 && wanted > 0 {
            return Err(Failure(libc::ENOSPC));
        }
        file.write_all_at(&data[..possible], offset)?;
        self.faults.grew(file.metadata()?.len() as i64 - size as i64);
        let syncs = flags.0 & (libc::O_DSYNC | libc::O_SYNC) != 0;
        let synced = if syncs { self.faults.arrives(Call::Sync, &name) } else { Ok(false) };
        let durable = syncs && synced.is_ok();
        let identity = self.nodes.identity(number)?;
        self.faults.diary.wrote(identity, offset, &data[..possible], durable);
        synced?;
        Ok(possible as u32)
    }

    fn read_file(
        &self,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
    ) -> Outcome<Vec<u8>> {
        let is_halved = self.faults.arrives(Call::Read, &self.nodes.name(number))?;
        let size = if is_halved { size.div_ceil(2) } else { size };
        let mut data = vec![0; size as usize];
        let count = self.file(handle)?.read_at(&mut data, offset)?;
        data.truncate(count);
        Ok(data)
    }

    fn allocate(
        &self,
        number: INodeNo,
        handle: FileHandle,
        range: std::ops::Range<u64>,
        mode: i32,
    ) -> Outcome<()> {
        self.faults.arrives(Call::Allocate, &self.nodes.name(number))?;
        let file = self.file(handle)?;
        let size = file.metadata()?.len();
        let growth = range.end.saturating_sub(size) as i64;
        if mode & !KEEP_SIZE == 0 && self.faults.room_for(growth) < growth {
            return Err(Failure(libc::ENOSPC));
        }
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        fs::fallocate(&*file, mode, range.start, range.end - range.start)?;
        let grown = file.metadata()?.len();
        self.faults.grew(grown as i64 - size as i64);
        self.faults.diary.resized(self.nodes.identity(number)?, grown);
        Ok(())
    }

    fn truncate(&self, number: INodeNo, size: u64) -> Outcome<()> {
        self.faults.arrives(Call::Truncate, &self.nodes.name(number))?;
        let node = self.nodes.file(number)?;
        let file = fs::open(Nodes::path(&node), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let before = fs::fstat(&file)?.st_size;
        fs::ftruncate(&file, size)?;
        self.faults.grew(size as i64 - before);
        self.faults.diary.resized(self.nodes.identity(number)?, size);
        Ok(())
    }

    fn create_file(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Outcome<(FileAttr, FileHandle)> {
        self.faults.arrives(Call::Create, &text(name))?;
        let folder = self.nodes.file(parent)?;
        let flags = OFlags::from_bits_retain(flags as u32);
        let kept = OFlags::ACCMODE | OFlags::EXCL | OFlags::TRUNC;
        let flags = flags.intersection(kept) | OFlags::CREATE | OFlags::CLOEXEC;
        let is_new = fs::statat(&*folder, name, AtFlags::SYMLINK_NOFOLLOW).is_err();
        drop(fs::openat(&*folder, name, flags, Mode::from_bits_retain(mode))?);
        let attributes = self.nodes.look_up(parent, name)?;
        if is_new {
            self.enter_new(parent, name, attributes.ino, false)?;
        }
        Ok((attributes, self.open_node(attributes.ino, flags)?))
    }

    /// Enters a file or folder in the diary that has just been made.
    fn enter_new(
        &self,
        parent: INodeNo,
        name: &OsStr,
        number: INodeNo,
        is_folder: bool,
    ) -> Outcome<()> {
        let (folder, file) = (self.nodes.identity(parent)?, self.nodes.identity(number)?);
        self.faults.diary.made(folder, &text(name), file, is_folder);
        Ok(())
    }

    fn list(&self, handle: FileHandle, offset: u64, reply: &mut ReplyDirectory) -> Outcome<()> {
        let folder = self.file(handle)?;
        let entries = fs::Dir::read_from(&*folder)?;
        for (place, entry) in entries.enumerate().skip(offset as usize) {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let kind = kind(entry.file_type());
            if reply.add(INodeNo(entry.ino()), place as u64 + 1, kind, name) {
                break;
            }
        }
        Ok(())
    }

    fn change_times(
        &self,
        number: INodeNo,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
    ) -> Outcome<()> {
        let timespec = |time: Option<TimeOrNow>| match time {
            None => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
            Some(TimeOrNow::Now) => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
            Some(TimeOrNow::SpecificTime(time)) => {
                let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                fs::Timespec {
                    tv_sec: since.as_secs() as i64,
                    tv_nsec: since.subsec_nanos().into(),
                }
            }
        };
        let times =
            Timestamps { last_access: timespec(accessed), last_modification: timespec(modified) };
        let path = Nodes::path(&*self.nodes.file(number)?);
        Ok(fs::utimensat(fs::CWD, path, &times, AtFlags::empty())?)
    }
}

/// Answers with the value, or with the error.
macro_rules! answer {
    ($reply:ident, $outcome:expr, $then:expr) => {
        match $outcome {
            Ok(value) => $then($reply, value),
            Err(failure) => $reply.error(Errno::from(Failure::from(failure))),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer!(reply, self.nodes.look_up(parent, name), entry);
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.nodes.forget(number, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(reply, self.nodes.attributes(number), attributes);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        _changed: Option<SystemTime>,
        _: Option<FileHandle>,
        _created: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let outcome = (|| {
            if let Some(size) = size {
                self.truncate(number, size)?;
            }
            if let Some(mode) = mode {
                let path = Nodes::path(&*self.nodes.file(number)?);
                fs::chmod(path, Mode::from_bits_retain(mode & 0o7777))?;
            }
            if accessed.is_some() || modified.is_some() {
                self.change_times(number, accessed, modified)?;
            }
            Outcome::Ok(self.nodes.attributes(number)?)
        })();
        answer!(reply, outcome, attributes);
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self.nodes.file(number).and_then(|node| fs::readlinkat(&*node, "", vec![]));
        answer!(reply, target, |reply: ReplyData, to: std::ffi::CString| reply.data(to.as_bytes()));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let outcome = (|| {
            self.faults.arrives(Call::Create, &text(name))?;
            let folder = self.nodes.file(parent)?;
            fs::mkdirat(&*folder, name, Mode::from_bits_retain(mode))?;
            let attributes = self.nodes.look_up(parent, name)?;
            self.enter_new(parent, name, attributes.ino, true)?;
            Outcome::Ok(attributes)
        })();
        answer!(reply, outcome, entry);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome = (|| {
            self.faults.arrives(Call::Unlink, &text(name))?;
            let size = self.nodes.size_of_last_name(parent, name);
            fs::unlinkat(&*self.nodes.file(parent)?, name, AtFlags::empty())?;
            self.faults.grew(-size);
            self.faults.diary.removed(self.nodes.identity(parent)?, &text(name));
            Outcome::Ok(())
        })();
        answer!(reply, outcome, empty);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let folder = self.nodes.file(parent);
        let outcome = folder.and_then(|folder| fs::unlinkat(&*folder, name, AtFlags::REMOVEDIR));
        answer!(reply, outcome, empty);
    }

    fn symlink(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let outcome = (|| {
            fs::symlinkat(target, &*self.nodes.file(parent)?, name)?;
            Outcome::Ok(self.nodes.look_up(parent, name)?)
        })();
        answer!(reply, outcome, entry);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let outcome = (|| {
            self.faults.arrives(Call::Rename, &text(new_name))?;
            let (old, new) = (self.nodes.file(parent)?, self.nodes.file(new_parent)?);
            let replaces = flags.is_empty();
            let size =
                if replaces { self.nodes.size_of_last_name(new_parent, new_name) } else { 0 };
            let flags = fs::RenameFlags::from_bits_retain(flags.bits());
            fs::renameat_with(&*old, name, &*new, new_name, flags)?;
            self.faults.grew(-size);
            let folders = (self.nodes.identity(parent)?, self.nodes.identity(new_parent)?);
            let (from, to) = ((folders.0, &*text(name)), (folders.1, &*text(new_name)));
            self.faults.diary.renamed(from, to);
            // From now on the file is known by this name.
            let number = self.nodes.look_up(new_parent, new_name)?.ino;
            self.nodes.forget(number, 1);
            Outcome::Ok(())
        })();
        answer!(reply, outcome, empty);
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let outcome = (|| {
            let path = Nodes::path(&*self.nodes.file(number)?);
            let folder = self.nodes.file(parent)?;
            fs::linkat(fs::CWD, path, &*folder, name, AtFlags::SYMLINK_FOLLOW)?;
            let (place, file) = (self.nodes.identity(parent)?, self.nodes.identity(number)?);
            self.faults.diary.linked(place, &text(name), file);
            Outcome::Ok(self.nodes.look_up(parent, name)?)
        })();
        answer!(reply, outcome, entry);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let outcome = (|| {
            self.faults.arrives(Call::Open, &self.nodes.name(number))?;
            self.open_node(number, OFlags::from_bits_retain(flags.0 as u32))
        })();
        answer!(reply, outcome, |reply: ReplyOpen, handle| reply.opened(handle, UNCACHED));
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let created = |reply: ReplyCreate, (attributes, handle): (FileAttr, FileHandle)| {
            reply.created(&NO_TIME, &attributes, Generation(0), handle, UNCACHED);
        };
        answer!(reply, self.create_file(parent, name, mode, flags), created);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let outcome = self.read_file(number, handle, offset, size);
        answer!(reply, outcome, |reply: ReplyData, data: Vec<u8>| reply.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        answer!(reply, self.write_file(number, handle, offset, data, flags), ReplyWrite::written);
    }

    /// There is nothing to do, and the kernel asks no more: a process that is ended would close its
    /// files, and wait for ever for the answer of a file system that it serves itself.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.opened().remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let outcome = self.faults.arrives(Call::Sync, &self.nodes.name(number));
        if let (Ok(_), Ok(file)) = (&outcome, self.nodes.identity(number)) {
            self.faults.diary.synced(file);
        }
        answer!(reply, outcome, |reply: ReplyEmpty, _| reply.ok());
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let outcome = self.open_node(number, OFlags::RDONLY | OFlags::DIRECTORY);
        let opened = |reply: ReplyOpen, handle| reply.opened(handle, FopenFlags::empty());
        answer!(reply, outcome, opened);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let outcome = self.list(handle, offset, &mut reply);
        answer!(reply, outcome, |reply: ReplyDirectory, ()| reply.ok());
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.opened().remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let outcome = self.faults.arrives(Call::SyncDirectory, &self.nodes.name(number));
        if let (Ok(_), Ok(folder)) = (&outcome, self.nodes.identity(number)) {
            self.faults.diary.synced_folder(folder);
        }
        answer!(reply, outcome, |reply: ReplyEmpty, _| reply.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let outcome = self.nodes.file(INodeNo::ROOT).and_then(|root| fs::fstatvfs(&*root));
        let told = |reply: ReplyStatfs, it: fs::StatVfs| {
            let (block, fragment) = (it.f_bsize as u32, it.f_frsize as u32);
            let (files, free) = (it.f_files, it.f_ffree);
            reply.statfs(it.f_blocks, it.f_bfree, it.f_bavail, files, free, block, 255, fragment);
        };
        answer!(reply, outcome, told);
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        answer!(reply, self.allocate(number, handle, offset..offset + length, mode), empty);
    }
}

/// Every read and write arrives as it was asked for, several of one file at a time.
const UNCACHED: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

fn entry(reply: ReplyEntry, attributes: FileAttr) {
    reply.entry(&NO_TIME, &attributes, Generation(0));
}

fn attributes(reply: ReplyAttr, attributes: FileAttr) {
    reply.attr(&NO_TIME, &attributes);
}

fn empty(reply: ReplyEmpty, (): ()) {
    reply.ok();
}
