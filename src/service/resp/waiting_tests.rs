//! Commands that ask for a snapshot, behind a write to another partition.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use super::super::client::Client;
use super::super::server::{RespSettings, Server};
use super::super::session::{Next, Session};
use super::*;
use crate::log::Policy;
use crate::store::saving::Schedule;
use crate::store::storage::Storage;
use crate::store::{Home, Partition, PartitionId, SlotMap};

/// Sends a write of the other partition and `line` in one batch; answers the wait that comes of it,
/// and who is asked for snapshots.
fn wait_behind_a_write(line: &str) -> (Wait, Arc<Saving>) {
    let map = SlotMap::new(2);
    let log = Arc::new(Log::new(2, Lsn::NONE, Policy::Never, Duration::ZERO));
    let saving = Arc::new(Saving::new(Schedule::default(), None));
    let storage = Storage::new(Path::new("data"), log, Arc::clone(&saving), Duration::ZERO);
    let server = Server::new(RespSettings::default(), map, 0);
    let server = server.with_storage(Some(Arc::new(storage)));
    let (address, local) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    let registration = server.clients.connect(address, local, 0, 100, Box::new(|| {}));
    let record = registration.expect("room for a client").record.clone();
    let mut session = Session::new(Client::new(record, true));

    let mut names = (0..100).map(|number| format!("key{number}"));
    let key = names.find(|name| map.partition_of(name.as_bytes()) == PartitionId(1));
    let input = format!("SET {} v\r\n{line}\r\n", key.expect("keys spread"));
    let mut partition = Partition::new(map.slots(PartitionId(0)));
    let mut home = Home::one(map, PartitionId(0), &mut partition);
    let mut out = Vec::new();
    let advance = session.advance(input.as_bytes(), &mut home, &server, 1, &mut out);
    assert!(!session.outbox.is_empty(), "the write is still to be carried");
    let Next::Wait(wait) = advance.next else { panic!("{:?}", advance.next) };
    (wait, saving)
}

/// Begins to wait; what is replied at once, if anything.
fn begin(wait: Wait) -> Option<String> {
    let mut out = Vec::new();
    let over = wait.over(None, Lsn::NONE, Protocol::Resp2, &mut out);
    let polled = pin!(over).poll(&mut Context::from_waker(Waker::noop()));
    match polled {
        Poll::Ready(Waited::Reply) => Some(String::from_utf8_lossy(&out).into_owned()),
        Poll::Ready(Waited::ShutDown) => panic!("no snapshot was made"),
        Poll::Pending => None,
    }
}

#[test]
fn a_snapshot_is_asked_for_after_what_came_before() {
    for (line, reply) in [
        ("SAVE", None),
        ("BGSAVE", Some("+Background saving started\r\n")),
        ("BGSAVE SCHEDULE", Some("+Background saving started\r\n")),
        ("BGREWRITEAOF", Some("+Background append only file rewriting started\r\n")),
        ("SHUTDOWN SAVE", None),
    ] {
        let (wait, saving) = wait_behind_a_write(line);
        assert!(!saving.is_under_way(), "{line}");
        assert_eq!(begin(wait).as_deref(), reply, "{line}");
        assert!(saving.is_under_way(), "{line}");
    }
}

#[test]
fn one_snapshot_at_a_time_is_made() {
    let rewriting = "-ERR Background append only file rewriting already in progress\r\n";
    for (line, reply) in [
        ("SAVE", "-ERR Background save already in progress\r\n"),
        ("BGSAVE", "-ERR Background save already in progress\r\n"),
        ("BGSAVE SCHEDULE", "+Background saving scheduled\r\n"),
        ("BGREWRITEAOF", rewriting),
    ] {
        let (wait, saving) = wait_behind_a_write(line);
        saving.ask();
        assert_eq!(begin(wait).as_deref(), Some(reply), "{line}");
    }
}
