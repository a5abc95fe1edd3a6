//! `annulus-bench compare`: every contender on one core, driven from the others, in turns.
//!
//! Called from the command line and by `scripts/bench`. The page reads as the run goes: settings,
//! plan, rounds by service, report. Debug builds are refused: their figures mean nothing.

pub(crate) mod contender;
pub(crate) mod cores;
mod disk;
mod durable;
pub(crate) mod rounds;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod statistics;
pub(crate) mod workload;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::fio;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::report::Report;
use crate::say;
use crate::scratch::FileSystem;
use crate::{affinity, floor, peers};
use contender::{Contender, Engine, installed};
use cores::Cores;
use rounds::{Program, Results};
use site::{RunDirectory, Site};
use workload::{Case, Service, Workload};

/// Measuring time of a run without `--peers` or `--window`: with starts and warm-ups it stays
/// within two minutes.
const BUDGET: Duration = Duration::from_secs(65);
/// Bounds of a window that is chosen by the budget.
const WINDOW_MIN: Duration = Duration::from_millis(200);
const WINDOW_MAX: Duration = Duration::from_secs(1);
/// Before each window; long enough for connections to be accepted and caches to be warm.
const WARMUP: Duration = Duration::from_millis(100);

/// Flags of `annulus-bench compare`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Engines of annulus.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "uring,epoll,threads")]
    engines: Vec<Engine>,
    /// Workloads; by default all, but the durable ones only with `--peers`: they are about redis.
    #[arg(long, value_enum, value_delimiter = ',')]
    workloads: Vec<Workload>,
    /// Connections, instead of each workload's own.
    #[arg(long, value_delimiter = ',')]
    connections: Vec<usize>,
    /// Bytes of an echo payload.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Rounds; contenders take turns in each.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds measured per round, contender and case; by default what fits into two minutes.
    #[arg(long)]
    window: Option<f64>,
    /// Three short rounds: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Floors, other runtimes, redis-server and nginx as well.
    #[arg(long)]
    peers: bool,
    /// Only contenders whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Print the targets, met and missed. Wants `--peers`.
    #[arg(long)]
    targets: bool,
    /// Print the tables in Markdown.
    #[arg(long)]
    markdown: bool,
    /// Where the run's directory is made.
    #[arg(long, default_value = "bench/runs")]
    output: PathBuf,
    /// The end of the run's directory name, after the date.
    #[arg(long, default_value = "compare")]
    name: String,
    /// A directory on the disk that is measured: what servers store and a file of 1 GiB are made
    /// there, and removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// The daemon; by default the `annulus` beside this program.
    #[arg(long)]
    annulus: Option<PathBuf>,
}

/// Runs the comparison and writes its report.
pub(crate) fn run(arguments: Arguments) -> Result<(), Failure> {
    if cfg!(debug_assertions) {
        return Err(Failure::usage(
            "this is a debug build: its figures would mean nothing. Use \
             `cargo run --release -p annulus-bench -- compare`",
        ));
    }
    arguments.check()?;
    floor::raise_descriptor_limit();
    let stop = stop_on_signals()?;
    let directory = RunDirectory::make()?;
    let contenders = arguments.contenders();
    let plan = arguments.plan();
    // Echo is served by this program; everything else by the daemon.
    let daemon_wanted = contenders.iter().any(|one| matches!(one, Contender::Annulus(_)))
        && plan.iter().any(|(service, _)| !matches!(service, Service::Echo | Service::Disk));
    let annulus = arguments.annulus.as_deref();
    let site = Site::find(annulus, daemon_wanted, &directory, &arguments.dir)?;
    let stores = plan.iter().any(|(service, _)| service.is_stored());
    let disk = stores.then(|| FileSystem::of(&arguments.dir)).transpose()?;
    let environment = Environment::read();
    let windows = windows(&plan, &contenders, arguments.rounds());
    let window = arguments.window(windows)?;
    let all_cores = affinity::allowed_cores()?;
    let cores = Cores::split(1)?;
    let mut facts = environment.lines();
    facts.push(("cores", cores.line()));
    if let Some(disk) = disk {
        facts.push(("data", format!("{} at {}", disk.name(), arguments.dir.display())));
    }
    let seconds = window.as_secs_f64();
    facts.push(("rounds", format!("{} rounds of {seconds:.2} s", arguments.rounds())));
    for (fact, value) in facts {
        say(format_args!("{fact:<13} {value}"));
    }
    let progress = progress_bar(windows);
    let program = Program {
        rounds: arguments.rounds(),
        warmup: WARMUP,
        window,
        site: &site,
        stop: &stop,
        progress: &progress,
    };
    let mut results = Results::default();
    for (service, cases) in &plan {
        let part = match service {
            Service::Disk => disk::run(&program, cases, &contenders),
            _ => rounds::run(&program, *service, cases, &contenders),
        };
        // Ctrl-C reaches the servers too, so what they did is no news.
        if stop.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".into()));
        }
        let part = part?;
        results.rows.extend(part.rows);
        results.failures.extend(part.failures);
    }
    progress.finish_and_clear();
    affinity::pin(&all_cores)?;
    let mut report = Report::new(environment, cores, window, arguments.rounds(), results);
    if let Some(disk) = disk {
        report.explain(durable::notes(disk));
    }
    report.print(arguments.markdown, arguments.targets);
    let path = report.write(&arguments.output, &arguments.name)?;
    say(format_args!("\nwritten to {}", path.display()));
    report.verdict()
}

