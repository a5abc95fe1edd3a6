//! The request head: request line and header fields, up to the empty line.
//!
//! Called by the connection loop with everything received so far and not consumed.
//! Invariant: lines are judged in the order in which they arrive, each as soon as it is whole, so
//! that the answer is the same for every split of the input; and no byte is searched twice, so
//! that a head that trickles in costs no more than one that comes at once.

use httparse::{EMPTY_HEADER, Header};

use super::Decoded;
use super::fields::{Field, Present, Summary, trim};
use super::limits::{FIELD_SLOTS_MAX, Limits, REQUEST_LINE_SLACK_BYTES};
use super::reason::Reason;
use super::request_line::{self, Method, RequestLine, Target, Version};

/// Field lines of an ordinary request; more than these take the larger array.
const FIELD_SLOTS_USUAL: usize = 16;

/// How the body of a request is delimited (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// No body, or a length of zero.
    None,
    /// `Content-Length`, in bytes.
    Sized(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A valid request head, borrowed from the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// What it is about.
    pub target: Target<'a>,
    /// The version that the peer speaks.
    pub version: Version,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the peer allows another request after this one.
    pub keep_alive: bool,
    /// Whether the peer waits for 100 before it sends the body.
    pub expect_continue: bool,
    present: Present,
    /// The field lines with the empty line, validated.
    fields: &'a [u8],
}

impl<'a> RequestHead<'a> {
    /// The values of a field, one for each of its lines, without surrounding whitespace. Costs
    /// nothing when the head has no such field.
    pub fn values(&self, field: Field) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let fields = if self.present.has(field) { self.fields } else { &[] };
        let name = field.name().as_bytes();
        lines(fields).filter_map(move |line| {
            let (found, value) = line.split_at_checked(name.len())?;
            let value = value.strip_prefix(b":")?;
            found.eq_ignore_ascii_case(name).then(|| trim(value))
        })
    }

    /// Whether the head has the field.
    pub fn has(&self, field: Field) -> bool {
        self.present.has(field)
    }

    /// Whether any precondition or range is there at all.
    pub fn has_conditions(&self) -> bool {
        self.present.any()
    }
}

fn lines(fields: &[u8]) -> impl Iterator<Item = &[u8]> {
    fields.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// Decodes one head after another. Holds what is known of an incomplete one.
#[derive(Debug, Default)]
pub struct HeadDecoder {
    /// Bytes in which the end of a line was looked for.
    searched: usize,
    /// Where the line that is not yet whole starts.
    line_start: usize,
    /// Where the request line starts: 0, or 2 after the one empty line that is ignored.
    head_start: usize,
    /// The request line, and where it ends with its line end.
    request_line: Option<(RequestLine, usize)>,
    /// Whole field lines so far.
    field_count: usize,
}

impl HeadDecoder {
    /// A decoder at the start of a head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Looks at everything received for this head. After *need more* the next call must show the
    /// same bytes and further ones behind them; after the other answers the decoder is at the
    /// start of a head again.
    #[inline]
    pub fn decode<'a>(&mut self, input: &'a [u8], limits: &Limits) -> Decoded<RequestHead<'a>> {
        let end = match self.find_end(input, limits) {
            Ok(Some(end)) => end,
            Ok(None) => return Decoded::NeedMore,
            Err(reason) => {
                *self = Self::new();
                return Decoded::Invalid(reason);
            }
        };
        let result = self.complete(&input[..end]);
        *self = Self::new();
        match result {
            Ok(value) => Decoded::Complete { value, consumed: end },
            Err(reason) => Decoded::Invalid(reason),
        }
    }

    /// Goes through the lines that have become whole. Gives the length of the head once its empty
    /// line is there.
    fn find_end(&mut self, input: &[u8], limits: &Limits) -> Result<Option<usize>, Reason> {
        let window = &input[..input.len().min(limits.head_bytes_max)];
        let request_line_max = limits.target_bytes_max + REQUEST_LINE_SLACK_BYTES;
        loop {
            let is_first = self.request_line.is_none();
            if is_first {
                self.check_first_byte(window)?;
            }
            let feed = memchr::memchr(b'\n', &window[self.searched..]).map(|at| self.searched + at);
            let line_end = feed.unwrap_or(window.len());
            if is_first && line_end - self.head_start > request_line_max {
                return Err(Reason::TargetTooLong);
            }
            let Some(feed) = feed else {
                self.searched = window.len();
                let is_full = window.len() == limits.head_bytes_max;
                return if is_full { Err(Reason::HeadTooLarge) } else { Ok(None) };
            };
            let line =
                window[self.line_start..feed].strip_suffix(b"\r").ok_or(Reason::BareLineFeed)?;
            self.searched = feed + 1;
            self.line_start = feed + 1;
            if line.is_empty() && !is_first {
                return Ok(Some(feed + 1));
            }
            self.take_line(line, limits)?;
        }
    }

    fn check_first_byte(&self, window: &[u8]) -> Result<(), Reason> {
        match window.get(self.head_start) {
            // The one empty line that is let pass.
            Some(b'\r') if self.head_start == 0 => match window.get(1) {
                None | Some(b'\n') => Ok(()),
                Some(_) => Err(Reason::RequestLine),
            },
            Some(&byte) if !request_line::can_start(byte) => Err(Reason::RequestLine),
            _ => Ok(()),
        }
    }

    fn take_line(&mut self, line: &[u8], limits: &Limits) -> Result<(), Reason> {
        if self.request_line.is_some() {
            self.field_count += 1;
            let count_max = limits.field_count_max.min(FIELD_SLOTS_MAX);
            return if self.field_count > count_max { Err(Reason::TooManyFields) } else { Ok(()) };
        }
        if line.is_empty() {
            // RFC 9112 section 2.2: an old client may send an empty line after a body.
            self.head_start = self.line_start;
            return Ok(());
        }
        let parsed = RequestLine::parse(line, limits.target_bytes_max)?;
        self.request_line = Some((parsed, self.line_start));
        Ok(())
    }

    /// Judges a head whose lines are all there.
    fn complete<'a>(&self, head: &'a [u8]) -> Result<RequestHead<'a>, Reason> {
        let Some((request_line, fields_start)) = self.request_line else {
            return Err(Reason::RequestLine);
        };
        let fields = &head[fields_start..];
        let version = request_line.version;
        let summary = if self.field_count <= FIELD_SLOTS_USUAL {
            summarize(fields, &mut [EMPTY_HEADER; FIELD_SLOTS_USUAL], version)?
        } else {
            summarize(fields, &mut [EMPTY_HEADER; FIELD_SLOTS_MAX], version)?
        };
        Ok(RequestHead {
            method: request_line.method,
            target: request_line.target(&head[self.head_start..]),
            version,
            framing: summary.framing,
            keep_alive: summary.keep_alive,
            expect_continue: summary.expect_continue,
            present: summary.present,
            fields,
        })
    }
}

