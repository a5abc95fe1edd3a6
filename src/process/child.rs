//! A child process that was started.
//!
//! Waiting has two halves: an operation that says when the child has ended and takes nothing, and
//! `std`'s own `try_wait`, which collects the status once and remembers it. So nothing is lost to a
//! wait that is given up, and no other process can be taken for the child.

use std::fmt;
use std::process::{Child as StdChild, ExitStatus, Output};

use super::{both, reaper};
use crate::error::{Errno, Error, Result};
use crate::ipc::pipe;
use crate::limits;
use crate::op::Op;
use crate::shard::completion::Completion;

/// A child's standard input: closed when dropped, and the child then reads the end.
pub type ChildStdin = pipe::Sender;

/// A child's standard output.
pub type ChildStdout = pipe::Receiver;

/// A child's standard error.
pub type ChildStderr = pipe::Receiver;

/// A started child process.
///
/// Dropped before it has ended it runs on, unless [`Command::kill_on_drop`] was set. Whichever: a
/// thread of the library, started for the first such child and ended after the last, collects its
/// status when it ends, so that no zombie stays behind.
///
/// [`Command::kill_on_drop`]: super::Command::kill_on_drop
pub struct Child {
    /// `None` only while being dropped.
    inner: Option<StdChild>,
    kill_on_drop: bool,
    /// Whether its status was collected.
    is_over: bool,
    /// Its standard input, if that is piped.
    pub stdin: Option<ChildStdin>,
    /// Its standard output, if that is piped.
    pub stdout: Option<ChildStdout>,
    /// Its standard error, if that is piped.
    pub stderr: Option<ChildStderr>,
}

impl Child {
    pub(super) fn new(mut inner: StdChild, kill_on_drop: bool) -> Self {
        let (stdin, stdout, stderr) =
            (inner.stdin.take(), inner.stdout.take(), inner.stderr.take());
        Self {
            inner: Some(inner),
            kill_on_drop,
            is_over: false,
            stdin: stdin.map(|stream| ChildStdin::new(stream.into())),
            stdout: stdout.map(|stream| ChildStdout::new(stream.into())),
            stderr: stderr.map(|stream| ChildStderr::new(stream.into())),
        }
    }

    fn inner(&mut self) -> &mut StdChild {
        self.inner.as_mut().expect("the child is there until the drop")
    }

    /// Its process id; `None` once its status was collected, since the number may be used again.
    pub fn id(&self) -> Option<u32> {
        self.inner.as_ref().filter(|_| !self.is_over).map(StdChild::id)
    }

    /// Its status if it has ended.
    ///
    /// # Errors
    /// The errors of waitpid(2): ECHILD if this process ignores SIGCHLD, or other code has
    /// collected the status.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match self.inner().try_wait() {
            Ok(status) => {
                self.is_over |= status.is_some();
                Ok(status)
            }
            Err(error) => {
                let errno = Errno::from_io(&error);
                // Nothing is left to be collected.
                self.is_over |= errno == Errno(libc::ECHILD);
                Err(Error::io("waiting for a child process", errno))
            }
        }
    }

    /// Waits until the child has ended; then gives its status as often as it is asked. Its
    /// standard input is closed first, if it is still here, since a child may wait for that.
    ///
    /// Cancel-safe: the status is there for the next call.
    ///
    /// # Errors
    /// As [`Child::try_wait`].
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let process = self.inner().id() as libc::pid_t;
            match Completion::new(Op::WaitChild { process, held: None }).await.result {
                // ECHILD and ESRCH: somebody else was first, which `try_wait` then reports.
                Ok(_) | Err(Errno(libc::ECHILD | libc::ESRCH)) => {}
                Err(errno) => return Err(Error::io("waiting for a child process", errno)),
            }
        }
    }

    /// Collects what the child writes to those of its standard output and error that are piped and
    /// still here, and waits until it has ended.
    ///
    /// Not cancel-safe: dropping the future drops the child and what it had written.
    ///
    /// # Errors
    /// `is_limit` past [`limits::PROCESS_OUTPUT_BYTES_MAX`], and the child is ended; as
    /// [`Child::wait`].
    pub async fn wait_with_output(mut self) -> Result<Output> {
        drop(self.stdin.take());
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let collected = both(collect(stdout), collect(stderr)).await;
        if collected.is_err() {
            self.kill_on_drop = true;
        }
        let (stdout, stderr) = collected?;
        Ok(Output { status: self.wait().await?, stdout, stderr })
    }

    /// Sends SIGKILL, without waiting for the end.
    ///
    /// # Errors
    /// The errors of kill(2): EPERM if it runs as another user. None if it has ended.
    pub fn start_kill(&mut self) -> Result<()> {
        let killed = self.inner().kill();
        killed.map_err(|error| Error::io("ending a child process", Errno::from_io(&error)))
    }

    /// Sends SIGKILL and waits for the end. Given up, the child still ends.
    ///
    /// # Errors
    /// As [`Child::start_kill`] and [`Child::wait`].
    pub async fn kill(&mut self) -> Result<ExitStatus> {
        self.start_kill()?;
        self.wait().await
    }
}

async fn collect(stream: Option<pipe::Receiver>) -> Result<Vec<u8>> {
    match stream {
        Some(mut stream) => stream.recv_all(limits::PROCESS_OUTPUT_BYTES_MAX).await,
        None => Ok(Vec::new()),
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.kill_on_drop
            && let Err(error) = self.start_kill()
        {
            tracing::warn!(%error, "a child that was to be killed on drop runs on");
        }
        if let Some(child) = self.inner.take() {
            reaper::adopt(child);
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("id", &self.id()).finish_non_exhaustive()
    }
}
