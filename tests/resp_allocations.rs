//! The steady path allocates nothing: counted by an allocator that counts.
//!
//! A program of its own, because the counting allocator is the whole program's.
#![cfg(feature = "daemon")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use annulus::service::resp::client::Client;
use annulus::service::resp::{RespSettings, Server, Session};
use annulus::store::{PartitionId, SlotMap, Store};

thread_local! {
    static ALLOCATED: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every method passes its arguments on to the system's allocator unchanged, so each
// obligation of the caller is the one that the system's allocator has; the counter has no
// destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System.alloc` with `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: `pointer` and `layout` are as above, and `size` is the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations made while a warm session answers `requests`, on one of `partitions`.
fn allocations(prepare: &[u8], requests: &[u8], expected: &[u8]) -> usize {
    let map = SlotMap::new(1);
    let server = Server::new(RespSettings::default(), map, 0);
    let (peer, own) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    let registration = server.clients.connect(peer, own, 0, 10, Box::new(|| {}));
    let record = registration.expect("room for a client").record.clone();
    let mut session = Session::new(Client::new(record, true));
    let store = Store::owning(map, PartitionId(0));
    let mut out = Vec::new();
    let mut ask = |requests: &[u8], out: &mut Vec<u8>| {
        out.clear();
        let (advance, _) = store.visit(|home| session.advance(requests, home, &server, 1000, out));
        assert_eq!(advance.consumed, requests.len());
    };
    ask(prepare, &mut out);
    // A first time lets buffers grow to what they need.
    ask(requests, &mut out);
    let before = ALLOCATED.get();
    ask(requests, &mut out);
    let allocated = ALLOCATED.get() - before;
    assert_eq!(out, expected, "{}", out.escape_ascii());
    allocated
}

#[test]
fn a_get_allocates_nothing() {
    let value = "v".repeat(64);
    let prepare = format!("SET key {value}\r\n");
    let requests = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n".repeat(100);
    let expected = format!("$64\r\n{value}\r\n").repeat(100);
    assert_eq!(allocations(prepare.as_bytes(), &requests, expected.as_bytes()), 0);
}

#[test]
fn a_get_of_nothing_and_an_increment_allocate_nothing() {
    let requests = b"GET none\r\nINCRBY n 0\r\nMGET n n\r\nEXISTS n none\r\n".repeat(10);
    let expected = b"$-1\r\n:0\r\n*2\r\n$1\r\n0\r\n$1\r\n0\r\n:1\r\n".repeat(10);
    assert_eq!(allocations(b"", &requests, &expected), 0);
}

#[test]
fn a_set_over_an_equally_long_value_allocates_nothing() {
    let request = format!("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$64\r\n{}\r\n", "v".repeat(64));
    assert_eq!(allocations(b"", &request.repeat(10).into_bytes(), &b"+OK\r\n".repeat(10)), 0);
}

#[test]
fn a_set_of_a_new_key_allocates_its_value_only() {
    // Deleted again, so that the slab and the index have room when it counts.
    let value = "v".repeat(64);
    let set = |key: u32| format!("SET key:{key} {value}\r\nDEL key:{key}\r\n");
    let sets = (0..10).map(set).collect::<Vec<_>>().concat();
    let expected = b"+OK\r\n:1\r\n".repeat(10);
    assert_eq!(allocations(b"", sets.as_bytes(), &expected), 10);
}
