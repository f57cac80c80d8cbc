//! Frames of clients: any bytes are read alike however they come, what is a request comes back
//! from its own encoding, and what is none has an answer that fits a frame.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../shared.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;
use sixfour::wire::{Dialect, frame};

fuzz_target!(|bytes: &[u8]| {
    shared::assert_cuts_do_not_matter(Dialect::Frame, bytes);
    let mut rest = bytes;
    while let Ok(Some(item)) = frame::decode(rest) {
        shared::assert_answerable(&item.request);
        if let Ok(request) = &item.request {
            shared::assert_round_trip(request);
        }
        rest = &rest[item.consumed..];
    }
});
