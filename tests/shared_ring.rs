//! Rings in shared memory between processes: order, ends, crashes, and peers that misbehave.
//!
//! The other process is this test binary again, told by variables which part to play. Each test
//! runs on every engine that there is.
//!
//! D4: `messages_cross_to_a_child_and_back_in_order`,
//! `a_crash_of_the_child_is_noticed_by_both_sides`, `an_end_in_order_is_the_end`,
//! `a_peer_that_corrupts_the_ring_does_no_harm` (which cannot shrink it either), `sides_are_not_mixed_up_nor_opened_twice`,
//! `capacities_are_rounded_and_bounded`, `messages_have_a_limit_and_may_be_empty`,
//! `nothing_is_lost_to_a_call_that_is_given_up`, `nothing_is_left_open`; the model of indexes and
//! wakes is in `src/ipc/ring/protocol.rs` (`scripts/loom`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use annulus::ipc::ring::{self, Receiver, ReceiverPart, Sender, SenderPart};
use annulus::limits::SHARED_RING_BYTES_MAX;
use annulus::process::{Child, Command, handover};
use annulus::shard::placement::Placement;
use annulus::{Engine, Runtime, task, time};

const MESSAGES: u32 = 100_000;

/// Tests count descriptors, so one runs at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn run<F: Future>(engine: Engine, future: F) -> F::Output {
    let builder = Runtime::builder().engine(engine).shards(1).placement(Placement::Floating);
    let runtime = builder.cpu_cores(1).build().unwrap();
    let value = runtime.block_on(async {
        let limit = Duration::from_secs(120);
        time::timeout(limit, future).await.expect("it does not hang")
    });
    let report = runtime.shut_down();
    assert!(report.leaked.is_empty(), "left in flight: {:?}", report.leaked);
    value
}

/// Runs a test on each engine that this host has.
fn on_every_engine(test: fn(Engine)) {
    let _alone = alone();
    for engine in [Engine::Uring, Engine::Epoll, Engine::Threads] {
        match Runtime::builder().engine(engine).shards(1).plan() {
            Ok(_) => test(engine),
            Err(error) => println!("skipped: {error}"),
        }
    }
}

/// This binary again, in the given part.
fn other(part: &str, engine: Engine) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "the_other_process", "--ignored", "--nocapture"]);
    command.env("PART", part).env("ENGINE", engine.to_string()).stdout(Stdio::null());
    command
}

/// The message of a number: its length varies, its bytes tell the number.
fn message(number: u32) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(4 + number as usize % 100).collect()
}

#[test]
#[ignore = "the other process of the tests here"]
fn the_other_process() {
    let engine = std::env::var("ENGINE").unwrap().parse().unwrap();
    match std::env::var("PART").unwrap().as_str() {
        "echo" => run(engine, async {
            let mut receiver = Receiver::open_inherited("THERE").unwrap();
            let mut sender = Sender::open_inherited("BACK").unwrap();
            while let Some(message) = receiver.recv().await.unwrap() {
                sender.send(&message).await.unwrap();
            }
        }),
        "send ten and crash" => run(engine, async {
            let mut sender = Sender::open_inherited("BACK").unwrap();
            for number in 0..10 {
                sender.send(&message(number)).await.unwrap();
            }
            std::process::abort();
        }),
        "take one and crash" => run(engine, async {
            let mut receiver = Receiver::open_inherited("THERE").unwrap();
            assert_eq!(receiver.recv().await.unwrap().unwrap(), message(0));
            std::process::abort();
        }),
        "corrupt" => corrupt(),
        "mix up" => {
            assert!(Sender::open_inherited("THERE").unwrap_err().is_config());
            let mut receiver = Receiver::open_inherited("THERE").unwrap();
            assert!(Receiver::open_inherited("THERE").unwrap_err().is_config());
            run(engine, async {
                assert_eq!(receiver.recv().await.unwrap().unwrap(), b"once");
            });
        }
        "open a file" => {
            let error = Receiver::open_inherited("THERE").unwrap_err();
            assert!(error.to_string().starts_with("this is no shared ring: "), "{error}");
        }
        other => panic!("no such part: {other}"),
    }
}

/// Scribbles over all of the memory, wakes the peer, and stays until it is told to end.
fn corrupt() {
    let given = handover::inherited("BACK_SENDER").unwrap();
    let [memory, socket]: [OwnedFd; 2] = given.try_into().unwrap();
    // SAFETY: neither takes pointers. What was sealed cannot be cut.
    assert_eq!(unsafe { libc::ftruncate(memory.as_raw_fd(), 0) }, -1);
    let length = std::fs::File::from(memory.try_clone().unwrap()).metadata().unwrap().len();
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a fresh shared mapping of the whole file, which only this function writes to here.
    unsafe {
        let length = length as usize;
        let memory = memory.as_raw_fd();
        let start = libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, memory, 0);
        assert_ne!(start, libc::MAP_FAILED);
        start.cast::<u8>().write_bytes(0xff, length);
    }
    let mut socket = std::os::unix::net::UnixStream::from(socket);
    std::io::Write::write_all(&mut socket, &[1; 1000]).unwrap();
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

