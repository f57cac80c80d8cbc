//! Turns, slices, and threads that do not come back.

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
