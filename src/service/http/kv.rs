//! `/kv/{key}`: values as raw bytes, in database 0 of the store that RESP serves.
//!
//! Runs on the shard that owns the key, in one go: what a precondition saw is what is changed.
//! Invariant: a reply's `ETag` names exactly the bytes that it speaks of.
//!
//! A time to live is given in seconds by `?ttl=` on PUT; GET tells what is left of it in a `TTL`
//! field (named after RFC 8030 section 5.2), rounded up. PUT without it makes the key permanent,
//! as SET does.

use std::hash::BuildHasher;
use std::sync::OnceLock;

use hashbrown::DefaultHashBuilder;

use crate::protocol::http1::conditions::{Validators, Verdict, evaluate};
use crate::protocol::http1::target::{is_plain, parameters, parse_decimal, percent_decode};
use crate::protocol::http1::{Method, Status};
use crate::store::{Database, Expiry, Found, Partition, WrongType};

use super::request::Request;

/// The database that RESP clients have selected unless they say otherwise.
const DATABASE: usize = 0;

/// Longest time to live: a hundred years. Beyond it a typing error is more likely.
const TTL_SECONDS_MAX: u64 = 100 * 365 * 86_400;

/// Where a request works and when.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) partition: &'a mut Partition,
    /// Unix time in milliseconds.
    pub(super) now_ms: u64,
}

impl Place<'_> {
    fn find(&mut self, key: &[u8]) -> Option<Found> {
        self.partition.find(DATABASE, key, self.now_ms)
    }

    fn database(&mut self) -> Database<'_> {
        self.partition.database(DATABASE)
    }

    /// The entity tag of a key that was found.
    fn tag(&mut self, found: Found) -> Result<EntityTag, WrongType> {
        Ok(EntityTag::of(self.database().value(found).as_string()?.as_slice()))
    }
}

/// Decodes the key of a request. `scratch` is used only when it has escapes. `None` when it is
/// malformed or empty.
#[inline]
pub(super) fn key_of<'a>(encoded: &'a [u8], scratch: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let key = if is_plain(encoded) {
        encoded
    } else {
        percent_decode(encoded, scratch)?;
        scratch
    };
    (!key.is_empty()).then_some(key)
}

/// Whether a request with this method changes a key.
pub(super) fn is_write(method: Method) -> bool {
    !matches!(method, Method::Get | Method::Head)
}

/// Whether a request with this method may need memory.
pub(super) fn needs_room(method: Method) -> bool {
    method == Method::Put
}

/// Answers a request for a key.
#[inline]
pub(super) fn respond(place: Place<'_>, key: &[u8], request: &Request<'_>, out: &mut Vec<u8>) {
    place.partition.tick(place.now_ms);
    let result = match request.head.method {
        Method::Get | Method::Head => read(place, key, request, out),
        Method::Put => write(place, key, request, out),
        _ => remove(place, key, request, out),
    };
    if let Err(WrongType) = result {
        request.refuse(out, Status::Conflict, "the key does not hold a string");
    }
}