fn summarize<'a>(
    fields: &'a [u8],
    slots: &mut [Header<'a>],
    version: Version,
) -> Result<Summary, Reason> {
    match httparse::parse_headers(fields, slots) {
        Ok(httparse::Status::Complete((consumed, parsed))) if consumed == fields.len() => {
            Summary::of(parsed, version)
        }
        // Incomplete or with bytes left over: `httparse` and the line search disagree.
        _ => Err(Reason::Field),
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus::heads;
    use super::*;
    use proptest::prelude::*;

    fn decode(input: &[u8]) -> Decoded<RequestHead<'_>> {
        HeadDecoder::new().decode(input, &Limits::default())
    }

    /// Shows the decoder one byte more each time, and gives the first answer that is final.
    fn decode_trickled<'a>(input: &'a [u8], limits: &Limits) -> Decoded<RequestHead<'a>> {
        let mut decoder = HeadDecoder::new();
        for end in 0..input.len() {
            match decoder.decode(&input[..end], limits) {
                Decoded::NeedMore => {}
                answer => return answer,
            }
        }
        decoder.decode(input, limits)
    }

    #[test]
    fn a_head_is_decoded_with_its_length() {
        let input = b"GET /kv/a?b=c HTTP/1.1\r\nHost: x\r\nIf-None-Match: \"a\"\r\n\r\nGET /";
        let Decoded::Complete { value, consumed } = decode(input) else { panic!() };
        assert_eq!(consumed, input.len() - 5);
        assert_eq!(value.method, Method::Get);
        assert_eq!(value.target, Target::Resource { path: b"/kv/a", query: Some(b"b=c") });
        assert_eq!(value.framing, Framing::None);
        assert!(value.keep_alive);
        assert_eq!(value.values(Field::IfNoneMatch).collect::<Vec<_>>(), [b"\"a\""]);
        assert_eq!(value.values(Field::IfMatch).count(), 0);
    }

    #[test]
    fn every_line_of_a_repeated_field_is_given() {
        let input =
            b"GET / HTTP/1.1\r\nHost:x\r\nif-match:a\r\nX-If-Match: b\r\nIF-MATCH: \tc \r\n\r\n";
        let Decoded::Complete { value, .. } = decode(input) else { panic!() };
        assert_eq!(value.values(Field::IfMatch).collect::<Vec<_>>(), [b"a", b"c"]);
    }

    #[test]
    fn the_corpus_is_answered_with_its_literal_statuses() {
        for case in heads() {
            let status = match decode(&case.input) {
                Decoded::Complete { .. } => 200,
                Decoded::NeedMore => 0,
                Decoded::Invalid(reason) => reason.status().code(),
            };
            assert_eq!(status, case.status, "{}", case.name);
        }
    }

    #[test]
    fn the_corpus_is_answered_the_same_when_it_trickles_in() {
        for case in heads() {
            let trickled = decode_trickled(&case.input, &Limits::default());
            assert_eq!(trickled, decode(&case.input), "{}", case.name);
        }
    }

    #[test]
    fn a_split_at_any_byte_changes_no_answer() {
        let limits = Limits::default();
        for case in heads() {
            for split in 0..=case.input.len() {
                let mut decoder = HeadDecoder::new();
                let answer = match decoder.decode(&case.input[..split], &limits) {
                    Decoded::NeedMore => decoder.decode(&case.input, &limits),
                    answer => answer,
                };
                assert_eq!(answer, decode(&case.input), "{} at {split}", case.name);
            }
        }
    }

    #[test]
    fn limits_hold_while_the_head_is_incomplete() {
        let limits = Limits {
            head_bytes_max: 256,
            target_bytes_max: 32,
            field_count_max: 2,
            ..Limits::default()
        };
        let long_target = [b"GET /".as_slice(), &[b'a'; 200]].concat();
        let long_field = [b"GET / HTTP/1.1\r\nHost: ".as_slice(), &[b'a'; 300]].concat();
        let many_fields = b"GET / HTTP/1.1\r\nHost: a\r\nb: c\r\nd: e\r\n";
        for (input, reason) in [
            (&long_target[..], Reason::TargetTooLong),
            (&long_field[..], Reason::HeadTooLarge),
            (&many_fields[..], Reason::TooManyFields),
        ] {
            assert_eq!(HeadDecoder::new().decode(input, &limits), Decoded::Invalid(reason));
            assert_eq!(decode_trickled(input, &limits), Decoded::Invalid(reason));
        }
    }

    #[test]
    fn a_head_of_exactly_the_limit_passes() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (head_bytes_max, passes) in [(head.len(), true), (head.len() - 1, false)] {
            let limits = Limits { head_bytes_max, ..Limits::default() };
            let answer = HeadDecoder::new().decode(head, &limits);
            assert_eq!(matches!(answer, Decoded::Complete { .. }), passes);
        }
    }

    #[test]
    fn fields_up_to_the_limit_pass_and_one_more_does_not() {
        for (count, status) in [(16, 200), (17, 200), (100, 200), (101, 431)] {
            let mut input = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            input.extend(b"A: b\r\n".repeat(count - 1));
            input.extend(b"\r\n");
            let answer = match decode(&input) {
                Decoded::Complete { .. } => 200,
                Decoded::NeedMore => 0,
                Decoded::Invalid(reason) => reason.status().code(),
            };
            assert_eq!(answer, status, "{count} fields");
        }
    }

    #[test]
    fn a_decoder_is_ready_for_the_next_head_after_each_answer() {
        let mut decoder = HeadDecoder::new();
        let limits = Limits::default();
        assert_eq!(decoder.decode(b"GET / HTTP/1.1\r\nHo", &limits), Decoded::NeedMore);
        let whole = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..2 {
            let answer = decoder.decode(whole, &limits);
            assert!(
                matches!(answer, Decoded::Complete { consumed, .. } if consumed == whole.len())
            );
        }
    }

    /// Heads made of right and wrong pieces: random bytes alone hardly ever get past the first
    /// line.
    fn pieces() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"GET / HTTP/1.1\r\n".to_vec()),
            Just(b"PUT /a?b HTTP/1.0\r\n".to_vec()),
            Just(b"Host: a\r\n".to_vec()),
            Just(b"Content-Length: 3\r\n".to_vec()),
            Just(b"Transfer-Encoding: chunked\r\n".to_vec()),
            Just(b"Connection: close\r\n".to_vec()),
            Just(b"\r\n".to_vec()),
            Just(b"\n".to_vec()),
            Just(b"\r".to_vec()),
            Just(b" ".to_vec()),
            Just(b":".to_vec()),
            Just(b"\0".to_vec()),
            prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn no_split_changes_what_is_decoded(input in pieces()) {
            let limits = Limits { head_bytes_max: 96, field_count_max: 4, target_bytes_max: 8,
                ..Limits::default() };
            let whole = HeadDecoder::new().decode(&input, &limits);
            prop_assert_eq!(decode_trickled(&input, &limits), whole);
        }

        #[test]
        fn what_passes_has_only_whole_lines_and_one_host(input in pieces()) {
            if let Decoded::Complete { value, consumed } = decode(&input) {
                let head = &input[..consumed];
                prop_assert!(head.ends_with(b"\r\n\r\n"));
                let feeds = memchr::memchr_iter(b'\n', head).count();
                let returns = memchr::memchr_iter(b'\r', head).count();
                let ends = head.windows(2).filter(|pair| pair == b"\r\n").count();
                prop_assert_eq!((feeds, returns), (ends, ends));
                let hosts = lines(value.fields)
                    .filter(|line| line.len() >= 5 && line[..5].eq_ignore_ascii_case(b"host:"));
                prop_assert!(hosts.count() <= 1);
            }
        }
    }
}
