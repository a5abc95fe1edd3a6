//! `ANNULUS_ENGINE` chooses the engine where the program does not.
//!
//! The environment is the whole process's, so each case is a process of its own: this binary again,
//! with the test `child` alone.

use std::process::Command;

use annulus::shard::placement::Placement;
use annulus::{Builder, Engine, Runtime};

/// Set in the children: what the program itself asks for, or `nothing`.
const ASKED: &str = "ENGINE_TEST_ASKED";

fn builder() -> Builder {
    Runtime::builder().shards(1).cpu_cores(1).placement(Placement::Floating)
}

/// Not a test of its own: what the other ones run.
#[test]
fn child() {
    let Ok(asked) = std::env::var(ASKED) else { return };
    let builder = match asked.parse::<Engine>() {
        Ok(engine) => builder().engine(engine),
        Err(_) => builder(),
    };
    let planned = builder.plan().map(|(report, _)| report.to_string());
    match builder.build() {
        Ok(runtime) => {
            assert_eq!(planned.unwrap(), runtime.report().to_string());
            println!("got: {}", runtime.report());
        }
        Err(error) => {
            assert!(error.is_config(), "{error}");
            assert_eq!(planned.unwrap_err().to_string(), error.to_string());
            println!("got: {error}");
        }
    }
}

/// What a program gets that asks for `asked`, with `value` in the environment.
fn got(asked: &str, value: Option<&str>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(ASKED, asked);
    match value {
        Some(value) => command.env("ANNULUS_ENGINE", value),
        None => command.env_remove("ANNULUS_ENGINE"),
    };
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("got: "));
    line.unwrap_or_else(|| panic!("no answer: {text}")).1.to_owned()
}

#[test]
fn the_environment_chooses_where_the_program_does_not() {
    assert_eq!(got("nothing", Some("epoll")), "epoll (asked for by ANNULUS_ENGINE)");
    assert_eq!(got("nothing", Some("threads")), "threads (asked for by ANNULUS_ENGINE)");
}

#[test]
fn the_programs_choice_wins() {
    assert_eq!(got("epoll", Some("threads")), "epoll (asked for)");
    assert_eq!(got("threads", Some("nonsense")), "threads (asked for)");
    assert_eq!(got("auto", Some("threads")), got("auto", None));
}

#[test]
fn without_a_choice_the_host_decides() {
    let automatic = got("auto", None);
    assert!(["uring", "epoll"].iter().any(|name| automatic.starts_with(name)), "{automatic}");
    for value in [None, Some(""), Some("auto")] {
        assert_eq!(got("nothing", value), automatic);
    }
}

#[test]
fn a_value_that_is_no_engine_is_refused() {
    for value in ["io_uring", "EPOLL", " epoll", "epoll,uring"] {
        let expected = format!("ANNULUS_ENGINE={value}: use one of auto, uring, epoll, threads");
        assert_eq!(got("nothing", Some(value)), expected);
    }
}
