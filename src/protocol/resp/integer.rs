//! Decimal integers as Redis reads them. Called by the decoder and by every command that takes one.
//!
//! Invariant: exactly one spelling is accepted for each number, so text and number are
//! interchangeable: no plus sign, no leading zero, no `-0`, no space.

/// Longest text of an `i64`: 19 digits and a sign.
pub const TEXT_BYTES_MAX: usize = 20;

/// Reads `text` as an integer, or says that it is not one.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() < TEXT_BYTES_MAX => {}
        _ => return None,
    }
    // Nineteen digits stay below 2^64, so this sum cannot wrap.
    let mut magnitude: u64 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    if negative { 0i64.checked_sub_unsigned(magnitude) } else { i64::try_from(magnitude).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_extremes() {
        assert_eq!(parse_i64(b"0"), Some(0));
        assert_eq!(parse_i64(b"-1"), Some(-1));
        assert_eq!(parse_i64(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(parse_i64(b"-9223372036854775808"), Some(i64::MIN));
    }

    #[test]
    fn refuses_every_other_spelling() {
        let refused: [&[u8]; 13] = [
            b"",
            b"-",
            b"-0",
            b"00",
            b"01",
            b"+1",
            b" 1",
            b"1 ",
            b"1.0",
            b"abc",
            b"9223372036854775808",
            b"-9223372036854775809",
            b"99999999999999999999",
        ];
        for text in refused {
            assert_eq!(parse_i64(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
