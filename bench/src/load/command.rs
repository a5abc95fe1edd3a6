//! `annulus-bench load`: flags to settings, one run, a few lines or JSON to stdout.
//!
//! Exit code 0 only if every reply was what it had to be.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::exchange::{HttpRequest, Operation, Values, Work};
use super::{Outcome, Settings, prepare, run};
use crate::affinity;
use crate::failure::Failure;
use crate::floor::raise_descriptor_limit;
use crate::say;

/// Most bytes of one payload.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Echo,
    Resp,
    Http,
}

/// Flags of `annulus-bench load`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What the server speaks.
    #[arg(long, value_enum)]
    protocol: Protocol,
    /// The server, as HOST:PORT.
    #[arg(long)]
    address: String,
    /// Connections, all open for the whole run.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Requests per second in all: open loop, latency from the intended time. Without: closed loop.
    #[arg(long)]
    rate: Option<f64>,
    /// Requests in flight per connection.
    #[arg(long, default_value_t = 1)]
    pipeline: usize,
    /// Bytes of an echo payload, of a RESP value, of a PUT or POST body.
    #[arg(long, default_value_t = 64)]
    payload: usize,
    /// Seconds measured.
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1.0)]
    warmup: f64,
    /// RESP: which commands.
    #[arg(long, value_enum, default_value = "get")]
    operation: Operation,
    /// RESP: how many keys. They are set before the run, unless `--no-prepare`.
    #[arg(long, default_value_t = 100_000)]
    keys: u64,
    /// RESP: leave the keys as they are.
    #[arg(long)]
    no_prepare: bool,
    /// HTTP: the path.
    #[arg(long, default_value = "/")]
    path: String,
    /// HTTP: the method.
    #[arg(long, default_value = "GET")]
    method: String,
    /// HTTP: PUT the payload to the path before the run, and expect it back.
    #[arg(long)]
    put: bool,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Cores for the workers, as 1 or 1,3.
    #[arg(long, value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Never sleep in the load threads, so that the server need not pay for waking them. Wants
    /// `--cpu` with cores that the server leaves alone.
    #[arg(long)]
    spin: bool,
    /// Process of the server, to report its CPU time per request.
    #[arg(long)]
    pid: Option<u32>,
    /// Print one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the load that `arguments` describe and prints what came out.
pub(crate) fn run_command(arguments: Arguments) -> Result<(), Failure> {
    let settings = arguments.resolve()?;
    raise_descriptor_limit();
    if !arguments.cpu.is_empty() {
        let allowed = affinity::allowed_cores()?;
        if let Some(core) = arguments.cpu.iter().find(|core| !allowed.contains(core)) {
            return Err(Failure::usage(format!(
                "--cpu {core}: this process may use cores {allowed:?}"
            )));
        }
    }
    match &settings.work {
        Work::Resp { operation, values }
            if *operation != Operation::Ping && !arguments.no_prepare =>
        {
            prepare::set_all(settings.address, values)?;
        }
        Work::Http(_) if arguments.put => {
            prepare::put(settings.address, &arguments.path, &payload(arguments.payload))?;
        }
        _ => {}
    }
    let outcome = run(&settings, &AtomicBool::new(false))?;
    if arguments.json {
        say(format_args!("{}", to_json(&outcome)));
    } else {
        print(&outcome);
    }
    match (outcome.tally.errors.total(), outcome.requests) {
        (0, 0) => Err(Failure::failed(settings.address, "no reply in the measured window")),
        (0, _) => Ok(()),
        _ => Err(Failure::failed(
            outcome.tally.errors,
            outcome.tally.first_error.as_deref().unwrap_or("no details"),
        )),
    }
}

