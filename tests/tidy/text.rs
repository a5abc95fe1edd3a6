//! Rust source as text: what is code in it, where words and blocks are, what only tests compile.
//!
//! Used by the checks of `tidy`. Invariant: blanking out keeps every offset and every line.

/// Line number, from 1, of a byte offset.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].bytes().filter(|byte| *byte == b'\n').count() + 1
}

pub(super) fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Offsets of `word` where it stands alone.
pub(super) fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(offset, _)| offset).filter(move |offset| {
        let before = code[..*offset].chars().next_back();
        let after = code[offset + word.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

/// Replaces what is not code by blanks; offsets and lines stay the same.
pub(super) fn blank_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let raw_start = at == 0 || !is_word(char::from(bytes[at - 1]));
        let end = if rest.starts_with(b"//") {
            at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            let close = text[at..].find("*/");
            at + close.map_or(rest.len(), |close| close + 2)
        } else if raw_start && (rest.starts_with(b"r\"") || rest.starts_with(b"r#")) {
            at + raw_string_length(&text[at..]).unwrap_or(1)
        } else if rest[0] == b'"' {
            at + string_length(rest)
        } else if rest[0] == b'\'' {
            at + character_length(&text[at..]).unwrap_or(1)
        } else {
            at += 1;
            continue;
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(out).expect("only whole characters were blanked")
}

pub(super) fn string_length(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

pub(super) fn raw_string_length(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest.get(1 + hashes..)?.strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&close)? + close.len())
}

/// A character literal, not a lifetime.
pub(super) fn character_length(rest: &str) -> Option<usize> {
    let inside = &rest[1..];
    let first = inside.chars().next()?;
    let first_length = if first == '\\' {
        1 + inside[1..]
            .find('\'')
            .filter(|length| *length > 0)
            .or_else(|| inside[2..].find('\'').map(|at| at + 1))?
    } else {
        first.len_utf8()
    };
    inside[first_length..].starts_with('\'').then_some(first_length + 2)
}

/// Blanks out every item with a body that only tests compile: `#[cfg(test)]`, `#[cfg(all(test, …`.
pub(super) fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (start, marker) in code.match_indices("#[cfg(") {
        let condition_length = code[start..].find(']').unwrap_or(marker.len());
        let (condition, body) = code[start..].split_at(condition_length);
        if words(condition, "test").next().is_none() || condition.contains("not(test)") {
            continue;
        }
        let length = match body.find(['{', ';']) {
            Some(open) if body.as_bytes()[open] == b'{' => block_end(body, open),
            Some(semicolon) => semicolon + 1,
            None => body.len(),
        };
        let end = start + condition_length + length;
        let blank = code[start..end].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' });
        out.replace_range(start..end, &blank.collect::<String>());
    }
    out
}

/// The offset after the brace that closes the one at `open`.
pub(super) fn block_end(code: &str, open: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 1 => return offset + 1,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    code.len()
}
