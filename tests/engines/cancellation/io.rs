//! Reading and writing by trait, copies, and readiness.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::os::unix::net::UnixStream as StdUnixStream;

use annulus::io::{
    self, AsyncFd, AsyncReadExt, AsyncWriteExt, Interest, Lines, copy, copy_bidirectional, relay,
};
use annulus::net::UnixStream;
use annulus::{Engine, ipc, task};

use super::{at_every_await, drain, later, prefix, small, within};
use crate::harness::{pair, pattern, run_with, turns};

on_every_engine!(
    alone: reading_by_measure,
    reading_to_the_end,
    reading_lines,
    reading_and_writing_by_trait,
    pipes_by_trait,
    copying,
    relaying,
    readiness,
);

const MUCH: usize = 500_000;

/// Sends in parts, with pauses, and ends.
fn feed(mut peer: StdStream, parts: Vec<Vec<u8>>) -> task::JoinHandle<StdStream> {
    task::spawn(async move {
        for part in parts {
            turns(3).await;
            peer.write_all(&part).unwrap();
        }
        peer.shutdown(Shutdown::Write).unwrap();
        peer
    })
}

fn parts() -> Vec<Vec<u8>> {
    (0..6).map(|part| pattern(part * 500, 500)).collect()
}

fn text() -> Vec<Vec<u8>> {
    ["on", "e\ntw", "o\n", "thr", "ee\nlast"].map(|part| part.as_bytes().to_vec()).into()
}

fn reading_by_measure(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("read_exact", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = feed(peer, parts());
            let mut buffer = [0; 2200];
            let read = cut.until(io::read_exact(&mut stream, &mut buffer)).await;
            let mut rest = Vec::new();
            within("the rest", io::read_to_end(&mut stream, &mut rest, 9999)).await.unwrap();
            // What a dropped one had read is gone, and nothing else.
            assert!(pattern(0, 3000).ends_with(&rest), "{} bytes, but others", rest.len());
            if read.is_some() {
                assert_eq!((&buffer[..], rest.len()), (&pattern(0, 2200)[..], 800));
            }
            drop(peer.await.unwrap());
        })
        .await;
        at_every_await("AsyncReadExt::read", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = feed(peer, parts());
            let mut buffer = [0; 100];
            let count = cut.until(stream.read(&mut buffer)).await;
            let mut all = buffer[..count.map_or(0, Result::unwrap)].to_vec();
            within("the rest", io::read_to_end(&mut stream, &mut all, 9999)).await.unwrap();
            assert!(all == pattern(0, 3000), "bytes are lost");
            drop(peer.await.unwrap());
        })
        .await;
    });
}

fn reading_to_the_end(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("read_to_end", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = feed(peer, parts());
            let mut all = Vec::new();
            cut.past(io::read_to_end(&mut stream, &mut all, 9999)).await;
            within("the rest", io::read_to_end(&mut stream, &mut all, 9999)).await.unwrap();
            assert!(all == pattern(0, 3000), "bytes are lost");
            drop(peer.await.unwrap());
        })
        .await;
        at_every_await("read_to_string", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = feed(peer, text());
            let mut all = String::new();
            let read = cut.until(io::read_to_string(&mut stream, &mut all, 9999)).await;
            assert_eq!(all, if read.is_some() { "one\ntwo\nthree\nlast" } else { "" });
            drop(stream);
            drop(peer.await);
        })
        .await;
    });
}

fn reading_lines(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("read_until", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = feed(peer, text());
            let mut line = Vec::new();
            let read = cut.until(io::read_until(&mut stream, b'\n', &mut line, 99)).await;
            if read.is_none() {
                // A call with the same vector goes on.
                let rest = io::read_until(&mut stream, b'\n', &mut line, 99);
                within("the rest", rest).await.unwrap();
            }
            assert_eq!(line, b"one\n");
            within("the rest", io::read_to_end(&mut stream, &mut line, 99)).await.unwrap();
            assert_eq!(line, b"one\ntwo\nthree\nlast");
            drop(peer.await.unwrap());
        })
        .await;
        at_every_await("Lines::next_line", async |cut| {
            let (stream, peer) = pair().await;
            let peer = feed(peer, text());
            let mut lines = Lines::new(stream, 99);
            let mut all = Vec::new();
            let reading = async {
                while let Some(line) = lines.next_line().await.unwrap() {
                    all.push(line);
                }
            };
            cut.past(reading).await;
            while let Some(line) = within("a line", lines.next_line()).await.unwrap() {
                all.push(line);
            }
            assert_eq!(all, ["one", "two", "three", "last"]);
            drop(peer.await.unwrap());
        })
        .await;
    });
}

fn reading_and_writing_by_trait(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("write_all, flush, close of a stream", async |cut| {
            let (mut stream, peer) = pair().await;
            let peer = drain(peer);
            let writing = async {
                stream.write_all(&pattern(0, MUCH)).await.unwrap();
                stream.flush().await.unwrap();
                stream.close().await.unwrap();
                MUCH
            };
            let written = cut.until(writing).await;
            drop(stream);
            prefix(written, MUCH, peer).await;
        })
        .await;
        at_every_await("write_all, close of a half", async |cut| {
            let (stream, peer) = pair().await;
            let peer = drain(peer);
            let (reader, mut writer) = stream.split();
            let writing = async {
                writer.write_all(&pattern(0, MUCH)).await.unwrap();
                writer.close().await.unwrap();
                MUCH
            };
            let written = cut.until(writing).await;
            drop((reader, writer));
            prefix(written, MUCH, peer).await;
        })
        .await;
    });
}

