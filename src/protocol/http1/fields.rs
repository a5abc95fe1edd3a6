//! Header fields that decide how a message is read: framing, host, persistence, expectation.
//!
//! Called by the head decoder with the fields that `httparse` has validated one by one; this file
//! judges them together (RFC 9112 sections 3.2, 6 and 9.3).
//! Invariant: a message whose length two readers could see differently does not pass.

use std::net::Ipv6Addr;

use httparse::Header;

use super::head::Framing;
use super::reason::Reason;
use super::request_line::Version;
use super::target::parse_decimal;

/// Fields that a route may ask for at no cost when they are absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Field {
    /// If-Match
    IfMatch,
    /// If-None-Match
    IfNoneMatch,
    /// If-Modified-Since
    IfModifiedSince,
    /// If-Unmodified-Since
    IfUnmodifiedSince,
    /// If-Range
    IfRange,
    /// Range
    Range,
}

impl Field {
    /// The name in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            Self::IfMatch => "if-match",
            Self::IfNoneMatch => "if-none-match",
            Self::IfModifiedSince => "if-modified-since",
            Self::IfUnmodifiedSince => "if-unmodified-since",
            Self::IfRange => "if-range",
            Self::Range => "range",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Which of the [`Field`]s a head has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Present(u8);

impl Present {
    pub(super) const fn has(self, field: Field) -> bool {
        self.0 & field.bit() != 0
    }

    pub(super) const fn any(self) -> bool {
        self.0 != 0
    }
}

/// What the fields of one head say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
    pub(super) present: Present,
}

/// What has been seen so far.
#[derive(Default)]
struct Seen {
    hosts: u32,
    content_length: Option<u64>,
    coding: Option<Coding>,
    close: bool,
    keep_alive: bool,
    expect_continue: bool,
    present: Present,
}

/// The transfer codings of a message, over all its `Transfer-Encoding` lines.
#[derive(Default)]
struct Coding {
    chunked: u32,
    others: u32,
    last_is_chunked: bool,
}

impl Summary {
    pub(super) fn of(fields: &[Header<'_>], version: Version) -> Result<Self, Reason> {
        let mut seen = Seen::default();
        for field in fields {
            seen.take(field.name, field.value)?;
        }
        if version == Version::Http11 && seen.hosts == 0 {
            return Err(Reason::HostMissing);
        }
        let keep_alive = match version {
            Version::Http11 => !seen.close,
            Version::Http10 => seen.keep_alive && !seen.close,
        };
        Ok(Self {
            framing: seen.framing(version)?,
            keep_alive,
            // A 1.0 client does not understand 100 (RFC 9110 section 10.1.1).
            expect_continue: seen.expect_continue && version == Version::Http11,
            present: seen.present,
        })
    }
}

impl Seen {
    fn take(&mut self, name: &str, value: &[u8]) -> Result<(), Reason> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => return self.take_host(value),
            10 if is("connection") => self.take_connection(value),
            14 if is("content-length") => return self.take_content_length(value),
            17 if is("transfer-encoding") => return self.take_transfer_encoding(value),
            6 if is("expect") => {
                if !value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Reason::Expectation);
                }
                self.expect_continue = true;
            }
            5 if is("range") => self.note(Field::Range),
            8 if is("if-match") => self.note(Field::IfMatch),
            8 if is("if-range") => self.note(Field::IfRange),
            13 if is("if-none-match") => self.note(Field::IfNoneMatch),
            17 if is("if-modified-since") => self.note(Field::IfModifiedSince),
            19 if is("if-unmodified-since") => self.note(Field::IfUnmodifiedSince),
            _ => {}
        }
        Ok(())
    }

    fn note(&mut self, field: Field) {
        self.present.0 |= field.bit();
    }

    fn take_host(&mut self, value: &[u8]) -> Result<(), Reason> {
        self.hosts += 1;
        // An empty value is right for a target without authority (RFC 9112 section 3.2).
        if self.hosts > 1 || !is_authority(value) {
            return Err(Reason::Host);
        }
        Ok(())
    }

    fn take_connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// A second line, or a list, is refused even where the numbers agree: RFC 9112 section 6.3
    /// allows it, and no client has a use for it.
    fn take_content_length(&mut self, value: &[u8]) -> Result<(), Reason> {
        let length = parse_decimal(value).ok_or(Reason::ContentLength)?;
        match self.content_length.replace(length) {
            None => Ok(()),
            Some(_) => Err(Reason::ContentLength),
        }
    }

    fn take_transfer_encoding(&mut self, value: &[u8]) -> Result<(), Reason> {
        let coding = self.coding.get_or_insert_default();
        for name in value.split(|&byte| byte == b',') {
            let name = trim(name);
            if name.is_empty() {
                return Err(Reason::TransferEncoding);
            }
            coding.last_is_chunked = name.eq_ignore_ascii_case(b"chunked");
            if coding.last_is_chunked {
                coding.chunked += 1;
            } else {
                coding.others += 1;
            }
        }
        Ok(())
    }

    fn framing(&self, version: Version) -> Result<Framing, Reason> {
        let Some(coding) = &self.coding else {
            return Ok(match self.content_length {
                None | Some(0) => Framing::None,
                Some(length) => Framing::Sized(length),
            });
        };
        if self.content_length.is_some() {
            return Err(Reason::ConflictingLengths);
        }
        // A 1.0 intermediary would not have understood the coding, and may have passed on
        // something else (RFC 9112 section 6.1).
        if version == Version::Http10 || !coding.last_is_chunked || coding.chunked != 1 {
            return Err(Reason::TransferEncoding);
        }
        if coding.others > 0 {
            return Err(Reason::TransferCoding);
        }
        Ok(Framing::Chunked)
    }
}

