//! Cycles: start, compare with what must be there, write under load, end by force.
//!
//! Called by the tests of kills and of power cuts. Invariant: a cycle begins with a state that has
//! been compared, so that a failure belongs to the end before it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::client::{Client, Floor, Verdict};
use super::model::{Model, Value};
use super::operation::{Deadline, EXPIRE_SECONDS, KEYS, Key, TOGETHER, VALUES, key_name, unix_ms};
use super::random::{Random, origin, payload};
use super::resp::{Connection, PATIENCE, Reply};
use super::server::{Fsync, Program, Server, Setup};

/// What those who write and read during a cycle are told.
#[derive(Default)]
pub(crate) struct Told {
    /// To begin nothing more.
    stop: AtomicBool,
    /// The power is gone: nobody is there to hear what is answered from here on.
    dark: AtomicBool,
}

impl Told {
    /// Said before the power goes.
    pub(crate) fn power_goes(&self) {
        self.dark.store(true, Ordering::SeqCst);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Asked after a reply has come: whether anybody was there to hear it.
    pub(crate) fn is_heard(&self) -> bool {
        !self.dark.load(Ordering::SeqCst)
    }
}

/// How a server's life ends.
pub(crate) trait End {
    /// Ends it; the time from which on nothing was made durable.
    fn end(&mut self, server: &mut Server, told: &Told) -> Instant;
}

/// SIGKILL: what was written is in the page cache, so this finds what was acknowledged unwritten.
pub(crate) struct Kill;

impl End for Kill {
    fn end(&mut self, server: &mut Server, _: &Told) -> Instant {
        let at = Instant::now();
        server.kill();
        at
    }
}

/// What happened, for the summary.
#[derive(Default, Debug)]
pub(crate) struct Report {
    pub(crate) cycles: usize,
    pub(crate) acknowledged: u64,
    pub(crate) unacknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) read: u64,
    pub(crate) killed_in_recovery: usize,
    pub(crate) snapshots: usize,
    pub(crate) recoveries: Vec<Duration>,
}

impl Report {
    pub(crate) fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.acknowledged += other.acknowledged;
        self.unacknowledged += other.unacknowledged;
        self.lost += other.lost;
        self.read += other.read;
        self.killed_in_recovery += other.killed_in_recovery;
        self.snapshots += other.snapshots;
        self.recoveries.extend(other.recoveries);
    }

    pub(crate) fn tell(&self) -> String {
        let mut recoveries = self.recoveries.clone();
        recoveries.sort_unstable();
        let middle = recoveries.get(recoveries.len() / 2).copied().unwrap_or_default();
        let longest = recoveries.last().copied().unwrap_or_default();
        format!(
            "{} cycles, {} kills during recovery, {} snapshots begun; {} operations acknowledged, \
             {} there that were not, {} lost within what the policy allows, {} values read by \
             others; recovery {} ms in the middle, {} ms at most",
            self.cycles,
            self.killed_in_recovery,
            self.snapshots,
            self.acknowledged,
            self.unacknowledged,
            self.lost,
            self.read,
            middle.as_millis(),
            longest.as_millis()
        )
    }
}

/// A server that is ended again and again, and its clients.
pub(crate) struct Campaign {
    pub(crate) setup: Setup,
    pub(crate) clients: Vec<Client>,
    pub(crate) random: Random,
    pub(crate) report: Report,
    /// The longest time under load.
    pub(crate) load_ms_max: u64,
    seen: Seen,
    began_ms: u64,
    ended: Option<(Instant, u64)>,
}

/// The latest operation of each client whose effect another connection has read.
type Seen = HashMap<usize, u64>;

impl Campaign {
    pub(crate) fn new(setup: Setup, seed: u64, clients: usize) -> Self {
        Self {
            setup,
            clients: (0..clients).map(|id| Client::new(id, seed)).collect(),
            random: Random::new(seed),
            report: Report::default(),
            load_ms_max: 400,
            seen: Seen::new(),
            began_ms: unix_ms(),
            ended: None,
        }
    }

