//! What processes hand each other: pipes, and rings in shared memory.
//!
//! Both are used on every engine and wait through the shard's driver. An end belongs to the shard
//! that it was made on until it is handed over to another process.

mod async_io;
mod manner;
pub mod pipe;
pub mod ring;

pub use self::pipe::pipe;
