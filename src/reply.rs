//! The answer to work that another thread does: given once, awaited by a task of any executor or
//! waited for by a plain thread.
//!
//! The work carries the [`Duty`] to answer; whoever sent it keeps the [`Receiver`], inside a public
//! handle or a future. Invariant: every duty ends in exactly one outcome: one that is dropped
//! without an answer says so.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
#[cfg(not(loom))]
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};

use crate::clock::{self, Instant};
use crate::error::Error;
use crate::executor::{self, panic_message};
use crate::shard::context;

/// What a panic carries.
pub(crate) type Panic = Box<dyn Any + Send>;

/// How far work has come that another thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// It waits for its turn and can still be called back without having begun.
    Pending,
    /// A thread has it: it runs, or begins at once.
    Running,
    /// It has ended in whatever way.
    Done,
}

/// Why work on another thread gave no value, or why waiting for it ended.
pub struct WaitError {
    error: Error,
    panic: Option<executor::Panic>,
}

impl WaitError {
    pub(crate) fn new(error: Error) -> Self {
        Self { error, panic: None }
    }

    fn panicked(panic: Panic) -> Self {
        let error = Error::panicked(panic_message(&*panic));
        Self { error, panic: Some(executor::Panic::new(panic)) }
    }

    /// Whether the work was called back before it had a value.
    pub fn is_cancelled(&self) -> bool {
        self.error.is_cancelled()
    }

    /// Whether the shard or pool had shut down, or did so before the work had a value.
    pub fn is_closed(&self) -> bool {
        self.error.is_closed()
    }

    /// Whether the work panicked.
    pub fn is_panicked(&self) -> bool {
        self.error.is_panicked()
    }

    /// Whether the time was over first. The work goes on, and so may the waiting.
    pub fn is_timed_out(&self) -> bool {
        self.error.is_timed_out()
    }

    /// Whether a queue was full.
    pub fn is_limit(&self) -> bool {
        self.error.is_limit()
    }

    /// The same as the crate's error, without what a panic carried.
    pub fn error(&self) -> &Error {
        &self.error
    }

    /// What the work panicked with, for [`std::panic::resume_unwind`].
    pub fn into_panic(self) -> Option<Box<dyn Any + Send>> {
        self.panic.map(executor::Panic::into_payload)
    }
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl fmt::Debug for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WaitError({})", self.error)
    }
}

impl std::error::Error for WaitError {}

impl From<WaitError> for Error {
    fn from(error: WaitError) -> Self {
        error.error
    }
}

/// What is said to be cancelled.
const CANCELLED: &str = "work sent to another thread";

type Outcome<T> = Result<T, WaitError>;

struct State<T> {
    stage: JobState,
    /// From the end until it is taken.
    outcome: Option<Outcome<T>>,
    /// Whoever waits for the outcome.
    waiting: Option<Waker>,
    /// What to wake to have running work given up.
    task: Option<Waker>,
    is_aborted: bool,
    is_detached: bool,
}

struct Cell<T>(Mutex<State<T>>);

impl<T> Cell<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the work, unless it had ended before.
    fn settle(&self, outcome: Outcome<T>) {
        let state = self.lock();
        if state.stage == JobState::Done {
            drop(state);
            drop(outcome);
        } else {
            settle(state, outcome);
        }
    }
}

fn settle<T>(mut state: MutexGuard<'_, State<T>>, outcome: Outcome<T>) {
    assert!(state.outcome.is_none(), "work ends once");
    state.stage = JobState::Done;
    let (waiting, task) = (state.waiting.take(), state.task.take());
    let unseen = if state.is_detached { Some(outcome) } else { state.outcome.replace(outcome) };
    // Wakers and drops call code of others: without the lock.
    drop(state);
    drop(task);
    unseen.into_iter().for_each(forget);
    waiting.into_iter().for_each(Waker::wake);
}

/// Drops an outcome that nobody will see; a panic is logged.
fn forget<T>(outcome: Outcome<T>) {
    if let Err(WaitError { panic: Some(panic), .. }) = outcome {
        let message = panic.message();
        tracing::error!(message, "work sent to another thread panicked and nobody looked");
    }
}

/// Work's obligation to answer. Dropped without an answer, it answers that `what` has shut down, or
/// that the work panicked if that is why it is dropped.
pub(crate) struct Duty<T> {
    /// `None` once answered.
    cell: Option<Arc<Cell<T>>>,
    what: &'static str,
}

/// Waits for the answer. Dropping it leaves the work alone.
#[must_use = "a future does nothing unless awaited"]
pub(crate) struct Receiver<T>(Arc<Cell<T>>);

/// The two ends of one answer. `what` names who shuts down if there is none: "the shard".
pub(crate) fn channel<T>(what: &'static str) -> (Duty<T>, Receiver<T>) {
    let cell = Arc::new(Cell(Mutex::new(State {
        stage: JobState::Pending,
        outcome: None,
        waiting: None,
        task: None,
        is_aborted: false,
        is_detached: false,
    })));
    (Duty { cell: Some(Arc::clone(&cell)), what }, Receiver(cell))
}

