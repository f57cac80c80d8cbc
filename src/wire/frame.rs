//! The framed dialect, which the `client` binary speaks: many things at once over one connection.
//!
//! ```text
//!   0        1                 4                          8
//!   +--------+-----------------+--------------------------+---------- - - -
//!   |  kind  |  length of body |  number (tag or serial)  |  body
//!   +--------+-----------------+--------------------------+---------- - - -
//!      u8        u24               u32                        length bytes
//! ```
//!
//! Numbers are big-endian. A connection begins with [`MAGIC`]. Kinds below 0x40 come from clients,
//! the others from servers; whoever sends the other's kinds has lost its way and is cut off.
//! PROTOCOL.md, "Frames".

use std::borrow::Cow;

use serde::Serialize;

use super::{
    Blob, Call, Event, Item, Name, Parcel, Post, Recipients, Refusal, Request, Stream, Tag, Text,
    check,
    control::{
        DeliveredBody, DetailBody, HelloBody, OutcomeBody, RefusalBody, VERSION, WelcomeBody,
    },
    error::ErrorCode::*,
    name::NAME_RULE,
};
use crate::limits::{
    CHUNK_MAX_BYTES, FRAME_BODY_MAX_BYTES, LINE_FIRST_MAX_BYTES, NAME_MAX_BYTES,
    RECIPIENTS_MAX_BYTES, REQUEST_BODY_MAX_BYTES, TEXT_MAX_BYTES,
};

/// The first bytes of a framed connection. No line, no JSON, no HTTP and no TLS begins so.
pub const MAGIC: [u8; 4] = [0x06, 0x04, b's', b'f'];

/// Bytes before the body.
pub const HEADER_BYTES: usize = 8;

/// Bytes of a BLAKE3 hash.
const HASH_BYTES: usize = 32;

/// Kinds that clients send.
pub mod client {
    #![allow(missing_docs)]
    pub const HELLO: u8 = 0x01;
    pub const REQUEST: u8 = 0x02;
    pub const MESSAGE: u8 = 0x03;
    pub const DATA: u8 = 0x04;
    pub const END: u8 = 0x05;
    pub const CREDIT: u8 = 0x06;
    pub const CANCEL: u8 = 0x07;
    pub const ACKNOWLEDGE: u8 = 0x08;
    pub const PING: u8 = 0x09;
    pub const PONG: u8 = 0x0a;
    pub const GOODBYE: u8 = 0x0b;
}

/// Kinds that servers send.
pub mod server {
    #![allow(missing_docs)]
    pub const WELCOME: u8 = 0x41;
    pub const DETAIL: u8 = 0x42;
    pub const MESSAGE: u8 = 0x43;
    pub const DATA: u8 = 0x44;
    pub const END: u8 = 0x45;
    pub const CREDIT: u8 = 0x46;
    pub const ERROR: u8 = 0x47;
    pub const DELIVERED: u8 = 0x48;
    pub const PING: u8 = 0x49;
    pub const PONG: u8 = 0x4a;
    pub const GOODBYE: u8 = 0x4b;
    pub const ERROR_DATA: u8 = 0x4c;
}

/// One frame, its body not yet looked into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Frame<'a> {
    /// One of [`client`] or [`server`].
    pub kind: u8,
    /// Tag or serial; what it means depends on the kind.
    pub number: u32,
    /// At most [`FRAME_BODY_MAX_BYTES`].
    pub body: &'a [u8],
}

/// Bytes of the whole frame that this header announces.
pub fn length(header: &[u8; HEADER_BYTES]) -> usize {
    let [_, a, b, c, ..] = *header;
    HEADER_BYTES + u32::from_be_bytes([0, a, b, c]) as usize
}

