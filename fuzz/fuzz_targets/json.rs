//! JSON: any bytes are read alike however they come, what is taken for an object is one, and the
//! reply to it is one object whatever it says.
#![no_main]

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../shared.rs"]
mod shared;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use sixfour::{
    limits::OBJECT_MAX_BYTES,
    wire::{Dialect, ErrorCode, Event, Item, Name, Outcome, Refusal, Request, Stream, json::Reply},
};

fuzz_target!(|bytes: &[u8]| {
    shared::assert_cuts_do_not_matter(Dialect::Json, bytes);
    common::assert_the_short_way_says_the_same(bytes);
    let (mut rest, mut scratch) = (bytes, Vec::new());
    while let Ok(Some(item)) = common::decode(Dialect::Json, rest, OBJECT_MAX_BYTES, &mut scratch) {
        let (object, later) = rest.split_at(item.consumed);
        assert_object(object, &item);
        assert_reply(object, &item);
        common::assert_the_short_way_says_the_same(later);
        rest = later;
    }
});

/// What is an object here is one to serde too, but for numbers that no double holds.
fn assert_object(object: &[u8], item: &Item<'_>) {
    let is_object = match &item.request {
        Ok(Request::Nothing) => return,
        Ok(_) => true,
        Err(refusal) => refusal.code != ErrorCode::BadJson,
    };
    if let (true, Err(error)) = (is_object, serde_json::from_slice::<Value>(object)) {
        let is_large = error.to_string().contains("number out of range");
        assert!(is_large, "{error}: {}", String::from_utf8_lossy(object));
    }
}

/// The input is the output of a command, a message, and the text of an error, too.
fn assert_reply(bytes: &[u8], item: &Item<'_>) {
    let Some(label) = &item.label else { return };
    let mut reply = Reply::default();
    let mut out = Vec::new();
    for most in [usize::MAX, 1 + bytes.len() % 50] {
        reply.begin(label.id);
        reply.take_in(&Event::Output { tag: 1, stream: Stream::Stdout, bytes });
        let text = String::from_utf8_lossy(bytes);
        reply.take_in(&Event::Text { tag: 1, text: &text });
        let refusal = Refusal::new(1, ErrorCode::Busy, text.into_owned());
        reply.finish(&Outcome::Failed(refusal), None);
        let before = std::mem::take(&mut out);
        while !reply.put(most, &mut out) {}
        assert!(before.is_empty() || before == out);
    }
    let line = out.strip_suffix(b"\n").expect("a reply ends its line");
    assert!(!line.contains(&b'\n'));
    let read: Value = match serde_json::from_slice(line) {
        Ok(read) => read,
        // An id is returned as it was written.
        Err(error) => return assert!(error.to_string().contains("number out of range")),
    };
    assert_eq!(
        (&read["result"], &read["stderr"], &read["errorcode"]),
        (&Value::Null, &"".into(), &4.into())
    );
    match std::str::from_utf8(bytes) {
        Ok(text) => assert_eq!(read["stdout"], text),
        Err(_) => assert!(read["stdout"]["base64"].is_string()),
    }
    if let Ok(Request::Message { text, .. }) = &item.request {
        let from = Name::parse("alice").expect("a name");
        let mut out = Vec::new();
        Dialect::Json.encode(&Event::Message { from: &from, text: *text, serial: 0 }, &mut out);
        let read: Value = serde_json::from_slice(&out).expect("an object");
        assert_eq!(read["text"], text.as_str());
    }
}
