//! The same program on another engine: chosen by the program, or by whoever starts it.
//!
//! Answers `asyncio.set_event_loop_policy(...)`, with which a program swaps the loop under it. Here
//! the builder takes an engine; without that, `ANNULUS_ENGINE` decides, else the host.
//!
//! `cargo run --example engine_swap` and `ANNULUS_ENGINE=epoll cargo run --example engine_swap`

mod trace;

use annulus::{Builder, Engine, Result, Runtime, time};
use trace::{Trace, UNIT};

/// What does not know which engine it runs on.
async fn program() -> u32 {
    time::sleep(UNIT).await;
    666
}

fn show(builder: Builder, trace: &Trace) -> Result<()> {
    let runtime = builder.build()?;
    trace.say(format_args!("{}: {}", runtime.report().engine, runtime.block_on(program())));
    Ok(())
}

/// Swaps the engine in the program; gives what it printed.
pub(crate) fn run_chosen() -> Result<Vec<String>> {
    let trace = Trace::default();
    for engine in [Engine::Uring, Engine::Epoll, Engine::Threads] {
        let builder = Runtime::builder().shards(1).engine(engine);
        // A host without io_uring says so before anything is built.
        match builder.plan() {
            Ok(_) => show(builder, &trace)?,
            Err(error) => trace.say(error),
        }
    }
    Ok(trace.lines())
}

/// Takes the engine that the environment names; gives what it printed.
pub(crate) fn run_from_environment() -> Result<Vec<String>> {
    let trace = Trace::default();
    show(Runtime::builder().shards(1), &trace)?;
    Ok(trace.lines())
}

fn main() -> Result<()> {
    run_chosen()?;
    run_from_environment().map(drop)
}