    /// Starts a server and compares what it holds.
    ///
    /// # Errors
    /// It does not start, or something is missing or torn.
    pub(crate) fn start(&mut self) -> Result<Server, String> {
        let server = Server::start(&self.setup)?;
        self.report.recoveries.push(server.age());
        match self.compare(&server) {
            Ok(()) => Ok(server),
            Err(error) => {
                let ended = self.ended.map_or(0, |(at, _)| at.elapsed().as_millis());
                let log = server.log();
                Err(format!("{error}\nit was ended {ended} ms ago\nlog:\n{log}"))
            }
        }
    }

    /// One cycle: kills during recovery at times, comparison, load, end.
    ///
    /// # Errors
    /// As [`Campaign::start`], or a wrong reply under load.
    pub(crate) fn cycle(&mut self, end: &mut dyn End) -> Result<(), String> {
        while self.random.below(3) == 0 {
            let mut server = Server::spawn(&self.setup);
            thread::sleep(Duration::from_millis(self.random.below(200)));
            server.kill();
            self.report.killed_in_recovery += 1;
        }
        self.cycle_without_kills(end)
    }

    /// One cycle whose recovery is not disturbed.
    ///
    /// # Errors
    /// As [`Campaign::cycle`].
    pub(crate) fn cycle_without_kills(&mut self, end: &mut dyn End) -> Result<(), String> {
        let mut server = self.start()?;
        let result = self.load(&mut server, end);
        self.report.cycles += 1;
        result.map_err(|error| format!("{error}\nlog:\n{}", server.log()))
    }

