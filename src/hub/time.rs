//! Time as the hub sees it: a number that the shell hands in.

use std::{ops::Add, time::Duration};

/// Milliseconds since the server started. Not `std::time::Instant`, so that a test can write
/// `Time(1500)` and a failing simulation can print it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(pub u64);

impl Time {
    /// Later than anything that happens.
    pub const NEVER: Time = Time(u64::MAX);
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, duration: Duration) -> Time {
        Time(self.0.saturating_add(duration.as_millis() as u64))
    }
}
