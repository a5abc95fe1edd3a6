//! What cores are good for: the same computations on one thread and on two, in the shard, in a pool
//! of threads and in worker processes, and how late the shard's ticks are meanwhile.
//!
//! `cargo run --release --example cpu_cores`. Three cores are wanted, one for the shard and two for
//! the pools; with fewer they share.

use std::cell::RefCell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::{Duration, Instant};

use annulus::process::pool::{Pool as ProcessPool, Worker};
use annulus::shard::placement::Placement;
use annulus::{Error, Result, Runtime, blocking, clock, task, time};

const JOBS: u64 = 16;
const ROUNDS: u64 = 20_000_000;
const TICK: Duration = Duration::from_millis(1);

/// Keeps a core busy.
fn compute(seed: u64) -> u64 {
    (0..ROUNDS).fold(seed, |sum, round| black_box(sum ^ round).rotate_left(7))
}

/// The same for another process.
fn compute_bytes(seed: &[u8]) -> Vec<u8> {
    compute(seed.len() as u64).to_le_bytes().into()
}

/// Where jobs run.
#[derive(Clone)]
enum Place {
    Shard,
    Threads(blocking::Pool),
    Processes(ProcessPool),
}

impl Place {
    async fn run(&self, seed: u64) -> Result<()> {
        match self {
            Self::Shard => {
                black_box(compute(seed));
            }
            Self::Threads(pool) => {
                pool.run(move || compute(seed)).await?;
            }
            Self::Processes(pool) => {
                pool.call("compute", vec![0; seed as usize]).await?;
            }
        }
        Ok(())
    }
}

async fn run_all(place: &Place, jobs: u64) -> Result<()> {
    let start = |seed| {
        let place = place.clone();
        task::spawn(async move { place.run(seed).await })
    };
    for job in (1..=jobs).map(start).collect::<Vec<_>>() {
        job.await.map_err(Error::panicked)??;
    }
    Ok(())
}

/// The time that all jobs take, and the 99th percentile of how late ticks were.
async fn measure(place: Place) -> Result<(Duration, Duration)> {
    // Threads and processes start now.
    run_all(&place, 2).await?;
    let late = Rc::new(RefCell::new(Vec::new()));
    let ticks = Rc::clone(&late);
    let ticker = task::spawn(async move {
        loop {
            let due = clock::now() + TICK;
            time::sleep_until(due).await;
            ticks.borrow_mut().push(clock::now().since(due));
        }
    });
    let started = Instant::now();
    run_all(&place, JOBS).await?;
    let took = started.elapsed();
    time::sleep(TICK).await;
    ticker.abort();
    let mut late = late.take();
    late.sort_unstable();
    Ok((took, late.get(late.len() * 99 / 100).copied().unwrap_or_default()))
}

fn main() -> Result<()> {
    Worker::serve_if_asked(&[("compute", compute_bytes)]);
    let runtime = Runtime::builder().shards(1).placement(Placement::Floating).build()?;
    let threads = |count| blocking::Pool::builder().threads(count).build().map(Place::Threads);
    let processes = |count| ProcessPool::builder().workers(count).build().map(Place::Processes);
    let places = [
        ("in the shard itself", Place::Shard),
        ("1 thread", threads(1)?),
        ("2 threads", threads(2)?),
        ("1 process", processes(1)?),
        ("2 processes", processes(2)?),
    ];
    println!("{JOBS} computations      took    ticks late (p99)");
    for (name, place) in places {
        let (took, late) = runtime.block_on(measure(place))?;
        println!("{name:<20} {:>7} ms {:>9} us", took.as_millis(), late.as_micros());
    }
    Ok(())
}
