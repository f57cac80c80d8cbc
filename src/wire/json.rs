//! The JSON dialect: one object a request, one object a reply, and objects for what comes unasked.
//!
//! Objects need no line ends between them and none behind the last; those of the server have one
//! each. Every request has an id, which its reply repeats as it was written. PROTOCOL.md, "JSON".

mod quick;
pub mod reply;
mod request;
pub mod scan;
mod syntax;
mod words;

use std::borrow::Cow;

use serde::Serialize;

pub use quick::{Quick, quick};
pub use reply::Reply;
use scan::{Found, Place};
use syntax::{Fault, Members};

use super::{Event, Item, Refusal, Request, control::DeliveredBody, error::ErrorCode::*, frame};
use crate::limits::OBJECT_DEPTH_MAX;

/// What JSON alone says about a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Label<'a> {
    /// The id of the request, a scalar, as it was written; `null` where there is none.
    pub id: &'a str,
    /// The whole standard input of a command.
    pub input: Option<Cow<'a, [u8]>>,
    /// The id of the requests that [`Request::Cancel`] means.
    pub target: Option<&'a str>,
}

impl Label<'_> {
    /// Of what has no id.
    pub const NONE: Label<'static> = Label { id: "null", input: None, target: None };
}

/// Reads the object at the head of `bytes`; `None` while it has no end yet.
///
/// `place` remembers how far the end was searched for, and is fit for the next item after every
/// one. An object of more than `object_max` bytes, one that nests too deeply, and bytes between
/// objects that are no white space and no byte order mark are errors that end the connection:
/// nobody can tell where the next request begins. White space is an item of its own, so that it
/// cannot pile up, and so are the lines of a broken object that follow the one with which it was
/// given up; of those `place` knows beyond the item.
/// What has to be put together is put into `scratch`.
pub fn decode<'a>(
    bytes: &'a [u8],
    place: &mut Place,
    object_max: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<Option<Item<'a>>, Refusal> {
    if place.at == 0 {
        match place.pass_remains(bytes) {
            0 => {}
            passed => return Ok(Some(nothing(passed))),
        }
        match place.pass_blanks(bytes) {
            0 if bytes.is_empty() => return Ok(None),
            0 if bytes[0] != b'{' || !place.is_fresh() => return Err(no_object(bytes)),
            0 => {}
            blanks => return Ok(Some(nothing(blanks))),
        }
        // Most objects come whole and are good: then one look is enough.
        let mut members = Members::of(bytes);
        if let Ok(length) = syntax::object(&mut members)
            && length <= object_max
        {
            return Ok(Some(item(&members, length, scratch)));
        }
    }
    let known = &bytes[..bytes.len().min(object_max)];
    let looked = place.at;
    match place.look(&known[looked.min(known.len())..]) {
        Found::TooDeep => {
            let text = format!("objects and arrays may nest {OBJECT_DEPTH_MAX} levels deep");
            Err(Refusal::new(0, Protocol, text))
        }
        Found::Open if bytes.len() > object_max => {
            let text = format!("an object may have {object_max} bytes here");
            Err(Refusal::new(0, Protocol, text))
        }
        Found::Open => Ok(None),
        Found::Broken(used) => {
            let length = looked + used;
            let what = "the next one begins before this one has ended";
            Ok(Some(broken(
                length,
                fault(syntax::object(&mut Members::of(&bytes[..length])), length, what),
            )))
        }
        Found::End(used) => {
            let length = looked + used;
            *place = Place::default();
            let mut members = Members::of(&bytes[..length]);
            match syntax::object(&mut members) {
                Ok(whole) if whole == length => Ok(Some(item(&members, length, scratch))),
                read => {
                    let refusal = fault(read, length, "the object ends too early");
                    Ok(Some(broken(length, refusal)))
                }
            }
        }
    }
}

/// What is wrong with an object of `length` bytes, where the grammar alone finds nothing but that
/// it ends there, `early`.
fn fault(read: Result<usize, Fault>, length: usize, early: &str) -> Refusal {
    match read {
        Ok(_) | Err(Fault::Incomplete) => bad_json(length, early),
        Err(Fault::Broken(at, what)) => bad_json(at, what),
    }
}

fn broken<'a>(consumed: usize, refusal: Refusal) -> Item<'a> {
    Item { request: Err(refusal), consumed, label: Some(Label::NONE) }
}

/// How many bytes of `news` complete the object that `rest` begins, where that can be told;
/// `place` is that of `rest`.
pub fn missing(rest: &[u8], news: &[u8], mut place: Place) -> Option<usize> {
    if place.at == 0 && (rest.first() != Some(&b'{') || !place.is_fresh()) {
        return Some(0);
    }
    match place.look(&rest[place.at..]) {
        Found::End(_) | Found::TooDeep | Found::Broken(_) => return Some(0),
        Found::Open => {}
    }
    match place.look(news) {
        Found::End(count) => Some(count),
        // The brace that ends it belongs to the next one, and is looked at once it is there.
        Found::Broken(count) => Some(count.max(1)),
        Found::Open | Found::TooDeep => None,
    }
}

