//! The measuring itself: servers of one service up, every case on every one of them, in rounds.
//!
//! `compare` calls [`run`] per service. Invariant: within a round all contenders run the same case
//! one after the other (A B C, then B C A …), so that drift of the machine hits all alike.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;

use super::contender::Contender;
use super::cores::Cores;
use super::server::Server;
use super::site::Site;
use super::workload::{self, Case, Pace, Service};
use crate::failure::Failure;
use crate::load::{self, Outcome, Settings, tally};
use crate::scratch::Scratch;

/// Connections that keep the cpu pool busy in the mixed workload.
const HEAVY_CONNECTIONS: usize = 2;
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
    for contender in contenders.iter().copied().filter(|one| one.serves(service)) {
        results.rows.extend(cases.iter().map(|case| Row {
            contender,
            case: *case,
            rate: None,
            samples: Vec::new(),
        }));
    }
    let mut berths = Vec::new();
    for round in 0..program.rounds {
        if round == 0 || service.is_stored() {
            // The old ones give back their disk first.
            drop(berths);
            berths = start_all(program, service, &cores, &mut results);
        }
        for case in cases {
            for turn in 0..berths.len() {
                let slot = (turn + round) % berths.len();
                let Some(berth) = &mut berths[slot] else { continue };
                match berth.sample(program, case, &cores, &results.rows) {
                    Ok((sample, rate)) => {
                        results.book(berth.server.contender, case, sample, rate);
                    }
                    Err(failure) if program.stop.load(Ordering::Relaxed) => {
                        return Err(failure);
                    }
                    Err(failure) => {
                        let contender = berth.server.contender;
                        let what = format!("{}, {}: {failure}", contender.name(), case.name());
                        results.drop_out(contender, what);
                        berths[slot] = None;
                    }
                }
                program.progress.inc(1);
            }
        }
    }
    Ok(results)
}

/// A running contender, and where it stores what it has to store.
struct Berth {
    // Ends before its directory goes.
    server: Server,
    data: Option<Scratch>,
}

/// Starts everybody who is still in, with what the workloads read.
fn start_all(
    program: &Program<'_>,
    service: Service,
    cores: &Cores,
    results: &mut Results,
) -> Vec<Option<Berth>> {
    let mut contenders: Vec<Contender> = Vec::new();
    for row in &results.rows {
        if !contenders.contains(&row.contender) {
            contenders.push(row.contender);
        }
    }
    let mut berths = Vec::new();
    for contender in contenders {
        match Berth::start(program, contender, service, cores) {
            Ok(berth) => berths.push(Some(berth)),
            Err(failure) => {
                results.drop_out(contender, failure.to_string());
                berths.push(None);
            }
        }
    }
    berths
}

impl Results {
    /// A contender that fails once is out: half a row compares with nothing.
    fn drop_out(&mut self, contender: Contender, why: String) {
        self.failures.push(why);
        self.rows.retain(|row| row.contender != contender);
    }

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

impl Berth {
    fn start(
        program: &Program<'_>,
        contender: Contender,
        service: Service,
        cores: &Cores,
    ) -> Result<Self, Failure> {
        let site = program.site;
        let data = service.is_stored().then(|| Scratch::make(&site.disk)).transpose()?;
        let path = data.as_ref().map(Scratch::path);
        let server = Server::start(contender, service, site, path, cores)?;
        workload::prepare(service, server.address, contender == Contender::Nginx)?;
        Ok(Self { server, data })
    }

    /// One window of `case`, and the open loop's rate if it is one.
    fn sample(
        &mut self,
        program: &Program<'_>,
        case: &Case,
        cores: &Cores,
        rows: &[Row],
    ) -> Result<(Sample, Option<f64>), Failure> {
        let server = &mut self.server;
        let name = server.contender.name();
        program.progress.set_message(format!("{name}: {} @{}", case.name(), case.connections));
        if let Some(data) = &self.data {
            data.settle()?;
        }
        let rate = rate(case, rows)?;
        let settings = Settings {
            address: server.address,
            work: case.work(server.address),
            connections: case.connections,
            pipeline: case.pipeline,
            rate,
            warmup: program.warmup,
            duration: program.window.max(case.window_min()),
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
        outcome.check()?;
        Ok((Sample { started, outcome }, rate))
    }
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
