//! How far a transfer is: sizes and rates for people, and the bar.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    transfer::{Report, SIZE_UNKNOWN},
    wire::escape::escape_bytes,
};

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
pub struct Bars {
    bars: MultiProgress,
    is_closed: Arc<AtomicBool>,
}

impl Bars {
    /// Bars that show, or only seem to.
    pub fn new(visible: bool) -> Bars {
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bars = MultiProgress::with_draw_target(target);
        Bars { bars, is_closed: Arc::default() }
    }

    /// One more bar, for `size` bytes.
    pub fn add(&self, name: &[u8], size: u64) -> ProgressBar {
        let template = "{prefix} {wide_bar} {percent:>3} %  {decimal_bytes:>9}  \
                        {decimal_bytes_per_sec:>11}  {eta:>4}";
        let style = ProgressStyle::with_template(template).expect("the template is good");
        let bar = ProgressBar::new(size).with_style(style).with_prefix(shorten(name));
        self.bars.add(bar)
    }

    /// Does something with standard error while no bar is in the way.
    pub fn suspend<T>(&self, action: impl FnOnce() -> T) -> T {
        self.bars.suspend(action)
    }

    /// Takes all bars away, and paints none again.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        // Only a terminal that is gone cannot be painted on.
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }
}

/// The bars of one transfer: of the file at hand, and of all where there are several.
#[derive(Debug)]
pub struct Meter {
    bars: Bars,
    file: Option<ProgressBar>,
    total: Option<ProgressBar>,
    files: u64,
    bytes: u64,
    /// Bytes that are dealt with: moved, or there already.
    done: u64,
    current_done: u64,
    current_size: u64,
}

/// A smaller file is over before its bar is read.
const BAR_MIN_BYTES: u64 = 256 * 1024;

impl Meter {
    /// A meter that shows nothing yet.
    pub fn new(bars: Bars) -> Meter {
        let (files, bytes, done, current_done, current_size) = (0, 0, 0, 0, 0);
        Meter { bars, file: None, total: None, files, bytes, done, current_done, current_size }
    }

    /// Takes in what has happened.
    pub fn note(&mut self, report: &Report) {
        if self.bars.is_closed() {
            return;
        }
        match report {
            Report::Found(size) => {
                self.files += 1;
                self.bytes += if *size == SIZE_UNKNOWN { 0 } else { *size };
                if self.files == 2 {
                    let total = self.bars.add(b"total", self.bytes);
                    self.total = Some(begun_at(total, self.done));
                }
                if let Some(total) = &self.total {
                    total.set_length(self.bytes);
                }
            }
            Report::Begun { name, size, from, .. } => {
                (self.current_done, self.current_size) = (*from, *size);
                self.done += from;
                if let Some(total) = self.total.take() {
                    // What was there already is no speed.
                    self.total = Some(if *from > 0 { begun_at(total, self.done) } else { total });
                }
                if *size >= BAR_MIN_BYTES {
                    let size = if *size == SIZE_UNKNOWN { 0 } else { *size };
                    self.file = Some(begun_at(self.bars.add(name, size), *from));
                }
            }
            Report::Moved(bytes) => {
                self.done += bytes;
                self.current_done += bytes;
                let bars = self.file.iter().chain(&self.total);
                bars.for_each(|bar| bar.inc(*bytes));
            }
            Report::Folder { .. } | Report::Skipped { .. } | Report::Grown { .. } => {}
            Report::Stored { .. } | Report::Failed { .. } => {
                if self.current_done >= self.current_size || matches!(report, Report::Failed { .. })
                {
                    self.file.take().into_iter().for_each(|bar| bar.finish_and_clear());
                }
            }
        }
    }

    /// Takes the bars away.
    pub fn clear(&mut self) {
        let bars = self.file.take().into_iter().chain(self.total.take());
        bars.for_each(|bar| bar.finish_and_clear());
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The bar at `done`, from where its rate and the time left are counted.
fn begun_at(bar: ProgressBar, done: u64) -> ProgressBar {
    bar.set_position(done);
    bar.tick();
    bar.reset_eta();
    bar
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
