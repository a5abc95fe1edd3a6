//! The corpus of right and wrong request heads, for tests of the decoder and of the service.
//!
//! The heads are in `tests/corpus/http_heads.txt`, which says how it is written.

/// One head and what it must be answered with.
#[derive(Debug)]
pub(crate) struct HeadCase {
    pub(crate) name: &'static str,
    pub(crate) input: Vec<u8>,
    /// 200 where it passes, 0 where more is needed, else the status of the refusal.
    pub(crate) status: u16,
}

/// Every head of the corpus.
pub(crate) fn heads() -> Vec<HeadCase> {
    let lines = include_str!("../../../tests/corpus/http_heads.txt").lines();
    let cases = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    cases.map(|line| parse(line).unwrap_or_else(|| panic!("malformed line: {line}"))).collect()
}

fn parse(line: &'static str) -> Option<HeadCase> {
    let (status, rest) = line.trim_start().split_once(' ')?;
    let (name, input) = rest.split_once(" | ")?;
    Some(HeadCase { name, input: unescape(input)?, status: status.parse().ok()? })
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (byte, length) = match after.as_bytes().first()? {
            b'r' => (b'\r', 1),
            b'n' => (b'\n', 1),
            b't' => (b'\t', 1),
            b'0' => (0, 1),
            b'x' => (u8::from_str_radix(after.get(1..3)?, 16).ok()?, 3),
            &quoted => (quoted, 1),
        };
        bytes.push(byte);
        rest = &after[length..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}
