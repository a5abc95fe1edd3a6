//! What the contenders are made to do: services, workloads, and the cases of a run.
//!
//! Invariant: a case names everything that a figure depends on, so equal cases may be compared.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::site::{FILE_BYTES, FILE_NAME, KV_BYTES, KV_PATH};
use crate::failure::Failure;
use crate::load::command::payload;
use crate::load::exchange::{HttpRequest, Operation, Values, Work};
use crate::load::prepare;

/// Keys of the RESP workloads.
const KEYS: u64 = 100_000;
/// Bytes of their values.
const VALUE_BYTES: usize = 64;
/// Light requests per second of the mixed workload.
const LIGHT_RATE: f64 = 2_000.0;
/// The body of a heavy request: what is to be digested.
const HEAVY_BODY_BYTES: usize = 16;
/// Of several numbers of connections these get an open loop.
const OPEN_LOOP_CONNECTIONS: [usize; 2] = [50, 64];
/// What is durable within a second needs windows that hold a sync.
const INTERVAL_WINDOW_MIN: Duration = Duration::from_millis(1500);
/// The mixed workload needs windows long enough for several heavy requests.
const MIXED_WINDOW_MIN: Duration = Duration::from_millis(800);
/// Where heavy requests go.
const HEAVY_PATH: &str = "/compute/digest";

/// What a server serves; servers are started once per service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Echo,
    Resp,
    Http,
    /// HTTP with cores for its cpu pool.
    Mixed,
    /// A file, without a server.
    Disk,
    /// Redis commands with a log on a disk; servers are new in every round.
    Stored(Durability),
}

/// When a write is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Before its reply.
    Always,
    /// Within a second.
    Interval,
    /// When the kernel gets to it.
    Never,
}

impl Service {
    /// Whether servers keep what they serve on a disk.
    pub(crate) fn is_stored(self) -> bool {
        matches!(self, Service::Stored(_))
    }

    /// Whether one core of the server's is meant to be what sets the rate, and not a disk.
    pub(crate) fn wants_core(self) -> bool {
        !matches!(self, Service::Disk | Service::Stored(_))
    }
}

/// The workloads that can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Payloads sent back.
    Echo,
    /// Redis GET.
    Get,
    /// Redis SET.
    Set,
    /// HTTP GET of a 64-byte value.
    Kv,
    /// HTTP GET of a 1 KiB file.
    File,
    /// Light HTTP GETs beside argon2 requests.
    Mixed,
    /// 4 KiB read anywhere in a file, past the page cache.
    DiskRead,
    /// A file of 1 GiB written in order, past the page cache.
    DiskWrite,
    /// A file of 1 GiB read in order, past the page cache.
    DiskScan,
    /// SET without a disk: what the next two are to be seen beside, and part of any run of them.
    MemorySet,
    /// SET that is durable before its reply.
    DurableSet,
    /// SET that is durable within a second.
    IntervalSet,
}

impl Workload {
    /// Those that need a disk and no server.
    pub(crate) const DISK: [Workload; 3] =
        [Workload::DiskRead, Workload::DiskWrite, Workload::DiskScan];

    /// All of them, in the order of the report.
    pub(crate) const ALL: [Workload; 12] = [
        Workload::Echo,
        Workload::Get,
        Workload::Set,
        Workload::Kv,
        Workload::File,
        Workload::Mixed,
        Workload::DiskRead,
        Workload::DiskWrite,
        Workload::DiskScan,
        Workload::MemorySet,
        Workload::DurableSet,
        Workload::IntervalSet,
    ];

    /// What has to be served for it.
    pub(crate) fn service(self) -> Service {
        match self {
            Workload::Echo => Service::Echo,
            Workload::Get | Workload::Set => Service::Resp,
            Workload::Kv | Workload::File => Service::Http,
            Workload::Mixed => Service::Mixed,
            Workload::DiskRead | Workload::DiskWrite | Workload::DiskScan => Service::Disk,
            Workload::MemorySet => Service::Resp,
            Workload::DurableSet => Service::Stored(Durability::Always),
            Workload::IntervalSet => Service::Stored(Durability::Interval),
        }
    }

    /// Whether it is one of those that the reference in memory belongs to.
    pub(crate) fn is_stored(self) -> bool {
        self.service().is_stored()
    }