impl Arguments {
    fn check(&self) -> Result<(), Failure> {
        if self.rounds == 0 {
            return Err(Failure::usage("--rounds must be at least 1"));
        }
        if self.connections.contains(&0) {
            return Err(Failure::usage("--connections must be at least 1"));
        }
        if self.payload == 0 {
            return Err(Failure::usage("--payload must be at least 1"));
        }
        if self.targets && !self.peers {
            return Err(Failure::usage("--targets compares with others: add --peers"));
        }
        check_name(&self.name)
    }

    fn rounds(&self) -> usize {
        if self.quick { self.rounds.min(3) } else { self.rounds }
    }

    fn plan(&self) -> Vec<(Service, Vec<Case>)> {
        let mut workloads = self.workloads.clone();
        if workloads.is_empty() {
            workloads.extend(Workload::ALL);
            workloads.retain(|workload| self.peers || !workload.is_stored());
        }
        workload::plan(&workloads, &self.connections, self.payload, !self.quick)
    }

    /// Everybody who takes part, as far as installed and built in; says who is not.
    fn contenders(&self) -> Vec<Contender> {
        let mut all: Vec<Contender> =
            self.engines.iter().copied().map(Contender::Annulus).collect();
        if self.peers {
            let floors = [floor::Engine::Ring, floor::Engine::Epoll, floor::Engine::Threads];
            all.extend(floors.map(Contender::Floor));
            if peers::BUILT_IN {
                all.extend(peers::Name::OTHERS.map(Contender::Peer));
            } else {
                eprintln!("without tokio, monoio, compio and glommio: add `--features peers`");
            }
            for (contender, program) in [
                (Contender::Redis, "redis-server"),
                (Contender::Nginx, "nginx"),
                (Contender::Fio, fio::PROGRAM),
            ] {
                if installed(program) {
                    all.push(contender);
                } else {
                    eprintln!("without {program}: not found in PATH");
                }
            }
        }
        let chosen = |one: &Contender| {
            self.only.is_empty() || self.only.iter().any(|part| one.name().contains(part.as_str()))
        };
        all.into_iter().filter(chosen).collect()
    }

    /// The window of each of `windows` measurements.
    fn window(&self, windows: usize) -> Result<Duration, Failure> {
        if windows == 0 {
            return Err(Failure::usage("nothing to compare: no contender serves these workloads"));
        }
        if let Some(seconds) = self.window {
            return Duration::try_from_secs_f64(seconds)
                .ok()
                .filter(|window| !window.is_zero())
                .ok_or_else(|| Failure::usage("--window must be a number of seconds above zero"));
        }
        if self.quick {
            return Ok(WINDOW_MIN);
        }
        let fair = BUDGET / windows as u32;
        // With peers there is no promise about the time, only about the windows.
        let min = if self.peers { WINDOW_MIN * 2 } else { WINDOW_MIN };
        Ok(fair.clamp(min, WINDOW_MAX))
    }
}

/// The name of a run ends its directory's.
pub(crate) fn check_name(name: &str) -> Result<(), Failure> {
    if name.contains('/') || name.is_empty() {
        return Err(Failure::usage("--name is part of a directory's name: no /, not empty"));
    }
    Ok(())
}

/// How many measurements a run takes.
fn windows(plan: &[(Service, Vec<Case>)], contenders: &[Contender], rounds: usize) -> usize {
    let per_round: usize = plan
        .iter()
        .map(|(service, cases)| {
            cases.len() * contenders.iter().filter(|one| one.serves(*service)).count()
        })
        .sum();
    per_round * rounds
}

fn progress_bar(windows: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {eta:>4} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(windows as u64).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// A flag that SIGINT and SIGTERM raise; a second one ends the program at once.
pub(crate) fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| Failure::failed("signals", error))?;
    }
    Ok(stop)
}
