//! HTTP/1.1 without I/O (RFC 9110, RFC 9112): bytes in, values or bytes out.
//!
//! Called by `service::http`, by the fuzz targets and by the load generator's tests. No clock, no
//! async, no allocation while a request head is decoded.
//!
//! Invariant: what a decoder answers depends on the bytes alone, never on how they were split
//! into chunks. Whatever two implementations could read differently (lengths in conflict, a bare
//! line feed, a space before a colon) is refused, and the connection with it, because a proxy in
//! front of us may have read it the other way.

#![forbid(unsafe_code)]

pub mod body;
pub mod conditions;
#[cfg(test)]
pub(crate) mod corpus;
mod fields;
pub mod head;
pub mod limits;
pub mod range;
pub mod reason;
pub mod reply;
mod request_line;
pub mod status;
pub mod target;

pub use body::BodyDecoder;
pub use fields::Field;
pub use head::{Framing, HeadDecoder, RequestHead};
pub use limits::Limits;
pub use reason::Reason;
pub use reply::{Persistence, Reply, ReplyContext};
pub use request_line::{Method, Target, Version};
pub use status::Status;

/// What a decoder says about the bytes that it was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Decoded<T> {
    /// The value is whole. `consumed` bytes of the input belong to it.
    Complete {
        /// What was decoded.
        value: T,
        /// How many bytes of the input it took, at least one unless the value is empty.
        consumed: usize,
    },
    /// So far valid, and not complete. Each decoder says what to show it next.
    NeedMore,
    /// Never to become valid. The connection cannot be used after it: where the next message
    /// would start is not known.
    Invalid(Reason),
}
