//! Tests of the command decoder: literal cases, every split point, and random input.

use proptest::prelude::*;

use super::*;

/// Everything that a stream decodes to: commands, then what stopped it.
#[derive(Debug, PartialEq)]
struct Heard {
    commands: Vec<Vec<Vec<u8>>>,
    invalid: Option<String>,
    left: usize,
}

/// Feeds `pieces` one after the other, keeping what is undecoded as a connection does.
fn hear<'a>(decoder: &mut Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> Heard {
    let mut pending = Vec::new();
    let mut heard = Heard { commands: Vec::new(), invalid: None, left: 0 };
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            match decoder.decode(&pending) {
                Decode::Complete(consumed) => {
                    let args = decoder.args(decoder.last(), &pending);
                    heard.commands.push(args.iter().map(<[u8]>::to_vec).collect());
                    pending.drain(..consumed);
                    decoder.forget();
                }
                Decode::NeedMore => break,
                Decode::Invalid(invalid) => {
                    heard.invalid = Some(invalid.to_string());
                    return heard;
                }
            }
        }
    }
    heard.left = pending.len();
    heard
}

fn whole(input: &[u8]) -> Heard {
    hear(&mut Decoder::default(), [input])
}

fn words(commands: &[&[&str]]) -> Vec<Vec<Vec<u8>>> {
    let bytes = |word: &&str| word.as_bytes().to_vec();
    commands.iter().map(|command| command.iter().map(bytes).collect()).collect()
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", command.len()).into_bytes();
    for word in command {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

#[test]
fn pipelined_arrays_are_told_apart() {
    let heard = whole(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPI");
    assert_eq!(heard.commands, words(&[&["GET", "a"], &["PING"]]));
    assert_eq!(heard.left, 10);
}

#[test]
fn empty_commands_are_complete() {
    let heard = whole(b"*0\r\n*-1\r\n\r\n\n  \r\n*1\r\n$0\r\n\r\n");
    assert_eq!(heard.commands, words(&[&[], &[], &[], &[], &[], &[""]]));
}

#[test]
fn inline_words_are_unquoted_as_redis_does() {
    let cases: [(&str, &[&str]); 8] = [
        ("PING\r\n", &["PING"]),
        ("  set  a\tb \n", &["set", "a", "b"]),
        ("set a \"b c\"\r\n", &["set", "a", "b c"]),
        ("set a \"\\x41\\n\\\"\\\\\\q\"\r\n", &["set", "a", "A\n\"\\q"]),
        ("set a 'b \\' \\n'\r\n", &["set", "a", "b ' \\n"]),
        ("set a ''\r\n", &["set", "a", ""]),
        ("set a\"b c\" d\r\n", &["set", "ab c", "d"]),
        ("set \"\\xzz\"\r\n", &["set", "xzz"]),
    ];
    for (line, expected) in cases {
        assert_eq!(whole(line.as_bytes()).commands, words(&[expected]), "{line:?}");
    }
}

#[test]
fn malformed_input_is_named_as_redis_names_it() {
    let long = |head: &str| [head.as_bytes(), &vec![b'1'; limits::LINE_BYTES_MAX + 1]].concat();
    let cases: [(Vec<u8>, &str); 21] = [
        (b"*x\r\n".to_vec(), "invalid multibulk length"),
        (b"*\r\n".to_vec(), "invalid multibulk length"),
        (b"*01\r\n".to_vec(), "invalid multibulk length"),
        (b"*+1\r\n".to_vec(), "invalid multibulk length"),
        (b"*1048577\r\n".to_vec(), "invalid multibulk length"),
        (b"*99999999999999999999\r\n".to_vec(), "invalid multibulk length"),
        (long("*"), "too big mbulk count string"),
        (long("*1\r\n$"), "too big bulk count string"),
        (b"*1\r\nfoo\r\n".to_vec(), "expected '$', got 'f'"),
        (b"*1\r\n\r\n".to_vec(), "expected '$', got '\r'"),
        (b"*2\r\n$1\r\na\r\n:1\r\n".to_vec(), "expected '$', got ':'"),
        (b"*1\r\n$-1\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$1x\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$00\r\n".to_vec(), "invalid bulk length"),
        (b"*1\r\n$536870913\r\n".to_vec(), "invalid bulk length"),
        (long("a"), "too big inline request"),
        (b"set a \"b\r\n".to_vec(), "unbalanced quotes in request"),
        (b"set a 'b\r\n".to_vec(), "unbalanced quotes in request"),
        (b"set \"a\"b\r\n".to_vec(), "unbalanced quotes in request"),
        (b"set 'a'b\r\n".to_vec(), "unbalanced quotes in request"),
    ];
    for (input, expected) in cases {
        let shown = String::from_utf8_lossy(&input[..input.len().min(32)]).into_owned();
        assert_eq!(whole(&input).invalid.as_deref(), Some(expected), "{shown:?}");
    }
}

#[test]
fn strangers_get_tighter_limits() {
    let hear_stranger = |input: &[u8]| {
        let mut decoder = Decoder::default();
        decoder.set_authenticated(false);
        hear(&mut decoder, [input])
    };
    let many = hear_stranger(b"*11\r\n").invalid;
    assert_eq!(many.as_deref(), Some("unauthenticated multibulk length"));
    let long = hear_stranger(b"*1\r\n$16385\r\n").invalid;
    assert_eq!(long.as_deref(), Some("unauthenticated bulk length"));
    let fits: Vec<Vec<u8>> = vec![vec![b'x'; 16384]; 10];
    assert_eq!(hear_stranger(&encode(&fits)).commands, vec![fits]);
}

#[test]
fn a_lowered_bulk_limit_is_kept() {
    let mut decoder = Decoder::default();
    decoder.set_bulk_bytes_max(limits::BULK_BYTES_MIN);
    let heard = hear(&mut decoder, [b"*1\r\n$1048577\r\n".as_slice()]);
    assert_eq!(heard.invalid.as_deref(), Some("invalid bulk length"));
}

#[test]
fn a_huge_argument_in_small_pieces_arrives_whole() {
    let command = vec![b"SET".to_vec(), b"k".to_vec(), vec![b'v'; 4 << 20]];
    let bytes = encode(&command);
    let heard = hear(&mut Decoder::default(), bytes.chunks(16 * 1024));
    assert_eq!(heard.commands, vec![command]);
}

#[test]
fn a_long_line_without_end_is_searched_once() {
    // Byte by byte this is quadratic unless the search goes on where it stopped.
    let mut decoder = Decoder::default();
    let line = vec![b'a'; limits::LINE_BYTES_MAX];
    for end in 1..line.len() {
        assert_eq!(decoder.decode(&line[..end]), Decode::NeedMore);
        assert_eq!(decoder.searched, end);
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::collection::vec(any::<u8>(), 0..40);
    let command = prop::collection::vec(word, 0..6).prop_map(|command| encode(&command));
    let line = "[ -~]{0,30}\r?\n".prop_map(String::into_bytes);
    let noise = "[*$:0-9a\r\n\"' -]{0,12}".prop_map(String::into_bytes);
    let item = prop_oneof![6 => command, 2 => line, 1 => noise];
    prop::collection::vec(item, 0..5).prop_map(|items| items.concat())
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..20), 0..6)
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        let heard = whole(&bytes);
        prop_assert_eq!(heard, Heard { commands, invalid: None, left: 0 });
    }

    #[test]
    fn splitting_the_input_anywhere_changes_nothing(input in stream()) {
        let expected = whole(&input);
        for at in 0..=input.len() {
            let (head, tail) = input.split_at(at);
            let heard = hear(&mut Decoder::default(), [head, tail]);
            prop_assert_eq!(&heard, &expected, "split at {}", at);
        }
        let bytewise = hear(&mut Decoder::default(), input.chunks(1));
        prop_assert_eq!(&bytewise, &expected);
    }

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        whole(&input);
        whole(&[b"*2\r\n$".as_slice(), &input].concat());
    }
}
