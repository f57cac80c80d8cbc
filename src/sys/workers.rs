//! A few threads for what would block the loop: hashing, cold disk pages, name look-ups.
//!
//! ```text
//!  submit ─▶ queue, by owners ─▶ threads ─▶ results ─▶ try_recv, after a wake-up of the loop
//! ```
//!
//! Every job that was taken yields exactly one result, a job that panics too. Owners take turns,
//! job by job, and long jobs are done in slices. A call that does not return (a dead disk) cannot
//! be ended: after a while its thread counts no longer, and another one takes its place. Threads
//! are started when there is something to do.

use std::any::Any;
use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::{WORKER_JOBS_OF_ONE_MAX, WORKER_SPARES_MAX, WORKER_STUCK_AFTER};

mod turns;

pub use turns::{Behalf, Turns};

/// The nice value (nice(2)) of workers in the background.
const BACKGROUND_NICE: i32 = 5;

/// What the standard library gives a thread, and all that a job needs.
const STACK_BYTES: usize = 2 * 1024 * 1024;

/// A thread beyond the usual number ends when it has had nothing to do for so long.
const SPARE_IDLE: Duration = Duration::from_secs(10);

/// The threads, their queue and their results of type `T`. Dropping it forgets what is queued;
/// threads that are in the middle of a job end after it, and nobody waits for them.
#[derive(Debug)]
pub struct Workers<T> {
    crew: Arc<Crew<T>>,
    results: Receiver<T>,
}

/// Why a job was not taken. Try later, or tell the peer that we are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotTaken {
    /// The queue is at its bound, or this owner's part of it.
    QueueFull,
    /// The system gives no thread, and there is none.
    NoThread,
}

/// Tells a long job that nobody wants its result any more. Clones share one state.
#[derive(Debug, Clone, Default)]
pub struct Cancelled(Arc<AtomicBool>);

/// What a job does; `Continue` where it is to be called again in its next turn, and no result
/// where nobody waits for one.
type Step<T> = Box<dyn FnMut() -> ControlFlow<Option<T>> + Send>;

struct Job<T> {
    step: Step<T>,
    on_panic: Option<T>,
}

/// How many of what.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Jobs at once, those not counted that are stuck.
    places: usize,
    /// Jobs that wait.
    queue_max: usize,
    /// A job is stuck after that.
    stuck_after: Duration,
    /// What each thread has.
    stack_bytes: usize,
}

/// What the threads share.
struct Crew<T> {
    state: Mutex<State<T>>,
    /// Notified where a thread that waits may have something to do, and for all at the end.
    changed: Condvar,
    size: Size,
    results: Sender<T>,
    waker: Arc<mio::Waker>,
    /// What a thread does first.
    begin: fn(),
}

struct State<T> {
    turns: Turns<Job<T>>,
    running: Vec<Running>,
    /// Threads, those included that are about to begin.
    threads: usize,
    /// Those that wait.
    idle: usize,
    /// Those of them that look after jobs which may be stuck.
    watching: usize,
    /// Jobs begun so far.
    begun: u64,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Running {
    number: u64,
    behalf: Behalf,
    since: Instant,
}

impl<T: Send + 'static> Workers<T> {
    /// Up to `places` jobs are done at once, at most `queue_max` wait, and `waker` is called after
    /// each result.
    #[must_use]
    pub fn new(places: usize, queue_max: usize, waker: Arc<mio::Waker>) -> Self {
        Self::with(Size::usual(places, queue_max), waker, || {})
    }

    /// The same for jobs that keep a core busy: the loop, when it has something to do, goes first.
    #[must_use]
    pub fn in_background(places: usize, queue_max: usize, waker: Arc<mio::Waker>) -> Self {
        Self::with(Size::usual(places, queue_max), waker, || {
            // On Linux a nice value belongs to a thread (sched(7)). Without it all is only slower.
            let own = Some(rustix::thread::gettid());
            if let Err(errno) = rustix::process::setpriority_process(own, BACKGROUND_NICE) {
                log::debug!("a worker keeps its priority: {errno}");
            }
        })
    }

