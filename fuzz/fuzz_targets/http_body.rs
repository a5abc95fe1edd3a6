//! The body decoder: the content is the same when the bytes come one by one, and within its limit.
#![no_main]

use annulus::protocol::http1::{BodyDecoder, Decoded, Framing, Limits};
use libfuzzer_sys::fuzz_target;

const CONTENT_BYTES_MAX: u64 = 4096;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { body_bytes_max: CONTENT_BYTES_MAX, ..Limits::default() };
    let decode = |piece_bytes: usize| {
        let decoder = BodyDecoder::new(Framing::Chunked, &limits);
        let mut decoder = decoder.expect("chunks announce no length");
        let (mut content, mut taken) = (Vec::new(), 0);
        for piece in input.chunks(piece_bytes) {
            match decoder.decode(piece, &mut content) {
                Decoded::Complete { consumed, .. } => return (content, taken + consumed, None),
                Decoded::NeedMore => taken += piece.len(),
                Decoded::Invalid(reason) => return (content, 0, Some(reason)),
            }
        }
        (content, taken, None)
    };
    let whole = decode(input.len().max(1));
    assert!(whole.0.len() as u64 <= CONTENT_BYTES_MAX);
    assert_eq!(decode(1), whole);
});
