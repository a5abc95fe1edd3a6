//! Where the servers of a run find their programs, and where they keep their files.
//!
//! Made once by a run. Invariant: what a server is given is an absolute path, since servers run in
//! the run's own directory.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::load::command::payload;

/// The name under [`Site::directory`] of what HTTP servers serve.
pub(crate) const FILES: &str = "files";
/// The file that is fetched, and its size.
pub(crate) const FILE_NAME: &str = "1k.bin";
pub(crate) const FILE_BYTES: usize = 1024;
/// The key that is fetched over HTTP, and the size of its value.
pub(crate) const KV_PATH: &str = "/kv/bench";
pub(crate) const KV_BYTES: usize = 64;

/// Where the programs are and what they may use.
#[derive(Debug)]
pub(crate) struct Site {
    /// The daemon.
    pub(crate) annulus: PathBuf,
    /// This program, for floors and echo servers.
    pub(crate) bench: PathBuf,
    /// A directory of this run for configurations, logs and files to serve.
    pub(crate) directory: PathBuf,
    /// Where data directories and the file of the disk workloads are made.
    pub(crate) disk: PathBuf,
}

impl Site {
    /// With the daemon `annulus`, or the one beside this program, which must be there if `wanted`.
    pub(crate) fn find(
        annulus: Option<&Path>,
        wanted: bool,
        directory: &RunDirectory,
        disk: &Path,
    ) -> Result<Self, Failure> {
        let bench =
            std::env::current_exe().map_err(|error| Failure::failed("find this program", error))?;
        let annulus = annulus.map_or_else(|| bench.with_file_name("annulus"), Path::to_path_buf);
        if wanted && !annulus.is_file() {
            return Err(Failure::usage(format!(
                "no daemon at {}: run `cargo build --release` first, or name it with --annulus",
                annulus.display()
            )));
        }
        let annulus = fs::canonicalize(&annulus).unwrap_or(annulus);
        Ok(Self { annulus, bench, directory: directory.0.clone(), disk: disk.to_owned() })
    }
}

/// A directory of this run under the system's temporary one, removed with everything in it.
pub(crate) struct RunDirectory(PathBuf);

impl RunDirectory {
    /// A new one, with the file that HTTP servers serve.
    pub(crate) fn make() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("annulus-bench-{}", std::process::id()));
        let files = path.join(FILES);
        fs::create_dir_all(&files)
            .and_then(|()| fs::write(files.join(FILE_NAME), payload(FILE_BYTES)))
            .map_err(|error| Failure::failed(path.display(), error))?;
        // nginx gives up root's rights before it reads files.
        open_to_all(&path).map_err(|error| Failure::failed(path.display(), error))?;
        Ok(Self(path))
    }
}

fn open_to_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        // Nothing in it is worth a message.
        let _ = fs::remove_dir_all(&self.0);
    }
}
