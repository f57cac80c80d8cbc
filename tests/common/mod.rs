//! What several tests of the codecs need: the other direction of each, and a reader that is fed
//! as a socket would feed it.

#![allow(dead_code, reason = "every test takes what it needs")]

use sixfour::{
    limits::{LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES, OBJECT_FIRST_MAX_BYTES, OBJECT_MAX_BYTES},
    wire::{
        Call, Dialect, Event, Item, Outcome, Refusal, Request, Text,
        control::{HelloBody, VERSION},
        frame::{self, Said, client, server},
        json::{self, scan::Place},
    },
};

/// A session as far as its codec goes: keeps the rest of what came, and grants a long line only
/// to who has said something valid.
pub struct Reader {
    dialect: Dialect,
    kept: Vec<u8>,
    place: Place,
    max: usize,
    scratch: Vec<u8>,
    /// What was read, a line for each item; the last one begins with `end` if the codec gave up.
    pub read: Vec<String>,
}

impl Reader {
    pub fn new(dialect: Dialect) -> Reader {
        let max = match dialect {
            Dialect::Json => OBJECT_FIRST_MAX_BYTES,
            Dialect::Line | Dialect::Frame => LINE_FIRST_MAX_BYTES,
        };
        let (place, scratch) = (Place::default(), Vec::new());
        Reader { dialect, kept: Vec::new(), place, max, scratch, read: Vec::new() }
    }

    pub fn feed(&mut self, bytes: &[u8]) {
        if self.has_ended() {
            return;
        }
        self.kept.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            let rest = &self.kept[done..];
            match self.dialect.decode(rest, &mut self.place, self.max, &mut self.scratch) {
                Ok(Some(item)) => {
                    assert!((1..=rest.len()).contains(&item.consumed));
                    done += item.consumed;
                    let is_valid = !matches!(item.request, Ok(Request::Nothing) | Err(_));
                    // White space between objects is as many items as it comes in portions.
                    if self.dialect != Dialect::Json || item.label.is_some() {
                        self.read.push(show(&item));
                    }
                    if is_valid {
                        self.max = longest(self.dialect);
                    }
                }
                Ok(None) => {
                    assert!(self.dialect == Dialect::Frame || self.place.at == rest.len());
                    break;
                }
                Err(refusal) => {
                    self.read.push(format!("end {refusal:?}"));
                    break;
                }
            }
        }
        self.kept.drain(..done);
        let most = longest(self.dialect) + frame::HEADER_BYTES;
        assert!(self.kept.len() <= most || self.has_ended());
    }

    pub fn has_ended(&self) -> bool {
        self.read.last().is_some_and(|last| last.starts_with("end "))
    }
}

/// The longest request of a session that has said something valid.
fn longest(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Json => OBJECT_MAX_BYTES,
        Dialect::Line | Dialect::Frame => LINE_MAX_BYTES,
    }
}

fn show(item: &Item<'_>) -> String {
    let label = item.label.as_ref().map(|label| format!("{label:?} ")).unwrap_or_default();
    match &item.request {
        Ok(request) => format!("{label}{request:?}"),
        Err(refusal) => format!("{label}{refusal:?}"),
    }
}

/// Reads the request at the head of `bytes`, of which nothing is known yet.
pub fn decode<'a>(
    dialect: Dialect,
    bytes: &'a [u8],
    max: usize,
    scratch: &'a mut Vec<u8>,
) -> Result<Option<Item<'a>>, Refusal> {
    dialect.decode(bytes, &mut Place::default(), max, scratch)
}

/// What is read where `input` comes in these pieces.
pub fn read_in_pieces<'a>(
    dialect: Dialect,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<String> {
    let mut reader = Reader::new(dialect);
    pieces.into_iter().for_each(|piece| reader.feed(piece));
    reader.read
}

