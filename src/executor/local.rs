//! Values of a task: what `task_local!` declares, handed down to the tasks it spawns.
//!
//! A set of locals is shared until somebody changes it: a spawn copies a pointer, and a change is
//! seen by nobody but the task that makes it.

use std::any::Any;
use std::collections::HashMap;
use std::rc::Rc;

/// The locals of a task, by the address of their key.
#[derive(Clone, Default)]
pub(crate) struct Locals(Rc<HashMap<usize, Rc<dyn Any>>>);

impl Locals {
    pub(crate) fn get(&self, key: usize) -> Option<Rc<dyn Any>> {
        self.0.get(&key).cloned()
    }

    /// Sets a value; gives back what it replaces.
    pub(crate) fn set(&mut self, key: usize, value: Option<Rc<dyn Any>>) -> Option<Rc<dyn Any>> {
        let own = Rc::make_mut(&mut self.0);
        match value {
            Some(value) => own.insert(key, value),
            None => own.remove(&key),
        }
    }
}
