//! Child processes: streams, status, the end of those that nobody waits for, and what goes wrong.
//!
//! L: `a_child_answers_on_its_streams`, `a_status_tells_how_a_child_ended`,
//! `output_collects_both_streams`, `arguments_variables_and_directory_arrive`,
//! `streams_may_be_null_inherited_or_files`, `a_wait_that_is_given_up_loses_no_status`,
//! `a_kill_ends_a_child`, `a_child_is_killed_on_drop_if_asked`,
//! `a_dropped_child_runs_on_and_leaves_no_zombie`, `many_children_are_waited_for_at_once`,
//! `a_program_that_cannot_be_started_is_named`, `descriptors_are_handed_over_once`,
//! `nothing_is_left_open`, `a_status_that_others_collected_is_an_error`,
//! `a_child_outlives_its_runtime_and_is_collected`, `a_child_that_reads_to_the_end_is_let_go`,
//! `a_child_that_nobody_can_talk_to_is_ended`.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use annulus::process::{Child, Command, Stdio, handover};
use annulus::{Engine, ipc, task, time};

use crate::harness::{Scratch, builder, descriptors, eventually, eventually_here, pattern, run};

// Alone: they count descriptors and children of the process.
on_every_engine!(
    alone: a_child_answers_on_its_streams,
    a_status_tells_how_a_child_ended,
    output_collects_both_streams,
    arguments_variables_and_directory_arrive,
    streams_may_be_null_inherited_or_files,
    a_wait_that_is_given_up_loses_no_status,
    a_kill_ends_a_child,
    a_child_is_killed_on_drop_if_asked,
    a_dropped_child_runs_on_and_leaves_no_zombie,
    many_children_are_waited_for_at_once,
    a_program_that_cannot_be_started_is_named,
    descriptors_are_handed_over_once,
    nothing_is_left_open,
    a_status_that_others_collected_is_an_error,
    a_child_outlives_its_runtime_and_is_collected,
    a_child_that_reads_to_the_end_is_let_go,
    a_child_that_nobody_can_talk_to_is_ended,
);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

/// The state letter of a process; `None` if there is none (proc_pid_stat(5)).
fn state(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

/// Starts a child that ends when its standard input does.
fn waiting() -> Child {
    Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
}

fn a_child_answers_on_its_streams(engine: Engine) {
    run(engine, async {
        let mut command = shell("tr a-z A-Z; echo done >&2");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert!(child.id().is_some());
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let sent = vec![b'x'; 1 << 20];
        let write = task::spawn(async move {
            stdin.write_all(sent).await.unwrap();
            stdin.close().await.unwrap();
        });
        let answer = stdout.recv_all(2 << 20).await.unwrap();
        assert!(answer == vec![b'X'; 1 << 20], "{} bytes came", answer.len());
        write.await.unwrap();
        assert_eq!(child.stderr.as_mut().unwrap().recv().await.unwrap().unwrap(), b"done\n");
        assert!(child.wait().await.unwrap().success());
        assert_eq!(child.id(), None);
    });
}

fn a_status_tells_how_a_child_ended(engine: Engine) {
    run(engine, async {
        assert_eq!(shell("exit 7").status().await.unwrap().code(), Some(7));
        assert_eq!(shell("kill -9 $$").status().await.unwrap().signal(), Some(9));
        let mut child = shell("exit 3").spawn().unwrap();
        assert_eq!(child.wait().await.unwrap().code(), Some(3));
        assert_eq!(child.wait().await.unwrap().code(), Some(3), "as often as it is asked");
        assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(3));
    });
}

fn output_collects_both_streams(engine: Engine) {
    run(engine, async {
        // More than a pipe holds on both, so that neither may be read after the other.
        let mut command = shell("head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; cat");
        for _ in 0..2 {
            let output = command.output().await.unwrap();
            assert!(output.status.success());
            assert_eq!((output.stdout.len(), output.stderr.len()), (300_000, 300_000));
        }
    });
}

fn arguments_variables_and_directory_arrive(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let mut command = shell("echo \"$A $B $C $1\"; pwd");
        command.args(["sh", "four"]).env("A", "one").env("C", "gone").envs([("B", "two")]);
        command.env_remove("C").current_dir(&scratch.0);
        let output = command.output().await.unwrap();
        let directory = scratch.0.canonicalize().unwrap();
        let expected = format!("one two  four\n{}\n", directory.display());
        assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
        let output = Command::new("/usr/bin/env").env_clear().env("X", "1").output().await;
        assert_eq!(output.unwrap().stdout, b"X=1\n");
    });
}

