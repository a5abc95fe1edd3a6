//! Tests of batches on their way: what they may do, and what is told of them. Run by `cargo test`.
//!
//! Invariant: each test carries its batches itself.

use std::sync::Arc;
use std::time::Duration;

use super::super::table;
use super::*;
use crate::log::{Log, Lsn, Policy};
use crate::store::{Partition, Store};

const ID: PartitionId = PartitionId(0);

fn store() -> (Store, Arc<Log>) {
    let log = Arc::new(Log::new(1, Lsn::NONE, Policy::Always, Duration::from_secs(1)));
    let map = SlotMap::new(1);
    let partition = Partition::new(map.slots(ID));
    (Store::owning_partition(map, ID, partition, Some(Arc::clone(&log))), log)
}

fn batch(commands: &[&[&[u8]]]) -> Batch {
    let mut batch = Batch::default();
    for words in commands {
        let command = table::find(words[0]).expect("a command");
        batch.push((command, 0, Protocol::Resp2), words.iter().copied());
    }
    batch
}

fn run(batch: &mut Batch, store: &Store) -> (bool, Trace) {
    store.visit(|home| batch.run(home, ID, 1000))
}

#[test]
fn a_batch_stops_at_a_write_while_writes_are_stalled() {
    let (store, log) = store();
    let mut batch = batch(&[&[b"GET", b"k"], &[b"SET", b"k", b"v"], &[b"GET", b"k"]]);
    log.hold_writers(true);
    let (is_done, trace) = run(&mut batch, &store);
    assert!(!is_done);
    assert_eq!((trace, &batch.replies[..]), (Trace::default(), &b"$-1\r\n"[..]));
    log.hold_writers(false);
    let (is_done, trace) = run(&mut batch, &store);
    assert!(is_done);
    assert_eq!((trace.wrote, &batch.replies[..]), (Lsn(1), &b"$-1\r\n+OK\r\n$1\r\nv\r\n"[..]));
}

#[test]
fn a_batch_refuses_writes_that_there_is_no_room_for() {
    let (store, log) = store();
    let mut batch = batch(&[&[b"SET", b"k", b"v"], &[b"GET", b"k"]]);
    log.refuse("there is no room".to_owned());
    let (is_done, trace) = run(&mut batch, &store);
    assert!(is_done);
    assert_eq!(trace, Trace::default());
    assert_eq!(batch.replies, b"-MISCONF there is no room\r\n$-1\r\n");
}

#[test]
fn what_batches_did_is_told_once_they_are_back() {
    let mut outbox = Outbox::default();
    outbox.batches.resize_with(2, || None);
    assert_eq!(outbox.take_trace(), Trace::default());
    let mut back = |id, trace| {
        outbox.put_back(PartitionId(id), Box::new(Batch { trace, ..Batch::default() }));
    };
    back(0, Trace { wrote: Lsn(3), saw: Lsn::NONE });
    back(1, Trace { wrote: Lsn(2), saw: Lsn(5) });
    assert_eq!(outbox.take_trace(), Trace { wrote: Lsn(3), saw: Lsn(5) });
    assert_eq!(outbox.take_trace(), Trace::default());
}
