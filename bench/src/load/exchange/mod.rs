//! What goes over a connection: requests written, replies read and checked.
//!
//! A connection owns one [`Exchange`]. Sans-I/O: bytes in, verdicts out. Invariant: a reply is
//! counted once, when its last byte is there, and in the order of the requests.

mod echo;
mod http;
mod resp;

use std::sync::Arc;

pub(crate) use http::Request as HttpRequest;
pub(super) use resp::reply_len;
pub(crate) use resp::{Operation, Values};

/// The requests of a run, shared by all its connections.
#[derive(Debug, Clone)]
pub(crate) enum Work {
    /// Payloads of this many bytes, expected back.
    Echo { payload_bytes: usize },
    /// Redis commands over a set of keys.
    Resp { operation: Operation, values: Arc<Values> },
    /// One HTTP request, repeated.
    Http(Arc<HttpRequest>),
}

/// The requests and replies of one connection.
#[derive(Debug)]
pub(super) enum Exchange {
    Echo(echo::Echo),
    Resp(resp::Resp),
    Http(http::Http),
}

/// What a piece of input held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Bytes done with; the rest must be offered again with more behind it.
    pub(super) consumed: usize,
    /// Replies as they had to be.
    pub(super) good: u64,
    /// Replies with the wrong content.
    pub(super) wrong: u64,
    /// Error replies.
    pub(super) refused: u64,
    /// A complaint about the first bad reply.
    pub(super) complaint: Option<String>,
}

impl Verdict {
    /// All replies, good and bad.
    pub(super) fn replies(&self) -> u64 {
        self.good + self.wrong + self.refused
    }
}

/// The input is not of the protocol: the connection cannot go on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) String);

impl Exchange {
    /// The exchange of connection number `seed`.
    pub(super) fn new(work: &Work, seed: u64) -> Self {
        match work {
            Work::Echo { payload_bytes } => Exchange::Echo(echo::Echo::new(*payload_bytes, seed)),
            Work::Resp { operation, values } => {
                Exchange::Resp(resp::Resp::new(*operation, Arc::clone(values), seed))
            }
            Work::Http(request) => Exchange::Http(http::Http::new(Arc::clone(request))),
        }
    }

    /// Appends `count` requests to `output`.
    pub(super) fn write_requests(&mut self, count: usize, output: &mut Vec<u8>) {
        for _ in 0..count {
            match self {
                Exchange::Echo(echo) => echo.write_request(output),
                Exchange::Resp(resp) => resp.write_request(output),
                Exchange::Http(http) => http.write_request(output),
            }
        }
    }

    /// Whether the latency of the request that was written last is of interest.
    pub(super) fn last_counts(&self) -> bool {
        match self {
            Exchange::Resp(resp) => resp.last_counts(),
            Exchange::Echo(_) | Exchange::Http(_) => true,
        }
    }

    /// Checks every complete reply in `input`.
    pub(super) fn read_replies(&mut self, input: &[u8]) -> Result<Verdict, Malformed> {
        match self {
            Exchange::Echo(echo) => echo.read_replies(input),
            Exchange::Resp(resp) => resp.read_replies(input),
            Exchange::Http(http) => http.read_replies(input),
        }
    }
}

/// The start of `bytes` for a message, with what cannot be printed escaped.
fn excerpt(bytes: &[u8]) -> String {
    const EXCERPT_BYTES: usize = 80;
    bytes[..bytes.len().min(EXCERPT_BYTES)].escape_ascii().to_string()
}
