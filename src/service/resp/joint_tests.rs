//! Commands over several partitions with a log beside: clients that contend for the same keys, and
//! what somebody who reads the log finds after each record.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream as Peer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::log::{Log, Lsn, Policy};
use crate::net::{TcpListener, serve_connection};
use crate::service::resp::{self, RespSettings};
use crate::shard::placement::Placement;
use crate::store::access::LockedStore;
use crate::store::{Change, Partition, PartitionId, SlotMap, Store};
use crate::{Engine, Handle, Runtime, time};

const PARTITIONS_COUNT: usize = 3;
/// Keys that lie in all of the partitions.
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Keys that lie in one partition, which are given long values.
const NEIGHBOURS: [&str; 4] = ["{a}1", "{a}2", "{a}3", "{a}4"];

/// What one record holds: changes by partition.
type Record = Vec<(usize, Vec<u8>)>;

/// A server with a log that is kept in memory, on threads of its own.
struct Logged {
    address: SocketAddr,
    handle: Handle,
    server: Option<JoinHandle<()>>,
    ended: Arc<AtomicBool>,
    writer: Option<JoinHandle<Vec<Record>>>,
}

impl Logged {
    fn start(engine: Engine) -> Self {
        let log = Arc::new(Log::new(PARTITIONS_COUNT, Lsn::NONE, Policy::Always, Duration::ZERO));
        let ended = Arc::new(AtomicBool::new(false));
        let (log_there, ended_there) = (Arc::clone(&log), Arc::clone(&ended));
        let writer = std::thread::spawn(move || write(&log_there, &ended_there));
        let (sender, receiver) = mpsc::channel();
        let server = std::thread::spawn(move || serve(engine, &log, &sender));
        let (address, handle) = receiver.recv().expect("the server starts");
        Self { address, handle, server: Some(server), ended, writer: Some(writer) }
    }

    fn connect(&self) -> Client {
        let stream = Peer::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Client(BufReader::new(stream))
    }

    /// Ends the server; answers the records.
    fn end(mut self) -> Vec<Record> {
        self.handle.drain();
        self.server.take().expect("ends once").join().expect("the server ends");
        self.ended.store(true, Ordering::Release);
        self.writer.take().expect("ends once").join().expect("the log ends")
    }
}

/// Gathers records as fast as it can, so that what is not appended as one is seen apart.
fn write(log: &Log, ended: &AtomicBool) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let is_last = ended.load(Ordering::Acquire);
        if log.pending_bytes() > 0 {
            let lsn = log.durable_lsn().next();
            records.push(log.gather(lsn));
            log.set_durable(lsn);
        } else if is_last {
            return records;
        } else {
            std::thread::yield_now();
        }
    }
}

