//! Task-locals: values that a task sees wherever it is, and hands down to the tasks it spawns.
//!
//! A child starts with a copy of its parent's values; a change is seen by nobody but the task that
//! makes it (as with Python's `contextvars`, PEP 567). The future that `block_on` drives has values
//! as well.

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::shard::context;

/// Declares task-locals: `task_local! { static NAME: Type; }`, each a [`LocalKey`].
///
/// ```
/// annulus::task_local! { static REQUEST: u32; }
///
/// annulus::Runtime::new()?.block_on(async {
///     REQUEST.set(7);
///     let child = annulus::task::spawn(async {
///         let inherited = REQUEST.get();
///         REQUEST.set(8);
///         inherited
///     });
///     assert_eq!(child.await.unwrap(), Some(7));
///     assert_eq!(REQUEST.get(), Some(7));
/// });
/// # annulus::Result::Ok(())
/// ```
#[macro_export]
macro_rules! task_local {
    ($($(#[$attribute:meta])* $visibility:vis static $name:ident: $type:ty;)+) => {
        $($(#[$attribute])*
        $visibility static $name: $crate::task::LocalKey<$type> = {
            static IDENTITY: u8 = 0;
            $crate::task::LocalKey::new(&IDENTITY)
        };)+
    };
}

/// A task-local, as `task_local!` declares it.
pub struct LocalKey<T: 'static> {
    /// Its address is what tells keys apart. Not zero-sized: those may share an address.
    identity: &'static u8,
    value: PhantomData<fn() -> T>,
}

impl<T: 'static> LocalKey<T> {
    /// For the macro alone.
    #[doc(hidden)]
    pub const fn new(identity: &'static u8) -> Self {
        Self { identity, value: PhantomData }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self.identity).addr()
    }

    /// Sets the value for this task and the tasks it spawns from now on; gives back the one before.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn set(&self, value: T) -> Option<Rc<T>> {
        self.replace(Some(Rc::new(value)))
    }

    /// Removes the value.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn clear(&self) -> Option<Rc<T>> {
        self.replace(None)
    }

    fn replace(&self, value: Option<Rc<T>>) -> Option<Rc<T>> {
        let value = value.map(|value| value as Rc<dyn Any>);
        context::with(|shard| {
            let mut locals = shard.executor.locals().unwrap_or_default();
            let before = locals.set(self.address(), value);
            drop(shard.executor.replace_locals(Some(locals)));
            before.map(typed)
        })
    }

    /// The value, shared; `None` if this task has none.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn share(&self) -> Option<Rc<T>> {
        context::with(|shard| shard.executor.locals()?.get(self.address()).map(typed))
    }

    /// Calls `f` with the value.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn with<R>(&self, f: impl FnOnce(Option<&T>) -> R) -> R {
        f(self.share().as_deref())
    }

    /// A copy of the value; `None` if this task has none.
    ///
    /// # Panics
    /// Outside a runtime.
    pub fn get(&self) -> Option<T>
    where
        T: Clone,
    {
        self.share().map(|value| T::clone(&value))
    }
}

fn typed<T: 'static>(value: Rc<dyn Any>) -> Rc<T> {
    value.downcast().expect("a key's address stands for one type")
}

impl<T: 'static> std::fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LocalKey<{}>", std::any::type_name::<T>())
    }
}
