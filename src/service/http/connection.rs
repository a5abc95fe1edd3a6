//! One connection: receive, decode, answer, send, until either side has had enough.
//!
//! Run as a task by `HttpShard::serve`. Requests that came together are answered together: the loop
//! decodes as long as there is something to decode, and sends once. Invariant: replies leave in the
//! order of their requests, and an answer that has to wait first lets those before it go.

use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::metrics::{self, Counter, Measure};
use crate::net::TcpStream;
use crate::protocol::http1::{
    BodyDecoder, Decoded, Framing, HeadDecoder, Persistence, Reason, ReplyContext, Status,
};
use crate::service::input::Input;
use crate::store::Trace;
use crate::{Direction, time};

use super::deadline::{Deadline, Late};
use super::dispatch::{Outcome, OwnedRequest, destination};
use super::local::HttpShard;
use super::request::{Request, refuse};
use super::settings::{LINGER_BYTES_MAX, TRANSFER_BYTES_PER_SECOND_MIN};

/// The connection cannot be used any more, and nobody is there to be told.
#[derive(Debug)]
pub(super) struct Gone;

/// What a wait for input came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Received {
    /// There is more to decode.
    Some,
    /// The time was over.
    Late,
}

/// What the connection has to do next.
#[derive(Debug)]
enum Step {
    /// Nothing is left to decode: send what there is, then receive.
    Receive,
    /// The output is full enough.
    Send,
    /// Send what there is, then answer this one, whose body may still be on its way.
    Wait(Box<OwnedRequest>, Framing),
    /// Send what there is, then close.
    Close,
}

/// A connection with all that it holds.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shard: Rc<HttpShard>,
    pub(super) input: Input,
    pub(super) output: Vec<u8>,
    stream: TcpStream,
    deadline: Deadline,
    decoder: HeadDecoder,
    /// When the head of which a part has come must be whole.
    head_due: Option<Instant>,
    /// How long the peer may take to begin its next request.
    idle_timeout: Duration,
    /// What must be durable before the output is sent.
    pub(super) owes: Trace,
}

impl Connection {
    pub(super) fn new(shard: Rc<HttpShard>, stream: TcpStream) -> Self {
        let idle_timeout = shard.service.settings.header_timeout;
        Self {
            shard,
            stream,
            deadline: Deadline::default(),
            input: Input::default(),
            output: Vec::new(),
            decoder: HeadDecoder::new(),
            head_due: None,
            idle_timeout,
            owes: Trace::default(),
        }
    }

    /// Serves the connection to its end.
    pub(super) async fn run(&mut self) {
        // A peer that is gone needs nothing more: dropping the stream closes it.
        if self.serve().await.is_ok() {
            self.linger().await;
        }
    }

    /// Serves until the connection is to be closed by us.
    async fn serve(&mut self) -> Result<(), Gone> {
        loop {
            match self.step() {
                Step::Receive => {
                    self.send().await?;
                    if self.receive_head().await? == Received::Late {
                        self.refuse(Status::RequestTimeout, "the head took too long");
                        return self.send().await;
                    }
                }
                Step::Send => self.send().await?,
                Step::Wait(request, framing) => {
                    self.send().await?;
                    // Boxed: what waits is large, and idle connections should not carry it.
                    let persistence = Box::pin(self.answer_waiting(request, framing)).await?;
                    if persistence == Persistence::Close {
                        return self.send().await;
                    }
                }
                Step::Close => return self.send().await,
            }
        }
    }

    /// Decodes and answers what has been received, as far as that needs no waiting.
    fn step(&mut self) -> Step {
        let mut now = time::now();
        while self.output.len() < self.shard.service.settings.output_bytes_high {
            if self.input.is_empty() {
                return Step::Receive;
            }
            if let Some(step) = self.step_once(now) {
                return step;
            }
            let after = clock::now();
            metrics::record(Measure::HttpRequest, after.nanos_since(now));
            now = after;
        }
        Step::Send
    }

    /// Decodes and answers one request. `None` when it is answered and the next may follow.
    #[inline]
    fn step_once(&mut self, now: Instant) -> Option<Step> {
        let Self { shard, input, output, decoder, .. } = self;
        let limits = &shard.service.settings.limits;
        let bytes = input.bytes();
        let (head, head_length) = match decoder.decode(bytes, limits) {
            Decoded::Complete { value, consumed } => (value, consumed),
            Decoded::NeedMore => {
                let due = now + shard.service.settings.header_timeout;
                self.head_due.get_or_insert(due);
                return Some(Step::Receive);
            }
            Decoded::Invalid(reason) => return Some(self.refuse_reason(reason)),
        };
        self.head_due = None;
        if output.capacity() == 0 {
            *output = shard.take_buffer();
        }
        let start = output.len();
        let context = shard.context(&head, now);
        let body = whole_body(head.framing, &bytes[head_length..]);
        // Where the body of a refused request would end is not waited for.
        let refusing = match body {
            Some(_) => context,
            None => ReplyContext { persistence: Persistence::Close, ..context },
        };
        let Some(to) = destination(&head, &refusing, output) else {
            let length = head_length + body.map_or(0, <[u8]>::len);
            return self.answered(length, start, refusing.persistence);
        };
        let Some(body) = body else {
            if let Err(reason) = BodyDecoder::new(head.framing, limits) {
                return Some(self.refuse_reason(reason));
            }
            let framing = head.framing;
            let request = OwnedRequest::new(&bytes[..head_length], &[], context);
            input.consume(head_length);
            return Some(Step::Wait(Box::new(request), framing));
        };
        let request = Request { head, rest: to.rest, query: to.query, body, context };
        let length = head_length + body.len();
        let outcome = shard.answer_now(to.route.handler, &request, now, output);
        self.owes = self.owes.and(shard.take_trace());
        match outcome {
            Outcome::Answered => self.answered(length, start, context.persistence),
            Outcome::Waits => {
                let request = OwnedRequest::new(&bytes[..head_length], body, context);
                input.consume(length);
                Some(Step::Wait(Box::new(request), Framing::None))
            }
        }
    }

