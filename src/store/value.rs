//! What a key can hold. Matched on by every command that depends on the type.
//!
//! Invariant: a command asks for the type it wants and passes on `WrongType` if it is another.

use std::hint::black_box;

use super::bytes::Text;

/// The value of a key.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string of bytes.
    String(Text),
}

/// The key holds a value of another type than the command works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
pub struct WrongType;

impl Value {
    /// The type's name, as `TYPE` tells it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
        }
    }

    /// The representation's name, as `OBJECT ENCODING` tells it.
    pub fn encoding(&self) -> &'static str {
        // Redis keeps strings up to this length in the object's own allocation.
        const EMBEDDED_BYTES_MAX: usize = 44;
        match self {
            Self::String(Text::Grown(_)) => "raw",
            Self::String(text) => match text.as_slice() {
                bytes if crate::protocol::resp::integer::parse_i64(bytes).is_some() => "int",
                bytes if bytes.len() <= EMBEDDED_BYTES_MAX => "embstr",
                _ => "raw",
            },
        }
    }

    /// The string.
    #[inline]
    pub fn as_string(&self) -> Result<&Text, WrongType> {
        match self {
            Self::String(text) => Ok(text),
        }
    }

    /// The string, to be changed.
    #[inline]
    pub fn as_string_mut(&mut self) -> Result<&mut Text, WrongType> {
        match self {
            Self::String(text) => Ok(text),
        }
    }

    /// Becomes the string `content` if that needs neither more memory nor less; answers whether it
    /// has.
    #[inline]
    pub fn overwrite_string(&mut self, content: &[u8]) -> bool {
        match self {
            Self::String(text) => text.overwrite(content),
        }
    }

    /// Reads a little of the content, to bring it into the cache.
    #[inline]
    pub fn touch(&self) {
        match self {
            Self::String(text) => {
                let bytes = text.as_slice();
                black_box((bytes.first().copied(), bytes.last().copied()));
            }
        }
    }

    /// Bytes that the allocator has given for what the value does not hold itself.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::String(text) => text.heap_bytes(),
        }
    }
}
