//! When a lost server is tried again: soon at first, then ever less often, and never all clients
//! at the same moment.

/// The first and shortest ceiling of a pause, in milliseconds.
const FIRST_MS: u64 = 1000;
/// The longest.
const LAST_MS: u64 = 30_000;

/// The pauses between attempts: each anywhere between nothing and its ceiling ("full jitter"),
/// the ceilings 1 s, 1 s, 2 s, 4 s and so on to 30 s.
#[derive(Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The pause before the next attempt, in milliseconds; `random` is any number.
    pub fn next_ms(&mut self, random: u64) -> u64 {
        let doublings = self.attempts.saturating_sub(1).min(16);
        self.attempts = self.attempts.saturating_add(1);
        random % ((FIRST_MS << doublings).min(LAST_MS) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_double_to_thirty_seconds_and_stay_there() {
        let mut backoff = Backoff::default();
        for ceiling in [1000, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            assert_eq!(backoff.next_ms(ceiling), ceiling);
        }
        for _ in 0..100 {
            backoff.next_ms(1);
        }
        assert_eq!(backoff.next_ms(30_001), 0);
    }

    #[test]
    fn every_pause_is_anywhere_below_its_ceiling() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next_ms(0), 0);
        assert_eq!(backoff.next_ms(1001 * 7 + 321), 321);
        assert!(backoff.next_ms(u64::MAX) <= 2000);
    }
}
