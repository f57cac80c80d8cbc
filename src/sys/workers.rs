//! A few threads for what would block the loop: hashing, cold disk pages, name look-ups.
//!
//! ```text
//!  submit ─▶ bounded queue ─▶ threads ─▶ results ─▶ try_recv, after a wake-up of the loop
//! ```
//!
//! Every job that was taken yields exactly one result, a job that panics too.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// The nice value (nice(2)) of workers in the background.
const BACKGROUND_NICE: i32 = 5;

/// The threads, their queue and their results of type `T`. Dropping it forgets what is queued;
/// threads that are in the middle of a job end after it, and nobody waits for them.
#[derive(Debug)]
pub struct Workers<T> {
    shared: Arc<Shared<T>>,
    results: Receiver<T>,
    queue_max: usize,
}

/// The queue is at its bound: the job was not taken. Try later, or tell the peer that we are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueFull;

/// Tells a long job that nobody wants its result any more. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

type Job<T> = (Box<dyn FnOnce() -> T + Send>, T);

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    /// Notified for every job, and once for all at the end.
    changed: Condvar,
}

struct Queue<T> {
    jobs: VecDeque<Job<T>>,
    closed: bool,
}

impl<T: Send + 'static> Workers<T> {
    /// Starts `threads` threads that take at most `queue_max` waiting jobs and call `waker` after
    /// each result.
    ///
    /// # Errors
    /// A thread could not be started; those that could have ended again.
    pub fn new(threads: usize, queue_max: usize, waker: Arc<mio::Waker>) -> io::Result<Self> {
        Self::start(threads, queue_max, waker, || {})
    }

    /// The same for jobs that keep a core busy: the loop, when it has something to do, goes first.
    ///
    /// # Errors
    /// As [`Workers::new`].
    pub fn in_background(
        threads: usize,
        queue_max: usize,
        waker: Arc<mio::Waker>,
    ) -> io::Result<Self> {
        Self::start(threads, queue_max, waker, || {
            // On Linux a nice value belongs to a thread (sched(7)). Without it all is only slower.
            let own = Some(rustix::thread::gettid());
            if let Err(errno) = rustix::process::setpriority_process(own, BACKGROUND_NICE) {
                log::debug!("a worker keeps its priority: {errno}");
            }
        })
    }

    fn start(
        threads: usize,
        queue_max: usize,
        waker: Arc<mio::Waker>,
        begin: fn(),
    ) -> io::Result<Self> {
        let queue = Mutex::new(Queue { jobs: VecDeque::new(), closed: false });
        let shared = Arc::new(Shared { queue, changed: Condvar::new() });
        let (sender, results) = mpsc::channel();
        // From here on a return drops it, which ends the threads.
        let workers = Self { shared, results, queue_max };
        for number in 0..threads {
            let shared = Arc::clone(&workers.shared);
            let (sender, waker) = (sender.clone(), Arc::clone(&waker));
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                begin();
                work(&shared, &sender, &waker);
            })?;
        }
        Ok(workers)
    }

    /// Queues `job`. Its owner gets what it returns, or `on_panic` should it panic.
    ///
    /// # Errors
    /// The queue is full, and the job dropped.
    pub fn submit(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
        on_panic: T,
    ) -> Result<(), QueueFull> {
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= self.queue_max {
            return Err(QueueFull);
        }
        queue.jobs.push_back((Box::new(job), on_panic));
        drop(queue);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// The next result. To be called after a wake-up until it is `None`.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        self.results.try_recv().ok()
    }
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.closed = true;
        let forgotten = std::mem::take(&mut queue.jobs);
        drop(queue);
        self.shared.changed.notify_all();
        // What the jobs own is dropped without the lock.
        drop(forgotten);
    }
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // No foreign code runs under the lock, so a poisoned queue is still a whole one.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a job; `None` when the pool is gone.
    fn next(&self) -> Option<Job<T>> {
        let mut queue = self.lock();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Shared").field("queued", &self.lock().jobs.len()).finish()
    }
}

fn work<T>(shared: &Shared<T>, results: &Sender<T>, waker: &mio::Waker) {
    while let Some((job, on_panic)) = shared.next() {
        // The job owns what it touches, and after a panic nobody sees it again.
        let result = catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
            log::error!("a background job panicked, this is a bug: {}", panic_text(&*panic));
            on_panic
        });
        if results.send(result).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::error!("a result is ready, but the event loop cannot be woken: {error}");
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

