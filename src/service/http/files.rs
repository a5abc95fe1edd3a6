//! `/files/…`: what a path names, and what is answered about a file.
//!
//! Called by the connection loop, which opens and reads; nothing here waits. Invariant: a path that
//! gets through names something below the root by plain components alone; that no symbolic link on
//! the way leads out of it is for the kernel to see to (openat2(2), RESOLVE_BENEATH and
//! RESOLVE_NO_SYMLINKS).

use std::io::Write as _;

use crate::protocol::http1::conditions::{Validators, Verdict, evaluate, range_applies, time_of};
use crate::protocol::http1::range::{RangeRequest, parse_range};
use crate::protocol::http1::reply::format_date;
use crate::protocol::http1::target::percent_decode;
use crate::protocol::http1::{Field, Status};

use super::request::Request;

/// Longest path and longest component that the kernel takes (PATH_MAX and NAME_MAX, limits.h).
const PATH_BYTES_MAX: usize = 4095;
const NAME_BYTES_MAX: usize = 255;

/// Which file a path names, below the root. Refused with the status to answer.
pub(super) fn relative_path(encoded: &[u8]) -> Result<Vec<u8>, Status> {
    // An encoded slash would be one component to a proxy in front of us and two to the kernel.
    if encoded.windows(3).any(|escape| escape.eq_ignore_ascii_case(b"%2f")) {
        return Err(Status::NotFound);
    }
    let mut path = Vec::with_capacity(encoded.len());
    percent_decode(encoded, &mut path).ok_or(Status::BadRequest)?;
    if path.contains(&0) {
        return Err(Status::BadRequest);
    }
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_BYTES_MAX;
    if path.len() > PATH_BYTES_MAX || !path.split(|&byte| byte == b'/').all(is_name) {
        return Err(Status::NotFound);
    }
    Ok(path)
}

/// What an open file is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) inode: u64,
    /// Bytes.
    pub(super) size: u64,
    pub(super) modified_s: u64,
    /// Nanoseconds beyond `modified_s`.
    pub(super) modified_ns: u32,
}

/// A file as replies speak of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) identity: Identity,
    entity_tag: Vec<u8>,
    /// `Content-Type`, `ETag`, `Last-Modified` and `Accept-Ranges`, ready to copy.
    fields: Vec<u8>,
}

impl Description {
    /// Describes the file that `path` named.
    pub(super) fn new(path: &[u8], identity: Identity) -> Self {
        let Identity { inode, size, modified_s, modified_ns } = identity;
        let entity_tag =
            format!("\"{inode:x}-{size:x}-{modified_s:x}.{modified_ns:x}\"").into_bytes();
        let mut fields = Vec::with_capacity(192);
        // Writing to a vector does not fail.
        let _ = write!(fields, "Content-Type: {}\r\nETag: ", content_type(path));
        fields.extend_from_slice(&entity_tag);
        fields.extend_from_slice(b"\r\nLast-Modified: ");
        fields.extend_from_slice(&format_date(time_of(modified_s)));
        fields.extend_from_slice(b"\r\nAccept-Ranges: bytes\r\n");
        Self { identity, entity_tag, fields }
    }
}

/// The part of a file that follows a reply's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Part {
    /// The part of a file that is in memory.
    pub(super) fn of(self, content: &[u8]) -> &[u8] {
        let (start, end) = (self.offset as usize, (self.offset + self.length) as usize);
        content.get(start..end).unwrap_or_default()
    }
}

/// Writes the head of the reply, and says which part of the file the caller has to put behind it:
/// none for HEAD and for a reply without content.
#[inline]
pub(super) fn answer(request: &Request<'_>, file: &Description, out: &mut Vec<u8>) -> Option<Part> {
    let size = file.identity.size;
    if request.head.has_conditions() {
        return answer_conditional(request, file, out);
    }
    request.reply(out, Status::Ok).prepared(&file.fields).announce(size);
    (!request.context.is_head && size > 0).then_some(Part { offset: 0, length: size })
}

