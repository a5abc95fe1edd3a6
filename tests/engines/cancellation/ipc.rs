//! Pipes, shared rings and signals.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;

use annulus::ipc::{self, pipe, ring};
use annulus::signal::{self, SignalKind};
use annulus::stream::StreamExt;
use annulus::{Engine, task};
use futures_util::join;

use super::{at_every_await, later, small, within};
use crate::harness::{Scratch, pattern, run_with, turns};

on_every_engine!(
    alone: writing_to_a_pipe,
    receiving_from_a_pipe,
    opening_a_fifo,
    rings,
    signals,
    ctrl_c,
);

const MUCH: usize = 500_000;

fn writing_to_a_pipe(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("pipe::Sender::write_all", async |cut| {
            let (mut sender, mut receiver) = ipc::pipe().unwrap();
            let reading = task::spawn(async move {
                turns(3).await;
                receiver.recv_all(2 * MUCH).await.unwrap()
            });
            let written = cut.until(sender.write_all(pattern(0, MUCH))).await;
            drop(sender);
            let came = within("the end", reading).await.unwrap();
            assert!(pattern(0, MUCH).starts_with(&came), "{} bytes, but others", came.len());
            assert!(written.is_none() || came.len() == MUCH);
        })
        .await;
        at_every_await("pipe::Sender::close", async |cut| {
            let (mut sender, mut receiver) = ipc::pipe().unwrap();
            sender.write_all(b"last").await.unwrap();
            assert!(cut.until(sender.close()).await.is_none_or(|closed| closed.is_ok()));
            // Given up, it is closed in the background.
            assert_eq!(within("the end", receiver.recv_all(9)).await.unwrap(), b"last");
        })
        .await;
    });
}

/// Writes a little now and then.
fn drip(mut sender: pipe::Sender) -> task::JoinHandle<()> {
    task::spawn(async move {
        for part in 0..5 {
            turns(3).await;
            sender.write_all(pattern(part * 100, 100)).await.unwrap();
        }
    })
}

fn receiving_from_a_pipe(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("pipe::Receiver::recv", async |cut| {
            let (sender, mut receiver) = ipc::pipe().unwrap();
            let dripping = drip(sender);
            let mut all = Vec::new();
            let receiving = async {
                while let Some(bytes) = receiver.recv().await.unwrap() {
                    all.extend(bytes);
                }
            };
            cut.past(receiving).await;
            while let Some(bytes) = within("recv", receiver.recv()).await.unwrap() {
                all.extend(bytes);
            }
            assert!(all == pattern(0, 500), "bytes are lost: {} came", all.len());
            dripping.await.unwrap();
        })
        .await;
        at_every_await("pipe::Receiver::recv_into", async |cut| {
            let (sender, mut receiver) = ipc::pipe().unwrap();
            let dripping = drip(sender);
            let first = cut.until(receiver.recv_into(Vec::with_capacity(64))).await;
            let mut all = first.map_or_else(Vec::new, Result::unwrap);
            // The buffer may be lost, but no byte of the pipe.
            while let Some(bytes) = within("recv", receiver.recv()).await.unwrap() {
                all.extend(bytes);
            }
            assert!(all == pattern(0, 500), "bytes are lost: {} came", all.len());
            dripping.await.unwrap();
        })
        .await;
        at_every_await("pipe::Receiver::recv_all", async |cut| {
            let (sender, mut receiver) = ipc::pipe().unwrap();
            let dripping = drip(sender);
            let all = cut.until(receiver.recv_all(9999)).await;
            assert!(all.is_none_or(|all| all.unwrap() == pattern(0, 500)));
            let rest = within("the rest", receiver.recv_all(9999)).await.unwrap();
            assert!(pattern(0, 500).ends_with(&rest));
            dripping.await.unwrap();
        })
        .await;
    });
}

fn opening_a_fifo(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("fifo");
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    run_with(small(engine), async {
        at_every_await("pipe::Receiver::open", async |cut| {
            let done = Rc::new(Cell::new(false));
            let writing = task::spawn(write_until(path.clone(), Rc::clone(&done)));
            // What was written to one that is given up goes with it, so it is written again.
            let mut receiver = match cut.until(pipe::Receiver::open(&path)).await {
                Some(receiver) => receiver.unwrap(),
                None => within("open", pipe::Receiver::open(&path)).await.unwrap(),
            };
            assert!(within("recv", receiver.recv()).await.unwrap().unwrap().starts_with(b"once"));
            done.set(true);
            within("the writer", writing).await.unwrap();
        })
        .await;
    });
}

