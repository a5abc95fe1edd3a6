//! The one error of this program: a message, and whose mistake it was.
//!
//! Every subcommand returns it; `main` turns it into an exit code. A message says what happened, to
//! what, and what to do.

use std::fmt;

/// Why a subcommand did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request cannot be carried out as given (exit code 2).
    Usage(String),
    /// It was carried out and failed (exit code 1).
    Failed(String),
}

impl Failure {
    /// A failure while running, with what was being done and why it failed.
    pub(crate) fn failed(what: impl fmt::Display, why: impl fmt::Display) -> Self {
        Failure::Failed(format!("{what}: {why}"))
    }

    /// A request that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Failed(message) => formatter.write_str(message),
        }
    }
}
