//! The daemon on a disk that fails: syncs and writes with errors, no room, slow syncs, short
//! writes.
//!
//! The disk is a FUSE file system of the test; without `/dev/fuse` the tests are skipped with a
//! word. Invariant under test: whatever the disk does, nothing acknowledged is missing afterwards.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::OnError;
use crate::cycle::{Campaign, End, Kill, Told};
use crate::faults::{Call, Effect, FailingDisk, Rule};
use crate::image::Image;
use crate::resp::{Connection, PATIENCE, Reply};
use crate::server::{Fsync, Program, Server, Setup};

/// Makes a test of each function for each engine named before it.
macro_rules! on_engines {
    ($($engine:ident: $($name:ident),+;)+) => {
        $(mod $engine {
            $(#[test]
            fn $name() {
                let _turn = crate::turn();
                let program = crate::server::Program::Annulus(stringify!($engine));
                if let Some(disk) = crate::faults::FailingDisk::new() {
                    super::$name(&disk, program);
                }
            })+
        })+
    };
}

on_engines! {
    uring: an_end_without_the_last_sync_says_so, an_end_on_a_full_disk_says_so,
        a_sync_that_fails_once_ends_the_process, a_sync_that_always_fails_ends_the_process,
        a_write_that_fails_ends_the_process, a_directory_that_cannot_be_synced_ends_the_process,
        a_full_disk_refuses_writes_until_there_is_room, a_quota_refuses_writes_until_it_is_raised,
        a_snapshot_makes_room_on_a_full_disk, interrupted_writes_are_done_again;
    epoll: an_end_without_the_last_sync_says_so, an_end_on_a_full_disk_says_so,
        a_sync_that_fails_once_ends_the_process, a_sync_that_always_fails_ends_the_process,
        a_write_that_fails_ends_the_process, a_directory_that_cannot_be_synced_ends_the_process,
        a_full_disk_refuses_writes_until_there_is_room, a_quota_refuses_writes_until_it_is_raised,
        a_slow_sync_holds_up_no_reader, a_slow_sync_under_interval_stalls_writers,
        a_slow_change_of_segments_under_interval_stalls_writers,
        interrupted_writes_are_done_again, short_writes_are_made_whole,
        short_reads_are_read_on_at_the_start;
    threads: an_end_without_the_last_sync_says_so, an_end_on_a_full_disk_says_so,
        a_sync_that_fails_once_ends_the_process,
        a_full_disk_refuses_writes_until_there_is_room, interrupted_writes_are_done_again,
        short_writes_are_made_whole, short_reads_are_read_on_at_the_start;
}

fn campaign(disk: &FailingDisk, program: Program, fsync: Fsync, on_error: OnError) -> Campaign {
    let setup = Setup::new(program, fsync, disk.path().join("data"));
    let mut campaign = Campaign::new(setup, 1, 4);
    for client in &mut campaign.clients {
        client.on_error = on_error;
        client.draw.without_near_deadlines = on_error == OnError::Refused;
    }
    campaign
}

/// Nothing acknowledged is missing once the disk is well, and the server serves.
fn check_on_the_healthy_disk(disk: &FailingDisk, campaign: &mut Campaign) {
    disk.heal();
    campaign.setup.folder = disk.healthy().join("data");
    let server = campaign.start().unwrap();
    assert_eq!(server.connect().call(&["SET", "after", "all"]).unwrap(), Reply::ok());
}

/// Something goes wrong under load, and the server must end because of it.
struct Breaks<'disk> {
    disk: &'disk FailingDisk,
    rule: Option<Rule>,
    said: String,
}

impl End for Breaks<'_> {
    fn end(&mut self, server: &mut Server, _: &Told) -> Instant {
        self.disk.add(self.rule.take().expect("it breaks once"));
        let status = server.wait().expect("it ends by itself");
        self.said = server.log();
        assert_eq!(status.code(), Some(1), "{}", self.said);
        Instant::now()
    }
}

