//! One HTTP/1.1 request, repeated on a kept-alive connection; its replies framed and compared.
//!
//! Replies must be 2xx with a `Content-Length` (RFC 9112, 6.3). Invariant: a head seen before,
//! byte for byte, is not parsed again; servers repeat it until their `Date` moves on.

use std::sync::{Arc, OnceLock};

use super::{Malformed, Verdict, excerpt};

/// A head longer than this is taken for noise.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Header fields of a reply that are understood.
const FIELDS_MAX: usize = 64;

/// The request of a run.
#[derive(Debug)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    /// What the body of a reply must be; unless given, what the first good reply had.
    body: OnceLock<Vec<u8>>,
    /// Whether bodies are compared at all.
    compare: bool,
    /// Replies to HEAD have a length but no body.
    bodiless: bool,
}

impl Request {
    /// `method path` with `body` to `host`, asking for a reply body of `expected` if that is known.
    pub(crate) fn new(
        method: &str,
        host: &str,
        path: &str,
        body: &[u8],
        expected: Option<Vec<u8>>,
    ) -> Self {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
        if !body.is_empty() || method == "PUT" || method == "POST" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        Self {
            bytes,
            body: expected.map_or_else(OnceLock::new, OnceLock::from),
            compare: method == "GET",
            bodiless: method == "HEAD",
        }
    }

    /// The request as it goes over the wire.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn expects(&self, body: &[u8]) -> bool {
        !self.compare || self.body.get_or_init(|| body.to_vec()) == body
    }
}

/// The exchange of one connection.
#[derive(Debug)]
pub(crate) struct Http {
    request: Arc<Request>,
    in_flight: u64,
    known_head: Vec<u8>,
    known: Head,
}

/// What a head says that matters here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Head {
    status: u16,
    body_bytes: usize,
}

impl Http {
    pub(super) fn new(request: Arc<Request>) -> Self {
        Self { request, in_flight: 0, known_head: Vec::new(), known: Head::default() }
    }

    pub(super) fn write_request(&mut self, output: &mut Vec<u8>) {
        output.extend_from_slice(&self.request.bytes);
        self.in_flight += 1;
    }

    pub(super) fn read_replies(&mut self, input: &[u8]) -> Result<Verdict, Malformed> {
        let mut verdict = Verdict::default();
        while verdict.consumed < input.len() {
            let rest = &input[verdict.consumed..];
            if self.in_flight == 0 {
                return Err(Malformed(format!("a reply that nobody asked for: {}", excerpt(rest))));
            }
            let Some((head, head_bytes)) = self.head(rest)? else {
                return Ok(verdict);
            };
            let body_bytes = if self.request.bodiless { 0 } else { head.body_bytes };
            let Some(body) = rest.get(head_bytes..head_bytes + body_bytes) else {
                return Ok(verdict);
            };
            if !(200..300).contains(&head.status) {
                verdict.refused += 1;
                verdict.complaint.get_or_insert_with(|| excerpt(rest));
            } else if self.request.expects(body) {
                verdict.good += 1;
            } else {
                verdict.wrong += 1;
                verdict.complaint.get_or_insert_with(|| format!("body differs: {}", excerpt(body)));
            }
            verdict.consumed += head_bytes + body_bytes;
            self.in_flight -= 1;
        }
        Ok(verdict)
    }

    /// The head at the start of `input` and its length; `None` asks for more.
    fn head(&mut self, input: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
        if !self.known_head.is_empty() && input.starts_with(&self.known_head) {
            return Ok(Some((self.known, self.known_head.len())));
        }
        let Some((head, len)) = parse_head(input)? else {
            return Ok(None);
        };
        self.known_head.clear();
        self.known_head.extend_from_slice(&input[..len]);
        self.known = head;
        Ok(Some((head, len)))
    }
}

fn parse_head(input: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let len = match response.parse(input) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) if input.len() < HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Malformed("a head without end".into())),
        Err(error) => {
            return Err(Malformed(format!("not an HTTP reply ({error}): {}", excerpt(input))));
        }
    };
    let status = response.code.unwrap_or(0);
    let mut body_bytes = (status == 204 || status == 304).then_some(0);
    for field in response.headers.iter() {
        if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Malformed("chunked replies are not supported by this load".into()));
        }
        if field.name.eq_ignore_ascii_case("content-length") {
            body_bytes =
                std::str::from_utf8(field.value).ok().and_then(|digits| digits.trim().parse().ok());
        }
    }
    match body_bytes {
        Some(body_bytes) => Ok(Some((Head { status, body_bytes }, len))),
        None => Err(Malformed(format!("a reply without Content-Length: {}", excerpt(input)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nDate: x\r\ncontent-length: 5\r\n\r\nhello";

    fn asked(count: usize) -> Http {
        let request = Request::new("GET", "h", "/", b"", Some(b"hello".to_vec()));
        let mut http = Http::new(Arc::new(request));
        for _ in 0..count {
            http.write_request(&mut Vec::new());
        }
        http
    }

    #[test]
    fn requests_say_how_long_their_body_is() {
        let put = Request::new("PUT", "h:1", "/kv/a", b"xyz", None);
        assert_eq!(put.bytes(), b"PUT /kv/a HTTP/1.1\r\nHost: h:1\r\nContent-Length: 3\r\n\r\nxyz");
        let get = Request::new("GET", "h:1", "/", b"", None);
        assert_eq!(get.bytes(), b"GET / HTTP/1.1\r\nHost: h:1\r\n\r\n");
    }

    #[test]
    fn replies_split_anywhere_are_good() {
        let replies = [REPLY, REPLY].concat();
        for split in 0..replies.len() {
            let mut http = asked(2);
            let first = http.read_replies(&replies[..split]).unwrap();
            let second = http.read_replies(&replies[first.consumed..]).unwrap();
            assert_eq!(first.good + second.good, 2, "split at {split}");
        }
    }

    #[test]
    fn another_body_is_wrong_and_another_status_is_refused() {
        let mut http = asked(2);
        let verdict = http
            .read_replies(
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhallo\
                  HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            )
            .unwrap();
        assert_eq!((verdict.good, verdict.wrong, verdict.refused), (0, 1, 1));
    }

    #[test]
    fn without_expectation_the_first_body_sets_it() {
        let mut http = Http::new(Arc::new(Request::new("GET", "h", "/", b"", None)));
        for _ in 0..2 {
            http.write_request(&mut Vec::new());
        }
        let replies = [REPLY, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"].concat();
        let verdict = http.read_replies(&replies).unwrap();
        assert_eq!((verdict.good, verdict.wrong), (1, 1));
    }

    #[test]
    fn replies_without_frame_or_request_are_malformed() {
        assert!(asked(0).read_replies(REPLY).is_err());
        assert!(asked(1).read_replies(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(asked(1).read_replies(b"+PONG\r\n").is_err());
    }
}
