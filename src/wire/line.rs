//! The line dialect: plain lines for people with `nc`.
//!
//! One request a line, LF or CRLF at its end; answers are lines too, but for the bytes of a file
//! and the output of a command, which come exactly as they are. PROTOCOL.md, "Lines".

mod edge;
mod host;

use std::{borrow::Cow, fmt};

use super::{
    Call, ErrorCode, Event, Form, Item, Name, Outcome, Parcel, Post, Proposal, Recipients, Refusal,
    Request, Secret, Text, check,
    error::ErrorCode::*,
    escape::{escape, escape_bytes, is_plain, plain_length},
    event::{Ended, Entry, EntryKind},
    name::NAME_RULE,
    offer,
    verbs::{self, Takes, Verb},
};
use crate::limits::{RECIPIENTS_MAX_BYTES, TEXT_MAX_BYTES};

/// Reads the line at the head of `bytes`; `None` while it has no end yet.
///
/// `scanned` bytes are known to hold no line end, so that a slow line is not searched again and
/// again. A line of more than `line_max` bytes is an error that ends the connection. Every line
/// is an item of its own, empty ones too: they are taken at once and cannot pile up.
pub fn decode(bytes: &[u8], scanned: usize, line_max: usize) -> Result<Option<Item<'_>>, Refusal> {
    let end = memchr::memchr(b'\n', &bytes[scanned..]).map(|found| scanned + found);
    if end.unwrap_or(bytes.len()) > line_max {
        return Err(too_long(line_max));
    }
    let Some(end) = end else { return Ok(None) };
    let line = &bytes[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let request = match other_dialect(line) {
        Some(refusal) => return Err(refusal),
        None if line.trim_ascii().is_empty() => Ok(Request::Nothing),
        None => match parse(line) {
            // What follows cannot be understood.
            Err(refusal) if refusal.code == Protocol => return Err(refusal),
            request => request,
        },
    };
    if let Err(refusal) = &request
        && first_word(line.trim_ascii_start()) == b"upload"
    {
        // Its bytes follow, and must not be taken for requests.
        return Err(refusal.clone());
    }
    Ok(Some(Item { request, consumed: end + 1, label: None }))
}

/// The message at the head of `bytes`, where it is printable ASCII and written as `TEXT|NAME`.
#[inline]
pub fn post(bytes: &[u8], scanned: usize, line_max: usize) -> Option<Post<'_>> {
    if scanned > 0 {
        return None;
    }
    // The first byte that is not plain is the end of such a line: one look tells both.
    let (line, rest) = bytes.split_at(plain_length(bytes));
    let end_bytes = match rest {
        [b'\n', ..] => 1,
        [b'\r', b'\n', ..] => 2,
        _ => return None,
    };
    let consumed = line.len() + end_bytes;
    if consumed > line_max || other_dialect(line).is_some() {
        return None;
    }
    let line = line.trim_ascii_start();
    if verbs::find(first_word(line)).is_some() {
        return None;
    }
    let bar = memchr::memrchr(b'|', line)?;
    let (text, to) = (line[..bar].trim_ascii(), line[bar + 1..].trim_ascii());
    let is_good = (1..=TEXT_MAX_BYTES).contains(&text.len())
        && (1..=RECIPIENTS_MAX_BYTES).contains(&to.len());
    let text = Text::plain_part(text);
    is_good.then_some(Post { tag: 0, to: Recipients(to), text, consumed })
}