fn ends_the_process(disk: &FailingDisk, program: Program, rule: Rule) {
    let mut campaign = campaign(disk, program, Fsync::Always, OnError::Stop);
    let mut breaks = Breaks { disk, rule: Some(rule), said: String::new() };
    campaign.cycle_without_kills(&mut breaks).unwrap();
    assert!(disk.hits() > 0);
    let said = &breaks.said;
    assert!(said.contains("Input/output error"), "{said}");
    assert!(said.contains("nothing more is acknowledged"), "{said}");
    assert!(campaign.report.acknowledged > 0);
    check_on_the_healthy_disk(disk, &mut campaign);
}

/// A second sync would succeed: it must not be tried and believed.
fn a_sync_that_fails_once_ends_the_process(disk: &FailingDisk, program: Program) {
    let rule = Rule::new(Call::Sync, Effect::Fail(libc::EIO)).named("log-").after(3).times(1);
    ends_the_process(disk, program, rule);
}

fn a_sync_that_always_fails_ends_the_process(disk: &FailingDisk, program: Program) {
    ends_the_process(disk, program, Rule::new(Call::Sync, Effect::Fail(libc::EIO)));
}

fn a_write_that_fails_ends_the_process(disk: &FailingDisk, program: Program) {
    let rule = Rule::new(Call::Write, Effect::Fail(libc::EIO)).named("log-").after(3).times(1);
    ends_the_process(disk, program, rule);
}

fn a_directory_that_cannot_be_synced_ends_the_process(disk: &FailingDisk, program: Program) {
    // Segments are small: the next one is made before long.
    ends_the_process(disk, program, Rule::new(Call::SyncDirectory, Effect::Fail(libc::EIO)));
}

/// What was answered under `interval` is not durable yet when the end begins.
fn ends_with_a_loss(disk: &FailingDisk, program: Program, breaks: fn(&FailingDisk, &Server)) {
    let fsync = Fsync::Interval(Duration::from_secs(60));
    let mut server = Server::start(&Setup::new(program, fsync, disk.path().join("data"))).unwrap();
    assert_eq!(server.connect().call(&["SET", "key", "value"]).unwrap(), Reply::ok());
    breaks(disk, &server);
    server.ask_to_end();
    let (status, said) = (server.wait().unwrap(), server.log());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("changes that are not durable yet are lost"), "{said}");
}

fn an_end_without_the_last_sync_says_so(disk: &FailingDisk, program: Program) {
    ends_with_a_loss(disk, program, |disk, _| {
        disk.add(Rule::new(Call::Sync, Effect::Fail(libc::EIO)).named("log-"));
    });
}

fn an_end_on_a_full_disk_says_so(disk: &FailingDisk, program: Program) {
    ends_with_a_loss(disk, program, |disk, server| {
        disk.leave_room(0);
        let mut connection = server.connect();
        // More than the segment has, and the one that is made ahead.
        connection.push(&["SET", "large", &"x".repeat(4 << 20)]);
        connection.send().unwrap();
        wait_until("the log waits for room", || server.log().contains("No space left on device"));
    });
}

/// The disk takes nothing for a while; reads go on, and later writes as well.
struct Fills<'disk> {
    disk: &'disk FailingDisk,
    names: &'static str,
    fill: fn(&FailingDisk),
}

