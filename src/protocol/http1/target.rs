//! Percent-decoding of paths, and parameters of a query (RFC 3986).
//!
//! Used by routes. Invariant: a malformed escape is an error, never passed through, so that no
//! two readings of one target exist.

/// Bytes of a token (RFC 9110 section 5.6.2): methods and field names.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

const fn hex_value(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

/// Whether there is nothing to decode, so that the bytes can be used as they are.
pub fn is_plain(encoded: &[u8]) -> bool {
    !encoded.contains(&b'%')
}

/// Appends the decoded bytes to `out`. `None` when an escape is not `%` and two hexadecimal
/// digits; `out` then holds what came before it. `+` stays `+`: this is not a form.
#[must_use]
pub fn percent_decode(encoded: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = encoded;
    while let Some(mark) = memchr::memchr(b'%', rest) {
        out.extend_from_slice(&rest[..mark]);
        let digits = rest.get(mark + 1..mark + 3)?;
        out.push(hex_value(digits[0])? << 4 | hex_value(digits[1])?);
        rest = &rest[mark + 3..];
    }
    out.extend_from_slice(rest);
    Some(())
}

/// The parameters of a query as they stand, in order: name, and value without the `=`.
pub fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&byte| byte == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        match pair.iter().position(|&byte| byte == b'=') {
            Some(mark) => (&pair[..mark], &pair[mark + 1..]),
            None => (pair, &[][..]),
        }
    })
}

/// A decimal number of ASCII digits alone: no sign, no space. `None` also when it overflows.
pub fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        if !byte.is_ascii_digit() {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        percent_decode(encoded, &mut out).map(|()| out)
    }

    #[test]
    fn escapes_decode_in_either_case_and_plus_stays() {
        assert_eq!(decode(b"a%2Fb%2fc+d").unwrap(), b"a/b/c+d");
        assert_eq!(decode(b"%00%ff").unwrap(), b"\x00\xff");
        assert_eq!(decode(b"").unwrap(), b"");
    }

    #[test]
    fn malformed_escapes_are_refused() {
        for encoded in [&b"%"[..], b"a%2", b"%zz", b"%2", b"%%20", b"% 20", b"%+1"] {
            assert_eq!(decode(encoded), None, "{}", encoded.escape_ascii());
        }
    }

    #[test]
    fn parameters_come_in_order_with_or_without_value() {
        let all: Vec<_> = parameters(b"a=1&&b&c=d=e").collect();
        assert_eq!(all, [(&b"a"[..], &b"1"[..]), (b"b", b""), (b"c", b"d=e")]);
    }

    #[test]
    fn numbers_are_digits_only_and_do_not_wrap() {
        assert_eq!(parse_decimal(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_decimal(b"0000000000000000000000000007"), Some(7));
        for wrong in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"0x1", b"18446744073709551616"] {
            assert_eq!(parse_decimal(wrong), None, "{}", wrong.escape_ascii());
        }
    }
}
