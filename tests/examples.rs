//! The examples do what their headers say: each one's trace, on every engine.
//!
//! The clock is paused, so that a unit of time is exact and there is one order. Where threads or
//! processes of their own take part, only the order is asserted. Rows of group U, by file:
//! `examples/README.md` has the table.

// Each example is a whole program and brings its own module `trace`.
#![allow(clippy::duplicate_mod)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use annulus::process::pool::{Pool, Worker};
use annulus::shard::placement::Placement;
use annulus::{Builder, Engine, Runtime};

#[allow(dead_code)]
#[path = "../examples/async_iterator.rs"]
mod async_iterator;
#[allow(dead_code)]
#[path = "../examples/async_with.rs"]
mod async_with;
#[allow(dead_code)]
#[path = "../examples/background_loop.rs"]
mod background_loop;
#[allow(dead_code)]
#[path = "../examples/create_and_wait.rs"]
mod create_and_wait;
#[allow(dead_code)]
#[path = "../examples/done_callback.rs"]
mod done_callback;
#[allow(dead_code)]
#[path = "../examples/downloads.rs"]
mod downloads;
#[allow(dead_code)]
#[path = "../examples/engine_swap.rs"]
mod engine_swap;
#[allow(dead_code)]
#[path = "../examples/entry.rs"]
mod entry;
#[allow(dead_code)]
#[path = "../examples/executors.rs"]
mod executors;
#[allow(dead_code)]
#[path = "../examples/freezing.rs"]
mod freezing;
#[allow(dead_code)]
#[path = "../examples/gather_three.rs"]
mod gather_three;
#[allow(dead_code)]
#[path = "../examples/gather_two.rs"]
mod gather_two;
#[allow(dead_code)]
#[path = "../examples/greenlet_switch.rs"]
mod greenlet_switch;
#[allow(dead_code)]
#[path = "../examples/inert_future.rs"]
mod inert_future;
#[allow(dead_code)]
#[path = "../examples/iter_over_async.rs"]
mod iter_over_async;
#[allow(dead_code)]
#[path = "../examples/lock.rs"]
mod lock;
#[allow(dead_code)]
#[path = "../examples/loop_time.rs"]
mod loop_time;
#[allow(dead_code)]
#[path = "../examples/nested_await.rs"]
mod nested_await;
#[allow(dead_code)]
#[path = "../examples/post_streaming.rs"]
mod post_streaming;
#[allow(dead_code)]
#[path = "../examples/promise.rs"]
mod promise;
#[allow(dead_code)]
#[path = "../examples/returned_gather.rs"]
mod returned_gather;
#[allow(dead_code)]
#[path = "../examples/returned_wait.rs"]
mod returned_wait;
#[allow(dead_code)]
#[path = "../examples/same_thread.rs"]
mod same_thread;
#[allow(dead_code)]
#[path = "../examples/say_after.rs"]
mod say_after;
#[allow(dead_code)]
#[path = "../examples/sequential_calls.rs"]
mod sequential_calls;
#[allow(dead_code)]
#[path = "../examples/task_result.rs"]
mod task_result;
#[allow(dead_code)]
#[path = "../examples/task_state.rs"]
mod task_state;
#[allow(dead_code)]
#[path = "../examples/ten_jobs_five_threads.rs"]
mod ten_jobs_five_threads;
#[allow(dead_code)]
#[path = "../examples/two_functions.rs"]
mod two_functions;
#[allow(dead_code)]
#[path = "../examples/wait_for_list.rs"]
mod wait_for_list;
#[allow(dead_code)]
#[path = "../examples/wait_three.rs"]
mod wait_three;
#[allow(dead_code)]
#[path = "../examples/yield_chain.rs"]
mod yield_chain;

/// Calls `check` with a builder for each engine that this host has.
fn on_every_engine(check: impl Fn(Builder)) {
    for engine in [Engine::Uring, Engine::Epoll, Engine::Threads] {
        let builder = Runtime::builder()
            .engine(engine)
            .paused_clock(true)
            .cpu_cores(1)
            .placement(Placement::Floating);
        match builder.plan() {
            Err(error) if engine == Engine::Uring => println!("skipped: {error}"),
            _ => check(builder),
        }
    }
}

