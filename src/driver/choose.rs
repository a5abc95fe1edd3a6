//! Which backend an engine means on this host, and the words for it.

use super::ring;
use super::{Choice, RingSettings};
use crate::engine::{Engine, EngineReport};
use crate::error::{Errno, Error, Result};
use crate::limits;

/// Why an engine runs that was named.
pub(crate) const ASKED_FOR: &str = "asked for";

/// The backend that `engine` means where nothing stands against it.
pub(crate) fn assume(engine: Engine, settings: RingSettings) -> (EngineReport, Choice) {
    match engine {
        Engine::Threads => (report(engine, ASKED_FOR), Choice::Blocking),
        Engine::Epoll => (report(engine, ASKED_FOR), EPOLL),
        Engine::Uring => (report(engine, ASKED_FOR), Choice::Ring(settings)),
        Engine::Auto => (report(Engine::Uring, "the kernel allows it"), Choice::Ring(settings)),
    }
}

/// The backend for `engine` on this host, by opening a ring and closing it again.
pub(crate) fn choose(engine: Engine, settings: RingSettings) -> Result<(EngineReport, Choice)> {
    let (mut report, choice) = assume(engine, settings);
    let Choice::Ring(_) = choice else { return Ok((report, choice)) };
    match ring::setup::open(&settings) {
        Ok((_, given)) => {
            report.details = given.describe();
            Ok((report, choice))
        }
        Err(errno) => fall_back(engine, Error::io("opening a ring", errno)),
    }
}

/// The next best backend after a ring could not be had, or the error where there is none: only
/// `Auto` falls back, and only from what a host can refuse.
pub(crate) fn fall_back(engine: Engine, error: Error) -> Result<(EngineReport, Choice)> {
    let Some((why, remedy)) = error.errno().and_then(explain) else { return Err(error) };
    match engine {
        Engine::Auto => {
            let report = EngineReport { remedy, ..report(Engine::Epoll, &why) };
            Ok((report, EPOLL))
        }
        Engine::Uring => {
            Err(Error::unsupported(format!("the uring engine cannot run here: {why}; {remedy}")))
        }
        Engine::Epoll | Engine::Threads => Err(error),
    }
}

const EPOLL: Choice = Choice::Epoll { offload_threads: limits::OFFLOAD_THREADS_COUNT };

fn report(engine: Engine, why: &str) -> EngineReport {
    EngineReport { engine, why: why.into(), remedy: String::new(), details: Vec::new() }
}

/// Why there is no ring, and what would give one. `None` for an error that has nothing to do with
/// rings.
fn explain(errno: Errno) -> Option<(String, String)> {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.map(|text| text.trim().to_owned()).unwrap_or_default();
    let words = |why: &str, remedy: &str| Some((why.to_owned(), remedy.to_owned()));
    match errno.0 {
        libc::EPERM | libc::EACCES if disabled == "2" || disabled == "1" => words(
            &format!("io_uring is disabled (kernel.io_uring_disabled = {disabled})"),
            "allow it with `sysctl kernel.io_uring_disabled=0`, or run as a member of \
             kernel.io_uring_group where it is 1",
        ),
        libc::EPERM | libc::EACCES => words(
            "io_uring is refused (EPERM), most likely by a seccomp profile",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's \
             seccomp profile",
        ),
        libc::ENOSYS => words(
            "io_uring is missing (ENOSYS): the kernel was built without it, or a seccomp profile \
             hides it",
            "use a kernel with CONFIG_IO_URING, or allow the io_uring calls in the seccomp profile",
        ),
        libc::ENOMEM => words(
            "too little lockable memory for a ring (ENOMEM)",
            "raise RLIMIT_MEMLOCK (`ulimit -l`, or LimitMEMLOCK= in the systemd unit)",
        ),
        libc::EOPNOTSUPP | libc::EINVAL => words(
            "this kernel's io_uring lacks multishot receive (Linux 6.0)",
            "use Linux 6.1 or newer",
        ),
        _ => None,
    }
}
