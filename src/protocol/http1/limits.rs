//! Limits of what a peer may make us hold or scan, and their defaults.
//!
//! Read by the decoders of this folder; a server's settings end up in [`Limits`].
//! Invariant: every limit is checked while the input is still incomplete.

/// Request line and header fields together, with all line ends. Beyond it: 431.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Request target as it stands on the wire. Beyond it: 414.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Header field lines of one head. Beyond it: 431.
pub const FIELD_COUNT_MAX: usize = 100;
/// Bytes of a body after chunk decoding. Beyond it: 413.
pub const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Room on the request line for the method, the version and two spaces, beyond the target.
pub const REQUEST_LINE_SLACK_BYTES: usize = 64;
/// Field lines that fit the decoder's larger array; `Limits::field_count_max` is at most this.
pub const FIELD_SLOTS_MAX: usize = 128;
/// Hexadecimal digits of one chunk size; sixteen fill a `u64`.
pub const CHUNK_SIZE_DIGITS_MAX: u32 = 16;
/// Chunk extensions of one body, all chunks together. Beyond it: 400. A budget for the body
/// and not for the chunk, so that one-byte chunks with long extensions do not amplify.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 4 * 1024;
/// Trailer section of one body. It is validated and dropped. Beyond it: 431.
pub const TRAILER_BYTES_MAX: usize = 4 * 1024;
/// Entity tags looked at in one list of a precondition; a longer list does not match.
pub const ENTITY_TAG_COUNT_MAX: usize = 64;

const _: () = assert!(TARGET_BYTES_MAX + REQUEST_LINE_SLACK_BYTES < HEAD_BYTES_MAX);
const _: () = assert!(FIELD_COUNT_MAX <= FIELD_SLOTS_MAX);
const _: () = assert!(CHUNK_SIZE_DIGITS_MAX * 4 <= u64::BITS);

/// The limits that a server may set. Plain data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// See [`HEAD_BYTES_MAX`]. Bytes.
    pub head_bytes_max: usize,
    /// See [`TARGET_BYTES_MAX`]. Bytes.
    pub target_bytes_max: usize,
    /// See [`FIELD_COUNT_MAX`]. At most [`FIELD_SLOTS_MAX`] is used.
    pub field_count_max: usize,
    /// See [`BODY_BYTES_MAX`]. Bytes.
    pub body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes_max: HEAD_BYTES_MAX,
            target_bytes_max: TARGET_BYTES_MAX,
            field_count_max: FIELD_COUNT_MAX,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }
}
