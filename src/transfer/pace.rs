//! How fast one may go: a bucket that fills by the second and holds a tenth of one.

/// A token bucket over a clock that the caller reads, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    bytes_per_second: u64,
    /// When the next byte is due, as far as those before it go.
    due_ns: u64,
}

/// What may be caught up with after a pause, in nanoseconds.
const BURST_NS: u64 = 100_000_000;

impl Pace {
    /// So many bytes a second, not 0, from `now_ns` on.
    pub fn new(bytes_per_second: u64, now_ns: u64) -> Pace {
        Pace { bytes_per_second: bytes_per_second.max(1), due_ns: now_ns }
    }

    /// Takes so many bytes: how long to wait after them, in nanoseconds.
    pub fn take(&mut self, bytes: u64, now_ns: u64) -> u64 {
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let from = self.due_ns.max(now_ns.saturating_sub(BURST_NS));
        self.due_ns = from.saturating_add(u64::try_from(cost).unwrap_or(u64::MAX));
        self.due_ns.saturating_sub(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_whatever_the_portions() {
        for portion in [1_000, 64_000, 300_000] {
            let (mut pace, mut now, mut sent) = (Pace::new(5_000_000, 0), 0, 0u64);
            while sent < 20_000_000 {
                now += pace.take(portion, now);
                sent += portion;
            }
            let expected = sent as f64 / 5_000_000.0;
            let seconds = now as f64 / 1e9;
            assert!((seconds / expected - 1.0).abs() < 0.05, "{seconds} s for {expected}");
        }
    }

    #[test]
    fn a_pause_is_not_made_up_for() {
        let mut pace = Pace::new(1_000, 0);
        pace.take(1_000, 0);
        let hour = 3_600_000_000_000;
        assert!(pace.take(1_000, hour) >= 900_000_000);
    }
}
