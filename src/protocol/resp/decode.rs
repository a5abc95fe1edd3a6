//! The command decoder. Called by a session with the undecoded input of its connection.
//!
//! Invariant: after `NeedMore`, the caller passes the same bytes again, with more behind them; the
//! decoder goes on where it stopped, so a huge argument in small pieces costs linear time.

use super::inline;
use super::integer::parse_i64;
use super::limits;

/// Where an argument lies, in bytes from the start of its command: start above, length below. One
/// word, so that it is read as it was written and never waits for two writes to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span(u64);

impl Span {
    #[inline]
    pub(super) fn new(start: usize, len: usize) -> Self {
        debug_assert!(start + len <= limits::QUERY_BYTES_MAX * 2);
        Self((start as u64) << 32 | len as u64)
    }

    #[inline]
    fn range(self) -> std::ops::Range<usize> {
        let start = (self.0 >> 32) as usize;
        start..start + self.0 as u32 as usize
    }
}

/// The arguments of one decoded command, the command's name first.
#[derive(Debug, Clone, Copy)]
pub struct Args<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// How many arguments there are, the name included.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the command was an empty line or an empty array.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, if the command has that many.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.spans.get(index)?.range())
    }

    /// The argument at `index`. Panics past the end: only for indexes that the arity vouches for.
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        &self.bytes[self.spans[index].range()]
    }

    /// Every argument, the name first.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (0..args.len()).map(move |index| args.at(index))
    }
}

/// Which of the commands decoded since [`Decoder::forget`] is meant.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kept {
    first: u32,
    len: u32,
    inline: bool,
}

/// What the decoder found at the front of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decode {
    /// A whole command, this many bytes long. It may be empty, and is then to be skipped.
    Complete(usize),
    /// The front of a command; pass it again with what follows.
    NeedMore,
    /// Bytes that no client should send. The connection cannot go on.
    Invalid(Invalid),
}

/// Why input is not a command. The text of each is the one that Redis gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The count of arguments is not a number, or too large.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// More arguments than an unauthenticated client may send.
    #[error("unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    /// The line that holds the count never ends.
    #[error("too big mbulk count string")]
    MultibulkLine,
    /// The line that holds an argument's length never ends.
    #[error("too big bulk count string")]
    BulkLine,
    /// An argument does not begin with a dollar sign.
    #[error("expected '$', got '{}'", char::from(*.0))]
    ExpectedBulk(u8),
    /// The length of an argument is not a number, or too large.
    #[error("invalid bulk length")]
    BulkLength,
    /// A longer argument than an unauthenticated client may send.
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    /// An inline command never ends.
    #[error("too big inline request")]
    InlineLine,
    /// A quote of an inline command is never closed, or closed inside a word.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
}

/// A decoder with the memory that it needs between calls. It allocates only to grow.
#[derive(Debug)]
pub struct Decoder {
    /// Those of complete commands, then those of the current one, from `first` on.
    spans: Vec<Span>,
    first: usize,
    /// Unquoted words of inline commands.
    scratch: Vec<u8>,
    inline: bool,
    /// Arguments still to come, when the count is known.
    remaining: Option<usize>,
    /// Where the next length line begins.
    at: usize,
    /// How far the current line has been searched for its end.
    searched: usize,
    bulk_bytes_max: usize,
    authenticated: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            spans: Vec::new(),
            first: 0,
            scratch: Vec::new(),
            inline: false,
            remaining: None,
            at: 0,
            searched: 0,
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            authenticated: true,
        }
    }
}

/// A length line, read.
enum Line {
    /// The number, and where the line's end lies.
    Number(i64, usize),
    NotANumber,
    TooLong,
    NeedMore,
}

impl Decoder {
    /// Sets whether the tight limits for strangers are lifted.
    pub fn set_authenticated(&mut self, authenticated: bool) {
        self.authenticated = authenticated;
    }