impl Arguments {
    /// Checks every flag, once, and gives them their meaning.
    fn resolve(&self) -> Result<Settings, Failure> {
        let at_least_one = [
            ("--connections", self.connections),
            ("--pipeline", self.pipeline),
            ("--threads", self.threads),
            ("--keys", self.keys as usize),
        ];
        for (flag, value) in at_least_one {
            if value == 0 {
                return Err(Failure::usage(format!("{flag} must be at least 1")));
            }
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return Err(Failure::usage("--rate must be a positive number of requests per second"));
        }
        if self.payload > PAYLOAD_BYTES_MAX
            || (self.protocol == Protocol::Echo && self.payload == 0)
        {
            return Err(Failure::usage(format!(
                "--payload must be 1 to {PAYLOAD_BYTES_MAX} bytes"
            )));
        }
        if !self.path.starts_with('/') || self.path.contains(|c: char| c.is_control() || c == ' ') {
            return Err(Failure::usage("--path must start with / and hold no blanks"));
        }
        let address = self
            .address
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| {
                Failure::usage(format!("--address {}: not a HOST:PORT that exists", self.address))
            })?;
        Ok(Settings {
            address,
            work: self.work(),
            connections: self.connections,
            pipeline: self.pipeline,
            rate: self.rate,
            warmup: seconds("--warmup", self.warmup, 0.0)?,
            duration: seconds("--duration", self.duration, 0.001)?,
            threads: self.threads,
            cores: self.cpu.clone(),
            spin: self.spin,
            server: self.pid,
        })
    }

    fn work(&self) -> Work {
        match self.protocol {
            Protocol::Echo => Work::Echo { payload_bytes: self.payload },
            Protocol::Resp => Work::Resp {
                operation: self.operation,
                values: Arc::new(Values::new(self.keys, self.payload)),
            },
            Protocol::Http => {
                let method = self.method.to_ascii_uppercase();
                let sends_body = method == "PUT" || method == "POST";
                let body = if sends_body { payload(self.payload) } else { Vec::new() };
                let expected = self.put.then(|| payload(self.payload));
                let request = HttpRequest::new(&method, &self.address, &self.path, &body, expected);
                Work::Http(Arc::new(request))
            }
        }
    }
}

fn seconds(flag: &str, value: f64, min: f64) -> Result<Duration, Failure> {
    Duration::try_from_secs_f64(value)
        .ok()
        .filter(|_| value >= min)
        .ok_or_else(|| Failure::usage(format!("{flag} must be a number of seconds, not {value}")))
}

/// The body of a PUT or POST: letters in order.
pub(crate) fn payload(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|index| b'a' + (index % 26) as u8).collect()
}

fn print(outcome: &Outcome) {
    let latency = &outcome.tally.latency;
    let micros = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    say(format_args!(
        "requests     {} in {:.2} s",
        outcome.requests,
        outcome.elapsed.as_secs_f64()
    ));
    say(format_args!("rate         {:.0} requests/s", outcome.rate()));
    say(format_args!(
        "latency µs   p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  max {:.1}",
        micros(0.5),
        micros(0.9),
        micros(0.99),
        micros(0.999),
        latency.max() as f64 / 1000.0
    ));
    if let Some(server) = outcome.server_us() {
        say(format_args!("server CPU   {server:.3} µs per request"));
    }
    say(format_args!("load CPU     {:.3} µs per request", outcome.load_us()));
    say(format_args!("errors       {}", outcome.tally.errors));
    if outcome.tally.unanswered > 0 {
        say(format_args!("unanswered   {} requests were due at the end", outcome.tally.unanswered));
    }
}

fn to_json(outcome: &Outcome) -> serde_json::Value {
    let latency = &outcome.tally.latency;
    json!({
        "requests": outcome.requests,
        "seconds": outcome.elapsed.as_secs_f64(),
        "rate": outcome.rate(),
        "latency_ns": {
            "p50": latency.value_at_quantile(0.5),
            "p90": latency.value_at_quantile(0.9),
            "p99": latency.value_at_quantile(0.99),
            "p99.9": latency.value_at_quantile(0.999),
            "max": latency.max(),
        },
        "server_cpu_us_per_request": outcome.server_us(),
        "load_cpu_us_per_request": outcome.load_us(),
        "errors": {
            "wrong": outcome.tally.errors.wrong,
            "refused": outcome.tally.errors.refused,
            "broken": outcome.tally.errors.broken,
        },
        "unanswered": outcome.tally.unanswered,
        "first_error": outcome.tally.first_error,
    })
}
