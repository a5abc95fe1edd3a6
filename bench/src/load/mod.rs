//! The load generator: checked requests over many connections, closed or open loop.
//!
//! `load::command` runs it from the command line and `compare` from its rounds. [`run`] owns the
//! clock of the run (warm-up, window, stop); workers own connections, one thread each.
//! Invariant: requests and server CPU are read at the same two moments, so their ratio is honest.

pub(crate) mod client;
pub(crate) mod command;
mod connection;
pub(crate) mod exchange;
pub(crate) mod prepare;
mod schedule;
pub(crate) mod tally;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::accounting::Reading;
use crate::failure::Failure;
use exchange::Work;
use tally::Tally;

/// How often a waiting [`run`] looks whether a worker has failed or somebody pressed ctrl-c.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

/// What to do, resolved and validated.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The server.
    pub(crate) address: SocketAddr,
    /// The requests and what their replies must be.
    pub(crate) work: Work,
    /// Connections, shared out over the threads.
    pub(crate) connections: usize,
    /// Requests in flight per connection.
    pub(crate) pipeline: usize,
    /// Requests per second over all connections (open loop), or as fast as replies come (closed).
    pub(crate) rate: Option<f64>,
    /// Time before the window.
    pub(crate) warmup: Duration,
    /// The measured window.
    pub(crate) duration: Duration,
    /// Worker threads.
    pub(crate) threads: usize,
    /// Cores for the workers, one each in turn; empty leaves them unpinned.
    pub(crate) cores: Vec<usize>,
    /// Poll without sleeping, so that the server need not pay for waking the load (an
    /// inter-processor interrupt, dear on virtual machines). Only with cores of the load's own.
    pub(crate) spin: bool,
    /// The server's process, for its CPU time.
    pub(crate) server: Option<u32>,
}

/// What came out of the measured window.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Replies in the window.
    pub(crate) requests: u64,
    /// Length of the window.
    pub(crate) elapsed: Duration,
    /// Server CPU spent in the window, if the process is known.
    pub(crate) server_cpu_ns: Option<u64>,
    /// The load generator's own CPU in the window.
    pub(crate) load_cpu_ns: u64,
    /// Latencies and errors of all workers.
    pub(crate) tally: Tally,
}

impl Outcome {
    /// Requests per second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Server CPU per request in microseconds.
    pub(crate) fn server_us(&self) -> Option<f64> {
        self.server_cpu_ns.map(|nanos| nanos as f64 / 1000.0 / self.requests.max(1) as f64)
    }

    /// A failure unless there were replies, and all of them right.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.tally.errors.total() > 0 {
            let details = self.tally.first_error.as_deref().unwrap_or("no details");
            return Err(Failure::failed(self.tally.errors, details));
        }
        if self.requests == 0 {
            return Err(Failure::Failed("no reply in the measured window".into()));
        }
        Ok(())
    }

    /// The load generator's CPU per request in microseconds.
    pub(crate) fn load_us(&self) -> f64 {
        self.load_cpu_ns as f64 / 1000.0 / self.requests.max(1) as f64
    }
}

/// Where the run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Connect,
    Warmup,
    Measure,
    Stop,
}

/// What [`run`] and its workers share.
#[derive(Debug)]
struct Control {
    phase: AtomicU8,
    /// Replies so far, by worker.
    replies: Vec<AtomicU64>,
    /// A worker has given up.
    failed: AtomicBool,
}

impl Control {
    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Connect,
            1 => Phase::Warmup,
            2 => Phase::Measure,
            _ => Phase::Stop,
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Release);
    }

    fn replies(&self) -> u64 {
        self.replies.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Runs the load and returns what the window saw. `stop` ends it early (ctrl-c).
pub(crate) fn run(settings: &Settings, stop: &AtomicBool) -> Result<Outcome, Failure> {
    assert!(settings.connections > 0);
    assert!(settings.pipeline > 0);
    let threads = settings.threads.clamp(1, settings.connections);
    let control = Arc::new(Control {
        phase: AtomicU8::new(Phase::Connect as u8),
        replies: (0..threads).map(|_| AtomicU64::new(0)).collect(),
        failed: AtomicBool::new(false),
    });
    let (ready, connected) = mpsc::channel();
    let workers: Vec<_> = (0..threads)
        .map(|index| {
            let (settings, control, ready) =
                (settings.clone(), Arc::clone(&control), ready.clone());
            thread::spawn(move || {
                let result = worker::run(index, threads, &settings, &control, ready);
                if result.is_err() {
                    control.failed.store(true, Ordering::Release);
                }
                result
            })
        })
        .collect();
    drop(ready);
    let ready = connected.iter().count();
    let window = if ready == threads {
        window(settings, &control, stop)
    } else {
        Err(Failure::Failed("a worker could not connect".into()))
    };
    control.enter(Phase::Stop);
    let mut tally = Tally::new();
    let mut load_cpu_ns = 0;
    for worker in workers {
        match worker.join() {
            Ok(Ok(report)) => {
                tally.merge(&report.tally);
                load_cpu_ns += report.cpu_ns;
            }
            Ok(Err(failure)) => return Err(failure),
            Err(_) => return Err(Failure::Failed("a load thread panicked".into())),
        }
    }
    let (requests, elapsed, server_cpu_ns) = window?;
    Ok(Outcome { requests, elapsed, server_cpu_ns, load_cpu_ns, tally })
}

type Window = (u64, Duration, Option<u64>);

/// Leads the workers through warm-up and window; reads the counters at both its ends.
fn window(settings: &Settings, control: &Control, stop: &AtomicBool) -> Result<Window, Failure> {
    control.enter(Phase::Warmup);
    wait(settings.warmup, control, stop)?;
    let cpu_start = settings.server.map(Reading::take).transpose()?;
    control.enter(Phase::Measure);
    let (started, replies_start) = (Instant::now(), control.replies());
    wait(settings.duration, control, stop)?;
    let cpu_end = settings.server.map(Reading::take).transpose()?;
    let (elapsed, replies_end) = (started.elapsed(), control.replies());
    let cpu = cpu_end.zip(cpu_start).map(|(end, start)| end.since(&start));
    Ok((replies_end - replies_start, elapsed, cpu))
}

fn wait(duration: Duration, control: &Control, stop: &AtomicBool) -> Result<(), Failure> {
    let end = Instant::now() + duration;
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".into()));
        }
        if control.failed.load(Ordering::Acquire) {
            return Err(Failure::Failed("a worker gave up".into()));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(WATCH_INTERVAL));
    }
}
