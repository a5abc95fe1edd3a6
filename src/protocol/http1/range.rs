//! One byte range of a resource (RFC 9110 section 14).
//!
//! Called by the file route. Invariant: a satisfiable range lies within the resource and is not
//! empty; a set of several ranges is ignored, which section 14.2 allows.

use super::fields::trim;
use super::target::parse_decimal;

/// What a `Range` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RangeRequest {
    /// Answer the whole resource: another unit, several ranges, or nothing understood.
    Whole,
    /// Bytes from `first` to `last`, both included: 206.
    Part {
        /// Offset of the first byte.
        first: u64,
        /// Offset of the last byte, at least `first`.
        last: u64,
    },
    /// A range of bytes that the resource does not have: 416.
    Unsatisfiable,
}

/// Reads the value of a `Range` for a resource of `length` bytes.
pub fn parse_range(value: &[u8], length: u64) -> RangeRequest {
    parse(value, length).unwrap_or(RangeRequest::Whole)
}

fn parse(value: &[u8], length: u64) -> Option<RangeRequest> {
    let mark = value.iter().position(|&byte| byte == b'=')?;
    if !value[..mark].eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let spec = trim(&value[mark + 1..]);
    let dash = spec.iter().position(|&byte| byte == b'-')?;
    let (first, last) = (&spec[..dash], &spec[dash + 1..]);
    if first.is_empty() {
        let suffix = parse_decimal(last)?;
        return Some(if suffix == 0 || length == 0 {
            RangeRequest::Unsatisfiable
        } else {
            RangeRequest::Part { first: length.saturating_sub(suffix), last: length - 1 }
        });
    }
    let first = parse_decimal(first)?;
    let last = if last.is_empty() { u64::MAX } else { parse_decimal(last)? };
    if last < first {
        return None;
    }
    Some(if first >= length {
        RangeRequest::Unsatisfiable
    } else {
        RangeRequest::Part { first, last: last.min(length - 1) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_table_says() {
        use RangeRequest::{Part, Unsatisfiable, Whole};
        for (value, length, expected) in [
            ("bytes=0-0", 10, Part { first: 0, last: 0 }),
            ("bytes=2-5", 10, Part { first: 2, last: 5 }),
            ("bytes=2-", 10, Part { first: 2, last: 9 }),
            ("bytes=2-99", 10, Part { first: 2, last: 9 }),
            ("bytes=-3", 10, Part { first: 7, last: 9 }),
            ("bytes=-99", 10, Part { first: 0, last: 9 }),
            ("BYTES=0-1", 10, Part { first: 0, last: 1 }),
            ("bytes= 0-1 ", 10, Part { first: 0, last: 1 }),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=5-2", 10, Whole),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=", 10, Whole),
            ("lines=0-1", 10, Whole),
            ("", 10, Whole),
            ("bytes=99999999999999999999-", 10, Whole),
        ] {
            assert_eq!(parse_range(value.as_bytes(), length), expected, "{value} of {length}");
        }
    }
}
