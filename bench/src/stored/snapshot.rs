//! `annulus-bench snapshot`: what a snapshot costs those who read meanwhile, and in memory.
//!
//! Called from the command line. Every contender holds the same keys under the same open loop; in
//! each round there is a window without a save, one with saves for the latency, and one with saves
//! for the memory. Invariant: the windows for latency are watched alike, with and without saves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use super::{Flags, Stage, resident};
use crate::compare::contender::Contender;
use crate::compare::server::Server;
use crate::compare::statistics::Spread;
use crate::compare::workload::Durability;
use crate::failure::Failure;
use crate::load::client::Client;
use crate::load::exchange::{Operation, Values, Work};
use crate::load::{self, Settings, prepare, tally};
use crate::report::Latency;
use crate::report::table::{Table, figure};
use crate::report::targets::{Bound, Judged};
use crate::say;
use crate::scratch::Scratch;

/// p99 of GETs during a save, relative to that without.
const P99_MAX: f64 = 1.50;
/// Memory during a save, relative to that before the first.
const MEMORY_MAX: f64 = 1.15;
/// Before each window.
const WARMUP: Duration = Duration::from_millis(200);
/// Between two looks whether a save has ended: rare enough to be no load.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The longest that a save, or any reply, may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags of `annulus-bench snapshot`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// Keys in the store.
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    /// Requests per second: nine GETs to one SET. The GETs are measured.
    #[arg(long, default_value_t = 20_000.0)]
    rate: f64,
    /// Connections.
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Seconds of each of the three windows of a round.
    #[arg(long, default_value_t = 3.0)]
    window: f64,
    /// The end of the run's directory name, after the date.
    #[arg(long, default_value = "snapshot")]
    name: String,
}

/// What happens beside the load.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    /// One save after the other.
    Saves,
    /// The same, while the memory is looked at.
    SavesMeasured,
}

/// A contender with its keys, and what was measured.
struct Subject {
    contender: Contender,
    // Ends before its directory goes.
    server: Server,
    data: Scratch,
    without: Vec<Histogram<u64>>,
    during: Vec<Histogram<u64>>,
    /// Bytes before the first save.
    memory_before: u64,
    /// The most of every round.
    memory_peaks: Vec<u64>,
    /// Seconds that saves took.
    saves: Vec<f64>,
}

/// Measures, prints the table and writes it down.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    arguments.check()?;
    let flags = &arguments.flags;
    let about = vec![
        ("keys", format!("{} of {} bytes", arguments.keys, flags.value)),
        ("load", format!("{} requests/s on {} connections", arguments.rate, arguments.connections)),
        ("window", format!("{} s, three in a round", arguments.window)),
    ];
    let (stage, mut sheet) = flags.stage("snapshot", about)?;
    let values = Arc::new(Values::new(arguments.keys, flags.value));
    let mut all = Vec::new();
    for contender in &stage.contenders {
        stage.check_stop()?;
        match Subject::make(&stage, *contender, &values) {
            Ok(subject) => all.push(subject),
            Err(failure) => sheet.failures.push(format!("{}: {failure}", contender.name())),
        }
    }
    for round in 0..flags.rounds {
        let mut failed = Vec::new();
        for turn in 0..all.len() {
            stage.check_stop()?;
            let slot = (turn + round) % all.len();
            let subject = &mut all[slot];
            if let Err(failure) = subject.round(&stage, &arguments, &values) {
                let contender = subject.contender;
                sheet.failures.push(format!("{}: {failure}", contender.name()));
                failed.push(contender);
            }
        }
        all.retain(|subject| !failed.contains(&subject.contender));
    }
    sheet.table = table(&all);
    sheet.lines = all.iter().map(Subject::line).collect();
    sheet.targets = all.iter().flat_map(Subject::targets).collect();
    sheet.notes.extend(notes());
    drop((all, stage));
    flags.publish(&sheet, &arguments.name)
}

fn notes() -> [String; 2] {
    [
        "GETs in µs from the time they were due; one request in ten is a SET, which is not \
         counted. During means that one save follows the other. Both sides sync their log once a \
         second"
            .to_owned(),
        "memory is PSS of the process with its children, in MiB: before the first save, and the \
         most during saves. The child that redis forks runs on the server's core, like everything \
         of the server's"
            .to_owned(),
    ]
}

