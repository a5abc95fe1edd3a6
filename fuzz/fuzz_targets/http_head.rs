//! The request head decoder: whatever the bytes, the answer is the same when they come one by one.
#![no_main]

use annulus::protocol::http1::{Decoded, HeadDecoder, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let limits = Limits { head_bytes_max: 1024, target_bytes_max: 256, ..Limits::default() };
    let whole = HeadDecoder::new().decode(input, &limits);
    let mut decoder = HeadDecoder::new();
    let mut trickled = Decoded::NeedMore;
    for end in 0..=input.len() {
        trickled = decoder.decode(&input[..end], &limits);
        if trickled != Decoded::NeedMore {
            break;
        }
    }
    assert_eq!(trickled, whole);
    if let Decoded::Complete { consumed, .. } = whole {
        assert!(input[..consumed].ends_with(b"\r\n\r\n"));
    }
});
