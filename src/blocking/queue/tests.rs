//! The queue alone: by hand, and with every interleaving of its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use super::*;

/// Counts what becomes of jobs.
#[derive(Default)]
struct Fates {
    assigned: AtomicUsize,
    run: AtomicUsize,
    refused: AtomicUsize,
    dropped: AtomicUsize,
}

struct Counted {
    fates: Arc<Fates>,
    is_done: bool,
}

impl Work for Counted {
    fn assign(&self) {
        self.fates.assigned.fetch_add(1, Ordering::Relaxed);
    }

    fn run(mut self: Box<Self>, done: &dyn Fn()) {
        self.is_done = true;
        self.fates.run.fetch_add(1, Ordering::Relaxed);
        done();
    }

    fn refuse(mut self: Box<Self>, _: Error) {
        self.is_done = true;
        self.fates.refused.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_done {
            self.fates.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a thread does once.
fn run_next(queue: &Queue) {
    queue.next().unwrap().run(&|| queue.done());
}

impl Fates {
    fn job(self: &Arc<Self>) -> BoxedWork {
        Box::new(Counted { fates: Arc::clone(self), is_done: false })
    }

    /// Assigned, run, refused, dropped.
    fn all(&self) -> [usize; 4] {
        [&self.assigned, &self.run, &self.refused, &self.dropped]
            .map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(not(loom))]
mod by_hand {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    struct Told(AtomicUsize);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn nobody_overtakes_who_was_told_of_room() {
        let fates = Arc::new(Fates::default());
        let queue = Queue::new(1, 1, None);
        // One runs, one waits for the thread.
        assert!(queue.try_push(|| fates.job()).is_ok());
        assert!(queue.try_push(|| fates.job()).is_ok());
        let told = [(); 2].map(|()| Arc::new(Told(AtomicUsize::new(0))));
        let wakers = told.clone().map(Waker::from);
        let mut first = pin!(queue.push(fates.job()));
        let mut second = pin!(queue.push(fates.job()));
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
        run_next(&queue);
        assert_eq!(told.each_ref().map(|told| told.0.load(Ordering::Relaxed)), [1, 0]);
        // There is room now, but it is not for those who come later, nor for the second.
        assert_eq!(queue.try_push(|| fates.job()), Err(Refusal::Full));
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_ready());
        run_next(&queue);
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_ready());
    }

    fn placed(number: Option<u64>, wants_thread: bool) -> Result<Placed, Refusal> {
        Ok(Placed { number, wants_thread })
    }

    #[test]
    fn jobs_have_a_thread_at_once_until_all_are_busy_then_wait_then_are_refused() {
        let (queue, fates) = (Queue::new(2, 2, None), Arc::new(Fates::default()));
        assert_eq!(queue.try_push(|| fates.job()), placed(None, true));
        assert_eq!(queue.try_push(|| fates.job()), placed(None, true));
        assert_eq!(fates.all(), [2, 0, 0, 0]);
        assert_eq!(queue.try_push(|| fates.job()), placed(Some(1), false));
        assert_eq!(queue.try_push(|| fates.job()), placed(Some(2), false));
        assert_eq!(queue.try_push(|| fates.job()), Err(Refusal::Full));
        assert_eq!((queue.busy(), queue.pending()), (2, 2));
        // A thread that is done passes its turn to the first that waits.
        run_next(&queue);
        assert!(queue.next().is_some());
        assert_eq!(fates.all(), [3, 1, 0, 1]);
        assert_eq!((queue.busy(), queue.pending()), (2, 1));
    }

    #[test]
    fn a_job_is_called_back_only_while_it_waits() {
        let (queue, fates) = (Queue::new(1, 2, None), Arc::new(Fates::default()));
        queue.try_push(|| fates.job()).unwrap();
        assert_eq!(queue.try_push(|| fates.job()), placed(Some(1), false));
        assert_eq!(queue.try_push(|| fates.job()), placed(Some(2), false));
        queue.revoke(2).unwrap().refuse(Error::cancelled("the job"));
        assert!(queue.revoke(2).is_none());
        run_next(&queue);
        run_next(&queue);
        assert!(queue.revoke(1).is_none());
        assert_eq!(fates.all(), [2, 2, 1, 0]);
    }

    #[test]
    fn whoever_waits_for_room_is_told_and_passes_it_on() {
        let fates = Arc::new(Fates::default());
        let queue = Queue::new(1, 0, Some(Duration::ZERO));
        queue.try_push(|| fates.job()).unwrap();
        let told = [Arc::new(Told(AtomicUsize::new(0))), Arc::new(Told(AtomicUsize::new(0)))];
        let wakers = told.clone().map(Waker::from);
        let mut first = Box::pin(queue.push(fates.job()));
        let mut second = pin!(queue.push(fates.job()));
        assert!(first.as_mut().poll(&mut Context::from_waker(&wakers[0])).is_pending());
        assert!(second.as_mut().poll(&mut Context::from_waker(&wakers[1])).is_pending());
        let count = || [0, 1].map(|index: usize| told[index].0.load(Ordering::Relaxed));
        run_next(&queue);
        assert!(queue.next().is_none());
        assert_eq!(count(), [1, 0]);
        // The first goes away without using the room; its job is dropped.
        drop(first);
        assert_eq!(count(), [1, 1]);
        let poll = second.as_mut().poll(&mut Context::from_waker(&wakers[1]));
        assert_eq!(poll, Poll::Ready(placed(None, true)));
    }

    #[test]
    fn a_queue_without_a_thread_gives_its_jobs_back() {
        let (queue, fates) = (Queue::new(1, 2, None), Arc::new(Fates::default()));
        queue.try_push(|| fates.job()).unwrap();
        queue.try_push(|| fates.job()).unwrap();
        assert_eq!(queue.miss_thread().len(), 2);
        assert_eq!((queue.threads(), queue.busy(), queue.pending()), (0, 0, 0));
        assert_eq!(queue.try_push(|| fates.job()), placed(None, true));
    }

    #[test]
    fn an_idle_thread_ends_and_a_closed_queue_ends_all() {
        let fates = Arc::new(Fates::default());
        let queue = Queue::new(1, 1, Some(Duration::ZERO));
        queue.try_push(|| fates.job()).unwrap();
        run_next(&queue);
        assert!(queue.next().is_none());
        assert_eq!(queue.threads(), 0);
        queue.try_push(|| fates.job()).unwrap();
        queue.try_push(|| fates.job()).unwrap();
        queue.close();
        assert_eq!(queue.try_push(|| fates.job()), Err(Refusal::Closed));
        // What a thread has is done, what waits is dropped.
        run_next(&queue);
        assert!(queue.next().is_none());
        assert_eq!(fates.all(), [2, 2, 0, 1]);
        assert_eq!(queue.wait_for_end(clock::now()), 0);
    }
}

#[cfg(loom)]
mod loom_tests {
    use super::*;

    /// A thread that sleeps until it is woken: the checker's own parking keeps no token.
    #[derive(Default)]
    struct Sleep {
        is_woken: Mutex<bool>,
        woken: Condvar,
    }

    impl Wake for Sleep {
        fn wake(self: Arc<Self>) {
            *self.is_woken.lock().unwrap() = true;
            self.woken.notify_one();
        }
    }

    fn wait_for<F: Future>(future: F) -> F::Output {
        let sleep = Arc::new(Sleep::default());
        let waker = Waker::from(Arc::clone(&sleep));
        let mut future = std::pin::pin!(future);
        loop {
            let mut context = std::task::Context::from_waker(&waker);
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            let mut is_woken = sleep.is_woken.lock().unwrap();
            while !std::mem::take(&mut *is_woken) {
                is_woken = sleep.woken.wait(is_woken).unwrap();
            }
        }
    }

    /// The life of a pool's thread.
    fn work(queue: &Queue) {
        while let Some(work) = queue.next() {
            work.run(&|| queue.done());
        }
    }

    #[test]
    fn every_job_is_run_and_every_thread_ends() {
        loom::model(|| {
            let (queue, fates) = (Arc::new(Queue::new(1, 1, None)), Arc::new(Fates::default()));
            assert!(queue.try_push(|| fates.job()).unwrap().wants_thread);
            let thread = {
                let queue = Arc::clone(&queue);
                loom::thread::spawn(move || work(&queue))
            };
            // Waits, or has the thread at once.
            assert!(!wait_for(queue.push(fates.job())).unwrap().wants_thread);
            // Room comes when the thread has taken the second, at the latest.
            assert!(!wait_for(queue.push(fates.job())).unwrap().wants_thread);
            while queue.pending() > 0 {
                loom::thread::yield_now();
            }
            queue.close();
            thread.join().unwrap();
            assert_eq!(fates.all(), [3, 3, 0, 0]);
            assert_eq!((queue.threads(), queue.busy()), (0, 0));
        });
    }

    #[test]
    fn a_job_that_meets_the_close_has_one_fate() {
        loom::model(|| {
            let (queue, fates) = (Arc::new(Queue::new(1, 1, None)), Arc::new(Fates::default()));
            queue.try_push(|| fates.job()).unwrap();
            let thread = {
                let queue = Arc::clone(&queue);
                loom::thread::spawn(move || work(&queue))
            };
            let closing = {
                let queue = Arc::clone(&queue);
                loom::thread::spawn(move || queue.close())
            };
            let is_taken = queue.try_push(|| fates.job()).is_ok();
            closing.join().unwrap();
            thread.join().unwrap();
            let [assigned, run, refused, dropped] = fates.all();
            assert_eq!((assigned, refused), (run, 0));
            assert_eq!(run + dropped, 1 + usize::from(is_taken));
        });
    }

    #[test]
    fn two_who_wait_for_room_both_get_it() {
        loom::model(|| {
            let (queue, fates) = (Arc::new(Queue::new(1, 0, None)), Arc::new(Fates::default()));
            queue.try_push(|| fates.job()).unwrap();
            let pusher = {
                let (queue, fates) = (Arc::clone(&queue), Arc::clone(&fates));
                loom::thread::spawn(move || {
                    wait_for(queue.push(fates.job())).unwrap();
                    wait_for(queue.push(fates.job())).unwrap();
                })
            };
            // One thread of the pool, which ends after three jobs.
            for _ in 0..3 {
                run_next(&queue);
            }
            pusher.join().unwrap();
            assert_eq!(fates.all(), [3, 3, 0, 0]);
        });
    }

    #[test]
    fn a_call_back_that_meets_the_thread_has_one_winner() {
        loom::model(|| {
            let (queue, fates) = (Arc::new(Queue::new(1, 1, None)), Arc::new(Fates::default()));
            queue.try_push(|| fates.job()).unwrap();
            let number = queue.try_push(|| fates.job()).unwrap().number.unwrap();
            let thread = {
                let queue = Arc::clone(&queue);
                loom::thread::spawn(move || work(&queue))
            };
            let revoked = queue.revoke(number);
            let is_back = revoked.is_some();
            revoked.into_iter().for_each(|work| work.refuse(Error::cancelled("the job")));
            while queue.pending() > 0 {
                loom::thread::yield_now();
            }
            queue.close();
            thread.join().unwrap();
            assert_eq!(fates.all()[1..3], [2 - usize::from(is_back), usize::from(is_back)]);
        });
    }
}
