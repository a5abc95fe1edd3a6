//! Lines of text, with a limit on their length.

use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::io::AsyncBufRead;

use crate::error;

/// The lines of a reader, without their ends (`\n` or `\r\n`), none longer than a limit.
///
/// The last line needs no end. Cancel-safe: what has come of a line stays here.
///
/// ```
/// use annulus::io::Lines;
///
/// let mut lines = Lines::new(&b"one\r\ntwo\n\nlast"[..], 80);
/// annulus::Runtime::new()?.block_on(async {
///     let mut seen = Vec::new();
///     while let Some(line) = lines.next_line().await? {
///         seen.push(line);
///     }
///     assert_eq!(seen, ["one", "two", "", "last"]);
///     annulus::Result::Ok(())
/// })?;
/// # annulus::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    line: Vec<u8>,
    line_bytes_max: usize,
    /// Whether a line was too long: what follows of it is no line.
    failed: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    /// The lines of `reader`, of at most `line_bytes_max` bytes each, without their end.
    pub fn new(reader: R, line_bytes_max: usize) -> Self {
        Self { reader, line: Vec::new(), line_bytes_max, failed: false }
    }

    /// The next line; `None` at the end of the reader.
    ///
    /// Cancel-safe: what has come of a line stays here.
    ///
    /// # Errors
    /// A limit ([`crate::Error::is_limit`]) if the line is too long, and then always. `InvalidData`
    /// if it is not UTF-8; the next line can be read. The reader's own errors.
    pub async fn next_line(&mut self) -> Result<Option<String>> {
        std::future::poll_fn(|context| self.poll_next_line(context)).await
    }

    /// [`Lines::next_line`] as a poll function.
    pub fn poll_next_line(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<String>>> {
        loop {
            if self.failed {
                return Poll::Ready(Err(self.too_long()));
            }
            let chunk = match ready!(Pin::new(&mut self.reader).poll_fill_buf(context)) {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let is_over = chunk.is_empty();
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = end.map_or(chunk, |place| &chunk[..place]);
            // A carriage return belongs to the end if a line feed follows it.
            let room = self.line_bytes_max.saturating_add(1).saturating_sub(self.line.len());
            let is_cut = part.len() > room;
            let part = &part[..part.len().min(room)];
            let taken = part.len() + usize::from(end.is_some() && !is_cut);
            self.line.extend_from_slice(part);
            Pin::new(&mut self.reader).consume(taken);
            let is_whole = end.is_some() && !is_cut;
            if is_whole && self.line.last() == Some(&b'\r') {
                self.line.pop();
            }
            let may_end = !is_whole && !is_cut && self.line.last() == Some(&b'\r');
            if is_cut || self.line.len() > self.line_bytes_max + usize::from(may_end && !is_over) {
                self.failed = true;
                self.line = Vec::new();
            } else if is_whole || (is_over && !self.line.is_empty()) {
                let line = String::from_utf8(std::mem::take(&mut self.line));
                let line = line.map_err(|error| Error::new(ErrorKind::InvalidData, error));
                return Poll::Ready(line.map(Some));
            } else if is_over {
                return Poll::Ready(Ok(None));
            }
        }
    }

    fn too_long(&self) -> Error {
        error::Error::limit(format!("a line of more than {} bytes", self.line_bytes_max)).into()
    }

    /// The reader. What has come of an unfinished line goes.
    pub fn into_inner(self) -> R {
        self.reader
    }
}

impl<R: AsyncBufRead + Unpin> Stream for Lines<R> {
    type Item = Result<String>;

    /// Ends after an error of the limit or of the reader.
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<String>>> {
        self.poll_next_line(context).map(Result::transpose)
    }
}
