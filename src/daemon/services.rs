//! The services of the daemon, as every thread that takes connections shares them.
//!
//! Made once by `serve`. Invariant: a thread that runs a connection has its view of the store
//! installed: a shard its own partition, a connection's own thread the locked ones.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::listen::Listeners;
use super::settings::{HttpSettings, Settings, StoreSettings};
use super::stores::Stores;
use crate::clock;
use crate::error::Error;
use crate::net::{TcpStream, serve_connection};
use crate::protocol::http1::Limits;
use crate::runtime::Runtime;
use crate::service::http::{self, About, HttpService};
use crate::service::resp::{self, RespSettings};
use crate::shard::ShardId;
use crate::store::memory::Limit;

/// All services. Cloning shares them.
#[derive(Clone)]
pub(super) struct Services {
    http: Arc<HttpService>,
    resp: Arc<resp::Server>,
    stores: Stores,
}

impl Services {
    pub(super) fn new(
        settings: &Settings,
        runtime: &Runtime,
        listeners: &Listeners,
        stores: Stores,
    ) -> Self {
        let about = about(runtime, listeners);
        let http = HttpService::new(of_http(&settings.http), &about, runtime.metrics().clone())
            .with_storage(stores.storage().cloned());
        let resp = of_resp(settings, runtime, listeners);
        let resp = resp::Server::new(resp, stores.map(), clock::unix_millis())
            .with_storage(stores.storage().cloned())
            .with_end(super::signals::ask_to_drain);
        set_memory(&resp.memory, &settings.store);
        let stores = stores.limited(&resp.memory);
        Self { http: Arc::new(http), resp: Arc::new(resp), stores }
    }

    /// Takes over live settings that have changed.
    pub(super) fn apply(&self, changed: &[&'static str], settings: &Settings) {
        let (live, resp) = (&self.resp.live, &settings.resp);
        for key in changed {
            match *key {
                "resp.password" => {
                    self.resp.set_password(resp.password.as_deref().unwrap_or_default());
                }
                "resp.clients_count_max" => {
                    live.clients_count_max.store(resp.clients_count_max, Ordering::Relaxed);
                }
                "resp.idle_timeout" => {
                    live.idle_seconds_max
                        .store(whole_seconds(resp.idle_timeout), Ordering::Relaxed);
                }
                "resp.bulk_size_max" => {
                    live.bulk_bytes_max.store(resp.bulk_bytes_max, Ordering::Relaxed);
                }
                "store.fsync" => self.stores.set_policy(settings.store.fsync),
                "store.fsync_interval" => self.stores.set_interval(settings.store.fsync_interval),
                // One by one: what CONFIG SET has changed of the others stays.
                "store.snapshot_log_size" => self.stores.change_schedule(|schedule| {
                    schedule.log_bytes = settings.store.snapshots.log_bytes;
                }),
                "store.snapshot_every" => self.stores.change_schedule(|schedule| {
                    schedule.every = settings.store.snapshots.every;
                }),
                "store.snapshot_rate" => self.stores.change_schedule(|schedule| {
                    schedule.rate_bytes = settings.store.snapshots.rate_bytes;
                }),
                "store.memory_max" => {
                    self.resp.memory.set_bytes_max(settings.store.memory_bytes_max);
                }
                "store.eviction" => self.resp.memory.set_policy(settings.store.eviction),
                // What the reloader itself takes over.
                _ => {}
            }
        }
    }

    /// Gives the calling shard what its connections need.
    pub(super) fn start_shard(&self, shard: ShardId) {
        self.stores.start_shard(shard);
    }

    pub(super) fn serve_resp(&self, stream: TcpStream) -> Result<(), Error> {
        let (resp, stores) = (Arc::clone(&self.resp), self.stores.clone());
        serve_connection("resp", stream, move |stream| {
            stores.install_here();
            resp::serve(resp, stream)
        })
    }

    pub(super) fn serve_http(&self, stream: TcpStream) -> Result<(), Error> {
        let (http, stores) = (Arc::clone(&self.http), self.stores.clone());
        serve_connection("http", stream, move |stream| {
            stores.install_here();
            http.serve(stream)
        })
    }
}

fn of_resp(settings: &Settings, runtime: &Runtime, listeners: &Listeners) -> RespSettings {
    let resp = &settings.resp;
    RespSettings {
        clients_count_max: resp.clients_count_max,
        idle_seconds_max: whole_seconds(resp.idle_timeout),
        query_bytes_max: resp.query_bytes_max,
        bulk_bytes_max: resp.bulk_bytes_max,
        output_bytes_high: resp.output_bytes_high,
        password: resp.password.clone(),
        port: listeners.resp_address.map_or(0, |address| address.port()),
        engine: runtime.report().engine.name(),
    }
}

fn set_memory(limit: &Limit, settings: &StoreSettings) {
    limit.set_bytes_max(settings.memory_bytes_max);
    limit.set_policy(settings.eviction);
}

/// Rounded up: to the service zero means for ever, and half a second is not that.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

fn about(runtime: &Runtime, listeners: &Listeners) -> About {
    let resp = listeners.resp_address.map(|address| ("RESP".to_owned(), address.to_string()));
    let http = listeners.http_address.map(|address| ("HTTP".to_owned(), address.to_string()));
    About {
        engine: runtime.report().to_string(),
        shard_count: runtime.plan().shards.len(),
        listeners: resp.into_iter().chain(http).collect(),
    }
}

fn of_http(settings: &HttpSettings) -> http::HttpSettings {
    http::HttpSettings {
        limits: Limits {
            head_bytes_max: settings.head_bytes_max,
            target_bytes_max: settings.target_bytes_max,
            field_count_max: settings.field_count_max,
            body_bytes_max: settings.body_bytes_max,
        },
        header_timeout: settings.header_timeout,
        body_timeout: settings.body_timeout,
        idle_timeout: settings.idle_timeout,
        send_timeout: settings.send_timeout,
        files_root: settings.root.clone(),
        ..http::HttpSettings::default()
    }
}
