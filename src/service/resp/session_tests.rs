//! Tests of sessions over several partitions: a small cluster in one thread, and one partition that
//! it must behave like.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::super::server::RespSettings;
use super::*;
use crate::store::access::LockedStore;
use crate::store::loan::Loan;
use crate::store::{Keeping, Partition, SlotMap, Store};

/// Partitions that only their owners touch, and a session at home in the first one.
struct Cluster {
    server: Arc<Server>,
    partitions: Vec<Partition>,
    session: Session,
    now_ms: u64,
}

fn server(map: SlotMap, settings: RespSettings) -> Arc<Server> {
    Arc::new(Server::new(settings, map, 0))
}

fn session(server: &Server) -> Session {
    let (address, local) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
    let registration = server.clients.connect(address, local, 0, 100, Box::new(|| {}));
    let record = registration.expect("room for a client").record.clone();
    Session::new(Client::new(record, !server.asks_password()))
}

impl Cluster {
    fn new(count: usize) -> Self {
        let map = SlotMap::new(count);
        let server = server(map, RespSettings::default());
        let session = session(&server);
        let partitions = map.partitions().map(|id| Partition::new(map.slots(id))).collect();
        Self { server, partitions, session, now_ms: 1_000_000 }
    }

    /// What the connection loop does, without tasks.
    fn ask(&mut self, input: &[u8]) -> Vec<u8> {
        let map = self.server.map;
        let (mut sent, mut at) = (Vec::new(), 0);
        loop {
            let mut out = Vec::new();
            let mut home = Home::one(map, PartitionId(0), &mut self.partitions[0]);
            let now_ms = self.now_ms;
            let rest = &input[at..];
            let advance = self.session.advance(rest, &mut home, &self.server, now_ms, &mut out);
            at += advance.consumed;
            let waiting: Vec<PartitionId> = self.session.outbox.partitions().collect();
            for id in waiting {
                let mut batch = self.session.outbox.take(id);
                let mut home = Home::one(map, id, &mut self.partitions[id.index()]);
                assert!(batch.run(&mut home, id, now_ms), "there is no log");
                self.session.outbox.put_back(id, batch);
            }
            self.session.outbox.stitch(&mut out, &self.server, now_ms);
            let ended = match advance.next {
                Next::Read | Next::Close => true,
                Next::Stall | Next::Wait(_) | Next::Room(_) => {
                    unreachable!("there is no log, and no limit")
                }
                Next::Send => false,
                Next::Transact(transaction) => {
                    self.transact(&transaction, &mut out);
                    false
                }
                Next::Join(mut joint) => {
                    let mut count = 0;
                    for (id, mut batch) in joint.take_parts() {
                        let partition = &mut self.partitions[id.index()];
                        assert!(batch.run(&mut Home::one(map, id, partition), id, now_ms));
                        count += batch.take_count();
                    }
                    joint.reply(count, &mut out);
                    false
                }
            };
            sent.extend_from_slice(&out);
            if ended {
                return sent;
            }
        }
    }

    fn transact(&mut self, transaction: &Transaction, out: &mut Vec<u8>) {
        let lend = |(id, keys): &(PartitionId, Vec<_>)| {
            Loan::take(&mut self.partitions[id.index()], keys.clone(), self.now_ms)
        };
        let loans = transaction.wanted().iter().map(lend).collect();
        let (loans, _) = transaction.run(loans, Keeping::Nothing, self.now_ms, out);
        for ((id, _), loan) in transaction.wanted().iter().zip(loans) {
            loan.put(&mut self.partitions[id.index()]);
        }
    }

    fn text(&mut self, input: &str) -> String {
        String::from_utf8_lossy(&self.ask(input.as_bytes())).into_owned()
    }
}

#[test]
fn replies_of_other_partitions_come_in_order() {
    let mut cluster = Cluster::new(5);
    let repeat = |line: fn(i32) -> String| (0..50).map(line).collect::<Vec<_>>().concat();
    let sets = repeat(|key| format!("SET k{key} {key}\r\nPING {key}\r\n"));
    let pongs = |key: i32| format!("+OK\r\n${}\r\n{key}\r\n", key.to_string().len());
    assert_eq!(cluster.text(&sets), (0..50).map(pongs).collect::<String>());
    let gets = repeat(|key| format!("GET k{key}\r\n"));
    let values = |key: i32| format!("${}\r\n{key}\r\n", key.to_string().len());
    assert_eq!(cluster.text(&gets), (0..50).map(values).collect::<String>());
    assert!(cluster.partitions.iter_mut().all(|partition| !partition.keyspace(0).is_empty()));
}

