//! The project's targets, and whether a run met them.
//!
//! Each is a ratio of annulus to a contender in the same case of the same run: of costs, where
//! lower is better, or of rates, where higher is.
//! Invariant: a target that was not measured is neither met nor missed.

use std::fmt;

use serde::Serialize;

use crate::compare::contender::{Contender, Engine};
use crate::compare::rounds::{Row, Sample};
use crate::compare::statistics::Spread;
use crate::compare::workload::{Pace, Workload};
use crate::{floor, peers};

const URING: Contender = Contender::Annulus(Engine::Uring);
const EPOLL: Contender = Contender::Annulus(Engine::Epoll);
const THREADS: Contender = Contender::Annulus(Engine::Threads);
const FLOOR_RING: Contender = Contender::Floor(floor::Engine::Ring);
const FLOOR_EPOLL: Contender = Contender::Floor(floor::Engine::Epoll);
const FLOOR_THREADS: Contender = Contender::Floor(floor::Engine::Threads);
const FIO: Contender = Contender::Fio;
const TOKIO: Contender = Contender::Peer(peers::Name::Tokio);

/// Server CPU per echo: ours, theirs, the highest ratio allowed. At 64 and at 1000 connections.
const ECHO: [(Contender, Contender, f64); 9] = [
    (URING, FLOOR_RING, 1.08),
    (URING, TOKIO, 1.00),
    (URING, Contender::Peer(peers::Name::Monoio), 1.00),
    (URING, Contender::Peer(peers::Name::Compio), 1.00),
    (URING, Contender::Peer(peers::Name::Glommio), 0.90),
    (URING, THREADS, 0.60),
    (EPOLL, TOKIO, 1.03),
    (EPOLL, FLOOR_EPOLL, 1.08),
    (THREADS, FLOOR_THREADS, 1.08),
];
/// Server CPU per GET and per SET: pipeline, the ratio to redis, the ratio to the floor.
const RESP: [(usize, f64, f64); 3] = [(1, 0.90, 1.10), (16, 0.48, 1.10), (64, 0.38, 1.10)];
/// Server CPU per HTTP request relative to nginx.
const HTTP: [(Workload, f64); 2] = [(Workload::Kv, 0.80), (Workload::File, 0.75)];
/// CPU per 4 KiB read anywhere, at depth 32.
const DISK_CPU: [(Contender, f64); 2] = [(FIO, 1.15), (TOKIO, 0.35)];
/// Rates of the disk workloads relative to fio.
const DISK_RATE: f64 = 0.95;
/// Durable SETs relative to redis: rates, CPU, p99 with a sync before each reply; CPU and p99.9
/// with a sync each second.
const ALWAYS_RATE: f64 = 1.10;
const ALWAYS_CPU: f64 = 0.95;
const ALWAYS_P99: f64 = 0.90;
const INTERVAL_CPU: f64 = 0.90;
const INTERVAL_P99_9: f64 = 1.00;
/// p99 of light requests beside argon2, relative to the same alone.
const LIGHT_P99: f64 = 1.5;

/// How far a ratio may go.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    /// For costs.
    AtMost(f64),
    /// For rates.
    AtLeast(f64),
}

impl Bound {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Bound::AtMost(bound) => ratio <= bound,
            Bound::AtLeast(bound) => ratio >= bound,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::AtMost(bound) => write!(formatter, "≤ {bound:.2}"),
            Bound::AtLeast(bound) => write!(formatter, "≥ {bound:.2}"),
        }
    }
}

/// One target and what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Judged {
    pub(super) workload: String,
    pub(super) connections: usize,
    pub(super) ours: String,
    pub(super) theirs: String,
    pub(super) bound: Bound,
    pub(super) measured: Option<Spread>,
}

impl Judged {
    /// A target of `ours` against `theirs`.
    pub(crate) fn new(
        workload: impl Into<String>,
        connections: usize,
        ours: impl Into<String>,
        theirs: impl Into<String>,
        bound: Bound,
        measured: Option<Spread>,
    ) -> Self {
        let (workload, ours, theirs) = (workload.into(), ours.into(), theirs.into());
        Self { workload, connections, ours, theirs, bound, measured }
    }