/// Appends the event as lines. What has no form in lines (credit, pings) adds nothing.
pub fn encode(event: &Event<'_>, out: &mut Vec<u8>) {
    match event {
        Event::Welcome { name } => put(out, &["welcome ", name.as_str(), "\n"]),
        Event::Message { from, text, .. } => {
            out.extend_from_slice(from.as_bytes());
            out.push(b'|');
            if text.is_plain() {
                out.extend_from_slice(text.as_bytes());
            } else {
                out.extend_from_slice(escape(text.as_str()).as_bytes());
            }
            out.push(b'\n');
        }
        Event::File { name, size, .. } => {
            put(out, &["file ", &size.to_string(), " ", &escape_bytes(name), "\n"]);
        }
        Event::Output { bytes, .. } | Event::Data { bytes, .. } => out.extend_from_slice(bytes),
        Event::Offer { number, from, parcel, .. } => {
            let (number, size) = (number.to_string(), parcel.size.unwrap_or(0).to_string());
            let name = escape_bytes(&parcel.name.0);
            put(out, &["offer ", &number, " ", from.as_str(), " ", &size, " ", &name, "\n"]);
        }
        Event::OfferWithdrawn { number, refusal } => {
            let (code, text) = (refusal.code.as_str(), escape(&refusal.text));
            put(out, &["offer-withdrawn ", &number.to_string(), " ", code, ": ", &text, "\n"]);
        }
        Event::Accepted { by, .. } => put(out, &["accepted ", by.as_str(), "\n"]),
        Event::Entries { entries, .. } => entries.iter().for_each(|entry| put_entry(out, entry)),
        Event::Users { names, .. } => {
            names.iter().for_each(|name| put(out, &[name.as_str(), "\n"]));
        }
        Event::Text { text, .. } => {
            text.split('\n').for_each(|line| put(out, &[&escape(line), "\n"]));
        }
        Event::Object { object, .. } => {
            let json = serde_json::to_string(object).expect("members of JSON are JSON");
            put(out, &[&escape(&json), "\n"]);
        }
        Event::End { outcome, .. } => put_outcome(out, outcome),
        Event::Error(refusal) => put_error(out, refusal),
        Event::Goodbye(Some(refusal)) => put_error(out, refusal),
        Event::Goodbye(None) => put(out, &["goodbye\n"]),
        Event::Delivered { .. } | Event::Credit { .. } | Event::DataEnd { .. } => {}
        Event::UdpPorts { .. } => {}
        Event::Ping { .. } | Event::Pong { .. } => {}
    }
}

fn put(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

fn put_error(out: &mut Vec<u8>, refusal: &Refusal) {
    put(out, &["error ", refusal.code.as_str(), ": ", &escape(&refusal.text), "\n"]);
}

/// When the year 0 begins, in seconds since 1970.
const YEAR_0_SECONDS: i64 = -62_167_219_200;

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    // RFC 3339 has four digits for a year; some file systems go beyond.
    let time = jiff::Timestamp::from_second(entry.modified).ok();
    let time = time.filter(|_| entry.modified >= YEAR_0_SECONDS);
    let time = time.map_or("-".to_owned(), |time| time.to_string());
    let slash = if entry.kind == EntryKind::Folder { "/" } else { "" };
    let (size, name) = (entry.size.to_string(), escape_bytes(&entry.name));
    put(out, &[&size, " ", &time, " ", &name, slash, "\n"]);
}

fn put_outcome(out: &mut Vec<u8>, outcome: &Outcome) {
    let line = match outcome {
        Outcome::Done | Outcome::Sent { .. } => return,
        Outcome::Delivered { .. } => "delivered\n".to_owned(),
        Outcome::Failed(refusal) => return put_error(out, refusal),
        Outcome::Exit { code, .. } => format!("[exit {code}]\n"),
        Outcome::Signal { number, because: None } => format!("[signal {number}]\n"),
        Outcome::Signal { number, because: Some(Ended::Cancelled) } => {
            format!("[signal {number}: cancelled]\n")
        }
        Outcome::Signal { number, because: Some(Ended::TimedOut) } => {
            format!("[signal {number}: timed out]\n")
        }
        Outcome::Signal { number, because: Some(Ended::OutputLimit) } => {
            format!("[signal {number}: too much output]\n")
        }
        Outcome::Counted { count, noun } => format!("[{count} {noun}]\n"),
    };
    out.extend_from_slice(line.as_bytes());
}