impl Arguments {
    fn check(&self) -> Result<(), Failure> {
        self.flags.check("--keys", self.keys, &self.name)?;
        if self.connections == 0 {
            return Err(Failure::usage("--connections must be at least 1"));
        }
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return Err(Failure::usage("--rate must be a positive number of requests per second"));
        }
        self.window().map(drop)
    }

    fn window(&self) -> Result<Duration, Failure> {
        Duration::try_from_secs_f64(self.window)
            .ok()
            .filter(|window| !window.is_zero())
            .ok_or_else(|| Failure::usage("--window must be a number of seconds above zero"))
    }
}

impl Subject {
    /// Starts a server and puts the keys in.
    fn make(stage: &Stage, contender: Contender, values: &Values) -> Result<Self, Failure> {
        say(format_args!("filling       {}", contender.name()));
        let data = stage.scratch()?;
        let server = stage.server(contender, Durability::Interval, &data)?;
        prepare::set_all(server.address, values)?;
        Ok(Self {
            contender,
            server,
            data,
            without: Vec::new(),
            during: Vec::new(),
            memory_before: 0,
            memory_peaks: Vec::new(),
            saves: Vec::new(),
        })
    }

    fn round(
        &mut self,
        stage: &Stage,
        arguments: &Arguments,
        values: &Arc<Values>,
    ) -> Result<(), Failure> {
        let without = self.window(stage, arguments, values, Beside::Nothing)?;
        self.without.push(without);
        if self.memory_peaks.is_empty() {
            self.memory_before = resident::bytes(self.server.process())?;
        }
        let during = self.window(stage, arguments, values, Beside::Saves)?;
        self.during.push(during);
        self.window(stage, arguments, values, Beside::SavesMeasured)?;
        Ok(())
    }

    /// One window of the load, and the latency of its GETs.
    fn window(
        &mut self,
        stage: &Stage,
        arguments: &Arguments,
        values: &Arc<Values>,
        beside: Beside,
    ) -> Result<Histogram<u64>, Failure> {
        self.data.settle()?;
        let address = self.server.address;
        let operation = Operation::MixedReads;
        let settings = Settings {
            address,
            work: Work::Resp { operation, values: Arc::clone(values) },
            connections: arguments.connections,
            pipeline: 1,
            rate: Some(arguments.rate),
            warmup: WARMUP,
            duration: arguments.window()?,
            threads: stage.cores.load.len(),
            cores: stage.cores.load.clone(),
            spin: !stage.cores.shared,
            server: Some(self.server.process()),
        };
        let ended = AtomicBool::new(false);
        let process = self.server.process();
        let (outcome, watched) = thread::scope(|scope| {
            let client = Client::connect(address, PATIENCE)?;
            let watcher = scope.spawn(|| watch(client, process, beside, &ended));
            let outcome = load::run(&settings, &stage.stop);
            ended.store(true, Ordering::Release);
            let watched =
                watcher.join().map_err(|_| Failure::Failed("the watcher panicked".into()))?;
            Ok((outcome, watched))
        })?;
        self.server.check_alive()?;
        let (outcome, watched) = (outcome?, watched?);
        outcome.check()?;
        self.saves.extend(watched.saves);
        self.memory_peaks.extend(watched.memory_peak);
        Ok(outcome.tally.latency)
    }

    fn p99s(windows: &[Histogram<u64>]) -> Vec<f64> {
        windows.iter().map(|latency| latency.value_at_quantile(0.99) as f64 / 1000.0).collect()
    }

    fn latency_ratio(&self) -> Option<Spread> {
        Spread::of_ratios(&Self::p99s(&self.during), &Self::p99s(&self.without))
    }

    fn memory_ratio(&self) -> Option<Spread> {
        let before = self.memory_before as f64;
        Spread::of(self.memory_peaks.iter().map(|peak| *peak as f64 / before))
    }

    fn targets(&self) -> Vec<Judged> {
        if !matches!(self.contender, Contender::Annulus(_)) {
            return Vec::new();
        }
        let judge = |what, theirs, max, measured| {
            let ours = format!("{} during a save", self.contender.name());
            Judged::new(what, 1, ours, theirs, Bound::AtMost(max), measured)
        };
        vec![
            judge("GET, p99", "without", P99_MAX, self.latency_ratio()),
            judge("memory", "before", MEMORY_MAX, self.memory_ratio()),
        ]
    }

    fn line(&self) -> serde_json::Value {
        json!({
            "server": self.contender.name(),
            "latency_us_without": Latency::of(&merged(&self.without)),
            "latency_us_during": Latency::of(&merged(&self.during)),
            "p99_us_without": Self::p99s(&self.without),
            "p99_us_during": Self::p99s(&self.during),
            "p99_ratio": self.latency_ratio(),
            "memory_bytes_before": self.memory_before,
            "memory_bytes_peaks": self.memory_peaks,
            "memory_ratio": self.memory_ratio(),
            "save_seconds": self.saves,
        })
    }
}

