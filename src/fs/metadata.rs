//! A file's status, as statx(2) tells it.
//!
//! Made by [`super::File::metadata`] and [`super::metadata`]. Invariant: what the file system does
//! not tell is `None`, never a made-up zero.

use std::time::{Duration, SystemTime};

use crate::op::Status;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// The file system does not tell.
    Unknown,
}

impl FileKind {
    /// From the file type bits of a mode (inode(7)).
    pub(super) fn from_mode(mode: u32) -> Self {
        match mode & libc::S_IFMT {
            libc::S_IFREG => FileKind::File,
            libc::S_IFDIR => FileKind::Directory,
            libc::S_IFLNK => FileKind::Symlink,
            libc::S_IFIFO => FileKind::Fifo,
            libc::S_IFSOCK => FileKind::Socket,
            libc::S_IFCHR => FileKind::CharacterDevice,
            libc::S_IFBLK => FileKind::BlockDevice,
            _ => FileKind::Unknown,
        }
    }

    /// From the type of a directory entry, which is the same bits moved (`DTTOIF` of readdir(3)).
    pub(super) fn from_entry_type(entry_type: u8) -> Self {
        Self::from_mode(u32::from(entry_type) << 12)
    }
}

/// What O_DIRECT asks of memory and offsets, both in bytes (STATX_DIOALIGN of statx(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of a buffer's address.
    pub memory: u32,
    /// Of offset and length of a read or write.
    pub offset: u32,
}

/// A file's status.
pub struct Metadata(pub(super) Box<Status>);

impl Metadata {
    fn fields(&self) -> &libc::statx {
        &self.0.fields
    }

    /// Bytes.
    pub fn len(&self) -> u64 {
        self.fields().stx_size
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What kind of file it is.
    pub fn kind(&self) -> FileKind {
        FileKind::from_mode(self.mode())
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind() == FileKind::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind() == FileKind::Directory
    }

    /// Whether it is a symbolic link: only [`super::symlink_metadata`] looks at one itself.
    pub fn is_symlink(&self) -> bool {
        self.kind() == FileKind::Symlink
    }

    /// Kind and permissions (inode(7)).
    pub fn mode(&self) -> u32 {
        u32::from(self.fields().stx_mode)
    }

    /// The permissions alone, with set-user-ID, set-group-ID and sticky bit: 0o7777 of the mode.
    pub fn permissions(&self) -> u32 {
        self.mode() & 0o7777
    }

    /// The owner.
    pub fn uid(&self) -> u32 {
        self.fields().stx_uid
    }

    /// The group.
    pub fn gid(&self) -> u32 {
        self.fields().stx_gid
    }

    /// How many names it has.
    pub fn links(&self) -> u32 {
        self.fields().stx_nlink
    }

    /// The inode's number, unique within its file system.
    pub fn inode(&self) -> u64 {
        self.fields().stx_ino
    }

    /// The device that its file system is on, as major and minor number: with the inode's number it
    /// says whether two files are one.
    pub fn device(&self) -> (u32, u32) {
        (self.fields().stx_dev_major, self.fields().stx_dev_minor)
    }

    /// What a device file stands for, as major and minor number; zeros for others.
    pub fn device_of(&self) -> (u32, u32) {
        (self.fields().stx_rdev_major, self.fields().stx_rdev_minor)
    }

    /// The block size for efficient reads and writes, in bytes.
    pub fn block_size(&self) -> u32 {
        self.fields().stx_blksize
    }

    /// Space that it takes, in units of 512 bytes. Less than its length if it has holes.
    pub fn blocks(&self) -> u64 {
        self.fields().stx_blocks
    }

    /// The last change of the contents. Before 1970 counts as 1970.
    pub fn modified(&self) -> SystemTime {
        time(&self.fields().stx_mtime)
    }

    /// The last read, as far as the mount keeps it (relatime, noatime of mount(8)).
    pub fn accessed(&self) -> SystemTime {
        time(&self.fields().stx_atime)
    }

    /// The last change of the status: of contents, mode, owner or names.
    pub fn changed(&self) -> SystemTime {
        time(&self.fields().stx_ctime)
    }

    /// When the file was made, if the file system keeps that.
    pub fn created(&self) -> Option<SystemTime> {
        self.has(libc::STATX_BTIME).then(|| time(&self.fields().stx_btime))
    }

    /// What O_DIRECT asks of memory and offsets. `None` if the kernel (before 6.1) or the file
    /// system does not tell, or does not know O_DIRECT.
    pub fn direct_alignment(&self) -> Option<DirectAlignment> {
        let fields = self.fields();
        let alignment = DirectAlignment {
            memory: fields.stx_dio_mem_align,
            offset: fields.stx_dio_offset_align,
        };
        // Zeros say that this file has no direct I/O.
        (self.has(libc::STATX_DIOALIGN) && alignment.offset > 0).then_some(alignment)
    }

    fn has(&self, field: u32) -> bool {
        self.fields().stx_mask & field != 0
    }
}

fn time(time: &libc::statx_timestamp) -> SystemTime {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, time.tv_nsec)
}

impl std::fmt::Debug for Metadata {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metadata")
            .field("kind", &self.kind())
            .field("len", &self.len())
            .field("permissions", &format_args!("{:o}", self.permissions()))
            .finish_non_exhaustive()
    }
}