/// Starts the other process with its ends of two rings; ours are opened.
fn connect(part: &str, engine: Engine, capacity: usize) -> (Sender, Receiver, Child) {
    let (ours, there) = ring::create(capacity).unwrap();
    let (back, mine) = ring::create(capacity).unwrap();
    let mut command = other(part, engine);
    there.hand_over(&mut command, "THERE").unwrap();
    back.hand_over(&mut command, "BACK").unwrap();
    let child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    (ours.open().unwrap(), mine.open().unwrap(), child)
}

#[test]
fn messages_cross_to_a_child_and_back_in_order() {
    on_every_engine(|engine| {
        run(engine, async {
            // Small, so that both sides sleep and wake often.
            let (mut sender, mut receiver, mut child) = connect("echo", engine, 4096);
            let send = task::spawn(async move {
                for number in 0..MESSAGES {
                    sender.send(&message(number)).await.unwrap();
                }
            });
            let mut taken = Vec::new();
            for number in 0..MESSAGES {
                taken.clear();
                assert!(receiver.recv_into(&mut taken).await.unwrap());
                assert!(taken == message(number), "message {number} is {taken:?}");
            }
            send.await.unwrap();
            assert_eq!(receiver.recv().await.unwrap(), None);
            assert_eq!(receiver.recv().await.unwrap(), None);
            assert!(child.wait().await.unwrap().success());
        });
    });
}

#[test]
fn a_crash_of_the_child_is_noticed_by_both_sides() {
    on_every_engine(|engine| {
        run(engine, async {
            let (_sender, mut receiver, mut child) = connect("send ten and crash", engine, 4096);
            for number in 0..10 {
                assert_eq!(receiver.recv().await.unwrap().unwrap(), message(number));
            }
            for _ in 0..2 {
                let error = receiver.recv().await.unwrap_err();
                assert!(error.is_disconnected());
                let text = "using a shared ring: the peer is gone: Broken pipe (os error 32)";
                assert_eq!(error.to_string(), text);
            }
            assert!(!child.wait().await.unwrap().success());

            let (mut sender, _receiver, _child) = connect("take one and crash", engine, 4096);
            let error = loop {
                if let Err(error) = sender.send(&message(0)).await {
                    break error;
                }
            };
            assert!(error.is_disconnected(), "{error}");
            assert!(sender.send(b"x").await.unwrap_err().is_disconnected());
        });
    });
}

#[test]
fn an_end_in_order_is_the_end() {
    on_every_engine(|engine| {
        run(engine, async {
            let (sender, receiver) = ring::create(4096).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let recv = task::spawn(async move {
                let first = receiver.recv().await.unwrap();
                (first, receiver.recv().await.unwrap(), receiver)
            });
            task::yield_now().await;
            sender.send(b"last").await.unwrap();
            drop(sender);
            let (first, end, mut receiver) = recv.await.unwrap();
            assert_eq!((first.as_deref(), end), (Some(&b"last"[..]), None));
            assert_eq!(receiver.recv().await.unwrap(), None);

            let (sender, receiver) = ring::create(4096).unwrap();
            let mut sender = sender.open().unwrap();
            sender.send(b"never read").await.unwrap();
            // One that sleeps for room learns it, and one that asks later.
            let send = task::spawn(async move {
                while sender.send(&[0; 1000]).await.is_ok() {}
                sender
            });
            task::yield_now().await;
            drop(receiver.open().unwrap());
            let mut sender = send.await.unwrap();
            assert!(sender.send(b"x").await.unwrap_err().is_disconnected());

            // A side that was never opened is gone as well.
            let (sender, receiver) = ring::create(4096).unwrap();
            drop(sender);
            let error = receiver.open().unwrap().recv().await.unwrap_err();
            assert!(error.is_disconnected());
        });
    });
}

#[test]
fn a_peer_that_corrupts_the_ring_does_no_harm() {
    on_every_engine(|engine| {
        run(engine, async {
            let (_sender, mut receiver, mut child) = connect("corrupt", engine, 4096);
            for _ in 0..2 {
                let error = receiver.recv().await.unwrap_err();
                let text = "reading a shared ring that its peer has corrupted: Protocol error (os \
                            error 71)";
                assert_eq!(error.to_string(), text);
            }
            drop(receiver);
            assert!(child.wait().await.unwrap().success());
        });
    });
}

