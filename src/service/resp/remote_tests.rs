//! Commands over several partitions that do not come to their end: what panics ends the process,
//! which a child of the test shows; what is dropped or shut down leaves nothing behind.

use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::command::{Call, Command, Keys, Merge, Outcome, Run, flag};
use super::super::commands::keys::same_database;
use super::*;
use crate::log::{Log, Lsn, Policy};
use crate::protocol::resp::{Decoder, Encoder, Protocol};
use crate::shard::placement::Placement;
use crate::store::access::LockedStore;
use crate::store::{Change, Expiry, Partition, SlotMap};
use crate::{Engine, Runtime, time};

const PARTITIONS_COUNT: usize = 3;
/// Set in the child, which does what its parent then looks at.
const CHILD: &str = "ANNULUS_TEST_BREAKS_OFF";
/// A command sets its keys to this, but panics at the one that is given another value.
const GOOD: &str = "good";

const KEYS: Keys = Keys { first: 1, last: -1, step: 2 };

static TOGETHER: Command =
    command("together", Run::Together { run: set_all, database: same_database });
static SPREAD: Command = command("spread", Run::Spread { each: set_one, merge: Merge::Ok });

const fn command(name: &'static str, run: Run) -> Command {
    let (flags, group, since, summary) = (flag::WRITE, "test", "0", "sets keys, or panics");
    Command { name, arity: -3, keys: KEYS, flags, group, since, summary, run }
}

fn set_one(call: &mut Call<'_>, index: usize) -> i64 {
    let (key, value) = (call.args.at(index), call.args.at(index + 1));
    assert_eq!(value, GOOD.as_bytes(), "the test wants a panic here");
    call.partition.database(call.db).set_string(key, value, Expiry::Never);
    1
}

fn set_all(call: &mut Call<'_>) -> Outcome {
    KEYS.indexes(call.args.len()).for_each(|index| _ = set_one(call, index));
    call.reply.ok();
    Ok(())
}

fn map() -> SlotMap {
    SlotMap::new(PARTITIONS_COUNT)
}

/// A key that begins with `word` and lies in partition `id`.
fn key_in(id: u16, word: &str) -> String {
    let mut names = (0..).map(|number| format!("{word}{number}"));
    names.find(|name| map().partition_of(name.as_bytes()) == PartitionId(id)).expect("there is")
}

/// Keys in the order of their partitions: two in each.
fn keys(word: &str) -> Vec<String> {
    let words = [word.to_owned(), format!("{word}-more-")];
    (0..PARTITIONS_COUNT as u16).flat_map(|id| words.each_ref().map(|w| key_in(id, w))).collect()
}

/// Pairs of keys and values: all good, but that at place `bad`.
fn pairs(word: &str, bad: Option<usize>) -> Vec<String> {
    let value = |place| if Some(place) == bad { "bad" } else { GOOD };
    let pair = |(place, key): (usize, String)| [key, value(place).to_owned()];
    keys(word).into_iter().enumerate().flat_map(pair).collect()
}

fn transaction(pairs: &[String]) -> Transaction {
    let mut request = Vec::new();
    let mut encoder = Encoder::new(&mut request, Protocol::Resp2);
    encoder.array(pairs.len() + 1);
    encoder.bulk(TOGETHER.name.as_bytes());
    for word in pairs {
        encoder.bulk(word.as_bytes());
    }
    let mut decoder = Decoder::default();
    let _ = decoder.decode(&request);
    let args = decoder.args(decoder.last(), &request);
    Transaction::new(&TOGETHER, &args, 0, Protocol::Resp2, map())
}

fn joint(pairs: &[String]) -> Joint {
    let mut joint = Joint::new((&SPREAD, 0, Protocol::Resp2), Merge::Ok);
    for (id, part) in map().partitions().zip(pairs.chunks(4)) {
        let words = std::iter::once(SPREAD.name).chain(part.iter().map(String::as_str));
        joint.push(id, words.map(str::as_bytes));
    }
    joint
}

/// A runtime whose shards own a partition each, or reach all of them.
fn runtime(engine: Engine, log: Option<&Arc<Log>>) -> Runtime {
    let runtime = Runtime::builder()
        .engine(engine)
        .shards(PARTITIONS_COUNT)
        .cpu_cores(1)
        .placement(Placement::Floating)
        .build()
        .expect("a runtime");
    let partitions = map().partitions().map(|id| Partition::new(map().slots(id)));
    let locked = LockedStore::holding(map(), partitions.collect(), log.cloned());
    let log = log.cloned();
    let installed = runtime.run_on_all(move |shard| {
        let id = PartitionId(shard.0);
        if engine == Engine::Threads {
            locked.open().install();
        } else {
            let partition = Partition::new(map().slots(id));
            Store::owning_partition(map(), id, partition, log.clone()).install();
        }
        std::future::ready(())
    });
    installed.expect("every shard starts");
    runtime
}

