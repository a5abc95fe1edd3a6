//! Unix sockets: the same streams by another family.

use std::time::Duration;

use annulus::net::{UnixListener, UnixStream};
use annulus::{Direction, Engine, Payload, task, time};

use crate::harness::{Scratch, pattern, run};

on_every_engine!(
    a_unix_listener_serves_its_path,
    a_missing_or_taken_path_is_named,
    a_pair_talks_in_both_directions,
    a_unix_stream_carries_much_and_vectored,
);

async fn receive_all(stream: &UnixStream) -> Vec<u8> {
    let mut received = Vec::new();
    while let Some(chunk) = stream.recv().await.unwrap() {
        received.extend_from_slice(&chunk);
    }
    received
}

fn a_unix_listener_serves_its_path(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("socket");
        let listener = UnixListener::bind(&path).unwrap();
        for round in 0..20 {
            let client = UnixStream::connect(&path).await.unwrap();
            let served = listener.accept().await.unwrap();
            let question = pattern(round, 100);
            client.send(question.clone()).await.unwrap();
            client.shutdown(Direction::Write).await.unwrap();
            assert_eq!(receive_all(&served).await, question);
            served.send(b"answer").await.unwrap();
            drop(served);
            assert_eq!(receive_all(&client).await, b"answer");
        }
    });
}

fn a_missing_or_taken_path_is_named(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("none");
        let error = UnixStream::connect(&path).await.unwrap_err();
        assert!(error.is_not_found());
        let text =
            format!("connecting to {}: No such file or directory (os error 2)", path.display());
        assert_eq!(error.to_string(), text);
        let _taken = UnixListener::bind(&path).unwrap();
        let error = UnixListener::bind(&path).unwrap_err();
        assert!(error.is_address_in_use());
    });
}

fn a_pair_talks_in_both_directions(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixStream::pair().unwrap();
        one.send(b"there").await.unwrap();
        other.send(b"back").await.unwrap();
        one.shutdown(Direction::Write).await.unwrap();
        assert_eq!(receive_all(&other).await, b"there");
        drop(other);
        assert_eq!(receive_all(&one).await, b"back");
        let error = one.send(b"more").await.unwrap_err();
        assert!(error.is_disconnected(), "{error}");
        // The numbers of a closed pair serve the next.
        drop(one);
        let (one, other) = UnixStream::pair().unwrap();
        let sending = task::spawn(async move { one.send(b"again").await.map(drop) });
        assert_eq!(receive_all(&other).await, b"again");
        sending.await.unwrap().unwrap();
    });
}

fn a_unix_stream_carries_much_and_vectored(engine: Engine) {
    run(engine, async {
        let (one, other) = UnixStream::pair().unwrap();
        let sending = task::spawn(async move {
            one.send(pattern(0, 2_000_000)).await.unwrap();
            let parts: Vec<Payload> =
                (0..100).map(|part| pattern(2_000_000 + part * 10_000, 10_000).into()).collect();
            one.send_vectored(parts).await.unwrap();
        });
        time::sleep(Duration::from_millis(3)).await;
        assert!(receive_all(&other).await == pattern(0, 3_000_000), "the bytes differ");
        sending.await.unwrap();
    });
}
