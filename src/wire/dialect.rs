//! Which language a connection speaks, told from its first bytes, and the codecs behind one door.

use super::{
    ErrorCode, Event, Item, Post, Refusal, frame, http, json,
    json::scan::{BYTE_ORDER_MARK, Place},
    line, telnet,
};

/// A language that sessions speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Lines of text.
    Line,
    /// JSON objects.
    Json,
    /// Frames.
    Frame,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sniffed {
    /// Not enough yet.
    Undecided,
    /// So many bytes say nothing: white space, or a byte order mark. What follows decides.
    Blank(usize),
    /// One of ours, after so many bytes of introduction.
    Speaks(Dialect, usize),
    /// A browser has lost its way.
    Http,
    /// A TLS ClientHello.
    Tls,
}

/// Tells the dialect from the first bytes that are no blanks, as soon as they suffice and never
/// later than the eighth of them.
///
/// An array and a string begin no request of any dialect. They are JSON all the same, so that the
/// program that sends them is told at once and in its own language what is wrong.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let magic = &frame::MAGIC;
    match bytes {
        [] => Sniffed::Undecided,
        [b' ' | b'\t' | b'\n' | b'\r', ..] => {
            Sniffed::Blank(bytes.len() - bytes.trim_ascii_start().len())
        }
        _ if bytes.starts_with(&BYTE_ORDER_MARK) => Sniffed::Blank(BYTE_ORDER_MARK.len()),
        _ if BYTE_ORDER_MARK.starts_with(bytes) => Sniffed::Undecided,
        [b'{' | b'[' | b'"', ..] => Sniffed::Speaks(Dialect::Json, 0),
        [0x16, 0x03, ..] => Sniffed::Tls,
        [0x16] => Sniffed::Undecided,
        _ if bytes.starts_with(magic) => Sniffed::Speaks(Dialect::Frame, magic.len()),
        _ if magic.starts_with(bytes) => Sniffed::Undecided,
        _ => match http::sniff(bytes) {
            None => Sniffed::Undecided,
            Some(true) => Sniffed::Http,
            Some(false) => Sniffed::Speaks(Dialect::Line, 0),
        },
    }
}

/// Puts the line at the head of `bytes` into `scratch`, where it has commands of telnet, without
/// them; how many bytes it has.
fn telnet_line(bytes: &[u8], scanned: usize, max: usize, scratch: &mut Vec<u8>) -> Option<usize> {
    let end = scanned + memchr::memchr(b'\n', &bytes[scanned..])?;
    if end > max || memchr::memchr(telnet::IAC, &bytes[..end]).is_none() {
        return None;
    }
    scratch.clear();
    telnet::put_without_commands(&bytes[..=end], scratch);
    // A command that is not whole does not take the end of the line with it.
    if scratch.last() != Some(&b'\n') {
        scratch.push(b'\n');
    }
    Some(end + 1)
}

/// The last bytes of a connection whose dialect is not served: the reason, in that dialect.
pub fn farewell(sniffed: Sniffed, refusal: &Refusal) -> Vec<u8> {
    match sniffed {
        Sniffed::Http => http::page().into_bytes(),
        // A fatal alert, handshake_failure (RFC 8446, section 6): what a TLS client understands.
        Sniffed::Tls => vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28],
        Sniffed::Undecided | Sniffed::Blank(_) => {
            farewell(Sniffed::Speaks(Dialect::Line, 0), refusal)
        }
        Sniffed::Speaks(dialect, _) => {
            let mut out = Vec::new();
            dialect.encode(&Event::Goodbye(Some(refusal)), &mut out);
            out
        }
    }
}

/// Why a dialect is recognised and not served, if it is not.
pub fn unserved(sniffed: Sniffed) -> Option<Refusal> {
    let text = match sniffed {
        Sniffed::Http => "this port does not serve HTTP",
        // The server's transport has taken off the TLS that a connection begins with.
        Sniffed::Tls => "there is no TLS within TLS",
        Sniffed::Undecided | Sniffed::Blank(_) | Sniffed::Speaks(..) => return None,
    };
    Some(Refusal::new(0, ErrorCode::NotSupported, text))
}

impl Dialect {
    /// Reads the request at the head of `bytes`, which has at most `max` bytes; of a frame that is
    /// its body. `place` tells how far these bytes were looked at before, see [`line::decode`] and
    /// [`json::decode`]; it is new for every item. What JSON has to put together is put into
    /// `scratch`.
    pub fn decode<'a>(
        self,
        bytes: &'a [u8],
        place: &mut Place,
        max: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Option<Item<'a>>, Refusal> {
        match self {
            Dialect::Line => {
                let item = match telnet_line(bytes, place.at, max, scratch) {
                    None => line::decode(bytes, place.at, max)?,
                    Some(consumed) => {
                        line::decode(scratch, 0, max)?.map(|item| Item { consumed, ..item })
                    }
                };
                place.at = if item.is_some() { 0 } else { bytes.len() };
                Ok(item)
            }
            Dialect::Json => json::decode(bytes, place, max, scratch),
            Dialect::Frame => frame::decode_within(bytes, max),
        }
    }

    /// The message at the head of `bytes`, if that is plainly what lies there; `place` and `max`
    /// are those of [`Dialect::decode`].
    #[inline(always)]
    pub fn post(self, bytes: &[u8], place: Place, max: usize) -> Option<Post<'_>> {
        match self {
            Dialect::Line => line::post(bytes, place.at, max),
            // Each has a reply, which is begun before it is looked into.
            Dialect::Json => None,
            Dialect::Frame => frame::post(bytes),
        }
    }

    /// How many bytes of `news` complete the request that `rest` begins; `None` where they do not
    /// suffice, or that cannot be told yet. `place` is that of `rest`.
    pub fn missing(self, rest: &[u8], news: &[u8], place: Place) -> Option<usize> {
        match self {
            Dialect::Line => memchr::memchr(b'\n', news).map(|at| at + 1),
            Dialect::Json => json::missing(rest, news, place),
            Dialect::Frame => {
                let mut header = [0; frame::HEADER_BYTES];
                let known = rest.iter().chain(news).take(header.len());
                let count = known.zip(&mut header).map(|(from, to)| *to = *from).count();
                (count == header.len())
                    .then(|| frame::length(&header).saturating_sub(rest.len()))
                    .filter(|missing| *missing <= news.len())
            }
        }
    }

    /// How one says in it who one is.
    pub fn name_usage(self) -> &'static str {
        match self {
            Dialect::Json => r#"`{"op": "login", "user": NAME, "id": ID}`"#,
            Dialect::Line | Dialect::Frame => "`user NAME`",
        }
    }

    /// The same with a password.
    pub fn login_usage(self) -> &'static str {
        match self {
            Dialect::Json => r#"`{"op": "login", "user": NAME, "password": PASSWORD, "id": ID}`"#,
            Dialect::Line | Dialect::Frame => "`user NAME PASSWORD`",
        }
    }

    /// Appends the event as this dialect has it.
    pub fn encode(self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Dialect::Line => line::encode(event, out),
            Dialect::Json => json::encode(event, out),
            Dialect::Frame => frame::encode(event, out),
        }
    }
}
