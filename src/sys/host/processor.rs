//! How busy the processors are: the difference of two looks at `/proc/stat`.

use std::fs;
use std::io;

/// What the processors have done since the machine was started, all together, in clock ticks of
/// 10 ms (proc_stat(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// All the time that went by on all of them.
    total_ticks: u64,
    /// The time in which they had nothing to do.
    idle_ticks: u64,
    /// How many there are now.
    count: u32,
}

impl Sample {
    /// Looks now.
    ///
    /// # Errors
    /// `/proc/stat` cannot be read or is not as it should be.
    pub fn take() -> io::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let strange = || io::Error::new(io::ErrorKind::InvalidData, "/proc/stat is strange");
        Self::of(&stat).ok_or_else(strange)
    }

    fn of(stat: &str) -> Option<Self> {
        let mut lines = stat.lines();
        let all = lines.next()?.strip_prefix("cpu ")?;
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in user.
        let numbers = all.split_ascii_whitespace().take(8).map(|it| it.parse::<u64>().ok());
        let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        let count = lines.take_while(|line| line.starts_with("cpu")).count();
        Some(Self {
            total_ticks: numbers.iter().sum(),
            idle_ticks: numbers.get(3)? + numbers.get(4)?,
            count: u32::try_from(count).ok()?,
        })
    }

    /// How many processors there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The share of the time since `earlier` in which they had something to do, 0.0 to 1.0; 0.0
    /// where no tick went by.
    #[must_use]
    pub fn used_since(&self, earlier: &Self) -> f64 {
        // iowait may go down (proc_stat(5)), and processors may go.
        let total = self.total_ticks.saturating_sub(earlier.total_ticks);
        let idle = self.idle_ticks.saturating_sub(earlier.idle_ticks).min(total);
        match total {
            0 => 0.0,
            total => (total - idle) as f64 / total as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_that_of_the_time_in_between() {
        let earlier =
            Sample::of("cpu  10 0 10 100 20 0 0 0 5 0\ncpu0 1\ncpu1 1\nintr 1\n").unwrap();
        let later = Sample::of("cpu  20 5 15 150 50 2 1 7 9 0\ncpu0 1\ncpu1 1\nintr 1\n").unwrap();
        assert_eq!((earlier.total_ticks, earlier.idle_ticks, earlier.count), (140, 120, 2));
        let share = later.used_since(&earlier);
        assert!((share - 30.0 / 110.0).abs() < 1e-9, "{share}");
        assert!(earlier.used_since(&earlier).abs() < 1e-9);
        assert!(earlier.used_since(&later).abs() < 1e-9, "time that went backwards is none");
    }

    #[test]
    fn what_is_no_stat_is_told() {
        for text in ["", "cpu0 1 2\n", "cpu  1 2 x 4 5\n", "cpu  1 2 3\n"] {
            assert_eq!(Sample::of(text), None, "{text:?}");
        }
        assert!(Sample::take().unwrap().count() > 0);
    }
}
