//! JSON bodies: the first byte chooses a kind of control frame, the rest is its body. Nearly all
//! of the input is JSON then, which frames with random headers hardly ever reach.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../shared.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;
use sixfour::wire::frame::{self, client, server};

const KINDS: [u8; 8] = [
    client::HELLO,
    client::REQUEST,
    server::WELCOME,
    server::DETAIL,
    server::END,
    server::ERROR,
    server::DELIVERED,
    server::GOODBYE,
];

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, body)) = bytes.split_first() else { return };
    // Written anew a body has every member, and may pass the bound that it just kept.
    if body.len() > 60_000 {
        return;
    }
    let kind = KINDS[*choice as usize % KINDS.len()];
    let mut bytes = Vec::new();
    frame::put(&mut bytes, kind, 1, body);
    if kind < server::WELCOME {
        if let Ok(Some(item)) = frame::decode(&bytes) {
            shared::assert_answerable(&item.request);
            if let Ok(request) = &item.request {
                shared::assert_round_trip(request);
            }
        }
    } else if let Ok(Some((said, length))) = frame::decode_said(&bytes) {
        assert_eq!(length, bytes.len());
        let again = common::encode_said(&said);
        let (same, _) = frame::decode_said(&again).expect("our own form").expect("all of it");
        assert_eq!(format!("{same:?}"), format!("{said:?}"));
    }
});
