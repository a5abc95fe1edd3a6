//! Child processes: started, talked to by pipes, waited for, ended; and a pool of them.
//!
//! Starting is `std`'s ([`std::process::Command`]); waiting is an operation of the shard.
//! Invariant: a child is collected by whoever waits for it, or by the reaper: none stays behind as
//! a zombie.

mod child;
pub mod handover;
pub mod pool;
mod reaper;

use std::ffi::OsStr;
use std::fmt;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::process::{Command as StdCommand, Output};
use std::task::Poll;

pub use std::process::{ExitStatus, Stdio};

pub use self::child::{Child, ChildStderr, ChildStdin, ChildStdout};
use self::handover::Handover;
use crate::error::{Errno, Error, Result};
use crate::limits;
use crate::shard::placement;

/// A program to start as a child process, as [`std::process::Command`] with an async child.
///
/// ```
/// use annulus::{Runtime, process::{Command, Stdio}};
///
/// Runtime::new()?.block_on(async {
///     let mut child = Command::new("tr").args(["a-z", "A-Z"])
///         .stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
///     let mut stdin = child.stdin.take().expect("it is piped");
///     stdin.write_all(b"loud").await?;
///     stdin.close().await?;
///     let mut stdout = child.stdout.take().expect("it is piped");
///     assert_eq!(stdout.recv().await?.as_deref(), Some(&b"LOUD"[..]));
///     assert!(child.wait().await?.success());
///     annulus::Result::Ok(())
/// })?;
/// # annulus::Result::Ok(())
/// ```
pub struct Command {
    inner: StdCommand,
    handover: Handover,
    kill_on_drop: bool,
    has_stdin: bool,
    has_stdout: bool,
    has_stderr: bool,
}

