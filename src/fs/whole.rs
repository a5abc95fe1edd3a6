//! Whole files: read to memory, and written from it.
//!
//! Called by programs with small files. Invariant: no more than a named limit is taken to memory.

use std::path::Path;

use super::File;
use crate::buffer::Payload;
use crate::error::{Error, Result};
use crate::limits;

/// Room for what a file holds that does not tell its length (as those of proc(5)), and the least
/// that it grows by.
const GROWTH_BYTES: usize = 8 * 1024;

/// Reads all of a file.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// The errors of openat2(2) and pread(2); `is_limit` if it is longer than
/// [`limits::FILE_READ_BYTES_MAX`].
pub async fn read(path: impl AsRef<Path>) -> Result<Vec<u8>> {
    const MAX: u64 = limits::FILE_READ_BYTES_MAX;
    let path = path.as_ref();
    let file = File::open(path).await?;
    let too_long = || {
        let what = path.display();
        Err(Error::limit(format!(
            "{what} is longer than {MAX} bytes; read it in parts, by read_at"
        )))
    };
    let length = file.metadata().await?.len();
    if length > MAX {
        return too_long();
    }
    // One more, so that the end shows without growing once more.
    let mut content = Vec::with_capacity(length as usize + 1);
    loop {
        let before = content.len();
        if before == content.capacity() {
            content.reserve(GROWTH_BYTES);
        }
        content = file.read_at(content, before as u64).await?.into_vec();
        if content.len() == before {
            return Ok(content);
        }
        if content.len() as u64 > MAX {
            return too_long();
        }
    }
}

/// Reads all of a file that is UTF-8.
///
/// Cancel-safe: it only looks.
///
/// # Errors
/// As [`read`]; an error that says so if it is not UTF-8.
pub async fn read_to_string(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path).await?).map_err(|error| {
        let message = format!("{} is no UTF-8: {}", path.display(), error.utf8_error());
        std::io::Error::new(std::io::ErrorKind::InvalidData, message).into()
    })
}

/// Writes a file anew: makes it if it is missing, and cuts what was there.
/// [`super::write_durably`] replaces a file in one step instead.
///
/// After an error, a dropped future or a crash the file may be empty or hold any prefix.
///
/// # Errors
/// The errors of openat2(2) and pwrite(2).
pub async fn write(path: impl AsRef<Path>, content: impl Into<Payload>) -> Result<()> {
    File::create(path).await?.write_at(content, 0).await.map(drop)
}
