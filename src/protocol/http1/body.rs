//! Request bodies: of a known length, or in chunks (RFC 9112 sections 6 and 7.1).
//!
//! Called by the connection loop with each piece of input once; content is appended to a buffer
//! of the caller's. Invariant: one state per byte position, so a split cannot change an answer,
//! and the content never grows past the limit.

use super::Decoded;
use super::head::Framing;
use super::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, Limits, TRAILER_BYTES_MAX};
use super::reason::Reason;
use super::target::is_token_byte;

/// Decodes the body of one request.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Content bytes to come: of the body when sized, of the chunk when chunked.
    remaining: u64,
    /// Content bytes that may still be announced.
    allowance: u64,
    size_digits: u32,
    extension_bytes: usize,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Content of a sized body.
    Sized,
    /// Digits of a chunk size.
    Size,
    /// Between `;` and the end of the line.
    Extension,
    /// The LF of a size line.
    SizeFeed,
    /// Content of a chunk.
    Data,
    /// The CR behind the content.
    DataReturn,
    /// The LF behind the content.
    DataFeed,
    /// The first byte of a line after the last chunk.
    TrailerStart,
    /// The rest of a trailer's name.
    TrailerName,
    /// A trailer's value.
    TrailerValue,
    /// The LF of a trailer.
    TrailerFeed,
    /// The LF of the empty line.
    LastFeed,
    /// Nothing to come.
    Done,
}

impl BodyDecoder {
    /// A decoder at the start of a body. A length beyond the limit is refused at once.
    pub fn new(framing: Framing, limits: &Limits) -> Result<Self, Reason> {
        let (state, remaining) = match framing {
            Framing::None | Framing::Sized(0) => (State::Done, 0),
            Framing::Sized(length) if length > limits.body_bytes_max => {
                return Err(Reason::BodyTooLarge);
            }
            Framing::Sized(length) => (State::Sized, length),
            Framing::Chunked => (State::Size, 0),
        };
        Ok(Self {
            state,
            remaining,
            allowance: limits.body_bytes_max,
            size_digits: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
        })
    }

    /// Bytes of content known to be still on their way: what a buffer may be grown by.
    pub fn remaining(&self) -> u64 {
        self.remaining
    }

    /// Takes the next piece of input and appends the content in it to `out`. *Need more* means
    /// that all of the piece was taken. Must not be called again after another answer.
    pub fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> Decoded<()> {
        let mut at = 0;
        while self.state != State::Done {
            let Some(&byte) = input.get(at) else { return Decoded::NeedMore };
            if matches!(self.state, State::Sized | State::Data) {
                at += self.take_content(&input[at..], out);
                continue;
            }
            match self.step(byte) {
                Ok(next) => self.state = next,
                Err(reason) => return Decoded::Invalid(reason),
            }
            at += 1;
        }
        Decoded::Complete { value: (), consumed: at }
    }

    fn take_content(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let length = self.remaining.min(input.len() as u64) as usize;
        out.extend_from_slice(&input[..length]);
        self.remaining -= length as u64;
        if self.remaining == 0 {
            self.state = if self.state == State::Sized { State::Done } else { State::DataReturn };
        }
        length
    }

    fn step(&mut self, byte: u8) -> Result<State, Reason> {
        match (self.state, byte) {
            (State::Size, b'\r') => self.end_size(State::SizeFeed),
            (State::Size, b';') => self.end_size(State::Extension),
            (State::Size, digit) => self.take_size_digit(digit),
            (State::Extension, b'\r') => Ok(State::SizeFeed),
            (State::Extension, byte) => self.take_extension_byte(byte),
            (State::SizeFeed, b'\n') => {
                self.size_digits = 0;
                Ok(if self.remaining == 0 { State::TrailerStart } else { State::Data })
            }
            (State::DataReturn, b'\r') => Ok(State::DataFeed),
            (State::DataFeed, b'\n') => Ok(State::Size),
            (State::SizeFeed | State::DataReturn | State::DataFeed, _) => Err(Reason::Chunk),
            (State::LastFeed, b'\n') => Ok(State::Done),
            _ => self.step_trailer(byte),
        }
    }

