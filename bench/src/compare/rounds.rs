//! The measuring itself: servers of one service up, every case on every one of them, in rounds.
//!
//! `compare` calls [`run`] per service. Invariant: within a round all contenders run the same case
//! one after the other (A B C, then B C A …), so that drift of the machine hits all alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use super::contender::{Contender, Site};
use super::cores::Cores;
use super::server::Server;
use super::workload::{self, Case, Pace, Service};
use crate::failure::Failure;
use crate::load::{self, Outcome, Settings, tally};

/// Connections that keep the cpu pool busy in the mixed workload.
const HEAVY_CONNECTIONS: usize = 2;
/// The mixed workload needs windows long enough for several heavy requests.
const MIXED_WINDOW_MIN: Duration = Duration::from_millis(800);
/// Open loops are paced at this part of what the slowest contender can do.
const OPEN_LOOP_SHARE: f64 = 0.5;

/// How long, how often, and with what.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) rounds: usize,
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
    pub(crate) site: &'a Site,
    pub(crate) stop: &'a AtomicBool,
    pub(crate) progress: &'a ProgressBar,
}

/// What one round of one case on one contender gave.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) started: SystemTime,
    pub(crate) outcome: Outcome,
}

/// All rounds of one case on one contender.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) contender: Contender,
    pub(crate) case: Case,
    /// The open loop's rate.
    pub(crate) rate: Option<f64>,
    pub(crate) samples: Vec<Sample>,
}

impl Row {
    /// Latencies of all rounds together.
    pub(crate) fn latency(&self) -> Histogram<u64> {
        let mut all = tally::histogram();
        for sample in &self.samples {
            all.add(&sample.outcome.tally.latency).expect("all histograms have the same bounds");
        }
        all
    }

    /// Server CPU per request of every round, in microseconds; empty where it says nothing: beside
    /// argon2 nearly all of the CPU is argon2's.
    pub(crate) fn server_us(&self) -> Vec<f64> {
        if self.case.pace == Pace::LightBesideHeavy {
            return Vec::new();
        }
        self.samples.iter().filter_map(|sample| sample.outcome.server_us()).collect()
    }

    /// Requests per second of every round.
    pub(crate) fn rates(&self) -> Vec<f64> {
        self.samples.iter().map(|sample| sample.outcome.rate()).collect()
    }
}

/// Rows, and contenders that dropped out with the reason.
#[derive(Debug, Default)]
pub(crate) struct Results {
    pub(crate) rows: Vec<Row>,
    pub(crate) failures: Vec<String>,
}

/// Runs `cases` on every contender that can serve them.
pub(crate) fn run(
    program: &Program<'_>,
    service: Service,
    cases: &[Case],
    contenders: &[Contender],
) -> Result<Results, Failure> {
    // The cpu pool of the mixed workload gets a core beside the shard's, where there is one.
    let cores = Cores::split(if service == Service::Mixed { 2 } else { 1 })?;
    let mut results = Results::default();
    let mut servers = Vec::new();
    for contender in contenders.iter().copied().filter(|one| one.serves(service)) {
        let started = Server::start(contender, service, program.site, &cores.server, &cores.load)
            .and_then(|server| {
                workload::prepare(service, server.address, contender == Contender::Nginx)?;
                Ok(server)
            });
        match started {
            Ok(server) => servers.push(Some(server)),
            Err(failure) => results.failures.push(failure.to_string()),
        }
    }
    for server in servers.iter().flatten() {
        for case in cases {
            let row =
                Row { contender: server.contender, case: *case, rate: None, samples: Vec::new() };
            results.rows.push(row);
        }
    }
    for round in 0..program.rounds {
        for case in cases {
            for turn in 0..servers.len() {
                let slot = (turn + round) % servers.len();
                let Some(server) = &mut servers[slot] else { continue };
                match sample(program, server, case, &cores, &results.rows) {
                    Ok((sample, rate)) => results.book(server.contender, case, sample, rate),
                    Err(failure) if program.stop.load(Ordering::Relaxed) => {
                        return Err(failure);
                    }
                    Err(failure) => {
                        let name = server.contender.name();
                        results.failures.push(format!("{name}, {}: {failure}", case.name()));
                        // A contender that fails once is out: half a row compares with nothing.
                        results.rows.retain(|row| row.contender != server.contender);
                        servers[slot] = None;
                    }
                }
                program.progress.inc(1);
            }
        }
    }
    Ok(results)
}

