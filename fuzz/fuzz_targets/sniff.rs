//! First bytes: a decision comes by the eighth byte, is never taken back, and whoever is not
//! served gets an answer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sixfour::wire::{
    ErrorCode, Refusal,
    dialect::{Sniffed, farewell, sniff, unserved},
};

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes;
    while let Sniffed::Blank(count) = sniff(bytes) {
        assert!((1..=bytes.len()).contains(&count));
        bytes = &bytes[count..];
    }
    let mut decided = Sniffed::Undecided;
    for length in 0..=bytes.len().min(64) {
        let now = sniff(&bytes[..length]);
        assert!(decided == Sniffed::Undecided || decided == now);
        assert!(length < 8 || now != Sniffed::Undecided);
        decided = now;
    }
    if let Sniffed::Speaks(_, introduction) = decided {
        assert!(introduction <= bytes.len());
    }
    let denied = || Refusal::new(0, ErrorCode::Denied, String::from_utf8_lossy(bytes).into_owned());
    let refusal = unserved(decided).unwrap_or_else(denied);
    assert!(!farewell(decided, &refusal).is_empty());
});