fn too_long(line_max: usize) -> Refusal {
    Refusal::new(0, LineTooLong, format!("a line may have {line_max} bytes here"))
}

/// A peer that has begun with lines and goes on in another language is not to be trusted to mean
/// what its lines say: a page that makes a browser post here, for instance.
fn other_dialect(line: &[u8]) -> Option<Refusal> {
    // Most lines are told by their first byte.
    if !matches!(line.first(), Some(b'{' | b'A'..=b'Z' | b'h' | 0x16)) {
        return None;
    }
    let is_json = line.starts_with(b"{\"") && line.ends_with(b"}");
    let is_http = super::http::is_request_line(line)
        || line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"host:"));
    (is_json || is_http || line.starts_with(&[0x16, 3])).then(|| {
        let text = "this connection speaks lines; the first bytes of a connection choose";
        Refusal::new(0, Protocol, text)
    })
}

fn parse(line: &[u8]) -> Result<Request<'_>, Refusal> {
    if let Err(refusal) = check_text(line) {
        return match raw_behind(line)? {
            Some(bytes) => Ok(Request::Skip { bytes, refusal }),
            None => Err(refusal),
        };
    }
    let line = line.trim_ascii_start();
    let word = first_word(line);
    match verbs::find(word) {
        Some(entry)
            if (entry.has_no_bar || lacks_number(entry.verb, &line[word.len()..]))
                && memchr::memchr(b'|', line).is_some() =>
        {
            parse_message(line)
        }
        Some(entry) => {
            let rest = std::str::from_utf8(&line[word.len()..]).expect("it was checked");
            parse_verb(entry, rest.trim_ascii_start())
        }
        None => parse_message(line),
    }
}

/// Whether a verb that goes with a number has none: `send me the plan|bob` is a text.
fn lacks_number(verb: Verb, rest: &[u8]) -> bool {
    let rest = rest.trim_ascii_start();
    let number = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_number = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
    matches!(verb, Verb::Send | Verb::Accept | Verb::Refuse) && !is_number
}

/// The bytes before the first space, or up to the first colon, which belongs to the words of
/// interpreters; of a long word only the beginning, for no verb is long.
fn first_word(line: &[u8]) -> &[u8] {
    let head = &line[..line.len().min(verbs::WORD_MAX_BYTES + 1)];
    match head.iter().position(|byte| matches!(byte, b' ' | b':')) {
        Some(at) if head[at] == b':' => &head[..=at],
        end => &head[..end.unwrap_or(head.len())],
    }
}

fn parse_message(line: &[u8]) -> Result<Request<'_>, Refusal> {
    let Some(bar) = memchr::memrchr(b'|', line) else {
        let text = format!("`TEXT|NAME` sends a text; the commands are {}", verbs::words());
        return Err(Refusal::new(0, UnknownCommand, text));
    };
    let (text, to) = (line[..bar].trim_ascii(), line[bar + 1..].trim_ascii());
    let text = Text::parse(text).expect("it was checked, and a bar parts no character");
    check::message(to, text, format_args!("write `TEXT|NAME`, or `TEXT|*` for everybody else"))
}