impl<'a> Frame<'a> {
    /// Bytes of the whole frame.
    pub fn length(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Cuts the first frame off `bytes`; `None` while it is not all there.
    pub fn split(bytes: &'a [u8]) -> Result<Option<Frame<'a>>, Refusal> {
        Frame::split_by(bytes, |_| Ok(FRAME_BODY_MAX_BYTES))
    }

    /// The same where the largest body depends on the kind. A frame that cannot be good is
    /// refused by its header, before anybody waits for the rest of it.
    fn split_by(
        bytes: &'a [u8],
        body_max: impl Fn(u8) -> Result<usize, Refusal>,
    ) -> Result<Option<Frame<'a>>, Refusal> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [kind, a, b, c, number @ ..] = *header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let max = body_max(kind)?;
        if length > max {
            return Err(broken(format!(
                "a frame of kind {kind:#04x} may have a body of {max} bytes here; \
                 this one says {length}"
            )));
        }
        let number = u32::from_be_bytes(number);
        Ok(rest.get(..length).map(|body| Frame { kind, number, body }))
    }
}

/// Reads the request at the head of `bytes`, which follow the magic; `None` while it is not all
/// there. An error ends the connection: the stream has lost its sense.
pub fn decode(bytes: &[u8]) -> Result<Option<Item<'_>>, Refusal> {
    decode_within(bytes, REQUEST_BODY_MAX_BYTES)
}

/// The message at the head of `bytes`, where its frame is all there and good.
#[inline]
pub fn post(bytes: &[u8]) -> Option<Post<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [client::MESSAGE, _, _, _, a, b, c, d] = *header else { return None };
    let body = rest.get(..length(header) - HEADER_BYTES)?;
    let (names, rest) = body.split_first_chunk::<2>()?;
    let (to, text) = rest.split_at_checked(u16::from_be_bytes(*names) as usize)?;
    let is_good = (1..=TEXT_MAX_BYTES).contains(&text.len())
        && (1..=RECIPIENTS_MAX_BYTES).contains(&to.len());
    let (tag, to) = (u32::from_be_bytes([a, b, c, d]), Recipients(to));
    let text = Text::parse(text).ok().filter(|_| is_good)?;
    Some(Post { tag, to, text, consumed: HEADER_BYTES + body.len() })
}

/// The data frame at the head of `bytes` that is not all there: its tag, and the bytes of its body.
/// They can be taken as they come; whole frames are left to [`decode`].
#[inline]
pub fn begun_data(bytes: &[u8]) -> Option<(Tag, usize)> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let [client::DATA, _, _, _, a, b, c, d] = *header else { return None };
    let body = length(header) - HEADER_BYTES;
    let is_begun = body <= CHUNK_MAX_BYTES && bytes.len() < HEADER_BYTES + body;
    is_begun.then_some((u32::from_be_bytes([a, b, c, d]), body))
}

/// The same for a peer that may send bodies of at most `body_max` bytes: one that has not said
/// anything valid yet.
pub fn decode_within(bytes: &[u8], body_max: usize) -> Result<Option<Item<'_>>, Refusal> {
    let frame = Frame::split_by(bytes, |kind| Ok(client_body_max(kind)?.min(body_max)))?;
    let Some(frame) = frame else { return Ok(None) };
    let tag = frame.number;
    let request = match frame.kind {
        client::MESSAGE => decode_message(frame)?,
        client::HELLO => Ok(decode_hello(frame)?),
        client::REQUEST => decode_call(frame)?,
        client::DATA => Ok(Request::Input { tag, bytes: frame.body }),
        client::CREDIT => Ok(Request::Credit { tag, bytes: decode_u32(frame)? }),
        client::END => Ok(Request::InputEnd { tag, hash: decode_hash(frame)? }),
        client::CANCEL => Ok(Request::Cancel { tag }),
        client::ACKNOWLEDGE => Ok(Request::Acknowledge { serial: frame.number }),
        client::PING => Ok(Request::Ping { number: frame.number }),
        client::PONG => Ok(Request::Pong),
        client::GOODBYE => Ok(Request::Goodbye),
        kind => return Err(not_of_a_client(kind)),
    };
    Ok(Some(Item { request, consumed: frame.length(), label: None }))
}