/// Does `work` with a log whose records are printed, key by key, as soon as they can be.
fn with_printed_log<F: Future<Output = ()>>(engine: Engine, work: impl FnOnce(Arc<Log>) -> F) {
    let log = Arc::new(Log::new(PARTITIONS_COUNT, Lsn::NONE, Policy::Always, Duration::ZERO));
    let printed = Arc::clone(&log);
    std::thread::spawn(move || {
        loop {
            if printed.pending_bytes() == 0 {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let lsn = printed.durable_lsn().next();
            for (_, changes) in printed.gather(lsn) {
                let mut changes = changes.as_slice();
                while let Ok(Some(change)) = Change::decode(&mut changes) {
                    println!("logged {}", String::from_utf8_lossy(change.key().unwrap_or(b"?")));
                }
            }
            printed.set_durable(lsn);
        }
    });
    let runtime = runtime(engine, Some(&log));
    runtime.block_on(work(log));
}

/// Whatever was not ended goes on here: it hands over what is left, and says so.
async fn go_on(log: &Log) {
    for id in map().partitions() {
        let visit = move || _ = store_here().visit(|home| home.with(id, |_| ()));
        let _ = shard(ShardId(id.0)).call(visit).await;
    }
    while log.pending_bytes() > 0 {
        time::sleep(Duration::from_millis(1)).await;
    }
    println!("went on");
}

/// Runs the test called `name` again in a child, which is to break off in `work`.
fn breaks_off(name: &str, work: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        return work();
    }
    let program = std::env::current_exe().expect("a path");
    let mut child = Process::new(program);
    child.args(["--exact", "--nocapture", &format!("service::resp::remote::tests::{name}")]);
    child.env(CHILD, "1").stdin(Stdio::null());
    let ended = child.output().expect("the child runs");
    let (said, told) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!(ended.status.code(), Some(1), "{said}\n{told}");
    assert!(told.contains("the test wants a panic here"), "{told}");
    assert!(told.contains("broke off halfway"), "{told}");
    for key in keys("before") {
        assert!(said.contains(&format!("logged {key}\n")), "{key} is missing: {said}");
    }
    assert!(!said.contains("torn") && !said.contains("went on"), "{said}");
}

/// Runs a command whose keys are needed together, wherever its partitions are.
async fn run_together(engine: Engine, pairs: Vec<String>) -> Trace {
    let transaction = transaction(&pairs);
    if engine != Engine::Threads {
        return transact(transaction, 1, Vec::new()).await.expect("it ends").1;
    }
    let ids: Vec<PartitionId> = map().partitions().collect();
    let mut out = Vec::new();
    let work = |lent: &mut [&mut Partition]| transaction.run_at_hand(lent, 1, &mut out);
    store_here().visit(|home| home.with_all(&ids, work)).1
}