    /// Whether the target was met; `None` if it was not measured.
    pub(super) fn is_met(&self) -> Option<bool> {
        self.measured.map(|ratio| self.bound.holds(ratio.median))
    }
}

/// A part of the replies that came sooner.
#[derive(Clone, Copy)]
struct Percentile {
    name: &'static str,
    quantile: f64,
}

const P99: Percentile = Percentile { name: "p99", quantile: 0.99 };
const P99_9: Percentile = Percentile { name: "p99.9", quantile: 0.999 };

impl Percentile {
    /// That of every round, in nanoseconds.
    fn of(self, row: &Row) -> Vec<f64> {
        let of_sample =
            |sample: &Sample| sample.outcome.tally.latency.value_at_quantile(self.quantile) as f64;
        row.samples.iter().map(of_sample).collect()
    }
}

/// Which case a target is about.
#[derive(Clone, Copy)]
struct Scene {
    workload: Workload,
    connections: usize,
    pipeline: usize,
}

impl Scene {
    fn row(self, rows: &[Row], contender: Contender, pace: Pace) -> Option<&Row> {
        rows.iter().find(|row| {
            row.contender == contender
                && row.case.pace == pace
                && row.case.workload == self.workload
                && row.case.connections == self.connections
                && row.case.pipeline == self.pipeline
        })
    }

    /// Server CPU per request of `ours` relative to `theirs`.
    fn cpu(self, rows: &[Row], ours: Contender, theirs: Contender, max: f64) -> Judged {
        let us = |contender| self.row(rows, contender, Pace::Closed).map(Row::server_us);
        let measured =
            us(ours).zip(us(theirs)).and_then(|(ours, theirs)| Spread::of_ratios(&ours, &theirs));
        let pipeline = match self.workload {
            Workload::Get | Workload::Set => format!(" pipeline {}", self.pipeline),
            _ => String::new(),
        };
        Judged {
            workload: format!("{}{pipeline}, CPU", self.workload.text()),
            connections: self.connections,
            ours: ours.name(),
            theirs: theirs.name(),
            bound: Bound::AtMost(max),
            measured,
        }
    }

    /// Operations per second of `ours` relative to `theirs`.
    fn rate(self, rows: &[Row], ours: Contender, theirs: Contender, min: f64) -> Judged {
        let rates = |contender| self.row(rows, contender, Pace::Closed).map(Row::rates);
        let measured = rates(ours)
            .zip(rates(theirs))
            .and_then(|(ours, theirs)| Spread::of_ratios(&ours, &theirs));
        Judged {
            workload: format!("{}, rate", self.workload.text()),
            connections: self.connections,
            ours: ours.name(),
            theirs: theirs.name(),
            bound: Bound::AtLeast(min),
            measured,
        }
    }

    /// A percentile of `ours` relative to redis, at the same pace.
    fn latency(self, rows: &[Row], pace: Pace, percentile: Percentile, max: f64) -> Judged {
        let of = |contender| Some(percentile.of(self.row(rows, contender, pace)?));
        let measured = of(URING)
            .zip(of(Contender::Redis))
            .and_then(|(ours, theirs)| Spread::of_ratios(&ours, &theirs));
        let loop_name = if pace == Pace::Closed { "" } else { " open loop" };
        Judged {
            workload: format!("{},{loop_name} {}", self.workload.text(), percentile.name),
            connections: self.connections,
            ours: URING.name(),
            theirs: Contender::Redis.name(),
            bound: Bound::AtMost(max),
            measured,
        }
    }

    /// p99 of light requests of `ours` beside heavy ones, relative to the same alone.
    fn p99(self, rows: &[Row], ours: Contender) -> Judged {
        let p99 = |pace| Some(P99.of(self.row(rows, ours, pace)?));
        let measured = p99(Pace::LightBesideHeavy)
            .zip(p99(Pace::LightAlone))
            .and_then(|(beside, alone)| Spread::of_ratios(&beside, &alone));
        Judged {
            workload: "light GET, p99".into(),
            connections: self.connections,
            ours: format!("{} beside argon2", ours.name()),
            theirs: "alone".into(),
            bound: Bound::AtMost(LIGHT_P99),
            measured,
        }
    }
}