/// The largest body of each kind that clients send.
fn client_body_max(kind: u8) -> Result<usize, Refusal> {
    match kind {
        client::MESSAGE | client::REQUEST => Ok(REQUEST_BODY_MAX_BYTES),
        client::DATA => Ok(CHUNK_MAX_BYTES),
        client::HELLO => Ok(LINE_FIRST_MAX_BYTES),
        client::CREDIT => Ok(4),
        client::END => Ok(HASH_BYTES),
        client::CANCEL..=client::GOODBYE => Ok(0),
        kind => Err(not_of_a_client(kind)),
    }
}

/// The largest body of each kind that servers send.
fn server_body_max(kind: u8) -> Result<usize, Refusal> {
    match kind {
        server::DATA | server::ERROR_DATA => Ok(CHUNK_MAX_BYTES),
        server::MESSAGE => Ok(2 + NAME_MAX_BYTES + TEXT_MAX_BYTES),
        server::CREDIT => Ok(4),
        server::PING | server::PONG => Ok(0),
        server::WELCOME..=server::GOODBYE => Ok(FRAME_BODY_MAX_BYTES),
        kind => Err(not_of_a_server(kind)),
    }
}

fn not_of_a_client(kind: u8) -> Refusal {
    broken(format!("a client does not send frames of kind {kind:#04x}"))
}

fn not_of_a_server(kind: u8) -> Refusal {
    broken(format!("a server does not send frames of kind {kind:#04x}"))
}

type Checked<'a> = Result<Request<'a>, Refusal>;

fn broken(text: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(0, Protocol, text)
}

fn decode_u32(frame: Frame<'_>) -> Result<u32, Refusal> {
    let body = frame.body.try_into().map_err(|_| broken("a credit frame has a body of 4 bytes"))?;
    Ok(u32::from_be_bytes(body))
}

/// The end of a file may carry its hash.
fn decode_hash(frame: Frame<'_>) -> Result<Option<[u8; HASH_BYTES]>, Refusal> {
    if frame.body.is_empty() {
        return Ok(None);
    }
    let hash = frame.body.try_into();
    hash.map(Some).map_err(|_| broken("the body of an end is a hash of 32 bytes, or empty"))
}

fn decode_hello(frame: Frame<'_>) -> Result<Request<'_>, Refusal> {
    let hello: HelloBody = parse(frame.body).map_err(broken)?;
    if hello.version != VERSION {
        let text = format!(
            "this server speaks version {VERSION} of the frames, not {}; \
             use a client of the same version",
            hello.version
        );
        return Err(Refusal::new(0, NotSupported, text));
    }
    let name = Name::parse(&hello.user).ok_or_else(|| Refusal::new(0, BadName, NAME_RULE))?;
    Ok(Request::Login { name, password: hello.password })
}

fn decode_call(frame: Frame<'_>) -> Result<Checked<'_>, Refusal> {
    if frame.number == 0 {
        return Err(broken("a request has a number other than 0"));
    }
    let tag = frame.number;
    let call = parse(frame.body).unwrap_or_else(|text| {
        let carried = check::refusal_of(&text);
        let refusal = carried.unwrap_or_else(|| Refusal::new(0, BadArguments, text));
        Call::Refused(Refusal { tag, ..refusal })
    });
    Ok(Ok(Request::Call { tag, call }))
}

fn decode_message(frame: Frame<'_>) -> Result<Checked<'_>, Refusal> {
    let tag = frame.number;
    let (to, text) = split_message(frame.body)?;
    if to.is_empty() {
        return Ok(Err(Refusal::new(tag, BadArguments, "nobody is named")));
    }
    if to.len() > RECIPIENTS_MAX_BYTES {
        return Ok(Err(Refusal::new(tag, TooMany, "the list of recipients is too long")));
    }
    if text.len() > TEXT_MAX_BYTES {
        let text = format!("a text may have {TEXT_MAX_BYTES} bytes; this one has {}", text.len());
        return Ok(Err(Refusal::new(tag, TextTooLong, text)));
    }
    Ok(match Text::parse(text) {
        Ok(text) if text.is_empty() => Err(Refusal::new(tag, BadArguments, "the text is empty")),
        Ok(text) => Ok(Request::Message { tag, to: Recipients(to), text }),
        Err(at) => {
            let text = format!("no UTF-8 at byte {} of the text", at + 1);
            Err(Refusal::new(tag, BadText, text))
        }
    })
}

/// A message body: the length of the names (u16), the names, the text.
fn split_message(body: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let cut = |body: &'_ [u8]| {
        let (length, rest) = body.split_first_chunk::<2>()?;
        rest.split_at_checked(u16::from_be_bytes(*length) as usize).map(|(to, _)| to.len())
    };
    match cut(body) {
        Some(length) => Ok((&body[2..2 + length], &body[2 + length..])),
        None => Err(broken("a message frame ends within its names")),
    }
}

/// Reads a JSON object. Serde would take an array of the members as well; we do not.
fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("the body is no JSON object".to_string());
    }
    serde_json::from_slice(body).map_err(|error| {
        let said = error.to_string();
        match check::refusal_of(&said) {
            Some(_) => said,
            None => format!("the body is not as it should be: {said}"),
        }
    })
}