impl<T> Duty<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        let cell = self.cell.as_ref();
        cell.expect("a duty that has been answered is gone").lock()
    }

    fn settle(mut self, outcome: Outcome<T>) {
        if let Some(cell) = self.cell.take() {
            cell.settle(outcome);
        }
    }

    /// The work begins. False if it has been called back: then it must not.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        if state.stage == JobState::Pending {
            state.stage = JobState::Running;
        }
        state.stage == JobState::Running
    }

    /// Whether running work is to be given up; `waker` is called when it is.
    pub(crate) fn poll_abort(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        if state.is_aborted {
            return true;
        }
        if !state.task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            let before = state.task.replace(waker.clone());
            drop(state);
            drop(before);
        }
        false
    }

    /// Answers with a value.
    pub(crate) fn finish(self, value: T) {
        self.settle(Ok(value));
    }

    /// Answers that there will be no value.
    pub(crate) fn refuse(self, error: Error) {
        self.settle(Err(WaitError::new(error)));
    }

    /// Whether nobody waits for the answer.
    pub(crate) fn is_detached(&self) -> bool {
        self.lock().is_detached
    }

    /// Answers that the work panicked. If nobody waits for it, it is logged.
    pub(crate) fn fail(self, panic: Panic) {
        self.settle(Err(WaitError::panicked(panic)));
    }

    /// Calls `f`, tells `report` of a panic, calls `done`, and answers with what `f` returned or
    /// panicked with.
    pub(crate) fn answer(
        self,
        f: impl FnOnce() -> T,
        report: impl FnOnce(&(dyn Any + Send)),
        done: impl FnOnce(),
    ) {
        let ended = catch_unwind(AssertUnwindSafe(f));
        if let Err(panic) = &ended {
            report(&**panic);
        }
        done();
        match ended {
            Ok(value) => self.finish(value),
            Err(panic) => self.fail(panic),
        }
    }
}

impl<T> Drop for Duty<T> {
    fn drop(&mut self) {
        let Some(cell) = self.cell.take() else { return };
        let error = if thread::panicking() {
            Error::panicked("work sent to another thread (see the log)")
        } else {
            Error::closed(self.what)
        };
        cell.settle(Err(WaitError::new(error)));
    }
}

impl<T> Receiver<T> {
    pub(crate) fn state(&self) -> JobState {
        self.0.lock().stage
    }

    /// Calls the work back: what has not begun ends here, what runs is told. False if it had ended.
    pub(crate) fn abort(&self) -> bool {
        let mut state = self.0.lock();
        match state.stage {
            JobState::Pending => {
                settle(state, Err(WaitError::new(Error::cancelled(CANCELLED))));
                true
            }
            JobState::Running => {
                state.is_aborted = true;
                let task = state.task.take();
                drop(state);
                task.into_iter().for_each(Waker::wake);
                true
            }
            JobState::Done => false,
        }
    }

    /// Blocks the calling thread until the answer is there, or until `deadline`.
    ///
    /// An error on a shard's thread, which must not stop, unless the answer is there already.
    pub(crate) fn wait_until(&mut self, deadline: Instant) -> Outcome<T> {
        if let Poll::Ready(outcome) = self.poll_outcome(Waker::noop()) {
            return outcome;
        }
        if context::is_running() {
            return Err(WaitError::new(Error::would_stop_shard()));
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            if let Poll::Ready(outcome) = self.poll_outcome(&waker) {
                return outcome;
            }
            if deadline == Instant::NEVER {
                thread::park();
                continue;
            }
            let left = deadline.since(clock::now());
            if left.is_zero() {
                return Err(WaitError::new(Error::timed_out("the wait for another thread's work")));
            }
            thread::park_timeout(left);
        }
    }

    fn poll_outcome(&self, waker: &Waker) -> Poll<Outcome<T>> {
        let mut state = self.0.lock();
        if state.stage == JobState::Done {
            let outcome = state.outcome.take();
            return Poll::Ready(outcome.expect("an answer is not awaited again once it is taken"));
        }
        if !state.waiting.as_ref().is_some_and(|before| before.will_wake(waker)) {
            let before = state.waiting.replace(waker.clone());
            drop(state);
            drop(before);
        }
        Poll::Pending
    }
}

impl<T> Future for Receiver<T> {
    type Output = Outcome<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_outcome(context.waker())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_detached = true;
        let (outcome, waiting) = (state.outcome.take(), state.waiting.take());
        drop(state);
        drop(waiting);
        outcome.into_iter().for_each(forget);
    }
}

