//! What a pool and its worker say to each other: frames of bytes, each with its length in front.
//!
//! Both sides encode and decode here; nothing here reads or writes. All numbers are little-endian.
//! A decoder answers *complete*, *need more* or *invalid*, and refuses a length past
//! [`limits::PROCESS_FRAME_BYTES_MAX`] before the bytes come. Invariant: what it asks for belongs
//! to the frame, so that a reader never takes bytes of the next one.
//!
//! | frame | length (4 bytes) covers |
//! |---|---|
//! | request | name length (2 bytes), name (UTF-8), input |
//! | reply | status (1 byte), output or message |

use crate::limits;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// Bytes of the length of a function's name.
const NAME_LENGTH_BYTES: usize = 2;

/// What a new worker says, so that another program is not taken for one.
pub(super) const GREETING: &[u8] = b"annulus worker 1";

/// A job for a worker.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request<'a> {
    pub(super) function: &'a str,
    pub(super) input: &'a [u8],
}

/// How a job ended, and the output or a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply<'a> {
    pub(super) status: Status,
    pub(super) content: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// The worker is ready for its first job.
    Ready = 0,
    /// The function's output.
    Done = 1,
    /// The function panicked; the message is its text.
    Panicked = 2,
    /// There is no such function; the message lists those that there are.
    Unknown = 3,
    /// The output is too long for a frame; the message says how long.
    TooLong = 4,
}

impl Status {
    const ALL: [Self; 5] = [Self::Ready, Self::Done, Self::Panicked, Self::Unknown, Self::TooLong];
}

/// What a decoder makes of the bytes that it is given.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded<T> {
    Complete(T),
    /// At least so many more bytes, all of this frame.
    NeedMore(usize),
}

/// Bytes that are no frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Invalid {
    #[error("a frame of {0} bytes, more than {max}", max = limits::PROCESS_FRAME_BYTES_MAX)]
    TooLong(usize),
    #[error("a frame of {0} bytes, too few for what it says to hold")]
    TooShort(usize),
    #[error("a function's name that is no UTF-8")]
    Name,
    #[error("the unknown status {0}")]
    Status(u8),
}

/// What stands before the input of a request; the input follows as it is.
pub(super) fn encode_request_head(function: &str, input: usize) -> Result<Vec<u8>, Invalid> {
    let name_length = u16::try_from(function.len()).map_err(|_| Invalid::Name)?;
    let mut head = encode_length(NAME_LENGTH_BYTES + function.len() + input)?;
    head.extend_from_slice(&name_length.to_le_bytes());
    head.extend_from_slice(function.as_bytes());
    Ok(head)
}

/// What stands before the content of a reply; the content follows as it is.
pub(super) fn encode_reply_head(status: Status, content: usize) -> Result<Vec<u8>, Invalid> {
    let mut head = encode_length(1 + content)?;
    head.push(status as u8);
    Ok(head)
}

fn encode_length(length: usize) -> Result<Vec<u8>, Invalid> {
    let is_short = length <= limits::PROCESS_FRAME_BYTES_MAX;
    let word = u32::try_from(length).ok().filter(|_| is_short).ok_or(Invalid::TooLong(length))?;
    Ok(word.to_le_bytes().into())
}

pub(super) fn decode_request(bytes: &[u8]) -> Result<Decoded<Request<'_>>, Invalid> {
    let body = match decode_body(bytes)? {
        Decoded::Complete(body) => body,
        Decoded::NeedMore(count) => return Ok(Decoded::NeedMore(count)),
    };
    let too_short = Invalid::TooShort(body.len());
    let Some((name_length, rest)) = body.split_first_chunk::<NAME_LENGTH_BYTES>() else {
        return Err(too_short);
    };
    let name_length = usize::from(u16::from_le_bytes(*name_length));
    let (name, input) = rest.split_at_checked(name_length).ok_or(too_short)?;
    let function = std::str::from_utf8(name).map_err(|_| Invalid::Name)?;
    Ok(Decoded::Complete(Request { function, input }))
}

