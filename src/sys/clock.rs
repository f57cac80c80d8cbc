//! The two clocks: the monotonic one that rules, and the one on the wall that people read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::sync::OnceLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Monotonic time since its start, for every time-out. Setting the wall clock does not move it.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that shows zero now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start, rounded down.
    #[must_use]
    pub fn now(&self) -> u64 {
        // u64 milliseconds are half a billion years.
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::start()
    }
}

/// What the wall clock shows, in seconds since 1970 UTC; negative if it is set before that.
#[must_use]
pub fn wall_clock() -> i64 {
    let seconds = |duration: std::time::Duration| i64::try_from(duration.as_secs());
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(after) => seconds(after).unwrap_or(i64::MAX),
        Err(before) => seconds(before.duration()).map_or(i64::MIN, |seconds| -seconds),
    }
}

/// What the wall clock shows, in UTC and to the millisecond, as in `2026-11-21T03:15:02.123Z`
/// (RFC 3339).
#[must_use]
pub fn wall_clock_text() -> String {
    format!("{:.3}", Timestamp::now())
}

/// `seconds` since 1970 in the zone of this machine for listings, as in `2026-11-21 03:15`.
#[must_use]
pub fn local_minutes(seconds: i64) -> String {
    minutes_in(seconds, zone())
}

/// `seconds` since 1970 in the zone of this machine for the logs of devices, as in
/// `30 September 2022 10:31:13`; the name of the month is English everywhere.
#[must_use]
pub fn log_time(seconds: i64) -> String {
    log_time_in(seconds, zone())
}

/// The zone of this machine, or UTC where what `TZ` names is no file: `/dev/zero` would be read
/// without end.
fn zone() -> TimeZone {
    static IS_GOOD: OnceLock<bool> = OnceLock::new();
    match IS_GOOD.get_or_init(|| is_good_zone(std::env::var_os("TZ").as_deref())) {
        true => TimeZone::system(),
        false => TimeZone::UTC,
    }
}

/// Whether the value of `TZ` (tzset(3)) is no path to something that is not a file.
fn is_good_zone(value: Option<&OsStr>) -> bool {
    let Some(value) = value else { return true };
    let value = value.as_bytes();
    let path = Path::new(OsStr::from_bytes(value.strip_prefix(b":").unwrap_or(value)));
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    // Below the folder of zones, or a rule, or a file by its path.
    is_plain || std::fs::metadata(path).is_ok_and(|it| it.is_file())
}

fn log_time_in(seconds: i64, zone: TimeZone) -> String {
    timestamp(seconds).to_zoned(zone).strftime("%-d %B %Y %H:%M:%S").to_string()
}

fn minutes_in(seconds: i64, zone: TimeZone) -> String {
    timestamp(seconds).to_zoned(zone).strftime("%Y-%m-%d %H:%M").to_string()
}

/// File systems keep any 64-bit number; calendars end with the year 9999, and so do we.
fn timestamp(seconds: i64) -> Timestamp {
    let (first, last) = (Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Timestamp::from_second(seconds.clamp(first, last)).expect("the seconds are within the calendar")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::tz::{self, Offset};

    use super::*;

    #[test]
    fn the_clock_counts_milliseconds_from_its_start() {
        let clock = Clock::start();
        assert!(clock.now() < 1000);
        let early = Clock { start: Instant::now() - Duration::from_millis(1234) };
        assert!((1234..2234).contains(&early.now()));
        let first = clock.now();
        assert!(clock.now() >= first);
    }

    #[test]
    fn listings_show_local_minutes() {
        let zone = TimeZone::fixed(tz::offset(-5));
        assert_eq!(minutes_in(1_795_230_900, zone), "2026-11-20 22:15");
        assert_eq!(minutes_in(1_795_230_959, TimeZone::fixed(Offset::UTC)), "2026-11-21 03:15");
        assert_eq!(local_minutes(1_795_230_900).len(), "2026-11-21 03:15".len());
    }

    #[test]
    fn logs_show_local_seconds() {
        let zone = TimeZone::fixed(tz::offset(10));
        assert_eq!(log_time_in(1_664_497_873, zone), "30 September 2022 10:31:13");
        let zone = TimeZone::fixed(tz::offset(-5));
        assert_eq!(log_time_in(1_664_605_873, zone), "1 October 2022 01:31:13");
    }

    #[test]
    fn a_zone_that_is_no_file_is_not_read() {
        let is_good = |value: &str| is_good_zone(Some(OsStr::new(value)));
        let file = tempfile::NamedTempFile::new().unwrap();
        for good in ["", "UTC", ":Europe/Berlin", "CET-1CEST", file.path().to_str().unwrap()] {
            assert!(is_good(good), "{good}");
        }
        assert!(is_good_zone(None));
        for bad in ["/dev/zero", ":/dev/zero", "../../../dev/zero", "/", "/dev/null", "/none"] {
            assert!(!is_good(bad), "{bad}");
        }
    }

    #[test]
    fn absurd_times_are_clamped_and_do_not_panic() {
        for seconds in [i64::MIN, i64::MAX] {
            for zone in [TimeZone::fixed(tz::offset(25)), TimeZone::fixed(tz::offset(-25))] {
                minutes_in(seconds, zone);
            }
            let _ = local_minutes(seconds);
        }
        assert!(minutes_in(i64::MAX, TimeZone::fixed(Offset::UTC)).starts_with("9999-12-"));
    }

    #[test]
    fn the_wall_clock_is_of_this_century() {
        assert!(wall_clock() > 1_700_000_000);
        let text = wall_clock_text();
        let now = text.parse::<Timestamp>().expect("RFC 3339");
        assert!((wall_clock() - now.as_second()).abs() <= 1);
        assert_eq!(text.len(), "2026-11-21T03:15:02.123Z".len(), "{text}");
    }
}