impl Command {
    /// A command that runs `program`, looked for in `PATH` unless it has a slash; without
    /// arguments, with this process's environment, directory and standard streams.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            inner: StdCommand::new(program),
            handover: Handover::default(),
            kill_on_drop: false,
            has_stdin: false,
            has_stdout: false,
            has_stderr: false,
        }
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.inner.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item: AsRef<OsStr>>) -> &mut Self {
        self.inner.args(args);
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env(key, value);
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        self.inner.envs(variables);
        self
    }

    /// Does not hand on a variable.
    pub fn env_remove(&mut self, key: impl AsRef<OsStr>) -> &mut Self {
        self.inner.env_remove(key);
        self
    }

    /// Hands on no variable but those set after this.
    pub fn env_clear(&mut self) -> &mut Self {
        self.inner.env_clear();
        self
    }

    /// The child's working directory. A relative program path is better made absolute then.
    pub fn current_dir(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.inner.current_dir(directory);
        self
    }

    /// The child's standard input: [`Stdio::piped`], [`Stdio::null`], [`Stdio::inherit`] (the
    /// default, null for [`Command::output`]), a file, or a pipe's end by
    /// [`into_stdio`](crate::ipc::pipe::Receiver::into_stdio).
    pub fn stdin(&mut self, stdin: impl Into<Stdio>) -> &mut Self {
        self.has_stdin = true;
        self.inner.stdin(stdin);
        self
    }

    /// The child's standard output, as [`Command::stdin`]; piped by default for
    /// [`Command::output`].
    pub fn stdout(&mut self, stdout: impl Into<Stdio>) -> &mut Self {
        self.has_stdout = true;
        self.inner.stdout(stdout);
        self
    }

    /// The child's standard error, as [`Command::stdout`].
    pub fn stderr(&mut self, stderr: impl Into<Stdio>) -> &mut Self {
        self.has_stderr = true;
        self.inner.stderr(stderr);
        self
    }

    /// Ends the child (SIGKILL) when its [`Child`] is dropped before it has ended. Off by default:
    /// a dropped child runs on.
    pub fn kill_on_drop(&mut self, on: bool) -> &mut Self {
        self.kill_on_drop = on;
        self
    }

    /// Hands descriptors over to the child, which finds them under `name` by
    /// [`handover::inherited`]. They are closed here once the child has started, so a command that
    /// hands something over starts one child.
    ///
    /// # Errors
    /// `is_config` for a name that is empty or has `=` or NUL in it; the errors of fcntl(2).
    pub fn hand_over(
        &mut self,
        name: &str,
        descriptors: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<&mut Self> {
        self.handover.add(&mut self.inner, name, descriptors.into_iter().collect())?;
        Ok(self)
    }

    /// The command as `std` has it, for what is not offered here (process groups, user ids, a
    /// closure before exec). What it is told of standard streams is not known here: `output` and
    /// `status` set their defaults over it.
    pub fn as_std_mut(&mut self) -> &mut StdCommand {
        &mut self.inner
    }

    /// Starts the child. It may run on the CPUs that this thread could use before a runtime pinned
    /// it, and gets time slices of the usual length. (A child that `std` starts on a shard inherits
    /// the shard's one CPU; one of a thread of the cpu pool also its niceness.)
    ///
    /// This call blocks its shard until the child's exec has succeeded or failed: `std` starts it
    /// by posix_spawn(3), typically well below a millisecond whatever this process's size; with a
    /// changed directory or a handover by fork(2), which takes longer in a large process. Where
    /// that matters, start children on a shard of their own, or by [`crate::blocking::run`] as a
    /// [`std::process::Command`].
    ///
    /// # Errors
    /// `is_not_found` if there is no such program; EACCES if it is not executable; the errors of
    /// fork(2) and execve(2). `is_config` for a second child of a command that hands over.
    ///
    /// # Panics
    /// Outside a runtime, if a standard stream is piped; the child is ended (SIGKILL) first.
    pub fn spawn(&mut self) -> Result<Child> {
        self.handover.begin()?;
        let spawned = placement::off_seat(|| self.inner.spawn());
        let child = spawned.map_err(|error| {
            let program = self.inner.get_program().display();
            Error::io(format!("starting `{program}`"), Errno::from_io(&error))
        })?;
        self.handover.end();
        Ok(Child::new(child, self.kill_on_drop))
    }

    /// Starts the child and waits until it has ended. Given up, it runs on, or is ended where
    /// [`Command::kill_on_drop`] says so.
    ///
    /// # Errors
    /// As [`Command::spawn`] and [`Child::wait`].
    pub async fn status(&mut self) -> Result<ExitStatus> {
        self.spawn()?.wait().await
    }

    /// Starts the child, collects what it writes to its standard output and error, and waits until
    /// it has ended. Standard input is null unless it was set.
    ///
    /// Given up, the child runs on, or is ended where [`Command::kill_on_drop`] says so.
    ///
    /// # Errors
    /// `is_limit` past [`limits::PROCESS_OUTPUT_BYTES_MAX`], and the child is ended; as
    /// [`Command::spawn`] and [`Child::wait`].
    pub async fn output(&mut self) -> Result<Output> {
        self.set_unset_streams(Stdio::null, Stdio::piped);
        let spawned = self.spawn();
        // The defaults of `output` are not those of a later `spawn`.
        self.set_unset_streams(Stdio::inherit, Stdio::inherit);
        spawned?.wait_with_output().await
    }

    fn set_unset_streams(&mut self, input: fn() -> Stdio, output: fn() -> Stdio) {
        if !self.has_stdin {
            self.inner.stdin(input());
        }
        if !self.has_stdout {
            self.inner.stdout(output());
        }
        if !self.has_stderr {
            self.inner.stderr(output());
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Both at once; the first error ends it.
async fn both<A, B>(
    first: impl Future<Output = Result<A>>,
    second: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut a, mut b) = (None, None);
    poll_fn(move |context| {
        if a.is_none()
            && let Poll::Ready(value) = first.as_mut().poll(context)
        {
            match value {
                Ok(value) => a = Some(value),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        if b.is_none()
            && let Poll::Ready(value) = second.as_mut().poll(context)
        {
            match value {
                Ok(value) => b = Some(value),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        match (a.take(), b.take()) {
            (Some(a), Some(b)) => Poll::Ready(Ok((a, b))),
            (left, right) => {
                (a, b) = (left, right);
                Poll::Pending
            }
        }
    })
    .await
}

const _: () = assert!(limits::PROCESS_OUTPUT_BYTES_MAX >= limits::PIPE_CHUNK_BYTES_MAX);
