//! What the log says of tasks that go wrong: which task, where from, for how long.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use annulus::shard::placement::Placement;
use annulus::{Handle, Runtime, clock, task};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the fields of every event as a line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields(format!("{} ", event.metadata().level()));
        event.record(&mut fields);
        self.0.lock().unwrap().push(fields.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The lines that are logged on this thread, which is shard 0, while `future` runs.
fn logged(future: impl Future<Output = ()>) -> Vec<String> {
    let lines = Lines::default();
    tracing::subscriber::with_default(lines.clone(), || {
        let builder = Runtime::builder().shards(1).placement(Placement::Floating);
        builder.build().unwrap().block_on(future);
    });
    let lines = lines.0.lock().unwrap();
    lines.iter().filter(|line| line.contains("task=")).cloned().collect()
}

#[test]
fn a_slow_poll_is_logged_with_task_place_and_time() {
    let line = line!() + 6;
    let lines = logged(async {
        Handle::current().set_slow_poll(Duration::from_millis(20));
        let busy = task::Builder::new().name("busy");
        let start = clock::now();
        let spin = async move { while clock::now().since(start) < Duration::from_millis(30) {} };
        busy.spawn(spin).await.unwrap();
    });
    let [slow] = &lines[..] else { panic!("{lines:#?}") };
    assert!(slow.starts_with("WARN "), "{slow}");
    assert!(slow.contains("task=\"busy\""), "{slow}");
    assert!(slow.contains(&format!("spawned_at=tests/logging.rs:{line}:")), "{slow}");
    let (_, rest) = slow.split_once("poll_ms=").unwrap();
    let millis: u64 = rest.split(' ').next().unwrap().parse().unwrap();
    assert!(millis >= 29, "{slow}"); // Rounded down.
}

#[test]
fn a_panic_is_logged_and_one_that_nobody_looked_at_once_more() {
    let lines = logged(async {
        // Printing a panic takes long enough to be a slow poll on a busy machine.
        Handle::current().set_slow_poll(Duration::MAX);
        let bad = || task::Builder::new().name("bad").spawn(async { panic!("on purpose") });
        assert!(bad().await.is_err());
        drop(bad());
        for _ in 0..3 {
            task::yield_now().await;
        }
    });
    let [seen, unseen, unobserved] = &lines[..] else { panic!("{lines:#?}") };
    for line in [seen, unseen] {
        assert!(line.starts_with("ERROR ") && line.contains("task=\"bad\""), "{line}");
        assert!(line.contains("on purpose") && line.contains("tests/logging.rs"), "{line}");
    }
    assert!(unobserved.contains("nobody looked"), "{unobserved}");
}