fn pipes_by_trait(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("write_all, close of a pipe", async |cut| {
            let (mut sender, mut receiver) = ipc::pipe().unwrap();
            let reading = task::spawn(async move { receiver.recv_all(2 * MUCH).await.unwrap() });
            let writing = async {
                AsyncWriteExt::write_all(&mut sender, &pattern(0, MUCH)).await.unwrap();
                AsyncWriteExt::close(&mut sender).await.unwrap();
            };
            let written = cut.until(writing).await;
            drop(sender);
            let came = within("the end", reading).await.unwrap();
            assert!(pattern(0, MUCH).starts_with(&came), "{} bytes, but others", came.len());
            assert!(written.is_none() || came.len() == MUCH);
        })
        .await;
        at_every_await("read of a pipe", async |cut| {
            let (mut sender, mut receiver) = ipc::pipe().unwrap();
            let writing = task::spawn(async move {
                turns(2).await;
                sender.write_all(pattern(0, 3000)).await.unwrap();
            });
            let mut buffer = [0; 100];
            let count = cut.until(receiver.read(&mut buffer)).await;
            let mut all = buffer[..count.map_or(0, Result::unwrap)].to_vec();
            within("the rest", receiver.read_to_end(&mut all)).await.unwrap();
            assert!(all == pattern(0, 3000), "bytes are lost: {} came", all.len());
            writing.await.unwrap();
        })
        .await;
    });
}

fn copying(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("copy", async |cut| {
            let (mut source, peer) = pair().await;
            let (target, sink) = StdUnixStream::pair().unwrap();
            let (mut target, sink) = (UnixStream::from_std(target).unwrap(), drain(sink));
            let peer = feed(peer, parts());
            cut.past(copy(&mut source, &mut target)).await;
            // What has been consumed has been written, so another copy goes on.
            within("the rest", copy(&mut source, &mut target)).await.unwrap();
            drop(target);
            prefix(Some(3000), 3000, sink).await;
            drop(peer.await.unwrap());
        })
        .await;
        at_every_await("copy_bidirectional", async |cut| {
            let (mut one, peer) = pair().await;
            let (mut other, sink) = pair().await;
            let peer = feed(peer, parts());
            let sink = drain_and_answer(sink);
            let copied = cut.until(copy_bidirectional(&mut one, &mut other)).await;
            drop((one, other));
            let there = copied.map(|copied| copied.unwrap());
            assert!(there.is_none_or(|(there, back)| (there, back) == (3000, 6)));
            prefix(there.map(|(there, _)| there as usize), 3000, sink).await;
            drop(peer.await);
        })
        .await;
    });
}

/// Takes all, and says so at the end.
fn drain_and_answer(mut peer: StdStream) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = peer.read_to_end(&mut all);
        let _ = peer.write_all(b"answer");
        all
    })
}

fn relaying(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("relay", async |cut| {
            let (one, peer) = pair().await;
            let (other, sink) = pair().await;
            let peer = feed(peer, parts());
            let sink = drain_and_answer(sink);
            let relayed = cut.until(relay(&one, &other)).await;
            drop((one, other));
            let there = relayed.map(|relayed| relayed.unwrap());
            assert!(there.is_none_or(|(there, back)| (there, back) == (3000, 6)));
            prefix(there.map(|(there, _)| there as usize), 3000, sink).await;
            drop(peer.await);
        })
        .await;
    });
}

fn readiness(engine: Engine) {
    run_with(small(engine), async {
        let sockets = || {
            let (ours, theirs) = StdUnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            (AsyncFd::new(ours), theirs)
        };
        at_every_await("AsyncFd::readable", async |cut| {
            let (ours, mut theirs) = sockets();
            let theirs = later(move || theirs.write_all(b"x").map(|()| theirs));
            cut.past(ours.readable()).await;
            // Nothing was taken.
            assert!(within("readable", ours.readable()).await.unwrap().is_readable());
            drop(theirs.await.unwrap().unwrap());
        })
        .await;
        at_every_await("AsyncFd::writable", async |cut| {
            let (ours, mut theirs) = sockets();
            let full = loop {
                if let Err(error) = ours.get_ref().write(&[0; 9999]) {
                    break error;
                }
            };
            assert_eq!(full.kind(), ErrorKind::WouldBlock);
            let theirs = later(move || {
                theirs.set_nonblocking(true).unwrap();
                while theirs.read(&mut [0; 9999]).is_ok() {}
                theirs
            });
            cut.past(ours.writable()).await;
            assert!(within("writable", ours.writable()).await.unwrap().is_writable());
            drop(theirs.await.unwrap());
        })
        .await;
        at_every_await("AsyncFd::ready", async |cut| {
            let (ours, theirs) = sockets();
            let theirs = later(move || drop(theirs));
            let ready = cut.until(ours.ready(Interest::Readable)).await;
            assert!(ready.is_none_or(|ready| ready.unwrap().is_closed()));
            theirs.await.unwrap();
        })
        .await;
        at_every_await("AsyncFd::perform", async |cut| {
            let (ours, mut theirs) = sockets();
            let theirs = later(move || theirs.write_all(b"once").map(|()| theirs));
            let read = |mut socket: &StdUnixStream| {
                let mut buffer = [0; 9];
                socket.read(&mut buffer).map(|count| buffer[..count].to_vec())
            };
            let reading = || ours.perform(Interest::Readable, |socket| read(socket));
            let came = match cut.until(reading()).await {
                Some(came) => came,
                None => within("perform", reading()).await,
            };
            assert_eq!(came.unwrap(), b"once");
            drop(theirs.await.unwrap().unwrap());
        })
        .await;
    });
}
