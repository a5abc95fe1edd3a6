//! The disk workloads: no server and no load, but a file and those who read and write it.
//!
//! `compare` calls [`run`] in the place of `rounds::run`. Invariant: as there, all contenders take
//! their turn within a round, on the same core and the same file.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::contender::Contender;
use super::cores::Cores;
use super::rounds::{Program, Results, Row, Sample};
use super::workload::{Case, Workload};
use crate::disk::file::TestFile;
use crate::disk::job::{Job, Operation, Runner};
use crate::failure::Failure;
use crate::peers;

/// The file, which the scans go through once.
const FILE_BYTES: u64 = 1 << 30;

/// Runs `cases` by every contender that can do them.
pub(crate) fn run(
    program: &Program<'_>,
    cases: &[Case],
    contenders: &[Contender],
) -> Result<Results, Failure> {
    let cores = Cores::split(1)?;
    let file = TestFile::in_directory(&program.site.disk, FILE_BYTES)?;
    let mut results = Results::default();
    let mut runners: Vec<(Contender, Runner)> =
        contenders.iter().filter_map(|one| Some((*one, runner(*one)?))).collect();
    for (contender, _) in &runners {
        results.rows.extend(cases.iter().map(|case| Row {
            contender: *contender,
            case: *case,
            rate: None,
            samples: Vec::new(),
        }));
    }
    for round in 0..program.rounds {
        for case in cases {
            let job = job(case, program, &file)?;
            let mut failed = Vec::new();
            for turn in 0..runners.len() {
                if program.stop.load(Ordering::Relaxed) {
                    return Err(Failure::Failed("interrupted".into()));
                }
                let (contender, runner) = runners[(turn + round) % runners.len()];
                program.progress.set_message(format!("{}: {}", contender.name(), case.name()));
                let started = SystemTime::now();
                match job.run(runner, &cores.server) {
                    Ok(outcome) => results.book(contender, case, Sample { started, outcome }, None),
                    Err(failure) => {
                        results.failures.push(format!("{}: {failure}", case.name()));
                        // Half a row compares with nothing.
                        results.rows.retain(|row| row.contender != contender);
                        failed.push(contender);
                    }
                }
                program.progress.inc(1);
            }
            runners.retain(|(contender, _)| !failed.contains(contender));
        }
    }
    Ok(results)
}

fn runner(contender: Contender) -> Option<Runner> {
    match contender {
        Contender::Annulus(engine) => Some(Runner::Annulus(engine)),
        Contender::Fio => Some(Runner::Fio),
        Contender::Peer(peers::Name::Tokio) => Some(Runner::Tokio),
        _ => None,
    }
}

fn job(case: &Case, program: &Program<'_>, file: &TestFile) -> Result<Job, Failure> {
    let (operation, limit) = match case.workload {
        Workload::DiskRead => (Operation::RandomRead, Some(program.window)),
        Workload::DiskWrite => (Operation::Write, None),
        Workload::DiskScan => (Operation::Read, None),
        other => return Err(Failure::Failed(format!("{} is not about a disk", other.text()))),
    };
    Ok(Job {
        operation,
        block_bytes: case.payload_bytes,
        depth: case.connections,
        path: file.path().to_owned(),
        file_bytes: file.bytes(),
        direct: true,
        durable: false,
        warmup: program.warmup,
        limit,
    })
}