#[test]
fn a_command_may_spread_over_partitions() {
    let mut cluster = Cluster::new(4);
    assert_eq!(cluster.text("MSET a 1 b 2 c 3 d 4 e 5\r\n"), "+OK\r\n");
    let values = cluster.text("MGET e none a b e c d\r\n");
    let expected =
        "*7\r\n$1\r\n5\r\n$-1\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n5\r\n$1\r\n3\r\n$1\r\n4\r\n";
    assert_eq!(values, expected);
    assert_eq!(cluster.text("EXISTS a a b none\r\n"), ":3\r\n");
    assert_eq!(cluster.text("DBSIZE\r\n"), ":5\r\n");
    assert_eq!(cluster.text("DEL a b none\r\nDBSIZE\r\n"), ":2\r\n:3\r\n");
    assert_eq!(cluster.text("FLUSHALL\r\nDBSIZE\r\nRANDOMKEY\r\n"), "+OK\r\n:0\r\n$-1\r\n");
}

#[test]
fn nulls_of_a_spread_keep_their_places_in_resp3() {
    let mut cluster = Cluster::new(4);
    cluster.text("HELLO 3\r\nMSET a 1 b 2\r\n");
    assert_eq!(cluster.text("MGET a x y b z\r\n"), "*5\r\n$1\r\n1\r\n_\r\n_\r\n$1\r\n2\r\n_\r\n");
}

#[test]
fn keys_move_between_partitions_with_their_deadlines() {
    let mut cluster = Cluster::new(16);
    assert_eq!(
        cluster.text("SET foo v EX 100\r\nRENAME foo bar\r\nTTL bar\r\n"),
        "+OK\r\n+OK\r\n:100\r\n"
    );
    assert_eq!(cluster.text("GET foo\r\nRENAME foo x\r\n"), "$-1\r\n-ERR no such key\r\n");
    assert_eq!(
        cluster.text("COPY bar foo DB 3\r\nSELECT 3\r\nGET foo\r\n"),
        ":1\r\n+OK\r\n$1\r\nv\r\n"
    );
    assert_eq!(cluster.text("COPY bar foo BOGUS\r\n"), "-ERR syntax error\r\n");
}

#[test]
fn no_deadline_is_kept_that_has_passed() {
    let mut cluster = Cluster::new(1);
    assert_eq!(cluster.text("SET a 1 PX 100\r\nSET b 1 PX 100\r\n"), "+OK\r\n+OK\r\n");
    cluster.now_ms += 100;
    assert_eq!(cluster.text("GET a\r\nSET a 2 GET KEEPTTL\r\n"), "$-1\r\n$-1\r\n");
    assert_eq!(cluster.text("GET b\r\nSET b 2 KEEPTTL\r\n"), "$-1\r\n+OK\r\n");
    assert_eq!(cluster.text("MGET a b\r\nPTTL a\r\n"), "*2\r\n$1\r\n2\r\n$1\r\n2\r\n:-1\r\n");
}

#[test]
fn msetnx_sets_all_or_nothing() {
    let mut cluster = Cluster::new(16);
    assert_eq!(cluster.text("SET c 0\r\nMSETNX a 1 b 2 c 3 d 4\r\n"), "+OK\r\n:0\r\n");
    assert_eq!(cluster.text("EXISTS a b c d\r\n"), ":1\r\n");
    assert_eq!(
        cluster.text("MSETNX a 1 b 2 d 4 a 9\r\nMGET a b d\r\n"),
        ":1\r\n*3\r\n$1\r\n9\r\n$1\r\n2\r\n$1\r\n4\r\n"
    );
}

