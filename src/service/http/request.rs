//! A request as handlers see it, and the short replies that all of them give.
//!
//! Built by the connection loop. Invariant: the body is whole, and everything is borrowed: a
//! handler that waits for something takes a copy of what it needs.

use crate::protocol::http1::{Reply, ReplyContext, RequestHead, Status};

use super::router::Methods;

/// One request with its whole body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) head: RequestHead<'a>,
    /// What follows the route's prefix, still encoded.
    pub(super) rest: &'a [u8],
    pub(super) query: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) context: ReplyContext,
}

impl Request<'_> {
    /// Starts the reply.
    #[inline]
    pub(super) fn reply<'o>(&self, out: &'o mut Vec<u8>, status: Status) -> Reply<'o> {
        Reply::start(out, status, &self.context)
    }

    /// Answers with the status and a line of text that says what is wrong.
    pub(super) fn refuse(&self, out: &mut Vec<u8>, status: Status, detail: &str) {
        refuse(out, status, &self.context, detail);
    }
}

/// Answers with a status and one line of text.
#[cold]
pub(super) fn refuse(out: &mut Vec<u8>, status: Status, context: &ReplyContext, detail: &str) {
    let reply = Reply::start(out, status, context);
    refuse_body(reply, status, detail);
}

/// Answers 405 with the methods that the route has.
#[cold]
pub(super) fn refuse_method(out: &mut Vec<u8>, context: &ReplyContext, allowed: Methods) {
    let status = Status::MethodNotAllowed;
    let reply = Reply::start(out, status, context).field("Allow", allowed.list().as_bytes());
    refuse_body(reply, status, "");
}

/// Answers OPTIONS.
pub(super) fn list_methods(out: &mut Vec<u8>, context: &ReplyContext, allowed: Methods) {
    Reply::start(out, Status::NoContent, context).field("Allow", allowed.list().as_bytes()).empty();
}

fn refuse_body(reply: Reply<'_>, status: Status, detail: &str) {
    let text = status.text().escape_ascii();
    let body = if detail.is_empty() { format!("{text}\n") } else { format!("{text}: {detail}\n") };
    reply.field("Content-Type", b"text/plain; charset=utf-8").body(body.as_bytes());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::protocol::http1::{Decoded, HeadDecoder, Limits, Persistence, Target};
    use crate::service::http::router;

    /// Builds a request from its text and runs a handler on it; gives the reply as text.
    pub(in crate::service::http) fn answer(
        head: &str,
        body: &[u8],
        handler: impl FnOnce(&Request<'_>, &mut Vec<u8>),
    ) -> String {
        let text = format!("{head}\r\nHost: a\r\n\r\n");
        let Decoded::Complete { value: head, .. } =
            HeadDecoder::new().decode(text.as_bytes(), &Limits::default())
        else {
            panic!("{text}")
        };
        let Target::Resource { path, query } = head.target else { panic!("{text}") };
        let (_, rest) = router::find(path).unwrap();
        let date = *b"Sun, 06 Nov 1994 08:49:37 GMT";
        let context = ReplyContext::new(date, head.method, Persistence::Implied);
        let query = query.unwrap_or_default();
        let mut out = Vec::new();
        handler(&Request { head, rest, query, body, context }, &mut out);
        String::from_utf8_lossy(&out).replace("Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "")
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let reply = answer("GET /kv/a HTTP/1.1", b"", |request, out| {
            request.refuse(out, Status::BadRequest, "no salt");
        });
        assert_eq!(
            reply,
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Length: 25\r\n\r\n400 Bad Request: no salt\n"
        );
    }

    #[test]
    fn a_method_that_a_route_lacks_is_answered_with_those_it_has() {
        let reply = answer("GET /kv/a HTTP/1.1", b"", |request, out| {
            let allowed = router::find(b"/compute/digest").unwrap().0.methods;
            refuse_method(out, &request.context, allowed);
        });
        assert!(reply.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: POST, OPTIONS\r\n"));
    }
}