pub(super) fn decode_reply(bytes: &[u8]) -> Result<Decoded<Reply<'_>>, Invalid> {
    let body = match decode_body(bytes)? {
        Decoded::Complete(body) => body,
        Decoded::NeedMore(count) => return Ok(Decoded::NeedMore(count)),
    };
    let (status, content) = body.split_first().ok_or(Invalid::TooShort(body.len()))?;
    let known = Status::ALL.into_iter().find(|known| *known as u8 == *status);
    let status = known.ok_or(Invalid::Status(*status))?;
    Ok(Decoded::Complete(Reply { status, content }))
}

/// What the length covers.
fn decode_body(bytes: &[u8]) -> Result<Decoded<&[u8]>, Invalid> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(Decoded::NeedMore(LENGTH_BYTES - bytes.len()));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > limits::PROCESS_FRAME_BYTES_MAX {
        return Err(Invalid::TooLong(length));
    }
    match rest.get(..length) {
        Some(body) => Ok(Decoded::Complete(body)),
        None => Ok(Decoded::NeedMore(length - rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(function: &str, input: &[u8]) -> Vec<u8> {
        let mut frame = encode_request_head(function, input.len()).unwrap();
        frame.extend_from_slice(input);
        frame
    }

    fn reply(status: Status, content: &[u8]) -> Vec<u8> {
        let mut frame = encode_reply_head(status, content.len()).unwrap();
        frame.extend_from_slice(content);
        frame
    }

    #[test]
    fn frames_look_as_the_table_says() {
        assert_eq!(request("sum", b"\x01"), b"\x06\0\0\0\x03\0sum\x01");
        assert_eq!(reply(Status::Panicked, b"no"), b"\x03\0\0\0\x02no");
    }

    #[test]
    fn what_is_no_frame_is_named() {
        assert_eq!(decode_reply(b"\0\0\0\0"), Err(Invalid::TooShort(0)));
        assert_eq!(decode_reply(b"\x01\0\0\0\x09"), Err(Invalid::Status(9)));
        assert_eq!(decode_request(b"\x01\0\0\0\x00"), Err(Invalid::TooShort(1)));
        assert_eq!(decode_request(b"\x03\0\0\0\x02\0a"), Err(Invalid::TooShort(3)));
        assert_eq!(decode_request(b"\x03\0\0\0\x01\0\xff"), Err(Invalid::Name));
        // Refused before the bytes come.
        assert_eq!(decode_reply(b"\xff\xff\xff\xff"), Err(Invalid::TooLong(0xffff_ffff)));
        let length = limits::PROCESS_FRAME_BYTES_MAX;
        assert_eq!(encode_reply_head(Status::Done, length), Err(Invalid::TooLong(length + 1)));
        assert_eq!(encode_request_head(&"x".repeat(70_000), 0), Err(Invalid::Name));
    }

    fn missing<T>(decoded: Result<Decoded<T>, Invalid>) -> Option<usize> {
        match decoded {
            Ok(Decoded::NeedMore(count)) => Some(count),
            _ => None,
        }
    }

    /// Every part of a frame asks for more, and never for more than the frame has.
    fn is_asked_for(frame: &[u8], missing: impl Fn(&[u8]) -> Option<usize>) -> bool {
        (0..frame.len()).all(|cut| {
            missing(&frame[..cut]).is_some_and(|count| (1..=frame.len() - cut).contains(&count))
        })
    }

    proptest! {
        #[test]
        fn a_request_comes_back_and_its_parts_ask_for_the_rest(
            function in ".{0,20}",
            input in proptest::collection::vec(any::<u8>(), 0..200),
            next in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let mut frame = request(&function, &input);
            let is_asked_for = is_asked_for(&frame, |bytes| missing(decode_request(bytes)));
            prop_assert!(is_asked_for);
            frame.extend_from_slice(&next);
            let expected = Request { function: &function, input: &input };
            prop_assert_eq!(decode_request(&frame), Ok(Decoded::Complete(expected)));
        }

        #[test]
        fn a_reply_comes_back_and_its_parts_ask_for_the_rest(
            status in proptest::sample::select(&Status::ALL),
            content in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let frame = reply(status, &content);
            let is_asked_for = is_asked_for(&frame, |bytes| missing(decode_reply(bytes)));
            prop_assert!(is_asked_for);
            let expected = Reply { status, content: &content };
            prop_assert_eq!(decode_reply(&frame), Ok(Decoded::Complete(expected)));
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            for missing in [missing(decode_request(&bytes)), missing(decode_reply(&bytes))] {
                prop_assert!(missing != Some(0));
            }
        }
    }
}
