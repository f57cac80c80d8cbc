//! What single parts cost, without sockets: nanoseconds for one message.
//!
//! `cargo bench --bench micro [-- FILTER]`. Each row is the median of many batches of the same
//! work; the spread to the fastest batch tells how quiet the machine was.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use sixfour::{
    limits::LINE_MAX_BYTES,
    wire::{Event, Item, Name, Refusal, frame, line},
};

/// Time spent on one row.
const ROW_TIME: Duration = Duration::from_millis(600);

/// Messages in one batch: long enough for the clock, short enough for the caches.
const BATCH: usize = 256;

/// Lengths of texts in bytes.
const TEXT_LENGTHS: [usize; 3] = [16, 64, 1024];

fn main() {
    let filters: Vec<String> = std::env::args().skip(1).filter(|it| it != "--bench").collect();
    let passes = |name: &str| filters.is_empty() || filters.iter().any(|it| name.contains(&**it));
    println!("{:<28} {:>10} {:>10} {:>9}", "part", "median", "fastest", "rate");
    for (name, mut batch) in parts() {
        if passes(&name) {
            let (median, fastest) = measure(&mut batch);
            let rate = 1e3 / median;
            println!("{name:<28} {median:>7.1} ns {fastest:>7.1} ns {rate:>6.1} M/s");
        }
    }
}

/// A part and what does one batch of it.
type Part = (String, Box<dyn FnMut()>);

fn parts() -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for length in TEXT_LENGTHS {
        let text = text(length);
        let mut lines = Vec::new();
        let mut frames = Vec::new();
        for _ in 0..BATCH {
            lines.extend_from_slice(format!("{text}|receiver\n").as_bytes());
            frame::put_message(&mut frames, frame::client::MESSAGE, 0, b"receiver", text.as_str());
        }
        parts.push((format!("line/decode/{length}"), decoder(lines, decode_line)));
        parts.push((format!("frame/decode/{length}"), decoder(frames, frame::decode)));
        parts.push((format!("line/encode/{length}"), encoder(text.clone(), line::encode)));
        parts.push((format!("frame/encode/{length}"), encoder(text, frame::encode)));
    }
    parts
}

fn text(length: usize) -> String {
    "The quick brown fox jumps over the lazy dog. ".chars().cycle().take(length).collect()
}

fn decode_line(bytes: &[u8]) -> Result<Option<Item<'_>>, Refusal> {
    line::decode(bytes, 0, LINE_MAX_BYTES)
}

fn decoder(
    bytes: Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<Option<Item<'_>>, Refusal> + 'static,
) -> Box<dyn FnMut()> {
    Box::new(move || {
        let mut rest = black_box(&bytes[..]);
        while let Some(item) = decode(rest).expect("these bytes are good") {
            black_box(&item.request).as_ref().expect("these requests are good");
            rest = &rest[item.consumed..];
        }
        assert!(rest.is_empty(), "all was decoded");
    })
}

fn encoder(text: String, encode: impl Fn(&Event<'_>, &mut Vec<u8>) + 'static) -> Box<dyn FnMut()> {
    let from = Name::parse("sender").expect("a good name");
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for _ in 0..BATCH {
            encode(
                black_box(&Event::Message { from: &from, text: text.as_str().into(), serial: 0 }),
                &mut out,
            );
        }
        black_box(&out);
    })
}

/// Median and least time for one message, in nanoseconds.
fn measure(batch: &mut dyn FnMut()) -> (f64, f64) {
    let mut times = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < ROW_TIME {
        let start = Instant::now();
        batch();
        times.push(start.elapsed().as_secs_f64() * 1e9 / BATCH as f64);
    }
    // The first tenth warms caches and the clock of the core.
    let mut times = times.split_off(times.len() / 10);
    times.sort_unstable_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}
