//! The pools of a runtime: one for computations, one for calls that block.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::blocking::{Kind, Measured, Pool};
use crate::clock::Instant;
use crate::cpu;
use crate::limits;
use crate::metrics::{Counter, Measure, Registry};
use crate::shard::topology::CpuId;

/// Both pools. The runtime ends those that are its own.
pub(crate) struct Pools {
    pub(crate) cpu: Pool,
    pub(crate) blocking: Pool,
    owns_blocking: bool,
    has_ended: AtomicBool,
}

impl Pools {
    /// The cpu pool with its seats, and `blocking` or a default pool. No thread is started.
    pub(super) fn new(
        cpu_queue: usize,
        seats: &[Option<CpuId>],
        blocking: Option<Pool>,
        registry: &Registry,
    ) -> Self {
        let cpu = cpu::new_pool(cpu_queue, seats, registry);
        let owns_blocking = blocking.is_none();
        let blocking = blocking.unwrap_or_else(|| new_blocking(registry));
        Self { cpu, blocking, owns_blocking, has_ended: AtomicBool::new(false) }
    }

    /// Ends the runtime's own pools; says what did not end by `deadline`.
    pub(super) fn end(&self, deadline: Instant) {
        if self.has_ended.swap(true, Ordering::SeqCst) {
            return;
        }
        let cpu = self.cpu.end(deadline);
        let blocking = if self.owns_blocking { self.blocking.end(deadline) } else { 0 };
        for (busy, pool) in [(cpu, "cpu"), (blocking, "blocking")] {
            if busy > 0 {
                tracing::error!(busy, pool, "jobs of a pool did not end in time; left behind");
            }
        }
    }
}

fn new_blocking(registry: &Registry) -> Pool {
    let measured = Measured {
        registry: registry.clone(),
        wait: Measure::BlockingWait,
        run: Measure::BlockingRun,
        panics: Counter::BlockingPanics,
    };
    let settings = Pool::builder()
        .name("annulus-block")
        .threads(limits::BLOCKING_THREADS_COUNT_MAX)
        .idle(Duration::from_millis(limits::POOL_IDLE_MS_DEFAULT));
    Pool::new(settings, "the pool for blocking calls", Kind::Floating, Some(measured))
}
