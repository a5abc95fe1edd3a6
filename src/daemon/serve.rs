//! `annulus serve`: from settings to a daemon that answers, and back to nothing.
//!
//! Called by `main`. Invariant: everything that can be refused is refused before the first
//! connection is taken; from then on only a signal, or a driver that fails, ends the daemon.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::check::{self, Preflight};
use super::flags::Request;
use super::listen::{self, Listeners};
use super::reload::Reloader;
use super::services::Services;
use super::settings::{Resolved, StoreSettings};
use super::signals::{self, Signals};
use super::stores::Stores;
use super::{Failure, logging, print};
use crate::error::Error;
use crate::net::{TcpListener, TcpStream};
use crate::runtime::{Handle, Runtime};
use crate::{task, time};

/// How often a drain looks whether the last connection is gone.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long a listener pauses after it could not accept: out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a drain may take; set when it begins.
type Drain = Arc<OnceLock<Duration>>;

/// Runs the daemon until a signal ends it.
pub fn run(request: Request, resolved: Resolved) -> Result<(), Failure> {
    let settings = resolved.settings.clone();
    let level = logging::start(settings.log_format, &settings.log_level);
    let signals = signals::outlive_limits().and_then(|()| signals::listen());
    let signals =
        signals.map_err(|error| Failure::running(format!("cannot handle signals: {error}")))?;
    let preflight = check::preflight(&settings)?;
    for warning in preflight.warnings() {
        tracing::warn!("{warning}");
    }
    let listeners = Listeners::open(&settings, preflight.plan.shards.len())?;
    let runtime = check::builder(&settings).build()?;
    for detail in &runtime.report().details {
        tracing::info!("{}: {detail}", runtime.report().engine);
    }
    let (stores, journalist) = Stores::open(&settings.store, &runtime)?;
    let services = Services::new(&settings, &runtime, &listeners, stores.clone());
    let drain = Drain::default();
    let reloader = Reloader::new(request.config, request.given, resolved, level);
    watch_signals(signals, reloader, services.clone(), runtime.handle(), Arc::clone(&drain))?;
    if let Some(journalist) = journalist {
        journalist.start(&runtime)?;
    }
    // Every shard is ready before the first takes a connection: its commands may go to any.
    let starting = services.clone();
    runtime.run_on_all(move |shard| {
        starting.start_shard(shard);
        std::future::ready(())
    })?;
    stores.start_keeper(&runtime)?;
    print(&announcement(&preflight, &settings.store, &runtime, &listeners));

    let listeners = Arc::new(Mutex::new(listeners));
    let accepted = runtime.run_on_all(move |shard| {
        let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner).take(shard);
        serve_shard(services.clone(), listeners)
    });
    accepted?.into_iter().collect::<Result<Vec<()>, _>>()?;
    let Some(deadline) = drain.get() else {
        return Err(Failure::running("the listeners ended although nobody asked for it"));
    };
    runtime.block_on(drained(runtime.handle(), *deadline));
    let closed = stores.close(&runtime);
    let report = runtime.shut_down();
    tracing::info!(leaked = report.leaked.len(), "ended");
    closed
}

fn watch_signals(
    signals: Signals,
    mut reloader: Reloader,
    services: Services,
    handle: Handle,
    drain: Drain,
) -> Result<(), Failure> {
    let act = move |request| match request {
        signals::Request::Reload => {
            let changed = reloader.reload();
            services.apply(&changed, reloader.settings());
        }
        signals::Request::Drain => {
            let deadline = reloader.settings().drain_timeout;
            let connections = handle.connections();
            tracing::info!(connections, ?deadline, "draining; a second signal ends at once");
            // The deadline has to be there when the listeners end.
            let _ = drain.set(deadline);
            handle.drain();
        }
    };
    let watched = signals::watch(signals, act);
    watched.map_err(|error| Failure::running(format!("cannot watch signals: {error}")))
}

/// Takes connections on one shard until the runtime drains.
async fn serve_shard(services: Services, listeners: listen::OfShard) -> Result<(), Error> {
    let mut loops = Vec::new();
    if let Some(listener) = listeners.resp {
        let (listener, services) = (TcpListener::from_std(listener)?, services.clone());
        let accept = accept(listener, move |stream| services.serve_resp(stream));
        loops.push(task::Builder::new().name("accept resp").spawn(accept));
    }
    if let Some(listener) = listeners.http {
        let (listener, services) = (TcpListener::from_std(listener)?, services.clone());
        let accept = accept(listener, move |stream| services.serve_http(stream));
        loops.push(task::Builder::new().name("accept http").spawn(accept));
    }
    for accepting in loops {
        accepting.await.map_err(Error::panicked)?;
    }
    Ok(())
}

async fn accept(listener: TcpListener, serve: impl Fn(TcpStream) -> Result<(), Error>) {
    loop {
        let refused = match listener.accept().await {
            Ok(stream) => match serve(stream) {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) if error.is_closed() => return,
            // The peer has changed its mind before it was taken.
            Err(error) if error.is_disconnected() => continue,
            Err(error) => error,
        };
        tracing::warn!(%refused, pause = ?ACCEPT_PAUSE, "a connection could not be taken");
        time::sleep(ACCEPT_PAUSE).await;
    }
}

/// Ends when the last connection is gone, or at the deadline.
async fn drained(handle: Handle, deadline: Duration) {
    let gone = async {
        while handle.connections() > 0 {
            time::sleep(DRAIN_LOOK_EVERY).await;
        }
    };
    if time::timeout(deadline, gone).await.is_err() {
        let connections = handle.connections();
        tracing::warn!(connections, "the drain is over time: what is left is cut off");
    }
}

/// What is printed at start: where it listens, which engine runs and why, and two lines to try.
fn announcement(
    preflight: &Preflight,
    store: &StoreSettings,
    runtime: &Runtime,
    listeners: &Listeners,
) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        let _ = writeln!(out, "{text}");
    };
    let (version, process) = (env!("CARGO_PKG_VERSION"), std::process::id());
    line(format!("annulus {version}, process {process}"));
    line(format!("engine   {}", runtime.report()));
    line(format!("threads  {}", preflight.plan));
    line(format!("store    {store}"));
    if let Some(address) = listeners.resp_address {
        line(format!("RESP     {address}"));
    }
    if let Some(address) = listeners.http_address {
        line(format!("HTTP     http://{address}/"));
    }
    line("try:".to_owned());
    if let Some(address) = listeners.resp_address {
        let (host, port) = reachable(address);
        line(format!("  redis-cli -h {host} -p {port} set greeting hello"));
    }
    if let Some(address) = listeners.http_address {
        let (host, port) = reachable(address);
        let host = if address.is_ipv6() { format!("[{host}]") } else { host };
        let path = if listeners.resp_address.is_some() { "kv/greeting" } else { "stats" };
        line(format!("  curl http://{host}:{port}/{path}"));
    }
    out
}

/// An address to connect to: one that listens everywhere is reached at home.
fn reachable(address: SocketAddr) -> (String, u16) {
    let host = match address {
        SocketAddr::V4(_) if address.ip().is_unspecified() => "127.0.0.1".to_owned(),
        SocketAddr::V6(_) if address.ip().is_unspecified() => "::1".to_owned(),
        _ => address.ip().to_string(),
    };
    (host, address.port())
}
