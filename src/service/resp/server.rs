//! What all connections of a server share. Made once by the daemon.
//!
//! Invariant: after the start only the live settings and the list of clients change.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::protocol::resp::limits;
use crate::store::SlotMap;
use crate::store::memory::Limit;
use crate::store::storage::Storage;

use super::clients::Clients;

/// The version of Redis whose commands and texts this server follows. Clients parse it.
pub const REDIS_VERSION: &str = "7.2.4";

/// Settings of the service, resolved.
#[derive(Debug, Clone)]
pub struct RespSettings {
    /// Most clients at a time.
    pub clients_count_max: usize,
    /// Seconds without a request after which a client is dropped; 0: never.
    pub idle_seconds_max: u64,
    /// Most bytes of requests that a client may send ahead of being decoded.
    pub query_bytes_max: usize,
    /// Largest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// Bytes of replies after which they are sent before more requests are decoded.
    pub output_bytes_high: usize,
    /// The password, if clients need one.
    pub password: Option<String>,
    /// The TCP port, for `INFO`; 0 if there is none.
    pub port: u16,
    /// The engine's name, for `INFO`.
    pub engine: &'static str,
}

impl Default for RespSettings {
    fn default() -> Self {
        Self {
            clients_count_max: 10_000,
            idle_seconds_max: 0,
            query_bytes_max: limits::QUERY_BYTES_MAX,
            bulk_bytes_max: limits::BULK_BYTES_MAX,
            output_bytes_high: 64 * 1024,
            password: None,
            port: 0,
            engine: "auto",
        }
    }
}

/// What all connections share.
#[derive(Debug)]
pub struct Server {
    /// The settings from the start.
    pub settings: RespSettings,
    /// Who is connected.
    pub clients: Clients,
    /// How the slots are divided.
    pub map: SlotMap,
    /// When the server started, in unix milliseconds.
    pub started_ms: u64,
    /// Settings that `CONFIG SET` changes.
    pub live: Live,
    /// The limit of memory, which the store shares.
    pub memory: Arc<Limit>,
    /// Where the store is kept; none: it is in memory only.
    pub storage: Option<Arc<Storage>>,
    /// What `SHUTDOWN` does, the first time.
    end: Mutex<Option<End>>,
}

/// Ends the program that the server is part of, as SIGTERM does.
pub type End = fn();

/// Settings that change while the server runs.
#[derive(Debug)]
pub struct Live {
    /// See [`RespSettings::clients_count_max`].
    pub clients_count_max: AtomicUsize,
    /// See [`RespSettings::idle_seconds_max`].
    pub idle_seconds_max: AtomicU64,
    /// See [`RespSettings::bulk_bytes_max`].
    pub bulk_bytes_max: AtomicUsize,
    password: Mutex<Option<String>>,
}

impl Server {
    /// A server that starts at `now_ms`.
    pub fn new(settings: RespSettings, map: SlotMap, now_ms: u64) -> Self {
        let live = Live {
            clients_count_max: AtomicUsize::new(settings.clients_count_max),
            idle_seconds_max: AtomicU64::new(settings.idle_seconds_max),
            bulk_bytes_max: AtomicUsize::new(settings.bulk_bytes_max),
            password: Mutex::new(settings.password.clone().filter(|word| !word.is_empty())),
        };
        let memory = Arc::new(Limit::new(map.count()));
        let (clients, end) = (Clients::default(), Mutex::default());
        Self { settings, clients, map, started_ms: now_ms, live, memory, storage: None, end }
    }

    /// The same, of a store that is kept somewhere.
    #[must_use]
    pub fn with_storage(self, storage: Option<Arc<Storage>>) -> Self {
        Self { storage, ..self }
    }

    /// The same, with a way for `SHUTDOWN` to end the program.
    #[must_use]
    pub fn with_end(self, end: End) -> Self {
        Self { end: Mutex::new(Some(end)), ..self }
    }

    /// Begins to end the program; only the first call does anything.
    pub fn shut_down(&self) {
        let end = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(end) = end {
            end();
        }
    }

    /// When the last snapshot was complete, or the server started, in unix milliseconds.
    pub fn last_save_ms(&self) -> u64 {
        let last = self.storage.as_ref().and_then(|storage| storage.saving.report().last);
        last.map_or(self.started_ms, |last| last.unix_ms)
    }

    /// Whether clients must authenticate.
    pub fn asks_password(&self) -> bool {
        self.password().is_some()
    }

    /// The password.
    pub fn password(&self) -> Option<String> {
        self.live.password.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the password; an empty one means none.
    pub fn set_password(&self, password: &str) {
        let password = Some(password.to_owned()).filter(|word| !word.is_empty());
        *self.live.password.lock().unwrap_or_else(PoisonError::into_inner) = password;
    }

    /// Whether `given` is the password; the time that it takes does not tell where they differ.
    pub fn accepts(&self, given: &[u8]) -> bool {
        let Some(password) = self.password() else { return true };
        let password = password.as_bytes();
        let mut difference = password.len() ^ given.len();
        for (index, &byte) in given.iter().enumerate() {
            difference |= usize::from(byte ^ password[index % password.len()]);
        }
        difference == 0
    }

    /// Most clients at a time.
    pub fn clients_count_max(&self) -> usize {
        self.live.clients_count_max.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_password_is_accepted() {
        let settings = RespSettings { password: Some("secret".to_owned()), ..Default::default() };
        let server = Server::new(settings, SlotMap::new(1), 0);
        assert!(server.accepts(b"secret"));
        for wrong in [b"".as_slice(), b"secre", b"secretsecret", b"Secret", b"secret "] {
            assert!(!server.accepts(wrong));
        }
        server.set_password("");
        assert!(!server.asks_password());
    }
}
