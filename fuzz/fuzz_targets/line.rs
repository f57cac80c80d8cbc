//! Lines: any bytes are read alike however they come, and every answer to them is lines.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../shared.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;
use sixfour::{
    limits::LINE_MAX_BYTES,
    wire::{Dialect, Event, Name, Request},
};

fuzz_target!(|bytes: &[u8]| {
    shared::assert_cuts_do_not_matter(Dialect::Line, bytes);
    let mut scratch = Vec::new();
    let item = common::decode(Dialect::Line, bytes, LINE_MAX_BYTES, &mut scratch);
    let Ok(Some(item)) = item else { return };
    let mut out = Vec::new();
    match item.request {
        Ok(Request::Message { text, to, .. }) => {
            assert!(!text.is_empty() && !to.0.is_empty() && !text.as_bytes().contains(&b'\n'));
            let from = Name::parse("alice").expect("a name");
            Dialect::Line.encode(&Event::Message { from: &from, text, serial: 0 }, &mut out);
        }
        Err(refusal) => Dialect::Line.encode(&Event::Error(&refusal), &mut out),
        Ok(_) => return,
    }
    let line = std::str::from_utf8(&out).expect("answers are UTF-8");
    let line = line.strip_suffix('\n').expect("an answer ends its line");
    assert!(!line.chars().any(|char| char.is_control() && char != '\t'));
});
