//! What the connections of one shard share: store, clock, files, spare buffers.
//!
//! Made by the first connection of a thread and found by the next. Invariant: nothing is borrowed
//! across an await.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::clock::Instant;
use crate::fs::{Directory, File};
use crate::protocol::http1::{Persistence, ReplyContext, RequestHead};
use crate::store::{Store, Trace};
use crate::{shard, time};

use super::HttpService;
use super::file_cache::FileCache;
use super::wall::WallClock;

/// Spare output buffers of a shard, and the largest that is kept.
const SPARE_COUNT_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 128 * 1024;

thread_local! {
    /// The service of this thread, for the connections that follow.
    static HERE: RefCell<Option<Rc<HttpShard>>> = const { RefCell::new(None) };
}

/// The HTTP service on one shard.
#[derive(Debug)]
pub(super) struct HttpShard {
    pub(super) service: Arc<HttpService>,
    pub(super) store: Store,
    pub(super) files: RefCell<FileCache<File>>,
    pub(super) root: OnceCell<Directory>,
    /// What the visits of the request at hand did.
    trace: Cell<Trace>,
    wall: RefCell<WallClock>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl HttpShard {
    /// The calling thread's part of `service`, over the store installed on the thread. `None` where
    /// no store is installed.
    pub(super) fn here(service: &Arc<HttpService>) -> Option<Rc<Self>> {
        HERE.with_borrow_mut(|here| match here {
            Some(shard) if Arc::ptr_eq(&shard.service, service) => Some(Rc::clone(shard)),
            _ => {
                let shard = Rc::new(Self::new(Arc::clone(service), Store::here()?));
                *here = Some(Rc::clone(&shard));
                Some(shard)
            }
        })
    }

    fn new(service: Arc<HttpService>, store: Store) -> Self {
        let settings = &service.settings;
        let files = FileCache::new(settings.file_cache_count_max, settings.file_cache_valid);
        Self {
            store,
            files: RefCell::new(files),
            root: OnceCell::new(),
            trace: Cell::default(),
            wall: RefCell::new(WallClock::new()),
            spare: RefCell::default(),
            service,
        }
    }

    /// Notes what a visit to the store did.
    #[inline]
    pub(super) fn note(&self, trace: Trace) {
        self.trace.set(self.trace.get().and(trace));
    }

    /// What the visits since the last call did. A connection takes it before it waits for anything,
    /// so that it is its own.
    #[inline]
    pub(super) fn take_trace(&self) -> Trace {
        self.trace.take()
    }

    /// Milliseconds since the epoch.
    #[inline]
    pub(super) fn unix_ms(&self, now: Instant) -> u64 {
        self.wall.borrow_mut().unix_ms(now)
    }

    /// What a reply to this request takes from the moment and the connection.
    #[inline]
    pub(super) fn context(&self, head: &RequestHead<'_>, now: Instant) -> ReplyContext {
        let stays_open = head.keep_alive && !shard::is_draining();
        let persistence = Persistence::of(head.version, stays_open);
        ReplyContext::new(self.wall.borrow_mut().date(now), head.method, persistence)
    }

    /// The context of a reply to something that is no request: the connection closes after it.
    pub(super) fn context_of_refusal(&self) -> ReplyContext {
        let date = self.wall.borrow_mut().date(time::now());
        ReplyContext { date, persistence: Persistence::Close, is_head: false }
    }

    /// An empty buffer, with room from earlier use if there is one.
    #[inline]
    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a buffer back. Connections that wait hold none.
    #[inline]
    pub(super) fn give_buffer(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        let fits = (1..=SPARE_BYTES_MAX).contains(&buffer.capacity());
        if fits && spare.len() < SPARE_COUNT_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }
}