    /// Goes on behind a request of `length` bytes, whose reply begins at `start` of the output.
    #[inline]
    fn answered(&mut self, length: usize, start: usize, persistence: Persistence) -> Option<Step> {
        count_reply(&self.output[start..]);
        self.input.consume(length);
        (persistence == Persistence::Close).then_some(Step::Close)
    }

    /// Answers bytes that are no request. Nothing behind them can be trusted.
    #[cold]
    fn refuse_reason(&mut self, reason: Reason) -> Step {
        self.refuse(reason.status(), &reason.to_string());
        Step::Close
    }

    /// Answers with a refusal after which the connection closes.
    #[cold]
    pub(super) fn refuse(&mut self, status: Status, detail: &str) {
        let start = self.output.len();
        let context = self.shard.context_of_refusal();
        refuse(&mut self.output, status, &context, detail);
        count_reply(&self.output[start..]);
    }

    /// Sends the output, if there is any.
    pub(super) async fn send(&mut self) -> Result<(), Gone> {
        if self.output.is_empty() {
            return Ok(());
        }
        let owes = mem::take(&mut self.owes);
        if !self.shard.store.is_settled(owes) {
            self.shard.store.settled(owes).await.map_err(|_| Gone)?;
        }
        let output = mem::take(&mut self.output);
        let allowed = self.shard.service.settings.send_timeout + transfer_time(output.len() as u64);
        let due = time::now() + allowed;
        match self.deadline.within(due, pin!(self.stream.send(output))).await {
            Ok(Ok(payload)) => self.output = payload.into_vec(),
            Ok(Err(_)) | Err(Late) => return Err(Gone),
        }
        Ok(())
    }

    /// Waits for the next head, or the rest of one.
    async fn receive_head(&mut self) -> Result<Received, Gone> {
        self.shard.give_buffer(mem::take(&mut self.output));
        let is_idle = self.input.is_empty();
        let due = match self.head_due {
            Some(due) if !is_idle => due,
            _ => time::now() + self.idle_timeout,
        };
        self.idle_timeout = self.shard.service.settings.idle_timeout;
        match self.receive(due).await? {
            // RFC 9112 section 9.5: a connection that idled too long is closed without a word.
            Received::Late if is_idle => Err(Gone),
            received => Ok(received),
        }
    }

    /// Waits for more input until `due`.
    pub(super) async fn receive(&mut self, due: Instant) -> Result<Received, Gone> {
        self.input.keep();
        match self.deadline.within(due, pin!(self.stream.recv())).await {
            Ok(Ok(Some(chunk))) => {
                self.input.push(chunk);
                Ok(Received::Some)
            }
            Ok(Ok(None) | Err(_)) => Err(Gone),
            Err(Late) => Ok(Received::Late),
        }
    }

    /// Lets the peer read the last reply: a close with unread input would reset the connection,
    /// and the reset may overtake the reply (RFC 9112 section 9.6).
    async fn linger(&mut self) {
        let due = time::now() + self.shard.service.settings.linger_timeout;
        if self.stream.shutdown(Direction::Write).await.is_err() {
            return;
        }
        let mut dropped_bytes = 0;
        while dropped_bytes < LINGER_BYTES_MAX {
            match self.deadline.within(due, pin!(self.stream.recv())).await {
                Ok(Ok(Some(chunk))) => dropped_bytes += chunk.len(),
                _ => return,
            }
        }
    }
}

/// The body, when all of it has come and is not chunked.
#[inline]
fn whole_body(framing: Framing, behind_head: &[u8]) -> Option<&[u8]> {
    match framing {
        Framing::None => Some(&[]),
        Framing::Sized(length) => behind_head.get(..usize::try_from(length).ok()?),
        Framing::Chunked => None,
    }
}

/// What a transfer of so many bytes is granted beyond its timeout.
pub(super) fn transfer_time(bytes: u64) -> Duration {
    Duration::from_secs(bytes / TRANSFER_BYTES_PER_SECOND_MIN)
}

/// Counts a reply by the class of its status, read from its status line.
#[inline]
pub(super) fn count_reply(reply: &[u8]) {
    metrics::add(Counter::HttpRequests, 1);
    match reply.get(b"HTTP/1.1 ".len()) {
        Some(b'4') => metrics::add(Counter::HttpClientErrors, 1),
        Some(b'5') => metrics::add(Counter::HttpServerErrors, 1),
        _ => {}
    }
}