impl Results {
    pub(crate) fn book(
        &mut self,
        contender: Contender,
        case: &Case,
        sample: Sample,
        rate: Option<f64>,
    ) {
        let row = self.rows.iter_mut().find(|row| row.contender == contender && row.case == *case);
        if let Some(row) = row {
            row.rate = rate;
            row.samples.push(sample);
        }
    }
}

/// One window of `case` on `server`, and the open loop's rate if it is one.
fn sample(
    program: &Program<'_>,
    server: &mut Server,
    case: &Case,
    cores: &Cores,
    rows: &[Row],
) -> Result<(Sample, Option<f64>), Failure> {
    let name = server.contender.name();
    program.progress.set_message(format!("{name}: {} @{}", case.name(), case.connections));
    let rate = rate(case, rows)?;
    let mixed = case.fixed_rate().is_some();
    let settings = Settings {
        address: server.address,
        work: case.work(server.address),
        connections: case.connections,
        pipeline: case.pipeline,
        rate,
        warmup: program.warmup,
        duration: if mixed { program.window.max(MIXED_WINDOW_MIN) } else { program.window },
        threads: cores.load.len(),
        cores: cores.load.clone(),
        spin: !cores.shared,
        server: Some(server.process()),
    };
    let started = SystemTime::now();
    let outcome = if case.pace == Pace::LightBesideHeavy {
        beside_heavy(&settings, program.stop)
    } else {
        load::run(&settings, program.stop)
    };
    // A dead server explains more than the errors that its clients saw.
    server.check_alive()?;
    let outcome = outcome?;
    if outcome.tally.errors.total() > 0 {
        let details = outcome.tally.first_error.as_deref().unwrap_or("no details");
        return Err(Failure::failed(outcome.tally.errors, details));
    }
    if outcome.requests == 0 {
        return Err(Failure::Failed("no reply in the measured window".into()));
    }
    Ok((Sample { started, outcome }, rate))
}

/// Runs the light load while another keeps the server's cpu pool busy.
fn beside_heavy(light: &Settings, stop: &AtomicBool) -> Result<Outcome, Failure> {
    let heavy = Settings {
        work: workload::heavy_work(light.address),
        connections: HEAVY_CONNECTIONS,
        rate: None,
        threads: 1,
        spin: false,
        server: None,
        ..light.clone()
    };
    thread::scope(|scope| {
        let heavy = scope.spawn(|| load::run(&heavy, stop));
        let outcome = load::run(light, stop)?;
        let heavy = heavy.join().map_err(|_| Failure::Failed("the heavy load panicked".into()))?;
        let heavy = heavy.map_err(|failure| Failure::failed("heavy requests", failure))?;
        if heavy.requests == 0 || heavy.tally.errors.total() > 0 {
            let details = heavy.tally.first_error.as_deref().unwrap_or("none was answered");
            return Err(Failure::failed("heavy requests", details));
        }
        Ok(outcome)
    })
}

/// The open loop's rate of `case`; the same for all contenders and rounds.
fn rate(case: &Case, rows: &[Row]) -> Result<Option<f64>, Failure> {
    if case.pace == Pace::Closed {
        return Ok(None);
    }
    if let Some(rate) = case.fixed_rate() {
        return Ok(Some(rate));
    }
    if let Some(rate) = rows.iter().filter(|row| row.case == *case).find_map(|row| row.rate) {
        return Ok(Some(rate));
    }
    rows.iter()
        .filter(|row| case.is_paced_by(&row.case))
        .flat_map(Row::rates)
        .min_by(f64::total_cmp)
        .map(|slowest| Some(slowest * OPEN_LOOP_SHARE))
        .ok_or_else(|| Failure::Failed("an open loop without a closed one to pace it".into()))
}
