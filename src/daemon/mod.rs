//! The program around the services: flags, configuration, host limits, signals, drain.
//!
//! Called by `main.rs` only. Invariant: settings are resolved once, before anything is opened, and
//! every way to fail ends in a [`Failure`] that says what happened, to what, and what to do.

pub mod check;
pub mod config;
pub mod flags;
pub mod host;
pub mod listen;
pub mod logging;
pub mod reload;
pub mod repair;
pub mod serve;
mod services;
pub mod settings;
pub mod signals;
mod stores;
pub mod unit;
pub mod verify;

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::error::Error;
use crate::store::directory::DirectoryError;
use crate::store::recovery::RecoveryError;
use settings::{Given, Resolved, SettingsError};

/// Why the program ends early.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense, or it asked for help.
    Usage(clap::Error),
    /// The settings make no sense.
    Settings(SettingsError),
    /// The host does not let the program run, or it failed while running.
    Running(String),
}

impl Failure {
    /// Anything that goes wrong once the settings are known.
    pub fn running(reason: impl fmt::Display) -> Self {
        Self::Running(reason.to_string())
    }

    /// Tells the user, and gives the exit code: 0 for help, 1 failed while running, 2 usage or
    /// configuration.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                // Help goes to standard output, errors to standard error.
                let _ = error.print();
                if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS }
            }
            Self::Settings(error) => {
                eprintln!("{}", prefixed(&error.to_string()));
                ExitCode::from(2)
            }
            Self::Running(reason) => {
                eprintln!("{}", prefixed(reason));
                ExitCode::FAILURE
            }
        }
    }
}

fn prefixed(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("annulus: {line}")).collect();
    lines.join("\n")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        if error.is_config() {
            Self::Settings(SettingsError(vec![error.to_string()]))
        } else {
            Self::running(error)
        }
    }
}

impl From<listen::ListenError> for Failure {
    fn from(error: listen::ListenError) -> Self {
        Self::running(error)
    }
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::running(error)
    }
}

impl From<RecoveryError> for Failure {
    fn from(error: RecoveryError) -> Self {
        Self::running(error)
    }
}

impl From<clap::Error> for Failure {
    fn from(error: clap::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::Settings(error)
    }
}

/// Reads the file, if there is one, and resolves it with what flags and environment give.
pub fn load(config: Option<&Path>, given: &[Given]) -> Result<Resolved, SettingsError> {
    let mut all = match config {
        Some(path) => config::read(path)?,
        None => Vec::new(),
    };
    all.extend(flags::from_environment());
    all.extend_from_slice(given);
    settings::resolve(all)
}

/// Prints what the user asked for. Who closes standard output does not want it.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}
