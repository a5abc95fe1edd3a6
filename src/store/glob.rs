//! Glob patterns as Redis matches them. Called by `KEYS`, `SCAN` and `CONFIG GET`.
//!
//! Invariant: matching takes at most pattern times text steps, whatever the pattern: only the
//! last star is ever tried again, which is enough because a star matches anything.

/// Whether all of `text` matches `pattern`: `*`, `?`, `[a-z]`, `[^a]`, and `\` to take literally.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on after the last star, and the text that it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                star = Some((rest, text));
                pattern = rest;
                continue;
            }
            ([], []) => return true,
            (_, [first, tail @ ..]) => {
                if let Some(rest) = one(pattern, *first) {
                    (pattern, text) = (rest, tail);
                    continue;
                }
            }
            (_, []) => {}
        }
        match star {
            Some((rest, [_, tail @ ..])) => {
                star = Some((rest, tail));
                (pattern, text) = (rest, tail);
            }
            _ => return false,
        }
    }
}

/// Whether a pattern matches everything, so that no one needs to try.
pub fn matches_all(pattern: &[u8]) -> bool {
    !pattern.is_empty() && pattern.iter().all(|&byte| byte == b'*')
}

/// Matches one byte against the front of `pattern`; answers the rest of the pattern.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [] => None,
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
    }
}

/// Matches one byte against a class, behind its opening bracket. A class may lack its end.
fn class(mut pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let negated = pattern.first() == Some(&b'^');
    if negated {
        pattern = &pattern[1..];
    }
    let mut found = false;
    let rest = loop {
        pattern = match pattern {
            [] => break pattern,
            [b']', rest @ ..] => break rest,
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
            [from, b'-', to, rest @ ..] => {
                found |= (*from.min(to)..=*from.max(to)).contains(&byte);
                rest
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                rest
            }
        };
    };
    (found != negated).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        let cases: [(&str, &str, bool); 26] = [
            ("*", "", true),
            ("*", "anything", true),
            ("", "", true),
            ("", "a", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h[a-b]llo", "hcllo", false),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[\\]]", "]", true),
            ("[ab", "b", true),
            ("a\\", "a\\", true),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c", "xxaxxbxxcxx", false),
            ("user:*:name", "user:1:2:name", true),
            ("user:*:name", "user:1:nam", false),
            ("**", "x", true),
            ("[^]a", "xa", true),
            ("*[0-9]", "key9", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_still_fast() {
        let pattern = b"a*".repeat(60);
        assert!(!matches(&[&pattern[..], b"b"].concat(), &[b'a'; 5000]));
    }

    #[test]
    fn only_stars_match_all() {
        assert!(matches_all(b"*"));
        assert!(matches_all(b"**"));
        assert!(!matches_all(b""));
        assert!(!matches_all(b"*a"));
    }
}
