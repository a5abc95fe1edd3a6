//! The process pool, with this very program as its worker: no test harness stands before its main.
//!
//! G3: `two_workers_do_four_jobs_in_two_waves`, `submit_does_not_wait_and_call_does`,
//!     `a_killed_worker_fails_its_job_alone_and_is_replaced`,
//!     `a_panic_comes_back_and_its_worker_lives_on`, `a_shutdown_leaves_no_process_behind`,
//!     `a_pool_that_is_dropped_leaves_no_process_behind`, `workers_end_when_their_parent_is_killed`
//!
//! `cargo test --test process_pool NAME` runs those whose name holds NAME.

use std::fs;
use std::future::{Future, poll_fn};
use std::io::{BufRead, BufReader, Read};
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use annulus::process::pool::{Function, Handle, Pool, Worker};
use annulus::shard::placement::Placement;
use annulus::{Engine, JobState, Runtime, blocking, limits, task, time};

/// A guard against hangs, not a time that is asserted.
const LONG: Duration = Duration::from_secs(60);

const FUNCTIONS: &[(&str, Function)] = &[
    ("sum", sum),
    ("reverse", reverse),
    ("id", id),
    ("meet", meet),
    ("panic", |_| panic!("on purpose")),
    ("exit", |status| std::process::exit(i32::from(status[0]))),
    ("sleep", sleep),
    ("input", |_| standard_input()),
    ("long", |_| vec![0; limits::PROCESS_FRAME_BYTES_MAX]),
];

const TESTS: &[(&str, fn())] = &[
    ("a_job_is_awaited_and_waited_for", a_job_is_awaited_and_waited_for),
    ("two_workers_do_four_jobs_in_two_waves", two_workers_do_four_jobs_in_two_waves),
    ("submit_does_not_wait_and_call_does", submit_does_not_wait_and_call_does),
    ("a_killed_worker_fails_its_job_alone_and_is_replaced", a_killed_worker_is_replaced),
    ("a_worker_that_died_idle_is_replaced", a_worker_that_died_idle_is_replaced),
    ("a_worker_that_exits_says_how", a_worker_that_exits_says_how),
    ("a_panic_comes_back_and_its_worker_lives_on", a_panic_comes_back),
    ("what_makes_no_sense_is_refused", what_makes_no_sense_is_refused),
    ("megabytes_come_back_whole", megabytes_come_back_whole),
    ("a_workers_standard_input_is_empty", a_workers_standard_input_is_empty),
    ("a_job_that_waits_is_called_back", a_job_that_waits_is_called_back),
    ("a_job_given_up_at_any_await_leaves_its_worker_whole", a_job_given_up_at_any_await),
    ("a_shutdown_leaves_no_process_behind", a_shutdown_leaves_no_process_behind),
    ("a_shutdown_ends_jobs_that_take_too_long", a_shutdown_ends_long_jobs),
    ("a_worker_that_does_not_end_is_killed", a_worker_that_does_not_end_is_killed),
    ("a_pool_that_is_dropped_leaves_no_process_behind", a_dropped_pool_leaves_nothing),
    ("workers_end_when_their_parent_is_killed", workers_end_with_their_parent),
    ("a_program_that_is_no_worker_is_named", a_program_that_is_no_worker_is_named),
    ("a_worker_builds_no_pool_of_its_own_kind", a_worker_builds_no_pool),
];

