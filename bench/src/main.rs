//! `annulus-bench`: load generator, floors, peers and the comparison of engines.
//!
//! Called from the command line and by `scripts/bench`. Every subcommand returns one [`Failure`] or
//! nothing; the exit code is decided here and nowhere else: 0, 1 (failed while running), 2 (usage).

mod accounting;
mod affinity;
mod compare;
mod disk;
mod environment;
mod failure;
mod floor;
mod load;
mod peers;
mod report;
mod scratch;
mod stored;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;

/// Measures annulus, the floors under it and the runtimes beside it.
#[derive(Debug, Parser)]
#[command(name = "annulus-bench", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Compare engines, floors and peers, and write a report.
    Compare(compare::Arguments),
    /// Measure a disk by depth and block size, on every engine.
    Disk(disk::Arguments),
    /// Measure how fast a server is back after a crash.
    Recovery(stored::recovery::Arguments),
    /// Measure what a snapshot costs those who read meanwhile, and in memory.
    Snapshot(stored::snapshot::Arguments),
    /// Drive a server with checked requests and report rate, latency and errors.
    Load(load::command::Arguments),
    /// Serve as a bare loop without any runtime: the limit that a runtime is measured against.
    Floor(floor::Arguments),
    /// Serve echo on another runtime.
    Peer(peers::Arguments),
}

/// Prints a line; a reader that has gone away (`| head`) is no error.
pub(crate) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Compare(arguments) => compare::run(arguments),
        Command::Disk(arguments) => disk::run(arguments),
        Command::Recovery(arguments) => stored::recovery::run(arguments),
        Command::Snapshot(arguments) => stored::snapshot::run(arguments),
        Command::Load(arguments) => load::command::run_command(arguments),
        Command::Floor(arguments) => floor::run(arguments),
        Command::Peer(arguments) => peers::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("annulus-bench: {failure}");
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                Failure::Failed(_) => ExitCode::FAILURE,
            }
        }
    }
}
