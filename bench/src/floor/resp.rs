//! The RESP floor's parser and map: PING, GET, SET, INCR and MSET, no more.
//!
//! Called by the floors with whatever has arrived; answers every complete command at once. Correct
//! for what it knows (binary-safe, split anywhere), but no database: no expiry, no types, no limits
//! beyond the sizes below.

use super::table::Table;

/// Longest argument and most arguments: beyond them the connection is dropped.
const ARGUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
const ARGUMENTS_MAX: usize = 1024 * 1024;

/// The answer to every command but the five.
const UNKNOWN: &[u8] = b"-ERR unknown command or wrong number of arguments\r\n";

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

/// What a command does; its arguments are spans of the input.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Get,
    Set,
    Ping,
    Increment,
    SetMany,
    Unknown,
}

/// A whole command in the input.
#[derive(Debug, Clone, Copy)]
struct Command {
    verb: Verb,
    hash: u64,
    key: Span,
    value: Span,
    /// Where its arguments begin, and how many there are.
    start: usize,
    count: usize,
}

/// Part of the input.
#[derive(Debug, Clone, Copy, Default)]
struct Span {
    start: usize,
    end: usize,
}

impl Span {
    fn of(self, input: &[u8]) -> &[u8] {
        &input[self.start..self.end]
    }
}

/// The map, and memory for the commands of a batch.
#[derive(Debug, Default)]
pub(super) struct Store {
    values: Table,
    batch: Vec<Command>,
}

impl Store {
    /// Carries out every complete command in `input` and appends the replies to `output`.
    ///
    /// All are read before any is carried out: the lookups then stand close together, and the
    /// processor waits for several entries at once.
    pub(super) fn answer(&mut self, input: &[u8], output: &mut Vec<u8>) -> Answer {
        let mut reader = Reader { bytes: input, at: 0 };
        let mut consumed = 0;
        let mut batch = std::mem::take(&mut self.batch);
        let stop = loop {
            match self.read(&mut reader) {
                Ok(command) => batch.push(command),
                Err(stop) => break stop,
            }
            consumed = reader.at;
        };
        for command in &batch {
            self.carry_out(command, input, output);
        }
        batch.clear();
        self.batch = batch;
        match stop {
            Stop::Short => Answer::Consumed(consumed),
            Stop::Broken => {
                output.extend_from_slice(b"-ERR Protocol error\r\n");
                Answer::Broken
            }
        }
    }

    fn read(&self, reader: &mut Reader<'_>) -> Result<Command, Stop> {
        let count = reader.header(b'*', ARGUMENTS_MAX)?;
        let start = reader.at;
        let mut spans = [Span::default(); 3];
        for index in 0..count {
            let span = reader.bulk()?;
            if let Some(slot) = spans.get_mut(index) {
                *slot = span;
            }
        }
        let [name, key, value] = spans;
        let name = name.of(reader.bytes);
        let verb = match (name.len(), count) {
            (3, 2) if name.eq_ignore_ascii_case(b"get") => Verb::Get,
            (3, 3) if name.eq_ignore_ascii_case(b"set") => Verb::Set,
            (4, 1) if name.eq_ignore_ascii_case(b"ping") => Verb::Ping,
            (4, 2) if name.eq_ignore_ascii_case(b"incr") => Verb::Increment,
            (4, count) if count % 2 == 1 && name.eq_ignore_ascii_case(b"mset") => Verb::SetMany,
            _ => Verb::Unknown,
        };
        let hash = self.values.hash(key.of(reader.bytes));
        Ok(Command { verb, hash, key, value, start, count })
    }

    fn carry_out(&mut self, command: &Command, input: &[u8], output: &mut Vec<u8>) {
        let key = command.key.of(input);
        match command.verb {
            Verb::Get => match self.values.get(command.hash, key) {
                Some(value) => write_bulk(value, output),
                None => output.extend_from_slice(b"$-1\r\n"),
            },
            Verb::Set => {
                self.values.set(command.hash, key, command.value.of(input));
                output.extend_from_slice(b"+OK\r\n");
            }
            Verb::Ping => output.extend_from_slice(b"+PONG\r\n"),
            Verb::Increment => self.increment(command.hash, key, output),
            Verb::SetMany => {
                self.set_many(command, input);
                output.extend_from_slice(b"+OK\r\n");
            }
            Verb::Unknown => output.extend_from_slice(UNKNOWN),
        }
    }

    /// MSET: its many arguments are read again, as they were found to be whole.
    fn set_many(&mut self, command: &Command, input: &[u8]) {
        let mut reader = Reader { bytes: input, at: command.start };
        let _name = reader.bulk();
        for _ in 0..command.count / 2 {
            if let (Ok(key), Ok(value)) = (reader.bulk(), reader.bulk()) {
                let key = key.of(input);
                self.values.set(self.values.hash(key), key, value.of(input));
            }
        }
    }

    fn increment(&mut self, hash: u64, key: &[u8], output: &mut Vec<u8>) {
        let old = self.values.get(hash, key).map_or(Some(0), integer);
        match old.and_then(|old| old.checked_add(1)) {
            Some(new) => {
                let text = new.to_string();
                self.values.set(hash, key, text.as_bytes());
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

impl Reader<'_> {
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

    fn bulk(&mut self) -> Result<Span, Stop> {
        let len = self.header(b'$', ARGUMENT_BYTES_MAX)?;
        let bytes = self.bytes;
        let end = self.at + len;
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => {
                let argument = Span { start: self.at, end };
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