    fn take_size_digit(&mut self, digit: u8) -> Result<State, Reason> {
        let value = (digit as char).to_digit(16).ok_or(Reason::Chunk)?;
        self.size_digits += 1;
        if self.size_digits > CHUNK_SIZE_DIGITS_MAX {
            return Err(Reason::Chunk);
        }
        // At most sixteen digits: no bit is shifted out.
        self.remaining = self.remaining << 4 | u64::from(value);
        Ok(State::Size)
    }

    fn end_size(&mut self, next: State) -> Result<State, Reason> {
        if self.size_digits == 0 {
            return Err(Reason::Chunk);
        }
        self.allowance = self.allowance.checked_sub(self.remaining).ok_or(Reason::BodyTooLarge)?;
        Ok(next)
    }

    fn take_extension_byte(&mut self, byte: u8) -> Result<State, Reason> {
        self.extension_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(Reason::ChunkExtension);
        }
        if is_text(byte) { Ok(State::Extension) } else { Err(Reason::Chunk) }
    }

    fn step_trailer(&mut self, byte: u8) -> Result<State, Reason> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(Reason::TrailerTooLarge);
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::LastFeed),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerStart | State::TrailerName, byte) if is_token_byte(byte) => {
                Ok(State::TrailerName)
            }
            (State::TrailerValue, b'\r') => Ok(State::TrailerFeed),
            (State::TrailerValue, byte) if is_text(byte) => Ok(State::TrailerValue),
            (State::TrailerFeed, b'\n') => Ok(State::TrailerStart),
            _ => Err(Reason::Trailer),
        }
    }
}

