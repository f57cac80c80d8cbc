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

    /// From now on as on a machine that gives no thread: none has room for such a stack.
    #[cfg(test)]
    pub fn give_no_thread(&mut self) {
        let crew = Arc::get_mut(&mut self.crew).expect("no thread has begun");
        crew.size.stack_bytes = usize::MAX / 4;
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
mod tests;
