//! What several targets assert.

#![allow(dead_code, reason = "every target takes what it needs")]

use sixfour::{
    limits::FRAME_BODY_MAX_BYTES,
    wire::{Call, Dialect, Event, Outcome, Refusal, Request, frame},
};

use crate::common::{Reader, encode_request, read_in_pieces};

/// The same is read where the bytes come whole, in two pieces, and in pieces of one size. Where
/// they are cut depends on all of them, so that inputs need no bytes of their own for it.
pub fn assert_cuts_do_not_matter(dialect: Dialect, bytes: &[u8]) {
    let mix = |sum: usize, byte: &u8| (sum ^ *byte as usize).wrapping_mul(0x0100_0000_01b3);
    let seed = bytes.iter().fold(bytes.len(), mix) >> 7;
    let mut whole = Reader::new(dialect);
    whole.feed(bytes);
    let (head, tail) = bytes.split_at(seed % (bytes.len() + 1));
    assert_eq!(read_in_pieces(dialect, [head, tail]), whole.read);
    assert_eq!(read_in_pieces(dialect, bytes.chunks(1 + seed % 13)), whole.read);
}

/// What a request makes the server say fits a frame and can be read.
pub fn assert_answerable(request: &Result<Request<'_>, Refusal>) {
    let mut out = Vec::new();
    match request {
        Ok(Request::Call { tag, call: Call::Echo { text } }) => {
            frame::encode(&Event::Text { tag: *tag, text }, &mut out);
        }
        Ok(Request::Call { tag, call: Call::Refused(refusal) }) => {
            let outcome = Outcome::Failed(refusal.clone());
            frame::encode(&Event::End { tag: *tag, outcome: &outcome }, &mut out);
        }
        Err(refusal) => frame::encode(&Event::Error(refusal), &mut out),
        Ok(_) => return,
    }
    assert!(out.len() <= frame::HEADER_BYTES + FRAME_BODY_MAX_BYTES);
    frame::decode_said(&out).expect("our own form").expect("all of it");
}

/// A request comes back from what a client would have written. Two are longer when written anew,
/// since the client writes every member: their encoding may not fit.
pub fn assert_round_trip(request: &Request<'_>) {
    // What is no request has no form of its own.
    if matches!(request, Request::Call { call: Call::Refused(_), .. }) {
        return;
    }
    let bytes = encode_request(request, 0);
    match frame::decode(&bytes) {
        Ok(item) => {
            let item = item.expect("all of it");
            assert_eq!((item.request.as_ref(), item.consumed), (Ok(request), bytes.len()));
        }
        Err(_) => {
            assert!(matches!(request, Request::Call { .. } | Request::Login { .. }));
            assert!(bytes.len() > 4000);
        }
    }
}
