//! Decimal fractions for `INCRBYFLOAT`. Called by the commands on numbers.
//!
//! Invariant: up to 10^20, sums are exact to 17 decimals, so that 10.5 and 0.1 make 10.6. Redis
//! gets there with 80-bit floats, which Rust lacks; larger numbers fall back to 64-bit floats.

use std::ops::Add;

/// Decimals that are kept; Redis prints as many.
const DECIMALS: i32 = 17;
/// Integer digits up to which a number, and the sum of two, fits the scaled form.
const SCALED_MAX: i128 = 10i128.pow(20 + DECIMALS as u32);

/// A number with a fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decimal {
    /// The number times 10^17.
    Scaled(i128),
    /// A number too large for that.
    Float(f64),
}

/// A text that is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADecimal;

impl Decimal {
    /// Nothing.
    pub const ZERO: Self = Self::Scaled(0);

    /// Reads a number: sign, digits, point, exponent.
    pub fn parse(text: &[u8]) -> Result<Self, NotADecimal> {
        // The library's grammar is the one wanted; its value is the fallback.
        let text = std::str::from_utf8(text).map_err(|_| NotADecimal)?;
        let float: f64 = text.parse().map_err(|_| NotADecimal)?;
        if float.is_nan() {
            return Err(NotADecimal);
        }
        Ok(scaled(text).map_or(Self::Float(float), Self::Scaled))
    }

    /// The shortest text with up to 17 decimals; none for what is not finite.
    pub fn text(self) -> Option<Vec<u8>> {
        let text = match self {
            Self::Scaled(scaled) => {
                let sign = if scaled < 0 { "-" } else { "" };
                let unit = 10u128.pow(DECIMALS as u32);
                let (whole, fraction) =
                    (scaled.unsigned_abs() / unit, scaled.unsigned_abs() % unit);
                format!("{sign}{whole}.{fraction:017}")
            }
            Self::Float(float) if float.is_finite() => format!("{float:.17}"),
            Self::Float(_) => return None,
        };
        Some(text.trim_end_matches('0').trim_end_matches('.').as_bytes().to_vec())
    }

    fn float(self) -> f64 {
        match self {
            Self::Scaled(scaled) => scaled as f64 / 10f64.powi(DECIMALS),
            Self::Float(float) => float,
        }
    }
}

impl Add for Decimal {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        match (self, other) {
            (Self::Scaled(left), Self::Scaled(right)) => Self::Scaled(left + right),
            (left, right) => Self::Float(left.float() + right.float()),
        }
    }
}

/// The number times 10^17, rounded, if `text` holds digits and is not too large.
fn scaled(text: &str) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (negative, digits) = match mantissa.as_bytes() {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let mut value = 0i128;
    let mut shift = exponent.checked_add(DECIMALS)?;
    let mut fraction = false;
    for &byte in digits {
        if byte == b'.' {
            fraction = true;
            continue;
        }
        let digit = char::from(byte).to_digit(10)?;
        value = value.checked_mul(10)?.checked_add(i128::from(digit))?;
        if fraction {
            shift = shift.checked_sub(1)?;
        }
    }
    let power = 10i128.checked_pow(shift.unsigned_abs());
    value = match (shift < 0, power) {
        (false, Some(power)) => value.checked_mul(power)?,
        (true, Some(power)) => (value + power / 2) / power,
        (true, None) => 0,
        (false, None) if value == 0 => 0,
        (false, None) => return None,
    };
    (value <= SCALED_MAX).then_some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(left: &str, right: &str) -> Option<String> {
        let parse = |text: &str| Decimal::parse(text.as_bytes()).ok();
        let text = (parse(left)? + parse(right)?).text()?;
        String::from_utf8(text).ok()
    }

    #[test]
    fn sums_look_as_people_expect() {
        let cases = [
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("3", "1.1", "4.1"),
            ("-5", "5", "0"),
            ("1", "-1.5", "-0.5"),
            (".5", "5.", "5.5"),
            ("0", "1e-18", "0"),
            ("0", "6e-18", "0.00000000000000001"),
            ("1e17", "1", "100000000000000001"),
        ];
        for (left, right, expected) in cases {
            assert_eq!(sum(left, right).as_deref(), Some(expected), "{left} + {right}");
        }
    }

    #[test]
    fn what_is_no_finite_number_is_refused() {
        for text in ["", " 1", "1 ", "abc", "nan", "1e", "--1", "1.2.3"] {
            assert_eq!(Decimal::parse(text.as_bytes()), Err(NotADecimal), "{text:?}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1.7e308", "1.7e308"), None);
    }

    #[test]
    fn huge_numbers_fall_back_to_floats() {
        assert_eq!(Decimal::parse(b"1e300"), Ok(Decimal::Float(1e300)));
        assert_eq!(Decimal::parse(b"1e20"), Ok(Decimal::Scaled(SCALED_MAX)));
    }
}
