//! What the connections of one shard share: store, clock, files, spare buffers.
//!
//! Made once per shard by the daemon. Invariant: nothing is borrowed across an await.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::clock::Instant;
use crate::fs::{Directory, File};
use crate::protocol::http1::{Persistence, ReplyContext, RequestHead};
use crate::store::Store;
use crate::net::TcpStream;
use crate::{shard, time};

use super::HttpService;
use super::connection::Connection;
use super::file_cache::FileCache;
use super::wall::WallClock;

/// Spare output buffers of a shard, and the largest that is kept.
const SPARE_COUNT_MAX: usize = 64;
const SPARE_BYTES_MAX: usize = 128 * 1024;

/// The HTTP service on one shard.
#[derive(Debug)]
pub struct HttpShard {
    pub(super) service: Arc<HttpService>,
    pub(super) store: Store,
    pub(super) files: RefCell<FileCache<File>>,
    pub(super) root: OnceCell<Directory>,
    wall: RefCell<WallClock>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl HttpShard {
    /// The service for the calling thread, over its view of the store.
    pub fn new(service: Arc<HttpService>, store: Store) -> Rc<Self> {
        let settings = &service.settings;
        let files = FileCache::new(settings.file_cache_count_max, settings.file_cache_valid);
        Rc::new(Self {
            store,
            files: RefCell::new(files),
            root: OnceCell::new(),
            wall: RefCell::new(WallClock::new()),
            spare: RefCell::default(),
            service,
        })
    }

    /// Serves one connection to its end.
    pub async fn serve(self: Rc<Self>, stream: TcpStream) {
        Connection::new(self, stream).run().await;
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
