//! The RESP decoder: the same commands, and the same refusal, however the bytes are cut.
#![no_main]

use annulus::protocol::resp::{Decode, Decoder, Invalid};
use libfuzzer_sys::fuzz_target;

type Heard = (Vec<Vec<Vec<u8>>>, Option<Invalid>);

fn hear<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let (mut decoder, mut pending, mut commands) = (Decoder::default(), Vec::new(), Vec::new());
    for piece in pieces {
        pending.extend_from_slice(piece);
        loop {
            match decoder.decode(&pending) {
                Decode::Complete(consumed) => {
                    let args = decoder.args(decoder.last(), &pending);
                    commands.push(args.iter().map(<[u8]>::to_vec).collect());
                    pending.drain(..consumed);
                    decoder.forget();
                }
                Decode::NeedMore => break,
                Decode::Invalid(invalid) => return (commands, Some(invalid)),
            }
        }
    }
    (commands, None)
}

fuzz_target!(|input: &[u8]| {
    let whole = hear([input].into_iter());
    assert_eq!(hear(input.chunks(1)), whole);
    let (head, tail) = input.split_at(input.len() / 2);
    assert_eq!(hear([head, tail].into_iter()), whole);
});
