//! The engines a user may pick, and what the host made of the choice.
//!
//! The runtime fills in an [`EngineReport`] when it probes the host; the daemon prints it at start
//! and in `annulus check`. Invariant: a report never names `Auto`: that is a wish, not a result.

use std::fmt;
use std::str::FromStr;

/// How operations are performed, and by which threads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Engine {
    /// `Uring` where the host allows it, else `Epoll`.
    #[default]
    Auto,
    /// One io_uring and one pinned thread per shard.
    Uring,
    /// Readiness by epoll, one pinned thread per shard.
    Epoll,
    /// Plain blocking calls, one thread per connection.
    Threads,
}

impl Engine {
    /// Every engine by name.
    pub const ALL: [(&'static str, Self); 4] = [
        ("auto", Self::Auto),
        ("uring", Self::Uring),
        ("epoll", Self::Epoll),
        ("threads", Self::Threads),
    ];

    /// The name as written in flags and configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Epoll => "epoll",
            Self::Threads => "threads",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The text names no engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an engine is auto, uring, epoll or threads")]
pub struct NoSuchEngine;

impl FromStr for Engine {
    type Err = NoSuchEngine;

    fn from_str(text: &str) -> Result<Self, NoSuchEngine> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, engine)| engine).ok_or(NoSuchEngine)
    }
}

/// What runs, why, and what would have been better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineReport {
    /// The engine that runs.
    pub engine: Engine,
    /// Why it is this one, as half a sentence: `asked for`, `io_uring is refused (EPERM)`.
    pub why: String,
    /// What would let the host run a better one; empty if nothing is missing.
    pub remedy: String,
    /// What this engine uses and what it had to give up, one line each.
    pub details: Vec<String>,
}

impl fmt::Display for EngineReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.engine, self.why)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(formatter, "; {}", self.remedy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_parsed_by_the_name_they_print() {
        for (name, engine) in Engine::ALL {
            assert_eq!(engine.to_string(), name);
            assert_eq!(name.parse(), Ok(engine));
        }
        assert_eq!("io_uring".parse::<Engine>(), Err(NoSuchEngine));
    }

    #[test]
    fn a_report_reads_as_one_line() {
        let report = EngineReport {
            engine: Engine::Epoll,
            why: "io_uring is refused: Operation not permitted".into(),
            remedy: "allow io_uring in the seccomp profile".into(),
            details: Vec::new(),
        };
        assert_eq!(
            report.to_string(),
            "epoll (io_uring is refused: Operation not permitted); allow io_uring in the seccomp \
             profile"
        );
    }
}
