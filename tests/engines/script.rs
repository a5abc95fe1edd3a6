//! A trace of what happened in which order, and when, in units of time.

use std::cell::{Cell, RefCell};
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

/// Runs a future in whose runtime time moves by itself when nothing is ready.
pub(crate) fn run_timed<F: Future>(engine: Engine, future: F) -> F::Output {
    run_with(builder(engine), future)
}

/// Counts units of time.
pub(crate) struct Watch(Cell<Instant>);

impl Watch {
    pub(crate) fn start() -> Self {
        Self(Cell::new(time::now()))
    }

    /// Units since the start.
    #[track_caller]
    pub(crate) fn assert_units(&self, units: u32) {
        let passed = time::now().since(self.0.get());
        assert!(passed >= U * units, "{passed:?} is less than {units} units");
    }
}
