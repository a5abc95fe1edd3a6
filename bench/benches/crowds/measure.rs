//! What one process measures: one scenario on one runtime, in an address space of its own.
//!
//! Called in a child process, so that memory that an earlier crowd gave back is not taken for
//! frugality. Invariant: what is counted lies between two readings on the runtime's own thread.

use std::cell::Cell;
use std::fs;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Notify;

use crate::allocator::{allocations, live_bytes};
use crate::pin;
use crate::worlds::World;

/// Tasks of a crowd.
const CROWD: u64 = 100_000;
/// Tasks that wait for one event.
const WAITERS: u64 = 10_000;
/// No timer of a sleeping crowd fires while it is measured.
const FAR: Duration = Duration::from_secs(3600);
/// The timers of a crowd that wakes up are spread over this time.
const SPREAD: Duration = Duration::from_millis(200);
/// Wake-ups from another thread.
const WAKES: usize = 3_000;
/// Between two wake-ups: long enough for the runtime to be asleep.
const PAUSE: Duration = Duration::from_micros(150);

/// Named figures, in the order of the table.
pub(crate) type Figures = Vec<(&'static str, f64)>;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Idle,
    Sleeping,
    Waiting,
    Joined,
    Fired,
    Woken,
}

impl Scenario {
    pub(crate) const ALL: [Scenario; 6] = [
        Scenario::Idle,
        Scenario::Sleeping,
        Scenario::Waiting,
        Scenario::Joined,
        Scenario::Fired,
        Scenario::Woken,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Scenario::Idle => "100 000 idle tasks",
            Scenario::Sleeping => "100 000 sleeping tasks",
            Scenario::Waiting => "10 000 tasks on one event",
            Scenario::Joined => "100 000 tasks spawned and joined",
            Scenario::Fired => "100 000 timers within 200 ms",
            Scenario::Woken => "wake-up from another thread, asleep",
        }
    }

    /// Measures on `world`; the figures are for one task, timer or wake-up.
    pub(crate) fn measure<W: World>(self, world: W) -> Figures {
        match self {
            Scenario::Idle => crowd(world, |_| pending()),
            Scenario::Sleeping => {
                crowd(world, |number| W::sleep(FAR + Duration::from_millis(number)))
            }
            Scenario::Waiting => waiting(world),
            Scenario::Joined => joined(world),
            Scenario::Fired => fired(world),
            Scenario::Woken => woken(world),
        }
    }
}

/// CPU nanoseconds of this thread.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Bytes of memory that this process occupies.
fn resident_bytes() -> f64 {
    let text = fs::read_to_string("/proc/self/statm").expect("/proc is mounted");
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("statm has numbers") * rustix::param::page_size() as f64
}

struct Reading {
    cpu_ns: f64,
    live: f64,
    resident: f64,
    calls: f64,
}

fn read() -> Reading {
    Reading {
        live: live_bytes() as f64,
        calls: allocations() as f64,
        resident: resident_bytes(),
        cpu_ns: cpu_ns(),
    }
}

