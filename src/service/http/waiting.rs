//! Answers that have to wait: for the rest of a body, another shard, a file, the cpu pool.
//!
//! Called by the connection loop with a request that has left its receive buffer. Invariant: no
//! part of the reply is in the output before the outcome is known, unless the file is too large to
//! hold.

use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use crate::log::Admission;
use crate::metrics::{self, Counter, Measure};
use crate::protocol::http1::reply::CONTINUE;
use crate::protocol::http1::{BodyDecoder, Decoded, Framing, Method, Persistence, Status};
use crate::service::room;
use crate::shard::{self, ShardId};
use crate::store::{Room, Store, Trace};
use crate::{clock, cpu, time};

use super::compute::{self, Job, Refused};
use super::connection::{Connection, Gone, Received, count_reply, transfer_time};
use super::dispatch::{Outcome, OwnedRequest};
use super::file_cache::{CachedFile, Content};
use super::files::Part;
use super::request::Request;
use super::router::Handler;
use super::settings::{COMPUTE_BODY_BYTES_MAX, COMPUTE_QUEUE_COUNT_MAX, FILE_CHUNK_BYTES};
use super::{debug, files, kv, pages};
use crate::fs::File;

/// Room made at once for a body that was announced; more as it comes.
const BODY_RESERVE_BYTES_MAX: u64 = 256 * 1024;

impl Connection {
    /// Answers a request, after having received its body. Says how the connection goes on.
    pub(super) async fn answer_waiting(
        &mut self,
        mut request: Box<OwnedRequest>,
        framing: Framing,
    ) -> Result<Persistence, Gone> {
        let started = time::now();
        if framing != Framing::None && !self.receive_body(&mut request, framing).await? {
            return Ok(Persistence::Close);
        }
        let persistence = request.context.persistence;
        let start = self.output.len();
        let sent_before = self.answer_owned(request).await?;
        if !sent_before {
            count_reply(&self.output[start..]);
        }
        metrics::record(Measure::HttpRequest, clock::now().nanos_since(started));
        Ok(persistence)
    }

    /// Receives the body of a request. False when the request was refused meanwhile.
    async fn receive_body(
        &mut self,
        request: &mut OwnedRequest,
        framing: Framing,
    ) -> Result<bool, Gone> {
        let settings = &self.shard.service.settings;
        let (started, timeout) = (time::now(), settings.body_timeout);
        let mut decoder = match BodyDecoder::new(framing, &settings.limits) {
            Ok(decoder) => decoder,
            Err(reason) => {
                self.refuse(reason.status(), &reason.to_string());
                return Ok(false);
            }
        };
        let expects = request.view().is_some_and(|(_, view)| view.head.expect_continue);
        if expects && self.input.is_empty() {
            self.output.extend_from_slice(CONTINUE);
            self.send().await?;
        }
        request.body.reserve(decoder.remaining().min(BODY_RESERVE_BYTES_MAX) as usize);
        loop {
            let input_length = self.input.bytes().len();
            match decoder.decode(self.input.bytes(), &mut request.body) {
                Decoded::Complete { consumed, .. } => {
                    self.input.consume(consumed);
                    return Ok(true);
                }
                Decoded::NeedMore => self.input.consume(input_length),
                Decoded::Invalid(reason) => {
                    self.refuse(reason.status(), &reason.to_string());
                    return Ok(false);
                }
            }
            let due = started + timeout + transfer_time(request.body.len() as u64);
            if self.receive(due).await? == Received::Late {
                self.refuse(Status::RequestTimeout, "the body took too long");
                return Ok(false);
            }
        }
    }