#[test]
fn sides_are_not_mixed_up_nor_opened_twice() {
    on_every_engine(|engine| {
        run(engine, async {
            let (mut sender, _receiver, mut child) = connect("mix up", engine, 4096);
            sender.send(b"once").await.unwrap();
            assert!(child.wait().await.unwrap().success());
            // Something else by the same name.
            let file = || OwnedFd::from(std::fs::File::open("/proc/self/exe").unwrap());
            let mut command = other("open a file", engine);
            command.hand_over("THERE_RECEIVER", [file(), file()]).unwrap();
            assert!(command.status().await.unwrap().success());
        });
        let error = Receiver::open_inherited("THERE").unwrap_err();
        let text = "the parent process has handed nothing over as THERE_RECEIVER";
        assert_eq!(error.to_string(), text);
    });
}

fn message_bytes_max(capacity: usize) -> usize {
    let (sender, _receiver) = ring::create(capacity).unwrap();
    sender.open().unwrap().message_bytes_max()
}

#[test]
fn capacities_are_rounded_and_bounded() {
    let _alone = alone();
    let error = ring::create(0).unwrap_err();
    assert!(error.is_config());
    assert_eq!(error.to_string(), "a shared ring of 0 bytes holds nothing; give it a capacity");
    let error = ring::create(SHARED_RING_BYTES_MAX + 1).unwrap_err();
    assert!(error.is_limit());
    assert!(ring::create(usize::MAX).unwrap_err().is_limit());
    assert_eq!(message_bytes_max(1), 4096 - 8);
    assert_eq!(message_bytes_max(4096), 4096 - 8);
    assert_eq!(message_bytes_max(5000), 8192 - 8);
}

#[test]
fn messages_have_a_limit_and_may_be_empty() {
    on_every_engine(|engine| {
        run(engine, async {
            let (sender, receiver) = ring::create(4096).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let error = sender.send(&[0; 4089]).await.unwrap_err();
            assert!(error.is_limit());
            assert_eq!(error.to_string(), "a message of 4089 bytes: at most 4088");
            for length in [4088, 0, 1, 4080, 7, 8, 9] {
                sender.send(&vec![9; length]).await.unwrap();
                assert_eq!(receiver.recv().await.unwrap().unwrap(), vec![9; length]);
            }
            let mut taken = b"kept ".to_vec();
            assert!(!receiver.try_recv_into(&mut taken).unwrap());
            assert!(sender.try_send(b"and more").unwrap());
            assert!(receiver.try_recv_into(&mut taken).unwrap());
            assert_eq!(taken, b"kept and more");
            assert!(sender.try_send(&[0; 4000]).unwrap());
            assert!(!sender.try_send(&[0; 4000]).unwrap(), "there is no room");
        });
    });
}

#[test]
fn nothing_is_lost_to_a_call_that_is_given_up() {
    on_every_engine(|engine| {
        run(engine, async {
            let (sender, receiver) = ring::create(4096).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let send = task::spawn(async move {
                let mut number = 0;
                while number < 3000 {
                    let limit = Duration::from_micros(u64::from(number) % 50);
                    // Given up, it was not sent.
                    if let Ok(sent) = time::timeout(limit, sender.send(&message(number))).await {
                        sent.unwrap();
                        number += 1;
                    }
                }
            });
            let mut number = 0;
            while number < 3000 {
                let limit = Duration::from_micros(u64::from(number) % 70);
                if let Ok(taken) = time::timeout(limit, receiver.recv()).await {
                    assert_eq!(taken.unwrap().unwrap(), message(number));
                    number += 1;
                }
            }
            send.await.unwrap();
            assert_eq!(receiver.recv().await.unwrap(), None);
        });
    });
}

#[test]
fn nothing_is_left_open() {
    fn may_move<T: Send>() {}
    may_move::<(SenderPart, ReceiverPart)>();
    on_every_engine(|engine| {
        run(engine, async {
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            let mapped = || {
                let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
                maps.lines().filter(|line| line.contains("memfd:annulus")).count()
            };
            time::sleep(Duration::from_millis(1)).await;
            let before = open();
            for _ in 0..20 {
                let (sender, receiver) = ring::create(4096).unwrap();
                let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
                assert_eq!(mapped(), 2);
                let early = time::timeout(Duration::from_micros(50), receiver.recv()).await;
                assert!(early.is_err());
                while sender.try_send(&[0; 500]).unwrap() {}
                drop((sender, receiver));
                assert_eq!(mapped(), 0);
            }
            for _ in 0..1000 {
                if open() == before {
                    return;
                }
                time::sleep(Duration::from_millis(2)).await;
            }
            panic!("{} descriptors were open, {} are", before, open());
        });
    });
}
