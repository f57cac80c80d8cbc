//! Frames of servers: nothing that a hostile server says breaks the client's reader, and what it
//! can read makes the same sense once more.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use sixfour::wire::frame;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((said, length))) = frame::decode_said(rest) {
        assert!((frame::HEADER_BYTES..=rest.len()).contains(&length));
        for shorter in [0, 7, length - 1] {
            assert!(matches!(frame::decode_said(&rest[..shorter.min(length - 1)]), Ok(None)));
        }
        // Written anew it has every member, and may pass the bound that it just kept.
        if length > 60_000 {
            return;
        }
        let again = common::encode_said(&said);
        let (same, _) = frame::decode_said(&again).expect("our own form").expect("all of it");
        assert_eq!(format!("{same:?}"), format!("{said:?}"));
        rest = &rest[length..];
    }
});