    /// Sets the largest argument, in bytes.
    pub fn set_bulk_bytes_max(&mut self, bytes: usize) {
        self.bulk_bytes_max = bytes.clamp(limits::BULK_BYTES_MIN, limits::BULK_BYTES_MAX);
    }

    /// The command that `decode` has just found complete.
    #[inline]
    pub fn last(&self) -> Kept {
        let len = self.spans.len() - self.first;
        Kept { first: self.first as u32, len: len as u32, inline: self.inline }
    }

    /// The arguments of a command, given the input from its start on.
    #[inline]
    pub fn args<'a>(&'a self, kept: Kept, input: &'a [u8]) -> Args<'a> {
        let first = kept.first as usize;
        let bytes = if kept.inline { &self.scratch } else { input };
        Args { bytes, spans: &self.spans[first..first + kept.len as usize] }
    }

    /// Forgets the commands that were complete. To be called before memory for them piles up.
    #[inline]
    pub fn forget(&mut self) {
        const SPANS_COUNT_KEPT: usize = 1024;
        const SCRATCH_BYTES_KEPT: usize = 4096;
        if self.remaining.is_some() {
            self.spans.drain(..self.first);
        } else {
            self.spans.clear();
            self.spans.shrink_to(SPANS_COUNT_KEPT);
        }
        self.first = 0;
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_BYTES_KEPT);
    }

    /// Forgets a command that is not complete: the next input begins elsewhere.
    pub fn reset(&mut self) {
        self.remaining = None;
        self.searched = 0;
        self.spans.truncate(self.first);
    }

    /// Decodes the command at the front of `input`.
    #[inline]
    pub fn decode(&mut self, input: &[u8]) -> Decode {
        let Some(remaining) = self.remaining else {
            return self.decode_start(input);
        };
        self.decode_bulks(input, remaining, self.at)
    }

    #[inline]
    fn decode_start(&mut self, input: &[u8]) -> Decode {
        match input.first() {
            None => return Decode::NeedMore,
            Some(b'*') => {}
            Some(_) => return self.decode_inline(input),
        }
        self.first = self.spans.len();
        self.inline = false;
        if let Some((count, next)) = short_line(input, b'*', 0)
            && count <= limits::UNAUTHENTICATED_ARGUMENTS_COUNT_MAX
        {
            return self.decode_bulks(input, count, next);
        }
        self.decode_count(input)
    }

    #[cold]
    fn decode_count(&mut self, input: &[u8]) -> Decode {
        let (count, next) = match self.line(input, 0) {
            Line::Number(count, next) => (count, next),
            Line::NotANumber => return self.refuse(Invalid::MultibulkLength),
            Line::TooLong => return self.refuse(Invalid::MultibulkLine),
            Line::NeedMore => return Decode::NeedMore,
        };
        if count > limits::ARGUMENTS_COUNT_MAX as i64 {
            return self.refuse(Invalid::MultibulkLength);
        }
        let stranger_max = limits::UNAUTHENTICATED_ARGUMENTS_COUNT_MAX as i64;
        if count > stranger_max && !self.authenticated {
            return self.refuse(Invalid::UnauthenticatedMultibulkLength);
        }
        // A count of zero or less is an empty command.
        self.decode_bulks(input, usize::try_from(count).unwrap_or(0), next)
    }

    #[inline]
    fn decode_bulks(&mut self, input: &[u8], mut remaining: usize, mut at: usize) -> Decode {
        while remaining > 0 {
            let (len, start) = match short_line(input, b'$', at) {
                Some(found) => found,
                None => match self.decode_length(input, at) {
                    Ok(found) => found,
                    Err(Decode::NeedMore) => return self.pause(remaining, at),
                    Err(answer) => return answer,
                },
            };
            let next = start + len + 2;
            if next > input.len() {
                return self.pause(remaining, at);
            }
            self.spans.push(Span::new(start, len));
            at = next;
            self.searched = 0;
            remaining -= 1;
        }
        self.remaining = None;
        self.searched = 0;
        Decode::Complete(at)
    }

    #[cold]
    fn decode_length(&mut self, input: &[u8], at: usize) -> Result<(usize, usize), Decode> {
        let (len, start) = match self.line(input, at) {
            Line::Number(len, start) => (len, start),
            Line::TooLong => return Err(self.refuse(Invalid::BulkLine)),
            Line::NeedMore => return Err(Decode::NeedMore),
            Line::NotANumber => (-1, at),
        };
        // Which answer a bad line gets depends on its first byte; it exists, since the line ended.
        match input.get(at) {
            Some(b'$') => {}
            Some(&other) => return Err(self.refuse(Invalid::ExpectedBulk(other))),
            None => return Err(Decode::NeedMore),
        }
        if len < 0 || len > self.bulk_bytes_max as i64 {
            return Err(self.refuse(Invalid::BulkLength));
        }
        let len = len as usize;
        if len > limits::UNAUTHENTICATED_BULK_BYTES_MAX && !self.authenticated {
            return Err(self.refuse(Invalid::UnauthenticatedBulkLength));
        }
        Ok((len, start))
    }

    /// Reads the number on the line at `at`, behind its first byte.
    fn line(&mut self, input: &[u8], at: usize) -> Line {
        let from = at.max(self.searched);
        let tail = input.get(from..).unwrap_or_default();
        let Some(offset) = memchr::memchr(b'\r', tail) else {
            self.searched = input.len();
            let long = input.len() - at.min(input.len()) > limits::LINE_BYTES_MAX;
            return if long { Line::TooLong } else { Line::NeedMore };
        };
        let end = from + offset;
        self.searched = end;
        // The byte after the carriage return is taken for the line feed, as Redis does.
        if end + 2 > input.len() {
            return Line::NeedMore;
        }
        self.searched = 0;
        match input.get(at + 1..end).and_then(parse_i64) {
            Some(number) => Line::Number(number, end + 2),
            None => Line::NotANumber,
        }
    }

    fn decode_inline(&mut self, input: &[u8]) -> Decode {
        let from = self.searched.min(input.len());
        let Some(offset) = memchr::memchr(b'\n', &input[from..]) else {
            self.searched = input.len();
            if input.len() > limits::LINE_BYTES_MAX {
                return self.refuse(Invalid::InlineLine);
            }
            return Decode::NeedMore;
        };
        let end = from + offset;
        self.searched = 0;
        self.inline = true;
        self.first = self.spans.len();
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        match inline::split(line, &mut self.scratch, &mut self.spans) {
            Ok(()) => Decode::Complete(end + 1),
            Err(invalid) => self.refuse(invalid),
        }
    }

    fn pause(&mut self, remaining: usize, at: usize) -> Decode {
        self.remaining = Some(remaining);
        self.at = at;
        Decode::NeedMore
    }

    fn refuse(&mut self, invalid: Invalid) -> Decode {
        self.reset();
        Decode::Invalid(invalid)
    }
}

/// Reads a well-formed line of `sigil` and up to three digits at `at`; answers the number and where
/// the line ends. `None` sends it the long way.
#[inline(always)]
fn short_line(input: &[u8], sigil: u8, at: usize) -> Option<(usize, usize)> {
    let digit = |byte: &u8| usize::from(byte - b'0');
    match input.get(at..)? {
        [first, units @ b'0'..=b'9', b'\r', _, ..] if *first == sigil => {
            Some((digit(units), at + 4))
        }
        [first, tens @ b'1'..=b'9', units @ b'0'..=b'9', b'\r', _, ..] if *first == sigil => {
            Some((digit(tens) * 10 + digit(units), at + 5))
        }
        [first, hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', units @ b'0'..=b'9', b'\r', _, ..]
            if *first == sigil =>
        {
            Some((digit(hundreds) * 100 + digit(tens) * 10 + digit(units), at + 6))
        }
        _ => None,
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