    /// Connections unless others are asked for: those of the targets. For a disk, operations under
    /// way at a time.
    pub(crate) fn default_connections(self) -> &'static [usize] {
        match self {
            Workload::Echo => &[1, 64, 1000],
            Workload::Get | Workload::Set => &[50],
            Workload::Kv | Workload::File => &[64],
            Workload::Mixed => &[16],
            Workload::DiskRead => &[32],
            Workload::DiskWrite | Workload::DiskScan => &[4],
            Workload::MemorySet => &[50],
            Workload::DurableSet | Workload::IntervalSet => &[50, 500],
        }
    }

    fn pipelines(self) -> &'static [usize] {
        match self {
            Workload::Get | Workload::Set => &[1, 16, 64],
            _ => &[1],
        }
    }

    /// The name in tables.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Workload::Echo => "echo",
            Workload::Get => "RESP GET",
            Workload::Set => "RESP SET",
            Workload::Kv => "HTTP GET /kv",
            Workload::File => "HTTP 1 KiB file",
            Workload::Mixed => "light GET",
            Workload::DiskRead => "disk read 4 KiB",
            Workload::DiskWrite => "disk write 1 MiB",
            Workload::DiskScan => "disk scan 1 MiB",
            Workload::MemorySet => "SET in memory",
            Workload::DurableSet => "SET durable always",
            Workload::IntervalSet => "SET durable in 1 s",
        }
    }

    /// Whether its latency is looked at below saturation too.
    fn has_open_loop(self) -> bool {
        matches!(self, Workload::Echo | Workload::Get | Workload::Kv) || self.is_stored()
    }

    /// Bytes of one request, where the workload sets them.
    fn fixed_bytes(self) -> Option<usize> {
        match self {
            Workload::DiskRead => Some(4 << 10),
            Workload::DiskWrite | Workload::DiskScan => Some(1 << 20),
            _ => None,
        }
    }
}

/// How requests are paced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// As fast as replies come.
    Closed,
    /// At half of what the slowest contender does in the closed loop.
    HalfOfSlowest,
    /// Light requests at a fixed rate, alone.
    LightAlone,
    /// Light requests at a fixed rate, beside heavy ones.
    LightBesideHeavy,
}

/// One line of the plan: every contender runs it in every round.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Case {
    pub(crate) workload: Workload,
    pub(crate) connections: usize,
    pub(crate) pipeline: usize,
    pub(crate) pace: Pace,
    pub(crate) payload_bytes: usize,
}

impl Case {
    /// The name in tables and logs, without the connections.
    pub(crate) fn name(&self) -> String {
        let mut name = match self.workload {
            Workload::Echo => format!("echo {} B", self.payload_bytes),
            workload => workload.text().to_owned(),
        };
        if matches!(self.workload, Workload::Get | Workload::Set) {
            let _ = write!(name, " pipeline {}", self.pipeline);
        }
        match self.pace {
            Pace::Closed => {}
            Pace::HalfOfSlowest => name.push_str(", open loop"),
            Pace::LightAlone => name.push_str(" alone"),
            Pace::LightBesideHeavy => name.push_str(" beside argon2"),
        }
        name
    }

    /// The rate of an open loop that does not depend on what was measured.
    pub(crate) fn fixed_rate(&self) -> Option<f64> {
        matches!(self.pace, Pace::LightAlone | Pace::LightBesideHeavy).then_some(LIGHT_RATE)
    }

    /// The shortest window that says something about it.
    pub(crate) fn window_min(&self) -> Duration {
        match self.workload {
            Workload::Mixed => MIXED_WINDOW_MIN,
            Workload::IntervalSet => INTERVAL_WINDOW_MIN,
            _ => Duration::ZERO,
        }
    }

    /// Whether the closed-loop rates of `other` set the pace of this open loop.
    pub(crate) fn is_paced_by(&self, other: &Case) -> bool {
        self.pace == Pace::HalfOfSlowest
            && other.pace == Pace::Closed
            && (self.workload, self.connections, self.pipeline)
                == (other.workload, other.connections, other.pipeline)
    }

    /// The requests.
    pub(crate) fn work(&self, address: SocketAddr) -> Work {
        let host = address.to_string();
        match self.workload {
            Workload::DiskRead | Workload::DiskWrite | Workload::DiskScan => {
                unreachable!("there is no server to ask")
            }
            Workload::Echo => Work::Echo { payload_bytes: self.payload_bytes },
            Workload::Get => Work::Resp { operation: Operation::Get, values: values() },
            Workload::Set | Workload::MemorySet | Workload::DurableSet | Workload::IntervalSet => {
                Work::Resp { operation: Operation::Set, values: values() }
            }
            Workload::File => {
                let path = format!("/files/{FILE_NAME}");
                let expected = payload(FILE_BYTES);
                Work::Http(Arc::new(HttpRequest::new("GET", &host, &path, b"", Some(expected))))
            }
            Workload::Kv | Workload::Mixed => {
                let expected = payload(KV_BYTES);
                Work::Http(Arc::new(HttpRequest::new("GET", &host, KV_PATH, b"", Some(expected))))
            }
        }
    }
}

/// The heavy requests of the mixed workload.
pub(crate) fn heavy_work(address: SocketAddr) -> Work {
    let body = payload(HEAVY_BODY_BYTES);
    let host = address.to_string();
    Work::Http(Arc::new(HttpRequest::new("POST", &host, HEAVY_PATH, &body, None)))
}

fn values() -> Arc<Values> {
    Arc::new(Values::new(KEYS, VALUE_BYTES))
}

