//! Files of samples: integers, one a line.
//!
//! A line is a decimal 64-bit integer, `-` before it or not, and ends with LF or CR LF; the last
//! line may end with the file. Nothing else is a sample: no spaces, no empty line. Files are read
//! in pieces of any size and never kept, so memory does not depend on their length.

use std::{fmt, io};

use crate::limits::SAMPLE_LINE_MAX_BYTES;

/// Generated samples are from 0 to below this.
const GENERATED_BELOW: u64 = 1000;

/// Bytes that are generated before they are handed on.
const GENERATED_BLOCK_BYTES: usize = 64 * 1024;

/// What is known of the samples of a file.
///
/// The sum cannot overflow: 2^64 samples of at least -2^63 have a sum of at least -2^127.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tally {
    /// How many there are.
    pub count: u64,
    /// All of them added.
    pub sum: i128,
    /// The smallest; `i64::MAX` where there is none.
    pub min: i64,
    /// The largest; `i64::MIN` where there is none.
    pub max: i64,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally { count: 0, sum: 0, min: i64::MAX, max: i64::MIN }
    }
}

impl Tally {
    fn add(&mut self, sample: i64) {
        self.count += 1;
        self.sum += i128::from(sample);
        self.min = self.min.min(sample);
        self.max = self.max.max(sample);
    }

    /// The average with exactly 6 decimals, rounded to the nearest, halves away from zero; `None`
    /// where there are no samples.
    pub fn average(&self) -> Option<String> {
        const SCALE: u128 = 1_000_000;
        let count = u128::from(self.count);
        let magnitude = self.sum.unsigned_abs();
        let (mut whole, rest) = (magnitude / std::num::NonZero::new(count)?, magnitude % count);
        // The rest is below 2^64, so nothing here comes near 2^128.
        let (mut decimals, left) = (rest * SCALE / count, rest * SCALE % count);
        if 2 * left >= count {
            decimals += 1;
        }
        if decimals == SCALE {
            (whole, decimals) = (whole + 1, 0);
        }
        let is_negative = self.sum < 0 && (whole, decimals) != (0, 0);
        let sign = if is_negative { "-" } else { "" };
        Some(format!("{sign}{whole}.{decimals:06}"))
    }
}

/// Why a file is no file of samples.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: Wrong,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wrong {
    /// It is no decimal integer.
    NotAnInteger,
    /// It is one beyond 64 bits.
    OutOfRange,
    /// It has more than [`SAMPLE_LINE_MAX_BYTES`].
    TooLong,
    /// The file has no line at all.
    Empty,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line;
        match self.what {
            Wrong::NotAnInteger => {
                write!(formatter, "line {line} is not an integer; write one integer a line")
            }
            Wrong::OutOfRange => write!(
                formatter,
                "line {line} is out of range; samples are from {} to {}",
                i64::MIN,
                i64::MAX
            ),
            Wrong::TooLong => {
                write!(formatter, "line {line} has more than {SAMPLE_LINE_MAX_BYTES} bytes")
            }
            Wrong::Empty => formatter.write_str("there are no samples in it; write at least one"),
        }
    }
}

/// Reads samples from pieces of a file.
///
/// ```text
///   feed(piece) ... feed(piece), then finish
/// ```
#[derive(Clone, Debug, Default)]
pub struct Scanner {
    tally: Tally,
    /// The beginning of a line whose end has not come.
    rest: Vec<u8>,
}

impl Scanner {
    /// Takes the next piece, of any length.
    ///
    /// # Errors
    /// The first line that is no sample. Nothing may be fed after that.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Fault> {
        if !self.rest.is_empty() {
            let Some(end) = memchr::memchr(b'\n', piece) else { return self.keep(piece) };
            self.keep(&piece[..end])?;
            let line = std::mem::take(&mut self.rest);
            self.take_line(&line)?;
            piece = &piece[end + 1..];
        }
        let end = memchr::memrchr(b'\n', piece).map_or(0, |at| at + 1);
        let (lines, rest) = piece.split_at(end);
        self.take_lines(lines)?;
        self.keep(rest)
    }

    /// The file is at its end.
    ///
    /// # Errors
    /// Its last line is no sample, or there is none.
    pub fn finish(mut self) -> Result<Tally, Fault> {
        if !self.rest.is_empty() {
            let line = std::mem::take(&mut self.rest);
            self.take_line(&line)?;
        }
        match self.tally.count {
            0 => Err(Fault { line: 1, what: Wrong::Empty }),
            _ => Ok(self.tally),
        }
    }

    fn fault<T>(&self, what: Wrong) -> Result<T, Fault> {
        Err(Fault { line: self.tally.count + 1, what })
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        // One byte more for a CR.
        if self.rest.len() + bytes.len() > SAMPLE_LINE_MAX_BYTES + 1 {
            return self.fault(Wrong::TooLong);
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// Whole lines, the last with its LF. Nearly all are short numbers and taken on the spot.
    fn take_lines(&mut self, mut lines: &[u8]) -> Result<(), Fault> {
        while !lines.is_empty() {
            let mut tally = self.tally;
            while let Some((length, sample)) = short_line(lines) {
                tally.add(sample);
                lines = &lines[length..];
            }
            self.tally = tally;
            if let Some(end) = memchr::memchr(b'\n', lines) {
                self.take_line(&lines[..end])?;
                lines = &lines[end + 1..];
            }
        }
        Ok(())
    }

    /// Any line, without its LF.
    fn take_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > SAMPLE_LINE_MAX_BYTES {
            return self.fault(Wrong::TooLong);
        }
        let digits = line.strip_prefix(b"-").unwrap_or(line);
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return self.fault(Wrong::NotAnInteger);
        }
        let text = std::str::from_utf8(line).expect("digits are ASCII");
        match text.parse() {
            Ok(sample) => {
                self.tally.add(sample);
                Ok(())
            }
            Err(_) => self.fault(Wrong::OutOfRange),
        }
    }
}

