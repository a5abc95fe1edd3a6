//! The Redis serialization protocol, sans-I/O: bytes in, arguments out; values in, bytes out.
//!
//! Called by `service/resp`. Invariant: nothing here blocks, reads a clock or touches a socket,
//! and every limit is checked while the input is still incomplete.
#![forbid(unsafe_code)]

pub mod decode;
pub mod encode;
mod inline;
pub mod integer;
pub mod limits;

pub use decode::{Args, Decode, Decoder, Invalid, Kept};
pub use encode::{Encoder, Protocol};
