//! `annulus check`: what would run on this host, and whether it can.
//!
//! The same look at the host precedes `serve`. Invariant: nothing is opened that a running daemon
//! would miss, and the only thing that is changed is the process's own descriptor limit.

use std::fmt::Write as _;

use super::Failure;
use super::host::{self, Complaint, DescriptorLimit, MemoryLock};
use super::settings::Settings;
use crate::engine::{Engine, EngineReport};
use crate::runtime::{Builder, Runtime};
use crate::shard::placement::Plan;
use crate::shard::topology::Topology;
use crate::store::directory::DataDirectory;

/// The host, and what is planned on it.
#[derive(Debug)]
pub struct Preflight {
    /// The engine that would run, and why.
    pub engine: EngineReport,
    /// The CPUs.
    pub topology: Topology,
    /// Who sits where.
    pub plan: Plan,
    /// File descriptors.
    pub descriptors: DescriptorLimit,
    /// Memory to be locked by rings; `None` for engines without rings.
    pub memory_lock: Option<MemoryLock>,
}

/// The runtime that the settings ask for.
pub fn builder(settings: &Settings) -> Builder {
    Runtime::builder()
        .engine(settings.engine)
        .counts(settings.shards, settings.cpu_cores)
        .placement(settings.placement.clone())
        .ring_entries(settings.ring_entries)
        .buffers(settings.receive_buffers, settings.receive_buffer_bytes)
        .cpu_queue(settings.cpu_queue)
        .histograms(settings.histograms)
        .teardown(settings.teardown_timeout)
}

/// Looks at the host, raises the descriptor limit, and plans.
pub fn preflight(settings: &Settings) -> Result<Preflight, Failure> {
    let topology = Topology::of_host().map_err(Failure::running)?;
    let (engine, plan) = builder(settings).plan()?;
    let rings = plan.shards.len();
    let memory_lock = (engine.engine == Engine::Uring)
        .then(|| host::memory_lock(rings, settings.ring_entries, settings.receive_buffers));
    let descriptors = host::raise_descriptor_limit();
    let preflight = Preflight { engine, topology, plan, descriptors, memory_lock };
    check_root(settings)?;
    if let Some(data) = &settings.store.data {
        DataDirectory::look(data)?;
    }
    match preflight.complaints().into_iter().find(|complaint| complaint.fatal) {
        Some(fatal) => Err(Failure::running(fatal.text)),
        None => Ok(preflight),
    }
}

fn check_root(settings: &Settings) -> Result<(), Failure> {
    let Some(root) = &settings.http.root else { return Ok(()) };
    let shown = root.display();
    match std::fs::read_dir(root) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::running(format!(
            "cannot serve files from {shown}: {error}; name a folder that this user may read with \
             --root or http.root"
        ))),
    }
}

impl Preflight {
    /// What the host grants too little of.
    pub fn complaints(&self) -> Vec<Complaint> {
        let descriptors = self.descriptors.complaint(self.plan.shards.len());
        let memory_lock = self.memory_lock.and_then(|lock| lock.complaint());
        descriptors.into_iter().chain(memory_lock).collect()
    }

    /// Everything that the user should know but that stops nothing.
    pub fn warnings(&self) -> Vec<String> {
        let plan = self.plan.warnings.iter().map(ToString::to_string);
        plan.chain(self.complaints().into_iter().map(|complaint| complaint.text)).collect()
    }

    /// The plan for people.
    pub fn describe(&self, settings: &Settings) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "{name:<18}{value}");
        };
        line("engine", &self.engine.to_string());
        for detail in &self.engine.details {
            line("", detail);
        }
        let (usable, online) = (self.topology.usable(), &self.topology.online);
        let (cores, nodes) = (self.topology.cores(), self.topology.nodes());
        let cpus = format!("{usable} usable of {online} online; {cores} core(s), {nodes} node(s)");
        line("cpus", &cpus);
        line("plan", &self.plan.to_string());
        match &self.memory_lock {
            Some(lock) => line("memory lock", &lock.to_string()),
            None => line("memory lock", "none needed: this engine has no rings"),
        }
        let connections = self.descriptors.connections(self.plan.shards.len());
        let descriptors = format!("{}; room for {connections} connections", self.descriptors);
        line("descriptors", &descriptors);
        let address = |address: Option<std::net::SocketAddr>| {
            address.map_or("off".to_owned(), |address| address.to_string())
        };
        line("store", &settings.store.to_string());
        line("resp", &address(settings.resp.listen));
        line("http", &address(settings.http.listen));
        for warning in self.warnings() {
            line("warning", &warning);
        }
        out
    }
}
