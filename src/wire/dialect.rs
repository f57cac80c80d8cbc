//! Which language a connection speaks, told from its first bytes, and the codecs behind one door.

use super::{ErrorCode, Event, Item, Post, Refusal, frame, http, line};

/// A language that sessions speak.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dialect {
    /// Lines of text.
    Line,
    /// Frames.
    Frame,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Sniffed {
    /// Not enough yet.
    Undecided,
    /// One of ours, after so many bytes of introduction.
    Speaks(Dialect, usize),
    /// A browser has lost its way.
    Http,
    /// A JSON object.
    Json,
    /// A TLS ClientHello.
    Tls,
}

/// Tells the dialect from the first bytes, as soon as they suffice and never later than the
/// eighth.
pub fn sniff(bytes: &[u8]) -> Sniffed {
    let magic = &frame::MAGIC;
    match bytes {
        [] => Sniffed::Undecided,
        [b'{', ..] => Sniffed::Json,
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

/// The last bytes of a connection whose dialect is not served: the reason, in that dialect.
pub fn farewell(sniffed: Sniffed, refusal: &Refusal) -> Vec<u8> {
    match sniffed {
        Sniffed::Http => http::page().into_bytes(),
        Sniffed::Json => {
            let stderr = format!("{}: {}", refusal.code, refusal.text);
            let mut reply = serde_json::json!({
                "id": null, "result": null, "stdout": "", "stderr": stderr, "errorcode": 4,
            })
            .to_string();
            reply.push('\n');
            reply.into_bytes()
        }
        // A fatal alert, handshake_failure (RFC 8446, section 6): what a TLS client understands.
        Sniffed::Tls => vec![0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x28],
        Sniffed::Undecided | Sniffed::Speaks(Dialect::Line, _) => {
            let mut out = Vec::new();
            line::encode(&Event::Goodbye(Some(refusal)), &mut out);
            out
        }
        Sniffed::Speaks(Dialect::Frame, _) => {
            let mut out = Vec::new();
            frame::encode(&Event::Goodbye(Some(refusal)), &mut out);
            out
        }
    }
}

/// Why a dialect is recognised and not served, if it is not.
pub fn unserved(sniffed: Sniffed) -> Option<Refusal> {
    let text = match sniffed {
        Sniffed::Http => "this port does not serve HTTP",
        Sniffed::Json => "this server does not speak JSON yet; use lines, or the client",
        // The server's transport has taken off the TLS that a connection begins with.
        Sniffed::Tls => "there is no TLS within TLS",
        Sniffed::Undecided | Sniffed::Speaks(..) => return None,
    };
    Some(Refusal::new(0, ErrorCode::NotSupported, text))
}

impl Dialect {
    /// Reads the request at the head of `bytes`. `scanned` concerns lines alone: see
    /// [`line::decode`]. `line_max` bounds the body of a frame as it does a line.
    pub fn decode(
        self,
        bytes: &[u8],
        scanned: usize,
        line_max: usize,
    ) -> Result<Option<Item<'_>>, Refusal> {
        match self {
            Dialect::Line => line::decode(bytes, scanned, line_max),
            Dialect::Frame => frame::decode_within(bytes, line_max),
        }
    }

    /// The message at the head of `bytes`, if that is plainly what lies there; the arguments are
    /// those of [`Dialect::decode`].
    #[inline(always)]
    pub fn post(self, bytes: &[u8], scanned: usize, line_max: usize) -> Option<Post<'_>> {
        match self {
            Dialect::Line => line::post(bytes, scanned, line_max),
            Dialect::Frame => frame::post(bytes),
        }
    }

    /// How many bytes of `news` complete the request that `rest` begins; `None` where they do not
    /// suffice, or that cannot be told yet.
    pub fn missing(self, rest: &[u8], news: &[u8]) -> Option<usize> {
        match self {
            Dialect::Line => memchr::memchr(b'\n', news).map(|at| at + 1),
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

    /// Appends the event as this dialect has it.
    pub fn encode(self, event: &Event<'_>, out: &mut Vec<u8>) {
        match self {
            Dialect::Line => line::encode(event, out),
            Dialect::Frame => frame::encode(event, out),
        }
    }
}