/// What is said to a peer whose input ends within an object.
pub fn broken_off() -> Refusal {
    Refusal::new(0, BadJson, "the input ends within an object")
}

fn nothing<'a>(consumed: usize) -> Item<'a> {
    Item { request: Ok(Request::Nothing), consumed, label: None }
}

fn item<'a>(members: &Members<'a>, consumed: usize, scratch: &'a mut Vec<u8>) -> Item<'a> {
    let (label, request) = request::read(members, scratch);
    Item { request, consumed, label: Some(label) }
}

fn bad_json(at: usize, what: &str) -> Refusal {
    Refusal::new(0, BadJson, format!("byte {} of the object: {what}", at + 1))
}

fn no_object(bytes: &[u8]) -> Refusal {
    let shown = super::escape::escape_bytes(&bytes[..1]);
    let text = format!(
        "this connection speaks JSON, as its first byte chose, and `{shown}` begins no object"
    );
    Refusal::new(0, Protocol, text)
}

/// Appends an event that answers no request, or that comes besides the answer.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Message { from, text, .. } => {
            out.extend_from_slice(b"{\"event\":\"message\",\"from\":\"");
            out.extend_from_slice(from.as_bytes());
            out.extend_from_slice(b"\",\"text\":\"");
            reply::put_escaped(text.as_bytes(), out);
            out.extend_from_slice(b"\"}\n");
        }
        Event::Error(refusal) => put_failure(None, refusal, out),
        Event::Goodbye(Some(refusal)) => put_goodbye(refusal, out),
        Event::Offer { .. } | Event::OfferWithdrawn { .. } => {
            put_value(&frame::offer_detail(event).1, out);
            out.push(b'\n');
        }
        // These belong to replies.
        Event::Welcome { .. }
        | Event::File { .. }
        | Event::Output { .. }
        | Event::Data { .. }
        | Event::Entries { .. }
        | Event::Users { .. }
        | Event::UdpPorts { .. }
        | Event::Text { .. }
        | Event::Object { .. }
        | Event::End { .. }
        | Event::Goodbye(None) => {}
        // These have no form here, or one with the id of a request: see below.
        Event::Delivered { .. } | Event::Accepted { .. } => {}
        Event::Credit { .. } | Event::DataEnd { .. } => {}
        Event::Ping { .. } | Event::Pong { .. } => {}
    }
}

/// The last object of a connection that the server ends of its own: it has the members of a reply,
/// since it may be the only one that a client ever reads.
fn put_goodbye(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"{\"id\":null,\"result\":null,\"stdout\":\"\",\"stderr\":\"\",\"errorcode\":",
    );
    put_number(u64::from(refusal.code.errorcode()), out);
    out.extend_from_slice(b",\"event\":\"goodbye\",\"error\":");
    reply::put_error(refusal, out);
    out.extend_from_slice(b"}\n");
}

/// Appends what has gone wrong beside all replies, or after the one to the request with this id.
pub fn put_failure(id: Option<&str>, refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"event\":\"error\"");
    if let Some(id) = id {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(id.as_bytes());
    }
    out.extend_from_slice(b",\"error\":");
    reply::put_error(refusal, out);
    out.extend_from_slice(b"}\n");
}

/// Appends news of the request with this id that come besides its reply: that a message has
/// arrived, or that somebody has accepted what was offered. Other events are not for this.
pub fn put_news(id: &str, event: &Event<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    match event {
        Event::Delivered { to, by, .. } => {
            out.extend_from_slice(b"{\"event\":\"delivered\",");
            put_value(&DeliveredBody { to: *to, by: *by }, out);
        }
        Event::Accepted { .. } => {
            out.extend_from_slice(b"{");
            put_value(&frame::offer_detail(event).1, out);
        }
        _ => return,
    }
    // The body has a brace of its own, in whose place its id comes.
    let brace = start + 1 + out[start + 1..].iter().position(|byte| *byte == b'{').expect("it has");
    let id = [b"\"id\":", id.as_bytes(), b","].concat();
    out.splice(brace..=brace, id);
    out.push(b'\n');
}

fn put_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    reply::put_escaped(text.as_bytes(), out);
    out.push(b'"');
}

fn put_value(value: &impl Serialize, out: &mut Vec<u8>) {
    let start = out.len();
    serde_json::to_writer(&mut *out, value).expect("our values are JSON and a Vec takes them");
    let safe = std::str::from_utf8(&out[start..]).map(super::escape::escape_json);
    if let Cow::Owned(safe) = safe.expect("JSON is UTF-8") {
        out.truncate(start);
        out.extend_from_slice(safe.as_bytes());
    }
}

fn put_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
