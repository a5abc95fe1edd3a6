//! The RESP floor's parser and map: PING, GET, SET, INCR and MSET, no more.
//!
//! Called by the floors with whatever has arrived; answers every complete command at once. Correct
//! for what it knows (binary-safe, split anywhere), but no database: no expiry, no types, no limits
//! beyond the sizes below.

use hashbrown::HashMap;

/// Longest argument and most arguments: beyond them the connection is dropped.
const ARGUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const ARGUMENTS_MAX: usize = 1024 * 1024;

/// What became of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This many bytes were complete commands, and are answered.
    Consumed(usize),
    /// Not RESP: answered with an error, to be hung up on.
    Broken,
}

/// Why no value came out of the input.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// More bytes are needed.
    Short,
    /// No bytes can make this right.
    Broken,
}

/// The map.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: HashMap<Box<[u8]>, Vec<u8>>,
}

impl Store {
    /// Carries out every complete command in `input` and appends the replies to `output`.
    pub(super) fn answer(&mut self, input: &[u8], output: &mut Vec<u8>) -> Answer {
        let mut consumed = 0;
        loop {
            let mut reader = Reader { bytes: input, at: consumed };
            match self.command(&mut reader, output) {
                Ok(()) => consumed = reader.at,
                Err(Stop::Short) => return Answer::Consumed(consumed),
                Err(Stop::Broken) => {
                    output.extend_from_slice(b"-ERR Protocol error\r\n");
                    return Answer::Broken;
                }
            }
        }
    }

    fn command(&mut self, reader: &mut Reader<'_>, output: &mut Vec<u8>) -> Result<(), Stop> {
        let count = reader.header(b'*', ARGUMENTS_MAX)?;
        // Nothing may be carried out before the command is known to be complete; the few arguments
        // of the usual commands are kept here, the many of MSET are read twice.
        let mut arguments: [&[u8]; 3] = [b""; 3];
        let start = reader.at;
        for index in 0..count {
            let argument = reader.bulk()?;
            if let Some(slot) = arguments.get_mut(index) {
                *slot = argument;
            }
        }
        let [name, key, value] = arguments;
        match (name.len(), count) {
            (3, 2) if name.eq_ignore_ascii_case(b"get") => match self.values.get(key) {
                Some(value) => write_bulk(value, output),
                None => output.extend_from_slice(b"$-1\r\n"),
            },
            (3, 3) if name.eq_ignore_ascii_case(b"set") => {
                self.set(key, value);
                output.extend_from_slice(b"+OK\r\n");
            }
            (4, 1) if name.eq_ignore_ascii_case(b"ping") => {
                output.extend_from_slice(b"+PONG\r\n");
            }
            (4, 2) if name.eq_ignore_ascii_case(b"incr") => self.increment(key, output),
            (4, count) if count % 2 == 1 && name.eq_ignore_ascii_case(b"mset") => {
                let mut again = Reader { bytes: reader.bytes, at: start };
                again.bulk()?;
                for _ in 0..count / 2 {
                    let (key, value) = (again.bulk()?, again.bulk()?);
                    self.set(key, value);
                }
                output.extend_from_slice(b"+OK\r\n");
            }
            _ => output.extend_from_slice(b"-ERR unknown command or wrong number of arguments\r\n"),
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) {
        if let Some(old) = self.values.get_mut(key) {
            old.clear();
            old.extend_from_slice(value);
        } else {
            self.values.insert(key.into(), value.to_vec());
        }
    }

    fn increment(&mut self, key: &[u8], output: &mut Vec<u8>) {
        let old = self.values.get(key).map_or(Some(0), |text| integer(text));
        match old.and_then(|old| old.checked_add(1)) {
            Some(new) => {
                let text = new.to_string();
                self.set(key, text.as_bytes());
                output.push(b':');
                output.extend_from_slice(text.as_bytes());
                output.extend_from_slice(b"\r\n");
            }
            None => output.extend_from_slice(b"-ERR value is not an integer or out of range\r\n"),
        }
    }
}

fn integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// `*N` or `$N` with its line end.
    fn header(&mut self, mark: u8, max: usize) -> Result<usize, Stop> {
        let rest = &self.bytes[self.at..];
        let (first, digits) = rest.split_first().ok_or(Stop::Short)?;
        if *first != mark {
            return Err(Stop::Broken);
        }
        let mut value = 0usize;
        for (index, byte) in digits.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    value = value * 10 + usize::from(byte - b'0');
                    if value > max {
                        return Err(Stop::Broken);
                    }
                }
                b'\r' if index > 0 => {
                    return match digits.get(index + 1) {
                        Some(b'\n') => {
                            self.at += index + 3;
                            Ok(value)
                        }
                        Some(_) => Err(Stop::Broken),
                        None => Err(Stop::Short),
                    };
                }
                _ => return Err(Stop::Broken),
            }
        }
        Err(Stop::Short)
    }

    fn bulk(&mut self) -> Result<&'a [u8], Stop> {
        let len = self.header(b'$', ARGUMENT_BYTES_MAX)?;
        let bytes = self.bytes;
        let end = self.at + len;
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {
                let argument = &bytes[self.at..end];
                self.at = end + 2;
                Ok(argument)
            }
            Some(_) => Err(Stop::Broken),
            None => Err(Stop::Short),
        }
    }
}

fn write_bulk(value: &[u8], output: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut start = digits.len();
    let mut rest = value.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    output.push(b'$');
    output.extend_from_slice(&digits[start..]);
    output.extend_from_slice(b"\r\n");
    output.extend_from_slice(value);
    output.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIPELINE: &[u8] = b"*1\r\n$4\r\nPING\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nv\r\nal\r\n\
        *2\r\n$3\r\nget\r\n$1\r\nk\r\n*2\r\n$3\r\nGET\r\n$1\r\nx\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n\
        *5\r\n$4\r\nMSET\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$0\r\n\r\n\
        *2\r\n$3\r\nGET\r\n$1\r\nb\r\n";
    const REPLIES: &[u8] = b"+PONG\r\n+OK\r\n$5\r\nv\r\nal\r\n$-1\r\n:1\r\n+OK\r\n$0\r\n\r\n";

    #[test]
    fn a_pipeline_is_answered_in_order() {
        let mut output = Vec::new();
        let answer = Store::default().answer(PIPELINE, &mut output);
        assert_eq!(answer, Answer::Consumed(PIPELINE.len()));
        assert_eq!(output, REPLIES);
    }

    #[test]
    fn a_pipeline_may_be_split_at_every_byte() {
        for split in 0..PIPELINE.len() {
            let (mut store, mut output) = (Store::default(), Vec::new());
            let Answer::Consumed(first) = store.answer(&PIPELINE[..split], &mut output) else {
                panic!("broken at {split}");
            };
            let rest = store.answer(&PIPELINE[first..], &mut output);
            assert_eq!(rest, Answer::Consumed(PIPELINE.len() - first), "split at {split}");
            assert_eq!(output, REPLIES, "split at {split}");
        }
    }

    #[test]
    fn what_is_not_resp_is_refused() {
        for input in
            [&b"GET / HTTP/1.1\r\n"[..], b"*x\r\n", b"*1\r\n$99999999999\r\n", b"*1\r\n$1\r\nabc"]
        {
            assert_eq!(Store::default().answer(input, &mut Vec::new()), Answer::Broken);
        }
    }
}
