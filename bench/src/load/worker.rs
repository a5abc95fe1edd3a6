//! One load thread: its connections, one epoll, and the pace of the run.
//!
//! `load::run` starts it and leads it through the phases. Invariant: every request in flight has
//! the time that its latency counts from: the batch's (closed loop) or its own intended one (open).

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::connection::{Broken, Connection};
use super::exchange::{Exchange, Verdict};
use super::schedule::Schedule;
use super::tally::Tally;
use super::{Control, Phase, Settings};
use crate::affinity;
use crate::failure::Failure;

/// The shared read buffer.
const SCRATCH_BYTES: usize = 256 * 1024;
/// Events taken per wait.
const EVENTS_MAX: usize = 1024;
/// Longest wait, so that the end of a phase is noticed.
const WAIT_MAX: Duration = Duration::from_millis(10);
/// An open loop with a core of its own spins when the next request is due within this.
const SPIN_WITHIN: Duration = Duration::from_micros(100);
/// A server that answers nothing for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// What a worker hands back.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) tally: Tally,
    /// The thread's CPU time in the window.
    pub(super) cpu_ns: u64,
}

/// A connection with the times of what is in flight on it.
struct Lane {
    connection: Option<Connection>,
    in_flight: u64,
    /// Closed loop: when the batch was sent.
    batch_at_ns: u64,
    /// Open loop: when each request in flight was meant to be sent.
    intended: VecDeque<Option<u64>>,
}

/// Who decides when requests go out.
enum Pace {
    /// A connection sends its next batch when the last one is answered.
    Closed,
    /// The schedule decides; whoever has room takes the next request.
    Open { schedule: Schedule, backlog: VecDeque<u64>, with_room: VecDeque<usize> },
}

struct Worker<'a> {
    settings: &'a Settings,
    poll: OwnedFd,
    lanes: Vec<Lane>,
    alive: usize,
    pace: Pace,
    scratch: Vec<u8>,
    events: Vec<epoll::Event>,
    tally: Tally,
    started: Instant,
    measuring: bool,
    replies: u64,
    last_reply_ns: u64,
}