#[test]
fn partitions_behind_locks_are_read_at_one_moment() {
    let map = SlotMap::new(2);
    let server = server(map, RespSettings { output_bytes_high: usize::MAX, ..Default::default() });
    let locked = LockedStore::new(map);
    let mut names = (0..100).map(|number| format!("key{number}"));
    let first = names.next().unwrap();
    let id_of = |name: &str| map.partition_of(name.as_bytes());
    let second = names.find(|name| id_of(name) != id_of(&first)).unwrap();
    let is_over = AtomicBool::new(false);
    let ask = |session: &mut Session, input: &str| {
        let mut out = Vec::new();
        let advance =
            |home: &mut Home<'_>| session.advance(input.as_bytes(), home, &server, 1, &mut out);
        assert_eq!(locked.open().visit(advance).0.consumed, input.len());
        String::from_utf8(out).unwrap()
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = session(&server);
            for value in (1000..10_000).cycle().take(1_000_000) {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                ask(&mut session, &format!("MSET {first} {value} {second} {value}\r\n"));
            }
        });
        let mut session = session(&server);
        // Often one and the other, so that much would come between two looks.
        let mget = format!("MGET{}\r\n", format!(" {first} {second}").repeat(500));
        let is_torn = |_| {
            let reply = ask(&mut session, &mget);
            let mut values = reply.split("\r\n").skip(1).filter(|line| line.len() == 4);
            let value = values.next();
            value.is_some() && !values.all(|other| Some(other) == value)
        };
        let torn_count = (0..300).map(is_torn).filter(|is_torn| *is_torn).count();
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(torn_count, 0);
    });
}

#[test]
fn a_large_command_of_another_partition_leaves_little_behind() {
    let mut cluster = Cluster::new(2);
    let mut names = (0..100).map(|number| format!("key{number}"));
    let key = names.find(|name| cluster.server.map.partition_of(name.as_bytes()).index() == 1);
    let key = key.unwrap();
    let value = "v".repeat(1 << 20);
    let set = format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), 1 << 20);
    assert_eq!(cluster.text(&set), "+OK\r\n");
    let gets = format!("GET {key}\r\n").repeat(3) + &format!("STRLEN {key}\r\n").repeat(5000);
    assert_eq!(cluster.text(&gets).len(), 3 * (value.len() + 12) + 5000 * 10);
    let kept = cluster.session.outbox.spare_bytes();
    assert!(kept <= 256 * 1024, "{kept} bytes");
}