fn streams_may_be_null_inherited_or_files(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let path = scratch.file("in");
        std::fs::write(&path, b"from a file").unwrap();
        let file = std::fs::File::open(&path).unwrap();
        assert_eq!(Command::new("cat").stdin(file).output().await.unwrap().stdout, b"from a file");
        let (sender, mut receiver) = ipc::pipe().unwrap();
        let mut command = shell("cat; echo shown; echo hidden >&2");
        command.stdin(Stdio::null()).stdout(sender.into_stdio().unwrap()).stderr(Stdio::null());
        assert!(command.status().await.unwrap().success());
        drop(command);
        assert_eq!(receiver.recv_all(100).await.unwrap(), b"shown\n");
        let child = shell("exit 0").spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none() && child.stderr.is_none());
    });
}

fn a_wait_that_is_given_up_loses_no_status(engine: Engine) {
    run(engine, async {
        for round in 0..20 {
            let mut child = shell("read line; exit 5").stdin(Stdio::piped()).spawn().unwrap();
            let mut stdin = child.stdin.take().unwrap();
            let waiting = time::timeout(Duration::from_micros(round * 100), child.wait()).await;
            assert!(waiting.is_err());
            stdin.write_all(b"go\n").await.unwrap();
            // Given up about when it ends.
            let limit = Duration::from_micros(200 * round);
            let status = match time::timeout(limit, child.wait()).await {
                Ok(status) => status.unwrap(),
                Err(_) => child.wait().await.unwrap(),
            };
            assert_eq!(status.code(), Some(5));
        }
    });
}

fn a_kill_ends_a_child(engine: Engine) {
    run(engine, async {
        let mut child = waiting();
        let process = child.id().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        assert_eq!(child.kill().await.unwrap().signal(), Some(9));
        assert_eq!(state(process), None);
        child.start_kill().unwrap();
        assert_eq!(child.kill().await.unwrap().signal(), Some(9), "it has ended already");
    });
}

fn a_child_is_killed_on_drop_if_asked(engine: Engine) {
    run(engine, async {
        let mut command = Command::new("sleep");
        let child = command.arg("1000").kill_on_drop(true).spawn().unwrap();
        let process = child.id().unwrap();
        drop(child);
        eventually_here("it is gone", || state(process).is_none()).await;
        // Also when what waits for it is given up.
        let given_up = time::timeout(Duration::from_millis(5), command.status()).await;
        assert!(given_up.is_err());
    });
    eventually("no child is left", || children().is_empty());
}

/// The processes that this one has started and not collected.
fn children() -> Vec<u32> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().map(|number| number.parse::<u32>().unwrap()));
    }
    found
}

fn a_dropped_child_runs_on_and_leaves_no_zombie(engine: Engine) {
    run(engine, async {
        let mut kept = Vec::new();
        for _ in 0..5 {
            let mut child = waiting();
            let process = child.id().unwrap();
            kept.push((process, child.stdin.take().unwrap()));
            drop(child);
        }
        time::sleep(Duration::from_millis(5)).await;
        for (process, stdin) in kept {
            assert!(matches!(state(process), Some('S' | 'R' | 'D')), "it runs on");
            stdin.close().await.unwrap();
            eventually_here("it is collected", || state(process).is_none()).await;
        }
        // One that has ended when it is dropped.
        let child = shell("exit 0").spawn().unwrap();
        let process = child.id().unwrap();
        eventually_here("it has ended", || state(process) == Some('Z')).await;
        drop(child);
        assert_eq!(state(process), None);
    });
}

fn many_children_are_waited_for_at_once(engine: Engine) {
    run(engine, async {
        let waits: Vec<_> = (0..20)
            .map(|code| {
                let mut child = shell(&format!("exit {code}")).spawn().unwrap();
                task::spawn(async move { child.wait().await.unwrap().code() })
            })
            .collect();
        for (code, wait) in waits.into_iter().enumerate() {
            assert_eq!(wait.await.unwrap(), Some(code as i32));
        }
    });
}

fn a_program_that_cannot_be_started_is_named(engine: Engine) {
    let scratch = Scratch::new();
    run(engine, async {
        let error = Command::new("no-such-program").spawn().unwrap_err();
        assert!(error.is_not_found());
        let text = "starting `no-such-program`: No such file or directory (os error 2)";
        assert_eq!(error.to_string(), text);
        let path = scratch.file("plain");
        std::fs::write(&path, b"text").unwrap();
        let error = Command::new(&path).output().await.unwrap_err();
        let text = format!("starting `{}`: Permission denied (os error 13)", path.display());
        assert_eq!(error.to_string(), text);
    });
}