/// Connects, reports through `ready`, and drives the load until the phase says stop.
pub(super) fn run(
    index: usize,
    threads: usize,
    settings: &Settings,
    control: &Control,
    ready: Sender<()>,
) -> Result<Report, Failure> {
    if let Some(core) = settings.cores.get(index % settings.cores.len().max(1)) {
        affinity::pin(&[*core])?;
    }
    let mut worker = Worker::connect(index, threads, settings)?;
    // The receiver lives until every worker has reported or given up.
    let _ = ready.send(());
    drop(ready);
    while control.phase() == Phase::Connect {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (mut cpu_start, mut cpu_ns) = (0, 0);
    worker.start()?;
    loop {
        match control.phase() {
            Phase::Stop => break,
            Phase::Measure if !worker.measuring => {
                worker.measuring = true;
                cpu_start = thread_cpu_ns();
            }
            _ => {}
        }
        worker.turn()?;
        control.replies[index].store(worker.replies, Ordering::Relaxed);
    }
    if worker.measuring {
        cpu_ns = thread_cpu_ns() - cpu_start;
    }
    worker.finish();
    Ok(Report { tally: worker.tally, cpu_ns })
}

fn thread_cpu_ns() -> u64 {
    use rustix::time::{ClockId, clock_gettime};
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl<'a> Worker<'a> {
    fn connect(index: usize, threads: usize, settings: &'a Settings) -> Result<Self, Failure> {
        let address = settings.address;
        let fail =
            |error: std::io::Error| Failure::failed(format!("cannot connect to {address}"), error);
        let poll =
            epoll::create(CreateFlags::CLOEXEC).map_err(|error| Failure::failed("epoll", error))?;
        let mut lanes = Vec::new();
        // Edge-triggered, registered once for both directions: no epoll_ctl while measuring.
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        for number in (index..settings.connections).step_by(threads) {
            let exchange = Exchange::new(&settings.work, number as u64 + 1);
            let connection = Connection::open(address, exchange).map_err(fail)?;
            epoll::add(&poll, &connection.stream, EventData::new_u64(lanes.len() as u64), interest)
                .map_err(|error| Failure::failed("epoll", error))?;
            lanes.push(Lane {
                connection: Some(connection),
                in_flight: 0,
                batch_at_ns: 0,
                intended: VecDeque::new(),
            });
        }
        let pace = match settings.rate {
            None => Pace::Closed,
            Some(rate) => Pace::Open {
                schedule: Schedule::new(rate / threads as f64),
                backlog: VecDeque::new(),
                with_room: (0..lanes.len()).collect(),
            },
        };
        Ok(Self {
            settings,
            poll,
            alive: lanes.len(),
            lanes,
            pace,
            scratch: vec![0; SCRATCH_BYTES],
            events: Vec::with_capacity(EVENTS_MAX),
            tally: Tally::new(),
            started: Instant::now(),
            measuring: false,
            replies: 0,
            last_reply_ns: 0,
        })
    }

    fn now_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn start(&mut self) -> Result<(), Failure> {
        self.started = Instant::now();
        if let Pace::Closed = self.pace {
            for lane in 0..self.lanes.len() {
                let now = self.now_ns();
                self.send_batch(lane, now);
            }
        }
        self.check_alive()
    }

    /// One pass: what is due goes out, what came in is checked.
    fn turn(&mut self) -> Result<(), Failure> {
        let timeout = self.issue_due();
        let timeout = Timespec { tv_sec: 0, tv_nsec: timeout.as_nanos() as i64 };
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Failure::failed("epoll", error)),
        }
        for event in &events {
            self.ready(event.data.u64() as usize, event.flags);
        }
        if events.is_empty() {
            self.check_silence()?;
        }
        events.clear();
        self.events = events;
        self.check_alive()
    }

    /// Open loop: sends what is due; returns how long nothing will be.
    fn issue_due(&mut self) -> Duration {
        let now = self.now_ns();
        let Pace::Open { schedule, backlog, .. } = &mut self.pace else {
            return if self.settings.spin { Duration::ZERO } else { WAIT_MAX };
        };
        while let Some(due) = schedule.take_due(now) {
            backlog.push_back(due);
        }
        let until_next = Duration::from_nanos(schedule.next_due_ns().saturating_sub(now));
        while let Pace::Open { backlog, with_room, .. } = &mut self.pace
            && !backlog.is_empty()
            && let Some(lane) = with_room.pop_front()
        {
            let due = backlog.pop_front().unwrap_or(now);
            self.send_one(lane, due);
        }
        match self.settings.spin {
            true if until_next <= SPIN_WITHIN => Duration::ZERO,
            true => until_next.saturating_sub(SPIN_WITHIN).min(WAIT_MAX),
            false => until_next.min(WAIT_MAX),
        }
    }

    /// Open loop: one request on `lane`, which goes back in line if it has room for more.
    fn send_one(&mut self, index: usize, due_ns: u64) {
        let lane = &mut self.lanes[index];
        let Some(connection) = &mut lane.connection else {
            return;
        };
        let result = connection.request(1);
        lane.intended.push_back(connection.last_counts().then_some(due_ns));
        lane.in_flight += 1;
        if let Err(broken) = result {
            return self.give_up(index, &broken);
        }
        if lane.in_flight < self.settings.pipeline as u64
            && let Pace::Open { with_room, .. } = &mut self.pace
        {
            with_room.push_back(index);
        }
    }

    /// Closed loop: the next batch on `lane`.
    fn send_batch(&mut self, index: usize, now_ns: u64) {
        let lane = &mut self.lanes[index];
        let Some(connection) = &mut lane.connection else {
            return;
        };
        lane.batch_at_ns = now_ns;
        lane.in_flight = self.settings.pipeline as u64;
        if let Err(broken) = connection.request(self.settings.pipeline) {
            self.give_up(index, &broken);
        }
    }

    fn ready(&mut self, index: usize, flags: EventFlags) {
        loop {
            let Some(connection) = &mut self.lanes[index].connection else {
                return;
            };
            if connection.is_blocked()
                && let Err(broken) = connection.flush()
            {
                return self.give_up(index, &broken);
            }
            if !flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::ERR) {
                return;
            }
            match connection.receive(&mut self.scratch) {
                Ok((verdict, more)) => {
                    if verdict.replies() > 0 {
                        self.answered(index, verdict);
                    }
                    // After a hang-up no further edge comes: read on to the end.
                    if !more && !flags.contains(EventFlags::RDHUP) {
                        return;
                    }
                }
                Err(broken) => return self.give_up(index, &broken),
            }
        }
    }

    /// Books the replies and, in the closed loop, sends the next batch.
    fn answered(&mut self, index: usize, mut verdict: Verdict) {
        let now = self.now_ns();
        let replies = verdict.replies();
        self.last_reply_ns = now;
        self.replies += replies;
        if let Some(complaint) = verdict.complaint.take() {
            self.tally.complain(|| complaint);
        }
        self.tally.errors.wrong += verdict.wrong;
        self.tally.errors.refused += verdict.refused;
        let lane = &mut self.lanes[index];
        let was_full = lane.in_flight >= self.settings.pipeline as u64;
        lane.in_flight -= replies;
        if let Pace::Open { with_room, .. } = &mut self.pace {
            for reply in 0..replies {
                let due = lane.intended.pop_front().flatten();
                if let Some(due) = due
                    && self.measuring
                    && reply < verdict.good
                {
                    self.tally.record(now.saturating_sub(due), 1);
                }
            }
            if was_full {
                with_room.push_back(index);
            }
            return;
        }
        if self.measuring && verdict.good > 0 {
            self.tally.record(now - lane.batch_at_ns, verdict.good);
        }
        if lane.in_flight == 0 {
            self.send_batch(index, now);
        }
    }

    fn give_up(&mut self, index: usize, broken: &Broken) {
        let lane = &mut self.lanes[index];
        lane.connection = None;
        lane.intended.clear();
        self.alive -= 1;
        self.tally.errors.broken += 1;
        self.tally.complain(|| broken.to_string());
        if let Pace::Open { with_room, .. } = &mut self.pace {
            with_room.retain(|other| *other != index);
        }
    }

    fn check_alive(&self) -> Result<(), Failure> {
        if self.alive > 0 {
            return Ok(());
        }
        let why = self.tally.first_error.clone().unwrap_or_default();
        Err(Failure::failed(format!("no connection to {} is left", self.settings.address), why))
    }

    fn check_silence(&self) -> Result<(), Failure> {
        let waiting = self.lanes.iter().any(|lane| lane.in_flight > 0);
        let silent = Duration::from_nanos(self.now_ns().saturating_sub(self.last_reply_ns));
        if waiting && silent > SILENCE_MAX {
            let address = self.settings.address;
            return Err(Failure::Failed(format!(
                "{address} has answered nothing for {} s",
                SILENCE_MAX.as_secs()
            )));
        }
        Ok(())
    }

    /// Open loop: requests that were due and got no answer count with the age that they reached.
    fn finish(&mut self) {
        let now = self.now_ns();
        let Pace::Open { backlog, .. } = &self.pace else {
            return;
        };
        let in_flight = self.lanes.iter().flat_map(|lane| lane.intended.iter().flatten());
        for due in backlog.iter().chain(in_flight) {
            self.tally.record(now.saturating_sub(*due), 1);
            self.tally.unanswered += 1;
        }
    }
}
