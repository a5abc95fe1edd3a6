//! Power cuts: the file system below the data directory stops while clients write.
//!
//! Under test: `always` loses nothing that was acknowledged, `interval` at most its interval,
//! `none` stays consistent. Skipped with a word where nobody may mount.

use std::thread;
use std::time::{Duration, Instant};

use crate::client::OnError;
use crate::cycle::{Campaign, End, Report, Told};
use crate::image::Image;
use crate::server::{Fsync, Program, Server, Setup};

/// The power goes, the server notices or not, and is gone as well.
struct Cut<'image>(&'image Image);

impl End for Cut<'_> {
    fn end(&mut self, server: &mut Server, told: &Told) -> Instant {
        let at = Instant::now();
        // The clients are in the dark as well. What a sync that was under way answers when the file
        // system stops is the kernel's: ext4 was seen to answer 0 to an fdatasync of redis whose
        // data was not there afterwards. A sync that fails has tests of its own (failing_disk.rs).
        told.power_goes();
        self.0.cut();
        thread::sleep(Duration::from_millis(30));
        server.kill();
        self.0.restart();
        at
    }
}

/// Runs so many cycles and one more start; what happened, or what was found.
pub(crate) fn cycles(
    program: Program,
    fsync: Fsync,
    kind: &str,
    seed: u64,
    count: usize,
) -> Option<Result<Report, String>> {
    let image = Image::new(kind)?;
    let setup = Setup::new(program, fsync, image.path().join("data"));
    let mut campaign = Campaign::new(setup, seed, 6);
    if matches!(fsync, Fsync::Interval(_)) {
        // Several intervals, so that there is something that must not be lost.
        campaign.load_ms_max = 1500;
    }
    for client in &mut campaign.clients {
        client.on_error = OnError::Stop;
    }
    let told = |error: String| format!("{program:?} {fsync:?} {kind} seed {seed}: {error}");
    for cycle in 0..count {
        if let Err(error) = campaign.cycle(&mut Cut(&image)) {
            return Some(Err(told(format!("cycle {cycle}: {error}"))));
        }
    }
    Some(match campaign.start() {
        Ok(_server) => Ok(campaign.report),
        Err(error) => Err(told(format!("at the end: {error}"))),
    })
}

#[test]
fn redis_that_always_syncs_loses_nothing_when_the_power_goes() {
    let Some(_turn) = crate::turn_with_redis() else { return };
    let Some(report) = cycles(Program::Redis, Fsync::Always, "ext4", 1, 2) else { return };
    assert_eq!(report.unwrap().lost, 0);
}

#[test]
fn redis_that_never_syncs_but_says_that_it_does_is_found_out() {
    let Some(_turn) = crate::turn_with_redis() else { return };
    let Some(report) = cycles(Program::RedisThatLies, Fsync::Always, "ext4", 1, 5) else { return };
    let error = report.unwrap_err();
    assert!(error.contains("lost") || error.contains("no prefix"), "{error}");
}

#[test]
fn power_cuts_lose_no_more_than_the_policy_says() {
    let _turn = crate::turn();
    let interval = Fsync::Interval(Duration::from_millis(300));
    for (engine, fsync, kind) in [
        ("uring", Fsync::Always, "ext4"),
        ("epoll", Fsync::Always, "xfs"),
        ("uring", interval, "xfs"),
        ("epoll", interval, "ext4"),
        ("threads", Fsync::None, "ext4"),
    ] {
        // Nobody may mount, or this kind cannot be made here: the next one may.
        let Some(report) = cycles(Program::Annulus(engine), fsync, kind, 1, 2) else { continue };
        assert!(report.unwrap().acknowledged > 0);
    }
}
