//! What stored data costs beside the writing of it: `annulus-bench recovery` and `snapshot`.
//!
//! Called from the command line. This file holds what both share: flags, and the stage on which
//! servers are started. Invariant: servers take turns on one core, as in `compare`.

pub(crate) mod recovery;
mod resident;
pub(crate) mod snapshot;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;

use crate::compare::contender::{Contender, Engine, installed};
use crate::compare::cores::Cores;
use crate::compare::server::Server;
use crate::compare::site::{RunDirectory, Site};
use crate::compare::workload::{Durability, Service};
use crate::compare::{check_name, stop_on_signals};
use crate::environment::Environment;
use crate::failure::Failure;
use crate::report::sheet::Sheet;
use crate::report::table::Table;
use crate::scratch::{FileSystem, Scratch};
use crate::{affinity, floor, say};

/// Most keys that are made: their numbers have twelve digits, and they have to fit into memory.
const KEYS_MAX: u64 = 1_000_000_000;
/// Most bytes of a value.
const VALUE_BYTES_MAX: usize = 1 << 20;

/// Flags of both.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// A directory on the disk that is measured: data directories are made there, and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Engines of annulus.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,epoll,threads")]
    engines: Vec<Engine>,
    /// redis-server as well.
    #[arg(long)]
    peers: bool,
    /// Only contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Rounds; contenders take turns in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value: usize,
    /// Print the tables in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Where the run's directory is made.
    #[arg(long, default_value = "bench/runs")]
    output: PathBuf,
    /// The daemon; by default the `annulus` beside this program.
    #[arg(long)]
    annulus: Option<PathBuf>,
}

impl Flags {
    fn check(&self, keys_flag: &str, keys: u64, name: &str) -> Result<(), Failure> {
        if self.rounds == 0 {
            return Err(Failure::usage("--rounds must be at least 1"));
        }
        if keys == 0 || keys > KEYS_MAX {
            return Err(Failure::usage(format!("{keys_flag} must be 1 to {KEYS_MAX}")));
        }
        if self.value > VALUE_BYTES_MAX {
            return Err(Failure::usage(format!("--value must be 0 to {VALUE_BYTES_MAX} bytes")));
        }
        check_name(name)
    }

    /// Everybody who takes part.
    fn contenders(&self) -> Result<Vec<Contender>, Failure> {
        let mut all: Vec<Contender> =
            self.engines.iter().copied().map(Contender::Annulus).collect();
        if self.peers && installed("redis-server") {
            all.push(Contender::Redis);
        } else if self.peers {
            eprintln!("without redis-server: not found in PATH");
        }
        all.retain(|one| {
            self.only.is_empty() || self.only.iter().any(|part| one.name().contains(part.as_str()))
        });
        if all.is_empty() {
            return Err(Failure::usage("nobody takes part: see --engines, --peers and --only"));
        }
        Ok(all)
    }

    /// Makes everything ready for servers; what else was asked for is in `about`.
    fn stage(
        &self,
        command: &'static str,
        about: Vec<(&'static str, String)>,
    ) -> Result<(Stage, Sheet), Failure> {
        let contenders = self.contenders()?;
        let disk = FileSystem::of(&self.dir)?;
        let stop = stop_on_signals()?;
        floor::raise_descriptor_limit();
        let directory = RunDirectory::make()?;
        let ours = contenders.iter().any(|one| matches!(one, Contender::Annulus(_)));
        let site = Site::find(self.annulus.as_deref(), ours, &directory, &self.dir)?;
        let cores = Cores::split(1)?;
        let own = [
            ("cores", cores.line()),
            ("data", format!("{} at {}", disk.name(), self.dir.display())),
            ("rounds", self.rounds.to_string()),
        ];
        let sheet = Sheet {
            command,
            environment: Environment::read(),
            about: own.into_iter().chain(about).collect(),
            table: Table::new(Vec::new()),
            lines: Vec::new(),
            targets: Vec::new(),
            notes: disk.warning().into_iter().collect(),
            failures: Vec::new(),
        };
        sheet.introduce();
        let all_cores = affinity::allowed_cores()?;
        Ok((Stage { contenders, stop, site, cores, all_cores, _directory: directory }, sheet))
    }

    /// Prints and writes what came out.
    fn publish(&self, sheet: &Sheet, name: &str) -> Result<(), Failure> {
        sheet.print(self.markdown);
        let path = sheet.write(&self.output, name)?;
        say(format_args!("\nwritten to {}", path.display()));
        sheet.verdict()
    }
}

/// Where servers are started, one after the other or side by side.
struct Stage {
    contenders: Vec<Contender>,
    stop: Arc<AtomicBool>,
    site: Site,
    cores: Cores,
    all_cores: Vec<usize>,
    // Goes when the last server has ended.
    _directory: RunDirectory,
}

impl Stage {
    fn scratch(&self) -> Result<Scratch, Failure> {
        Scratch::make(&self.site.disk)
    }

    /// Starts a server that stores in `data`.
    fn server(
        &self,
        contender: Contender,
        durability: Durability,
        data: &Scratch,
    ) -> Result<Server, Failure> {
        let service = Service::Stored(durability);
        Server::start(contender, service, &self.site, Some(data.path()), &self.cores)
    }

    /// An error once somebody has pressed ctrl-c.
    fn check_stop(&self) -> Result<(), Failure> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".into()));
        }
        Ok(())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It was pinned for the sake of the servers only.
        let _ = affinity::pin(&self.all_cores);
    }
}
