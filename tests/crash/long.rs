//! The long runs of `scripts/crash`: which, how many and from which seed comes by the environment.
//!
//! Invariant: a run that found something prints the seed that finds it again.

use std::time::{Duration, Instant};

use crate::cycle::Report;
use crate::server::{Fsync, Program};
use crate::{kill, power};

/// Cycles between two lines of progress, and between two fresh directories.
const STRETCH: usize = 25;

fn given(name: &str, default: &str) -> String {
    std::env::var(format!("ANNULUS_CRASH_{name}")).unwrap_or_else(|_| default.to_owned())
}

fn program(name: &str) -> Program {
    match name {
        "uring" => Program::Annulus("uring"),
        "epoll" => Program::Annulus("epoll"),
        "threads" => Program::Annulus("threads"),
        "redis" => Program::Redis,
        _ => panic!("{name} is no engine: uring, epoll, threads, or redis to check the checker"),
    }
}

fn policy(name: &str) -> Fsync {
    match name {
        "always" => Fsync::Always,
        "interval" => Fsync::Interval(Duration::from_millis(300)),
        "none" => Fsync::None,
        _ => panic!("{name} is no policy: always, interval or none"),
    }
}

/// One kind of run, in stretches; what happened.
fn run(title: &str, seed: u64, count: usize, stretch: impl Fn(u64, usize) -> Option<Report>) {
    let began = Instant::now();
    let mut total = Report::default();
    while total.cycles < count {
        let seed = seed + total.cycles as u64;
        let Some(report) = stretch(seed, STRETCH.min(count - total.cycles)) else { return };
        total.add(report);
        println!("{title}: {} of {count} cycles, {} s", total.cycles, began.elapsed().as_secs());
    }
    println!("{title}: {}", total.tell());
}

#[test]
#[ignore = "runs for minutes: scripts/crash"]
fn long() {
    let seed = given("SEED", "1").parse().expect("ANNULUS_CRASH_SEED is a number");
    let count = given("CYCLES", "80").parse().expect("ANNULUS_CRASH_CYCLES is a number");
    let is_power = given("POWER", "no") == "yes";
    let policies = given("FSYNC", if is_power { "always interval none" } else { "always" });
    println!("seed {seed}");
    for engine in given("ENGINES", "uring epoll threads").split_whitespace() {
        for fsync in policies.split_whitespace() {
            if !is_power {
                let title = format!("kill, {engine}, {fsync}");
                run(&title, seed, count, |seed, count| {
                    Some(kill::cycles(program(engine), policy(fsync), seed, count))
                });
                continue;
            }
            for kind in given("DISKS", "ext4 xfs").split_whitespace() {
                let title = format!("power cut, {engine}, {fsync}, {kind}");
                run(&title, seed, count, |seed, count| {
                    let found = power::cycles(program(engine), policy(fsync), kind, seed, count);
                    found.map(|result| result.unwrap_or_else(|error| panic!("{error}")))
                });
            }
        }
    }
}
