//! Which backend an engine means on this host, and the words for it.

use super::ring;
use super::{Choice, RingSettings};
use crate::engine::{Engine, EngineReport};
use crate::error::{Errno, Error, Result};
use crate::limits;

/// The backend for `engine`, by trying: for `Auto` the ring, else epoll with the reason.
pub(crate) fn choose(engine: Engine, settings: RingSettings) -> Result<(EngineReport, Choice)> {
    let report = |engine, why: &str| EngineReport {
        engine,
        why: why.into(),
        remedy: String::new(),
        details: Vec::new(),
    };
    match engine {
        Engine::Threads => Ok((report(engine, "asked for"), Choice::Blocking)),
        Engine::Epoll => Ok((report(engine, "asked for"), epoll())),
        Engine::Uring | Engine::Auto => match ring::setup::open(&settings) {
            Ok((_, given)) => {
                let why = if engine == Engine::Auto { "the kernel allows it" } else { "asked for" };
                let mut report = report(Engine::Uring, why);
                report.details = given.describe();
                Ok((report, Choice::Ring(settings)))
            }
            Err(errno) => {
                let (why, remedy) = explain(errno);
                if engine == Engine::Uring {
                    let message = format!("the uring engine cannot run here: {why}; {remedy}");
                    return Err(Error::unsupported(message));
                }
                let mut report = report(Engine::Epoll, &why);
                report.remedy = remedy;
                Ok((report, epoll()))
            }
        },
    }
}

/// The backend when single rings were possible but not all of them together.
pub(crate) fn fall_back(error: &Error) -> (EngineReport, Choice) {
    let (_, remedy) = explain(Errno(libc::ENOMEM));
    let why = format!("not every shard got a ring ({error})");
    let report = EngineReport { engine: Engine::Epoll, why, remedy, details: Vec::new() };
    (report, epoll())
}

fn epoll() -> Choice {
    Choice::Epoll { offload_threads: limits::OFFLOAD_THREADS_COUNT }
}

/// Why there is no ring, and what would give one.
fn explain(errno: Errno) -> (String, String) {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let disabled = disabled.map(|text| text.trim().to_owned()).unwrap_or_default();
    let words = |why: &str, remedy: &str| (why.to_owned(), remedy.to_owned());
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
        _ => (format!("io_uring failed: {errno}"), "see io_uring_setup(2)".to_owned()),
    }
}
