//! A file system of the test's own that fails on demand: a folder, mounted a second time by FUSE.
//!
//! Used by the tests of files and of the daemon, each including it by its path. The process under
//! test works in [`FailingDisk::path`], the test looks at [`FailingDisk::healthy`] and sets rules
//! on [`FailingDisk::faults`]. Invariant: the mount and its folders are gone when the guard is.

#![allow(dead_code, reason = "not every test binary needs every fault")]

pub(crate) mod diary;
mod nodes;
mod passthrough;
mod plan;
pub(crate) mod remains;

use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuser::{BackgroundSession, Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};

use diary::Diary;
use passthrough::Passthrough;
pub(crate) use plan::{Call, Effect, Faults, Rule};

/// All but one can be held at a time while others are served. Each has a buffer of 16 MiB.
const SERVERS: usize = 6;

const PREFIX: &str = "annulus-failing-disk-";

/// A mounted failing file system.
pub(crate) struct FailingDisk {
    root: PathBuf,
    faults: Arc<Faults>,
    session: Option<BackgroundSession>,
}

impl FailingDisk {
    /// Mounts one, or says why there is none and returns nothing: the test is skipped.
    pub(crate) fn new() -> Option<Self> {
        if let Err(error) = fs::File::options().read(true).write(true).open("/dev/fuse") {
            println!("skipped: /dev/fuse: {error}");
            return None;
        }
        static MOUNTED: AtomicUsize = AtomicUsize::new(0);
        let number = MOUNTED.fetch_add(1, Ordering::Relaxed);
        remove_what_others_left();
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let root = std::env::temp_dir().join(name);
        for folder in ["healthy", "failing"] {
            fs::create_dir_all(root.join(folder)).expect("a writable folder");
        }
        let mut disk = Self { root, faults: Arc::default(), session: None };
        match disk.mount() {
            Ok(session) => disk.session = Some(session),
            Err(error) => {
                println!("skipped: mounting a FUSE file system: {error}");
                return None;
            }
        }
        Some(disk)
    }

    fn mount(&self) -> std::io::Result<BackgroundSession> {
        let healthy = fs::File::open(self.healthy())?;
        let file_system = Passthrough::new(healthy.into(), self.faults.clone())?;
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("annulus-failing-disk".to_owned()),
            MountOption::DefaultPermissions,
        ];
        config.n_threads = Some(SERVERS);
        Session::new(file_system, self.path(), &config)?.spawn()
    }

    /// The folder whose calls fail.
    pub(crate) fn path(&self) -> PathBuf {
        self.root.join("failing")
    }

    /// Begins to keep the diary. The disk is empty, and nobody works beside it from now on.
    pub(crate) fn keep_diary(&self) -> &Diary {
        let healthy = fs::metadata(self.healthy()).expect("it is there");
        self.faults.diary.begin((healthy.dev(), healthy.ino()));
        &self.faults.diary
    }

    /// The same files, without faults.
    pub(crate) fn healthy(&self) -> PathBuf {
        self.root.join("healthy")
    }
}

impl Deref for FailingDisk {
    type Target = Faults;

    fn deref(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for FailingDisk {
    fn drop(&mut self) {
        // Nobody can unmount while a call is held.
        self.faults.heal();
        let _ = unmount(self.path(), UnmountFlags::DETACH);
        drop(self.session.take());
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Unmounts and removes what a process that was ended by force had mounted.
fn remove_what_others_left() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let process = process.and_then(|rest| rest.split('-').next());
        if process.is_some_and(|id| !Path::new("/proc").join(id).exists()) {
            let _ = unmount(entry.path().join("failing"), UnmountFlags::DETACH);
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
