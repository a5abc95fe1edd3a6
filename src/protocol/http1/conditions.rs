//! Preconditions: `If-Match`, `If-None-Match` and their dated kin (RFC 9110 section 13).
//!
//! Called by routes that know the current state of the resource. Invariant: they are evaluated in
//! the order of section 13.2.2, in one place for every route.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::fields::{Field, list};
use super::head::RequestHead;
use super::limits::ENTITY_TAG_COUNT_MAX;
use super::request_line::Method;

/// The current state of a resource, as far as preconditions ask for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Validators<'a> {
    /// Strong entity tag with its quotes; `None` when the resource does not exist.
    pub entity_tag: Option<&'a [u8]>,
    /// Seconds since the epoch.
    pub modified_s: Option<u64>,
}

/// What is to be done with the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Perform the method.
    Proceed,
    /// Answer 304.
    NotModified,
    /// Answer 412.
    Failed,
}

/// Evaluates the preconditions of a request against the current state.
pub fn evaluate(head: &RequestHead<'_>, current: &Validators<'_>) -> Verdict {
    if !head.has_conditions() {
        return Verdict::Proceed;
    }
    let is_safe = matches!(head.method, Method::Get | Method::Head);
    if head.has(Field::IfMatch) {
        if !matches_tag(head, Field::IfMatch, current.entity_tag, Comparison::Strong) {
            return Verdict::Failed;
        }
    } else if let (Some(modified), Some(since)) =
        (current.modified_s, date(head, Field::IfUnmodifiedSince))
        && modified > since
    {
        return Verdict::Failed;
    }
    if head.has(Field::IfNoneMatch) {
        if matches_tag(head, Field::IfNoneMatch, current.entity_tag, Comparison::Weak) {
            return if is_safe { Verdict::NotModified } else { Verdict::Failed };
        }
    } else if is_safe
        && let (Some(modified), Some(since)) =
            (current.modified_s, date(head, Field::IfModifiedSince))
        && modified <= since
    {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` is to be honoured: no `If-Range`, or one that names the current state
/// (RFC 9110 section 13.1.5).
pub fn range_applies(head: &RequestHead<'_>, current: &Validators<'_>) -> bool {
    if !head.has(Field::IfRange) {
        return true;
    }
    let mut values = head.values(Field::IfRange);
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    if value.ends_with(b"\"") {
        return current.entity_tag == Some(value);
    }
    date_of(value).is_some_and(|since| current.modified_s == Some(since))
}

/// RFC 9110 section 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether a list of entity tags, or `*`, names the current state. The tags of this server are
/// strong and hold no comma, so the list can be cut at commas: a foreign tag with a comma in it
/// falls into pieces that match nothing of ours.
fn matches_tag(
    head: &RequestHead<'_>,
    field: Field,
    current: Option<&[u8]>,
    comparison: Comparison,
) -> bool {
    let Some(current) = current else { return false };
    head.values(field).flat_map(list).take(ENTITY_TAG_COUNT_MAX).any(|tag| {
        let tag = match comparison {
            Comparison::Weak => tag.strip_prefix(b"W/").unwrap_or(tag),
            Comparison::Strong => tag,
        };
        tag == b"*" || tag == current
    })
}

/// A date that is repeated or malformed counts as absent (RFC 9110 section 13.1.3).
fn date(head: &RequestHead<'_>, field: Field) -> Option<u64> {
    let mut values = head.values(field);
    match (values.next(), values.next()) {
        (Some(value), None) => date_of(value),
        _ => None,
    }
}

fn date_of(value: &[u8]) -> Option<u64> {
    let time = httpdate::parse_http_date(std::str::from_utf8(value).ok()?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Seconds since the epoch as a point in time, for `Last-Modified`.
pub fn time_of(seconds: u64) -> SystemTime {
    // The last second that a date on the wire can name: 9999-12-31 23:59:59.
    const SECONDS_MAX: u64 = 253_402_300_799;
    UNIX_EPOCH + Duration::from_secs(seconds.min(SECONDS_MAX))
}

#[cfg(test)]
mod tests {
    use super::super::{Decoded, HeadDecoder, Limits};
    use super::*;

    const NOVEMBER: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

    fn with_head<T>(method: &str, fields: &str, test: impl Fn(&RequestHead<'_>) -> T) -> T {
        let input = format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        match HeadDecoder::new().decode(input.as_bytes(), &Limits::default()) {
            Decoded::Complete { value, .. } => test(&value),
            answer => panic!("{answer:?}"),
        }
    }

    #[test]
    fn preconditions_are_answered_by_the_table() {
        use Verdict::{Failed, NotModified, Proceed};
        for (method, fields, exists, expected) in [
            ("GET", "If-None-Match: \"a\"", true, NotModified),
            ("HEAD", "If-None-Match: W/\"a\"", true, NotModified),
            ("GET", "If-None-Match: \"b\", \"a\"", true, NotModified),
            ("GET", "If-None-Match: \"b\"\r\nIf-None-Match: \"a\"", true, NotModified),
            ("GET", "If-None-Match: \"b\"", true, Proceed),
            ("GET", "If-None-Match: *", true, NotModified),
            ("GET", "If-None-Match: *", false, Proceed),
            ("PUT", "If-None-Match: *", true, Failed),
            ("PUT", "If-None-Match: *", false, Proceed),
            ("PUT", "If-None-Match: \"a\"", true, Failed),
            ("PUT", "If-Match: \"a\"", true, Proceed),
            ("PUT", "If-Match: W/\"a\"", true, Failed),
            ("PUT", "If-Match: \"b\"", true, Failed),
            ("PUT", "If-Match: *", true, Proceed),
            ("PUT", "If-Match: *", false, Failed),
            ("DELETE", "If-Match: \"a\"", false, Failed),
            ("GET", "If-Match: \"a\"\r\nIf-None-Match: \"a\"", true, NotModified),
            ("GET", "If-Match: \"b\"\r\nIf-None-Match: \"a\"", true, Failed),
            ("GET", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", true, NotModified),
            ("GET", "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT", true, Proceed),
            ("PUT", "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT", true, Proceed),
            ("GET", "If-Modified-Since: yesterday", true, Proceed),
            (
                "GET",
                "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: \"b\"",
                true,
                Proceed,
            ),
            ("PUT", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT", true, Proceed),
            ("PUT", "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT", true, Failed),
            ("GET", "X: y", true, Proceed),
        ] {
            let current = Validators {
                entity_tag: exists.then_some(b"\"a\""),
                modified_s: exists.then_some(NOVEMBER),
            };
            let verdict = with_head(method, fields, |head| evaluate(head, &current));
            assert_eq!(verdict, expected, "{method} {fields} {exists}");
        }
    }

    #[test]
    fn a_range_applies_to_the_state_that_if_range_names() {
        let current = Validators { entity_tag: Some(b"\"a\""), modified_s: Some(NOVEMBER) };
        for (fields, applies) in [
            ("X: y", true),
            ("If-Range: \"a\"", true),
            ("If-Range: \"b\"", false),
            ("If-Range: W/\"a\"", false),
            ("If-Range: Sun, 06 Nov 1994 08:49:37 GMT", true),
            ("If-Range: Sun, 06 Nov 1994 08:49:38 GMT", false),
            ("If-Range: ", false),
        ] {
            let answer = with_head("GET", fields, |head| range_applies(head, &current));
            assert_eq!(answer, applies, "{fields}");
        }
    }
}