#[test]
fn a_scan_visits_every_partition() {
    let mut cluster = Cluster::new(5);
    for key in 0..100 {
        cluster.text(&format!("SET k{key} v\r\n"));
    }
    let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
    loop {
        let reply = cluster.text(&format!("SCAN {cursor} COUNT 7 MATCH k*\r\n"));
        let mut lines = reply.split("\r\n").filter(|line| !line.starts_with(['*', '$']));
        cursor = lines.next().unwrap_or_default().to_owned();
        seen.extend(lines.filter(|line| !line.is_empty()).map(str::to_owned));
        if cursor == "0" {
            break;
        }
    }
    seen.sort();
    let mut expected: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn info_adds_up_the_partitions() {
    let mut cluster = Cluster::new(3);
    cluster.text("MSET a 1 b 2 c 3 d 4\r\nGET a\r\nGET none\r\n");
    let info = cluster.text("INFO keyspace stats\r\n");
    assert!(info.contains("db0:keys=4,expires=0,avg_ttl=0\r\n"), "{info}");
    assert!(info.contains("keyspace_hits:1\r\nkeyspace_misses:1\r\n"), "{info}");
}

#[test]
fn output_past_its_high_mark_is_sent_before_more_is_done() {
    let map = SlotMap::new(1);
    let server = server(map, RespSettings { output_bytes_high: 100, ..Default::default() });
    let mut session = session(&server);
    let (mut partition, mut out) = (Partition::default(), Vec::new());
    let mut home = Home::one(map, PartitionId(0), &mut partition);
    let input = b"ECHO 0123456789\r\n".repeat(50);
    let advance = session.advance(&input, &mut home, &server, 0, &mut out);
    assert!(matches!(advance.next, Next::Send));
    assert_eq!(out.len(), 102);
    assert_eq!(advance.consumed, 6 * 17);
}

#[test]
fn an_invalid_request_is_told_and_ends_the_connection() {
    let mut cluster = Cluster::new(1);
    let reply = cluster.text("PING\r\n*1\r\nfoo\r\nPING\r\n");
    assert_eq!(reply, "+PONG\r\n-ERR Protocol error: expected '$', got 'f'\r\n");
}

#[test]
fn strangers_may_only_authenticate() {
    let map = SlotMap::new(1);
    let settings = RespSettings { password: Some("secret".to_owned()), ..Default::default() };
    let server = server(map, settings);
    let mut session = session(&server);
    let mut partition = Partition::default();
    let mut ask = |input: &str| {
        let mut out = Vec::new();
        let mut home = Home::one(map, PartitionId(0), &mut partition);
        let advance = session.advance(input.as_bytes(), &mut home, &server, 0, &mut out);
        assert_eq!(advance.consumed, input.len());
        String::from_utf8_lossy(&out).into_owned()
    };
    let stranger = "-NOAUTH Authentication required.\r\n";
    assert_eq!(ask("GET a\r\n"), stranger);
    assert_eq!(ask("PING\r\n"), stranger);
    assert_eq!(ask("NOSUCH\r\n"), "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
    assert!(ask("HELLO 3\r\n").starts_with("-NOAUTH HELLO must be called with"));
    assert!(ask("AUTH wrong\r\n").starts_with("-WRONGPASS "));
    assert!(ask("AUTH other secret\r\n").starts_with("-WRONGPASS "));
    assert_eq!(ask("AUTH secret\r\nGET a\r\n"), "+OK\r\n$-1\r\n");
    assert_eq!(ask("RESET\r\nGET a\r\n"), format!("+RESET\r\n{stranger}"));
    assert!(
        ask("HELLO 3 AUTH default secret\r\n").starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n")
    );
    assert_eq!(ask("GET a\r\n"), "_\r\n");
    assert_eq!(
        ask("CONFIG SET requirepass \"\"\r\nRESET\r\nPING\r\n"),
        "+OK\r\n+RESET\r\n+PONG\r\n"
    );
}

#[test]
fn a_request_behind_the_password_is_read_by_the_limits_of_a_friend() {
    let map = SlotMap::new(1);
    let settings = RespSettings { password: Some("secret".to_owned()), ..Default::default() };
    let server = server(map, settings);
    let (mut session, mut partition, mut out) = (session(&server), Partition::default(), vec![]);
    let mut home = Home::one(map, PartitionId(0), &mut partition);
    let long = format!("$20000\r\n{}\r\n", "v".repeat(20_000));
    let input = format!("AUTH secret\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n{long}GET a\r\n");
    let advance = session.advance(input.as_bytes(), &mut home, &server, 0, &mut out);
    assert!(matches!(advance.next, Next::Read));
    assert_eq!(String::from_utf8_lossy(&out), format!("+OK\r\n+OK\r\n{long}"));
}

#[test]
fn a_killed_client_does_nothing_more() {
    let map = SlotMap::new(1);
    let server = server(map, RespSettings::default());
    let mut partition = Partition::default();
    let hung_up = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let connect = |address: &str| {
        let hung_up = Arc::clone(&hung_up);
        let hangup = Box::new(move || hung_up.store(true, Ordering::Relaxed));
        server.clients.connect(address.to_owned(), String::new(), 0, 9, hangup).expect("room")
    };
    let (killer, victim) = (connect("1.1.1.1:1"), connect("2.2.2.2:2"));
    let mut ask = |registration: &super::super::clients::Registration<'_>, input: &str| {
        let mut session = Session::new(Client::new(registration.record.clone(), true));
        let mut out = Vec::new();
        let mut home = Home::one(map, PartitionId(0), &mut partition);
        let advance = session.advance(input.as_bytes(), &mut home, &server, 0, &mut out);
        (String::from_utf8_lossy(&out).into_owned(), matches!(advance.next, Next::Close))
    };
    let kill = "CLIENT KILL ADDR 2.2.2.2:2\r\n";
    assert_eq!(ask(&killer, kill), (":1\r\n".to_owned(), false));
    assert!(hung_up.load(Ordering::Relaxed));
    assert_eq!(ask(&victim, "SET a 1\r\n"), (String::new(), true));
    assert_eq!(ask(&killer, "CLIENT KILL SKIPME yes ID 1\r\n").0, ":0\r\n");
    assert_eq!(ask(&killer, "CLIENT KILL 1.1.1.1:1\r\nPING\r\n"), ("+OK\r\n".to_owned(), true));
}

#[test]
fn quitting_ends_the_connection_behind_its_reply() {
    let mut cluster = Cluster::new(3);
    assert_eq!(cluster.text("SET b 1\r\nQUIT\r\nPING\r\n"), "+OK\r\n+OK\r\n");
}

/// Words of commands, drawn so that they meet the same few keys.
fn commands() -> impl Strategy<Value = Vec<Vec<String>>> {
    let names = table::COMMANDS.iter().map(|command| command.name);
    // Replies that differ by nature: order, chance, or addresses.
    let unlike =
        ["keys", "scan", "randomkey", "info", "client", "time", "quit", "shutdown", "lastsave"];
    let names: Vec<&str> = names.filter(|name| !unlike.contains(name)).collect();
    let options =
        "EX|PX|NX|XX|GT|GET|KEEPTTL|REPLACE|DB|PERSIST|ENCODING|USAGE|[abcdefg]|-?[0-9]{1,4}";
    let word = prop_oneof![4 => "[abcdefgh]", 2 => "-?[0-9]{1,3}", 2 => options];
    let command = (prop::sample::select(names), prop::collection::vec(word, 0..6));
    let command = command.prop_map(|(name, mut words)| {
        words.insert(0, name.to_owned());
        words
    });
    prop::collection::vec(command, 1..60)
}

fn encode(commands: &[Vec<String>]) -> Vec<u8> {
    let mut input = Vec::new();
    for words in commands {
        let mut encoder = Encoder::new(&mut input, crate::protocol::resp::Protocol::Resp2);
        encoder.array(words.len());
        for word in words {
            encoder.bulk(word.as_bytes());
        }
    }
    input
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn partitions_make_no_difference(commands in commands()) {
        let input = encode(&commands);
        let one = Cluster::new(1).ask(&input);
        let three = Cluster::new(3).ask(&input);
        prop_assert_eq!(one.escape_ascii().to_string(), three.escape_ascii().to_string());

        let map = SlotMap::new(7);
        let server = server(map, RespSettings::default());
        let (mut session, mut out) = (session(&server), Vec::new());
        let store: Store = LockedStore::new(map).open();
        let (advance, _) = store.visit(|home| {
            session.advance(&input, home, &server, 1_000_000, &mut out)
        });
        prop_assert_eq!(advance.consumed, input.len());
        prop_assert_eq!(one.escape_ascii().to_string(), out.escape_ascii().to_string());
    }

    #[test]
    fn cuts_in_the_input_and_full_outputs_make_no_difference(
        commands in commands(),
        cut in any::<prop::sample::Index>(),
        output_bytes_high in 1..200usize,
    ) {
        let input = encode(&commands);
        let whole = Cluster::new(1).ask(&input);
        let map = SlotMap::new(1);
        let server = server(map, RespSettings { output_bytes_high, ..Default::default() });
        let (mut session, mut partition) = (session(&server), Partition::default());
        let (mut sent, mut pending) = (Vec::new(), Vec::new());
        let (head, tail) = input.split_at(cut.index(input.len()));
        for piece in [head, tail] {
            pending.extend_from_slice(piece);
            loop {
                let (mut home, mut out) = (Home::one(map, PartitionId(0), &mut partition), vec![]);
                let advance = session.advance(&pending, &mut home, &server, 1_000_000, &mut out);
                pending.drain(..advance.consumed);
                sent.append(&mut out);
                if matches!(advance.next, Next::Read) {
                    break;
                }
            }
        }
        prop_assert_eq!(whole.escape_ascii().to_string(), sent.escape_ascii().to_string());
    }

    #[test]
    fn arbitrary_words_never_panic(words in prop::collection::vec("[ -~]{0,12}", 0..8),
                                   row in 0..table::COMMANDS.len()) {
        let mut command = vec![table::COMMANDS[row].name.to_owned()];
        command.extend(words);
        Cluster::new(2).ask(&encode(&[command]));
    }
}
