//! How far a transfer is: sizes and rates for people, and the bar.

use std::fmt;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::wire::escape::escape_bytes;

/// Bytes as people read them: `812 B`, `12.3 MB`; three digits, powers of 1000.
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u64);

/// Bytes in a second, as people read them.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1000 {
            return write!(formatter, "{} B", self.0);
        }
        let (mut value, mut units) = (self.0 as f64 / 1000.0, "kMGTPE".chars());
        let mut unit = units.next().expect("there are units");
        // What would be rounded to four digits belongs to the next unit.
        while value >= 999.5 {
            value /= 1000.0;
            unit = units.next().expect("a u64 has no more than exabytes");
        }
        let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
        write!(formatter, "{value:.digits$} {unit}B")
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/s", Size(self.0))
    }
}

/// The bars of all transfers of a verb, on standard error. Hidden unless that is a terminal.
#[derive(Clone, Debug)]
pub struct Bars(MultiProgress);

impl Bars {
    /// Bars that show, or only seem to.
    pub fn new(visible: bool) -> Bars {
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Bars(MultiProgress::with_draw_target(target))
    }

    /// One more bar, for `size` bytes.
    pub fn add(&self, name: &[u8], size: u64) -> ProgressBar {
        let template = "{prefix} {wide_bar} {percent:>3} %  {decimal_bytes:>9}  \
                        {decimal_bytes_per_sec:>11}  {eta:>4}";
        let style = ProgressStyle::with_template(template).expect("the template is good");
        let bar = ProgressBar::new(size).with_style(style).with_prefix(shorten(name));
        self.0.add(bar)
    }

    /// Does something with standard error while no bar is in the way.
    pub fn suspend<T>(&self, action: impl FnOnce() -> T) -> T {
        self.0.suspend(action)
    }
}

/// A name that leaves room for the bar beside it.
fn shorten(name: &[u8]) -> String {
    const CHARS_MAX: usize = 32;
    let name = escape_bytes(name);
    match name.char_indices().nth(CHARS_MAX) {
        None => name.into_owned(),
        Some((at, _)) => format!("{}...", &name[..at]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_the_right_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (12_345, "12.3 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (9_996_000, "10.0 MB"),
            (99_960_000, "100 MB"),
            (4 << 30, "4.29 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Rate(300_000_000).to_string(), "300 MB/s");
    }

    #[test]
    fn long_and_foreign_names_leave_the_bar_alone() {
        assert_eq!(shorten(b"a.txt"), "a.txt");
        assert_eq!(shorten(&[b'x'; 40]), format!("{}...", "x".repeat(32)));
        assert_eq!(shorten(b"\x1b[2J"), "\\x1b[2J");
    }
}