/// Ends the sleep of a plain thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn poll<T>(receiver: &mut Receiver<T>) -> Poll<Outcome<T>> {
        Pin::new(receiver).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn refusal<T>(mut receiver: Receiver<T>) -> WaitError {
        match poll(&mut receiver) {
            Poll::Ready(Err(error)) => error,
            _ => panic!("an error was expected"),
        }
    }

    #[test]
    fn the_answer_arrives_once_and_the_state_follows() {
        let (duty, mut receiver) = channel("the shard");
        assert_eq!(receiver.state(), JobState::Pending);
        assert!(poll(&mut receiver).is_pending());
        assert!(duty.begin());
        assert_eq!(receiver.state(), JobState::Running);
        duty.finish(5);
        assert_eq!(receiver.state(), JobState::Done);
        assert!(matches!(poll(&mut receiver), Poll::Ready(Ok(5))));
    }

    #[test]
    fn a_duty_that_is_dropped_says_why() {
        let (duty, receiver) = channel::<()>("the shard");
        drop(duty);
        assert_eq!(refusal(receiver).to_string(), "the shard has shut down");
        let (duty, receiver) = channel::<()>("the shard");
        let thread = thread::spawn(move || {
            let _duty = duty;
            panic!("on purpose");
        });
        assert!(thread.join().is_err());
        assert!(refusal(receiver).is_panicked());
    }

    #[test]
    fn a_panic_keeps_its_payload_and_the_duty_knows_whether_anybody_waits() {
        let (duty, receiver) = channel::<()>("the shard");
        duty.answer(|| panic!("number {}", 7), |_| (), || ());
        let error = refusal(receiver);
        assert_eq!(error.to_string(), "panicked: number 7");
        let payload = error.into_panic().unwrap();
        assert_eq!(panic_message(&*payload), "number 7");
        let (duty, receiver) = channel::<()>("the shard");
        assert!(!duty.is_detached());
        drop(receiver);
        assert!(duty.is_detached());
    }

    #[test]
    fn work_called_back_before_it_begins_does_not_begin() {
        let (duty, receiver) = channel::<()>("the shard");
        assert!(receiver.abort());
        assert!(!receiver.abort());
        assert!(!duty.begin());
        drop(duty);
        assert!(refusal(receiver).is_cancelled());
    }

    #[test]
    fn a_wait_that_is_over_may_be_begun_again() {
        let (duty, mut receiver) = channel("the shard");
        let error = receiver.wait_until(clock::now()).unwrap_err();
        assert!(error.is_timed_out());
        let answering = thread::spawn(move || duty.finish(8));
        assert_eq!(receiver.wait_until(Instant::NEVER).unwrap(), 8);
        answering.join().unwrap();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    /// A thread that sleeps until it is woken: the checker's own parking keeps no token.
    #[derive(Default)]
    struct Sleep {
        is_woken: Mutex<bool>,
        woken: loom::sync::Condvar,
    }

    impl Sleep {
        fn wait(&self) {
            let mut is_woken = self.is_woken.lock().unwrap();
            while !std::mem::take(&mut *is_woken) {
                is_woken = self.woken.wait(is_woken).unwrap();
            }
        }
    }

    impl Wake for Sleep {
        fn wake(self: Arc<Self>) {
            *self.is_woken.lock().unwrap() = true;
            self.woken.notify_one();
        }
    }

    fn wait<T>(receiver: &Receiver<T>) -> Outcome<T> {
        let sleep = Arc::new(Sleep::default());
        let waker = Waker::from(Arc::clone(&sleep));
        loop {
            match receiver.poll_outcome(&waker) {
                Poll::Ready(outcome) => return outcome,
                Poll::Pending => sleep.wait(),
            }
        }
    }

    #[test]
    fn an_answer_ends_the_wait() {
        loom::model(|| {
            let (duty, receiver) = channel("the shard");
            let work = loom::thread::spawn(move || {
                assert!(duty.begin());
                duty.finish(7);
            });
            assert!(matches!(wait(&receiver), Ok(7)));
            work.join().unwrap();
        });
    }

    #[test]
    fn an_abort_reaches_the_work_whenever_it_comes() {
        loom::model(|| {
            let (duty, receiver) = channel::<()>("the shard");
            let work = loom::thread::spawn(move || {
                if !duty.begin() {
                    return;
                }
                let sleep = Arc::new(Sleep::default());
                let waker = Waker::from(Arc::clone(&sleep));
                while !duty.poll_abort(&waker) {
                    sleep.wait();
                }
                duty.refuse(Error::cancelled("the task"));
            });
            assert!(receiver.abort());
            assert!(wait(&receiver).is_err_and(|error| error.is_cancelled()));
            work.join().unwrap();
        });
    }

    #[test]
    fn what_a_panic_carries_has_one_end() {
        loom::model(|| {
            let (duty, receiver) = channel::<()>("the shard");
            let carried = Arc::new(());
            let panic = Arc::clone(&carried);
            let work = loom::thread::spawn(move || {
                assert!(duty.begin());
                duty.fail(Box::new(panic));
            });
            drop(receiver);
            work.join().unwrap();
            assert_eq!(Arc::strong_count(&carried), 1);
        });
    }
}
