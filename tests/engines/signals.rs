//! Signals as streams: each listener once, coalesced, and what a signal did before comes back.
//!
//! I1: `a_signal_is_delivered_once_to_each_stream`, `the_last_stream_gives_the_default_back`,
//! `signals_that_come_together_are_one`, `streams_of_several_signals_are_apart`,
//! `a_signal_between_two_receives_is_kept`, `a_receive_that_is_given_up_loses_no_signal`,
//! `ctrl_c_is_awaited_once`, `signals_that_cannot_be_caught_are_refused`,
//! `another_handler_is_called_and_comes_back`, `a_handler_installed_later_stays`,
//! `every_shard_may_listen`, `a_signal_is_a_stream`, `too_many_streams_are_refused`,
//! `streams_leave_nothing_open`, `a_sleeping_shard_is_woken`,
//! `a_stream_hears_after_a_foreign_handler_has_gone`.
//!
//! I2 (a daemon drains on SIGTERM and reloads on SIGHUP) is in `tests/daemon_running`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use annulus::limits::SIGNAL_STREAMS_COUNT_MAX;
use annulus::shard::{ShardId, shard};
use annulus::signal::{self, SignalKind, Signals};
use annulus::{Engine, task, time};
use futures_core::Stream;

use crate::harness::{builder, descriptors, eventually_here, run, run_with, turns};

// Alone: a signal is the whole process's.
on_every_engine!(
    alone: a_signal_is_delivered_once_to_each_stream,
    the_last_stream_gives_the_default_back,
    signals_that_come_together_are_one,
    streams_of_several_signals_are_apart,
    a_signal_between_two_receives_is_kept,
    a_receive_that_is_given_up_loses_no_signal,
    ctrl_c_is_awaited_once,
    signals_that_cannot_be_caught_are_refused,
    another_handler_is_called_and_comes_back,
    a_handler_installed_later_stays,
    every_shard_may_listen,
    a_signal_is_a_stream,
    too_many_streams_are_refused,
    streams_leave_nothing_open,
    a_sleeping_shard_is_woken,
    a_stream_hears_after_a_foreign_handler_has_gone,
);

/// Sends a signal to this thread: its handler has run when this returns.
fn raise(kind: SignalKind) {
    // SAFETY: it takes no pointers.
    assert_eq!(unsafe { libc::raise(kind.as_raw()) }, 0);
}

/// Sends a signal to this process: whichever thread takes it, when it can.
fn kill(kind: SignalKind) {
    // SAFETY: neither call takes pointers.
    assert_eq!(unsafe { libc::kill(libc::getpid(), kind.as_raw()) }, 0);
}

/// What a signal does: the address of its handler.
fn action(kind: SignalKind) -> usize {
    // SAFETY: a null new action only asks; an all-zero action is valid to be filled.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(kind.as_raw(), std::ptr::null(), &raw mut action), 0);
        action.sa_sigaction
    }
}

fn set_action(kind: SignalKind, handler: usize) {
    // SAFETY: sets a disposition; no other test runs meanwhile.
    assert_ne!(unsafe { libc::signal(kind.as_raw(), handler) }, libc::SIG_ERR);
}

/// That nothing (more) has come.
async fn silent(stream: &mut Signals) {
    let nothing = time::timeout(Duration::from_millis(5), stream.recv()).await;
    assert!(nothing.is_err(), "{nothing:?}");
}

fn a_signal_is_delivered_once_to_each_stream(engine: Engine) {
    run(engine, async {
        let mut streams: Vec<Signals> =
            (0..3).map(|_| signal::stream(SignalKind::SIGUSR1).unwrap()).collect();
        for _ in 0..3 {
            kill(SignalKind::SIGUSR1);
            for stream in &mut streams {
                assert_eq!(stream.recv().await.unwrap(), SignalKind::SIGUSR1);
            }
            for stream in &mut streams {
                silent(stream).await;
            }
        }
    });
}

fn the_last_stream_gives_the_default_back(engine: Engine) {
    let kinds = [SignalKind::SIGUSR1, SignalKind::SIGTERM, SignalKind::SIGHUP, SignalKind::SIGCHLD];
    run(engine, async {
        for kind in kinds {
            assert_eq!(action(kind), libc::SIG_DFL);
            let first = signal::stream(kind).unwrap();
            let mut second = signal::stream(kind).unwrap();
            assert_ne!(action(kind), libc::SIG_DFL);
            drop(first);
            kill(kind);
            second.recv().await.unwrap();
            drop(second);
            assert_eq!(action(kind), libc::SIG_DFL);
        }
    });
}