    fn load(&mut self, server: &mut Server, end: &mut dyn End) -> Result<(), String> {
        let time = Duration::from_millis(10 + self.random.below(self.load_ms_max));
        let address = server.address();
        let seeds = [self.random.next(), self.random.next()];
        let is_redis = !matches!(self.setup.program, Program::Annulus(_));
        let before: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        let count = self.clients.len();
        let told = Told::default();
        let (clients, told) = (&mut self.clients, &told);
        let (errors, reads, snapshots, ended) = thread::scope(|scope| {
            let writers: Vec<_> =
                clients.iter_mut().map(|it| scope.spawn(|| it.write(address, told))).collect();
            let readers = seeds
                .map(|seed| scope.spawn(move || read(address, count, Random::new(seed), told)));
            let seed = seeds[0] ^ seeds[1];
            let snapshots = scope
                .spawn(move || if is_redis { 0 } else { save(address, Random::new(seed), told) });
            thread::sleep(time);
            let ended = (end.end(server, told), unix_ms());
            told.stop.store(true, Ordering::Relaxed);
            let join = "a thread of the test";
            let mut errors: Vec<String> =
                writers.into_iter().filter_map(|it| it.join().expect(join).err()).collect();
            let mut reads = Vec::new();
            for reader in readers {
                match reader.join().expect(join) {
                    Ok(read) => reads.push(read),
                    Err(error) => errors.push(error),
                }
            }
            (errors, reads, snapshots.join().expect(join), ended)
        });
        let after: u64 = self.clients.iter().map(|client| client.acknowledged).sum();
        self.report.acknowledged += after - before;
        self.report.snapshots += snapshots;
        self.ended = Some(ended);
        for (count, seen) in reads {
            self.report.read += count;
            for (client, sequence) in seen {
                let latest = self.seen.entry(client).or_default();
                *latest = sequence.max(*latest);
            }
        }
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// Under `interval`, what is lost was acknowledged within one interval of the last write that
    /// was taken: when a sync hangs, none is taken any more.
    fn floor(&self) -> Floor {
        match self.setup.fsync {
            Fsync::Always => Floor::Acknowledged,
            Fsync::Interval(interval) => {
                let last = self.clients.iter().filter_map(Client::last_sent).max();
                let before = last.and_then(|last| last.checked_sub(interval));
                before.map_or(Floor::Nothing, Floor::AcknowledgedBefore)
            }
            Fsync::None => Floor::Nothing,
        }
    }

    /// Compares what a server holds with what its clients know.
    pub(crate) fn compare(&mut self, server: &Server) -> Result<(), String> {
        let nearest = self.clients.iter().map(|it| it.draw.nearest_ms).max().unwrap_or(0);
        while unix_ms() <= nearest + 1 {
            thread::sleep(Duration::from_millis(5));
        }
        let floor = self.floor();
        let ended_ms = self.ended.map_or_else(unix_ms, |(_, ms)| ms);
        let later = |ms: u64| ms + EXPIRE_SECONDS * 1000;
        let later = later(self.began_ms)..=later(ended_ms);
        let mut connection = server.connect();
        let mut count = 0;
        for client in &mut self.clients {
            let found = state(&mut connection, client.id, &later)
                .map_err(|error| format!("reading the state back: {error}"))?;
            count += found.values.len() as i64;
            let Verdict { unacknowledged, lost } =
                client.judge(found, floor, self.seen.get(&client.id).copied())?;
            self.report.unacknowledged += unacknowledged;
            self.report.lost += lost;
        }
        // Who reads an expired key does not remove it: the expiry cycle does, before long.
        let began = Instant::now();
        loop {
            let size = connection.call(&["DBSIZE"]).map_err(|error| error.to_string())?;
            if size == Reply::Integer(count) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{count} keys are known, the server has {size:?}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// All that a client's keys hold.
fn state(
    connection: &mut Connection,
    client: usize,
    later: &std::ops::RangeInclusive<u64>,
) -> std::io::Result<Model> {
    for key in KEYS {
        connection.push(&["GET", &key_name(client, key)]);
        connection.push(&["PEXPIRETIME", &key_name(client, key)]);
    }
    connection.send()?;
    let mut values = std::collections::BTreeMap::<Key, Value>::new();
    for key in KEYS {
        let (value, time) = (connection.receive()?, connection.receive()?);
        match (value, time) {
            (Reply::Bulk(None), Reply::Integer(-2)) => {}
            (Reply::Bulk(Some(bytes)), Reply::Integer(time)) => {
                let deadline = match u64::try_from(time) {
                    Err(_) => Deadline::Never,
                    Ok(time) if later.contains(&time) => Deadline::Later,
                    Ok(time) => Deadline::At(time),
                };
                values.insert(key, Value { bytes, deadline });
            }
            other => return Err(std::io::Error::other(format!("{other:?} for key {key}"))),
        }
    }
    Ok(Model::of(values))
}

/// Reads what the clients write, and notes the latest that was seen of each.
fn read(
    address: SocketAddr,
    clients: usize,
    mut random: Random,
    told: &Told,
) -> Result<(u64, Seen), String> {
    let (mut count, mut seen) = (0, Seen::new());
    let Ok(mut connection) = Connection::open(address) else { return Ok((count, seen)) };
    while told.goes_on() {
        let client = random.below(clients as u64) as usize;
        let keys = if random.below(2) == 0 { VALUES } else { TOGETHER };
        let key = keys.start + random.below(keys.len() as u64) as Key;
        let Ok(reply) = connection.call(&["GET", &key_name(client, key)]) else { break };
        if !told.is_heard() {
            break;
        }
        let Reply::Bulk(Some(bytes)) = reply else { continue };
        let Some((writer, sequence, length)) = origin(&bytes) else { continue };
        if writer != client || payload(client, sequence, length) != bytes {
            return Err(format!("a torn value was read from {}", key_name(client, key)));
        }
        let latest = seen.entry(client).or_default();
        *latest = sequence.max(*latest);
        count += 1;
    }
    Ok((count, seen))
}

/// Has snapshots made now and then; how many were begun.
fn save(address: SocketAddr, mut random: Random, told: &Told) -> usize {
    let mut count = 0;
    let Ok(mut connection) = Connection::open(address) else { return count };
    while told.goes_on() {
        thread::sleep(Duration::from_millis(random.below(150)));
        match connection.call(&["BGSAVE"]) {
            Ok(Reply::Error(_)) => {}
            Ok(_) => count += 1,
            Err(_) => break,
        }
    }
    count
}
