//! The daemon on a file system that is really full: a small one of the test's own, ext4 or tmpfs,
//! with all of its room taken by another file.
//!
//! What fails when is up to the file system here, where `failing_disk.rs` says it. Only root may
//! mount; for others the tests are skipped with a word. Invariant under test: writes are refused by
//! name, reads are served, it goes on by itself when there is room, and what was acknowledged is
//! there afterwards, what was refused is not.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::failing_disk::write_until;
use crate::image::Image;
use crate::resp::{Connection, PATIENCE, Reply};
use crate::server::{Fsync, Program, Server, Setup};

/// Nothing is removed by itself, and so makes room when the test does not expect it.
const QUIET_STORE: &str =
    "segment_size = \"1MiB\"\nsnapshot_log_size = \"0B\"\nsnapshot_every = \"0s\"\n";
/// Room for some segments and snapshots.
const DISK_BYTES: u64 = 48 << 20;
const CLIENTS: usize = 4;
const NO_ROOM: &str = "No space left on device";

macro_rules! on_every_engine {
    ($($engine:ident)+) => {
        $(mod $engine {
            #[test]
            fn ext4_that_is_full_refuses_writes_until_there_is_room() {
                super::fills_up("ext4", crate::server::Program::Annulus(stringify!($engine)));
            }
            #[test]
            fn tmpfs_that_is_full_refuses_writes_until_there_is_room() {
                super::fills_up("tmpfs", crate::server::Program::Annulus(stringify!($engine)));
            }
        })+
    };
}

on_every_engine!(uring epoll threads);