/// Cuts optional whitespace (RFC 9110 section 5.6.3) at both ends.
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(is_text).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(is_text).map_or(start, |last| last + 1);
    &bytes[start..end]
}

/// Elements of a comma-separated list, empty ones left out (RFC 9110 section 5.6.1.2).
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Whether this is `host [":" port]` (RFC 3986 section 3.2) without user information. The empty
/// host passes.
pub(super) fn is_authority(authority: &[u8]) -> bool {
    let (is_host, rest) = if let [b'[', literal @ ..] = authority {
        let Some(end) = literal.iter().position(|&byte| byte == b']') else { return false };
        let address = std::str::from_utf8(&literal[..end]).unwrap_or_default();
        (address.parse::<Ipv6Addr>().is_ok(), &literal[end + 1..])
    } else {
        let end = authority.iter().position(|&byte| byte == b':').unwrap_or(authority.len());
        (is_registered_name(&authority[..end]), &authority[end..])
    };
    is_host
        && match rest {
            [] => true,
            [b':', port @ ..] => {
                port.is_empty()
                    || (port.len() <= 5 && parse_decimal(port).is_some_and(|n| n <= 65_535))
            }
            _ => false,
        }
}

fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => tail,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => tail,
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    tail
                }
                _ => return false,
            },
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_are_a_host_and_perhaps_a_port() {
        for right in
            ["", "localhost", "a.b-c:80", "127.0.0.1:8080", "[::1]", "[::1]:80", "a:", "a%20b"]
        {
            assert!(is_authority(right.as_bytes()), "{right}");
        }
        for wrong in [
            "a b",
            "a/b",
            "u@a",
            "a:b",
            "a:80:80",
            "a:65536",
            "[::1",
            "::1",
            "[::1]x",
            "[1.2.3.4]",
            "a%2",
            "a\\b",
            "a\"",
            "<a>",
            "a?b",
            "a#b",
            "[]",
            "a:+80",
        ] {
            assert!(!is_authority(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn connection_options_are_read_from_every_line() {
        let lines = [
            Header { name: "Host", value: b"a" },
            Header { name: "Connection", value: b"upgrade" },
            Header { name: "CONNECTION", value: b", foo ,\tClose" },
        ];
        assert!(!Summary::of(&lines, Version::Http11).unwrap().keep_alive);
        assert!(Summary::of(&lines[..2], Version::Http11).unwrap().keep_alive);
    }

    #[test]
    fn http_1_0_persists_only_when_asked_to() {
        let host = Header { name: "Host", value: b"a" };
        let keep = Header { name: "Connection", value: b"Keep-Alive" };
        let close = Header { name: "Connection", value: b"close" };
        let persists = |fields: &[Header<'_>]| {
            Summary::of(fields, Version::Http10).map(|summary| summary.keep_alive)
        };
        assert_eq!(persists(&[host]), Ok(false));
        assert_eq!(persists(&[host, keep]), Ok(true));
        assert_eq!(persists(&[host, keep, close]), Ok(false));
    }
}