/// Bytes of a field value, and of a chunk extension: no control but the tab.
const fn is_text(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits =
        Limits { head_bytes_max: 0, target_bytes_max: 0, field_count_max: 0, body_bytes_max: 64 };

    /// What a body decodes to: content and consumed bytes, `None` while incomplete.
    type Answer = Result<Option<(Vec<u8>, usize)>, Reason>;

    fn decode_in(pieces: &[&[u8]], framing: Framing) -> Answer {
        let mut decoder = BodyDecoder::new(framing, &LIMITS)?;
        let (mut content, mut before) = (Vec::new(), 0);
        for piece in pieces {
            match decoder.decode(piece, &mut content) {
                Decoded::Complete { consumed, .. } => {
                    return Ok(Some((content, before + consumed)));
                }
                Decoded::NeedMore => before += piece.len(),
                Decoded::Invalid(reason) => return Err(reason),
            }
        }
        Ok(None)
    }

    /// Decodes at once, byte by byte, and split at every byte; all must agree.
    fn decode(input: &[u8], framing: Framing) -> Answer {
        let whole = decode_in(&[input], framing);
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(decode_in(&bytes, framing), whole, "{}", input.escape_ascii());
        for split in 0..=input.len() {
            let (left, right) = input.split_at(split);
            assert_eq!(decode_in(&[left, right], framing), whole, "{}", input.escape_ascii());
        }
        whole
    }

    fn content(input: &[u8]) -> Vec<u8> {
        decode(input, Framing::Chunked).unwrap().unwrap().0
    }

    #[test]
    fn a_sized_body_ends_at_its_length() {
        let answer = decode(b"hello, next", Framing::Sized(5));
        assert_eq!(answer, Ok(Some((b"hello".to_vec(), 5))));
        assert_eq!(decode(b"hell", Framing::Sized(5)), Ok(None));
        assert_eq!(decode_in(&[b""], Framing::None), Ok(Some((vec![], 0))));
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_any_content() {
        assert!(BodyDecoder::new(Framing::Sized(64), &LIMITS).is_ok());
        let refused = BodyDecoder::new(Framing::Sized(65), &LIMITS);
        assert_eq!(refused.err(), Some(Reason::BodyTooLarge));
    }

    #[test]
    fn chunks_are_joined_and_the_next_request_is_left_alone() {
        let input = b"5\r\nhello\r\n1;a=\"b c\"\r\n,\r\n00A\r\n0123456789\r\n0\r\n\r\nGET /";
        let answer = decode(input, Framing::Chunked);
        assert_eq!(answer, Ok(Some((b"hello,0123456789".to_vec(), input.len() - 5))));
    }

    #[test]
    fn trailers_are_validated_and_dropped() {
        assert_eq!(content(b"1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n"), b"a");
        for wrong in [
            &b"0\r\nX y\r\n\r\n"[..],
            b"0\r\n X: y\r\n\r\n",
            b"0\r\n: y\r\n\r\n",
            b"0\r\nX: \0\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\n\n",
            b"0\r\n\rX",
            b"0\r\nX: y\rz",
            b"0\r\nX : y\r\n\r\n",
        ] {
            assert_eq!(decode(wrong, Framing::Chunked), Err(Reason::Trailer));
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for wrong in [
            &b"\r\n"[..],
            b";a\r\n",
            b"g\r\n",
            b"-1\r\n",
            b"+1\r\na\r\n",
            b"0x1\r\na\r\n",
            b" 1\r\na\r\n",
            b"1 \r\na\r\n",
            b"1 ;a\r\na\r\n",
            b"1\na\r\n",
            b"1\r\na\n",
            b"1\r\nab\r\n",
            b"1\r\n\r\na",
            b"1\r\na\r\r\n",
            b"1;a\nb\r\na\r\n",
            b"1;\0\r\na\r\n",
            b"1\r\r\na\r\n",
            b"00000000000000001\r\na\r\n",
            b"10000000000000000\r\n",
        ] {
            let answer = decode(wrong, Framing::Chunked);
            assert_eq!(answer, Err(Reason::Chunk), "{}", wrong.escape_ascii());
        }
    }

    #[test]
    fn chunks_together_may_not_pass_the_limit() {
        let half = [b"20\r\n".as_slice(), &[b'a'; 32], b"\r\n"].concat();
        let full = [&half[..], &half, b"0\r\n\r\n"].concat();
        assert_eq!(content(&full).len(), 64);
        let over = [&half[..], &half, b"1\r\n"].concat();
        assert_eq!(decode(&over, Framing::Chunked), Err(Reason::BodyTooLarge));
        for size in [&b"41\r\n"[..], b"ffffffffffffffff\r\n"] {
            assert_eq!(decode(size, Framing::Chunked), Err(Reason::BodyTooLarge));
        }
    }

    #[test]
    fn extensions_and_trailers_have_a_budget_for_the_whole_body() {
        let chunk = [b"1;".as_slice(), &[b'x'; 1000], b"\r\na\r\n"].concat();
        assert_eq!(decode_in(&[chunk.as_slice(); 4], Framing::Chunked), Ok(None));
        assert_eq!(
            decode_in(&[chunk.as_slice(); 5], Framing::Chunked),
            Err(Reason::ChunkExtension)
        );
        let line = [b"X:".as_slice(), &[b'x'; 1000], b"\r\n"].concat();
        let trailers = [b"0\r\n".as_slice(), &line.repeat(4)].concat();
        assert_eq!(decode_in(&[&trailers], Framing::Chunked), Ok(None));
        assert_eq!(decode_in(&[&trailers, &line], Framing::Chunked), Err(Reason::TrailerTooLarge));
    }

    proptest! {
        #[test]
        fn what_is_written_in_chunks_is_read_back(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..8), 0..6),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                wire.extend(chunk);
                wire.extend(b"\r\n");
            }
            wire.extend(b"0\r\n\r\n");
            let expected = Ok(Some((chunks.concat(), wire.len())));
            prop_assert_eq!(decode(&wire, Framing::Chunked), expected);
        }

        #[test]
        fn no_split_changes_what_a_body_decodes_to(
            input in "([0-9a-f]{1,2}|;x|\r\n|\n|\r|a|X: y|\0){0,12}",
        ) {
            let _ = decode(input.as_bytes(), Framing::Chunked);
        }
    }
}
