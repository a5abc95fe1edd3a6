//! Two tasks want the same thing: a lock lets the second find what the first has fetched.
//!
//! Answers the program with `asyncio.Lock` around a cache: the second waits at the lock while the
//! first makes its request, then finds 'x' there and returns early.
//!
//! `cargo run --example lock`

mod trace;

use std::rc::Rc;

use annulus::sync::Mutex;
use annulus::{Runtime, task, time};
use trace::{Trace, UNIT};

/// What a request for 'x' has given, once there was one.
type Cache = Rc<Mutex<Option<&'static str>>>;

async fn request(trace: &Trace) -> &'static str {
    time::sleep(UNIT).await;
    trace.say("----");
    "x"
}

async fn get_stuff(name: &str, cache: &Cache, trace: &Trace) -> &'static str {
    trace.say("lala");
    let mut cached = cache.lock().await;
    trace.say(format_args!("{name} start"));
    if let Some(stuff) = *cached {
        return stuff;
    }
    let stuff = request(trace).await;
    *cached = Some(stuff);
    trace.say(format_args!("{name} end"));
    stuff
}

async fn user(name: &'static str, cache: Cache, trace: Trace) {
    get_stuff(name, &cache, &trace).await;
    trace.say(format_args!("{name} ok"));
}

/// Runs the program and gives what it printed.
pub(crate) fn run(runtime: &Runtime) -> Vec<String> {
    let trace = Trace::default();
    let cache = Cache::default();
    runtime.block_on(async {
        let users = ["one", "two"];
        task::gather(users.map(|name| user(name, Rc::clone(&cache), trace.clone()))).await;
    });
    trace.lines()
}

fn main() -> annulus::Result<()> {
    run(&Runtime::builder().shards(1).build()?);
    Ok(())
}