/// Writes until the reply is as wanted, each time on a connection of its own: a write that was
/// taken just before the disk was full waits for room, and so does its connection.
pub(crate) fn write_until(server: &Server, wanted: impl Fn(&Reply) -> bool) {
    let mut last = None;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut connection = server.connect();
        connection.push(&["SET", "attempt", "value"]);
        connection.send().expect("it serves");
        let asked = Instant::now();
        while asked.elapsed() < Duration::from_millis(200) && !has_reply(&connection) {
            thread::sleep(Duration::from_millis(2));
        }
        last = has_reply(&connection).then(|| connection.receive().expect("it serves"));
        if last.as_ref().is_some_and(&wanted) {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("still {last:?}:\n{}", server.log());
}

impl End for Fills<'_> {
    fn end(&mut self, server: &mut Server, told: &Told) -> Instant {
        let mut connection = server.connect();
        assert_eq!(connection.call(&["SET", "probe", "before"]).expect("it serves"), Reply::ok());
        (self.fill)(self.disk);
        write_until(server, |reply| matches!(reply, Reply::Error(it) if it.contains(self.names)));
        let value = connection.call(&["GET", "probe"]).expect("reads are served");
        assert_eq!(value, Reply::Bulk(Some(b"before".to_vec())));
        self.disk.heal();
        write_until(server, |reply| *reply == Reply::ok());
        // The others write on for a while.
        thread::sleep(Duration::from_millis(100));
        let deleted = connection.call(&["DEL", "probe", "attempt"]).expect("it serves");
        assert_eq!(deleted, Reply::Integer(2));
        Kill.end(server, told)
    }
}

fn a_full_disk_refuses_writes_until_there_is_room(disk: &FailingDisk, program: Program) {
    let mut campaign = campaign(disk, program, Fsync::Always, OnError::Refused);
    let fill = |disk: &FailingDisk| disk.leave_room(100_000);
    let mut fills = Fills { disk, names: "No space left on device", fill };
    campaign.cycle_without_kills(&mut fills).unwrap();
    check_on_the_healthy_disk(disk, &mut campaign);
}

/// The room that there is is too little for a segment, and goes to the snapshot.
fn a_snapshot_makes_room_on_a_full_disk(disk: &FailingDisk, program: Program) {
    let store = "segment_size = \"1MiB\"\n".to_owned();
    let setup = Setup::new(program, Fsync::Always, disk.path().join("data"));
    let server = Server::start(&Setup { store, ..setup }).unwrap();
    let mut connection = server.connect();
    let third = disk.healthy().join("data/log-000000000003.seg");
    while !third.exists() {
        let value = "x".repeat(50_000);
        assert_eq!(connection.call(&["SET", "key", &value]).unwrap(), Reply::ok());
    }
    // Some file systems cannot say beforehand that there is too little.
    disk.add(Rule::new(Call::Allocate, Effect::Fail(libc::EOPNOTSUPP)));
    disk.leave_room(400_000);
    let is_refused = |reply: &Reply| matches!(reply, Reply::Error(it) if it.contains("No space"));
    write_until(&server, is_refused);
    // Now and then a segment is tried again, and takes the room for a moment.
    let mut save = || connection.call(&["SAVE"]).unwrap() == Reply::ok();
    assert!((0..5).any(|_| save()), "{}", server.log());
    write_until(&server, |reply| *reply == Reply::ok());
}

fn a_quota_refuses_writes_until_it_is_raised(disk: &FailingDisk, program: Program) {
    let mut campaign = campaign(disk, program, Fsync::Always, OnError::Refused);
    // Also where nothing grows: some file systems need room to overwrite.
    let fill = |disk: &FailingDisk| {
        disk.add(Rule::new(Call::Write, Effect::Fail(libc::EDQUOT)));
        disk.add(Rule::new(Call::Allocate, Effect::Fail(libc::EDQUOT)));
    };
    let mut fills = Fills { disk, names: "quota", fill };
    campaign.cycle_without_kills(&mut fills).unwrap();
    check_on_the_healthy_disk(disk, &mut campaign);
}

/// Whether a reply has come.
fn has_reply(connection: &Connection) -> bool {
    let socket = connection.socket().expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let peeked = socket.peek(&mut [0]);
    socket.set_nonblocking(false).expect("a socket");
    match peeked {
        Ok(count) => count > 0,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
            false
        }
    }
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}: it did not come about");
        thread::sleep(Duration::from_millis(2));
    }
}

fn a_slow_sync_holds_up_no_reader(disk: &FailingDisk, program: Program) {
    let setup = Setup::new(program, Fsync::Always, disk.path().join("data"));
    no_reader_waits(&setup, disk);
}