    fn with(size: Size, waker: Arc<mio::Waker>, begin: fn()) -> Self {
        let (sender, results) = mpsc::channel();
        let (state, changed) = (Mutex::new(State::default()), Condvar::new());
        let crew = Crew { state, changed, size, results: sender, waker, begin };
        Self { crew: Arc::new(crew), results }
    }

    /// Queues `job`. Its owner gets what it returns, or `on_panic` should it panic.
    ///
    /// # Errors
    /// The job is dropped.
    pub fn submit(
        &self,
        behalf: Behalf,
        job: impl FnOnce() -> T + Send + 'static,
        on_panic: T,
    ) -> Result<(), NotTaken> {
        let step = once(move || Some(job()));
        self.take_in(behalf, Job { step, on_panic: Some(on_panic) })
    }

    /// The same for a job that takes long: it is called again, each time in a turn of its own,
    /// until it breaks off with its result. A call should last less than a tenth of a second.
    ///
    /// # Errors
    /// As [`Workers::submit`].
    pub fn submit_in_slices(
        &self,
        behalf: Behalf,
        mut slice: impl FnMut() -> ControlFlow<T> + Send + 'static,
        on_panic: T,
    ) -> Result<(), NotTaken> {
        let step = Box::new(move || slice().map_break(Some));
        self.take_in(behalf, Job { step, on_panic: Some(on_panic) })
    }

    fn take_in(&self, behalf: Behalf, job: Job<T>) -> Result<(), NotTaken> {
        let state = self.crew.lock();
        let is_full = state.turns.len() >= self.crew.size.queue_max;
        let is_session = behalf != Behalf::SERVER;
        if is_full || is_session && state.turns.len_of(behalf) >= WORKER_JOBS_OF_ONE_MAX {
            return Err(NotTaken::QueueFull);
        }
        drop(state);
        self.put(behalf, job).map_err(|_| NotTaken::NoThread)
    }

    /// Drops something that may take the disk a while. There is always room for that: what is to
    /// be dropped has come from a job.
    pub fn dispose(&self, behalf: Behalf, thing: impl Send + 'static) {
        let step = once(move || {
            drop(thing);
            None
        });
        // Without a single thread it is dropped here and now.
        let _ = self.put(behalf, Job { step, on_panic: None });
    }

    /// Makes sure that there is a thread, and so of the next job that it is taken.
    ///
    /// # Errors
    /// There is none.
    pub fn prepare(&self) -> Result<(), NotTaken> {
        let mut state = self.crew.lock();
        if state.threads > 0 {
            return Ok(());
        }
        state.threads += 1;
        drop(state);
        Crew::spawn(&self.crew).map_err(|_| NotTaken::NoThread)
    }

    fn put(&self, behalf: Behalf, job: Job<T>) -> Result<(), io::Error> {
        let crew = &self.crew;
        let mut state = crew.lock();
        if state.idle == 0 && state.may_grow(crew.size) {
            state.threads += 1;
            drop(state);
            let spawned = Crew::spawn(crew);
            state = crew.lock();
            match spawned {
                Err(error) if state.threads == 0 => return Err(error),
                _ => {}
            }
        }
        state.turns.push(behalf, job);
        let is_watched = state.watching > 0 && state.places(crew.size, Instant::now()) == 0;
        drop(state);
        if !is_watched {
            crew.changed.notify_one();
        }
        Ok(())
    }

    /// The next result. To be called after a wake-up until it is `None`.
    #[must_use]
    pub fn try_recv(&self) -> Option<T> {
        self.results.try_recv().ok()
    }
}

/// A step that is the only one of its job.
fn once<T>(job: impl FnOnce() -> Option<T> + Send + 'static) -> Step<T> {
    let mut job = Some(job);
    Box::new(move || ControlFlow::Break(job.take().and_then(|job| job())))
}

impl<T> Drop for Workers<T> {
    fn drop(&mut self) {
        let mut state = self.crew.lock();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.turns);
        drop(state);
        self.crew.changed.notify_all();
        // What the jobs own is dropped without the lock.
        drop(forgotten);
    }
}

impl Size {
    fn usual(places: usize, queue_max: usize) -> Size {
        Size { places, queue_max, stuck_after: WORKER_STUCK_AFTER, stack_bytes: STACK_BYTES }
    }
}

