//! A window in one thread, the runtime in another: the window goes on while 300 is computed.
//!
//! Answers the tkinter program with `asyncio.run_coroutine_threadsafe(calc(), new_loop)`: the click
//! hands the work to the loop's thread, the window stays alive, and the result comes after three
//! units. `freezing` is the same without a thread.
//!
//! `cargo run --example background_loop`

mod trace;

use std::sync::mpsc;
use std::thread;

use annulus::shard::ShardId;
use annulus::{Builder, Error, Runtime, time};
use trace::{Trace, UNIT};

async fn calculate(a: u32, b: u32) -> (u32, thread::ThreadId) {
    time::sleep(UNIT * 3).await;
    (a + b, thread::current().id())
}

/// Runs the program with a runtime of `builder` in a thread of its own; gives what it printed.
pub(crate) fn run(builder: Builder) -> annulus::Result<Vec<String>> {
    let trace = Trace::default();
    let (sender, receiver) = mpsc::channel();
    let background = thread::spawn(move || {
        let runtime = builder.build()?;
        drop(sender.send(runtime.handle()));
        runtime.run_forever()
    });
    let Ok(handle) = receiver.recv() else {
        return background.join().unwrap_or(Err(Error::closed("the loop"))).map(|()| Vec::new());
    };

    trace.say("click");
    let mut sum = handle.shard(ShardId(0)).spawn(|| calculate(100, 200));
    trace.say("the window goes on");
    let (sum, home) = loop {
        match sum.wait_timeout(UNIT) {
            Err(error) if error.is_timed_out() => println!("a frame is painted"),
            outcome => break outcome.map_err(Error::from)?,
        }
    };
    trace.say(sum);
    trace.say(format_args!("computed by this thread: {}", home == thread::current().id()));

    handle.stop();
    background.join().unwrap_or(Err(Error::closed("the loop")))?;
    trace.say("the loop has ended");
    Ok(trace.lines())
}

fn main() -> annulus::Result<()> {
    run(Runtime::builder().shards(1)).map(drop)
}