fn a_slow_sync_under_interval_stalls_writers(disk: &FailingDisk, program: Program) {
    let setup = Setup::new(program, Fsync::Interval(INTERVAL), disk.path().join("data"));
    writers_stall(&setup, disk);
}

fn a_slow_change_of_segments_under_interval_stalls_writers(disk: &FailingDisk, program: Program) {
    let setup = Setup::new(program, Fsync::Interval(INTERVAL), disk.path().join("data"));
    writers_stall(&setup, &SlowNames(disk));
}

/// On the ring a disk that stands still is a frozen one: the kernel's FUSE makes the ring wait for
/// a write where it is submitted, which disks do not.
mod frozen {
    use super::{Fsync, INTERVAL, Program, Setup, no_reader_waits, writers_stall};
    use crate::image::Image;

    #[test]
    fn a_frozen_disk_holds_up_no_reader_of_the_ring() {
        let _turn = crate::turn();
        let Some(image) = Image::new("ext4") else { return };
        let data = image.path().join("data");
        no_reader_waits(&Setup::new(Program::Annulus("uring"), Fsync::Always, data), &image);
    }

    #[test]
    fn a_frozen_disk_under_interval_stalls_writers_of_the_ring() {
        let _turn = crate::turn();
        let Some(image) = Image::new("ext4") else { return };
        let data = image.path().join("data");
        let fsync = Fsync::Interval(INTERVAL);
        writers_stall(&Setup::new(Program::Annulus("uring"), fsync, data), &image);
    }
}

const INTERVAL: Duration = Duration::from_millis(100);

/// A disk on which nothing becomes durable for a while.
trait Still {
    fn stop(&self);
    fn go_on(&self);
    /// Whether something waits for it.
    fn is_waited_for(&self) -> bool;
}

impl Still for FailingDisk {
    fn stop(&self) {
        self.add(Rule::new(Call::Sync, Effect::Hold).named("log-"));
    }

    fn go_on(&self) {
        self.heal();
    }

    fn is_waited_for(&self) -> bool {
        self.held() > 0
    }
}

/// The next segment of the log does not get its name.
struct SlowNames<'disk>(&'disk FailingDisk);

impl Still for SlowNames<'_> {
    fn stop(&self) {
        self.0.add(Rule::new(Call::Rename, Effect::Hold).named("log-"));
    }

    fn go_on(&self) {
        self.0.heal();
    }

    fn is_waited_for(&self) -> bool {
        self.0.held() > 0
    }
}

impl Still for Image {
    fn stop(&self) {
        self.freeze();
    }

    fn go_on(&self) {
        self.thaw();
    }

    fn is_waited_for(&self) -> bool {
        // It cannot tell, but nothing is written while it is frozen.
        true
    }
}