/// The line at the head of `lines` with its LF, where that is plainly a sample of at most 19 digits
/// and `lines` does not end soon after it: its length in bytes and its value. `None` says nothing.
///
/// Eight bytes at a time: which of them are no digits, then the value of those before in three
/// multiplications, each joining neighbours (the first: tens and ones).
#[inline]
fn short_line(lines: &[u8]) -> Option<(usize, i64)> {
    let is_negative = lines.first() == Some(&b'-');
    let digits = &lines[usize::from(is_negative)..];
    let (mut length, mut value) = eight(digits.first_chunk()?);
    if length == 8 {
        let (more, lower) = eight(digits[8..].first_chunk()?);
        (length, value) = (8 + more, value * POWERS_OF_TEN[more] + lower);
    }
    if length == 16 {
        let (more, lower) = eight(digits[16..].first_chunk()?);
        if more > 3 {
            return None;
        }
        // 19 digits are below 2^64.
        (length, value) = (16 + more, value * POWERS_OF_TEN[more] + lower);
    }
    let end = match digits[length] {
        b'\n' => 1,
        b'\r' if digits.get(length + 1) == Some(&b'\n') => 2,
        _ => return None,
    };
    let sign = u64::from(is_negative);
    if length == 0 || value > i64::MAX as u64 + sign {
        return None;
    }
    // Of -2^63 there is no opposite, and it is its own here.
    let value = if is_negative { (value as i64).wrapping_neg() } else { value as i64 };
    Some((sign as usize + length + end, value))
}

const POWERS_OF_TEN: [u64; 9] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// How many digits these bytes begin with, and their value.
#[inline]
fn eight(bytes: &[u8; 8]) -> (usize, u64) {
    // The first byte is the lowest.
    let flipped = u64::from_le_bytes(*bytes) ^ 0x3030_3030_3030_3030;
    // A digit is 0 to 9 now: whatever is not has an upper half, or gets one by adding 6. What is
    // carried over goes to later bytes alone.
    let others = (flipped | flipped.wrapping_add(0x0606_0606_0606_0606)) & 0xf0f0_f0f0_f0f0_f0f0;
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 {
        return (0, 0);
    }
    // Zeros in front, and the last digit on top.
    let digits = flipped << (64 - 8 * count);
    let pairs = (digits & 0x0f0f_0f0f_0f0f_0f0f).wrapping_mul(10 << 8 | 1) >> 8;
    let fours = (pairs & 0x00ff_00ff_00ff_00ff).wrapping_mul(100 << 16 | 1) >> 16;
    let value = (fours & 0x0000_ffff_0000_ffff).wrapping_mul(10_000 << 32 | 1) >> 32;
    (count, value)
}

/// Writes `count` random samples, one a line, in blocks to `sink`. They are from 0 to 999; `seed`
/// is any number, and the same seed makes the same samples.
///
/// # Errors
/// What `sink` said.
pub fn generate(
    count: u64,
    seed: u64,
    mut sink: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut block = Vec::with_capacity(GENERATED_BLOCK_BYTES + 8);
    let mut state = seed;
    for _ in 0..count {
        // splitmix64 (Steele, Lea, Flood 2014); the upper half times the range has no bias to
        // speak of.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        put_line(&mut block, (((mixed ^ (mixed >> 31)) >> 32) * GENERATED_BELOW) >> 32);
        if block.len() >= GENERATED_BLOCK_BYTES {
            sink(&block)?;
            block.clear();
        }
    }
    sink(&block)
}

fn put_line(block: &mut Vec<u8>, sample: u64) {
    let digit = |unit: u64| b'0' + (sample / unit % 10) as u8;
    let units = match sample {
        100.. => &[100, 10, 1][..],
        10.. => &[10, 1],
        _ => &[1],
    };
    block.extend(units.iter().map(|unit| digit(*unit)));
    block.push(b'\n');
}

