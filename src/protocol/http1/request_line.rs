//! The request line: `method SP request-target SP HTTP-version` (RFC 9112 section 3).
//!
//! Called by the head decoder as soon as the line is whole, so that a wrong one is refused
//! without waiting for the fields. Invariant: exactly one space on either side of the target.

use super::fields::is_authority;
use super::reason::Reason;
use super::target::is_token_byte;

/// Methods that some route of this server answers. Others are refused with 501.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// GET
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// OPTIONS
    Options,
}

impl Method {
    /// Every method, in the order in which `Allow` names them.
    pub const ALL: [Self; 6] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Delete, Self::Options];

    fn from_bytes(name: &[u8]) -> Option<Self> {
        match name {
            b"GET" => Some(Self::Get),
            b"HEAD" => Some(Self::Head),
            b"POST" => Some(Self::Post),
            b"PUT" => Some(Self::Put),
            b"DELETE" => Some(Self::Delete),
            b"OPTIONS" => Some(Self::Options),
            _ => None,
        }
    }

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }
}

/// The version that a request is treated as. `HTTP/1.2` and later count as 1.1
/// (RFC 9110 section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What the request is about, still percent-encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A resource. An absolute-form target (RFC 9112 section 3.2.2) is given without its
    /// authority: there is one virtual host.
    Resource {
        /// Starts with `/`.
        path: &'a [u8],
        /// What follows the first `?`.
        query: Option<&'a [u8]>,
    },
    /// `*`: the server as a whole, OPTIONS only.
    Server,
}

/// A request line, with the target as offsets into the line so that it can be kept while the rest
/// of the head arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) version: Version,
    /// Where path and query start and end in the line.
    target: (u32, u32),
}

impl RequestLine {
    /// Parses a line without its line end.
    pub(super) fn parse(line: &[u8], target_bytes_max: usize) -> Result<Self, Reason> {
        let method_end = line.iter().position(|&byte| byte == b' ').ok_or(Reason::RequestLine)?;
        let (method_name, rest) = (&line[..method_end], &line[method_end + 1..]);
        let target_end = memchr::memchr(b' ', rest).ok_or(Reason::RequestLine)?;
        let (target, version) = (&rest[..target_end], &rest[target_end + 1..]);

        if target.len() > target_bytes_max {
            return Err(Reason::TargetTooLong);
        }
        let version = parse_version(version)?;
        let Some(method) = Method::from_bytes(method_name) else {
            let is_token = !method_name.is_empty() && method_name.iter().all(|&b| is_token_byte(b));
            return Err(if is_token { Reason::Method } else { Reason::RequestLine });
        };
        let skip = resource_offset(target, method)?;
        let start = method_end + 1;
        Ok(Self { method, version, target: ((start + skip) as u32, (start + target_end) as u32) })
    }

    /// The target, given the line that was parsed.
    pub(super) fn target<'a>(&self, line: &'a [u8]) -> Target<'a> {
        let bytes = &line[self.target.0 as usize..self.target.1 as usize];
        if bytes == b"*" {
            return Target::Server;
        }
        let (path, query) = match bytes.iter().position(|&byte| byte == b'?') {
            Some(mark) => (&bytes[..mark], Some(&bytes[mark + 1..])),
            None => (bytes, None),
        };
        // `http://host` and `http://host?query` leave no path: it is the root.
        Target::Resource { path: if path.is_empty() { b"/" } else { path }, query }
    }
}

/// Whether a first byte can start a request line. Lets the decoder turn away a TLS client, or any
/// other protocol, at its first byte.
pub(super) fn can_start(byte: u8) -> bool {
    is_token_byte(byte)
}

fn parse_version(bytes: &[u8]) -> Result<Version, Reason> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] => Ok(Version::Http11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Err(Reason::Version),
        _ => Err(Reason::RequestLine),
    }
}

/// Validates a target and says where its path begins.
fn resource_offset(target: &[u8], method: Method) -> Result<usize, Reason> {
    // Printable ASCII without `#`: a fragment is never sent, and other bytes must be encoded.
    if !target.iter().all(|&byte| matches!(byte, 0x21..=0x7e) && byte != b'#') {
        return Err(Reason::Target);
    }
    match target {
        [b'/', ..] => Ok(0),
        b"*" if method == Method::Options => Ok(0),
        _ => absolute_form_path(target).ok_or(Reason::Target),
    }
}

/// Where the path starts in `http://authority/path`, or `None` when it is not an absolute form.
fn absolute_form_path(target: &[u8]) -> Option<usize> {
    let scheme_end = target.iter().position(|&byte| byte == b':')?;
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return None;
    }
    let after = target[scheme_end..].strip_prefix(b"://")?;
    let length = after.iter().position(|&b| matches!(b, b'/' | b'?')).unwrap_or(after.len());
    let authority = &after[..length];
    if authority.is_empty() || !is_authority(authority) {
        return None;
    }
    Some(target.len() - after.len() + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[u8]) -> Result<(Method, Version, Target<'_>), Reason> {
        let parsed = RequestLine::parse(line, 64)?;
        Ok((parsed.method, parsed.version, parsed.target(line)))
    }

    #[test]
    fn origin_form_is_split_at_the_first_question_mark() {
        let (method, version, target) = parse(b"GET /a/b?c=d?e HTTP/1.1").unwrap();
        assert_eq!((method, version), (Method::Get, Version::Http11));
        assert_eq!(target, Target::Resource { path: b"/a/b", query: Some(b"c=d?e") });
    }

    #[test]
    fn absolute_form_loses_scheme_and_authority() {
        for (line, path, query) in [
            (&b"GET http://host:80/a?b HTTP/1.1"[..], &b"/a"[..], Some(&b"b"[..])),
            (b"GET HTTPS://host HTTP/1.1", b"/", None),
            (b"GET http://[::1]:8080?q HTTP/1.1", b"/", Some(b"q")),
        ] {
            assert_eq!(parse(line).unwrap().2, Target::Resource { path, query });
        }
    }

    #[test]
    fn asterisk_is_for_options_only() {
        assert_eq!(parse(b"OPTIONS * HTTP/1.1").unwrap().2, Target::Server);
        assert_eq!(parse(b"GET * HTTP/1.1"), Err(Reason::Target));
    }

    #[test]
    fn targets_of_other_forms_are_refused() {
        for line in [
            &b"GET a HTTP/1.1"[..],
            b"GET host:80 HTTP/1.1",
            b"GET http:///a HTTP/1.1",
            b"GET http://user@host/a HTTP/1.1",
            b"GET ftp://host/a HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"GET /\xc3\xa9 HTTP/1.1",
            b"GET /a\tb HTTP/1.1",
            b"GET /a\rb HTTP/1.1",
        ] {
            assert_eq!(parse(line), Err(Reason::Target), "{}", line.escape_ascii());
        }
    }

    #[test]
    fn a_longer_target_than_the_limit_is_told_apart() {
        let line = [b"GET /".as_slice(), &[b'a'; 64], b" HTTP/1.1"].concat();
        assert_eq!(RequestLine::parse(&line, 64), Err(Reason::TargetTooLong));
        assert!(RequestLine::parse(&line, 65).is_ok());
    }
}
