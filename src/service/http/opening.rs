//! Opening files below the root, and keeping them in the cache.
//!
//! Called for requests that the cache could not answer. Invariant: only regular files get out of
//! here; opening follows no symbolic link, does not leave the root, and waits for no FIFO's writer.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use crate::error::{Errno, Error};
use crate::fs::{Directory, File};
use crate::protocol::http1::Status;
use crate::time;

use super::file_cache::{CachedFile, Content};
use super::files::{Description, Identity, relative_path};
use super::local::HttpShard;
use super::settings::FILE_CACHED_BYTES_MAX;

impl HttpShard {
    /// The file that a path names, or the status to answer.
    pub(super) async fn open_file(&self, encoded: &[u8]) -> Result<Rc<CachedFile<File>>, Status> {
        let cached = self.files.borrow_mut().get_or_look(encoded, time::now());
        if let Some(file) = cached {
            return Ok(file);
        }
        let opened = self.open_and_look(encoded).await;
        let (file, path, identity) = match opened {
            Ok(opened) => opened,
            Err(status) => {
                self.files.borrow_mut().forget(encoded);
                return Err(status);
            }
        };
        let renewed = self.files.borrow_mut().renew(encoded, &identity, time::now());
        if let Some(file) = renewed {
            return Ok(file);
        }
        let file = load(file, &path, identity).await?;
        Ok(self.files.borrow_mut().insert(encoded, file, time::now()))
    }

    async fn open_and_look(&self, encoded: &[u8]) -> Result<(File, Vec<u8>, Identity), Status> {
        let path = relative_path(encoded)?;
        let file = self
            .root()
            .await?
            .open_file(OsStr::from_bytes(&path))
            .await
            .map_err(|error| status_of(&error))?;
        let status = file.metadata().await.map_err(|error| status_of(&error))?;
        if !status.is_file() {
            return Err(Status::NotFound);
        }
        let modified = status.modified().duration_since(UNIX_EPOCH).unwrap_or_default();
        let identity = Identity {
            inode: status.inode(),
            size: status.len(),
            modified_s: modified.as_secs(),
            modified_ns: modified.subsec_nanos(),
        };
        Ok((file, path, identity))
    }

    async fn root(&self) -> Result<&Directory, Status> {
        if self.root.get().is_none() {
            let Some(path) = &self.service.settings.files_root else {
                return Err(Status::NotFound);
            };
            let directory = Directory::open(path).await.map_err(|error| {
                tracing::warn!(%error, "the root of /files/ cannot be opened");
                status_of(&error)
            })?;
            // Another connection may have been faster; its directory is as good.
            let _ = self.root.set(directory);
        }
        self.root.get().ok_or(Status::InternalError)
    }
}

/// Takes a small file into memory; keeps a large one open.
async fn load(file: File, path: &[u8], mut identity: Identity) -> Result<CachedFile<File>, Status> {
    if identity.size > FILE_CACHED_BYTES_MAX {
        let description = Description::new(path, identity);
        return Ok(CachedFile { description, content: Content::Open(file) });
    }
    let mut content = Vec::with_capacity(identity.size as usize);
    while (content.len() as u64) < identity.size {
        let (before, offset) = (content.len(), content.len() as u64);
        let read = file.read_at(content, offset).await.map_err(|error| status_of(&error))?;
        content = read.into_vec();
        if content.len() == before {
            break;
        }
    }
    // What is there counts, should the file have changed since it was looked at.
    content.truncate(identity.size as usize);
    identity.size = content.len() as u64;
    let description = Description::new(path, identity);
    Ok(CachedFile { description, content: Content::Memory(content.into_boxed_slice()) })
}

/// What a failed open is answered with. Whether something outside of the root exists stays unsaid.
fn status_of(error: &Error) -> Status {
    match error.errno() {
        Some(Errno(
            libc::ENOENT
            | libc::ENOTDIR
            | libc::ELOOP
            | libc::EXDEV
            | libc::ENAMETOOLONG
            | libc::EISDIR
            | libc::ENXIO,
        )) => Status::NotFound,
        Some(Errno(libc::EACCES | libc::EPERM)) => Status::Forbidden,
        Some(Errno(libc::EMFILE | libc::ENFILE)) => Status::Unavailable,
        _ => Status::InternalError,
    }
}
