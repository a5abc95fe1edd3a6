//! `annulus-bench recovery`: how fast a server is back after a crash.
//!
//! Called from the command line. A directory is filled by pipelined SETs and left by SIGKILL; in
//! each round a server starts with it on one core, and is killed again. Invariant: a server that
//! does not bring back every key is a failure and not a figure.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{Flags, Stage};
use crate::compare::contender::Contender;
use crate::compare::statistics::Spread;
use crate::compare::workload::Durability;
use crate::failure::Failure;
use crate::load::client::Client;
use crate::load::exchange::Values;
use crate::load::prepare;
use crate::report::table::{Table, figure};
use crate::report::targets::{Bound, Judged};
use crate::say;
use crate::scratch::Scratch;

/// Records a second that one core is to recover, in millions.
const MILLIONS_MIN: f64 = 1.0;
/// What was acknowledged without a sync reaches the kernel in this time.
const WRITTEN_WITHIN: Duration = Duration::from_millis(500);
/// The longest that a server may take to recover.
const PATIENCE: Duration = Duration::from_secs(300);

/// Flags of `annulus-bench recovery`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// SETs in the log, each of a key of its own.
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// The end of the run's directory name, after the date.
    #[arg(long, default_value = "recovery")]
    name: String,
}

/// What is in a directory, and what it took to bring it back.
struct Crashed {
    contender: Contender,
    data: Scratch,
    /// What its files came to when it crashed.
    bytes: u64,
    /// Seconds that the server spent on its data, by its own account.
    loading: Vec<f64>,
    /// Seconds from its start to its first reply.
    starting: Vec<f64>,
}

/// Measures, prints the table and writes it down.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { flags, records, name } = arguments;
    flags.check("--records", records, &name)?;
    let about = vec![("records", format!("{records} SETs of {} bytes", flags.value))];
    let (stage, mut sheet) = flags.stage("recovery", about)?;
    let values = Values::new(records, flags.value);
    let mut all = Vec::new();
    for contender in &stage.contenders {
        stage.check_stop()?;
        match Crashed::make(&stage, *contender, &values) {
            Ok(crashed) => all.push(crashed),
            Err(failure) => sheet.failures.push(format!("{}: {failure}", contender.name())),
        }
    }
    for round in 0..flags.rounds {
        let mut failed = Vec::new();
        for turn in 0..all.len() {
            stage.check_stop()?;
            let slot = (turn + round) % all.len();
            let crashed = &mut all[slot];
            if let Err(failure) = crashed.recover(&stage, records) {
                let contender = crashed.contender;
                sheet.failures.push(format!("{}: {failure}", contender.name()));
                failed.push(contender);
            }
        }
        all.retain(|crashed| !failed.contains(&crashed.contender));
    }
    sheet.table = table(&all, records);
    sheet.lines = all.iter().map(|crashed| crashed.line(records)).collect();
    sheet.targets = all.iter().filter_map(|crashed| crashed.target(records)).collect();
    sheet.notes.push(
        "loading is what the server says it spent on its data, on one core with all its threads; \
         start is from its start to its first reply, to 10 ms. The files are out of the page cache \
         when it starts. redis has an AOF of the same commands"
            .to_owned(),
    );
    drop((all, stage));
    flags.publish(&sheet, &name)
}

impl Crashed {
    /// Fills a directory and ends the server without a warning.
    fn make(stage: &Stage, contender: Contender, values: &Values) -> Result<Self, Failure> {
        say(format_args!("filling       {}", contender.name()));
        let data = stage.scratch()?;
        let server = stage.server(contender, Durability::Never, &data)?;
        prepare::set_all(server.address, values)?;
        thread::sleep(WRITTEN_WITHIN);
        server.kill()?;
        let bytes = bytes_below(data.path())
            .map_err(|error| Failure::failed(data.path().display(), error))?;
        Ok(Self { contender, data, bytes, loading: Vec::new(), starting: Vec::new() })
    }

