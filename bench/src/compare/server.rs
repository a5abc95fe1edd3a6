//! A contender's process: started on its core, watched, and ended by its pid whatever happens.
//!
//! Invariant: a started process is ended when its [`Server`] is dropped: at the end of its rounds,
//! on an error, on ctrl-c (which ends the run as an error) and while a panic unwinds.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::contender::Contender;
use super::cores::Cores;
use super::site::Site;
use super::workload::Service;
use crate::affinity;
use crate::failure::Failure;

/// How long a server may take until it accepts.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at a starting or ending server.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How much of a failed server's output is shown.
const LOG_BYTES_SHOWN: usize = 800;

/// A running contender.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) contender: Contender,
    pub(crate) address: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `contender` on the server's cores and waits until it accepts; what it stores goes to
    /// `data`. The calling thread is on the load's cores afterwards.
    pub(crate) fn start(
        contender: Contender,
        service: Service,
        site: &Site,
        data: Option<&Path>,
        cores: &Cores,
    ) -> Result<Self, Failure> {
        let name = contender.name();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let log = site.directory.join(format!("{}.log", name.replace(' ', "-")));
        let output = File::create(&log).map_err(|error| Failure::failed("server log", error))?;
        let errors = output.try_clone().map_err(|error| Failure::failed("server log", error))?;
        let mut command = contender.command(service, address.port(), site, data)?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        // A child inherits the mask of the thread that starts it.
        affinity::pin(&cores.server)?;
        let child = command.spawn();
        affinity::pin(&cores.load)?;
        let child = child.map_err(|error| {
            Failure::failed(format!("cannot start {}", command.get_program().display()), error)
        })?;
        let mut server = Self { contender, address, child, log };
        server.wait_until_accepting()?;
        Ok(server)
    }

    /// The process, for accounting.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    fn wait_until_accepting(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            self.check_alive()?;
            if TcpStream::connect_timeout(&self.address, POLL_INTERVAL).is_ok() {
                // What accepted may be another program that took the port first.
                thread::sleep(POLL_INTERVAL);
                return self.check_alive();
            }
            if Instant::now() > deadline {
                let what = format!(
                    "{} does not accept on {} within {} s",
                    self.contender.name(),
                    self.address,
                    START_TIMEOUT.as_secs()
                );
                return Err(Failure::failed(what, self.last_words()));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Fails with the end of the server's output if it has ended.
    pub(crate) fn check_alive(&mut self) -> Result<(), Failure> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let what = format!("{} ended ({status})", self.contender.name());
                Err(Failure::failed(what, self.last_words()))
            }
            Err(error) => Err(Failure::failed(self.contender.name(), error)),
        }
    }

    /// What it has said so far.
    pub(crate) fn words(&self) -> String {
        String::from_utf8_lossy(&self.log()).into_owned()
    }

    fn log(&self) -> Vec<u8> {
        fs::read(&self.log).unwrap_or_default()
    }

    /// Ends it as a crash would: nothing is written any more.
    pub(crate) fn kill(mut self) -> Result<(), Failure> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| Failure::failed(self.contender.name(), error))
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let start = log.len().saturating_sub(LOG_BYTES_SHOWN);
        let words = String::from_utf8_lossy(&log[start..]).trim().to_owned();
        if words.is_empty() { "it said nothing".into() } else { words }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        // SIGTERM first: nginx's master has to end its worker.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_TIMEOUT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// A port that nobody has at the moment.
fn free_port() -> Result<u16, Failure> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| Failure::failed("find a free port", error))
}
