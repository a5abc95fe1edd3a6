//! Settings of the HTTP service, resolved once by the daemon. Plain data.
//!
//! Invariant: every wait has a time limit and every buffer a size limit; none can be turned off.

use std::path::PathBuf;
use std::time::Duration;

use crate::protocol::http1::Limits;

/// Slowest transfer that is put up with, on average over a body or a reply, once its timeout is
/// used up. Without it a peer that sends a byte now and then could hold a connection for good.
pub(super) const TRANSFER_BYTES_PER_SECOND_MIN: u64 = 4 * 1024;
/// Bytes read and dropped after an error, so that the peer gets to read the reply before a reset.
pub(super) const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a file that one read and one send move.
pub(super) const FILE_CHUNK_BYTES: usize = 128 * 1024;
/// Largest file whose content is kept in memory between two checks.
pub(super) const FILE_CACHED_BYTES_MAX: u64 = 16 * 1024;
/// Body of a digest or compression request.
pub(super) const COMPUTE_BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Jobs in the cpu pool's queue beyond which a request is told to come back.
pub(super) const COMPUTE_QUEUE_COUNT_MAX: usize = 512;

const _: () = assert!(COMPUTE_QUEUE_COUNT_MAX <= crate::limits::CPU_QUEUE_COUNT_MAX);
const _: () = assert!(FILE_CACHED_BYTES_MAX as usize <= FILE_CHUNK_BYTES);

/// How the HTTP service behaves.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// What a request may take.
    pub limits: Limits,
    /// From the first byte of a head to its last; also from the connection to its first byte.
    pub header_timeout: Duration,
    /// A body must come within this, and a second more for each 4 KiB of it.
    pub body_timeout: Duration,
    /// Between two requests of a connection.
    pub idle_timeout: Duration,
    /// A reply must leave within this, and a second more for each 4 KiB of it.
    pub send_timeout: Duration,
    /// How long a connection is read from after an error was sent.
    pub linger_timeout: Duration,
    /// Replies to pipelined requests are sent together until they reach this. Bytes.
    pub output_bytes_high: usize,
    /// Directory below which `/files/` looks; none: 404.
    pub files_root: Option<PathBuf>,
    /// Files kept open or in memory, per shard.
    pub file_cache_count_max: usize,
    /// How long an open file is served before its path is looked at again.
    pub file_cache_valid: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
            linger_timeout: Duration::from_secs(2),
            output_bytes_high: 64 * 1024,
            files_root: None,
            file_cache_count_max: 128,
            file_cache_valid: Duration::from_secs(1),
        }
    }
}