/// Every target, with its measured ratio if `rows` has it.
pub(super) fn judge(rows: &[Row]) -> Vec<Judged> {
    let mut judged = Vec::new();
    for connections in [64, 1000] {
        let scene = Scene { workload: Workload::Echo, connections, pipeline: 1 };
        judged.extend(ECHO.map(|(ours, theirs, max)| scene.cpu(rows, ours, theirs, max)));
    }
    for workload in [Workload::Get, Workload::Set] {
        for (pipeline, redis, floor) in RESP {
            let scene = Scene { workload, connections: 50, pipeline };
            judged.push(scene.cpu(rows, URING, Contender::Redis, redis));
            judged.push(scene.cpu(rows, URING, FLOOR_RING, floor));
        }
    }
    for (workload, max) in HTTP {
        let scene = Scene { workload, connections: 64, pipeline: 1 };
        judged.push(scene.cpu(rows, URING, Contender::Nginx, max));
    }
    let scene = Scene { workload: Workload::Mixed, connections: 16, pipeline: 1 };
    judged.push(scene.p99(rows, URING));
    judged.extend(judge_disk(rows));
    judged.extend(judge_stored(rows));
    judged
}

fn judge_disk(rows: &[Row]) -> Vec<Judged> {
    let scene = |workload: Workload| {
        let connections = workload.default_connections()[0];
        Scene { workload, connections, pipeline: 1 }
    };
    let reads = scene(Workload::DiskRead);
    let costs = DISK_CPU.map(|(theirs, max)| reads.cpu(rows, URING, theirs, max));
    let rates = Workload::DISK.map(|workload| scene(workload).rate(rows, URING, FIO, DISK_RATE));
    costs.into_iter().chain(rates).collect()
}

fn judge_stored(rows: &[Row]) -> Vec<Judged> {
    let mut judged = Vec::new();
    for connections in [50, 500] {
        let always = Scene { workload: Workload::DurableSet, connections, pipeline: 1 };
        judged.push(always.rate(rows, URING, Contender::Redis, ALWAYS_RATE));
        judged.push(always.cpu(rows, URING, Contender::Redis, ALWAYS_CPU));
        judged.push(always.latency(rows, Pace::Closed, P99, ALWAYS_P99));
        let interval = Scene { workload: Workload::IntervalSet, ..always };
        judged.push(interval.cpu(rows, URING, Contender::Redis, INTERVAL_CPU));
        judged.push(interval.latency(rows, Pace::Closed, P99_9, INTERVAL_P99_9));
        // Only the first has an open loop.
        if connections == 50 {
            judged.push(always.latency(rows, Pace::HalfOfSlowest, P99, ALWAYS_P99));
            judged.push(interval.latency(rows, Pace::HalfOfSlowest, P99_9, INTERVAL_P99_9));
        }
    }
    judged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(measured: Option<f64>) -> Judged {
        Judged {
            workload: String::new(),
            connections: 1,
            ours: String::new(),
            theirs: String::new(),
            bound: Bound::AtMost(1.08),
            measured: measured.and_then(|ratio| Spread::of([ratio])),
        }
    }

    #[test]
    fn a_ratio_up_to_the_target_meets_it() {
        assert_eq!(judged(Some(1.08)).is_met(), Some(true));
        assert_eq!(judged(Some(1.081)).is_met(), Some(false));
    }

    #[test]
    fn a_rate_from_the_target_on_meets_it() {
        let rate = |ratio| Judged { bound: Bound::AtLeast(0.95), ..judged(Some(ratio)) };
        assert_eq!(rate(0.95).is_met(), Some(true));
        assert_eq!(rate(0.949).is_met(), Some(false));
        assert_eq!(rate(1.0).bound.to_string(), "≥ 0.95");
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        assert_eq!(judged(None).is_met(), None);
        assert!(judge(&[]).iter().all(|target| target.is_met().is_none()));
    }
}
