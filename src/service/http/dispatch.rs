//! From a request to its handler: what can be answered at once, and what has to wait.
//!
//! Called by the connection loop. Invariant: a request that waits has written nothing yet.

use crate::clock::Instant;
use crate::log::Admission;
use crate::metrics::figure;
use crate::protocol::http1::limits::FIELD_SLOTS_MAX;
use crate::protocol::http1::{
    Decoded, HeadDecoder, Limits, Method, ReplyContext, RequestHead, Status, Target,
};
use crate::shard;
use crate::store::gate::Gate;

use super::file_cache::Content;
use super::local::HttpShard;
use super::request::{Request, list_methods, refuse, refuse_method};
use super::router::{Handler, METHODS_ALL, Route, find};
use super::{files, kv, pages};

/// How far an answer got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Outcome {
    /// The reply is in the output.
    Answered,
    /// The handler has to wait for something. Nothing is in the output.
    Waits,
}

/// Where a request goes: its route, what follows the prefix, its query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Destination<'a> {
    pub(super) route: &'static Route,
    pub(super) rest: &'a [u8],
    pub(super) query: &'a [u8],
}

/// Finds where a request goes; answers it here when it goes nowhere.
#[inline]
pub(super) fn destination<'a>(
    head: &RequestHead<'a>,
    context: &ReplyContext,
    out: &mut Vec<u8>,
) -> Option<Destination<'a>> {
    let Target::Resource { path, query } = head.target else {
        list_methods(out, context, METHODS_ALL);
        return None;
    };
    let Some((route, rest)) = find(path) else {
        refuse(out, Status::NotFound, context, "");
        return None;
    };
    if head.method == Method::Options {
        list_methods(out, context, route.methods);
        return None;
    }
    if !route.methods.contain(head.method) {
        refuse_method(out, context, route.methods);
        return None;
    }
    Some(Destination { route, rest, query: query.unwrap_or_default() })
}

/// A request that left the buffer it was received in: it waits, or goes to another shard.
#[derive(Debug)]
pub(super) struct OwnedRequest {
    /// The head as received, known to be valid.
    pub(super) head: Vec<u8>,
    pub(super) body: Vec<u8>,
    pub(super) context: ReplyContext,
}

impl OwnedRequest {
    /// A copy.
    pub(super) fn new(head: &[u8], body: &[u8], context: ReplyContext) -> Self {
        Self { head: head.to_vec(), body: body.to_vec(), context }
    }

    /// The request with its route. `None` if the head is not that of a request with a route.
    pub(super) fn view(&self) -> Option<(&'static Route, Request<'_>)> {
        // It has passed the limits in force when it came.
        let length = self.head.len();
        let limits = Limits {
            head_bytes_max: length,
            target_bytes_max: length,
            field_count_max: FIELD_SLOTS_MAX,
            ..Limits::default()
        };
        let Decoded::Complete { value: head, .. } = HeadDecoder::new().decode(&self.head, &limits)
        else {
            return None;
        };
        let Target::Resource { path, query } = head.target else { return None };
        let (route, rest) = find(path)?;
        let query = query.unwrap_or_default();
        Some((route, Request { head, rest, query, body: &self.body, context: self.context }))
    }
}

impl HttpShard {
    /// Answers a request with what is at hand.
    #[inline]
    pub(super) fn answer_now(
        &self,
        handler: Handler,
        request: &Request<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Outcome {
        match handler {
            Handler::Kv => return self.answer_key(request, now, out),
            Handler::File => return self.answer_cached_file(request, now, out),
            Handler::Digest | Handler::Compress | Handler::Operations | Handler::Tasks => {
                return Outcome::Waits;
            }
            Handler::Index => {
                pages::page(request, "text/html; charset=utf-8", &self.service.index, out);
            }
            Handler::Health => pages::line(request, Status::Ok, "ok\n", out),
            Handler::Ready if shard::is_draining() => {
                pages::line(request, Status::Unavailable, "draining\n", out);
            }
            Handler::Ready => pages::line(request, Status::Ok, "ready\n", out),
            Handler::Metrics => {
                let mut text = self.service.registry.snapshot().to_prometheus();
                for figure in self.service.figures(self.unix_ms(now)) {
                    figure.to_prometheus(&mut text);
                }
                pages::page(request, "text/plain; version=0.0.4", text.as_bytes(), out);
            }
            Handler::Stats => {
                let figures = figure::to_json(&self.service.figures(self.unix_ms(now)));
                let text = self.service.registry.snapshot().to_json();
                // One object of both.
                let recorded = text.strip_suffix('}').unwrap_or(&text);
                let text = format!("{recorded},\"store\":{figures}}}");
                pages::page(request, "application/json", text.as_bytes(), out);
            }
        }
        Outcome::Answered
    }

    #[inline]
    fn answer_key(&self, request: &Request<'_>, now: Instant, out: &mut Vec<u8>) -> Outcome {
        let mut scratch = Vec::new();
        let Some(key) = kv::key_of(request.rest, &mut scratch) else {
            request.refuse(out, Status::BadRequest, "the key is empty or not percent-encoded");
            return Outcome::Answered;
        };
        if self.store.gate().is_some_and(Gate::is_closed) {
            return Outcome::Waits;
        }
        let id = self.store.map().partition_of(key);
        let method = request.head.method;
        let welcome = !kv::is_write(method) || self.store.admission() == Admission::Open;
        let fits = !kv::needs_room(method) || self.store.has_room();
        if !welcome || !fits || !self.store.reaches(id) {
            return Outcome::Waits;
        }
        let now_ms = self.unix_ms(now);
        let ((), trace) = self.store.visit(|home| {
            home.with(id, |partition| {
                kv::respond(kv::Place { partition, now_ms }, key, request, out);
            });
        });
        self.note(trace);
        Outcome::Answered
    }

    #[inline]
    fn answer_cached_file(
        &self,
        request: &Request<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mut files = self.files.borrow_mut();
        let Some(file) = files.get(request.rest, now) else { return Outcome::Waits };
        let Content::Memory(content) = &file.content else { return Outcome::Waits };
        if let Some(part) = files::answer(request, &file.description, out) {
            out.extend_from_slice(part.of(content));
        }
        Outcome::Answered
    }
}
