//! The conversation of transfers: no bytes break its decoder, cuts do not matter, and what it reads
//! is written again as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sixfour::transfer::message::{self, Decoder, Message, Side};

/// The messages as text, data joined, and whether the decoder gave up.
fn read(portions: &[&[u8]]) -> (Vec<String>, Vec<u8>, bool) {
    let (mut decoder, mut found, mut data) = (Decoder::default(), Vec::new(), Vec::new());
    for portion in portions {
        let mut portion = *portion;
        loop {
            match decoder.next(&mut portion) {
                Ok(None) => break,
                Ok(Some(Message::Data(bytes))) => data.extend_from_slice(bytes),
                Ok(Some(message)) => {
                    check_again(&message);
                    found.push(format!("{message:?}"));
                }
                Err(_) => return (found, data, true),
            }
        }
        assert!(portion.is_empty(), "all is taken");
    }
    (found, data, false)
}

fn check_again(message: &Message<'_>) {
    let is_again = |side| {
        let mut bytes = Vec::new();
        message::put(&mut bytes, side, message);
        let mut decoder = Decoder::default();
        let again = decoder.next(&mut &bytes[..]).expect("our own form").expect("all of it");
        format!("{again:?}") == format!("{message:?}")
    };
    assert!(is_again(Side::Sender) && is_again(Side::Receiver));
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(&[bytes]);
    let cut = bytes.first().map_or(0, |first| *first as usize).min(bytes.len());
    assert_eq!(read(&[&bytes[..cut], &bytes[cut..]]), whole);
});
