//! Readers that are cut anywhere: what is read does not depend on it.

use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};

use annulus::io::{self, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, Lines};
use proptest::prelude::*;

/// A reader that gives its bytes in pieces of given lengths, and now and then nothing yet.
struct Pieces {
    bytes: Vec<u8>,
    lengths: Vec<usize>,
    waits: bool,
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = self.lengths.pop().unwrap_or(usize::MAX);
        let count = length.min(self.bytes.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.bytes[..count]);
        self.bytes.drain(..count);
        Poll::Ready(Ok(count))
    }
}

/// A writer that takes a few bytes at a time.
#[derive(Default)]
struct Sips {
    taken: Vec<u8>,
    waits: bool,
}

impl AsyncWrite for Sips {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        self.waits = !self.waits;
        if self.waits {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = bytes.len().min(3);
        self.taken.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What the lines of `bytes` are, by other means; an error ends them.
fn expected_lines(bytes: &[u8], line_bytes_max: usize) -> Vec<Result<String, ErrorKind>> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = &rest[..end];
                (line.strip_suffix(b"\r").unwrap_or(line), &rest[end + 1..])
            }
            None => (rest, &rest[rest.len()..]),
        };
        if line.len() > line_bytes_max {
            lines.push(Err(ErrorKind::Other));
            return lines;
        }
        lines.push(String::from_utf8(line.to_vec()).map_err(|_| ErrorKind::InvalidData));
        rest = after;
    }
    lines
}

proptest! {
    #[test]
    fn lines_do_not_depend_on_how_they_are_cut(
        bytes in proptest::collection::vec(prop_oneof![
            Just(b'\n'), Just(b'\r'), Just(b'a'), Just(b'b'), Just(0xff_u8)], 0..120),
        lengths in proptest::collection::vec(1_usize..9, 0..60),
        capacity in 1_usize..20,
        line_bytes_max in 0_usize..20,
    ) {
        let reader = Pieces { bytes: bytes.clone(), lengths, waits: false };
        let mut lines = Lines::new(BufReader::with_capacity(capacity, reader), line_bytes_max);
        let mut seen = Vec::new();
        crate::harness::wait_for(async {
            while let Some(line) = lines.next_line().await.transpose() {
                let line = line.map_err(|error| error.kind());
                let is_over = line == Err(ErrorKind::Other);
                seen.push(line);
                if is_over {
                    break;
                }
            }
        });
        prop_assert_eq!(seen, expected_lines(&bytes, line_bytes_max));
    }

    #[test]
    fn copies_do_not_depend_on_how_they_are_cut(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        lengths in proptest::collection::vec(1_usize..9, 0..60),
        capacity in 1_usize..20,
        split in 0_usize..300,
    ) {
        let reader = Pieces { bytes: bytes.clone(), lengths, waits: false };
        let mut reader = BufReader::with_capacity(capacity, reader);
        let mut writer = Sips::default();
        crate::harness::wait_for(async {
            let mut first = vec![0; split.min(bytes.len())];
            io::read_exact(&mut reader, &mut first).await.unwrap();
            writer.write_all(&first).await.unwrap();
            io::copy(&mut reader, &mut writer).await.unwrap();
        });
        prop_assert_eq!(writer.taken, bytes);
    }
}