impl Cancelled {
    /// Says so.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The same as a plain flag, for what asks by itself.
    #[must_use]
    pub fn as_flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Whether it was said; a job asks between two steps.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll, Token, Waker};

    use super::*;

    #[test]
    fn workers_in_the_background_are_nice_and_the_others_are_not_touched() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let own_nice = || {
            let own = Some(rustix::thread::gettid());
            rustix::process::getpriority_process(own).unwrap()
        };
        let before = own_nice();
        let workers = Workers::in_background(1, 1, waker).unwrap();
        workers.submit(own_nice, -100).unwrap();
        let mut block = Loop { poll, workers };
        assert_eq!(block.receive(1), [BACKGROUND_NICE]);
        assert_eq!(own_nice(), before);
    }

    struct Loop<T = u32> {
        poll: Poll,
        workers: Workers<T>,
    }

    impl Loop<u32> {
        fn new(threads: usize, queue_max: usize) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            Self { poll, workers: Workers::new(threads, queue_max, waker).unwrap() }
        }

        /// Occupies one thread until the returned sender is dropped.
        fn block(&self) -> mpsc::Sender<()> {
            let (release, released) = mpsc::channel::<()>();
            let (started, start) = mpsc::channel();
            let job = move || {
                started.send(()).unwrap();
                let _ = released.recv();
                0
            };
            self.workers.submit(job, 999).unwrap();
            start.recv().unwrap();
            release
        }
    }

    impl<T: Send + 'static> Loop<T> {
        /// Sleeps in the poll until `count` results have come.
        fn receive(&mut self, count: usize) -> Vec<T> {
            let mut results = Vec::new();
            let mut events = Events::with_capacity(1);
            while results.len() < count {
                self.poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                assert!(!events.is_empty(), "no wake-up, {} results", results.len());
                results.extend(std::iter::from_fn(|| self.workers.try_recv()));
            }
            results
        }
    }

    #[test]
    fn every_job_yields_its_result_and_wakes_the_loop() {
        let mut it = Loop::new(3, 1000);
        for number in 0..1000 {
            it.workers.submit(move || number, 9999).unwrap();
        }
        let mut results = it.receive(1000);
        results.sort_unstable();
        assert!(results.into_iter().eq(0..1000));
        assert_eq!(it.workers.try_recv(), None);
    }

    #[test]
    fn a_full_queue_refuses_and_recovers() {
        let mut it = Loop::new(1, 2);
        let release = it.block();
        assert_eq!(it.workers.submit(|| 1, 999), Ok(()));
        assert_eq!(it.workers.submit(|| 2, 999), Ok(()));
        assert_eq!(it.workers.submit(|| 3, 999), Err(QueueFull));
        drop(release);
        assert_eq!(it.receive(3), [0, 1, 2]);
        assert_eq!(it.workers.submit(|| 4, 999), Ok(()));
        assert_eq!(it.receive(1), [4]);
    }

    #[test]
    fn a_job_that_panics_yields_its_fallback_and_the_pool_goes_on() {
        let mut it = Loop::new(1, 10);
        it.workers.submit(|| panic!("as this test wants it: {}", 1), 41).unwrap();
        it.workers.submit(|| panic!("as this test wants it"), 42).unwrap();
        it.workers.submit(|| 43, 0).unwrap();
        assert_eq!(it.receive(3), [41, 42, 43]);
    }

    #[test]
    fn threads_have_names() {
        let mut it = Loop::new(1, 1);
        let job = || u32::from(thread::current().name() == Some("worker-0"));
        it.workers.submit(job, 999).unwrap();
        assert_eq!(it.receive(1), [1]);
    }

    #[test]
    fn dropping_the_pool_forgets_the_queue_and_does_not_wait() {
        let it = Loop::new(1, 10);
        let release = it.block();
        let (sender, receiver) = mpsc::channel();
        it.workers.submit(move || sender.send(()).map_or(1, |()| 2), 999).unwrap();
        // Would never return if it waited: the thread is still blocked.
        drop(it);
        assert_eq!(receiver.recv(), Err(mpsc::RecvError));
        drop(release);
    }

    #[test]
    fn a_cancelled_job_can_know_it() {
        let mut it = Loop::new(1, 1);
        let cancelled = Cancelled::default();
        let seen = cancelled.clone();
        let job = move || {
            while !seen.is_set() {
                thread::yield_now();
            }
            7
        };
        it.workers.submit(job, 999).unwrap();
        cancelled.set();
        assert_eq!(it.receive(1), [7]);
    }
}
