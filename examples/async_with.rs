//! A resource that is opened and closed by awaiting: one unit each, and 666 in between.
//!
//! Answers `async with AsyncContextManager() as f`, whose `__aenter__` connects and whose
//! `__aexit__` closes. `task::bracket` closes whatever becomes of the body, an error included.
//!
//! `cargo run --example async_with`

mod trace;

use annulus::{Runtime, task, time};
use trace::{Trace, UNIT, units_since};

struct Connection {
    trace: Trace,
}

impl Connection {
    async fn open(trace: &Trace) -> Self {
        time::sleep(UNIT).await;
        trace.say("opened");
        Connection { trace: trace.clone() }
    }

    async fn do_something(&self) -> Result<u32, &'static str> {
        Ok(666)
    }

    async fn fail(&self) -> Result<u32, &'static str> {
        Err("no such table")
    }

    async fn close(self) {
        time::sleep(UNIT).await;
        self.trace.say("closed");
    }
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    runtime.block_on(async {
        let start = time::now();
        let connection = Connection::open(&trace).await;
        let value =
            task::bracket(connection, async |it| it.do_something().await, Connection::close);
        trace.say(format_args!("{:?}", value.await));
        trace.say(units_since(start));

        let connection = Connection::open(&trace).await;
        let value = task::bracket(connection, async |it| it.fail().await, Connection::close).await;
        trace.say(format_args!("{value:?}"));
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