fn answer_conditional(
    request: &Request<'_>,
    file: &Description,
    out: &mut Vec<u8>,
) -> Option<Part> {
    let size = file.identity.size;
    let current = Validators {
        entity_tag: Some(&file.entity_tag),
        modified_s: Some(file.identity.modified_s),
    };
    match evaluate(&request.head, &current) {
        Verdict::Proceed => {}
        Verdict::NotModified => {
            request.reply(out, Status::NotModified).prepared(&file.fields).empty();
            return None;
        }
        Verdict::Failed => {
            request.refuse(out, Status::PreconditionFailed, "");
            return None;
        }
    }
    let part = match range(request, &current, size) {
        RangeRequest::Whole => {
            request.reply(out, Status::Ok).prepared(&file.fields).announce(size);
            Part { offset: 0, length: size }
        }
        RangeRequest::Part { first, last } => {
            let (place, length) = (format!("bytes {first}-{last}/{size}"), last - first + 1);
            request
                .reply(out, Status::PartialContent)
                .prepared(&file.fields)
                .field("Content-Range", place.as_bytes())
                .announce(length);
            Part { offset: first, length }
        }
        RangeRequest::Unsatisfiable => {
            request
                .reply(out, Status::RangeNotSatisfiable)
                .field("Content-Range", format!("bytes */{size}").as_bytes())
                .empty();
            return None;
        }
    };
    (!request.context.is_head && part.length > 0).then_some(part)
}

/// A range counts for GET alone (RFC 9110 section 14.2), once, and if `If-Range` allows it.
fn range(request: &Request<'_>, current: &Validators<'_>, size: u64) -> RangeRequest {
    let mut values = request.head.values(Field::Range);
    match (values.next(), values.next()) {
        (Some(value), None)
            if !request.context.is_head && range_applies(&request.head, current) =>
        {
            parse_range(value, size)
        }
        _ => RangeRequest::Whole,
    }
}

/// The media type that a file's extension stands for.
fn content_type(path: &[u8]) -> &'static str {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', name) else { return "application/octet-stream" };
    let extension = name[dot + 1..].to_ascii_lowercase();
    TYPES
        .iter()
        .find(|(known, _)| known.as_bytes() == extension)
        .map_or("application/octet-stream", |(_, media_type)| media_type)
}

#[rustfmt::skip]
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"), ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"), ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"), ("json", "application/json"),
    ("txt", "text/plain; charset=utf-8"), ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"), ("xml", "application/xml"),
    ("svg", "image/svg+xml"), ("png", "image/png"), ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"), ("gif", "image/gif"), ("webp", "image/webp"),
    ("avif", "image/avif"), ("ico", "image/x-icon"), ("woff", "font/woff"),
    ("woff2", "font/woff2"), ("ttf", "font/ttf"), ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"), ("wav", "audio/wav"), ("mp4", "video/mp4"), ("webm", "video/webm"),
    ("pdf", "application/pdf"), ("wasm", "application/wasm"), ("zip", "application/zip"),
    ("gz", "application/gzip"), ("zst", "application/zstd"), ("tar", "application/x-tar"),
];

#[cfg(test)]
mod tests {
    use super::super::request::tests::answer as ask;
    use super::*;

    const IDENTITY: Identity =
        Identity { inode: 0xab, size: 10, modified_s: 784_111_777, modified_ns: 255 };

    fn get(method: &str, fields: &str) -> (String, Option<Part>) {
        let file = Description::new(b"a/b.txt", IDENTITY);
        let mut part = None;
        let reply =
            ask(&format!("{method} /files/a/b.txt HTTP/1.1{fields}"), b"", |request, out| {
                part = answer(request, &file, out);
            });
        (reply, part)
    }

    #[test]
    fn plain_paths_get_through_decoded() {
        for (encoded, path) in
            [("a", "a"), ("a/b.txt", "a/b.txt"), ("a%20b", "a b"), ("...", "..."), ("a\\b", "a\\b")]
        {
            assert_eq!(relative_path(encoded.as_bytes()).unwrap(), path.as_bytes());
        }
    }