/// Writes to a fifo again and again; nobody may have it open yet, or any more.
async fn write_until(path: PathBuf, done: Rc<Cell<bool>>) {
    while !done.get() {
        match pipe::Sender::open(&path) {
            Ok(mut sender) => drop(sender.write_all(b"once").await),
            Err(error) => assert!(error.errno().is_some(), "{error}"),
        }
        turns(3).await;
    }
}

fn rings(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("ring::Receiver::recv", async |cut| {
            let (sender, receiver) = ring::create(4096).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let sending = task::spawn(async move {
                for number in 0..5u8 {
                    turns(3).await;
                    sender.send(&[number; 9]).await.unwrap();
                }
            });
            let mut all = Vec::new();
            let receiving = async {
                while let Some(message) = receiver.recv().await.unwrap() {
                    all.push(message[0]);
                }
            };
            cut.past(receiving).await;
            let mut message = Vec::new();
            while within("recv", receiver.recv_into(&mut message)).await.unwrap() {
                all.push(message[0]);
                message.clear();
            }
            assert_eq!(all, [0, 1, 2, 3, 4]);
            sending.await.unwrap();
        })
        .await;
        at_every_await("ring::Receiver::recv_into", async |cut| {
            let (sender, receiver) = ring::create(4096).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let sending = later(move || assert!(sender.try_send(b"one").unwrap()));
            let mut message = Vec::new();
            if cut.until(receiver.recv_into(&mut message)).await.is_none() {
                assert!(within("recv", receiver.recv_into(&mut message)).await.unwrap());
            }
            assert_eq!(message, b"one");
            sending.await.unwrap();
        })
        .await;
        at_every_await("ring::Sender::send", async |cut| {
            let (sender, receiver) = ring::create(64).unwrap();
            let (mut sender, mut receiver) = (sender.open().unwrap(), receiver.open().unwrap());
            let receiving = task::spawn(async move {
                let mut all = Vec::new();
                while let Some(message) = receiver.recv().await.unwrap() {
                    turns(2).await;
                    all.push(message[0]);
                }
                all
            });
            let mut sent = 0;
            let sending = async {
                while sent < 20 {
                    sender.send(&[sent; 20]).await.unwrap();
                    sent += 1;
                }
            };
            cut.past(sending).await;
            // A message is written as a whole or not at all.
            for number in sent..20 {
                within("send", sender.send(&[number; 20])).await.unwrap();
            }
            drop(sender);
            let all = within("the end", receiving).await.unwrap();
            assert_eq!(all, (0..20).collect::<Vec<_>>());
        })
        .await;
    });
}

/// Sends a signal to this thread: its handler has run when this returns.
fn raise(kind: SignalKind) {
    // SAFETY: it takes no pointers.
    assert_eq!(unsafe { libc::raise(kind.as_raw()) }, 0);
}

fn signals(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Signals::recv", async |cut| {
            let mut signals = signal::stream(SignalKind::SIGUSR1).unwrap();
            let raising = later(|| raise(SignalKind::SIGUSR1));
            let came = match cut.until(signals.recv()).await {
                Some(came) => came,
                None => within("a signal", signals.recv()).await,
            };
            assert_eq!(came.unwrap(), SignalKind::SIGUSR1);
            raising.await.unwrap();
        })
        .await;
        at_every_await("Signals as a stream", async |cut| {
            let mut signals = signal::stream(SignalKind::SIGUSR2).unwrap();
            let raising = later(|| raise(SignalKind::SIGUSR2));
            let came = match cut.until(signals.next()).await {
                Some(came) => came,
                None => within("a signal", signals.next()).await,
            };
            assert!(came.is_some());
            raising.await.unwrap();
        })
        .await;
    });
}

fn ctrl_c(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("ctrl_c", async |cut| {
            // Listened to throughout, so that a signal that nobody waits for ends nothing.
            let _stream = signal::stream(SignalKind::SIGINT).unwrap();
            let raising = async {
                turns(3).await;
                raise(SignalKind::SIGINT);
            };
            let (came, ()) = join!(cut.until(signal::ctrl_c()), raising);
            assert!(came.is_none_or(|came| came.is_ok()));
        })
        .await;
    });
}