    /// Answers a whole request. True when a part of the reply is already on its way.
    async fn answer_owned(&mut self, mut request: Box<OwnedRequest>) -> Result<bool, Gone> {
        let shard = Rc::clone(&self.shard);
        let Some((route, view)) = request.view() else {
            self.refuse(Status::InternalError, "");
            return Ok(false);
        };
        let now = time::now();
        let outcome = shard.answer_now(route.handler, &view, now, &mut self.output);
        self.owes = self.owes.and(shard.take_trace());
        if outcome == Outcome::Answered {
            return Ok(false);
        }
        match route.handler {
            Handler::File => {
                match shard.open_file(view.rest).await {
                    Ok(file) => return self.answer_file(&view, &file).await,
                    Err(status) => view.refuse(&mut self.output, status, ""),
                }
                Ok(false)
            }
            Handler::Digest | Handler::Compress => {
                let content = mem::take(&mut request.body);
                let Some((route, view)) = request.view() else { return Err(Gone) };
                compute(route.handler, &view, content, &mut self.output).await;
                Ok(false)
            }
            Handler::Operations | Handler::Tasks => {
                let dumped = match route.handler {
                    Handler::Operations => debug::operations().await,
                    _ => debug::tasks().await,
                };
                match dumped {
                    Ok(text) => pages::line(&view, Status::Ok, &text, &mut self.output),
                    Err(error) => {
                        view.refuse(&mut self.output, Status::Unavailable, &error.to_string());
                    }
                }
                Ok(false)
            }
            _ => {
                let (reply, trace) = answer_key(&shard.store, request).await;
                self.output.extend_from_slice(&reply);
                self.owes = self.owes.and(trace);
                Ok(false)
            }
        }
    }

    /// Answers with a file that is open or in memory.
    async fn answer_file(
        &mut self,
        request: &Request<'_>,
        file: &CachedFile<File>,
    ) -> Result<bool, Gone> {
        let Some(part) = files::answer(request, &file.description, &mut self.output) else {
            return Ok(false);
        };
        match &file.content {
            Content::Memory(content) => {
                self.output.extend_from_slice(part.of(content));
                Ok(false)
            }
            Content::Open(file) => {
                count_reply(&self.output);
                self.send_part(file, part).await?;
                Ok(true)
            }
        }
    }

    /// Sends a part of a file behind what is in the output, a chunk at a time.
    async fn send_part(&mut self, file: &File, part: Part) -> Result<(), Gone> {
        let (mut offset, end) = (part.offset, part.offset + part.length);
        while offset < end {
            let wanted = (end - offset).min(FILE_CHUNK_BYTES as u64) as usize;
            let before = self.output.len();
            self.output.reserve(wanted);
            let buffer = mem::take(&mut self.output);
            // An error, or a file that has become shorter: the length was announced, so the only
            // way left to say so is to break off (RFC 9112 section 8).
            self.output = file.read_at(buffer, offset).await.map_err(|_| Gone)?.into_vec();
            self.output.truncate(before + wanted);
            if self.output.len() == before {
                return Err(Gone);
            }
            offset += (self.output.len() - before) as u64;
            self.send().await?;
        }
        Ok(())
    }
}

/// Runs a job on the cpu pool and answers with what it made.
async fn compute(handler: Handler, request: &Request<'_>, content: Vec<u8>, out: &mut Vec<u8>) {
    if content.len() > COMPUTE_BODY_BYTES_MAX {
        let detail = format!("at most {COMPUTE_BODY_BYTES_MAX} bytes");
        return request.refuse(out, Status::ContentTooLarge, &detail);
    }
    let job = match handler {
        Handler::Digest => Job::digest(request.query, content),
        _ => Job::compress(request.query, content),
    };
    let job = match job {
        Ok(job) => job,
        Err(Refused(status, detail)) => return request.refuse(out, status, &detail),
    };
    // The pool's queue would make us wait; a client is better told to come back.
    if cpu::queued() >= COMPUTE_QUEUE_COUNT_MAX {
        return request.refuse(out, Status::Unavailable, "too much work is queued; try again");
    }
    match cpu::run(move || job.run()).await {
        Ok(Ok(product)) => compute::respond(request, &product, out),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a compute request failed");
            request.refuse(out, Status::InternalError, "");
        }
        Err(error) if error.is_closed() => {
            request.refuse(out, Status::Unavailable, "shutting down");
        }
        Err(error) => {
            tracing::error!(%error, "a compute request failed");
            request.refuse(out, Status::InternalError, "");
        }
    }
}