/// A file that takes all the room that is left.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(image: &Image) -> Self {
        let path = image.path().join("ballast");
        let mut file = File::create(&path).expect("there is room for a name");
        for piece in [1 << 20, 64 << 10, 4 << 10] {
            let zeros = vec![0; piece];
            loop {
                // Some file systems find out when they write back.
                match file.write_all(&zeros).and_then(|()| file.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        Self(path)
    }

    fn remove(self) {
        fs::remove_file(self.0).expect("it is there");
    }
}

/// What became of one client's keys, by their numbers.
#[derive(Default)]
struct Fates {
    acknowledged: Vec<usize>,
    refused: Vec<usize>,
}

/// One that sets a key after the other, until it is stopped or the server is gone.
struct Client {
    name: usize,
    fates: Arc<Mutex<Fates>>,
    acknowledged: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

impl Client {
    fn start(name: usize, server: &Server, stop: &Arc<AtomicBool>) -> Self {
        let (fates, acknowledged) = (Arc::<Mutex<Fates>>::default(), Arc::default());
        let (mut connection, stop) = (server.connect(), Arc::clone(stop));
        let (kept, count) = (Arc::clone(&fates), Arc::<AtomicUsize>::clone(&acknowledged));
        let thread = thread::spawn(move || {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let key = key(name, number);
                let Ok(reply) = connection.call(&["SET", &key, &value(&key)]) else { break };
                let mut fates = kept.lock().expect("nobody panics");
                match reply {
                    reply if reply == Reply::ok() => {
                        fates.acknowledged.push(number);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Reply::Error(error) if error.starts_with("MISCONF") => {
                        assert!(error.contains(NO_ROOM), "{error}");
                        fates.refused.push(number);
                        drop(fates);
                        thread::sleep(Duration::from_millis(5));
                    }
                    other => panic!("{key}: {other:?}"),
                }
            }
        });
        Self { name, fates, acknowledged, thread }
    }

    /// Waits until so many more of its writes were taken: it hangs nowhere.
    fn wait_for_more(&self, count: usize) {
        let (began, before) = (Instant::now(), self.acknowledged.load(Ordering::Relaxed));
        while self.acknowledged.load(Ordering::Relaxed) < before + count {
            assert!(began.elapsed() < PATIENCE, "client {} does not go on", self.name);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Compares what is there with what it was told.
    fn check(&self, connection: &mut Connection) {
        let fates = self.fates.lock().expect("nobody panics");
        for &number in &fates.acknowledged {
            let key = key(self.name, number);
            let found = connection.call(&["GET", &key]).expect("it serves");
            assert_eq!(found, Reply::Bulk(Some(value(&key).into_bytes())), "{key}");
        }
        for &number in &fates.refused {
            let key = key(self.name, number);
            let found = connection.call(&["GET", &key]).expect("it serves");
            assert_eq!(found, Reply::Bulk(None), "{key} was refused");
        }
    }
}

fn key(name: usize, number: usize) -> String {
    format!("key:{name}:{number}")
}

fn value(key: &str) -> String {
    key.repeat(20)
}

fn put_until(server: &Server, status: &str) -> String {
    let began = Instant::now();
    loop {
        // One that was taken just before the disk was full waits for room.
        let reply = server.put_over_http("over-http", "v").unwrap_or_default();
        if reply.starts_with(&format!("HTTP/1.1 {status}")) {
            return reply;
        }
        assert!(began.elapsed() < PATIENCE, "still {reply:?}: {}", server.log());
    }
}

fn fills_up(kind: &str, program: Program) {
    let _turn = crate::turn();
    let Some(image) = Image::of_size(kind, DISK_BYTES) else { return };
    let mut setup = Setup::new(program, Fsync::Always, image.path().join("data"));
    QUIET_STORE.clone_into(&mut setup.store);
    let mut server = Server::start(&setup).expect("it starts");
    let stop = Arc::<AtomicBool>::default();
    let clients: Vec<Client> =
        (0..CLIENTS).map(|name| Client::start(name, &server, &stop)).collect();
    for client in &clients {
        client.wait_for_more(50);
    }

    let ballast = Ballast::fill(&image);
    write_until(&server, |reply| matches!(reply, Reply::Error(it) if it.contains(NO_ROOM)));
    let refused = put_until(&server, "507");
    let place = format!("no room for the log in {} (", setup.folder.display());
    assert!(refused.contains(&place) && refused.contains(NO_ROOM), "{refused}");
    let mut connection = server.connect();
    for refused in [
        &["SET", "refused", "v"][..],
        &["MSET", "refused", "1", "as well", "2"],
        &["RENAME", "refused", "as well"],
        &["FLUSHALL"],
    ] {
        let reply = connection.call(refused).expect("it serves");
        let is_named = matches!(&reply, Reply::Error(it) if it.starts_with("MISCONF"));
        assert!(is_named, "{refused:?}: {reply:?}");
    }
    let saved = connection.call(&["SAVE"]).expect("it serves");
    assert!(matches!(&saved, Reply::Error(it) if it.contains(NO_ROOM)), "{saved:?}");
    for client in &clients {
        client.check(&mut connection);
    }

    ballast.remove();
    write_until(&server, |reply| *reply == Reply::ok());
    put_until(&server, "20");
    for client in &clients {
        client.wait_for_more(50);
    }
    assert_eq!(connection.call(&["SAVE"]).expect("it serves"), Reply::ok());

    let ballast = Ballast::fill(&image);
    write_until(&server, |reply| matches!(reply, Reply::Error(it) if it.contains(NO_ROOM)));
    server.kill();
    stop.store(true, Ordering::Relaxed);
    let server = Server::start(&setup).expect("it starts without room");
    let mut connection = server.connect();
    for client in &clients {
        client.check(&mut connection);
    }
    // There may be room for some writes, because unfinished files were removed.
    write_until(&server, |reply| matches!(reply, Reply::Error(it) if it.contains(NO_ROOM)));
    ballast.remove();
    write_until(&server, |reply| *reply == Reply::ok());
    for client in &clients {
        client.check(&mut connection);
    }
    let refused = connection.call(&["EXISTS", "refused", "as well"]).expect("it serves");
    assert_eq!(refused, Reply::Integer(0));
    assert_eq!(connection.call(&["SET", "after", "all"]).expect("it serves"), Reply::ok());
    for client in clients {
        client.thread.join().expect("what it was told makes sense");
    }
    ends_well_without_room(&image, &setup, server);
}

/// A daemon that has found no room since its start has nothing to lose.
fn ends_well_without_room(image: &Image, setup: &Setup, mut server: Server) {
    server.kill();
    let _ballast = Ballast::fill(image);
    let mut server = Server::start(setup).expect("it starts without room");
    server.ask_to_end();
    let status = server.wait().expect("it ends");
    assert_eq!(status.code(), Some(0), "{}", server.log());
}
