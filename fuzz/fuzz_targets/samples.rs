//! Files of samples: what is read is what a plain reading of the lines gives, the same sums or the
//! same first fault, however the bytes are cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sixfour::{
    edge::samples::{Fault, Scanner, Tally, Wrong},
    limits::SAMPLE_LINE_MAX_BYTES,
};

fn scanned<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Tally, Fault> {
    let mut scanner = Scanner::default();
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

/// Line after line, with what the language has for it.
fn plainly(bytes: &[u8]) -> Result<Tally, Fault> {
    let mut tally = Tally::default();
    let lines = bytes.strip_suffix(b"\n").unwrap_or(bytes).split(|byte| *byte == b'\n');
    for (index, line) in lines.enumerate() {
        let fault = |what| Err(Fault { line: index as u64 + 1, what });
        if bytes.is_empty() {
            return fault(Wrong::Empty);
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).unwrap_or("x");
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_integer = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let sample = match text.parse::<i64>() {
            _ if line.len() > SAMPLE_LINE_MAX_BYTES => return fault(Wrong::TooLong),
            _ if !is_integer => return fault(Wrong::NotAnInteger),
            Err(_) => return fault(Wrong::OutOfRange),
            Ok(sample) => sample,
        };
        tally.count += 1;
        tally.sum += i128::from(sample);
        (tally.min, tally.max) = (tally.min.min(sample), tally.max.max(sample));
    }
    Ok(tally)
}

/// The average in millionths is off the true one by half of one at most.
fn check_average(tally: &Tally) {
    let text = tally.average().expect("there are samples");
    let (whole, decimals) = text.split_once('.').expect("it has decimals");
    assert!(decimals.len() == 6 && text != "-0.000000", "{text}");
    let millionths: i128 = format!("{whole}{decimals}").parse().expect("a number");
    let count = i128::from(tally.count);
    let off = 2 * (millionths * count - tally.sum * 1_000_000);
    assert!(off.abs() <= count, "{text} of {tally:?}");
    // A half goes away from zero.
    assert!(off.abs() < count || (off > 0) == (tally.sum > 0), "{text} of {tally:?}");
}

fuzz_target!(|bytes: &[u8]| {
    let wanted = plainly(bytes);
    assert_eq!(scanned([bytes]), wanted);
    let size = 1 + bytes.first().map_or(0, |first| *first as usize % 64);
    assert_eq!(scanned(bytes.chunks(size)), wanted);
    let (head, tail) = bytes.split_at(size.min(bytes.len()));
    assert_eq!(scanned([head, tail]), wanted);
    if let Ok(tally) = &wanted {
        check_average(tally);
    }
});