/// Puts in what the workloads of `service` read. nginx answers `/kv` by itself (`fixed`).
pub(crate) fn prepare(service: Service, address: SocketAddr, fixed: bool) -> Result<(), Failure> {
    match service {
        Service::Resp | Service::Stored(_) => prepare::set_all(address, &values()),
        Service::Http | Service::Mixed if !fixed => {
            prepare::put(address, KV_PATH, &payload(KV_BYTES))
        }
        _ => Ok(()),
    }
}

/// The cases of `workloads`, grouped by service; `connections` replaces the default ones.
pub(crate) fn plan(
    workloads: &[Workload],
    connections: &[usize],
    payload_bytes: usize,
    open_loop: bool,
) -> Vec<(Service, Vec<Case>)> {
    let mut groups: Vec<(Service, Vec<Case>)> = Vec::new();
    let stored = workloads.iter().any(|workload| workload.is_stored());
    let chosen = |workload: &Workload| {
        workloads.contains(workload) || (stored && *workload == Workload::MemorySet)
    };
    for workload in Workload::ALL.into_iter().filter(chosen) {
        let service = workload.service();
        if groups.last().is_none_or(|(last, _)| *last != service) {
            groups.push((service, Vec::new()));
        }
        let Some((_, cases)) = groups.last_mut() else { continue };
        let is_fixed = matches!(service, Service::Mixed | Service::Disk);
        let fixed_connections = is_fixed || connections.is_empty();
        let payload_bytes = workload.fixed_bytes().unwrap_or(payload_bytes);
        let all = if fixed_connections { workload.default_connections() } else { connections };
        let case = |connections, pipeline, pace| Case {
            workload,
            connections,
            pipeline,
            pace,
            payload_bytes,
        };
        for connections in all.iter().copied() {
            if workload == Workload::Mixed {
                cases.push(case(connections, 1, Pace::LightAlone));
                cases.push(case(connections, 1, Pace::LightBesideHeavy));
                continue;
            }
            for pipeline in workload.pipelines() {
                cases.push(case(connections, *pipeline, Pace::Closed));
            }
            let usual = all.len() == 1 || OPEN_LOOP_CONNECTIONS.contains(&connections);
            if open_loop && usual && workload.has_open_loop() {
                cases.push(case(connections, 1, Pace::HalfOfSlowest));
            }
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_plan_holds_every_target() {
        let groups = plan(&Workload::ALL, &[], 64, true);
        let services: Vec<Service> = groups.iter().map(|(service, _)| *service).collect();
        let expected = [
            Service::Echo,
            Service::Resp,
            Service::Http,
            Service::Mixed,
            Service::Disk,
            Service::Resp,
            Service::Stored(Durability::Always),
            Service::Stored(Durability::Interval),
        ];
        assert_eq!(services, expected);
        let names: Vec<String> = groups
            .iter()
            .flat_map(|(_, cases)| cases)
            .map(|case| format!("{} @{}", case.name(), case.connections))
            .collect();
        assert_eq!(
            names,
            [
                "echo 64 B @1",
                "echo 64 B @64",
                "echo 64 B, open loop @64",
                "echo 64 B @1000",
                "RESP GET pipeline 1 @50",
                "RESP GET pipeline 16 @50",
                "RESP GET pipeline 64 @50",
                "RESP GET pipeline 1, open loop @50",
                "RESP SET pipeline 1 @50",
                "RESP SET pipeline 16 @50",
                "RESP SET pipeline 64 @50",
                "HTTP GET /kv @64",
                "HTTP GET /kv, open loop @64",
                "HTTP 1 KiB file @64",
                "light GET alone @16",
                "light GET beside argon2 @16",
                "disk read 4 KiB @32",
                "disk write 1 MiB @4",
                "disk scan 1 MiB @4",
                "SET in memory @50",
                "SET durable always @50",
                "SET durable always, open loop @50",
                "SET durable always @500",
                "SET durable in 1 s @50",
                "SET durable in 1 s, open loop @50",
                "SET durable in 1 s @500",
            ]
        );
    }

    #[test]
    fn durable_workloads_bring_their_reference_with_them() {
        let groups = plan(&[Workload::DurableSet], &[], 64, false);
        let workloads: Vec<Workload> =
            groups.iter().flat_map(|(_, cases)| cases).map(|case| case.workload).collect();
        let expected = [Workload::MemorySet, Workload::DurableSet, Workload::DurableSet];
        assert_eq!(workloads, expected);
    }

    #[test]
    fn asked_for_connections_replace_the_defaults() {
        let groups = plan(&[Workload::Kv], &[7], 64, false);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].1.len(), 1);
        assert_eq!(groups[0].1[0].connections, 7);
    }

    #[test]
    fn an_open_loop_is_paced_by_its_own_closed_loop() {
        let groups = plan(&[Workload::Echo], &[64], 64, true);
        let [closed, open] = groups[0].1[..] else { panic!("two cases") };
        assert!(open.is_paced_by(&closed));
        assert!(!closed.is_paced_by(&open));
        assert!(!open.is_paced_by(&Case { connections: 1, ..closed }));
    }
}
