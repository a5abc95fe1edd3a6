//! The HTTP service: keys, files, work for the cpu pool, and pages about the process itself.
//!
//! The daemon makes one [`HttpService`], and on every shard one [`HttpShard`] of it, which serves the
//! connections accepted there. Invariant: what shards share is immutable; what changes belongs to one.

mod compute;
mod connection;
mod deadline;
mod dispatch;
mod file_cache;
mod files;
mod input;
mod kv;
mod local;
mod opening;
mod operations;
mod pages;
mod request;
mod router;
mod settings;
mod waiting;
mod wall;

use crate::metrics::Registry;

pub use local::HttpShard;
pub use pages::About;
pub use settings::HttpSettings;

/// The service as all shards share it.
#[derive(Debug)]
pub struct HttpService {
    settings: HttpSettings,
    registry: Registry,
    /// The front page.
    index: Vec<u8>,
}

impl HttpService {
    /// A service with these settings that shows the figures of `registry`.
    pub fn new(settings: HttpSettings, about: &About, registry: Registry) -> Self {
        Self { settings, registry, index: pages::index(about).into_bytes() }
    }
}