/// Answers a request for a key of another shard, or of this one once its gate is open.
async fn answer_key(store: &Store, request: Box<OwnedRequest>) -> (Vec<u8>, Trace) {
    let mut scratch = Vec::new();
    let id = request
        .view()
        .and_then(|(_, view)| Some(store.map().partition_of(kv::key_of(view.rest, &mut scratch)?)));
    let context = request.context;
    let Some(id) = id else { return Default::default() };
    if store.reaches(id) {
        return answer_key_at_home(store, &request).await;
    }
    let owner = shard::shard(ShardId(id.0));
    let there = owner.submit(move || async move {
        match Store::here() {
            Some(store) => answer_key_at_home(&store, &request).await,
            None => Default::default(),
        }
    });
    match there.await {
        Ok((reply, trace)) if !reply.is_empty() => (reply, trace),
        _ => {
            let mut out = Vec::new();
            super::request::refuse(&mut out, Status::Unavailable, &context, "shutting down");
            (out, Trace::default())
        }
    }
}

/// Answers a request for a key that is within reach, once no transaction is at work there.
async fn answer_key_at_home(store: &Store, request: &OwnedRequest) -> (Vec<u8>, Trace) {
    let (mut out, mut scratch) = (Vec::new(), Vec::new());
    let Some((_, view)) = request.view() else { return Default::default() };
    let Some(key) = kv::key_of(view.rest, &mut scratch) else { return Default::default() };
    let refusal = loop {
        if let Some(gate) = store.gate() {
            gate.opened().await;
        }
        // Nothing is waited for between the last look and the visit: after every wait all is looked
        // at again. A closed gate comes first, because what is evicted behind it would be in the
        // log before the changes of the command that closed it.
        match hindrance(store, view.head.method) {
            None => break None,
            Some(Hindrance::Stall) => {
                metrics::add(Counter::WriteStalls, 1);
                if let Some(log) = store.log() {
                    // A log that has failed refuses.
                    let _ = log.admitted().await;
                }
            }
            Some(Hindrance::Room(room)) => {
                if room::approach(store, room).await.is_err() {
                    break Some((Status::Unavailable, "shutting down".into()));
                }
            }
            Some(Hindrance::Refusal(reason)) => break Some((Status::InsufficientStorage, reason)),
        }
    };
    if let Some((status, reason)) = refusal {
        view.refuse(&mut out, status, &reason);
        return (out, Trace::default());
    }
    let (id, now_ms) = (store.map().partition_of(key), clock::unix_millis());
    let ((), trace) = store.visit(|home| {
        home.with(id, |partition| {
            kv::respond(kv::Place { partition, now_ms }, key, &view, &mut out);
        });
    });
    (out, trace)
}

/// What keeps a request from being answered now.
enum Hindrance {
    /// Writes are to wait for the log.
    Stall,
    /// Keys have to give way first.
    Room(Room),
    /// The write cannot be.
    Refusal(Arc<str>),
}

/// What keeps a request with this method from being answered now; makes some room for it if that
/// is all. Nothing is evicted for a write that the log does not take.
fn hindrance(store: &Store, method: Method) -> Option<Hindrance> {
    if !kv::is_write(method) {
        return None;
    }
    match store.admission() {
        Admission::Open => {}
        Admission::Stalled => return Some(Hindrance::Stall),
        Admission::Refused(reason) => {
            metrics::add(Counter::WritesRefused, 1);
            return Some(Hindrance::Refusal(reason));
        }
    }
    if !kv::needs_room(method) {
        return None;
    }
    match store.visit(|home| home.make_room(0)).0 {
        Room::Enough => None,
        Room::None => Some(Hindrance::Refusal("the store's memory is full".into())),
        room => Some(Hindrance::Room(room)),
    }
}

#[cfg(test)]
#[path = "waiting_tests.rs"]
mod tests;
