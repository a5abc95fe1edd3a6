//! A file system of its own in a sparse file, whose power can be cut; or one in memory.
//!
//! The cut is the shutdown that ext4 and xfs know (FS_IOC_SHUTDOWN without a flush of the log, see
//! fs/ext4/ioctl.c and fs/xfs/xfs_fsops.c of the kernel): page cache and journal that are not on
//! the device are lost, every later call fails. Invariant: nothing stays mounted after the guard.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

/// `FS_IOC_SHUTDOWN`, `_IOR('X', 125, __u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// `FS_SHUTDOWN_FLAGS_NOLOGFLUSH`.
const WITHOUT_FLUSH: u32 = 2;

/// `FIFREEZE` and `FITHAW` of ioctl_fs(2): `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
const THAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;

/// Sparse; xfs takes no less than 300 MB.
const IMAGE_BYTES: u64 = 400 << 20;

const PREFIX: &str = "annulus-power-";

pub(crate) struct Image {
    root: PathBuf,
}

impl Image {
    /// Makes and mounts one, or says why not and gives nothing: the test is skipped.
    pub(crate) fn new(kind: &str) -> Option<Self> {
        Self::of_size(kind, IMAGE_BYTES)
    }

    /// The same, with so much room.
    pub(crate) fn of_size(kind: &str, bytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may mount");
            return None;
        }
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        remove_what_others_left();
        let root = std::env::temp_dir().join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("disk")).expect("a writable folder");
        let image = Self { root };
        let file = File::create(image.file()).expect("a writable folder");
        file.set_len(bytes).expect("a sparse file");
        let made = match kind {
            "xfs" => run(Command::new("mkfs.xfs").arg("-q").arg(image.file())),
            "tmpfs" => Ok(()),
            _ => run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image.file())),
        };
        let size = format!("size={bytes}");
        let mounted = made.and_then(|()| match kind {
            "tmpfs" => run(Command::new("mount")
                .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
                .arg(image.path())),
            _ => image.mount(),
        });
        match mounted {
            Ok(()) => Some(image),
            Err(error) => {
                println!("skipped: a {kind} image: {error}");
                None
            }
        }
    }

    fn file(&self) -> PathBuf {
        self.root.join("image")
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join("disk")
    }

    fn mount(&self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.file()).arg(self.path()))
    }

    /// From now on nothing reaches the disk, and what has not reached it is lost.
    pub(crate) fn cut(&self) {
        control(&self.path(), SHUTDOWN, WITHOUT_FLUSH).expect("shutting down");
    }

    /// Until it is thawed, whoever writes waits.
    pub(crate) fn freeze(&self) {
        control(&self.path(), FREEZE, 0).expect("freezing");
    }

    /// Lets writers go on, if it is frozen.
    pub(crate) fn thaw(&self) {
        let _ = control(&self.path(), THAW, 0);
    }

    /// The power is back: unmounts and mounts again. Nobody may use it.
    pub(crate) fn restart(&self) {
        for _ in 0..500 {
            if unmount(self.path(), UnmountFlags::empty()).is_ok() {
                self.mount().expect("it was mounted before");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("{} is in use", self.path().display());
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        remove(&self.root);
    }
}

fn control(folder: &Path, request: libc::Ioctl, value: u32) -> std::io::Result<()> {
    let folder = File::open(folder)?;
    // SAFETY: the requests read one word at most, and it outlives the call.
    match unsafe { libc::ioctl(folder.as_raw_fd(), request, &value) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn remove(root: &Path) {
    // Frozen, it would stay when it is unmounted, with its loop device and whoever writes. What is
    // not frozen, or is the file system around it, answers EINVAL.
    let _ = control(&root.join("disk"), THAW, 0);
    // The loop device goes with the mount.
    while unmount(root.join("disk"), UnmountFlags::DETACH).is_ok() {}
    let _ = fs::remove_dir_all(root);
}

/// Unmounts and removes what a process that was ended by force had mounted.
fn remove_what_others_left() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = process.and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            remove(&entry.path());
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}
