//! A request for a key at home, against a closed gate, a full log and a limit of memory.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::log::{Log, Lsn, Policy};
use crate::protocol::http1::ReplyContext;
use crate::protocol::http1::reply::format_date;
use crate::store::memory::{self, Limit};
use crate::store::{Expiry, Partition, PartitionId, SlotMap};

/// A full store of one partition with some keys that may be evicted, and its log.
fn full_store() -> (Store, Arc<Log>) {
    let (map, id) = (SlotMap::new(1), PartitionId(0));
    let log = Arc::new(Log::new(1, Lsn::NONE, Policy::Never, Duration::ZERO));
    let limit = Arc::new(Limit::new(1));
    limit.set_policy(memory::Policy::AllKeysLru);
    let partition = Partition::new(map.slots(id));
    let store = Store::owning_partition(map, id, partition, Some(Arc::clone(&log)));
    let store = store.limited(limit);
    let _ = store.visit(|home| {
        home.with(id, |partition| {
            for key in 0..5000u32 {
                let (key, value) = (key.to_be_bytes(), [0; 200]);
                partition.database(0).set_string(&key, &value, Expiry::Never);
            }
        });
    });
    store.limit().set_bytes_max(store.limit().used() as u64 - 2000);
    (store, log)
}

fn keys(store: &Store) -> usize {
    store.limit().usage(PartitionId(0)).keys
}

fn put() -> OwnedRequest {
    let head = b"PUT /kv/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    let context = ReplyContext::new(format_date(UNIX_EPOCH), Method::Put, Persistence::Implied);
    OwnedRequest::new(head, b"v", context)
}

/// Polls an answer a few times; the reply, once it is there.
fn poll(mut answer: Pin<&mut impl Future<Output = (Vec<u8>, Trace)>>) -> Option<String> {
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..100 {
        if let std::task::Poll::Ready((reply, _)) = answer.as_mut().poll(&mut context) {
            return Some(String::from_utf8_lossy(&reply).into_owned());
        }
    }
    None
}

#[test]
fn nothing_gives_way_behind_a_closed_gate() {
    let (store, _log) = full_store();
    let gate = store.gate().unwrap();
    assert!(pin!(gate.close()).poll(&mut Context::from_waker(Waker::noop())).is_ready());
    let request = put();
    let mut answer = pin!(answer_key_at_home(&store, &request));
    assert_eq!(poll(answer.as_mut()), None);
    assert_eq!(keys(&store), 5000, "the command at work has not been logged yet");
    gate.open();
    let reply = poll(answer).unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    assert!(keys(&store) < 5000);
}

#[test]
fn nothing_gives_way_to_a_write_that_the_log_refuses() {
    let (store, log) = full_store();
    log.refuse("no room in /data".to_owned());
    let request = put();
    let reply = poll(pin!(answer_key_at_home(&store, &request))).unwrap();
    assert!(reply.starts_with("HTTP/1.1 507 ") && reply.contains("no room in /data"), "{reply}");
    assert_eq!(keys(&store), 5000);
}

#[test]
fn room_is_looked_for_again_after_a_stall() {
    let (store, log) = full_store();
    log.hold_writers(true);
    let request = put();
    let mut answer = pin!(answer_key_at_home(&store, &request));
    assert_eq!(poll(answer.as_mut()), None);
    assert_eq!(keys(&store), 5000);
    store.limit().set_policy(memory::Policy::NoEviction);
    log.hold_writers(false);
    let reply = poll(answer).unwrap();
    assert!(reply.starts_with("HTTP/1.1 507 ") && reply.contains("memory is full"), "{reply}");
}