/// Samples as the lines of a file.
pub fn lines_of(samples: &[i64]) -> Vec<u8> {
    use std::io::Write as _;
    let mut lines = Vec::with_capacity(samples.len() * 8);
    for sample in samples {
        writeln!(lines, "{sample}").expect("a Vec takes it");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> Result<Tally, Fault> {
        let mut scanner = Scanner::default();
        scanner.feed(text.as_bytes())?;
        scanner.finish()
    }

    fn fault(line: u64, what: Wrong) -> Result<Tally, Fault> {
        Err(Fault { line, what })
    }

    #[test]
    fn samples_are_counted_added_and_compared() {
        let tally = scanned("5\n-3\r\n0\n9223372036854775807\n-9223372036854775808\n7");
        let wanted = Tally { count: 6, sum: 8, min: i64::MIN, max: i64::MAX };
        assert_eq!(tally, Ok(wanted));
        let long = "-9223372036854775808\r\n9223372036854775807\n-999999999999999999\n\
                    0000000000000000005\n00000000000000000006\r\n"
            .repeat(9);
        let wanted = Tally { count: 45, sum: 9 * (11 - 10_i128.pow(18)), ..wanted };
        assert_eq!(scanned(&long), Ok(wanted));
        assert_eq!(scanned("007\n-0\n"), Ok(Tally { count: 2, sum: 7, min: 0, max: 7 }));
    }

    #[test]
    fn what_is_no_sample_is_told_with_its_line() {
        for (text, line) in [
            ("x\n", 1),
            ("1\n2\n\n3\n", 3),
            ("1\n2 \n", 2),
            ("1\n 2\n", 2),
            ("1\n+2\n", 2),
            ("1\n-\n", 2),
            ("1\n--2\n", 2),
            ("1\n1.5\n", 2),
            ("1\n1e3\n", 2),
            ("1\n0x10\n", 2),
            ("1\n2\r\r\n", 2),
            ("1\n2\r3\n", 2),
            ("12345678x\n", 1),
            ("1\n2\n3x", 3),
            ("\u{663}\n", 1),
            ("1\n1234567:\n12\n12345678\n", 2),
        ] {
            assert_eq!(scanned(text), fault(line, Wrong::NotAnInteger), "{text:?}");
            // The same in the midst of a file, where lines are read another way.
            let text = format!("{}\n{}", text.trim_end_matches('\n'), "1\n".repeat(30));
            assert_eq!(scanned(&text), fault(line, Wrong::NotAnInteger), "{text:?}");
        }
        for text in ["1\n9223372036854775808\n", "1\n-9223372036854775809\n2\n"] {
            assert_eq!(scanned(text), fault(2, Wrong::OutOfRange), "{text:?}");
            let text = format!("{text}{}", "1\n".repeat(30));
            assert_eq!(scanned(&text), fault(2, Wrong::OutOfRange), "{text:?}");
        }
        assert_eq!(scanned(""), fault(1, Wrong::Empty));
        let longest = format!("{}1\n", "0".repeat(SAMPLE_LINE_MAX_BYTES - 1));
        assert_eq!(scanned(&longest).map(|tally| tally.sum), Ok(1));
        assert_eq!(scanned(&format!("1\n0{longest}")), fault(2, Wrong::TooLong));
        assert_eq!(scanned(&format!("1\n0{}", longest.trim_end())), fault(2, Wrong::TooLong));
    }

    #[test]
    fn a_line_of_a_gibibyte_is_not_waited_for() {
        let mut scanner = Scanner::default();
        let block = [b'1'; 700];
        assert_eq!(scanner.feed(&block), Ok(()));
        assert_eq!(scanner.feed(&block), Err(Fault { line: 1, what: Wrong::TooLong }));
    }

    #[test]
    fn averages_have_six_decimals_rounded_half_away_from_zero() {
        for (sum, count, average) in [
            (10, 4, "2.500000"),
            (1, 3, "0.333333"),
            (2, 3, "0.666667"),
            (-2, 3, "-0.666667"),
            (1, 2_000_000, "0.000001"),
            (-1, 2_000_000, "-0.000001"),
            (-1, 2_000_001, "0.000000"),
            (1_999_999, 2_000_000, "1.000000"),
            (-1_999_999, 2_000_000, "-1.000000"),
            (0, 5, "0.000000"),
            (i128::MIN, 1, "-170141183460469231731687303715884105728.000000"),
            (i128::MIN, u64::MAX, "-9223372036854775808.500000"),
        ] {
            let tally = Tally { count, sum, min: 0, max: 0 };
            assert_eq!(tally.average().as_deref(), Some(average), "{sum} / {count}");
        }
        assert_eq!(Tally::default().average(), None);
    }

    #[test]
    fn generated_files_are_files_of_samples() {
        for count in [1, 2, 1000, 100_000] {
            let mut bytes = Vec::new();
            let taken = generate(count, 7, |block| {
                bytes.extend_from_slice(block);
                Ok(())
            });
            taken.expect("a Vec takes it");
            let mut scanner = Scanner::default();
            scanner.feed(&bytes).expect("samples");
            let tally = scanner.finish().expect("samples");
            assert_eq!(tally.count, count);
            assert!(tally.min >= 0 && tally.max < 1000);
        }
    }
}