fn signals_that_come_together_are_one(engine: Engine) {
    run(engine, async {
        let mut stream = signal::stream(SignalKind::SIGUSR2).unwrap();
        for _ in 0..10 {
            raise(SignalKind::SIGUSR2);
        }
        stream.recv().await.unwrap();
        silent(&mut stream).await;
    });
}

fn streams_of_several_signals_are_apart(engine: Engine) {
    run(engine, async {
        let mut first = signal::stream(SignalKind::SIGUSR1).unwrap();
        let mut second = signal::stream(SignalKind::SIGUSR2).unwrap();
        let mut timed = signal::stream(SignalKind::from_raw(40)).unwrap();
        raise(SignalKind::SIGUSR2);
        second.recv().await.unwrap();
        silent(&mut first).await;
        raise(SignalKind::from_raw(40));
        assert_eq!(format!("{:?}", timed.recv().await.unwrap()), "signal 40");
        silent(&mut first).await;
        silent(&mut second).await;
    });
}

fn a_signal_between_two_receives_is_kept(engine: Engine) {
    // Also one that came before there was a runtime.
    let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
    raise(SignalKind::SIGUSR1);
    run(engine, async {
        stream.recv().await.unwrap();
        raise(SignalKind::SIGUSR1);
        turns(10).await;
        stream.recv().await.unwrap();
        silent(&mut stream).await;
        drop(stream);
    });
}

fn a_receive_that_is_given_up_loses_no_signal(engine: Engine) {
    run(engine, async {
        let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
        for round in 0..50 {
            let limit = Duration::from_micros(round * 5);
            let early = time::timeout(limit, stream.recv()).await;
            assert!(early.is_err());
            raise(SignalKind::SIGUSR1);
            if time::timeout(limit, stream.recv()).await.is_err() {
                stream.recv().await.unwrap();
            }
        }
        silent(&mut stream).await;
    });
}

fn ctrl_c_is_awaited_once(engine: Engine) {
    run(engine, async {
        let lazy = signal::ctrl_c();
        assert_eq!(action(SignalKind::SIGINT), libc::SIG_DFL, "nothing before the first poll");
        drop(lazy);
        let wait = task::spawn(signal::ctrl_c());
        eventually_here("it listens", || action(SignalKind::SIGINT) != libc::SIG_DFL).await;
        raise(SignalKind::SIGINT);
        wait.await.unwrap().unwrap();
        assert_eq!(action(SignalKind::SIGINT), libc::SIG_DFL);
    });
}

fn signals_that_cannot_be_caught_are_refused(engine: Engine) {
    run(engine, async {
        let refused = [
            (libc::SIGKILL, "signal 9 cannot be caught by any program"),
            (libc::SIGSTOP, "signal 19 cannot be caught by any program"),
            (
                libc::SIGSEGV,
                "signal 11 is raised by a fault of the program, which cannot go on \
                             after it",
            ),
            (libc::SIGURG, "signal 23 wakes the runtime's own threads under the `threads` engine"),
            (33, "signal 33 belongs to the C library"),
            (0, "signal 0 is no signal: they are 1 to 64"),
            (65, "signal 65 is no signal: they are 1 to 64"),
            (-1, "signal -1 is no signal: they are 1 to 64"),
        ];
        for (number, text) in refused {
            let error = signal::stream(SignalKind::from_raw(number)).unwrap_err();
            assert!(error.is_config());
            assert_eq!(error.to_string(), text);
        }
        for number in [libc::SIGILL, libc::SIGFPE, libc::SIGBUS] {
            assert!(signal::stream(SignalKind::from_raw(number)).unwrap_err().is_config());
        }
    });
}

static OTHERS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn other(_: i32) {
    OTHERS.fetch_add(1, Ordering::SeqCst);
}

fn another_handler_is_called_and_comes_back(engine: Engine) {
    let others = other as extern "C" fn(i32) as usize;
    set_action(SignalKind::SIGUSR1, others);
    run(engine, async {
        let before = OTHERS.load(Ordering::SeqCst);
        let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
        raise(SignalKind::SIGUSR1);
        stream.recv().await.unwrap();
        eventually_here("both", || OTHERS.load(Ordering::SeqCst) == before + 1).await;
        drop(stream);
        assert_eq!(action(SignalKind::SIGUSR1), others);
    });
    set_action(SignalKind::SIGUSR1, libc::SIG_DFL);
}

fn a_handler_installed_later_stays(engine: Engine) {
    let others = other as extern "C" fn(i32) as usize;
    run(engine, async {
        let first = signal::stream(SignalKind::SIGIO).unwrap();
        let ours = action(SignalKind::SIGIO);
        set_action(SignalKind::SIGIO, others);
        let second = signal::stream(SignalKind::SIGIO).unwrap();
        assert_eq!(action(SignalKind::SIGIO), others);
        drop((first, second));
        assert_eq!(action(SignalKind::SIGIO), others);
        // It goes, as it came: what was there before the first stream is known still.
        set_action(SignalKind::SIGIO, ours);
        let mut third = signal::stream(SignalKind::SIGIO).unwrap();
        raise(SignalKind::SIGIO);
        third.recv().await.unwrap();
        drop(third);
        assert_eq!(action(SignalKind::SIGIO), libc::SIG_DFL);
    });
}

