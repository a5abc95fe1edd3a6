//! Child processes: none is left behind as a zombie, and no status is lost. And files.

use std::time::Duration;

use annulus::buffer::AlignedBuffer;
use annulus::fs::{Directory, File, OpenOptions};
use annulus::process::{Command, Stdio};
use annulus::{Engine, ipc, time};

use super::{at_every_await, small, within};
use crate::harness::{Scratch, pattern, run_with};

on_every_engine!(
    alone: waiting_for_a_child,
    running_a_command,
    killing_a_child,
    files,
);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

fn waiting_for_a_child(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Child::wait", async |cut| {
            let mut child = shell("exit 3").spawn().unwrap();
            let status = match cut.until(child.wait()).await {
                Some(status) => status,
                None => within("a status", child.wait()).await,
            };
            assert_eq!(status.unwrap().code(), Some(3));
        })
        .await;
        at_every_await("Child::wait_with_output", async |cut| {
            let mut command = shell("echo out; echo err >&2");
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let output = cut.until(Box::pin(child.wait_with_output())).await;
            assert!(output.is_none_or(|output| output.unwrap().stdout == b"out\n"));
        })
        .await;
    });
}

fn running_a_command(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Command::status", async |cut| {
            let status = cut.until(shell("exit 4").status()).await;
            assert!(status.is_none_or(|status| status.unwrap().code() == Some(4)));
        })
        .await;
        at_every_await("Command::output", async |cut| {
            let output = cut.until(Box::pin(shell("echo out; echo err >&2").output())).await;
            assert!(output.is_none_or(|output| output.unwrap().stderr == b"err\n"));
        })
        .await;
        at_every_await("Command::output, killed on drop", async |cut| {
            let mut command = shell("echo out; read line");
            let (sender, theirs) = ipc::pipe().unwrap();
            command.stdin(theirs.into_stdio().unwrap()).kill_on_drop(true);
            let output = async {
                let _open = sender;
                time::timeout(Duration::from_millis(5), Box::pin(command.output())).await
            };
            assert!(cut.until(output).await.is_none_or(|output| output.is_err()));
        })
        .await;
    });
}

fn killing_a_child(engine: Engine) {
    run_with(small(engine), async {
        at_every_await("Child::kill", async |cut| {
            let mut child = Command::new("sleep").arg("3600").spawn().unwrap();
            if cut.until(child.kill()).await.is_none() {
                child.start_kill().unwrap();
            }
            assert!(!within("its end", child.wait()).await.unwrap().success());
        })
        .await;
    });
}

fn files(engine: Engine) {
    let scratch = Scratch::new();
    let path = scratch.file("data");
    std::fs::write(&path, pattern(0, 9000)).unwrap();
    run_with(small(engine), async {
        at_every_await("File::open", async |cut| {
            assert!(cut.until(File::open(&path)).await.is_none_or(|file| file.is_ok()));
        })
        .await;
        at_every_await("OpenOptions::open", async |cut| {
            let options = OpenOptions::new().write(true).create(true);
            let made = cut.until(options.open(scratch.file("made"))).await;
            assert!(made.is_none_or(|made| made.is_ok()));
        })
        .await;
        at_every_await("Directory::open", async |cut| {
            assert!(cut.until(Directory::open(&scratch.0)).await.is_none_or(|made| made.is_ok()));
        })
        .await;
        let directory = Directory::open(&scratch.0).await.unwrap();
        at_every_await("Directory::open_file", async |cut| {
            assert!(cut.until(directory.open_file("data")).await.is_none_or(|file| file.is_ok()));
        })
        .await;
        let file = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        at_every_await("File::read_at", async |cut| {
            let read = cut.until(file.read_at(Vec::with_capacity(9000), 0)).await;
            assert!(read.is_none_or(|read| read.unwrap().into_vec() == pattern(0, 9000)));
        })
        .await;
        at_every_await("File::read_at, aligned", async |cut| {
            cut.past(file.read_at(AlignedBuffer::new(4096, 4096), 0)).await;
        })
        .await;
        at_every_await("File::write_at", async |cut| {
            let written = cut.until(file.write_at(pattern(0, 9000), 0)).await;
            assert!(written.is_none_or(|written| written.is_ok()));
        })
        .await;
        at_every_await("File::sync_all and others", async |cut| {
            let all = async {
                file.sync_all().await.unwrap();
                file.sync_data().await.unwrap();
                file.metadata().await.unwrap().len()
            };
            assert!(cut.until(all).await.is_none_or(|length| length == 9000));
        })
        .await;
        assert_eq!(std::fs::read(&path).unwrap(), pattern(0, 9000));
    });
}
