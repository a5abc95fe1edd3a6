//! A trace of what happened in which order, and when, in units of time.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use annulus::time::Instant;
use annulus::{Engine, time};

use crate::harness::{builder, run_with};

/// One unit of time.
pub(crate) const U: Duration = Duration::from_millis(20);

/// What was noted, in order. Clones write into the same trace.
#[derive(Clone, Default)]
pub(crate) struct Script(Rc<RefCell<Vec<String>>>);

impl Script {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.0.borrow_mut().push(text.into());
    }

    /// A guard that notes `text` when it is dropped.
    pub(crate) fn on_drop(&self, text: &'static str) -> OnDrop {
        OnDrop { script: self.clone(), text }
    }

    /// What was noted, with commas in between.
    pub(crate) fn text(&self) -> String {
        self.0.borrow().join(",")
    }

    /// Sleeps for so many units between two notes, and gives `value`.
    pub(crate) async fn act<T>(self, name: &'static str, units: u32, value: T) -> T {
        self.note(format!("{name} begins"));
        time::sleep(U * units).await;
        self.note(format!("{name} ends"));
        value
    }
}

pub(crate) struct OnDrop {
    script: Script,
    text: &'static str,
}

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.script.note(self.text);
    }
}

/// Runs a future with a clock that stands still while anything is ready, so that time is exact.
pub(crate) fn run_timed<F: Future>(engine: Engine, future: F) -> F::Output {
    run_with(builder(engine).paused_clock(true), future)
}

/// Counts units of time.
pub(crate) struct Watch(Instant);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(time::now())
    }

    /// So many units have passed since the start, to the nanosecond.
    #[track_caller]
    pub(crate) fn assert_units(&self, units: u32) {
        assert_eq!(time::now().since(self.0), U * units);
    }
}