thread_local! {
    /// Polls of futures in a [`Seen`].
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

/// A task that says that it has been polled: a turn has an end, and not all may fit in one. The
/// future is made inside, so that it is not held twice.
async fn seen<F: Future<Output = ()>>(make: impl FnOnce() -> F) {
    POLLS.set(POLLS.get() + 1);
    make().await;
}

/// Gives way until `count` more futures than `before` have been polled.
async fn until_seen<W: World>(before: u64, count: u64) {
    while POLLS.get() < before + count {
        W::yield_now().await;
    }
}

/// Tasks that stay: their memory, and what making and dropping them costs.
fn crowd<W, F>(mut world: W, future: impl Fn(u64) -> F + Copy + 'static) -> Figures
where
    W: World,
    F: Future<Output = ()> + 'static,
{
    // The first task pays for what all share.
    world.run(async {
        W::spawn(future(0));
        W::yield_now().await;
    });
    let before = read();
    world.run(async {
        let polls = POLLS.get();
        (0..CROWD).for_each(|number| W::spawn(seen(move || future(number))));
        until_seen::<W>(polls, CROWD).await;
    });
    let after = read();
    drop(world);
    let dropped = cpu_ns();
    let each = CROWD as f64;
    vec![
        ("bytes", (after.live - before.live) / each),
        ("resident bytes", (after.resident - before.resident) / each),
        ("allocations", (after.calls - before.calls) / each),
        ("ns to make", (after.cpu_ns - before.cpu_ns) / each),
        ("ns to drop", (dropped - after.cpu_ns) / each),
    ]
}

/// One event releases all who wait.
fn waiting<W: World>(mut world: W) -> Figures {
    world.run(async {
        let event = Rc::new(W::event());
        let polls = POLLS.get();
        let before = read();
        let mut tasks = Vec::with_capacity(WAITERS as usize);
        for _ in 0..WAITERS {
            let event = Rc::clone(&event);
            tasks.push(W::spawn_joined(seen(move || W::wait(event))));
        }
        until_seen::<W>(polls, WAITERS).await;
        let after = read();
        W::set(&event);
        for task in tasks {
            task.await;
        }
        let released = cpu_ns();
        let each = WAITERS as f64;
        vec![
            ("bytes", (after.live - before.live) / each),
            ("ns to make", (after.cpu_ns - before.cpu_ns) / each),
            ("ns to release", (released - after.cpu_ns) / each),
        ]
    })
}

/// All at once, each yielding once, and joined in order.
fn joined<W: World>(mut world: W) -> Figures {
    let round = async || {
        let mut tasks = Vec::with_capacity(CROWD as usize);
        for _ in 0..CROWD {
            tasks.push(W::spawn_joined(W::yield_now()));
        }
        for task in tasks {
            task.await;
        }
    };
    let before = cpu_ns();
    world.run(round());
    let cold = cpu_ns();
    world.run(round());
    let warm = cpu_ns();
    let each = CROWD as f64;
    vec![("ns, first round", (cold - before) / each), ("ns, second", (warm - cold) / each)]
}

/// Timers that fire, spread evenly; waiting for them costs no CPU time.
fn fired<W: World>(mut world: W) -> Figures {
    world.run(async {
        let polls = POLLS.get();
        let before = cpu_ns();
        let mut tasks = Vec::with_capacity(CROWD as usize);
        let step = SPREAD / CROWD as u32;
        for number in 0..CROWD {
            let length = SPREAD + step * number as u32;
            tasks.push(W::spawn_joined(seen(move || W::sleep(length))));
        }
        until_seen::<W>(polls, CROWD).await;
        let set = cpu_ns();
        for task in tasks {
            task.await;
        }
        let fired = cpu_ns();
        let each = CROWD as f64;
        vec![("ns to set", (set - before) / each), ("ns to fire and join", (fired - set) / each)]
    })
}

/// How long after another thread's call the task runs, the runtime being asleep.
fn woken<W: World>(mut world: W) -> Figures {
    let epoch = Instant::now();
    let sent = Arc::new(AtomicU64::new(0));
    let bell = Arc::new(Notify::new());
    let (answer, answers) = channel::<()>();
    let caller = {
        let (sent, bell) = (Arc::clone(&sent), Arc::clone(&bell));
        thread::spawn(move || {
            pin::to_first();
            for _ in 0..WAKES {
                thread::sleep(PAUSE);
                sent.store(epoch.elapsed().as_nanos() as u64, Ordering::Release);
                bell.notify_one();
                answers.recv().expect("the runtime answers each call");
            }
        })
    };
    let mut latencies = world.run(async {
        let mut latencies = Vec::with_capacity(WAKES);
        for _ in 0..WAKES {
            bell.notified().await;
            let now = epoch.elapsed().as_nanos() as u64;
            latencies.push(now - sent.load(Ordering::Acquire));
            answer.send(()).expect("the caller waits");
        }
        latencies
    });
    caller.join().expect("the caller does not panic");
    latencies.sort_unstable();
    let at = |share: f64| latencies[(share * (WAKES - 1) as f64) as usize] as f64;
    vec![("ns p50", at(0.50)), ("ns p90", at(0.90)), ("ns p99", at(0.99)), ("ns max", at(1.0))]
}