/// Runs the example on each engine; it must print `expected`.
#[track_caller]
fn prints(run: impl Fn(&Runtime) -> Vec<String>, expected: &[&str]) {
    on_every_engine(|builder| {
        let runtime = builder.build().unwrap();
        assert_eq!(run(&runtime), expected, "engine {}", runtime.report().engine);
    });
}

#[test]
fn greenlet_switch_hands_the_turn_over() {
    prints(greenlet_switch::run, &["1", "3", "2", "4"]);
}

#[test]
fn yield_chain_inserts_the_inner_sequence() {
    let awaited = ["awaited 1", "awaited 3", "awaited 4", "awaited 2"];
    prints(yield_chain::run, &[&["1", "3", "4", "2"][..], &awaited].concat());
}

#[test]
fn two_functions_sleep_side_by_side() {
    let expected = ["1", "3", "2", "4", "2.00 units"];
    prints(two_functions::run_tasks, &expected);
    prints(two_functions::run_futures, &expected);
}

#[test]
fn inert_future_runs_only_when_driven() {
    let expected = [
        "called twice, nothing has run",
        "one is dropped",
        "inside the function",
        "the other gave 15",
    ];
    prints(inert_future::run, &expected);
}

#[test]
fn create_and_wait_takes_two_units() {
    let expected = [
        "main starts",
        "tasks: n1, n2",
        "main ends",
        "1",
        "1",
        "2",
        "2",
        "returned",
        "returned",
        "0 pending",
        "2.00 units",
    ];
    prints(create_and_wait::run, &expected);
}

#[test]
fn wait_for_list_takes_two_units() {
    prints(wait_for_list::run, &["1", "1", "2", "2", "2 done, 0 pending", "2.00 units"]);
}

#[test]
fn nested_await_takes_the_sum() {
    let expected = [
        "inside the function",
        "start",
        "end",
        "first request: returned",
        "start",
        "end",
        "second request: returned",
        "4.00 units",
    ];
    prints(nested_await::run, &expected);
}

#[test]
fn say_after_takes_three_units() {
    let expected = ["started at 0.00 units", "hello", "world", "finished at 3.00 units"];
    prints(say_after::run, &expected);
}

#[test]
fn loop_time_shows_what_was_slept() {
    prints(loop_time::run, &["t2 - t1 = 3.00 units"]);
}

#[test]
fn entry_leaves_nothing_behind() {
    let once = ["hello", "world after 0.10 units", "666", "what main left behind is dropped"];
    on_every_engine(|builder| {
        assert_eq!(entry::run(builder).unwrap(), [once, once].concat());
    });
}

#[test]
fn iter_over_async_reads_in_a_plain_loop() {
    let expected = ["1", "2", "3", "4.00 units", "refused inside the runtime: true"];
    prints(iter_over_async::run, &expected);
}

#[test]
fn task_state_goes_from_pending_to_finished() {
    let expected = [
        "spawned: Pending",
        "inside: Running",
        "asleep: Pending",
        "afterwards: Finished",
        "aborted: Cancelled",
    ];
    prints(task_state::run, &expected);
}

#[test]
fn task_result_is_there_after_three_units() {
    let expected = [
        "at once: None",
        "hello world 01 begin",
        "hello again 01 end",
        "awaited: Some(15), 3.00 units",
        r#"aborted: Err("the task was cancelled")"#,
    ];
    prints(task_result::run, &expected);
}

#[test]
fn done_callback_is_called_after_the_end() {
    let expected = [
        "taken back: true",
        "before: Pending",
        "start coroutine",
        "end coroutine",
        "callback: hello Shiyanlou, Some(3)",
        "after: Finished",
    ];
    prints(done_callback::run, &expected);
}

#[test]
fn async_iterator_reads_one_to_ninety_nine() {
    let numbers = (1..=99).map(|number| number.to_string());
    let expected: Vec<String> = numbers.chain(["and then: None".to_owned()]).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    prints(async_iterator::run, &expected);
}

#[test]
fn async_with_closes_on_every_way_out() {
    let expected = [
        "opened",
        "closed",
        "Ok(666)",
        "2.00 units",
        "opened",
        "closed",
        r#"Err("no such table")"#,
    ];
    prints(async_with::run, &expected);
}