/// Has something logged that stays, then breaks off in `work`.
fn break_off_in<F>(engine: Engine, work: impl FnOnce() -> F + 'static)
where
    F: Future<Output = ()> + 'static,
{
    with_printed_log(engine, async move |log| {
        let trace = run_together(engine, pairs("before", None)).await;
        log.durable(trace.latest()).await.expect("the log works");
        let _ = task::spawn(work()).await;
        go_on(&log).await;
    });
}

fn a_transaction_panics(engine: Engine) {
    let torn = pairs("torn", Some(3));
    break_off_in(engine, move || async move { _ = run_together(engine, torn).await });
}

fn a_part_panics(engine: Engine, bad: usize) {
    let joint = joint(&pairs("torn", Some(bad)));
    break_off_in(engine, move || async move { drop(join(joint, 1, Vec::new()).await) });
}

fn a_part_panics_halfway(engine: Engine) {
    a_part_panics(engine, 3);
}

/// Nothing is changed where the panic is, but elsewhere.
fn a_part_panics_at_once(engine: Engine) {
    a_part_panics(engine, 4);
}

/// One partition, and a command that changes several of its keys.
fn a_visit_panics(engine: Engine) {
    break_off_in(engine, || async {
        let _ = store_here().visit(|home| {
            home.with(PartitionId(0), |partition| {
                let torn = key_in(0, "torn");
                partition.database(0).set_string(torn.as_bytes(), b"v", Expiry::Never);
                panic!("the test wants a panic here");
            });
        });
    });
}

macro_rules! ending_the_process {
    ($($name:ident: $work:ident($engine:ident),)*) => {
        $(#[test]
        fn $name() {
            breaks_off(stringify!($name), || $work(Engine::$engine));
        })*
    };
}

ending_the_process! {
    on_the_ring_a_transaction_that_panics_ends_the_process: a_transaction_panics(Uring),
    on_epoll_a_transaction_that_panics_ends_the_process: a_transaction_panics(Epoll),
    behind_locks_a_transaction_that_panics_ends_the_process: a_transaction_panics(Threads),
    on_the_ring_a_part_that_panics_halfway_ends_the_process: a_part_panics_halfway(Uring),
    on_epoll_a_part_that_panics_halfway_ends_the_process: a_part_panics_halfway(Epoll),
    on_the_ring_a_part_that_panics_at_once_ends_the_process: a_part_panics_at_once(Uring),
    on_epoll_a_part_that_panics_at_once_ends_the_process: a_part_panics_at_once(Epoll),
    on_the_ring_a_visit_that_panics_halfway_ends_the_process: a_visit_panics(Uring),
    on_epoll_a_visit_that_panics_halfway_ends_the_process: a_visit_panics(Epoll),
    behind_locks_a_visit_that_panics_halfway_ends_the_process: a_visit_panics(Threads),
}

/// A transaction that has closed every gate but the last, which it waits for.
async fn begin_and_hold(log: &Arc<Log>) -> task::JoinHandle<()> {
    let last = shard(ShardId(2));
    let close = || async { store_here().gate().expect("a gate").close().await };
    last.submit(close).await.expect("the shard runs");
    let log = Arc::clone(log);
    let client = task::spawn(async move {
        let (_, trace) = transact(transaction(&pairs("k", None)), 1, Vec::new()).await.unwrap();
        let _ = log.durable(trace.latest()).await;
    });
    for id in 0..2 {
        let is_closed = || store_here().gate().expect("a gate").is_closed();
        while !shard(ShardId(id)).call(is_closed).await.expect("the shard runs") {
            time::sleep(Duration::from_millis(1)).await;
        }
    }
    client
}

fn a_client_that_goes_away_stops_no_transaction(engine: Engine) {
    let log = Arc::new(Log::new(PARTITIONS_COUNT, Lsn::NONE, Policy::Always, Duration::ZERO));
    let runtime = runtime(engine, Some(&log));
    runtime.block_on(async {
        let client = begin_and_hold(&log).await;
        client.abort();
        assert!(client.await.is_err_and(|ended| ended.is_cancelled()));
        let open = || store_here().gate().expect("a gate").open();
        shard(ShardId(2)).call(open).await.expect("the shard runs");
        for id in map().partitions() {
            let keys: Vec<String> = keys("k");
            let opened = move || async move {
                let store = store_here();
                loop {
                    store.gate().expect("a gate").opened().await;
                    let found = |own: &mut Partition| {
                        let found = keys.iter().filter(|k| own.peek(0, k.as_bytes(), 1).is_some());
                        found.count()
                    };
                    let (count, _) = store.visit(|home| home.with(id, found));
                    // Its turn comes before or after this: both partitions' keys come at once.
                    if count > 0 {
                        return count;
                    }
                    time::sleep(Duration::from_millis(1)).await;
                }
            };
            assert_eq!(shard(ShardId(id.0)).submit(opened).await.unwrap(), 2, "{engine:?}");
        }
    });
    let parts: Vec<usize> = log.gather(Lsn(1)).into_iter().map(|(lane, _)| lane).collect();
    assert_eq!(parts, [0, 1, 2], "it is one record");
}

fn a_shutdown_stops_a_transaction_and_tells_nobody(engine: Engine) {
    let log = Arc::new(Log::new(PARTITIONS_COUNT, Lsn::NONE, Policy::Always, Duration::ZERO));
    let runtime = runtime(engine, Some(&log));
    runtime.block_on(async { begin_and_hold(&log).await.detach() });
    let report = runtime.shut_down();
    assert!(report.leaked.is_empty());
    assert_eq!(log.pending_bytes(), 0, "nothing of it is logged");
}

#[test]
fn on_the_ring_a_client_that_goes_away_stops_no_transaction() {
    a_client_that_goes_away_stops_no_transaction(Engine::Uring);
}

#[test]
fn on_epoll_a_client_that_goes_away_stops_no_transaction() {
    a_client_that_goes_away_stops_no_transaction(Engine::Epoll);
}

#[test]
fn on_the_ring_a_shutdown_stops_a_transaction_and_tells_nobody() {
    a_shutdown_stops_a_transaction_and_tells_nobody(Engine::Uring);
}

#[test]
fn on_epoll_a_shutdown_stops_a_transaction_and_tells_nobody() {
    a_shutdown_stops_a_transaction_and_tells_nobody(Engine::Epoll);
}
