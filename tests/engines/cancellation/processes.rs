//! Child processes: none is left behind as a zombie, and no status is lost.

use std::time::Duration;

use annulus::process::{Command, Stdio};
use annulus::{Engine, ipc, time};

use super::{at_every_await, small, within};
use crate::harness::run_with;

on_every_engine!(
    alone: waiting_for_a_child,
    running_a_command,
    killing_a_child,
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
