//! A job by fio, the tool by which disks are measured: a process of its own, its books from its own
//! report.
//!
//! Invariant: fio does the same job with the same file, and nothing that it could be spared.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::job::{Job, Operation};
use crate::failure::Failure;
use crate::load::Outcome;
use crate::load::tally::Tally;

/// The program's name.
pub(crate) const PROGRAM: &str = "fio";

/// Does `job`.
pub(super) fn run(job: &Job) -> Result<Outcome, Failure> {
    let output = command(job)
        .output()
        .map_err(|error| Failure::failed(format!("cannot start {PROGRAM}"), error))?;
    if !output.status.success() {
        let words = [output.stderr, output.stdout].concat();
        let words = String::from_utf8_lossy(&words).trim().to_owned();
        return Err(Failure::failed(output.status, words));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    // Notes of fio may stand before its report.
    let report = text.find('{').and_then(|start| serde_json::from_str(&text[start..]).ok());
    let report: Value = report.ok_or_else(|| Failure::Failed("its report is no JSON".into()))?;
    outcome(&report, job.operation)
        .ok_or_else(|| Failure::Failed("its report lacks what is expected of it".into()))
}

fn command(job: &Job) -> Command {
    let mut command = Command::new(PROGRAM);
    let kind = match job.operation {
        Operation::RandomRead => "randread",
        Operation::RandomWrite => "randwrite",
        Operation::Read => "read",
        Operation::Write => "write",
    };
    let settings = [
        ("name", "job".to_owned()),
        ("filename", job.path.display().to_string().replace(':', "\\:")),
        ("rw", kind.to_owned()),
        ("size", job.file_bytes.to_string()),
        ("bs", job.block_bytes.to_string()),
        ("iodepth", job.depth.to_string()),
        ("ioengine", "io_uring".to_owned()),
        ("direct", u8::from(job.direct).to_string()),
        ("invalidate", "0".to_owned()),
        ("allow_file_create", "0".to_owned()),
        ("lat_percentiles", "1".to_owned()),
        ("output-format", "json+".to_owned()),
    ];
    command.args(settings.map(|(name, value)| format!("--{name}={value}")));
    if job.operation.is_random() {
        // Keeping account of the blocks that it has been to would cost it time.
        command.args(["--norandommap", "--time_based"]);
        command.arg(format!("--runtime={}ms", job.window().as_millis()));
        command.arg(format!("--ramp_time={}ms", job.warmup.as_millis()));
    } else if let Some(limit) = job.limit {
        command.arg(format!("--runtime={}ms", limit.as_millis()));
    }
    if job.durable {
        command.arg("--sync=dsync");
    }
    command.stdin(Stdio::null());
    command
}

/// The books of a report in JSON.
fn outcome(report: &Value, operation: Operation) -> Option<Outcome> {
    let job = &report["jobs"][0];
    if job["error"].as_i64()? != 0 {
        return None;
    }
    let side = &job[if operation.is_write() { "write" } else { "read" }];
    let mut tally = Tally::new();
    for (ns, count) in side["lat_ns"]["bins"].as_object()? {
        tally.record(ns.parse().ok()?, count.as_u64()?);
    }
    let percent = job["usr_cpu"].as_f64()? + job["sys_cpu"].as_f64()?;
    let cpu_ns = percent / 100.0 * job["job_runtime"].as_f64()? * 1e6;
    Some(Outcome {
        requests: side["total_ios"].as_u64()?,
        elapsed: Duration::from_millis(side["runtime"].as_u64()?),
        server_cpu_ns: Some(cpu_ns as u64),
        load_cpu_ns: 0,
        tally,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_of_a_report() {
        let report = serde_json::json!({"jobs": [{
            "error": 0, "usr_cpu": 4.0, "sys_cpu": 26.0, "job_runtime": 2000,
            "write": {"total_ios": 0},
            "read": {"total_ios": 3, "runtime": 1500, "lat_ns": {"bins": {"5000": 2, "7000": 1}}},
        }]});
        let outcome = outcome(&report, Operation::RandomRead).unwrap();
        assert_eq!((outcome.requests, outcome.elapsed), (3, Duration::from_millis(1500)));
        assert_eq!(outcome.server_cpu_ns, Some(600_000_000));
        assert_eq!(outcome.tally.latency.len(), 3);
    }

    #[test]
    fn a_report_of_an_error_has_no_books() {
        let report = serde_json::json!({"jobs": [{"error": 5}]});
        assert!(outcome(&report, Operation::Read).is_none());
    }
}