fn read(
    mut place: Place<'_>,
    key: &[u8],
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<(), WrongType> {
    let Some(found) = place.partition.peek(DATABASE, key, place.now_ms) else {
        place.partition.stats.misses += 1;
        answer_missing(request, out);
        return Ok(());
    };
    place.partition.stats.hits += 1;
    let now_ms = place.now_ms;
    let mut database = place.database();
    database.touch(found);
    let value = database.value(found).as_string()?.as_slice();
    let tag = EntityTag::of(value);
    let status = match verdict(request, Some(&tag)) {
        Verdict::Proceed => Status::Ok,
        Verdict::NotModified => Status::NotModified,
        Verdict::Failed => {
            request.refuse(out, Status::PreconditionFailed, "");
            return Ok(());
        }
    };
    let mut reply = request.reply(out, status).field("ETag", tag.as_bytes());
    if let Some(deadline_ms) = database.deadline(found) {
        reply = reply.number("TTL", deadline_ms.saturating_sub(now_ms).div_ceil(1000));
    }
    if status == Status::Ok {
        reply = reply.prepared(b"Content-Type: application/octet-stream\r\n");
    }
    reply.body(value);
    Ok(())
}

fn write(
    mut place: Place<'_>,
    key: &[u8],
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<(), WrongType> {
    let expiry = match ttl_of(request.query) {
        Ok(None) => Expiry::Never,
        Ok(Some(ttl_ms)) => Expiry::At(place.now_ms + ttl_ms),
        Err(detail) => {
            request.refuse(out, Status::BadRequest, detail);
            return Ok(());
        }
    };
    let found = place.find(key);
    if request.head.has_conditions() {
        let before = found.map(|found| place.tag(found)).transpose()?;
        if verdict(request, before.as_ref()) != Verdict::Proceed {
            request.refuse(out, Status::PreconditionFailed, "");
            return Ok(());
        }
    }
    place.database().set_string(key, request.body, expiry);
    let status = if found.is_some() { Status::NoContent } else { Status::Created };
    let tag = EntityTag::of(request.body);
    request.reply(out, status).field("ETag", tag.as_bytes()).empty();
    Ok(())
}

fn remove(
    mut place: Place<'_>,
    key: &[u8],
    request: &Request<'_>,
    out: &mut Vec<u8>,
) -> Result<(), WrongType> {
    let Some(found) = place.find(key) else {
        answer_missing(request, out);
        return Ok(());
    };
    if request.head.has_conditions() {
        let tag = place.tag(found)?;
        if verdict(request, Some(&tag)) != Verdict::Proceed {
            request.refuse(out, Status::PreconditionFailed, "");
            return Ok(());
        }
    }
    place.database().remove(found);
    request.reply(out, Status::NoContent).empty();
    Ok(())
}

/// 404, or 412 where a precondition wants the key to exist.
fn answer_missing(request: &Request<'_>, out: &mut Vec<u8>) {
    match verdict(request, None) {
        Verdict::Failed => request.refuse(out, Status::PreconditionFailed, ""),
        _ => request.refuse(out, Status::NotFound, ""),
    }
}

fn verdict(request: &Request<'_>, tag: Option<&EntityTag>) -> Verdict {
    let current = Validators { entity_tag: tag.map(EntityTag::as_bytes), modified_s: None };
    evaluate(&request.head, &current)
}

fn ttl_of(query: &[u8]) -> Result<Option<u64>, &'static str> {
    let mut ttl_ms = None;
    for (name, value) in parameters(query) {
        if name != b"ttl" {
            return Err("the only parameter is ttl");
        }
        match parse_decimal(value) {
            Some(seconds) if (1..=TTL_SECONDS_MAX).contains(&seconds) => {
                ttl_ms = Some(seconds * 1000);
            }
            _ => return Err("ttl is a number of seconds, from one to a hundred years"),
        }
    }
    Ok(ttl_ms)
}

/// A strong entity tag of a value: the hash of its content, in quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct EntityTag([u8; 18]);

impl EntityTag {
    #[inline]
    fn of(value: &[u8]) -> Self {
        // Keyed anew by every process, so that nobody can prepare two values with one tag. Tags
        // do not outlive the process; a tag from before fails a precondition, and never passes one.
        static HASHER: OnceLock<DefaultHashBuilder> = OnceLock::new();
        let hash = HASHER.get_or_init(DefaultHashBuilder::default).hash_one(value);
        let mut text = [b'"'; 18];
        for (index, place) in text[1..17].iter_mut().enumerate() {
            let nibble = (hash >> (60 - 4 * index)) as usize & 15;
            *place = b"0123456789abcdef"[nibble];
        }
        Self(text)
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::tests::answer;
    use super::*;

    const NOW_MS: u64 = 1_000_000;

    /// Sends one request and gives the reply.
    fn ask_at(
        now_ms: u64,
        partition: &mut Partition,
        method: &str,
        rest: &str,
        fields: &str,
        body: &str,
    ) -> String {
        let head = format!("{method} /kv/{rest} HTTP/1.1{fields}");
        answer(&head, body.as_bytes(), |request, out| {
            let mut scratch = Vec::new();
            let key = key_of(request.rest, &mut scratch).unwrap();
            respond(Place { partition, now_ms }, key, request, out);
        })
    }

    fn ask(keys: &mut Partition, method: &str, rest: &str, fields: &str, body: &str) -> String {
        ask_at(NOW_MS, keys, method, rest, fields, body)
    }

    fn status(reply: &str) -> u16 {
        reply[9..12].parse().unwrap()
    }

    fn tag(reply: &str) -> &str {
        let start = reply.find("ETag: ").unwrap() + 6;
        &reply[start..start + 18]
    }

    #[test]
    fn a_value_is_created_read_replaced_and_removed() {
        let keys = &mut Partition::default();
        assert_eq!(status(&ask(keys, "GET", "a", "", "")), 404);
        let created = ask(keys, "PUT", "a", "", "hello");
        assert_eq!(status(&created), 201);
        let read = ask(keys, "GET", "a", "", "");
        assert_eq!(status(&read), 200);
        assert!(
            read.ends_with(
                "Content-Type: application/octet-stream\r\nContent-Length: 5\r\n\r\nhello"
            )
        );
        assert_eq!(tag(&read), tag(&created));
        let replaced = ask(keys, "PUT", "a", "", "other");
        assert_eq!(status(&replaced), 204);
        assert_ne!(tag(&replaced), tag(&created));
        assert_eq!(status(&ask(keys, "DELETE", "a", "", "")), 204);
        assert_eq!(status(&ask(keys, "DELETE", "a", "", "")), 404);
    }

    #[test]
    fn head_is_get_without_the_value() {
        let keys = &mut Partition::default();
        ask(keys, "PUT", "a", "", "hello");
        let (get, head) = (ask(keys, "GET", "a", "", ""), ask(keys, "HEAD", "a", "", ""));
        assert_eq!(format!("{head}hello"), get);
    }

    #[test]
    fn preconditions_are_judged_against_the_value_at_hand() {
        let keys = &mut Partition::default();
        let none = "\r\nIf-None-Match: *";
        assert_eq!(status(&ask(keys, "PUT", "a", none, "1")), 201);
        assert_eq!(status(&ask(keys, "PUT", "a", none, "2")), 412);
        let tag = tag(&ask(keys, "GET", "a", "", "")).to_owned();
        let (same, unless) = (format!("\r\nIf-Match: {tag}"), format!("\r\nIf-None-Match: {tag}"));
        let not_modified = ask(keys, "GET", "a", &unless, "");
        assert_eq!(status(&not_modified), 304);
        assert!(not_modified.contains(&tag) && not_modified.ends_with("\r\n\r\n"));
        assert_eq!(status(&ask(keys, "GET", "a", &same, "")), 200);
        assert_eq!(status(&ask(keys, "PUT", "a", &same, "3")), 204);
        assert_eq!(status(&ask(keys, "PUT", "a", &same, "4")), 412);
        assert_eq!(status(&ask(keys, "DELETE", "a", &same, "")), 412);
        assert_eq!(status(&ask(keys, "DELETE", "b", "\r\nIf-Match: *", "")), 412);
        assert_eq!(status(&ask(keys, "GET", "a", &unless, "")), 200);
        assert!(ask(keys, "GET", "a", "", "").ends_with("\r\n\r\n3"));
    }

    #[test]
    fn a_time_to_live_is_given_in_seconds_and_told_rounded_up() {
        let keys = &mut Partition::default();
        ask(keys, "PUT", "a?ttl=10", "", "x");
        let left = |keys: &mut Partition, now_ms| {
            let reply = ask_at(now_ms, keys, "GET", "a", "", "");
            let start = reply.find("TTL: ").map(|start| start + 5);
            start.map(|start| reply[start..].split('\r').next().unwrap().to_owned())
        };
        assert_eq!(left(keys, NOW_MS).as_deref(), Some("10"));
        assert_eq!(left(keys, NOW_MS + 1).as_deref(), Some("10"));
        assert_eq!(left(keys, NOW_MS + 9_999).as_deref(), Some("1"));
        ask(keys, "PUT", "a", "", "y");
        assert_eq!(left(keys, NOW_MS), None);
        ask(keys, "PUT", "a?ttl=10", "", "z");
        for method in ["GET", "HEAD"] {
            assert_eq!(status(&ask_at(NOW_MS + 10_000, keys, method, "a", "", "")), 404);
        }
        assert_eq!(keys.stats.expired, 0, "who reads changes nothing");
        assert_eq!(status(&ask_at(NOW_MS + 10_000, keys, "DELETE", "a", "", "")), 404);
        assert_eq!(keys.stats.expired, 1);
        for wrong in ["ttl=0", "ttl=-1", "ttl=", "ttl=1.5", "ttl=99999999999", "tll=1"] {
            let reply = ask(keys, "PUT", &format!("b?{wrong}"), "", "y");
            assert_eq!(status(&reply), 400, "{wrong}");
        }
        assert_eq!(status(&ask(keys, "GET", "b", "", "")), 404);
    }

    #[test]
    fn keys_are_percent_decoded() {
        let mut scratch = Vec::new();
        assert_eq!(key_of(b"a%2Fb/%00", &mut scratch), Some(&b"a/b/\0"[..]));
        assert_eq!(key_of(b"a%2", &mut Vec::new()), None);
        assert_eq!(key_of(b"", &mut Vec::new()), None);
    }
}
