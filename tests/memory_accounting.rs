//! The store's account of its memory against the allocator's, over several shapes of data.
//!
//! A program of its own, because the counting allocator is the whole program's. What an allocation
//! takes is asked of the allocator itself: what it hands out may be larger than what was asked for,
//! and there is a header in front of it.
#![cfg(all(feature = "daemon", target_env = "gnu"))]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use annulus::store::{Expiry, Found, Partition};

/// The allocator's own header.
const HEADER_BYTES: usize = 8;

thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that the allocation at `pointer` takes.
fn taken(pointer: *mut u8) -> usize {
    // SAFETY: the allocator has given `pointer` and has not had it back; it is only asked about.
    unsafe { libc::malloc_usable_size(pointer.cast()) + HEADER_BYTES }
}

fn count(pointer: *mut u8) -> *mut u8 {
    if !pointer.is_null() {
        TAKEN.set(TAKEN.get().wrapping_add(taken(pointer)));
    }
    pointer
}

// SAFETY: every method passes its arguments on to the system's allocator unchanged, so each
// obligation of the caller is the one that the system's allocator has; the counter has no
// destructor and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise about `layout` is passed on.
        count(unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.set(TAKEN.get().wrapping_sub(taken(pointer)));
        // SAFETY: `pointer` came from `System.alloc` with `layout`, as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        TAKEN.set(TAKEN.get().wrapping_sub(taken(pointer)));
        // SAFETY: `pointer` and `layout` are as above, and `size` is the caller's promise.
        count(unsafe { System.realloc(pointer, layout, size) })
    }
}

/// A partition, and what the allocator had given before there was one.
struct Store {
    partition: Partition,
    before: usize,
    random: u64,
}

impl Store {
    fn new() -> Self {
        Self { partition: Partition::default(), before: TAKEN.get(), random: 1 }
    }

    fn set(&mut self, key: &[u8], len: usize, expiry: Expiry) {
        let value = vec![b'v'; len];
        self.partition.database(0).set_string(key, &value, expiry);
    }

    fn find(&mut self, key: &[u8]) -> Option<Found> {
        self.partition.find(0, key, 0)
    }

    fn random(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as usize % below
    }

    /// Compares the accounts.
    fn check(&self, shape: &str) {
        // A thread may give back what another has taken: the count may be below zero.
        let allocated = TAKEN.get().wrapping_sub(self.before);
        let accounted = self.partition.bytes();
        let ratio = accounted as f64 / allocated as f64;
        println!("{shape}: {accounted} accounted, {allocated} allocated, ratio {ratio:.4}");
        assert!((0.9..1.1).contains(&ratio), "{shape}: {ratio}");
    }
}

fn key(number: usize) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

fn long_key(number: usize) -> Vec<u8> {
    format!("some:longer:name:of:a:key:{number:012}").into_bytes()
}

#[test]
fn many_tiny_keys() {
    let mut store = Store::new();
    for number in 0..100_000 {
        store.set(&key(number), 8, Expiry::Never);
        if [1000, 10_000, 60_000].contains(&number) {
            store.check("tiny keys, on the way");
        }
    }
    store.check("100,000 tiny keys");
}

#[test]
fn keys_and_values_of_their_own_allocations() {
    for len in [23, 25, 40, 64, 100, 1000] {
        let mut store = Store::new();
        for number in 0..20_000 {
            store.set(&long_key(number), len, Expiry::Never);
        }
        store.check(&format!("long keys, values of {len}"));
    }
}

#[test]
fn large_values() {
    let mut store = Store::new();
    for number in 0..100 {
        store.set(&key(number), 100_000, Expiry::Never);
    }
    store.check("values of 100 kB");
    let mut store = Store::new();
    for number in 0..100 {
        store.set(&key(number), 200_000 + number * 1000, Expiry::Never);
    }
    store.check("values of 200 kB and more");
    for number in 0..100 {
        store.set(&key(number), 300_000 + number * 1000, Expiry::Never);
    }
    store.check("the same, replaced by larger ones");
}

#[test]
fn values_that_grow() {
    let mut store = Store::new();
    for number in 0..2000 {
        store.set(&key(number), 10, Expiry::Never);
        for _ in 0..number % 60 {
            let found = store.find(&key(number)).expect("just set");
            store.partition.database(0).append(found, &[b'v'; 100]).expect("a string");
        }
    }
    store.check("values grown by appending");
}

#[test]
fn deletions() {
    let mut store = Store::new();
    for number in 0..100_000 {
        store.set(&long_key(number), 64, Expiry::Never);
    }
    store.check("before deletions");
    for share in [2, 10, 100] {
        for number in (0..100_000).filter(|number| number % share != 0) {
            if let Some(found) = store.find(&long_key(number)) {
                store.partition.database(0).remove(found);
            }
        }
        store.check(&format!("one of {share} left"));
    }
    for number in 0..100_000 {
        store.set(&long_key(number), 300, Expiry::Never);
    }
    store.check("filled again");
    store.partition.flush(0);
    store.check("flushed, and not freed yet");
    for _ in 0..40 {
        store.partition.drop_some();
    }
    store.check("freed in part");
    while store.partition.drop_some() {}
    assert_eq!(store.partition.bytes(), 0);
}

#[test]
fn deadlines() {
    let mut store = Store::new();
    for number in 0..50_000 {
        store.set(&key(number), 20, Expiry::At(number as u64));
    }
    store.check("keys with deadlines");
    while store.partition.usage().keys > 5000 {
        store.partition.expire_some(45_000, 1000);
    }
    store.check("most have expired");
}

#[test]
fn overwrites_of_any_length() {
    let mut store = Store::new();
    for _ in 0..200_000 {
        let number = store.random(5000);
        let len = store.random(2000);
        store.set(&key(number), len, Expiry::Never);
    }
    store.check("overwritten again and again");
}

#[test]
fn small_stores() {
    let mut store = Store::new();
    store.set(b"k", 10, Expiry::Never);
    store.check("one key");
    for db in 1..16 {
        store.partition.database(db).set_string(b"k", b"v", Expiry::At(1));
    }
    store.check("one key in each database");
}
