//! How a runtime is built: settings, their check, and the threads that are started.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::pools::Pools;
use super::threads::{new_shard, start_shard};
use super::{Runtime, Shared};
use crate::blocking::Pool;
use crate::driver::{self, BufferSettings, Choice, RingSettings};
use crate::engine::{Engine, EngineReport};
use crate::error::{Error, Result};
use crate::limits;
use crate::metrics::Registry;
use crate::shard::placement::{self, Count, Placement, Plan};
use crate::shard::topology::Topology;
use crate::shard::{ShardId, context};

/// The environment's choice of an engine.
const ENGINE_VARIABLE: &str = "ANNULUS_ENGINE";

/// Who has asked for an engine.
enum Chooser {
    Program,
    Environment,
}

impl Chooser {
    /// Says so in the report of an engine that was asked for by name.
    fn tell(&self, report: &mut EngineReport) {
        if matches!(self, Chooser::Environment) && report.why == driver::ASKED_FOR {
            report.why = format!("asked for by {ENGINE_VARIABLE}");
        }
    }
}

/// How a runtime is to be built.
#[derive(Clone, Debug)]
pub struct Builder {
    /// `None`: what [`ENGINE_VARIABLE`] says.
    engine: Option<Engine>,
    shards: Count,
    cpu_cores: Count,
    placement: Placement,
    ring_entries: u32,
    buffers: BufferSettings,
    cpu_queue: usize,
    blocking: Option<Pool>,
    histograms: bool,
    teardown: Duration,
    paused_clock: bool,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            engine: None,
            shards: Count::Auto,
            cpu_cores: Count::Auto,
            placement: Placement::Pinned,
            ring_entries: limits::RING_ENTRIES_DEFAULT,
            buffers: BufferSettings {
                count: limits::BUFFERS_COUNT_DEFAULT,
                size: limits::BUFFER_BYTES_DEFAULT,
            },
            cpu_queue: limits::CPU_QUEUE_COUNT_MAX,
            blocking: None,
            histograms: true,
            teardown: Duration::from_millis(limits::TEARDOWN_MS_DEFAULT),
            paused_clock: false,
        }
    }
}