fn no_reader_waits(setup: &Setup, disk: &impl Still) {
    let server = Server::start(setup).unwrap();
    let _go_on = OnDrop(|| disk.go_on());
    let keys: Vec<String> = (0..20).map(|key| format!("other{key}")).collect();
    let mut first = server.connect();
    for key in &keys {
        assert_eq!(first.call(&["SET", key, "there"]).unwrap(), Reply::ok());
    }
    // Their removal is a change, for which no reader waits. Few: a key that shares its place in
    // the journal with the one that is written would wait.
    let brief = ["brief0", "brief1", "brief2", "brief3"];
    for key in brief {
        assert_eq!(first.call(&["SET", key, "there", "PX", "300"]).unwrap(), Reply::ok());
    }
    disk.stop();
    let (mut writer, mut same, mut others) = (server.connect(), server.connect(), server.connect());
    writer.push(&["SET", "slow", "written"]);
    writer.push(&["GET", "other1"]);
    writer.send().unwrap();
    wait_until("the disk is waited for", || disk.is_waited_for());
    same.push(&["GET", "slow"]);
    same.send().unwrap();
    for key in &keys {
        assert_eq!(others.call(&["GET", key]).unwrap(), Reply::Bulk(Some(b"there".to_vec())));
    }
    for key in brief {
        let mut get = || others.call(&["GET", key]).unwrap();
        wait_until("the key expires", || get() == Reply::Bulk(None));
        assert_eq!(others.call(&["TTL", key]).unwrap(), Reply::Integer(-2));
    }
    // Many replies have come since, but none that depends on what is not durable.
    assert!(disk.is_waited_for(), "the disk stood still for too short a time");
    assert!(!has_reply(&writer), "acknowledged before it was durable");
    // It may have come to its shard before the write did, and has seen nothing then.
    let same_saw = has_reply(&same).then(|| same.receive().unwrap());
    let unseen = Reply::Bulk(None);
    assert!(same_saw.as_ref().is_none_or(|it| *it == unseen), "shown before it was durable");
    disk.go_on();
    assert_eq!(writer.receive().unwrap(), Reply::ok());
    assert_eq!(writer.receive().unwrap(), Reply::Bulk(Some(b"there".to_vec())));
    let seen = same_saw.unwrap_or_else(|| same.receive().unwrap());
    assert!([Reply::Bulk(Some(b"written".to_vec())), unseen].contains(&seen));
}

fn writers_stall(setup: &Setup, disk: &(impl Still + Sync)) {
    let server = Server::start(setup).unwrap();
    let (stop, count) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut connection = server.connect();
        let (stop, count) = (&stop, &count);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let Ok(Reply::Integer(sum)) = connection.call(&["INCR", "n"]) else { return };
                count.store(sum as u64, Ordering::Relaxed);
            }
        });
        let _stop = OnDrop(|| {
            stop.store(true, Ordering::Relaxed);
            disk.go_on();
        });
        let now = || count.load(Ordering::Relaxed);
        wait_until("it writes", || now() > 100);
        disk.stop();
        wait_until("the disk is waited for", || disk.is_waited_for());
        // What is acknowledged may be lost for an interval, and no longer: then writers wait.
        wait_until("the writer stalls", || {
            let before = now();
            thread::sleep(10 * INTERVAL);
            now() == before
        });
        assert!(disk.is_waited_for(), "the disk stood still for too short a time");
        let stalled = now();
        let mut reader = server.connect();
        assert_eq!(reader.call(&["GET", "other"]).unwrap(), Reply::Bulk(None));
        disk.go_on();
        wait_until("it goes on", || now() > stalled + 100);
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn comes_through(disk: &FailingDisk, program: Program, effect: Effect) {
    let mut campaign = campaign(disk, program, Fsync::Always, OnError::Fail);
    for skipped in 0..30 {
        disk.add(Rule::new(Call::Write, effect).after(skipped).times(2));
    }
    campaign.cycle_without_kills(&mut Kill).unwrap();
    assert!(disk.hits() > 5, "{} hits", disk.hits());
    check_on_the_healthy_disk(disk, &mut campaign);
}

fn interrupted_writes_are_done_again(disk: &FailingDisk, program: Program) {
    comes_through(disk, program, Effect::Fail(libc::EINTR));
}

/// Not on the ring: see `fs_faults` of the engines. It goes on by itself after a short write past
/// the page cache as well, and on FUSE at the wrong place.
fn short_writes_are_made_whole(disk: &FailingDisk, program: Program) {
    comes_through(disk, program, Effect::Shorten);
}

/// Not on the ring: see `fs_faults` of the engines.
fn short_reads_are_read_on_at_the_start(disk: &FailingDisk, program: Program) {
    let mut campaign = campaign(disk, program, Fsync::Always, OnError::Fail);
    campaign.cycle_without_kills(&mut Kill).unwrap();
    for skipped in 0..30 {
        disk.add(Rule::new(Call::Read, Effect::Shorten).after(skipped).times(1));
    }
    campaign.start().unwrap();
    assert!(disk.hits() > 0);
}