/// Appends one frame.
pub fn put(out: &mut Vec<u8>, kind: u8, number: u32, body: &[u8]) {
    put_header(out, kind, number, body.len());
    out.extend_from_slice(body);
}

/// Appends a header whose body of `length` bytes the caller sends.
pub fn put_header(out: &mut Vec<u8>, kind: u8, number: u32, length: usize) {
    debug_assert!(length <= FRAME_BODY_MAX_BYTES);
    let first = ((kind as u32) << 24) | length as u32;
    out.extend_from_slice(&(((first as u64) << 32) | number as u64).to_be_bytes());
}

/// Appends one frame with a JSON body.
pub fn put_json(out: &mut Vec<u8>, kind: u8, number: u32, body: &impl Serialize) {
    let length = put_json_unchecked(out, kind, number, body);
    assert!(length <= FRAME_BODY_MAX_BYTES, "a control frame of {length} bytes");
}

/// The same without a look at the length of the body, which it returns.
fn put_json_unchecked(out: &mut Vec<u8>, kind: u8, number: u32, body: &impl Serialize) -> usize {
    let start = out.len();
    put_header(out, kind, number, 0);
    serde_json::to_writer(&mut *out, body).expect("our bodies are JSON and a Vec takes them");
    let length = out.len() - start - HEADER_BYTES;
    out[start + 1..start + 4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    length
}

/// Appends a message frame of either direction.
pub fn put_message<'a>(
    out: &mut Vec<u8>,
    kind: u8,
    number: u32,
    names: &[u8],
    text: impl Into<Text<'a>>,
) {
    let text = text.into();
    put_header(out, kind, number, 2 + names.len() + text.len());
    out.extend_from_slice(&(names.len() as u16).to_be_bytes());
    out.extend_from_slice(names);
    out.extend_from_slice(text.as_bytes());
}

/// Appends the event as frames.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Message { from, text, serial } => {
            put_message(out, server::MESSAGE, *serial, from.as_bytes(), *text);
        }
        Event::Output { tag, stream: Stream::Stdout, bytes } | Event::Data { tag, bytes } => {
            put(out, server::DATA, *tag, bytes);
        }
        Event::Output { tag, stream: Stream::Stderr, bytes } => {
            put(out, server::ERROR_DATA, *tag, bytes);
        }
        Event::Welcome { name } => put_json(out, server::WELCOME, 0, &WelcomeBody::new(*name)),
        Event::Delivered { tag, to, by } => {
            put_json(out, server::DELIVERED, *tag, &DeliveredBody { to: *to, by: *by });
        }
        Event::End { tag, outcome } => {
            put_json(out, server::END, *tag, &OutcomeBody::from(*outcome));
        }
        Event::Credit { tag, bytes } => put(out, server::CREDIT, *tag, &bytes.to_be_bytes()),
        Event::Error(refusal) => put_json(out, server::ERROR, refusal.tag, &body_of(refusal)),
        Event::Ping { number } => put(out, server::PING, *number, b""),
        Event::Pong { number } => put(out, server::PONG, *number, b""),
        Event::Goodbye(Some(refusal)) => put_json(out, server::GOODBYE, 0, &body_of(refusal)),
        Event::Goodbye(None) => put(out, server::GOODBYE, 0, b""),
        Event::File { .. }
        | Event::Entries { .. }
        | Event::Users { .. }
        | Event::UdpPorts { .. }
        | Event::Text { .. }
        | Event::Object { .. } => {
            encode_detail(event, out);
        }
        Event::Offer { .. }
        | Event::OfferWithdrawn { .. }
        | Event::Accepted { .. }
        | Event::DataEnd { .. } => encode_offer(event, out),
    }
}