impl Builder {
    /// Which engine. Without this call the environment's `ANNULUS_ENGINE` decides (`auto`, `uring`,
    /// `epoll` or `threads`), and without that it is [`Engine::Auto`].
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// How many shards; by default one for each CPU that the cpu pool does not get.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Count::Exactly(shards);
        self
    }

    /// How many cores for the cpu pool; by default an eighth, at least one. With 0 its one thread
    /// shares the last shard's core.
    #[must_use]
    pub fn cpu_cores(mut self, cores: usize) -> Self {
        self.cpu_cores = Count::Exactly(cores);
        self
    }

    /// Shards and cores of the cpu pool as counts that may be [`Count::Auto`].
    #[must_use]
    pub fn counts(mut self, shards: Count, cpu_cores: Count) -> Self {
        self.shards = shards;
        self.cpu_cores = cpu_cores;
        self
    }

    /// Where the threads sit; pinned to one CPU each by default.
    #[must_use]
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// Submission queue entries of each ring, rounded up to a power of two.
    #[must_use]
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.ring_entries = entries;
        self
    }

    /// Receive buffers of each shard: how many, and how many bytes each.
    #[must_use]
    pub fn buffers(mut self, count: u16, size: u32) -> Self {
        self.buffers = BufferSettings { count, size };
        self
    }

    /// Jobs that may wait for the cpu pool.
    #[must_use]
    pub fn cpu_queue(mut self, jobs: usize) -> Self {
        self.cpu_queue = jobs;
        self
    }

    /// The pool that [`crate::blocking::run`] uses, instead of one of the runtime's own. It stays
    /// the caller's: the runtime does not shut it down, and several may share it.
    #[must_use]
    pub fn blocking_pool(mut self, pool: Pool) -> Self {
        self.blocking = Some(pool);
        self
    }

    /// Turns histograms off, so that a benchmark can say what they cost.
    #[must_use]
    pub fn histograms(mut self, on: bool) -> Self {
        self.histograms = on;
        self
    }

    /// How long the end of the runtime waits for the kernel to give back the last operation.
    #[must_use]
    pub fn teardown(mut self, deadline: Duration) -> Self {
        self.teardown = deadline;
        self
    }

    /// Has time stand still while tasks run, and jump to the next deadline once nothing is left to
    /// do: for tests, in which hours pass in a moment and things happen in one order only.
    ///
    /// [`clock::now`](crate::clock::now), sleeps, time limits, intervals and timers of the shard's
    /// thread all follow this clock, to the nanosecond. It moves when no task is ready, nothing has
    /// completed, no message has come, and no job of the cpu pool and no operation on a file is
    /// under way; then it stands at the next deadline at once.
    /// [`time::advance`](crate::time::advance) moves it by hand. A peer outside the process is not
    /// waited for: a time limit around a receive is over before it has answered.
    ///
    /// There is one shard, also where [`Builder::shards`] is left to the host. Under the `threads`
    /// engine connections are served on the shard's thread.
    #[must_use]
    pub fn paused_clock(mut self, on: bool) -> Self {
        self.paused_clock = on;
        self
    }

    /// What [`Builder::build`] would do on this host: the engine and why, and where threads sit.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn plan(&self) -> Result<(EngineReport, Plan)> {
        let plan = self.place()?;
        let (engine, chooser) = self.chosen_engine()?;
        let (mut report, _) = driver::choose(engine, self.ring_settings())?;
        chooser.tell(&mut report);
        Ok((report, plan))
    }

    /// The engine asked for, and by whom.
    fn chosen_engine(&self) -> Result<(Engine, Chooser)> {
        if let Some(engine) = self.engine {
            return Ok((engine, Chooser::Program));
        }
        let Some(value) = std::env::var_os(ENGINE_VARIABLE).filter(|value| !value.is_empty())
        else {
            return Ok((Engine::Auto, Chooser::Program));
        };
        let engine = value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
            let names = Engine::ALL.map(|(name, _)| name).join(", ");
            Error::config(format!("{ENGINE_VARIABLE}={}: use one of {names}", value.display()))
        })?;
        Ok((engine, Chooser::Environment))
    }

    /// Checks the settings and decides where threads sit.
    fn place(&self) -> Result<Plan> {
        self.check()?;
        let topology =
            Topology::of_host().map_err(|error| Error::unsupported(error.to_string()))?;
        let shards = if self.paused_clock { Count::Exactly(1) } else { self.shards };
        placement::plan(&topology, shards, self.cpu_cores, &self.placement)
            .map_err(|error| Error::config(error.to_string()))
    }

    fn ring_settings(&self) -> RingSettings {
        RingSettings { entries: self.ring_entries.next_power_of_two() }
    }

    fn check(&self) -> Result<()> {
        let BufferSettings { count, size } = self.buffers;
        if !(1..=limits::BUFFERS_COUNT_MAX).contains(&count) {
            let max = limits::BUFFERS_COUNT_MAX;
            return Err(Error::config(format!("{count} buffers: use a number from 1 to {max}")));
        }
        if !(1024..=limits::BUFFER_BYTES_MAX).contains(&size) {
            let max = limits::BUFFER_BYTES_MAX;
            return Err(Error::config(format!("a buffer of {size} bytes: use 1024 to {max}")));
        }
        if !(1..=limits::RING_ENTRIES_MAX).contains(&self.ring_entries) {
            let (entries, max) = (self.ring_entries, limits::RING_ENTRIES_MAX);
            return Err(Error::config(format!("{entries} ring entries: use 1 to {max}")));
        }
        let max = limits::SHARDS_COUNT_MAX;
        for (count, what) in [(self.shards, "shards"), (self.cpu_cores, "cores for the cpu pool")] {
            if let Count::Exactly(count) = count
                && count > max
            {
                return Err(Error::config(format!("{count} {what}: use at most {max}")));
            }
        }
        if let (true, Count::Exactly(shards @ 2..)) = (self.paused_clock, self.shards) {
            return Err(Error::config(format!(
                "a paused clock with {shards} shards: it is the clock of one thread, use 1 shard"
            )));
        }
        if self.cpu_queue == 0 {
            return Err(Error::config("a cpu queue of 0 jobs: use at least 1"));
        }
        Ok(())
    }

    /// Builds the runtime: starts the other shards and the cpu pool, and makes the calling thread
    /// shard 0.
    ///
    /// # Errors
    /// `is_config` if a setting makes no sense on this host, `is_unsupported` if the engine asked
    /// for cannot run here, `is_already_running` inside another runtime.
    pub fn build(self) -> Result<Runtime> {
        if context::is_running() {
            return Err(Error::already_running());
        }
        let plan = self.place()?;
        // The rings are opened for good at once: the memory of a probe that is dropped is given
        // back late, and would count against the same limit.
        let (engine, chooser) = self.chosen_engine()?;
        let (mut report, choice) = driver::assume(engine, self.ring_settings());
        chooser.tell(&mut report);
        self.start(&choice, &report, &plan).or_else(|error| {
            let (report, choice) = driver::fall_back(engine, error)?;
            self.start(&choice, &report, &plan)
        })
    }

    fn start(&self, choice: &Choice, report: &EngineReport, plan: &Plan) -> Result<Runtime> {
        let shards = plan.shards.len();
        let registry = if self.histograms {
            Registry::new(shards)
        } else {
            Registry::without_histograms(shards)
        };
        let blocking = self.blocking.clone();
        let pools = Pools::new(self.cpu_queue, &plan.cpu_pool, blocking, &registry);
        let shared =
            Shared::new(choice.clone(), self.buffers, shards, registry, pools, self.paused_clock);
        let shared = Arc::new(shared);
        shared.pools.cpu.start_seats()?;
        let mut runtime = Runtime {
            shared: Arc::clone(&shared),
            report: report.clone(),
            plan: plan.clone(),
            home: RefCell::default(),
            affinity: Cell::default(),
            threads: RefCell::default(),
            teardown: self.teardown,
            guards: Cell::default(),
        };
        let mut remotes = Vec::new();
        for (index, seat) in plan.shards.iter().enumerate().skip(1) {
            let (thread, remote) =
                start_shard(&shared, ShardId(index as u16), *seat, self.teardown)?;
            runtime.threads.get_mut().push(thread);
            remotes.push(remote);
        }
        runtime.affinity.set(plan.shards[0].and_then(placement::Pinned::current_thread));
        let home = new_shard(&shared, ShardId(0), true)?;
        remotes.insert(0, Arc::clone(home.remote()));
        if let Some(given) = home.driver.borrow().given() {
            runtime.report.details = given.describe();
        }
        runtime.home.replace(Some(home));
        drop(shared.remotes.set(remotes.into()));
        for thread in runtime.threads.get_mut() {
            thread.thread().unpark();
        }
        Ok(runtime)
    }
}
