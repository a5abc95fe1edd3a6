//! What an example says: printed at once, and kept for the test that compares it.
//!
//! Every example uses it, and `tests/examples.rs` reads it. One unit of time is 20 ms, so that a
//! program is watched in a blink; the tests have a paused clock, where a unit is exact.

// No example needs all of it.
#![allow(dead_code)]

use std::cell::RefCell;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use annulus::time::{self, Instant};

/// One unit of time.
pub(crate) const UNIT: Duration = Duration::from_millis(20);

/// What has been said, line by line. Clones say into the same trace.
#[derive(Clone, Default)]
pub(crate) struct Trace(Rc<RefCell<Vec<String>>>);

impl Trace {
    /// Prints a line and keeps it.
    pub(crate) fn say(&self, line: impl Display) {
        let line = line.to_string();
        println!("{line}");
        self.0.borrow_mut().push(line);
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.borrow().clone()
    }
}

/// The units of time since `start`, as the examples print them.
pub(crate) fn units_since(start: Instant) -> String {
    let elapsed = time::now().since(start);
    format!("{:.2} units", elapsed.as_secs_f64() / UNIT.as_secs_f64())
}
