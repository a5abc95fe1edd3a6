//! Replies: status line, fields and body, appended to an output buffer.
//!
//! Called by routes. Invariant: every reply says where it ends, and one that must not have a body
//! (HEAD, 204, 304) has none, whatever the route hands over.

use std::io::Write;
use std::time::SystemTime;

use httpdate::HttpDate;

use super::request_line::{Method, Version};
use super::status::Status;

/// The interim reply to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Length of a date such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub const DATE_BYTES: usize = 29;

/// A date as a field value (RFC 9110 section 5.6.7). A caller keeps it for a second.
pub fn format_date(time: SystemTime) -> [u8; DATE_BYTES] {
    let mut text = [b' '; DATE_BYTES];
    // The form has a fixed length up to the year 9999; a later date would be cut.
    let _ = write!(&mut text[..], "{}", HttpDate::from(time));
    text
}

/// What the reply says about the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 and it stays open: nothing need be said.
    Implied,
    /// HTTP/1.0 and it stays open: the peer must be told.
    KeepAlive,
    /// It closes after this reply.
    Close,
}

impl Persistence {
    /// What to say to a peer of this version when the connection stays open or does not.
    pub const fn of(version: Version, stays_open: bool) -> Self {
        match (stays_open, version) {
            (false, _) => Self::Close,
            (true, Version::Http11) => Self::Implied,
            (true, Version::Http10) => Self::KeepAlive,
        }
    }

    const fn line(self) -> &'static [u8] {
        match self {
            Self::Implied => b"",
            Self::KeepAlive => b"Connection: keep-alive\r\n",
            Self::Close => b"Connection: close\r\n",
        }
    }
}

/// What a reply takes from its request and the moment.
#[derive(Debug, Clone, Copy)]
pub struct ReplyContext {
    /// The `Date`, see [`format_date`].
    pub date: [u8; DATE_BYTES],
    /// Whether and how the connection goes on.
    pub persistence: Persistence,
    /// HEAD: the fields of a GET without its body.
    pub is_head: bool,
}

impl ReplyContext {
    /// The context of a reply to a request.
    pub fn new(date: [u8; DATE_BYTES], method: Method, persistence: Persistence) -> Self {
        Self { date, persistence, is_head: method == Method::Head }
    }
}

/// One reply being written: fields first, then exactly one of [`body`](Self::body),
/// [`empty`](Self::empty) and [`announce`](Self::announce).
#[derive(Debug)]
#[must_use = "a reply without its end is not a message"]
pub struct Reply<'o> {
    out: &'o mut Vec<u8>,
    status: Status,
    is_head: bool,
}

impl<'o> Reply<'o> {
    /// Starts a reply with its status line, `Date` and, where needed, `Connection`.
    #[inline]
    pub fn start(out: &'o mut Vec<u8>, status: Status, context: &ReplyContext) -> Self {
        const DATE: &[u8] = b"Date: ";
        let mut date = [0; DATE.len() + DATE_BYTES + 2];
        date[..DATE.len()].copy_from_slice(DATE);
        date[DATE.len()..DATE.len() + DATE_BYTES].copy_from_slice(&context.date);
        date[DATE.len() + DATE_BYTES..].copy_from_slice(b"\r\n");
        // Most replies fit: one growth at most for a buffer that is new.
        out.reserve(256);
        out.extend_from_slice(status.line());
        out.extend_from_slice(&date);
        out.extend_from_slice(context.persistence.line());
        Self { out, status, is_head: context.is_head }
    }

    /// Adds a field. The value comes from this program and has no line end.
    #[inline]
    pub fn field(self, name: &str, value: &[u8]) -> Self {
        debug_assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        self
    }

    /// Adds field lines that were written before, each with its line end.
    #[inline]
    pub fn prepared(self, fields: &[u8]) -> Self {
        debug_assert!(fields.is_empty() || fields.ends_with(b"\r\n"));
        self.out.extend_from_slice(fields);
        self
    }

    /// Adds a field with a number.
    #[inline]
    pub fn number(self, name: &str, value: u64) -> Self {
        self.field(name, itoa::Buffer::new().format(value).as_bytes())
    }

    /// Ends the reply with a body.
    #[inline]
    pub fn body(self, body: &[u8]) {
        let has_body = !self.is_head && !self.status.is_bodyless();
        let out = self.announce(body.len() as u64);
        if has_body {
            out.extend_from_slice(body);
        }
    }

    /// Ends the reply without a body.
    #[inline]
    pub fn empty(self) {
        self.announce(0);
    }

    /// Ends the fields; the caller sends `length` bytes of body behind them, except for HEAD.
    /// Gives the buffer back so that a short body can be appended to it.
    #[inline]
    pub fn announce(self, length: u64) -> &'o mut Vec<u8> {
        if self.status.is_bodyless() {
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.out.extend_from_slice(b"Content-Length: ");
            self.out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            self.out.extend_from_slice(b"\r\n\r\n");
        }
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    fn context(is_head: bool, persistence: Persistence) -> ReplyContext {
        let date = format_date(UNIX_EPOCH + Duration::from_secs(784_111_777));
        ReplyContext { date, persistence, is_head }
    }

    #[test]
    fn a_reply_has_date_fields_length_and_body() {
        let mut out = Vec::new();
        Reply::start(&mut out, Status::Ok, &context(false, Persistence::Implied))
            .field("ETag", b"\"a\"")
            .number("TTL", 7)
            .body(b"hello");
        assert_eq!(
            out.escape_ascii().to_string(),
            b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"a\"\r\nTTL: 7\r\n\
              Content-Length: 5\r\n\r\nhello"
                .escape_ascii()
                .to_string()
        );
    }

    #[test]
    fn head_keeps_the_length_and_drops_the_body() {
        let mut out = Vec::new();
        Reply::start(&mut out, Status::Ok, &context(true, Persistence::Implied)).body(b"hello");
        assert!(out.ends_with(b"Content-Length: 5\r\n\r\n"));
    }

    #[test]
    fn statuses_without_body_have_neither_length_nor_body() {
        for status in [Status::NoContent, Status::NotModified] {
            let mut out = Vec::new();
            Reply::start(&mut out, status, &context(false, Persistence::Implied)).body(b"hello");
            assert!(out.ends_with(b"GMT\r\n\r\n"), "{}", out.escape_ascii());
        }
    }

    #[test]
    fn the_connection_is_named_only_where_the_version_does_not_say_it() {
        for (version, stays_open, line) in [
            (Version::Http11, true, ""),
            (Version::Http10, true, "Connection: keep-alive\r\n"),
            (Version::Http11, false, "Connection: close\r\n"),
            (Version::Http10, false, "Connection: close\r\n"),
        ] {
            let mut out = Vec::new();
            let context = context(false, Persistence::of(version, stays_open));
            Reply::start(&mut out, Status::Ok, &context).empty();
            let end = format!("GMT\r\n{line}Content-Length: 0\r\n\r\n");
            assert!(out.ends_with(end.as_bytes()), "{}", out.escape_ascii());
        }
    }
}
