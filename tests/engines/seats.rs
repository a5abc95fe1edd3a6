//! Where threads and processes may run while a runtime is pinned.
//!
//! A23: `a_second_runtime_has_the_same_cpus`. L: `a_child_may_run_where_the_program_may`. E:
//! `the_thread_is_where_it_was_in_the_end`.

use std::thread;

use annulus::process::Command;
use annulus::shard::placement::Placement;
use annulus::{Builder, Engine};

use crate::harness::{builder, run_with};

// Alone: the CPUs of the own thread are what other tests' runtimes pin theirs to.
on_every_engine!(
    alone: a_child_may_run_where_the_program_may,
    a_second_runtime_has_the_same_cpus,
    the_thread_is_where_it_was_in_the_end,
);

fn pinned(engine: Engine) -> Builder {
    builder(engine).placement(Placement::Pinned)
}

/// The CPUs in a `status` of proc(5).
fn cpus(status: &str) -> String {
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("every Linux says so").trim().to_owned()
}

fn own_cpus() -> String {
    cpus(&std::fs::read_to_string("/proc/thread-self/status").unwrap())
}

fn a_child_may_run_where_the_program_may(engine: Engine) {
    let before = own_cpus();
    run_with(pinned(engine), async {
        let seat = own_cpus();
        let output = Command::new("cat").arg("/proc/self/status").output().await.unwrap();
        assert_eq!(cpus(std::str::from_utf8(&output.stdout).unwrap()), before);
        assert_eq!(own_cpus(), seat, "the shard has its seat again");
        assert!(Command::new("/no/such/program").spawn().is_err());
        assert_eq!(own_cpus(), seat, "also after an error");
    });
}

fn a_second_runtime_has_the_same_cpus(engine: Engine) {
    let plan = move || pinned(engine).plan().unwrap().1.to_string();
    let before = plan();
    let runtime = pinned(engine).build().unwrap();
    assert_eq!(plan(), before, "beside the first, on its thread");
    let elsewhere = runtime.block_on(async move { thread::spawn(plan).join().unwrap() });
    assert_eq!(elsewhere, before, "on a thread that a task has started");
}

fn the_thread_is_where_it_was_in_the_end(engine: Engine) {
    let before = own_cpus();
    for first_goes_first in [true, false] {
        let first = pinned(engine).build().unwrap();
        let seat = own_cpus();
        let second = pinned(engine).build().unwrap();
        let (one, other) = if first_goes_first { (first, second) } else { (second, first) };
        drop(one);
        if !first_goes_first {
            assert_eq!(own_cpus(), seat);
        }
        drop(other);
        assert_eq!(own_cpus(), before);
    }
}