impl<T> Default for State<T> {
    fn default() -> State<T> {
        let (turns, running) = (Turns::default(), Vec::new());
        State { turns, running, threads: 0, idle: 0, watching: 0, begun: 0, closed: false }
    }
}

impl<T> State<T> {
    /// How many more jobs may begin.
    fn places(&self, size: Size, now: Instant) -> usize {
        let counts = |it: &&Running| now.duration_since(it.since) < size.stuck_after;
        size.places.saturating_sub(self.running.iter().filter(counts).count())
    }

    /// When the next job that runs will be stuck.
    fn next_stuck(&self, size: Size, now: Instant) -> Option<Duration> {
        let left = |it: &Running| size.stuck_after.checked_sub(now.duration_since(it.since));
        self.running.iter().filter_map(left).filter(|left| !left.is_zero()).min()
    }

    /// Whether another thread is of use: up to the usual number at once, and then one to look
    /// after the others, where all have something to do.
    fn may_grow(&self, size: Size) -> bool {
        let are_all_at_work = self.running.len() >= self.threads;
        self.threads < size.places
            || are_all_at_work && self.threads < size.places + WORKER_SPARES_MAX
    }

    /// Takes the next job, if it may begin. Nobody has more at once than there are places, so that
    /// those of an owner whose disk is dead do not use up the spare threads.
    fn take(&mut self, size: Size, now: Instant) -> Option<(Running, Job<T>)> {
        if self.places(size, now) == 0 {
            return None;
        }
        let running = &self.running;
        let count = |behalf| running.iter().filter(|it| it.behalf == behalf).count();
        let (behalf, job) = self.turns.pop(|behalf| count(behalf) < size.places)?;
        self.begun += 1;
        let begun = Running { number: self.begun, behalf, since: now };
        self.running.push(begun);
        Some((begun, job))
    }
}

impl<T> Crew<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // No foreign code runs under the lock, so a poisoned queue is still a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Send + 'static> Crew<T> {
    /// Starts a thread, which is counted already.
    fn spawn(crew: &Arc<Crew<T>>) -> io::Result<()> {
        let name = format!("worker-{}", crew.lock().threads - 1);
        let own = Arc::clone(crew);
        let builder = thread::Builder::new().name(name).stack_size(crew.size.stack_bytes);
        let spawned = builder.spawn(move || {
            (own.begin)();
            Crew::work(&own);
        });
        if let Err(error) = spawned {
            crew.lock().threads -= 1;
            log::warn!("a worker could not be started: {error}");
            return Err(error);
        }
        Ok(())
    }

    fn work(crew: &Arc<Crew<T>>) {
        while let Some((running, mut job)) = Crew::next(crew) {
            // The job owns what it touches, and after a panic nobody sees it again.
            let result = catch_unwind(AssertUnwindSafe(&mut job.step)).unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                log::error!("a background job panicked, this is a bug: {text}");
                ControlFlow::Break(job.on_panic.take())
            });
            let mut state = crew.lock();
            state.running.retain(|it| it.number != running.number);
            let result = match result {
                ControlFlow::Break(result) => {
                    drop(state);
                    drop(job);
                    result
                }
                ControlFlow::Continue(()) if state.closed => return,
                ControlFlow::Continue(()) => {
                    state.turns.push(running.behalf, job);
                    continue;
                }
            };
            let Some(result) = result else { continue };
            if crew.results.send(result).is_err() {
                return;
            }
            if let Err(error) = crew.waker.wake() {
                log::error!("a result is ready, but the event loop cannot be woken: {error}");
            }
        }
    }

    /// Waits for a job; `None` when the pool is gone, or has threads enough without this one.
    fn next(crew: &Arc<Crew<T>>) -> Option<(Running, Job<T>)> {
        let size = crew.size;
        let mut state = crew.lock();
        loop {
            let now = Instant::now();
            if state.closed {
                return None;
            }
            if let Some(taken) = state.take(size, now) {
                let is_alone = !state.turns.is_empty() && state.idle == 0;
                if is_alone && state.may_grow(size) {
                    state.threads += 1;
                    drop(state);
                    // Without it the others wait, as they would without spare threads.
                    let _ = Crew::spawn(crew);
                }
                return Some(taken);
            }
            let is_spare = state.threads > size.places;
            if is_spare && state.idle > 0 {
                state.threads -= 1;
                return None;
            }
            let watches = !state.turns.is_empty();
            let timeout = match watches {
                true => state.next_stuck(size, now),
                false => is_spare.then_some(SPARE_IDLE),
            };
            state.idle += 1;
            state.watching += usize::from(watches);
            let is_over;
            (state, is_over) = crew.wait(state, timeout);
            state.idle -= 1;
            state.watching -= usize::from(watches);
            if is_over && is_spare && state.turns.is_empty() {
                state.threads -= 1;
                return None;
            }
        }
    }

    /// Waits for news; true where the time was over before there were any.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State<T>>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, State<T>>, bool) {
        match timeout {
            None => (self.changed.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(state, timeout);
                let (state, timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
                (state, timed_out.timed_out())
            }
        }
    }
}