#[test]
fn gather_two_keeps_the_order_of_the_list() {
    let expected = [
        "start ONE",
        "start TWO",
        "stop TWO",
        "stop ONE",
        "result ONE",
        "result TWO",
        "3.00 units",
    ];
    prints(gather_two::run, &expected);
}

/// What three tasks of three, two and four units say.
const HELLOS: [&str; 6] = [
    "hello 01 begin",
    "hello 02 begin",
    "hello 03 begin",
    "hello 02 end",
    "hello 01 end",
    "hello 03 end",
];

#[test]
fn gather_three_takes_as_long_as_the_longest() {
    let one_by_one = [
        "hello 01 begin",
        "hello 01 end",
        "hello 02 begin",
        "hello 02 end",
        "hello 03 begin",
        "hello 03 end",
    ];
    let results = "results: [15, 5, 50]";
    let expected =
        [&HELLOS[..], &[results, "4.00 units"], &one_by_one, &[results, "9.00 units"]].concat();
    prints(gather_three::run, &expected);
}

#[test]
fn wait_three_cancels_nobody_at_its_timeout() {
    let expected = [
        &HELLOS[..4],
        &["done: [5], pending: 2"],
        &HELLOS[4..],
        &["done: [15, 50], pending: 0", "4.00 units"],
    ];
    prints(wait_three::run, &expected.concat());
}

#[test]
fn returned_gather_is_awaited_by_its_caller() {
    let expected = [&["gathered"], &HELLOS[..], &["results: [15, 5, 50]", "4.00 units"]].concat();
    prints(returned_gather::run, &expected);
}

#[test]
fn returned_wait_hands_the_rest_over() {
    let expected = [
        &HELLOS[..4],
        &["done: [5], pending: 2, 2.00 units"],
        &["hello 01 end", "later: Some(15)", "hello 03 end", "later: Some(50)", "4.00 units"],
    ];
    prints(returned_wait::run, &expected.concat());
}

#[test]
fn same_thread_runs_all_tasks() {
    let expected = [
        "hello 01 begins on main's thread",
        "hello 02 begins on main's thread",
        "hello 03 begins on main's thread",
        "hello 03 ends on main's thread",
        "hello 02 ends on main's thread",
        "hello 01 ends on main's thread",
        "3.00 units",
    ];
    prints(same_thread::run, &expected);
}

#[test]
fn sequential_calls_take_five_units() {
    let expected = [
        "hello 03 begin",
        "hello 02 begin",
        "hello 02 end",
        "hello 01 begin",
        "hello 01 end",
        "hello 03 end",
        "5.00 units",
    ];
    prints(sequential_calls::run, &expected);
}

#[test]
fn freezing_repaints_after_the_result() {
    prints(freezing::run, &["click", "30", "the window stood still for 3.00 units", "repaint"]);
}

#[test]
fn post_streaming_reads_each_chunk_as_it_arrives() {
    let expected = [
        "POST /stream",
        "chunk 1 after 1.00 units",
        "chunk 2 after 2.00 units",
        "chunk 3 after 3.00 units",
        "end of the body",
        "POST /odd",
        "chunk 1 after 1.00 units",
        "chunk [255, 254] is not UTF-8",
        r#"chunk "x3": invalid digit found in string"#,
        "end of the body",
        "POST /missing",
        "status 500",
    ];
    prints(|runtime| post_streaming::run(runtime).unwrap(), &expected);
}

#[test]
fn ten_jobs_run_five_at_once() {
    let states = (0..10).map(|number| {
        let state = if number < 5 { "Running" } else { "Pending" };
        format!("job {number}: {state}")
    });
    let results = (0..10).map(|number| format!("result {number}"));
    let expected: Vec<String> = states.chain(results).chain(["5 at once".to_owned()]).collect();
    assert_eq!(ten_jobs_five_threads::run().unwrap(), expected);
}