fn encode_detail(event: &Event<'_>, out: &mut Vec<u8>) {
    match *event {
        Event::File { tag, name, size, modified } => {
            let file = DetailBody::File { name: Blob::borrowed(name), size, modified };
            put_json(out, server::DETAIL, tag, &file);
        }
        Event::Text { tag, text } => put_text(out, tag, text),
        Event::Object { tag, object } => {
            put_json(
                out,
                server::DETAIL,
                tag,
                &DetailBody::Object { object: Cow::Borrowed(object) },
            );
        }
        Event::Entries { tag, entries } => put_list(out, tag, entries, |entries| {
            DetailBody::Entries { entries: Cow::Borrowed(entries) }
        }),
        Event::Users { tag, names } => {
            put_list(out, tag, names, |names| DetailBody::Users { names: Cow::Borrowed(names) })
        }
        Event::UdpPorts { tag, ports } => {
            put_list(out, tag, ports, |ports| DetailBody::UdpPorts { ports: Cow::Borrowed(ports) })
        }
        _ => unreachable!("the caller has chosen the details"),
    }
}

/// Appends news of what goes from user to user.
fn encode_offer(event: &Event<'_>, out: &mut Vec<u8>) {
    let (tag, detail) = offer_detail(event);
    put_json(out, server::DETAIL, tag, &detail);
}

/// The body of such news, and its tag. Offers were not asked for: theirs is 0.
pub(super) fn offer_detail<'a>(event: &Event<'a>) -> (Tag, DetailBody<'a>) {
    match *event {
        Event::Offer { number, from, parcel, address } => {
            let Parcel { name, size, modified, files, folder, form, introduction } = parcel;
            let detail = DetailBody::Offer {
                offer: number,
                from,
                name: Blob::borrowed(&name.0),
                size: *size,
                modified: *modified,
                files: *files,
                folder: *folder,
                form: *form,
                introduction: introduction.as_ref().map(Cow::Borrowed),
                address: address.map(Cow::Borrowed),
            };
            (0, detail)
        }
        Event::OfferWithdrawn { number, refusal } => {
            let text = Cow::Borrowed(&*refusal.text);
            (0, DetailBody::OfferWithdrawn { offer: number, code: refusal.code, text })
        }
        Event::Accepted { tag, by, form, introduction, address } => {
            let introduction = introduction.map(Cow::Borrowed);
            let address = address.map(Cow::Borrowed);
            (tag, DetailBody::Accepted { by, form, introduction, address })
        }
        Event::DataEnd { tag } => (tag, DetailBody::DataEnd),
        _ => unreachable!("the caller has chosen these"),
    }
}

/// Appends a list in as many frames as it needs: how long it gets depends on how many of the
/// characters in its names JSON has to escape.
fn put_list<T>(out: &mut Vec<u8>, tag: Tag, items: &[T], body: fn(&[T]) -> DetailBody<'_>) {
    let start = out.len();
    let length = put_json_unchecked(out, server::DETAIL, tag, &body(items));
    if length > FRAME_BODY_MAX_BYTES {
        assert!(items.len() > 1, "one item of {length} bytes");
        out.truncate(start);
        let (head, tail) = items.split_at(items.len() / 2);
        put_list(out, tag, head, body);
        put_list(out, tag, tail, body);
    }
}