fn serve(engine: Engine, log: &Arc<Log>, sender: &mpsc::Sender<(SocketAddr, Handle)>) {
    let runtime = Runtime::builder()
        .engine(engine)
        .shards(PARTITIONS_COUNT)
        .cpu_cores(1)
        .placement(Placement::Floating)
        .build()
        .expect("a runtime");
    let map = SlotMap::new(PARTITIONS_COUNT);
    let server = Arc::new(resp::Server::new(RespSettings::default(), map, 0));
    let partitions: Vec<Partition> =
        map.partitions().map(|id| Partition::new(map.slots(id))).collect();
    let locked = LockedStore::holding(map, partitions, Some(Arc::clone(log)));
    let handle = runtime.handle();
    let (sender, log) = (sender.clone(), Arc::clone(log));
    // On every shard before the first connection: its commands may go to any.
    let installed = runtime.run_on_all(move |id| {
        if engine != Engine::Threads {
            let id = PartitionId(id.0);
            let partition = Partition::new(map.slots(id));
            Store::owning_partition(map, id, partition, Some(Arc::clone(&log))).install();
        }
        std::future::ready(())
    });
    installed.expect("every shard starts");
    let ran = runtime.run_on_all(move |id| {
        let (server, locked) = (Arc::clone(&server), locked.clone());
        let (handle, sender) = (handle.clone(), sender.clone());
        async move {
            if id.index() == 0 {
                let address = "127.0.0.1:0".parse().expect("an address");
                let listener = TcpListener::bind(address).expect("a port");
                let address = listener.local_addr().expect("an address");
                sender.send((address, handle.clone())).expect("somebody waits");
                while let Ok(stream) = listener.accept().await {
                    let (server, locked) = (Arc::clone(&server), locked.clone());
                    let served = serve_connection("resp", stream, move |stream| {
                        if engine == Engine::Threads {
                            locked.open().install();
                        }
                        resp::serve(server, stream)
                    });
                    served.expect("a connection is served");
                }
            }
            while !crate::shard::is_draining() || handle.connections() > 0 {
                time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    ran.expect("every shard ends well");
}

struct Client(BufReader<Peer>);

impl Client {
    /// Asks for what is answered in one line.
    fn ask(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split(' ').collect();
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            let length = word.len().to_string();
            request += &["$", &length, "\r\n", word, "\r\n"].concat();
        }
        self.0.get_mut().write_all(request.as_bytes()).expect("the server listens");
        let mut reply = String::new();
        self.0.read_line(&mut reply).expect("the server answers");
        reply.trim_end().to_owned()
    }
}

/// The values of all keys, by replaying records.
#[derive(Default)]
struct Replayed(BTreeMap<Vec<u8>, Vec<u8>>);

impl Replayed {
    fn take(&mut self, record: &Record, map: SlotMap) {
        for (_, changes) in record {
            let mut changes = changes.as_slice();
            while let Some(change) = Change::decode(&mut changes).expect("the record is whole") {
                match change {
                    Change::Set { key, value, .. } => {
                        self.0.insert(key.to_vec(), value.to_vec());
                    }
                    Change::Delete { key, .. } => drop(self.0.remove(key)),
                    Change::Flush { db: 0, slots } => self.0.retain(|key, _| {
                        let id = map.partition_of(key);
                        !(slots.0..slots.1).contains(&map.slots(id).0)
                    }),
                    Change::Flush { .. } => {}
                    other => panic!("no client asked for {other:?}"),
                }
            }
        }
    }
}

fn commands_are_whole_in_every_record(engine: Engine) {
    let logged = Logged::start(engine);
    let all = KEYS.join(" ");
    let contend = |number: usize| {
        let (mut client, all) = (logged.connect(), all.clone());
        std::thread::spawn(move || {
            let mut replies = Vec::new();
            for round in 0..60 {
                let pairs = KEYS.map(|key| format!("{key} {number}-{round}")).join(" ");
                replies.push(client.ask(&format!("MSET {pairs}")));
                match (round + number) % 6 {
                    1 => replies.push(client.ask(&format!("DEL {all}"))),
                    3 => replies.push(client.ask(&format!("UNLINK {all}"))),
                    4 => replies.push(client.ask("FLUSHALL")),
                    5 => replies.push(client.ask(&format!("MSETNX {pairs}"))),
                    _ => {}
                }
            }
            replies
        })
    };
    let clients: Vec<_> = (0..3).map(contend).collect();
    let mut client = logged.connect();
    for round in 0..20 {
        let value = "x".repeat(200_000);
        let pairs = NEIGHBOURS.map(|key| format!("{key} {round}-{value}")).join(" ");
        assert_eq!(client.ask(&format!("MSET {pairs}")), "+OK");
    }
    for client in clients {
        for reply in client.join().expect("a client ends") {
            // A deletion finds every key or none: nobody else is seen half done.
            assert!(["+OK", ":0", ":1", ":6"].contains(&&*reply), "{engine:?}: {reply}");
        }
    }
    let records = logged.end();
    assert!(records.len() > 10, "{engine:?}: the log was gathered meanwhile");
    let mut replayed = Replayed::default();
    for (number, record) in records.iter().enumerate() {
        replayed.take(record, SlotMap::new(PARTITIONS_COUNT));
        for keys in [&KEYS[..], &NEIGHBOURS[..]] {
            let shown = |key: &&str| {
                let value = replayed.0.get(key.as_bytes())?;
                Some(String::from_utf8_lossy(&value[..value.len().min(8)]).into_owned())
            };
            let values: Vec<_> = keys.iter().map(shown).collect();
            let is_whole = values.iter().all(|value| *value == values[0]);
            assert!(is_whole, "{engine:?}, record {number}: {keys:?} are {values:?}");
        }
    }
}

#[test]
fn on_the_ring_commands_are_whole_in_every_record() {
    commands_are_whole_in_every_record(Engine::Uring);
}

#[test]
fn on_epoll_commands_are_whole_in_every_record() {
    commands_are_whole_in_every_record(Engine::Epoll);
}

#[test]
fn behind_locks_commands_are_whole_in_every_record() {
    commands_are_whole_in_every_record(Engine::Threads);
}

#[test]
fn the_keys_lie_in_every_partition() {
    let map = SlotMap::new(PARTITIONS_COUNT);
    let mut ids: Vec<_> = KEYS.iter().map(|key| map.partition_of(key.as_bytes())).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), PARTITIONS_COUNT);
}