fn parse_verb<'a>(entry: &'static verbs::Entry, rest: &'a str) -> Result<Request<'a>, Refusal> {
    let usage = format_args!("write `{}`", entry.usage);
    let bare = rest.trim_ascii_end();
    let call = match entry.takes {
        Takes::Nothing(call) | Takes::Question(call) if bare.is_empty() => call(),
        Takes::Nothing(_) => return Err(takes_nothing(entry)),
        Takes::Question(_) => {
            let usage = entry.usage;
            let text = format!("`{usage}` takes no arguments; a text for somebody is `TEXT|NAME`");
            return Err(Refusal::new(0, BadArguments, text));
        }
        Takes::Text(call) => call(Cow::Borrowed(rest)),
        Takes::Arguments => match entry.verb {
            Verb::User => return parse_user(rest),
            Verb::Msg => {
                let (to, text) = rest.split_once(' ').unwrap_or((rest, ""));
                return check::message(to.as_bytes(), Text::from(text.trim_ascii()), usage);
            }
            Verb::Quit if bare.is_empty() => return Ok(Request::Goodbye),
            Verb::Quit => return Err(takes_nothing(entry)),
            Verb::Send => return parse_send(bare, usage),
            _ => parse_call(entry, rest)?,
        },
    };
    Ok(Request::Call { tag: 0, call })
}

fn takes_nothing(entry: &verbs::Entry) -> Refusal {
    let text = format!("`{}` takes no arguments; write `{}`", entry.word, entry.usage);
    Refusal::new(0, BadArguments, text)
}

fn parse_call<'a>(entry: &'static verbs::Entry, rest: &'a str) -> Result<Call<'a>, Refusal> {
    let usage = format_args!("write `{}`", entry.usage);
    let bare = rest.trim_ascii_end();
    Ok(match entry.verb {
        Verb::Download => Call::Download { path: check::path(bare.as_bytes())? },
        Verb::Upload => parse_upload(bare)?.ok_or_else(|| {
            let text = format!("no size is told, so nobody knows where the bytes end; {usage}");
            Refusal::new(0, BadArguments, text)
        })?,
        Verb::Run if bare.is_empty() => {
            return Err(Refusal::new(0, BadArguments, format!("no command is named; {usage}")));
        }
        Verb::Run => {
            let command = check::command(Cow::Borrowed(rest))?;
            Call::Run { command, stdin: false, timeout_ms: 0 }
        }
        Verb::Ls => Call::List { path: check::folder(bare.as_bytes())? },
        Verb::Accept => {
            let offer = offer_number(bare, usage)?;
            Call::Accept { offer, form: Form::Raw, introduction: None }
        }
        Verb::Refuse => {
            let (number, reason) = rest.split_once(' ').unwrap_or((bare, ""));
            let offer = offer_number(number, usage)?;
            Call::Refuse { offer, reason: offer::check_reason(0, reason)? }
        }
        Verb::Ping | Verb::Python | Verb::Linux | Verb::Dos | Verb::PowerShell => {
            host::parse(entry, bare)?
        }
        _ => Call::Edge(edge::parse(entry, rest)?),
    })
}

/// A size in plain decimals and a name; `None` where the size is none.
///
/// # Errors
/// See [`raw_size`].
fn parse_upload(rest: &str) -> Result<Option<Call<'_>>, Refusal> {
    let (size, name) = rest.split_once(' ').unwrap_or((rest, ""));
    let Some(size) = raw_size(size)? else { return Ok(None) };
    let path = check::path(name.trim_ascii_start().as_bytes());
    Ok(Some(Call::Upload { path, size }))
}

fn parse_user(rest: &str) -> Result<Request<'_>, Refusal> {
    let (name, password) = match rest.split_once(' ') {
        Some((name, password)) => {
            (name, Some(password).filter(|it| !it.is_empty()).map(Secret::from))
        }
        None => (rest, None),
    };
    let name = Name::parse(name).ok_or_else(|| Refusal::new(0, BadName, NAME_RULE))?;
    Ok(Request::Login { name, password })
}

