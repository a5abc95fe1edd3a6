//! Byte strings that keep short content inline. Used for keys and for string values.
//!
//! Invariant: content of up to `N` bytes never touches the allocator.

use std::mem;

use super::footprint::allocated;

/// A string of bytes: inline up to `N` bytes, in one exact allocation beyond.
#[derive(Debug, Clone)]
pub struct Compact<const N: usize>(Repr<N>);

#[derive(Debug, Clone)]
enum Repr<const N: usize> {
    Inline { len: u8, bytes: [u8; N] },
    Heap(Box<[u8]>),
}

impl<const N: usize> Compact<N> {
    const FITS: () = assert!(N <= u8::MAX as usize);

    /// A copy of `content`.
    #[inline]
    pub fn new(content: &[u8]) -> Self {
        let () = Self::FITS;
        if content.len() <= N {
            let mut bytes = [0; N];
            bytes[..content.len()].copy_from_slice(content);
            Self(Repr::Inline { len: content.len() as u8, bytes })
        } else {
            Self(Repr::Heap(content.into()))
        }
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Heap(bytes) => bytes,
        }
    }

    /// Takes on `content` in the memory at hand; answers whether it is exactly large enough.
    #[inline]
    fn overwrite(&mut self, content: &[u8]) -> bool {
        match &mut self.0 {
            Repr::Heap(bytes) if bytes.len() == content.len() => bytes.copy_from_slice(content),
            Repr::Inline { len, bytes } if content.len() <= N => {
                bytes[..content.len()].copy_from_slice(content);
                *len = content.len() as u8;
            }
            _ => return false,
        }
        true
    }

    /// Bytes that the allocator has given for the content.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Repr::Inline { .. } => 0,
            Repr::Heap(bytes) => allocated(bytes.len()),
        }
    }
}

/// Room that a string value has inline.
const TEXT_INLINE_BYTES: usize = 22;

/// The value of a string key.
#[derive(Debug, Clone)]
pub enum Text {
    /// Written whole: no spare room.
    Whole(Compact<TEXT_INLINE_BYTES>),
    /// Grown piece by piece: spare room makes the next piece cheap. Boxed twice to stay small.
    Grown(Box<Vec<u8>>),
}

impl Text {
    /// A copy of `content`.
    #[inline]
    pub fn new(content: &[u8]) -> Self {
        Self::Whole(Compact::new(content))
    }

    /// Takes on `content` if that needs neither more memory nor less; answers whether it has.
    #[inline]
    pub fn overwrite(&mut self, content: &[u8]) -> bool {
        match self {
            Self::Whole(whole) => whole.overwrite(content),
            Self::Grown(_) => false,
        }
    }

    /// The content.
    #[inline]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Whole(bytes) => bytes.as_slice(),
            Self::Grown(bytes) => bytes,
        }
    }

    /// The content, to be changed in place and grown.
    pub fn grow(&mut self) -> &mut Vec<u8> {
        if let Self::Whole(whole) = self {
            let bytes = match mem::replace(&mut whole.0, Repr::Inline { len: 0, bytes: [0; 22] }) {
                Repr::Inline { len, bytes } => bytes[..usize::from(len)].to_vec(),
                Repr::Heap(bytes) => bytes.into_vec(),
            };
            *self = Self::Grown(Box::new(bytes));
        }
        match self {
            Self::Grown(bytes) => bytes,
            Self::Whole(_) => unreachable!("replaced above"),
        }
    }

    /// Bytes that the allocator has given for the content.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.heap_bytes(),
            Self::Grown(bytes) => {
                allocated(bytes.capacity()) + const { allocated(size_of::<Vec<u8>>()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_every_representation() {
        for len in [0, 1, 21, 22, 23, 64, 5000] {
            let content: Vec<u8> = (0..len).map(|byte| byte as u8).collect();
            let mut text = Text::new(&content);
            assert_eq!(text.as_slice(), content);
            text.grow().extend_from_slice(b"tail");
            assert_eq!(text.as_slice(), [&content[..], b"tail"].concat());
        }
    }

    #[test]
    fn an_equally_long_value_is_written_in_place() {
        let mut text = Text::new(&[1; 64]);
        let place = text.as_slice().as_ptr();
        assert!(text.overwrite(&[2; 64]));
        assert_eq!(text.as_slice(), [2; 64]);
        assert_eq!(text.as_slice().as_ptr(), place);
        assert!(!text.overwrite(&[3; 63]), "less memory would do");
        assert_eq!(text.as_slice(), [2; 64]);
    }

    #[test]
    fn short_content_is_written_over_short_content() {
        let mut text = Text::new(b"four");
        assert!(text.overwrite(b"seven"));
        assert_eq!(text.as_slice(), b"seven");
        assert!(!text.overwrite(&[0; 23]));
        assert!(text.overwrite(b""));
        assert_eq!(text.as_slice(), b"");
    }

    #[test]
    fn values_stay_within_three_words() {
        assert_eq!(size_of::<Text>(), 24);
        assert_eq!(size_of::<Compact<30>>(), 32);
    }
}