/// The request as a client writes it. `number` is that of a pong, which a request leaves out.
pub fn encode_request(request: &Request<'_>, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    match request.clone() {
        Request::Login { name, password } => {
            let user = name.as_str().into();
            let hello = HelloBody { version: VERSION, user, password, capabilities: Vec::new() };
            frame::put_json(&mut out, client::HELLO, 0, &hello);
        }
        Request::Message { tag, to, text } => {
            frame::put_message(&mut out, client::MESSAGE, tag, to.0, text);
        }
        Request::Call { tag, call } => {
            frame::put_json(&mut out, client::REQUEST, tag, &call);
        }
        Request::Input { tag, bytes } => frame::put(&mut out, client::DATA, tag, bytes),
        Request::InputEnd { tag, hash } => {
            frame::put(&mut out, client::END, tag, hash.as_ref().map_or(&b""[..], |hash| hash));
        }
        Request::Credit { tag, bytes } => {
            frame::put(&mut out, client::CREDIT, tag, &bytes.to_be_bytes());
        }
        Request::Cancel { tag } => frame::put(&mut out, client::CANCEL, tag, b""),
        Request::Acknowledge { serial } => frame::put(&mut out, client::ACKNOWLEDGE, serial, b""),
        Request::Ping { number } => frame::put(&mut out, client::PING, number, b""),
        Request::Pong => frame::put(&mut out, client::PONG, number, b""),
        Request::Goodbye => frame::put(&mut out, client::GOODBYE, 0, b""),
        Request::Nothing | Request::Skip { .. } => panic!("only lines have these"),
    }
    out
}

/// What was said as a server writes it: bodies by their own types, so that the vectors prove the
/// form of each. That events become these bodies is the codec's own test.
pub fn encode_said(said: &Said<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match said {
        Said::Welcome(body) => frame::put_json(&mut out, server::WELCOME, 0, body),
        Said::Detail(tag, body) => frame::put_json(&mut out, server::DETAIL, *tag, body),
        Said::Message { from, text, serial } => {
            frame::encode(
                &Event::Message { from, text: Text::from(*text), serial: *serial },
                &mut out,
            );
        }
        Said::Data(tag, stream, bytes) => {
            frame::encode(&Event::Output { tag: *tag, stream: *stream, bytes }, &mut out);
        }
        Said::End(tag, body) => frame::put_json(&mut out, server::END, *tag, body),
        Said::Credit(tag, bytes) => {
            frame::encode(&Event::Credit { tag: *tag, bytes: *bytes }, &mut out);
        }
        Said::Error(tag, body) => frame::put_json(&mut out, server::ERROR, *tag, body),
        Said::Delivered(tag, body) => {
            let event = Event::Delivered { tag: *tag, to: body.to, by: body.by };
            frame::encode(&event, &mut out);
        }
        Said::Ping(number) => frame::encode(&Event::Ping { number: *number }, &mut out),
        Said::Pong(number) => frame::encode(&Event::Pong { number: *number }, &mut out),
        Said::Goodbye(None) => frame::encode(&Event::Goodbye(None), &mut out),
        Said::Goodbye(Some(body)) => frame::put_json(&mut out, server::GOODBYE, 0, body),
    }
    out
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where the short way is taken for what `bytes` begin with, its reply is that of the long one.
/// Whether it is taken.
pub fn assert_the_short_way_says_the_same(bytes: &[u8]) -> bool {
    let Some(quick) = json::quick(bytes, OBJECT_MAX_BYTES) else { return false };
    let spaces = bytes.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
    let mut scratch = Vec::new();
    let item = decode(Dialect::Json, &bytes[spaces..], OBJECT_MAX_BYTES, &mut scratch);
    let item = item.expect("good").expect("whole");
    assert_eq!(item.consumed, quick.consumed - spaces);
    let (mut reply, mut long, mut short) = (json::Reply::default(), Vec::new(), Vec::new());
    reply.begin(item.label.expect("it has an id").id);
    match item.request.expect("good") {
        Request::Call { call: Call::Echo { text }, .. } => {
            reply.take_in(&Event::Text { tag: 0, text: &text });
        }
        Request::Ping { .. } => {}
        other => panic!("no request for the short way: {other:?}"),
    }
    reply.finish(&Outcome::Done, None);
    assert!(reply.put(usize::MAX, &mut long));
    quick.put_reply(&mut short);
    assert_eq!(String::from_utf8_lossy(&short), String::from_utf8_lossy(&long));
    true
}
