//! Users who send something to each other, for the tables of offers and pipes.

#![allow(dead_code, reason = "every test takes what it needs")]

use serde_json::{Value, json};
use sixfour::{
    hub::{ConnectionId, Input},
    wire::frame::{Frame, client, server},
};

use crate::table::{Table, frame_of};

pub const WINDOW: usize = 256 * 1024;

/// What a framed session has heard: the kind, the number and the body, JSON where it is JSON.
pub fn news(table: &mut Table, id: ConnectionId) -> Vec<(u8, u32, Value)> {
    let bytes = table.heard_bytes(id);
    let (mut rest, mut news) = (&bytes[..], Vec::new());
    while let Some(frame) = Frame::split(rest).expect("good frames") {
        let body = match serde_json::from_slice(frame.body) {
            Ok(body @ Value::Object(_)) => body,
            _ => json!(String::from_utf8_lossy(frame.body)),
        };
        news.push((frame.kind, frame.number, body));
        rest = &rest[frame.length()..];
    }
    assert!(rest.is_empty(), "whole frames");
    news
}

/// The same where there is one thing.
#[track_caller]
pub fn only(table: &mut Table, id: ConnectionId) -> (u8, u32, Value) {
    let mut news = news(table, id);
    assert_eq!(news.len(), 1, "{news:?}");
    news.remove(0)
}

pub fn request(table: &mut Table, id: ConnectionId, tag: u32, body: Value) {
    let bytes = frame_of(client::REQUEST, tag, body.to_string().as_bytes());
    table.input(Input::Bytes { connection: id, bytes: &bytes });
}

/// A frame in, with whatever is heard left for later.
pub fn put(table: &mut Table, id: ConnectionId, kind: u8, tag: u32, body: &[u8]) {
    let bytes = frame_of(kind, tag, body);
    table.input(Input::Bytes { connection: id, bytes: &bytes });
}

pub fn ended(tag: u32, outcome: Value) -> (u8, u32, Value) {
    (server::END, tag, outcome)
}

#[track_caller]
pub fn assert_failed(news: &(u8, u32, Value), tag: u32, code: &str) {
    assert_eq!((news.0, news.1), (server::END, tag), "{news:?}");
    assert_eq!((&news.2["outcome"], &news.2["code"]), (&json!("failed"), &json!(code)), "{news:?}");
}

/// A sender and a receiver with frames, in conversation, under the tags 1 and 2.
pub fn talk(table: &mut Table) -> (ConnectionId, ConnectionId) {
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "form": "conversation"});
    request(table, alice, 1, offer);
    request(table, bob, 2, json!({"op": "accept", "offer": 1, "form": "conversation"}));
    let accepted = json!({"event": "accepted", "by": "bob", "form": "conversation"});
    assert_eq!(only(table, alice), (server::DETAIL, 1, accepted));
    let accepted = json!({"event": "accepted", "by": "alice", "form": "conversation"});
    assert_eq!(news(table, bob).pop(), Some((server::DETAIL, 2, accepted)));
    (alice, bob)
}

/// The same with a file of so many bytes as it is.
pub fn send_raw(table: &mut Table, size: usize) -> (ConnectionId, ConnectionId) {
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    request(table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": size}));
    request(table, bob, 2, json!({"op": "accept", "offer": 1}));
    table.forget([alice, bob]);
    (alice, bob)
}

/// Sends chunks until so many bytes were sent.
pub fn pour(table: &mut Table, id: ConnectionId, tag: u32, mut count: usize) {
    let chunk = vec![b'x'; 64 * 1024];
    while count > 0 {
        let part = count.min(chunk.len());
        put(table, id, client::DATA, tag, &chunk[..part]);
        count -= part;
    }
}

pub fn credit_in(news: &[(u8, u32, Value)], bytes: &[u8]) -> usize {
    assert!(news.iter().all(|(kind, ..)| *kind == server::CREDIT), "{news:?}");
    let (mut rest, mut sum) = (bytes, 0);
    while let Some(frame) = Frame::split(rest).expect("good frames") {
        sum += u32::from_be_bytes(frame.body.try_into().expect("4 bytes")) as usize;
        rest = &rest[frame.length()..];
    }
    sum
}

pub fn credit(table: &mut Table, id: ConnectionId) -> usize {
    let bytes = table.heard_bytes(id);
    credit_in(&[], &bytes)
}
