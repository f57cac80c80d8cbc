//! Two users who chat through a whole test, one by IPv6 and one by IPv4: whatever the fault, no
//! message of theirs may be lost, doubled, out of order or late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{FAMILIES, Server};

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(10);
/// So many messages are sent however soon it is stopped.
const NOTES_MIN: usize = 10;
/// The 99th percentile of the way there and back. Generous, because tests share their machine.
const LATE: Duration = Duration::from_millis(400);

pub struct Canary {
    stop: Arc<AtomicBool>,
    singer: Option<JoinHandle<Vec<Duration>>>,
}

impl Canary {
    pub fn start(server: &Server) -> Canary {
        let [v6, v4] = FAMILIES;
        let (mut one, mut other) = (server.user(v6, "canary-6"), server.user(v4, "canary-4"));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let singer = thread::spawn(move || {
            let mut times = Vec::new();
            while times.len() < NOTES_MIN || !stopped.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let text = format!("note {}", times.len());
                one.send(&format!("{text}|canary-4"));
                assert_eq!(other.next(), format!("canary-6|{text}"));
                other.send(&format!("{text}|canary-6"));
                assert_eq!(one.next(), format!("canary-4|{text}"));
                times.push(begun.elapsed());
                thread::sleep(PAUSE);
            }
            times
        });
        Canary { stop, singer: Some(singer) }
    }

    /// Ends it and judges how it went; returns the longest time of all.
    pub fn stop(mut self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        let singer = self.singer.take().expect("it is stopped once");
        let mut times = singer.join().expect("the canary has sung to the end");
        times.sort_unstable();
        let late = times[(times.len() * 99 / 100).min(times.len().saturating_sub(2))];
        assert!(late < LATE, "the 99th percentile of {} messages is {late:?}", times.len());
        times.last().copied().unwrap_or_default()
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