fn every_shard_may_listen(engine: Engine) {
    run_with(builder(engine).shards(2), async {
        let _keeps = signal::stream(SignalKind::SIGUSR1).unwrap();
        let there = shard(ShardId(1));
        let listening = there.submit(|| async {
            let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
            raise(SignalKind::SIGUSR1);
            stream.recv().await.unwrap();
            stream.recv().await.unwrap()
        });
        let here = task::spawn(async {
            let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
            stream.recv().await.unwrap();
        });
        let until_both = task::spawn(async {
            loop {
                time::sleep(Duration::from_millis(5)).await;
                raise(SignalKind::SIGUSR1);
            }
        });
        assert_eq!(listening.await.unwrap(), SignalKind::SIGUSR1);
        here.await.unwrap();
        until_both.abort();
    });
    assert_eq!(action(SignalKind::SIGUSR1), libc::SIG_DFL);
}

fn a_signal_is_a_stream(engine: Engine) {
    run(engine, async {
        let mut stream = signal::stream(SignalKind::SIGWINCH).unwrap();
        assert_eq!(format!("{stream:?}"), "Signals(SIGWINCH)");
        raise(SignalKind::SIGWINCH);
        let item = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await;
        assert_eq!(item.unwrap().unwrap(), SignalKind::SIGWINCH);
    });
}

fn too_many_streams_are_refused(engine: Engine) {
    run(engine, async {
        let streams: Vec<Signals> = (0..SIGNAL_STREAMS_COUNT_MAX)
            .map(|_| signal::stream(SignalKind::SIGUSR1).unwrap())
            .collect();
        let error = signal::stream(SignalKind::SIGUSR2).unwrap_err();
        assert!(error.is_limit());
        assert_eq!(error.to_string(), "256 streams of signals are open, the most");
        assert_eq!(action(SignalKind::SIGUSR2), libc::SIG_DFL);
        drop(streams);
        drop(signal::stream(SignalKind::SIGUSR2).unwrap());
    });
}

fn streams_leave_nothing_open(engine: Engine) {
    run(engine, async {
        time::sleep(Duration::from_millis(1)).await;
        let before = descriptors();
        // Signals come all the time meanwhile: the handler runs while seats are emptied.
        let keeps = signal::stream(SignalKind::SIGUSR1).unwrap();
        let flood = thread::spawn(|| {
            for _ in 0..2000 {
                raise(SignalKind::SIGUSR1);
            }
        });
        for round in 0..200 {
            let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
            let _ = time::timeout(Duration::from_micros(round), stream.recv()).await;
        }
        flood.join().unwrap();
        drop(keeps);
        eventually_here("all is closed", || descriptors() == before).await;
    });
}

fn a_sleeping_shard_is_woken(engine: Engine) {
    run(engine, async {
        let mut stream = signal::stream(SignalKind::SIGUSR1).unwrap();
        // A thread that is no shard takes it, after the shard has gone to sleep without a limit.
        let other = thread::spawn(|| {
            thread::sleep(Duration::from_millis(20));
            raise(SignalKind::SIGUSR1);
        });
        stream.recv().await.unwrap();
        other.join().unwrap();
    });
}

fn a_stream_hears_after_a_foreign_handler_has_gone(engine: Engine) {
    extern "C" fn foreign(_: i32) {}
    let set = |action: usize| {
        // SAFETY: the handler does nothing; the others are no functions.
        unsafe { libc::signal(libc::SIGUSR2, action) };
    };
    run(engine, async {
        for left in [libc::SIG_IGN, libc::SIG_DFL] {
            let first = signal::stream(SignalKind::SIGUSR2).unwrap();
            set(foreign as *const () as usize);
            drop(first);
            set(left);
            let mut second = signal::stream(SignalKind::SIGUSR2).unwrap();
            raise(SignalKind::SIGUSR2);
            second.recv().await.unwrap();
            // Beside a stream that other code has deafened: both hear.
            set(left);
            let mut third = signal::stream(SignalKind::SIGUSR2).unwrap();
            raise(SignalKind::SIGUSR2);
            second.recv().await.unwrap();
            third.recv().await.unwrap();
            drop((second, third));
            assert_eq!(action(SignalKind::SIGUSR2), left, "what was there comes back");
        }
        set(libc::SIG_DFL);
    });
}
