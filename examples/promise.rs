//! A value that someone sets later: 666 after two units; and one that nobody sets.
//!
//! Answers `loop.create_future()` with `set_after`, and the future that is awaited and never set,
//! on which asyncio hangs for ever. A time limit ends that wait; and if nobody is left who could set
//! the value, the wait ends by itself.
//!
//! `cargo run --example promise`

mod trace;

use annulus::sync::Promise;
use annulus::{Runtime, task, time};
use trace::{Trace, UNIT, units_since};

async fn set_after(promise: Promise<&'static str>) -> Promise<&'static str> {
    time::sleep(UNIT * 2).await;
    assert!(promise.set("666").is_ok(), "it is set once");
    promise
}

/// A future that nobody sets.
pub(crate) fn run_never(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let (promise, mut promised) = Promise::<u32>::pair();
        let waited = time::timeout(UNIT * 2, &mut promised).await;
        trace.say(format_args!("{:?} after {}", waited.map(|_| ()), units_since(start)));
        drop(promise);
        trace.say(format_args!("nobody is left to set it: {}", promised.await.is_err()));
    });
    trace.lines()
}

/// A future that a task sets after two units.
pub(crate) fn run_set_after(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let (promise, promised) = Promise::pair();
        let setter = task::spawn(set_after(promise));
        trace.say(format_args!("{:?} after {}", promised.await.ok(), units_since(start)));
        let again = setter.await.map(|promise| promise.set("777").is_err());
        trace.say(format_args!("a second value is refused: {:?}", again.ok()));
    });
    trace.lines()
}

/// Runs both and gives what they printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    [run_never(runtime), run_set_after(runtime)].concat()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