fn merged(windows: &[Histogram<u64>]) -> Histogram<u64> {
    let mut all = tally::histogram();
    for window in windows {
        all.add(window).expect("all histograms have the same bounds");
    }
    all
}

/// What was seen beside the load.
#[derive(Default)]
struct Watched {
    saves: Vec<f64>,
    memory_peak: Option<u64>,
}

/// Looks at the server until the load has `ended`, and then until the last save has.
fn watch(
    mut client: Client,
    process: u32,
    beside: Beside,
    ended: &AtomicBool,
) -> Result<Watched, Failure> {
    let mut watched = Watched::default();
    let mut saving = None;
    loop {
        let is_last = ended.load(Ordering::Acquire);
        if beside != Beside::Nothing && saving.is_none() && !is_last {
            let (before, _) = saves(&mut client)?;
            client.ask(&["BGSAVE"])?;
            saving = Some((Instant::now(), before));
        }
        thread::sleep(LOOK_INTERVAL);
        let (count, under_way) = saves(&mut client)?;
        if beside == Beside::SavesMeasured {
            let bytes = resident::bytes(process)?;
            watched.memory_peak = watched.memory_peak.max(Some(bytes));
        }
        if let Some((since, before)) = saving {
            let elapsed = since.elapsed();
            if count > before && !under_way {
                watched.saves.push(elapsed.as_secs_f64());
                saving = None;
            } else if elapsed > PATIENCE {
                let seconds = PATIENCE.as_secs();
                return Err(Failure::Failed(format!("a save has not ended within {seconds} s")));
            }
        }
        if is_last && saving.is_none() {
            return Ok(watched);
        }
    }
}

/// How many saves there were, and whether one is under way; a failure if the last one failed. redis
/// counts a save when it begins, annulus when it ends.
fn saves(client: &mut Client) -> Result<(u64, bool), Failure> {
    let state = client.ask(&["INFO", "persistence"])?;
    if field(&state, "rdb_last_bgsave_status") != Some("ok") {
        return Err(Failure::Failed("a save failed: see the server's log".into()));
    }
    let count = field(&state, "rdb_saves").and_then(|count| count.parse().ok());
    let count = count
        .ok_or_else(|| Failure::Failed("INFO does not say how many saves there were".into()))?;
    Ok((count, field(&state, "rdb_bgsave_in_progress") != Some("0")))
}

/// The value of a line `name:value`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn table(all: &[Subject]) -> Table {
    let header = vec![
        "server",
        "p50",
        "p50 during",
        "p99",
        "p99 during",
        "ratio",
        "range",
        "p99.9",
        "p99.9 during",
        "memory",
        "peak",
        "ratio",
        "save s",
    ];
    let mut table = Table::new(header);
    let mebibytes = |bytes: u64| (bytes >> 20).to_string();
    for subject in all {
        let without = Latency::of(&merged(&subject.without));
        let during = Latency::of(&merged(&subject.during));
        let median = |values: Vec<f64>| {
            Spread::of(values).map_or_else(|| "–".into(), |spread| figure(spread.median))
        };
        let latency = subject.latency_ratio();
        let ratio = |spread: Option<Spread>| {
            spread.map_or_else(|| "–".into(), |spread| format!("{:.2}", spread.median))
        };
        let range = latency.map(|ratio| format!("{:.2}–{:.2}", ratio.min, ratio.max));
        table.push(vec![
            subject.contender.name(),
            figure(without.p50),
            figure(during.p50),
            median(Subject::p99s(&subject.without)),
            median(Subject::p99s(&subject.during)),
            ratio(latency),
            range.unwrap_or_else(|| "–".into()),
            figure(without.p99_9),
            figure(during.p99_9),
            mebibytes(subject.memory_before),
            mebibytes(subject.memory_peaks.iter().copied().max().unwrap_or(0)),
            ratio(subject.memory_ratio()),
            median(subject.saves.clone()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_info_are_found_by_their_whole_name() {
        let info = "$99\r\n# Persistence\r\nrdb_saves_more:7\r\n\
                    rdb_saves:1\r\nrdb_last_bgsave_status:ok";
        assert_eq!(field(info, "rdb_saves"), Some("1"));
        assert_eq!(field(info, "rdb_last_bgsave_status"), Some("ok"));
        assert_eq!(field(info, "loading"), None);
    }
}
