//! A folder of a test's own, removed at its end; kept when a test says that it failed.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

pub(crate) struct Scratch {
    path: PathBuf,
    is_kept: Cell<bool>,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("annulus-crash-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a writable folder");
        Self { path, is_kept: Cell::new(false) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves it for who looks into a failure, if the environment asks for it.
    pub(crate) fn keep(&self) {
        if std::env::var_os("ANNULUS_CRASH_KEEP").is_some() {
            println!("kept: {}", self.path.display());
            self.is_kept.set(true);
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept.get() {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
