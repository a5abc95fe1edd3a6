//! The kill loop: SIGKILL at any moment, also during snapshots, rotation and recovery.
//!
//! A handful of cycles here; `scripts/crash` runs hundreds. Invariant under test: nothing that was
//! acknowledged is missing, nothing is torn, counters are exact, several keys are written whole.

use crate::cycle::{Campaign, Kill, Report};
use crate::scratch::Scratch;
use crate::server::{Fsync, Program, Setup};

/// Runs so many cycles and one more start; what happened.
pub(crate) fn cycles(program: Program, fsync: Fsync, seed: u64, count: usize) -> Report {
    let scratch = Scratch::new();
    let setup = Setup::new(program, fsync, scratch.path().join("data"));
    let mut campaign = Campaign::new(setup, seed, 6);
    for cycle in 0..count {
        if let Err(error) = campaign.cycle(&mut Kill) {
            scratch.keep();
            panic!("{program:?} {fsync:?} seed {seed} cycle {cycle}: {error}");
        }
    }
    if let Err(error) = campaign.start() {
        scratch.keep();
        panic!("{program:?} {fsync:?} seed {seed} at the end: {error}");
    }
    campaign.report
}

#[test]
fn redis_that_always_syncs_loses_nothing() {
    let Some(_turn) = crate::turn_with_redis() else { return };
    let report = cycles(Program::Redis, Fsync::Always, 1, 2);
    assert!(report.acknowledged > 0 && report.read > 0, "{report:?}");
    assert_eq!(report.lost, 0);
}

#[test]
fn kills_lose_nothing_on_any_engine() {
    let _turn = crate::turn();
    for engine in ["uring", "epoll", "threads"] {
        let report = cycles(Program::Annulus(engine), Fsync::Always, 1, 4);
        assert!(report.acknowledged > 0 && report.read > 0, "{report:?}");
        assert_eq!(report.lost, 0);
    }
}
