//! The HTTP service: keys, files, work for the cpu pool, and pages about the process itself.
//!
//! The daemon makes one [`HttpService`] and calls [`HttpService::serve`] for every connection, on
//! the thread that is to serve it. Invariant: what threads share is immutable; what changes belongs
//! to one of them.

mod compute;
mod connection;
mod deadline;
mod debug;
mod dispatch;
mod file_cache;
mod files;
mod kv;
mod local;
mod opening;
mod pages;
mod request;
mod router;
mod settings;
mod waiting;
mod wall;

use std::sync::Arc;

use crate::metrics::Registry;
use crate::metrics::figure::Figure;
use crate::net::TcpStream;
use crate::store::storage::Storage;

use connection::Connection;
use local::HttpShard;

pub use pages::About;
pub use settings::HttpSettings;

/// The service as all shards share it.
#[derive(Debug)]
pub struct HttpService {
    settings: HttpSettings,
    registry: Registry,
    /// Where the store is kept; none: it is in memory only.
    storage: Option<Arc<Storage>>,
    /// The front page.
    index: Vec<u8>,
}

impl HttpService {
    /// A service with these settings that shows the figures of `registry`.
    pub fn new(settings: HttpSettings, about: &About, registry: Registry) -> Self {
        Self { settings, registry, storage: None, index: pages::index(about).into_bytes() }
    }

    /// The same, for a store that is kept somewhere.
    #[must_use]
    pub fn with_storage(self, storage: Option<Arc<Storage>>) -> Self {
        Self { storage, ..self }
    }

    /// How log and snapshots stand, if the store is kept somewhere.
    fn figures(&self, now_ms: u64) -> Vec<Figure> {
        self.storage.as_ref().map(|storage| storage.figures(now_ms)).unwrap_or_default()
    }

    /// Serves a connection to its end: until the peer closes it, asks for it to be closed, breaks
    /// the protocol or keeps us waiting too long, or the runtime drains. May be dropped at any
    /// time.
    ///
    /// The calling thread must have its [`Store`](crate::store::Store) installed.
    pub async fn serve(self: Arc<Self>, stream: TcpStream) {
        let Some(shard) = HttpShard::here(&self) else {
            tracing::error!("no store is installed on this thread; the connection is closed");
            return;
        };
        let mut connection = Connection::new(shard, stream);
        connection.run().await;
    }
}

#[cfg(test)]
mod file_tests;
#[cfg(test)]
mod tests;
