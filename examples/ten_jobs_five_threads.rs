//! Ten jobs for a pool of five threads: two waves, and handles that say what each job is about.
//!
//! Answers `ThreadPoolExecutor(max_workers=5)` with ten `submit`s, whose futures print as running
//! five times and as pending five times. No runtime is needed: a plain thread waits for handles.
//!
//! `cargo run --example ten_jobs_five_threads`

mod trace;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread;

use annulus::blocking::{Handle, Pool};
use trace::{Trace, UNIT};

#[derive(Default)]
struct Busy {
    now: AtomicUsize,
    most: AtomicUsize,
}

fn job(value: u32, start: &RwLock<()>, busy: &Busy) -> u32 {
    let now = busy.now.fetch_add(1, Ordering::SeqCst) + 1;
    busy.most.fetch_max(now, Ordering::SeqCst);
    drop(start.read());
    thread::sleep(UNIT);
    busy.now.fetch_sub(1, Ordering::SeqCst);
    value
}

/// Runs the program and gives what it printed.
pub(crate) fn run() -> annulus::Result<Vec<String>> {
    let trace = Trace::default();
    let pool = Pool::builder().threads(5).name("jobs").build()?;
    let busy = Arc::new(Busy::default());
    // Held back until the states are printed, so that none is done by then.
    let start = Arc::new(RwLock::new(()));
    let closed = start.write();
    let handles: Vec<Handle<u32>> = (0..10)
        .map(|value| {
            let (start, busy) = (Arc::clone(&start), Arc::clone(&busy));
            pool.submit(move || job(value, &start, &busy))
        })
        .collect();
    for (number, handle) in handles.iter().enumerate() {
        trace.say(format_args!("job {number}: {:?}", handle.state()));
    }
    while busy.now.load(Ordering::SeqCst) < 5 {
        thread::yield_now();
    }
    drop(closed);
    for handle in handles {
        trace.say(handle.wait().map_or("none".to_owned(), |value| format!("result {value}")));
    }
    trace.say(format_args!("{} at once", busy.most.load(Ordering::SeqCst)));
    Ok(trace.lines())
}

fn main() -> annulus::Result<()> {
    run().map(drop)
}
