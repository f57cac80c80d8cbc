//! What the simulation leaves to chance.

use crate::rng::Rng;

impl Rng {
    pub fn percent(&mut self, percent: usize) -> bool {
        self.range(0, 99) < percent
    }

    /// A portion of `total`: all of it, all but one byte, a single byte, or something between.
    pub fn portion(&mut self, total: usize) -> usize {
        match self.range(0, 4) {
            0 => total.min(1),
            1 => total,
            2 => total.saturating_sub(1).max(total.min(1)),
            _ => self.range(total.min(1), total),
        }
    }
}
