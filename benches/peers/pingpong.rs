//! One message to and fro between two clients.

use std::time::{Duration, Instant};

use crate::{client::Client, peers::Peer, protocol::Protocol, protocol::Role};

const WARM_UP_ROUNDS: usize = 2000;

/// Round trips, sorted.
pub struct Trips {
    nanos: Vec<u32>,
    wall: Duration,
}

impl Trips {
    /// Sorts what was measured within `wall`.
    pub fn new(mut nanos: Vec<u32>, wall: Duration) -> Trips {
        nanos.sort_unstable();
        Trips { nanos, wall }
    }

    /// The round trip in microseconds that the share `quantile` of all does not pass.
    pub fn micros(&self, quantile: f64) -> f64 {
        let last = self.nanos.len().saturating_sub(1);
        let at = (last as f64 * quantile).round() as usize;
        self.nanos.get(at).map_or(f64::NAN, |nanos| f64::from(*nanos) / 1e3)
    }

    /// Round trips in a second.
    pub fn rate(&self) -> f64 {
        self.nanos.len() as f64 / self.wall.as_secs_f64()
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.nanos.len()
    }
}

/// Nanoseconds, as far as they fit.
pub fn nanos(duration: Duration) -> u32 {
    u32::try_from(duration.as_nanos()).unwrap_or(u32::MAX)
}

/// Plays for so many seconds: one client on `::1`, the other on 127.0.0.1, 64 bytes of text.
pub fn run<P: Protocol>(peer: &Peer, seconds: f64) -> Result<Trips, String> {
    let mut left = Client::<P>::connect(peer, 0, "left", Role::Both)?;
    let mut right = Client::<P>::connect(peer, 1, "right", Role::Both)?;
    let text = "x".repeat(64);
    let mut round = || {
        left.send("right", &text)?;
        right.receive()?;
        right.send("left", &text)?;
        left.receive().map(drop)
    };
    for _ in 0..WARM_UP_ROUNDS {
        round()?;
    }
    let (begin, length) = (Instant::now(), Duration::from_secs_f64(seconds));
    let mut trips = Vec::with_capacity(1 << 20);
    let mut last = begin;
    while last - begin < length {
        round()?;
        let now = Instant::now();
        trips.push(nanos(now - last));
        last = now;
    }
    Ok(Trips::new(trips, last - begin))
}