fn descriptors_are_handed_over_once(engine: Engine) {
    run(engine, async {
        let before = descriptors();
        let (sender, mut receiver) = ipc::pipe().unwrap();
        let listing = "exec ls /proc/self/fd";
        let plain = shell(listing).output().await.unwrap().stdout;
        let mut command = shell(&format!("echo by name > /proc/self/fd/$GIVEN; {listing}"));
        command.hand_over("GIVEN", [sender.into_owned_fd().unwrap()]).unwrap();
        let output = command.output().await.unwrap();
        assert_eq!(receiver.recv_all(100).await.unwrap(), b"by name\n");
        let lines = |text: &[u8]| text.split(|byte| *byte == b'\n').count();
        assert_eq!(lines(&output.stdout), lines(&plain) + 1, "it alone is inherited besides");
        let error = command.spawn().unwrap_err();
        assert!(error.is_config());
        assert_eq!(
            error.to_string(),
            "this command has handed its descriptors over to an earlier child; make another command"
        );
        drop(receiver);
        for name in ["", "a=b", "nul\0"] {
            let nothing: [OwnedFd; 0] = [];
            assert!(shell("").hand_over(name, nothing).unwrap_err().is_config());
        }
        eventually_here("all is closed here", || descriptors() == before).await;
    });
    let error = handover::inherited("ANNULUS_NOTHING").unwrap_err();
    assert_eq!(error.to_string(), "the parent process has handed nothing over as ANNULUS_NOTHING");
}

fn nothing_is_left_open(engine: Engine) {
    run(engine, async {
        time::sleep(Duration::from_millis(1)).await;
        let before = descriptors();
        for round in 0..10 {
            let mut child = waiting();
            let limit = Duration::from_micros(round * 50);
            let stdin = child.stdin.take();
            assert!(time::timeout(limit, child.wait()).await.is_err());
            drop(stdin);
            if round % 2 == 0 {
                child.wait().await.unwrap();
            }
            shell("echo x").output().await.unwrap();
        }
        eventually_here("all is closed", || descriptors() == before).await;
        eventually_here("all are collected", || children().is_empty()).await;
    });
}

fn a_status_that_others_collected_is_an_error(engine: Engine) {
    run(engine, async {
        let mut child = waiting();
        let process = child.id().unwrap() as i32;
        child.stdin.take().unwrap().close().await.unwrap();
        // SAFETY: with a null status the call writes nothing.
        assert_eq!(unsafe { libc::waitpid(process, std::ptr::null_mut(), 0) }, process);
        let error = child.wait().await.unwrap_err();
        let text = "waiting for a child process: No child processes (os error 10)";
        assert_eq!(error.to_string(), text);
    });
}

fn a_child_outlives_its_runtime_and_is_collected(engine: Engine) {
    let runtime = builder(engine).build().unwrap();
    let mut keeps = None;
    let process = runtime.block_on(async {
        let (sender, receiver) = ipc::pipe().unwrap();
        let mut command = Command::new("cat");
        command.stdin(receiver.into_stdio().unwrap());
        let mut child = command.spawn().unwrap();
        keeps = Some(sender.into_owned_fd().unwrap());
        let process = child.id().unwrap();
        task::spawn(async move { child.wait().await }).detach();
        time::sleep(Duration::from_millis(2)).await;
        process
    });
    assert!(runtime.shut_down().leaked.is_empty());
    assert!(matches!(state(process), Some('S' | 'R' | 'D')));
    let keeps = keeps.unwrap();
    std::fs::File::from(keeps).write_all(b"").unwrap();
    eventually("it is collected", || state(process).is_none());
}

fn a_child_that_reads_to_the_end_is_let_go(engine: Engine) {
    run(engine, async {
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(pattern(1, 1000)).await.unwrap();
        // `wait` closes what was left of the input; otherwise both would wait for ever.
        assert!(child.wait().await.unwrap().success());
        let rest = child.stdout.take().unwrap().recv_all(2000).await.unwrap();
        assert_eq!(rest, pattern(1, 1000));
        let output = command.spawn().unwrap().wait_with_output().await.unwrap();
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    });
}

fn a_child_that_nobody_can_talk_to_is_ended(_: Engine) {
    let own = std::process::id().to_string();
    let children = || {
        let folders = std::fs::read_dir("/proc").unwrap().flatten();
        let stats = folders.filter_map(|f| std::fs::read_to_string(f.path().join("stat")).ok());
        let is_ours = |stat: &String| {
            let (name, rest) = stat.rsplit_once(") ").unwrap();
            name.ends_with("(sleep") && rest.split(' ').nth(1) == Some(&own)
        };
        stats.filter(is_ours).count()
    };
    let spawned = std::panic::catch_unwind(|| {
        Command::new("sleep").arg("1000").stdout(Stdio::piped()).spawn().map(drop)
    });
    assert!(spawned.is_err(), "there is no runtime");
    assert_eq!(children(), 0);
}