/// Appends a text in as many frames as it needs, cut at the end of a line where there is one: the
/// host has told what is in it, and JSON may make six bytes of one.
fn put_text(out: &mut Vec<u8>, tag: Tag, text: &str) {
    let start = out.len();
    let body = DetailBody::Text { text: Cow::Borrowed(text) };
    let length = put_json_unchecked(out, server::DETAIL, tag, &body);
    if length > FRAME_BODY_MAX_BYTES {
        out.truncate(start);
        let middle = (0..=text.len() / 2).rev().find(|at| text.is_char_boundary(*at));
        let (head, tail) = text.split_at(middle.unwrap_or(0));
        let (head, tail) = match (head.rfind('\n'), tail.find('\n')) {
            (Some(at), _) => (&text[..at], &text[at + 1..]),
            (None, Some(at)) => (&text[..head.len() + at], &tail[at + 1..]),
            (None, None) => (head, tail),
        };
        put_text(out, tag, head);
        put_text(out, tag, tail);
    }
}

/// Whether a request fits a frame. What a user has typed or a shell has made of it may not.
pub fn fits_request(body: &impl Serialize) -> bool {
    let mut out = Vec::new();
    put_json_unchecked(&mut out, client::REQUEST, 0, body) <= REQUEST_BODY_MAX_BYTES
}

fn body_of(refusal: &Refusal) -> RefusalBody<'_> {
    RefusalBody { code: refusal.code, text: Cow::Borrowed(&refusal.text) }
}

/// What a server has said, as the client reads it.
#[derive(Debug)]
pub enum Said<'a> {
    /// The name is accepted.
    Welcome(WelcomeBody<'a>),
    /// News of the operation `tag`.
    Detail(Tag, DetailBody<'a>),
    /// Somebody wrote; a serial other than 0 wants to be acknowledged.
    Message {
        /// Who.
        from: Name,
        /// What.
        text: &'a str,
        /// For the acknowledgement.
        serial: u32,
    },
    /// Bytes of a file or of a command's output.
    Data(Tag, Stream, &'a [u8]),
    /// The operation `tag` is over.
    End(Tag, OutcomeBody<'a>),
    /// Standard input of the operation `tag` may go on for so many bytes.
    Credit(Tag, u32),
    /// The request or message `tag` failed.
    Error(Tag, RefusalBody<'a>),
    /// The message `tag` has arrived.
    Delivered(Tag, DeliveredBody),
    /// To be answered by a pong.
    Ping(u32),
    /// The answer to a ping.
    Pong(u32),
    /// The server ends the connection.
    Goodbye(Option<RefusalBody<'a>>),
}

/// Reads what a server has said at the head of `bytes` and how many bytes that were; `None` while
/// it is not all there. An error means that the other end is no server of ours.
pub fn decode_said(bytes: &[u8]) -> Result<Option<(Said<'_>, usize)>, Refusal> {
    let Some(frame) = Frame::split_by(bytes, server_body_max)? else { return Ok(None) };
    let (number, body) = (frame.number, frame.body);
    let said = match frame.kind {
        server::DATA => Said::Data(number, Stream::Stdout, body),
        server::ERROR_DATA => Said::Data(number, Stream::Stderr, body),
        server::MESSAGE => {
            let (from, text) = split_message(body)?;
            let from = std::str::from_utf8(from).ok().and_then(Name::parse);
            let from = from.ok_or_else(|| broken("a message comes from no name"))?;
            let text = std::str::from_utf8(text).map_err(|_| broken("a message is no UTF-8"))?;
            Said::Message { from, text, serial: number }
        }
        server::WELCOME => Said::Welcome(parse(body).map_err(broken)?),
        server::DETAIL => Said::Detail(number, parse(body).map_err(broken)?),
        server::END => Said::End(number, parse(body).map_err(broken)?),
        server::CREDIT => Said::Credit(number, decode_u32(frame)?),
        server::ERROR => Said::Error(number, parse(body).map_err(broken)?),
        server::DELIVERED => Said::Delivered(number, parse(body).map_err(broken)?),
        server::PING => Said::Ping(number),
        server::PONG => Said::Pong(number),
        server::GOODBYE if body.is_empty() => Said::Goodbye(None),
        server::GOODBYE => Said::Goodbye(Some(parse(body).map_err(broken)?)),
        kind => return Err(not_of_a_server(kind)),
    };
    Ok(Some((said, frame.length())))
}