/// `send SIZE NAME USER`, the name with spaces if it has some.
///
/// Where the size can be read, so many bytes follow, whatever else is wrong: they must not be
/// taken for requests. Where it cannot, this is no request with bytes behind it: somebody writes
/// to somebody, perhaps.
fn parse_send<'a>(rest: &str, usage: fmt::Arguments<'_>) -> Result<Request<'a>, Refusal> {
    let wrong = |what: &str| Refusal::new(0, BadArguments, format!("{what}; {usage}"));
    let (size, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let size = raw_size(size)?.ok_or_else(|| wrong("the size is no number"))?;
    let proposal = match rest.trim_ascii().rsplit_once(' ') {
        None => Err(wrong("somebody to send it to is not named")),
        Some((name, to)) => match Name::parse(to) {
            None => Err(Refusal::new(0, BadName, NAME_RULE)),
            Some(to) => {
                let parcel = Parcel::file(name.trim_ascii_end().as_bytes(), size);
                Proposal { to, parcel, data: None }.check(0)
            }
        },
    };
    Ok(match proposal {
        Ok(proposal) => Request::Call { tag: 0, call: Call::Send(Box::new(proposal)) },
        Err(refusal) => Request::Skip { bytes: size, refusal },
    })
}

/// How many raw bytes follow a line in which something else is wrong.
fn raw_behind(line: &[u8]) -> Result<Option<u64>, Refusal> {
    let line = line.trim_ascii_start();
    let word = first_word(line);
    let verb = verbs::find(word).map(|entry| entry.verb);
    if !matches!(verb, Some(Verb::Send | Verb::Upload)) {
        return Ok(None);
    }
    let rest = line[word.len()..].trim_ascii_start();
    let size = rest.split(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(size).map_or(Ok(None), raw_size)
}

/// How many raw bytes follow a line that says so; `None` where the word is no number.
///
/// # Errors
/// A number beyond all sizes: what follows cannot be told from requests, so the session must end.
fn raw_size(word: &str) -> Result<Option<u64>, Refusal> {
    if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    let size = word.parse().ok().filter(|size| *size <= i64::MAX as u64);
    let too_much = || Refusal::new(0, Protocol, "no file is so large; a size has 63 bits");
    size.ok_or_else(too_much).map(Some)
}

fn offer_number(word: &str, usage: fmt::Arguments<'_>) -> Result<u32, Refusal> {
    let wrong = || Refusal::new(0, BadArguments, format!("the number of an offer is due; {usage}"));
    word.parse().map_err(|_| wrong())
}

/// Text as lines allow it: UTF-8 without NUL, lone CR, byte order mark and the two Unicode line
/// separators, any of which would mean one thing here and another where it is shown.
fn check_text(line: &[u8]) -> Result<&str, Refusal> {
    let bad = |what: &str, at: usize| {
        let text = format!("{what} at byte {} of the line; lines are UTF-8 text", at + 1);
        Refusal::new(0, ErrorCode::BadText, text)
    };
    let text = std::str::from_utf8(line).map_err(|error| bad("no UTF-8", error.valid_up_to()))?;
    if is_plain(line) {
        return Ok(text);
    }
    let forbidden = |char: char| matches!(char, '\0' | '\r' | '\u{feff}' | '\u{2028}' | '\u{2029}');
    match text.char_indices().find(|(_, char)| forbidden(*char)) {
        None => Ok(text),
        Some((at, '\0')) => Err(bad("a NUL", at)),
        Some((at, '\r')) => Err(bad("a CR without LF", at)),
        Some((at, '\u{feff}')) => Err(bad("a byte order mark", at)),
        Some((at, _)) => Err(bad("a line separator", at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_beyond_four_digits_of_a_year_are_no_other_times() {
        for (modified, time) in [
            (0, "1970-01-01T00:00:00Z"),
            (YEAR_0_SECONDS, "0000-01-01T00:00:00Z"),
            (YEAR_0_SECONDS - 1, "-"),
            (253_402_300_800, "-"),
            (i64::MAX, "-"),
            (i64::MIN, "-"),
        ] {
            let entry = Entry { name: b"a".to_vec(), kind: EntryKind::File, size: 5, modified };
            let mut out = Vec::new();
            put_entry(&mut out, &entry);
            assert_eq!(String::from_utf8_lossy(&out), format!("5 {time} a\n"));
        }
    }
}
