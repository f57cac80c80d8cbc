//! How far a transfer is: sizes and rates for people, and the bar.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
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
    /// Held by the thread that paints or takes away: a bar that is painted between the last look
    /// at `is_closed` and the end of all bars would stay on the screen for good.
    painting: Arc<Mutex<()>>,
}

/// How long the end of all bars waits for a thread that is painting: one that takes longer writes
/// to a terminal that takes nothing, on which no bar can be cleared either.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);

impl Bars {
    /// Bars that show, or only seem to.
    pub fn new(visible: bool) -> Bars {
        Bars::painting_on(match visible {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        })
    }

    fn painting_on(target: ProgressDrawTarget) -> Bars {
        Bars {
            bars: MultiProgress::with_draw_target(target),
            is_closed: Arc::default(),
            painting: Arc::default(),
        }
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
        let _painting = self.lock();
        self.bars.suspend(action)
    }

    /// Takes all bars away, and paints none again.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        let Some(_painting) = self.lock_within(CLOSE_PATIENCE) else { return };
        // Only a terminal that is gone cannot be painted on.
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.painting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_within(&self, time: Duration) -> Option<MutexGuard<'_, ()>> {
        let begun = Instant::now();
        loop {
            match self.painting.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) if begun.elapsed() >= time => return None,
                Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(1)),
            }
        }
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
        let bars = self.bars.clone();
        let _painting = bars.lock();
        if !bars.is_closed.load(Ordering::Relaxed) {
            self.paint(report);
        }
    }

    fn paint(&mut self, report: &Report) {
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
        let of_all = self.bars.clone();
        let _painting = of_all.lock();
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
    use std::io;

    use indicatif::TermLike;

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

    /// A terminal that remembers whether anything stands on its lines.
    #[derive(Clone, Debug, Default)]
    struct Paper(Arc<Mutex<String>>);

    impl TermLike for Paper {
        fn width(&self) -> u16 {
            80
        }

        fn move_cursor_up(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_down(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            self.0.lock().unwrap().push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            self.0.lock().unwrap().clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_takes_nothing_does_not_hold_up_the_end_of_the_bars() {
        let bars = Bars::new(false);
        let (told, hears) = std::sync::mpsc::channel::<()>();
        let (writes, is_writing) = std::sync::mpsc::channel();
        let of_thread = bars.clone();
        let writing = thread::spawn(move || {
            of_thread.suspend(|| {
                writes.send(()).expect("it is awaited");
                hears.recv().expect("it is told")
            })
        });
        is_writing.recv().expect("it writes");
        bars.close();
        told.send(()).expect("it still writes");
        writing.join().expect("it ends");
    }

    #[test]
    fn no_bar_is_painted_once_all_are_taken_away() {
        for round in 0..300 {
            let paper = Paper::default();
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(paper.clone()), 255);
            let bars = Bars::painting_on(target);
            let mut meter = Meter::new(bars.clone());
            let (begun, begins) = std::sync::mpsc::channel();
            let is_over = Arc::new(AtomicBool::new(false));
            let is_told = is_over.clone();
            let moving = std::thread::spawn(move || {
                while !is_told.load(Ordering::Relaxed) {
                    let name = b"big".to_vec();
                    let size = 2 * BAR_MIN_BYTES;
                    meter.note(&Report::Begun { name, size, from: 0, starts_over: false });
                    let _ = begun.send(());
                }
                meter
            });
            // Few are painted before the painting is slowed down: it is ended among those.
            for _ in 0..1 + round % 16 {
                begins.recv().expect("one has begun");
            }
            let told = bars.clone();
            let telling = std::thread::spawn(move || told.suspend(|| ()));
            bars.close();
            telling.join().expect("it tells");
            is_over.store(true, Ordering::Relaxed);
            // The meter is kept until it is looked: taking its own bars away would hide a fault.
            let meter = moving.join().expect("it moves");
            assert_eq!(paper.0.lock().unwrap().trim(), "");
            drop(meter);
        }
    }

    #[test]
    fn long_and_foreign_names_leave_the_bar_alone() {
        assert_eq!(shorten(b"a.txt"), "a.txt");
        assert_eq!(shorten(&[b'x'; 40]), format!("{}...", "x".repeat(32)));
        assert_eq!(shorten(b"\x1b[2J"), "\\x1b[2J");
    }
}