impl<T> fmt::Debug for Crew<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let mut debug = formatter.debug_struct("Crew");
        debug.field("queued", &state.turns.len()).field("threads", &state.threads).finish()
    }
}

impl fmt::Display for NotTaken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            NotTaken::QueueFull => "too much is being done at once",
            NotTaken::NoThread => "the system gives the server no more threads",
        })
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

    const ME: Behalf = Behalf::SERVER;

    #[test]
    fn workers_in_the_background_are_nice_and_the_others_are_not_touched() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let own_nice = || {
            let own = Some(rustix::thread::gettid());
            rustix::process::getpriority_process(own).unwrap()
        };
        let before = own_nice();
        let workers = Workers::in_background(1, 1, waker);
        workers.submit(ME, own_nice, -100).unwrap();
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
            Self::with(Size::usual(threads, queue_max))
        }

        fn with(size: Size) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            Self { poll, workers: Workers::with(size, waker, || {}) }
        }

        /// Occupies one thread until the returned sender is dropped.
        fn block(&self) -> mpsc::Sender<()> {
            self.block_for(ME)
        }

        fn block_for(&self, behalf: Behalf) -> mpsc::Sender<()> {
            let (release, released) = mpsc::channel::<()>();
            let (started, start) = mpsc::channel();
            let job = move || {
                started.send(()).unwrap();
                let _ = released.recv();
                0
            };
            self.workers.submit(behalf, job, 999).unwrap();
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
            it.workers.submit(ME, move || number, 9999).unwrap();
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
        assert_eq!(it.workers.submit(ME, || 1, 999), Ok(()));
        assert_eq!(it.workers.submit(ME, || 2, 999), Ok(()));
        assert_eq!(it.workers.submit(ME, || 3, 999), Err(NotTaken::QueueFull));
        drop(release);
        assert_eq!(it.receive(3), [0, 1, 2]);
        assert_eq!(it.workers.submit(ME, || 4, 999), Ok(()));
        assert_eq!(it.receive(1), [4]);
    }

    #[test]
    fn a_job_that_panics_yields_its_fallback_and_the_pool_goes_on() {
        let mut it = Loop::new(1, 10);
        it.workers.submit(ME, || panic!("as this test wants it: {}", 1), 41).unwrap();
        it.workers.submit(ME, || panic!("as this test wants it"), 42).unwrap();
        it.workers.submit(ME, || 43, 0).unwrap();
        assert_eq!(it.receive(3), [41, 42, 43]);
    }

    #[test]
    fn threads_have_names() {
        let mut it = Loop::new(1, 1);
        let job = || u32::from(thread::current().name() == Some("worker-0"));
        it.workers.submit(ME, job, 999).unwrap();
        assert_eq!(it.receive(1), [1]);
    }

    #[test]
    fn owners_take_turns_whoever_came_first() {
        let mut it = Loop::new(1, 100);
        let release = it.block();
        let (many, one) = (Behalf::of(1), Behalf::of(2));
        for number in 10..13 {
            it.workers.submit(many, move || number, 999).unwrap();
        }
        it.workers.submit(one, || 20, 999).unwrap();
        drop(release);
        assert_eq!(it.receive(5), [0, 10, 20, 11, 12]);
    }

    #[test]
    fn a_long_job_is_done_in_slices_with_others_between() {
        let mut it = Loop::new(1, 100);
        let release = it.block();
        let mut slices = 0;
        let slice = move || {
            slices += 1;
            if slices < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(slices) }
        };
        it.workers.submit_in_slices(Behalf::of(1), slice, 999).unwrap();
        it.workers.submit(Behalf::of(2), || 20, 999).unwrap();
        it.workers.submit_in_slices(Behalf::of(3), || panic!("as this test wants it"), 30).unwrap();
        drop(release);
        assert_eq!(it.receive(4), [0, 20, 30, 3]);
    }

    /// The threads of one owner stand in calls that do not return.
    #[test]
    fn what_is_stuck_holds_its_owner_and_nobody_else() {
        let stuck_after = Duration::from_millis(10);
        let mut it = Loop::with(Size { stuck_after, ..Size::usual(2, 100) });
        let (dead, other) = (Behalf::of(1), Behalf::of(2));
        let releases = [it.block_for(dead), it.block_for(dead)];
        it.workers.submit(dead, || 10, 999).unwrap();
        for round in 0..3 {
            it.workers.submit(other, move || round, 999).unwrap();
            assert_eq!(it.receive(1), [round]);
        }
        // Others are stuck, too, and even then there is a thread.
        let further = [it.block_for(other), it.block_for(Behalf::of(3))];
        it.workers.submit(Behalf::of(4), || 40, 999).unwrap();
        assert_eq!(it.receive(1), [40]);
        drop((releases, further));
        let mut rest = it.receive(5);
        rest.sort_unstable();
        assert_eq!(rest, [0, 0, 0, 0, 10]);
    }

    #[test]
    fn one_owner_does_not_fill_the_queue() {
        let mut it = Loop::new(1, 1000);
        let release = it.block();
        for _ in 0..WORKER_JOBS_OF_ONE_MAX {
            it.workers.submit(Behalf::of(1), || 1, 999).unwrap();
        }
        let full = Err(NotTaken::QueueFull);
        assert_eq!(it.workers.submit(Behalf::of(1), || 1, 999), full);
        assert_eq!(it.workers.submit(Behalf::of(2), || 2, 999), Ok(()));
        drop(release);
        assert_eq!(it.receive(WORKER_JOBS_OF_ONE_MAX + 2)[..3], [0, 1, 2]);
    }

    #[test]
    fn what_is_disposed_of_is_dropped_elsewhere_even_where_the_queue_is_full() {
        struct Told(mpsc::Sender<thread::ThreadId>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(thread::current().id());
            }
        }
        let it = Loop::new(1, 1);
        let release = it.block();
        it.workers.submit(ME, || 1, 999).unwrap();
        let (sender, dropped) = mpsc::channel();
        it.workers.dispose(ME, Told(sender));
        drop(release);
        assert_ne!(dropped.recv(), Ok(thread::current().id()));
    }

    #[test]
    fn where_no_thread_is_to_be_had_the_job_is_not_taken() {
        // No machine has room for such a stack.
        let it = Loop::with(Size { stack_bytes: usize::MAX / 4, ..Size::usual(2, 100) });
        for _ in 0..3 {
            assert_eq!(it.workers.prepare(), Err(NotTaken::NoThread));
            assert_eq!(it.workers.submit(ME, || 1, 999), Err(NotTaken::NoThread));
        }
        it.workers.dispose(ME, vec![1]);
        assert_eq!(it.workers.try_recv(), None);
    }

    #[test]
    fn dropping_the_pool_forgets_the_queue_and_does_not_wait() {
        let it = Loop::new(1, 10);
        let release = it.block();
        let (sender, receiver) = mpsc::channel();
        it.workers.submit(ME, move || sender.send(()).map_or(1, |()| 2), 999).unwrap();
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
        it.workers.submit(ME, job, 999).unwrap();
        cancelled.set();
        assert_eq!(it.receive(1), [7]);
    }
}
