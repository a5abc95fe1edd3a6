//! The program from outside, up to the moment it serves: flags, configuration, exit codes, check.
//!
//! Runs the built binary. Invariant under test: a refusal says what is wrong, where and what to do,
//! on standard error, with exit code 2 for usage and configuration and 1 for everything else.
#![cfg(feature = "daemon")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output};

fn annulus(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_annulus"))
        .args(arguments)
        .env_remove("RUST_LOG")
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// A configuration file that is removed at the end of its test.
struct Config(PathBuf);

impl Config {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("annulus-{}-{name}.toml", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).expect("a writable folder");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a plain path")
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs with a configuration that must be refused, and returns the lines of the refusal.
fn refusal(name: &str, config: &str) -> Vec<String> {
    let config = Config::new(name, config);
    let output = annulus(&["check", "--config", config.path()]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(text(&output.stdout), "");
    let lines = text(&output.stderr).lines();
    lines.map(|line| line.replace(config.path(), "FILE")).collect()
}

#[test]
fn version_and_help_succeed_on_standard_output() {
    let output = annulus(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("annulus {}\n", env!("CARGO_PKG_VERSION")));
    let output = annulus(&["serve", "--help"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(text(&output.stdout).contains("--cpu-cores"), "{output:?}");
}

#[test]
fn an_unknown_flag_is_a_usage_error() {
    let output = annulus(&["serve", "--banana"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--banana"), "{output:?}");
}

#[test]
fn every_error_of_a_configuration_is_named_with_file_line_and_key() {
    let config = "[runtime]\nengine = \"fast\"\nshard = 1\n\n[http]\nidle_timeout = 60\n";
    assert_eq!(
        refusal("several", config),
        [
            "annulus: FILE:3: there is no setting runtime.shard; did you mean runtime.shards?",
            "annulus: FILE:6: http.idle_timeout is a bare number; it needs a duration with its \
             unit in quotes, such as \"30s\" or \"250ms\"",
        ]
    );
    assert_eq!(
        refusal("value", "[runtime]\nengine = \"fast\"\n"),
        ["annulus: FILE:2: runtime.engine = \"fast\" is no engine; use auto, uring, epoll or \
          threads"]
    );
}

#[test]
fn a_configuration_that_is_not_toml_or_not_there_is_named() {
    let lines = refusal("broken", "[runtime\n");
    assert!(lines[0].starts_with("annulus: FILE:1: this is not TOML: "), "{lines:?}");
    let output = annulus(&["serve", "--config", "/nonexistent/annulus.toml"]);
    assert_eq!(output.status.code(), Some(2));
    let wanted = "annulus: cannot read the configuration /nonexistent/annulus.toml: No such file";
    assert!(text(&output.stderr).starts_with(wanted), "{output:?}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let output = annulus(&["check", "--resp", "off", "--http", "off"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("there is nothing to serve"), "{output:?}");
    let output = annulus(&["check", "--resp", "127.0.0.1:7000", "--http", "127.0.0.1:7000"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("give each its own port"), "{output:?}");
}

#[test]
fn more_shards_than_cpus_are_refused_with_the_cpus_there_are() {
    let output = annulus(&["check", "--shards", "1000"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(stderr.starts_with("annulus: 1000 shards are wanted, but only "), "{stderr}");
    let output = annulus(&["check", "--placement", "4095"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("CPU 4095 is not usable"), "{output:?}");
}

#[test]
fn print_config_gives_a_configuration_that_gives_the_same_again() {
    let arguments = ["--print-config", "--shards", "1", "--resp", "127.0.0.1:7001"];
    let printed = annulus(&arguments);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    assert!(text(&printed.stdout).contains("listen = \"127.0.0.1:7001\" # --resp\n"));
    let config = Config::new("again", text(&printed.stdout));
    let again = annulus(&["serve", "--print-config", "--config", config.path()]);
    assert_eq!(again.status.code(), Some(0), "{again:?}");
    let values = |output: &Output| -> Vec<String> {
        let lines = text(&output.stdout).lines();
        lines.map(|line| line.split(" #").next().unwrap_or("").to_owned()).collect()
    };
    assert_eq!(values(&again), values(&printed));
}

#[test]
fn a_password_is_not_printed() {
    let config = Config::new("secret", "[resp]\npassword = \"correct horse\"\n");
    let output = annulus(&["--print-config", "--config", config.path()]);
    assert!(!text(&output.stdout).contains("horse"), "{output:?}");
}

#[test]
fn check_prints_engine_plan_and_limits() {
    let output = annulus(&["check", "--engine", "epoll", "--shards", "1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let stdout = text(&output.stdout);
    for line in [
        "engine            epoll (asked for)",
        "plan              1 shard(s) on CPU ",
        "memory lock       none needed",
        "descriptors       ",
        "store             ./annulus-data, fsync within 1s",
        "resp              127.0.0.1:6380",
        "http              127.0.0.1:8080",
    ] {
        assert!(stdout.lines().any(|have| have.starts_with(line)), "missing {line}\n{stdout}");
    }
}

#[test]
fn a_folder_that_can_not_be_served_is_named() {
    let output = annulus(&["check", "--root", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    let wanted = "annulus: cannot serve files from /nonexistent: No such file";
    assert!(text(&output.stderr).starts_with(wanted), "{output:?}");
}

#[test]
fn a_data_directory_that_is_something_elses_is_refused_by_check_and_left_alone() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let output = annulus(&["check", "--data", folder]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let wanted = format!("annulus: {folder} is no store of annulus: it holds ");
    assert!(text(&output.stderr).starts_with(&wanted), "{output:?}");
}

#[test]
fn a_taken_port_is_named_with_the_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let address = address.as_str();
    let output =
        annulus(&["serve", "--data", "none", "--shards", "1", "--resp", address, "--http", "off"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let wanted = format!("annulus: cannot listen on {address} for resp: the port is taken");
    assert!(text(&output.stderr).contains(&wanted), "{output:?}");
}
