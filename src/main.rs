//! The `annulus` program: understands its command line, resolves settings, and does one thing.
//!
//! Invariant: exit code 0 is success, 1 a failure while running, 2 wrong usage or configuration.

use std::process::ExitCode;

use annulus::daemon::flags::{self, Verb};
use annulus::daemon::{self, Failure, check, repair, serve, verify};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<(), Failure> {
    let request = flags::parse(std::env::args_os())?;
    let resolved = daemon::load(request.config.as_deref(), &request.given)?;
    match &request.verb {
        Verb::PrintConfig => daemon::print(&resolved.to_toml()),
        Verb::Check => {
            let preflight = check::preflight(&resolved.settings)?;
            daemon::print(&preflight.describe(&resolved.settings));
        }
        Verb::Verify(directory) => daemon::print(&verify::run(directory)?),
        Verb::Repair { directory, yes } => daemon::print(&repair::run(directory, *yes)?),
        Verb::Serve => serve::run(request, resolved)?,
    }
    Ok(())
}