/// With a real clock: the server has threads of its own.
#[test]
fn downloads_overlap_as_tasks_and_on_a_pool() {
    let saved = ["one.jpg", "two.jpg", "three.jpg"]
        .map(|name| format!("saved {name}, as it should be: true"));
    let [one, two, three] = saved.each_ref().map(String::as_str);
    let together =
        ["begin one.jpg", "begin two.jpg", "begin three.jpg", one, two, three, "3 at once"];
    let expected = [
        &["one by one", "begin one.jpg", one, "begin two.jpg", two, "begin three.jpg", three][..],
        &["1 at once", "as tasks"],
        &together,
        &["on a pool"],
        &together,
    ];
    on_every_engine(|builder| {
        let runtime = builder.paused_clock(false).shards(1).build().unwrap();
        let engine = runtime.report().engine;
        let folder = format!("annulus-downloads-{engine}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let printed = downloads::run(&runtime, &folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(printed, expected.concat(), "engine {engine}");
    });
}

#[test]
fn lock_lets_the_second_find_what_the_first_has_fetched() {
    let expected =
        ["lala", "one start", "lala", "----", "one end", "one ok", "two start", "two ok"];
    prints(lock::run, &expected);
}

#[test]
fn promise_never_set_ends_by_a_time_limit() {
    let expected = ["Err(Elapsed(())) after 2.00 units", "nobody is left to set it: true"];
    prints(promise::run_never, &expected);
}

#[test]
fn promise_is_set_after_two_units() {
    let expected = [r#"Some("666") after 2.00 units"#, "a second value is refused: Some(true)"];
    prints(promise::run_set_after, &expected);
}

/// Set for a process that is to be a worker of the pool in `executors`.
const WORKER: &str = "ANNULUS_EXAMPLES_WORKER";

/// The worker of the next test: this program, in which only this test runs.
#[test]
fn executors_worker() {
    if std::env::var_os(WORKER).is_some() {
        Worker::serve(&executors::FUNCTIONS);
    }
}

#[test]
fn executors_let_the_loop_go_on() {
    let expected = [
        "the loop goes on",
        "default thread pool: result, from this thread: false",
        "the loop goes on",
        r#"own thread pool: result, from thread Some("own-0")"#,
        "the loop goes on",
        "process pool: Shiyanlou's result, from process, this one: false",
    ];
    prints(
        |runtime| {
            let mut worker = Command::new(std::env::current_exe().unwrap());
            worker.args(["--exact", "executors_worker"]).env(WORKER, "").stdout(Stdio::null());
            executors::run(runtime, Pool::builder().command(worker)).unwrap()
        },
        &expected,
    );
}

#[test]
fn background_loop_leaves_the_window_alive() {
    let expected = [
        "click",
        "the window goes on",
        "300",
        "computed by this thread: false",
        "the loop has ended",
    ];
    on_every_engine(|builder| assert_eq!(background_loop::run(builder).unwrap(), expected));
}

#[test]
fn engine_swap_runs_the_same_program_on_each() {
    let printed = engine_swap::run_chosen().unwrap();
    // A host without io_uring says so in the first line.
    assert!(printed[0] == "uring: 666" || printed[0].contains("uring"), "{}", printed[0]);
    assert_eq!(printed[1..], ["epoll: 666", "threads: 666"]);
}

/// The environment is read once, at the start: what it does shows in a process of its own.
#[test]
fn engine_swap_from_the_environment() {
    let name = "engine_swap_from_the_environment";
    if std::env::var_os("ANNULUS_ENGINE").is_some() {
        engine_swap::run_from_environment().unwrap();
        return;
    }
    for engine in ["epoll", "threads"] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", name, "--nocapture"]).env("ANNULUS_ENGINE", engine);
        let output = String::from_utf8(child.output().unwrap().stdout).unwrap();
        let line = format!("{engine}: 666");
        assert!(output.lines().any(|printed| printed.ends_with(&line)), "{output}");
    }
}

#[test]
fn every_example_is_listed_and_each_trace_is_tested() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut files: Vec<String> = fs::read_dir(&folder)
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".rs")?.into()))
        .collect();
    files.sort();
    let table = fs::read_to_string(folder.join("README.md")).unwrap();
    let mut listed: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_suffix(".rs) |")?.rsplit_once("](").map(|(_, name)| name))
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, files, "examples/README.md has a row for each example");
    let tests = include_str!("examples.rs");
    for name in files {
        let text = fs::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        let is_tested = tests.contains(&format!("\nmod {name};"));
        assert!(is_tested || !text.contains("\nmod trace;"), "no test of what {name} prints");
    }
}