    /// Starts a server with the directory, sees that everything is there, and kills it.
    fn recover(&mut self, stage: &Stage, records: u64) -> Result<(), Failure> {
        self.data.forget_cached()?;
        let started = Instant::now();
        let mut server = stage.server(self.contender, Durability::Never, &self.data)?;
        let loaded = Client::connect(server.address, PATIENCE).and_then(|mut client| {
            client.wait_until_loaded()?;
            let elapsed = started.elapsed().as_secs_f64();
            Ok((elapsed, client.ask_number(&["DBSIZE"])?))
        });
        // A dead server explains more than the connection that it dropped.
        server.check_alive()?;
        let (elapsed, keys) = loaded?;
        if keys != records {
            return Err(Failure::Failed(format!("{keys} keys came back, of {records}")));
        }
        let words = server.words();
        let loading = match self.contender {
            Contender::Redis => seconds_of_redis(&words),
            _ => seconds_of_annulus(&words),
        };
        let loading = loading.ok_or_else(|| {
            Failure::failed("the server does not say how long it took", words.trim())
        })?;
        self.loading.push(loading);
        self.starting.push(elapsed);
        server.kill()
    }

    /// Records a second of every round, in millions.
    fn millions(&self, records: u64) -> Option<Spread> {
        Spread::of(self.loading.iter().map(|seconds| records as f64 / seconds / 1e6))
    }

    fn target(&self, records: u64) -> Option<Judged> {
        let ours = matches!(self.contender, Contender::Annulus(_));
        let name = self.contender.name();
        let bound = Bound::AtLeast(MILLIONS_MIN);
        ours.then(|| {
            Judged::new("recovery, M records/s", 1, name, "a core", bound, self.millions(records))
        })
    }

    fn line(&self, records: u64) -> serde_json::Value {
        json!({
            "server": self.contender.name(),
            "records": records,
            "bytes": self.bytes,
            "millions_per_second": self.millions(records),
            "loading_seconds": self.loading,
            "start_seconds": self.starting,
        })
    }
}

fn table(all: &[Crashed], records: u64) -> Table {
    let header =
        vec!["server", "records", "MiB", "M records/s", "range", "loading s", "start s", "/redis"];
    let mut table = Table::new(header);
    let redis = all.iter().find(|crashed| crashed.contender == Contender::Redis);
    for crashed in all {
        let rate = crashed.millions(records);
        let (loading, starting) = [&crashed.loading, &crashed.starting]
            .map(|seconds| Spread::of(seconds.iter().copied()))
            .into();
        let ratio = redis.and_then(|redis| Spread::of_ratios(&crashed.loading, &redis.loading));
        let show = |spread: Option<Spread>, text: &dyn Fn(Spread) -> String| {
            spread.map_or_else(|| "–".into(), text)
        };
        let median = |spread: Spread| figure(spread.median);
        table.push(vec![
            crashed.contender.name(),
            records.to_string(),
            (crashed.bytes >> 20).to_string(),
            show(rate, &median),
            show(rate, &|rate| format!("{}–{}", figure(rate.min), figure(rate.max))),
            show(loading, &median),
            show(starting, &median),
            show(ratio, &|ratio| format!("{:.2}", ratio.median)),
        ]);
    }
    table
}

/// The bytes of every file below `directory`.
fn bytes_below(directory: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

/// From `recovered 5 keys from DIR in 0.123 s: 7 changes, 2 records`.
fn seconds_of_annulus(words: &str) -> Option<f64> {
    let line = words.lines().find(|line| line.contains(" recovered "))?;
    let (before, _) = line.rsplit_once(" s: ")?;
    before.rsplit_once(' ')?.1.parse().ok()
}

/// From `DB loaded from append only file: 0.123 seconds`, where the parts of it have lines too.
fn seconds_of_redis(words: &str) -> Option<f64> {
    let line = words.lines().find(|line| line.contains("DB loaded from append only file: "))?;
    line.trim_end().strip_suffix(" seconds")?.rsplit_once(' ')?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_servers_say_about_their_start_is_understood() {
        let ours = "2026-01-01T00:00:00Z  INFO annulus::store::recovery: recovered 5 keys from \
                    /data/in 1 s: x in 1.250 s: 7 changes, 2 records\n";
        assert_eq!(seconds_of_annulus(ours), Some(1.25));
        let redis = "1:M 01 Jan * DB loaded from incr file a.1.incr.aof: 0.511 seconds\n\
                     1:M 01 Jan * DB loaded from append only file: 0.512 seconds\n";
        assert_eq!(seconds_of_redis(redis), Some(0.512));
        assert_eq!((seconds_of_annulus(""), seconds_of_redis("Ready")), (None, None));
    }
}
