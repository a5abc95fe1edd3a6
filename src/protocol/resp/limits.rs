//! Limits of the protocol. Read by the decoder and by whoever configures a connection.
//!
//! Invariant: a command that passes the decoder fits the 32-bit spans of its arguments.

/// Most arguments in one command.
pub const ARGUMENTS_COUNT_MAX: usize = 1024 * 1024;
/// Largest argument, in bytes, unless `proto-max-bulk-len` says otherwise.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Lowest value of that setting.
pub const BULK_BYTES_MIN: usize = 1024 * 1024;
/// Longest inline command and longest length line, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Most undecoded input that a connection may hold, in bytes.
pub const QUERY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Most arguments in one command of a client that has yet to authenticate.
pub const UNAUTHENTICATED_ARGUMENTS_COUNT_MAX: usize = 10;
/// Largest argument of a client that has yet to authenticate, in bytes.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: usize = 16 * 1024;

const _: () = assert!(QUERY_BYTES_MAX <= u32::MAX as usize / 2);
const _: () = assert!(BULK_BYTES_MAX < QUERY_BYTES_MAX);
const _: () = assert!(LINE_BYTES_MAX < BULK_BYTES_MAX);
const _: () = assert!(UNAUTHENTICATED_BULK_BYTES_MAX < BULK_BYTES_MIN);
