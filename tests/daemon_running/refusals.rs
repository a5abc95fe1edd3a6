//! Hosts that refuse things: io_uring, lockable memory, descriptors.
//!
//! The refusals are made in the child before it runs the binary, as a container or a service
//! manager would make them.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use super::daemon::Daemon;

/// The daemon, to be started after `prepare` has run in the child.
fn restricted(
    arguments: &[&str],
    prepare: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_annulus"));
    command.args(["serve", "--resp", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data", "none"]);
    command.args(arguments);
    // SAFETY: `prepare` makes system calls only: it neither allocates nor takes locks, as is
    // needed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    command
}

fn result(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn limit(resource: libc::__rlimit_resource_t, most: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: reads a valid rlimit.
    result(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// Refuses io_uring_setup(2) with EPERM, as the default profile of Docker does.
fn refuse_io_uring() -> io::Result<()> {
    const RETURN_ERRNO: u32 = 0x0005_0000;
    const RETURN_ALLOW: u32 = 0x7fff_0000;
    let statement = |code: u32, k: u32, jt, jf| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        // The system call's number is at offset 0 of what a filter sees (seccomp(2)).
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            libc::SYS_io_uring_setup as u32,
            0,
            1,
        ),
        statement(libc::BPF_RET | libc::BPF_K, RETURN_ERRNO | libc::EPERM as u32, 0, 0),
        statement(libc::BPF_RET | libc::BPF_K, RETURN_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program points to its filter, which outlives the calls.
    unsafe {
        result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        result(libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
            0,
            0,
        ))
    }
}

/// Becomes `nobody`, who has no capabilities, if that is allowed; else the user stays.
fn become_nobody() {
    const NOBODY: u32 = 65_534;
    // SAFETY: plain calls with numbers; a failure leaves the user as it was.
    unsafe {
        libc::setgid(NOBODY);
        libc::setuid(NOBODY);
    }
}

#[test]
fn where_io_uring_is_refused_epoll_serves_and_the_reason_is_said() {
    let mut daemon = Daemon::start_command(restricted(&[], refuse_io_uring));
    let said = &daemon.announcement;
    assert!(said.contains("engine   epoll (io_uring is refused (EPERM)"), "{said}");
    assert!(said.contains("seccomp profile"), "{said}");
    assert!(daemon.http("PUT /kv/a", "b").starts_with("HTTP/1.1 20"));
    assert!(daemon.http("GET /kv/a", "").ends_with("\r\n\r\nb"));
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn a_ring_that_is_asked_for_by_name_and_refused_is_an_error() {
    let output = restricted(&["--engine", "uring"], refuse_io_uring).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("the uring engine cannot run here"), "{stderr}");
    assert!(stderr.contains("seccomp profile"), "{stderr}");
}

#[test]
fn little_lockable_memory_is_said_and_something_serves() {
    let prepare = || {
        limit(libc::RLIMIT_MEMLOCK, 64 * 1024)?;
        become_nobody();
        Ok(())
    };
    let arguments = ["--placement", "floating", "--shards", "4"];
    let mut command = restricted(&arguments, prepare);
    // The binary may be in a folder that nobody else may enter.
    command.current_dir("/");
    let mut daemon = Daemon::start_command(command);
    let reply = daemon.http("PUT /kv/a", "b");
    assert!(reply.starts_with("HTTP/1.1 20"), "{reply}\n{}", daemon.announcement);
    assert!(daemon.log().contains("lockable memory is limited to 64KiB"), "{}", daemon.log());
    daemon.signal("TERM");
    assert_eq!(daemon.wait().code(), Some(0));
}

#[test]
fn too_few_descriptors_are_named_with_the_remedy() {
    let prepare = || limit(libc::RLIMIT_NOFILE, 36);
    let output = restricted(&["--shards", "1"], prepare).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("file descriptors are limited to 36"), "{stderr}");
    assert!(stderr.contains("LimitNOFILE="), "{stderr}");
}

#[test]
fn few_descriptors_are_a_warning() {
    let prepare = || limit(libc::RLIMIT_NOFILE, 256);
    let daemon = Daemon::start_command(restricted(&["--shards", "1"], prepare));
    assert!(daemon.log().contains("room for 216 connections"), "{}", daemon.log());
}
