//! annulus beside tokio, glommio and monoio: what tasks, timers, channels and joins cost.
//!
//! `cargo bench -p annulus-bench --features peers --bench peers`, optionally with a part of a
//! line's name. One criterion group for each line, so that contenders are measured one after the
//! other on the same core; the unit is CPU time of the thread. A table with the losses first ends
//! the run.

mod annulus;
mod glommio;
mod monoio;
mod table;
mod tokio;
mod workloads;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::table::Samples;
use crate::workloads::{Contender, Line};

const SAMPLES: usize = 10;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASUREMENT: Duration = Duration::from_millis(1500);

/// Keeps this process on the last core that it may use: the first one has the interrupts.
fn pin() {
    let allowed = sched_getaffinity(None).expect("a process may read its own affinity");
    let last = (0..CpuSet::MAX_CPU).rfind(|core| allowed.is_set(*core));
    let mut only = CpuSet::new();
    only.set(last.expect("a process has a core"));
    sched_setaffinity(None, &only).expect("a process may restrict itself");
}

fn compare<C: Contender>(group: &mut BenchmarkGroup<'_, WallTime>, line: Line) -> Samples {
    let mut contender = C::new();
    let mut taken = Vec::new();
    let name = format!("{} {}", C::RUNTIME, C::VARIANT);
    group.bench_function(name.trim_end(), |bencher| {
        bencher.iter_custom(|count| {
            let time = contender.measure(line, count);
            taken.push((count, time));
            time
        });
    });
    Samples { line: line.name(), runtime: C::RUNTIME, variant: C::VARIANT, taken }
}

fn main() {
    pin();
    let mut criterion = Criterion::default()
        .sample_size(SAMPLES)
        .warm_up_time(WARM_UP)
        .measurement_time(MEASUREMENT)
        .nresamples(1000)
        .configure_from_args();
    let mut samples = Vec::new();
    for line in Line::ALL {
        let mut group = criterion.benchmark_group(line.name());
        samples.push(compare::<annulus::World>(&mut group, line));
        samples.push(compare::<tokio::plain::World>(&mut group, line));
        samples.push(compare::<tokio::local_set::World>(&mut group, line));
        samples.push(compare::<tokio::local_runtime::World>(&mut group, line));
        samples.push(compare::<glommio::World>(&mut group, line));
        samples.push(compare::<monoio::World>(&mut group, line));
        group.finish();
    }
    criterion.final_summary();
    table::print(&samples, &["annulus", "tokio", "glommio", "monoio"], SAMPLES);
}
