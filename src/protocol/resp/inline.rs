//! Inline commands: a line of words, split and unquoted as Redis does. Called by the decoder.
//!
//! Invariant: words are appended to a scratch buffer, because unquoting can shorten them.

use super::decode::{Invalid, Span};

/// Splits `line` into words. Their bytes go to `scratch`, their places to `spans`.
pub(super) fn split(
    line: &[u8],
    scratch: &mut Vec<u8>,
    spans: &mut Vec<Span>,
) -> Result<(), Invalid> {
    let mut rest = line;
    loop {
        while let [b' ' | b'\t'..=b'\r', after @ ..] = rest {
            rest = after;
        }
        if matches!(rest.first(), None | Some(0)) {
            return Ok(());
        }
        let start = scratch.len();
        rest = word(rest, scratch)?;
        spans.push(Span::new(start, scratch.len() - start));
    }
}

/// Takes one word off the front of `text`; answers what follows it.
fn word<'a>(mut text: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        match text {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Ok(text),
            [b'"', rest @ ..] => return after_quote(double_quoted(rest, scratch)?),
            [b'\'', rest @ ..] => return after_quote(single_quoted(rest, scratch)?),
            [byte, rest @ ..] => {
                scratch.push(*byte);
                text = rest;
            }
        }
    }
}

/// A closing quote must end its word.
fn after_quote(text: &[u8]) -> Result<&[u8], Invalid> {
    match text.first() {
        None | Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0) => Ok(text),
        Some(_) => Err(Invalid::UnbalancedQuotes),
    }
}

fn double_quoted<'a>(mut text: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        let (byte, rest) = match text {
            [] => return Err(Invalid::UnbalancedQuotes),
            [b'"', rest @ ..] => return Ok(rest),
            [b'\\', b'x', high, low, rest @ ..] if hex(*high).is_some() && hex(*low).is_some() => {
                let (high, low) = (hex(*high).unwrap_or(0), hex(*low).unwrap_or(0));
                (high << 4 | low, rest)
            }
            [b'\\', escaped, rest @ ..] => (unescape(*escaped), rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        scratch.push(byte);
        text = rest;
    }
}

fn single_quoted<'a>(mut text: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], Invalid> {
    loop {
        let (byte, rest) = match text {
            [] => return Err(Invalid::UnbalancedQuotes),
            [b'\'', rest @ ..] => return Ok(rest),
            [b'\\', b'\'', rest @ ..] => (b'\'', rest),
            [byte, rest @ ..] => (*byte, rest),
        };
        scratch.push(byte);
        text = rest;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 0x08,
        b'a' => 0x07,
        other => other,
    }
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}