fn main() -> ExitCode {
    if std::env::args().any(|argument| argument == "--forgets") {
        return forget_to_serve();
    }
    Worker::serve_if_asked(FUNCTIONS);
    if std::env::args().any(|argument| argument == "--parent") {
        return be_a_parent();
    }
    let filters: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let is_wanted =
        |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(&**filter));
    let mut failed = 0;
    for (name, test) in TESTS.iter().filter(|(name, _)| is_wanted(name)) {
        let ended = catch_unwind(test);
        println!("test {name} ... {}", if ended.is_ok() { "ok" } else { "FAILED" });
        failed += u32::from(ended.is_err());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn sum(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>().to_le_bytes().into()
}

fn reverse(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

fn id(_: &[u8]) -> Vec<u8> {
    std::process::id().to_le_bytes().into()
}

/// Leaves a mark in a directory and waits until another appears: `DIRECTORY:MINE:OTHER`.
fn meet(input: &[u8]) -> Vec<u8> {
    let words = String::from_utf8(input.to_vec()).unwrap();
    let mut words = words.split(':');
    let directory = PathBuf::from(words.next().unwrap());
    fs::write(directory.join(words.next().unwrap()), []).unwrap();
    let other = directory.join(words.next().unwrap());
    eventually("the other comes", || other.exists());
    Vec::new()
}

fn standard_input() -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    bytes
}

fn sleep(_: &[u8]) -> Vec<u8> {
    thread::sleep(LONG);
    Vec::new()
}

fn pool(workers: usize, queue: usize) -> Pool {
    Pool::builder().workers(workers).queue(queue).build().unwrap()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if condition() {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
    panic!("{what}: it did not come about");
}

/// Runs `test` on every engine that this host has.
fn on_every_engine(test: impl AsyncFn()) {
    for engine in [Engine::Uring, Engine::Epoll, Engine::Threads] {
        let builder = Runtime::builder().engine(engine).shards(1).placement(Placement::Floating);
        match builder.build() {
            Ok(runtime) => runtime.block_on(test()),
            Err(error) => println!("skipped: {error}"),
        }
    }
}

/// A directory of its own for a test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        let name = format!("process-pool-{}-{number}", std::process::id());
        let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn meet(&self, mine: &str, other: &str) -> String {
        format!("{}:{mine}:{other}", self.0.display())
    }

    fn mark(&self, name: &str) {
        fs::write(self.0.join(name), []).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn signal(name: &str, process: u32) {
    let status = Command::new("kill").args([name, &process.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The state of a process, as ps(1) shows it; `None` if there is none, not even a zombie.
fn state(process: u32) -> Option<char> {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    status.rsplit_once(')')?.1.trim_start().chars().next()
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes.try_into().unwrap())
}

fn a_job_is_awaited_and_waited_for() {
    let pool = pool(2, 8);
    let expected = 6_u64.to_le_bytes();
    assert_eq!(pool.submit("sum", [1, 2, 3]).wait().unwrap(), expected);
    on_every_engine(async || {
        assert_eq!(pool.call("sum", [1, 2, 3]).await.unwrap(), expected);
        assert_eq!(pool.submit("sum", [1, 2, 3]).await.unwrap(), expected);
        let mut job = pool.submit("sum", [1, 2, 3]);
        while !job.is_finished() {
            time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(job.wait_timeout(Duration::ZERO).unwrap(), expected);
        let error = pool.submit("sleep", []).wait_timeout(LONG).unwrap_err();
        assert!(error.is_already_running(), "{error}");
        pool.workers().into_iter().for_each(|worker| signal("-KILL", worker));
    });
    assert_ne!(number(&pool.submit("id", []).wait().unwrap()), std::process::id());
}

fn two_workers_do_four_jobs_in_two_waves() {
    let pool = pool(2, 8);
    on_every_engine(async || {
        let scratch = Scratch::new();
        // Each waits for the other of its wave: alone it would wait for ever.
        let pairs = [("a", "b"), ("b", "a"), ("c", "d"), ("d", "c")];
        let jobs = pairs.map(|(mine, other)| pool.submit("meet", scratch.meet(mine, other)));
        for job in jobs {
            job.await.unwrap();
        }
        let held = [0, 1].map(|_| pool.submit("meet", scratch.meet("e", "go")));
        let waiting = pool.submit("sum", []);
        assert_eq!(held.each_ref().map(Handle::state), [JobState::Running; 2]);
        assert_eq!(waiting.state(), JobState::Pending);
        scratch.mark("go");
        waiting.await.unwrap();
        for job in held {
            job.await.unwrap();
        }
        assert_eq!(pool.workers().len(), 2);
    });
}

fn submit_does_not_wait_and_call_does() {
    let pool = pool(1, 1);
    on_every_engine(async || {
        let scratch = Scratch::new();
        let first = pool.submit("meet", scratch.meet("first", "go"));
        let second = pool.submit("sum", []);
        let third = pool.submit("sum", []);
        assert!(third.is_finished());
        assert!(third.await.unwrap_err().is_limit());
        let patient = {
            let pool = pool.clone();
            task::spawn(async move { pool.call("sum", [1]).await })
        };
        task::yield_now().await;
        assert!(!patient.is_finished());
        scratch.mark("go");
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(patient.await.unwrap().unwrap(), 1_u64.to_le_bytes());
    });
}

fn a_killed_worker_is_replaced() {
    let pool = pool(2, 8);
    let scratch = Scratch::new();
    let staying = pool.submit("meet", scratch.meet("staying", "go"));
    eventually("it runs", || scratch.has("staying"));
    let before = pool.workers();
    let dying = pool.submit("meet", scratch.meet("dying", "never"));
    eventually("it runs", || scratch.has("dying"));
    let worker = pool.workers().into_iter().find(|worker| !before.contains(worker)).unwrap();
    let waiting = pool.submit("id", []);
    signal("-KILL", worker);
    let error = dying.wait().unwrap_err();
    assert!(error.is_disconnected());
    let expected = format!("worker {worker} was killed by signal 9 while it ran \"meet\"");
    assert_eq!(error.to_string(), expected);
    assert_ne!(number(&waiting.wait().unwrap()), worker);
    assert_eq!(state(worker), None, "it has been waited for");
    scratch.mark("go");
    staying.wait().unwrap();
    assert!(pool.workers().contains(&before[0]));
    assert_eq!(pool.workers().len(), 2);
}

fn a_worker_that_died_idle_is_replaced() {
    let pool = pool(1, 1);
    let first = number(&pool.submit("id", []).wait().unwrap());
    signal("-KILL", first);
    // A zombie's other threads may take a moment longer.
    let threads = || fs::read_dir(format!("/proc/{first}/task")).map_or(0, Iterator::count);
    eventually("it has ended", || state(first) == Some('Z') && threads() == 1);
    let second = number(&pool.submit("id", []).wait().unwrap());
    assert_ne!(first, second);
    assert_eq!(pool.workers(), [second]);
    assert_eq!(state(first), None, "it has been waited for");
}

fn a_worker_that_exits_says_how() {
    let pool = pool(1, 1);
    let error = pool.submit("exit", [7]).wait().unwrap_err();
    assert!(error.is_disconnected());
    assert!(error.to_string().ends_with("ended with exit status 7 while it ran \"exit\""));
    assert_eq!(pool.submit("reverse", *b"abc").wait().unwrap(), b"cba");
}

fn a_panic_comes_back() {
    let pool = pool(1, 1);
    let before = pool.submit("id", []).wait().unwrap();
    let error = pool.submit("panic", []).wait().unwrap_err();
    assert!(error.is_panicked());
    assert_eq!(error.to_string(), "panicked: on purpose");
    assert_eq!(pool.submit("id", []).wait().unwrap(), before);
}

fn what_makes_no_sense_is_refused() {
    let pool = pool(1, 1);
    let error = pool.submit("product", []).wait().unwrap_err();
    assert!(error.is_config());
    let text = error.to_string();
    assert!(text.starts_with("the worker has no such function; it has: sum, reverse,"), "{text}");
    let input = vec![0; limits::PROCESS_FRAME_BYTES_MAX];
    assert!(pool.submit("sum", input).wait().unwrap_err().is_limit());
    assert!(pool.submit(&"x".repeat(70_000), []).wait().unwrap_err().is_limit());
    let error = pool.submit("long", []).wait().unwrap_err();
    assert!(error.is_limit(), "{error}");
    for count in [0, 5000] {
        let error = Pool::builder().workers(count).build().unwrap_err();
        assert_eq!(error.to_string(), format!("{count} worker processes: use 1 to 1024"));
    }
    assert_eq!(pool.submit("sum", [1]).wait().unwrap(), 1_u64.to_le_bytes());
}

fn megabytes_come_back_whole() {
    let pool = pool(1, 1);
    let input: Vec<u8> =
        (0..5_000_000_u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let output = pool.submit("reverse", input.clone()).wait().unwrap();
    assert!(output.iter().rev().eq(&input));
}

fn a_workers_standard_input_is_empty() {
    assert_eq!(pool(1, 1).submit("input", []).wait().unwrap(), b"");
}

fn a_job_that_waits_is_called_back() {
    let pool = pool(1, 1);
    let scratch = Scratch::new();
    let running = pool.submit("meet", scratch.meet("running", "go"));
    let waiting = pool.submit("exit", [1]);
    assert!(!running.abort());
    assert!(waiting.abort());
    assert!(waiting.wait().unwrap_err().is_cancelled());
    scratch.mark("go");
    running.wait().unwrap();
}

/// Drops a future after so many polls, at once or when its outcome waits; its value, if it came.
async fn give_up<F: Future>(future: F, polls: usize, pause: Duration) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut polls_left = polls;
    let value = poll_fn(|context| {
        if polls_left == 0 {
            return Poll::Ready(None);
        }
        polls_left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polls_left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    });
    let value = value.await;
    if value.is_none() {
        time::sleep(pause).await;
    }
    value
}

fn a_job_given_up_at_any_await() {
    on_every_engine(async || {
        let pool = pool(1, 1);
        // The first starts the worker; then nothing more may be opened.
        assert_eq!(pool.call("reverse", [1, 2]).await.unwrap(), [2, 1]);
        let workers = pool.workers();
        for polls in 0..4 {
            for pause in [0, 1, 5].map(Duration::from_millis) {
                let came = give_up(pool.call("reverse", [1, 2]), polls, pause).await;
                assert!(came.is_none_or(|came| came.unwrap() == [2, 1]));
                let mut handle = pool.submit("reverse", [3, 4]);
                let came = match give_up(&mut handle, polls, pause).await {
                    Some(came) => came,
                    None => time::timeout(LONG, handle).await.expect("its outcome is kept"),
                };
                assert_eq!(came.unwrap(), [4, 3]);
                // The queue has its place back, and the worker answers whom it should.
                let next = time::timeout(LONG, pool.call("reverse", [5, 6])).await;
                assert_eq!(next.expect("the pool goes on").unwrap(), [6, 5]);
                assert_eq!((pool.pending(), pool.workers()), (0, workers.clone()));
            }
        }
        pool.close();
    });
}

/// Two workers, one of them at work on what ends with a mark.
fn busy(scratch: &Scratch) -> (Pool, Vec<u32>, Handle) {
    let pool = pool(2, 4);
    let meeting = [("a", "b"), ("b", "a")].map(|(a, b)| pool.submit("meet", scratch.meet(a, b)));
    for job in meeting {
        job.wait().unwrap();
    }
    let running = pool.submit("meet", scratch.meet("running", "go"));
    eventually("it runs", || scratch.has("running"));
    let workers = pool.workers();
    assert_eq!(workers.len(), 2);
    (pool, workers, running)
}

fn a_shutdown_leaves_no_process_behind() {
    let scratch = Scratch::new();
    let (pool, workers, running) = busy(&scratch);
    scratch.mark("go");
    pool.shut_down(LONG).unwrap();
    assert_eq!(workers.iter().map(|worker| state(*worker)).collect::<Vec<_>>(), [None, None]);
    assert!(pool.workers().is_empty());
    running.wait().unwrap();
    assert!(pool.submit("sum", []).wait().unwrap_err().is_closed());
    on_every_engine(async || {
        assert!(pool.call("sum", []).await.unwrap_err().is_closed());
        let pool = pool.clone();
        blocking::run(move || pool.shut_down(LONG)).await.unwrap().unwrap();
    });
}

fn a_shutdown_ends_long_jobs() {
    let scratch = Scratch::new();
    let (pool, workers, running) = busy(&scratch);
    let other = pool.submit("sleep", []);
    let waiting = pool.submit("sleep", []);
    assert!(pool.shut_down(Duration::from_millis(20)).unwrap_err().is_timed_out());
    assert_eq!(workers.iter().map(|worker| state(*worker)).collect::<Vec<_>>(), [None, None]);
    for job in [running, other, waiting] {
        let error = job.wait().unwrap_err();
        assert!(error.is_closed(), "{error}");
    }
}

fn a_worker_that_does_not_end_is_killed() {
    let pool = pool(1, 1);
    let worker = number(&pool.submit("id", []).wait().unwrap());
    signal("-STOP", worker);
    pool.shut_down(LONG).unwrap();
    assert_eq!(state(worker), None);
}

fn a_dropped_pool_leaves_nothing() {
    let scratch = Scratch::new();
    let (pool, workers, running) = busy(&scratch);
    drop(pool);
    eventually("the idle worker is gone", || {
        workers.iter().filter(|worker| state(**worker).is_some()).count() == 1
    });
    // The other does its job first.
    scratch.mark("go");
    running.wait().unwrap();
    eventually("both are gone", || workers.iter().all(|worker| state(*worker).is_none()));
}

/// Starts a worker that is at work, and one that is idle, says which, and waits to be killed.
fn be_a_parent() -> ExitCode {
    let pool = pool(2, 0);
    let busy = pool.submit("sleep", []);
    pool.submit("sum", []).wait().unwrap();
    println!("workers {:?}", pool.workers());
    drop(busy.wait());
    ExitCode::FAILURE
}

fn workers_end_with_their_parent() {
    let mut parent =
        Command::new("/proc/self/exe").arg("--parent").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let workers: Vec<u32> =
        line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
    assert_eq!(workers.len(), 2, "{line}");
    parent.kill().unwrap();
    parent.wait().unwrap();
    // Whoever adopts them may let them be zombies.
    let has_ended = |worker: &u32| state(*worker).is_none_or(|state| state == 'Z');
    eventually("they have ended", || workers.iter().all(has_ended));
}

fn a_program_that_is_no_worker_is_named() {
    let pool =
        |program: &str| Pool::builder().workers(1).command(Command::new(program)).build().unwrap();
    let error = pool("/bin/true").submit("sum", []).wait().unwrap_err();
    assert!(error.is_disconnected());
    let text = error.to_string();
    assert!(text.starts_with("a worker ended with exit status 0 before it was ready"), "{text}");
    let error = pool("/no/such/program").submit("sum", []).wait().unwrap_err();
    assert!(error.is_not_found());
    let text = error.to_string();
    assert!(text.starts_with("starting the worker /no/such/program: No such file"), "{text}");
}

/// What a program does that does not serve: it builds a pool, and would go on to use it.
fn forget_to_serve() -> ExitCode {
    match Pool::builder().build() {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(if error.is_config() { 9 } else { 1 }),
    }
}

fn a_worker_builds_no_pool() {
    let status = |arguments: &[&str]| {
        Command::new("/proc/self/exe").args(arguments).status().unwrap().code()
    };
    assert_eq!(status(&["--annulus-pool-worker", "--forgets"]), Some(9));
    assert_eq!(status(&["--forgets"]), Some(0));
}
