//! The reply encoder. Called by every command, on the output of its connection.
//!
//! Invariant: one call appends one whole value or one aggregate header; nothing is allocated but
//! the growth of the output.

/// The version of the protocol that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What a connection starts with.
    #[default]
    Resp2,
    /// With maps, sets, doubles, booleans and pushes; asked for by `HELLO 3`.
    Resp3,
}

/// Appends values to `out` as `protocol` spells them.
#[derive(Debug)]
pub struct Encoder<'a> {
    /// Where the bytes go.
    pub out: &'a mut Vec<u8>,
    /// How aggregates, nulls and numbers are spelled.
    pub protocol: Protocol,
}

impl<'a> Encoder<'a> {
    /// An encoder that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    fn resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A short status; it must hold no line break.
    pub fn simple(&mut self, text: &str) {
        debug_assert!(!text.contains(['\r', '\n']));
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An error: a code in capitals, a space, a text. Line breaks in it become spaces.
    #[cold]
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.out.push(b'-');
        let clean = |&byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
        self.out.extend(text.as_ref().iter().map(clean));
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            _ => self.number(b':', value),
        }
    }

    /// A string of bytes.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        // One reservation up front keeps the appends below from checking more than once each.
        self.out.reserve(bytes.len() + 32);
        self.number(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A number as a string of bytes.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// The absence of a value.
    #[inline]
    pub fn null(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"$-1\r\n" };
        self.out.extend_from_slice(text);
    }

    /// The absence of an array.
    pub fn null_array(&mut self) {
        let text: &[u8] = if self.resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.out.extend_from_slice(text);
    }

    /// The header of an array of `len` values.
    pub fn array(&mut self, len: usize) {
        self.number(b'*', len as i64);
    }

    /// The header of a map of `len` pairs; under RESP2 an array of twice as many values.
    pub fn map(&mut self, len: usize) {
        if self.resp3() {
            self.number(b'%', len as i64);
        } else {
            self.number(b'*', len as i64 * 2);
        }
    }

    /// The header of a set of `len` values.
    pub fn set(&mut self, len: usize) {
        self.number(if self.resp3() { b'~' } else { b'*' }, len as i64);
    }

    /// The header of an out-of-band message of `len` values.
    pub fn push(&mut self, len: usize) {
        self.number(if self.resp3() { b'>' } else { b'*' }, len as i64);
    }

    /// A truth value; under RESP2 an integer.
    pub fn boolean(&mut self, value: bool) {
        match (self.resp3(), value) {
            (true, true) => self.out.extend_from_slice(b"#t\r\n"),
            (true, false) => self.out.extend_from_slice(b"#f\r\n"),
            (false, value) => self.integer(i64::from(value)),
        }
    }

    /// A floating point number; under RESP2 a string of bytes.
    pub fn double(&mut self, value: f64) {
        let mut text = DoubleText::default();
        let text = text.format(value);
        if self.resp3() {
            self.out.push(b',');
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    /// An integer beyond 64 bits, given as its digits; under RESP2 a string of bytes.
    pub fn big_number(&mut self, digits: &str) {
        if self.resp3() {
            self.out.push(b'(');
            self.out.extend_from_slice(digits.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(digits.as_bytes());
        }
    }

    /// Text for people, with a three-letter format such as `txt`; under RESP2 a string of bytes.
    pub fn verbatim(&mut self, format: [u8; 3], text: &[u8]) {
        if self.resp3() {
            self.number(b'=', text.len() as i64 + 4);
            self.out.extend_from_slice(&format);
            self.out.push(b':');
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text);
        }
    }

    #[inline]
    fn number(&mut self, sigil: u8, value: i64) {
        // Most numbers are lengths below a hundred: they skip the general formatter.
        if (0..100).contains(&value) {
            let (tens, units) = (b'0' + (value / 10) as u8, b'0' + (value % 10) as u8);
            if tens == b'0' {
                self.out.extend_from_slice(&[sigil, units, b'\r', b'\n']);
            } else {
                self.out.extend_from_slice(&[sigil, tens, units, b'\r', b'\n']);
            }
            return;
        }
        self.out.push(sigil);
        self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Room for the shortest text that reads back as the same double.
#[derive(Default)]
struct DoubleText {
    text: Vec<u8>,
}

impl DoubleText {
    fn format(&mut self, value: f64) -> &[u8] {
        const EXACT_INTEGERS_MAX: f64 = 1e15;
        if value.is_nan() {
            return b"nan";
        }
        if value.is_infinite() {
            return if value > 0.0 { b"inf" } else { b"-inf" };
        }
        if value.fract() == 0.0 && value.abs() < EXACT_INTEGERS_MAX {
            let sign: &[u8] = if value == 0.0 && value.is_sign_negative() { b"-" } else { b"" };
            self.text.extend_from_slice(sign);
            self.text.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
            return &self.text;
        }
        let mut buffer = ryu::Buffer::new();
        let text = buffer.format_finite(value).as_bytes();
        let text = text.strip_suffix(b".0").unwrap_or(text);
        // Redis signs positive exponents and drops a zero fraction.
        for (index, &byte) in text.iter().enumerate() {
            self.text.push(byte);
            if byte == b'e' && text.get(index + 1) != Some(&b'-') {
                self.text.push(b'+');
            }
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Encoder<'_>)) -> (String, String) {
        let text = |protocol| {
            let mut out = Vec::new();
            write(&mut Encoder::new(&mut out, protocol));
            String::from_utf8(out).unwrap_or_default()
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    fn pair(resp2: &str, resp3: &str) -> (String, String) {
        (resp2.to_owned(), resp3.to_owned())
    }

    #[test]
    fn strings_are_spelled_alike_in_both_versions() {
        assert_eq!(both(|e| e.simple("PONG")), pair("+PONG\r\n", "+PONG\r\n"));
        assert_eq!(both(|e| e.bulk(b"a\r\nb")), pair("$4\r\na\r\nb\r\n", "$4\r\na\r\nb\r\n"));
        assert_eq!(both(|e| e.error("ERR a\r\nb")), pair("-ERR a  b\r\n", "-ERR a  b\r\n"));
    }

    #[test]
    fn integers_of_every_length_are_spelled_out() {
        for value in [0, 1, 9, 10, 99, 100, -1, 12345, i64::MAX, i64::MIN] {
            let text = format!(":{value}\r\n");
            assert_eq!(both(|e| e.integer(value)), (text.clone(), text));
        }
    }

    #[test]
    #[expect(clippy::redundant_closure_for_method_calls, reason = "a method is not general enough")]
    fn nulls_follow_the_version() {
        assert_eq!(both(|e| e.null()), pair("$-1\r\n", "_\r\n"));
        assert_eq!(both(|e| e.null_array()), pair("*-1\r\n", "_\r\n"));
    }

    #[test]
    fn aggregates_follow_the_version() {
        assert_eq!(both(|e| e.array(100)), pair("*100\r\n", "*100\r\n"));
        assert_eq!(both(|e| e.map(2)), pair("*4\r\n", "%2\r\n"));
        assert_eq!(both(|e| e.set(3)), pair("*3\r\n", "~3\r\n"));
        assert_eq!(both(|e| e.push(2)), pair("*2\r\n", ">2\r\n"));
    }

    #[test]
    fn scalars_follow_the_version() {
        assert_eq!(both(|e| e.boolean(true)), pair(":1\r\n", "#t\r\n"));
        assert_eq!(both(|e| e.boolean(false)), pair(":0\r\n", "#f\r\n"));
        assert_eq!(both(|e| e.verbatim(*b"txt", b"hi")), pair("$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"));
        assert_eq!(both(|e| e.big_number("123")), pair("$3\r\n123\r\n", "(123\r\n"));
    }

    #[test]
    fn doubles_are_as_short_as_they_can_be() {
        let cases: [(f64, &str); 8] = [
            (3.0, "3"),
            (0.1, "0.1"),
            (-2.5, "-2.5"),
            (1e20, "1e+20"),
            (1.5e-7, "1.5e-7"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (-0.0, "-0"),
        ];
        for (value, text) in cases {
            let resp2 = format!("${}\r\n{text}\r\n", text.len());
            assert_eq!(both(|e| e.double(value)), (resp2, format!(",{text}\r\n")));
        }
    }
}