    #[test]
    fn no_path_leads_out_of_the_root() {
        for (encoded, status) in [
            ("", Status::NotFound),
            ("/etc/passwd", Status::NotFound),
            ("..", Status::NotFound),
            ("../a", Status::NotFound),
            ("a/../../b", Status::NotFound),
            ("a/..", Status::NotFound),
            (".", Status::NotFound),
            ("a/./b", Status::NotFound),
            ("a//b", Status::NotFound),
            ("a/", Status::NotFound),
            ("%2e%2e/a", Status::NotFound),
            (".%2E/a", Status::NotFound),
            ("..%2fa", Status::NotFound),
            ("..%2Fa", Status::NotFound),
            ("a%2fb", Status::NotFound),
            ("%2fetc%2fpasswd", Status::NotFound),
            ("a%00.txt", Status::BadRequest),
            ("a%", Status::BadRequest),
            ("a%g0", Status::BadRequest),
        ] {
            assert_eq!(relative_path(encoded.as_bytes()), Err(status), "{encoded}");
        }
        assert_eq!(relative_path(&[b'a'; 256]), Err(Status::NotFound));
        assert!(relative_path(&[b'a'; 255]).is_ok());
        assert_eq!(relative_path(&b"a/".repeat(2048)), Err(Status::NotFound));
    }

    #[test]
    fn a_double_escape_is_decoded_once() {
        assert_eq!(relative_path(b"%252e%252e").unwrap(), b"%2e%2e");
    }

    #[test]
    fn a_whole_file_is_described_in_full() {
        let (reply, part) = get("GET", "");
        assert_eq!(
            reply,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n\
             ETag: \"ab-a-2ebc98a1.ff\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Accept-Ranges: bytes\r\nContent-Length: 10\r\n\r\n"
        );
        assert_eq!(part, Some(Part { offset: 0, length: 10 }));
        let (head, part) = get("HEAD", "");
        assert_eq!((head, part), (reply, None));
    }

    #[test]
    fn ranges_and_preconditions_are_answered_by_the_table() {
        let tag = String::from_utf8(Description::new(b"a", IDENTITY).entity_tag).unwrap();
        for (fields, status, range, part) in [
            ("Range: bytes=2-4", 206, "bytes 2-4/10", Some((2, 3))),
            ("Range: bytes=-4", 206, "bytes 6-9/10", Some((6, 4))),
            ("Range: bytes=10-", 416, "bytes */10", None),
            ("Range: bytes=0-1,3-4", 200, "", Some((0, 10))),
            ("Range: bytes=0-1\r\nRange: bytes=0-1", 200, "", Some((0, 10))),
            ("Range: bytes=2-4\r\nIf-Range: TAG", 206, "bytes 2-4/10", Some((2, 3))),
            ("Range: bytes=2-4\r\nIf-Range: \"x\"", 200, "", Some((0, 10))),
            ("If-None-Match: TAG", 304, "", None),
            ("If-None-Match: \"x\"", 200, "", Some((0, 10))),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", 304, "", None),
            ("If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", 200, "", Some((0, 10))),
            ("If-Match: \"x\"", 412, "", None),
            ("If-Match: TAG\r\nRange: bytes=0-0", 206, "bytes 0-0/10", Some((0, 1))),
            ("If-None-Match: TAG\r\nRange: bytes=0-0", 304, "", None),
        ] {
            let (reply, found) = get("GET", &format!("\r\n{}", fields.replace("TAG", &tag)));
            assert_eq!(reply[9..12].parse(), Ok(status), "{fields}");
            assert_eq!(found, part.map(|(offset, length)| Part { offset, length }), "{fields}");
            let has_range = reply.contains(&format!("Content-Range: {range}\r\n"));
            assert_eq!(has_range, !range.is_empty(), "{fields}: {reply}");
        }
    }

    #[test]
    fn head_ignores_a_range() {
        let (reply, part) = get("HEAD", "\r\nRange: bytes=2-4");
        assert!(reply.starts_with("HTTP/1.1 200 ") && reply.contains("Content-Length: 10\r\n"));
        assert_eq!(part, None);
    }

    #[test]
    fn extensions_decide_the_type_in_any_case() {
        for (path, expected) in [
            ("a.HTML", "text/html; charset=utf-8"),
            ("a.tar.gz", "application/gzip"),
            ("a.b/c", "application/octet-stream"),
            ("a.", "application/octet-stream"),
            (".png", "image/png"),
        ] {
            assert_eq!(content_type(path.as_bytes()), expected, "{path}");
        }
    }
}
