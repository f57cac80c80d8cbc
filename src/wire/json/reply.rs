//! The one object that answers a request: what belongs to it is collected, then written.
//!
//! ```text
//!   {"id": I, "result": R, "stdout": S, "stderr": S, "errorcode": N, further members} LF
//! ```
//!
//! A large one is written a portion at a time, as the connection takes it.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{put_number, put_string, put_value, syntax};
use crate::wire::{
    Blob, ErrorCode, Event, Outcome, Refusal, Stream,
    error::ErrorCode::Cancelled,
    escape::{is_harmful, spell_json},
    event::Ended,
};

/// Exit statuses of a shell that could not execute a command, or did not find it (POSIX, Shell
/// Command Language, 2.8.2).
const SHELL_FAILURES: [u8; 2] = [126, 127];
/// How the shell begins what it says itself: with the name by which it was started.
const SHELL_PREFIX: &[u8] = b"/bin/sh: ";

/// The number by which a reply says whether the request was good; see PROTOCOL.md.
pub mod errorcode {
    #![allow(missing_docs)]
    pub const NONE: u8 = 0;
    pub const PARSE_ERROR: u8 = 1;
    pub const INVALID_REQUEST: u8 = 2;
    pub const INVALID_COMMAND: u8 = 3;
    pub const INTERNAL_ERROR: u8 = 4;
}

/// The answer to one request, while it is collected and while it is written.
#[derive(Debug, Default)]
pub struct Reply {
    /// As the request had it: a JSON scalar.
    id: String,
    result: Option<i32>,
    stdout: Part,
    stderr: Part,
    errorcode: u8,
    /// Further members as they are written, each behind a comma.
    members: Vec<u8>,
    /// What the last of the members still waits for.
    open: Open,
    /// Facts so far, and how many there are.
    objects: (Vec<u8>, usize),
    /// The content of a file, where a file was announced.
    content: Content,
    faults: Vec<Refusal>,
    /// Why the server has ended the command.
    because: Option<Ended>,
    truncated: bool,
    /// How far it is written.
    stage: Stage,
    at: usize,
}

/// Bytes that are written as [`Blob`] writes them.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    /// Whether they are UTF-8, once that was asked.
    is_text: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Open {
    #[default]
    Nothing,
    Entries,
    Users,
    UdpPorts,
    Text,
}

#[derive(Debug, Default)]
enum Content {
    #[default]
    None,
    /// All of it stands in the reply.
    Collected(Part),
    /// It goes ahead of the reply in objects of its own; so much of it has gone.
    Ahead(u64),
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Stage {
    #[default]
    Head,
    Stdout,
    Middle,
    Stderr,
    Members,
    Content,
    Tail,
}

impl Reply {
    /// Makes it the reply to another request, with this id, and keeps its memory.
    pub fn begin(&mut self, id: &str) {
        let Reply { id: own, stdout, stderr, members, objects, faults, .. } = self;
        own.clear();
        own.push_str(id);
        for bytes in [&mut stdout.bytes, &mut stderr.bytes, members, &mut objects.0] {
            bytes.clear();
        }
        objects.1 = 0;
        faults.clear();
        (self.result, self.errorcode, self.because, self.truncated) = (None, 0, None, false);
        (self.open, self.stage, self.at) = (Open::Nothing, Stage::Head, 0);
        self.content = Content::None;
    }

    /// The id of the request, as it was written.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Bytes that are held for it, its id not counted.
    pub fn held_bytes(&self) -> usize {
        let content = match &self.content {
            Content::Collected(content) => content.bytes.len(),
            Content::None | Content::Ahead(_) => 0,
        };
        let outputs = self.stdout.bytes.len() + self.stderr.bytes.len() + content;
        outputs + self.members.len() + self.objects.0.len()
    }

    /// Whether the content of its file goes ahead of it.
    pub fn goes_ahead(&self) -> bool {
        matches!(self.content, Content::Ahead(_))
    }

    /// Keeps what `event` says to this request. [`Event::End`] is for [`Reply::finish`].
    pub fn take_in(&mut self, event: &Event<'_>) {
        match event {
            Event::Output { stream, bytes, .. } => {
                let part = match (&mut self.content, stream) {
                    (Content::Collected(content), _) => content,
                    (_, Stream::Stdout) => &mut self.stdout,
                    (_, Stream::Stderr) => &mut self.stderr,
                };
                part.bytes.extend_from_slice(bytes);
            }
            Event::Text { text, .. } => {
                match self.open(Open::Text) {
                    true => self.members.extend_from_slice(b",\"text\":\""),
                    // The line end that an event leaves out.
                    false => self.members.extend_from_slice(b"\\n"),
                }
                put_escaped(text.as_bytes(), &mut self.members);
            }
            Event::Entries { entries, .. } => entries.iter().for_each(|entry| {
                self.begin_item(Open::Entries, b",\"entries\":[");
                put_value(entry, &mut self.members);
            }),
            Event::Users { names, .. } => names.iter().for_each(|name| {
                self.begin_item(Open::Users, b",\"users\":[");
                put_string(name.as_str(), &mut self.members);
            }),
            Event::UdpPorts { ports, .. } => ports.iter().for_each(|port| {
                self.begin_item(Open::UdpPorts, b",\"udp_ports\":[");
                put_value(port, &mut self.members);
            }),
            Event::Object { object, .. } => {
                let (objects, count) = &mut self.objects;
                if *count > 0 {
                    objects.push(b',');
                }
                *count += 1;
                put_value(object, objects);
            }
            Event::Welcome { name } => {
                self.put_member("user", |out| put_string(name.as_str(), out));
            }
            Event::Error(refusal) => self.fail((*refusal).clone()),
            _ => {}
        }
    }

    /// Begins with a file, whose content stands in the reply where it has at most `most` bytes.
    pub fn begin_file(&mut self, name: &[u8], size: u64, modified: i64, most: u64) {
        self.put_member("name", |out| put_value(&Blob::borrowed(name), out));
        self.put_member("size", |out| put_number(size, out));
        self.put_member("modified", |out| put_value(&modified, out));
        self.content = match size <= most {
            true => Content::Collected(Part::default()),
            false => Content::Ahead(0),
        };
    }

    /// Writes a part of the file that goes ahead of the reply, as an object of its own.
    pub fn put_ahead(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Content::Ahead(offset) = &mut self.content else {
            unreachable!("the caller has looked")
        };
        out.extend_from_slice(b"{\"event\":\"content\",\"id\":");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b",\"offset\":");
        put_number(*offset, out);
        out.extend_from_slice(b",\"content\":{\"base64\":\"");
        put_base64(bytes, out);
        out.extend_from_slice(b"\"}}\n");
        *offset += bytes.len() as u64;
    }

    /// Adds a number of its own to the reply.
    pub fn put_count(&mut self, name: &str, count: u64) {
        self.put_member(name, |out| put_number(count, out));
    }

    /// Something about the request was wrong; the first fault counts.
    pub fn fail(&mut self, refusal: Refusal) {
        self.faults.push(refusal);
    }

    /// What came beyond the bound is dropped, and the reply says so.
    pub fn truncate(&mut self) {
        self.truncated = true;
    }

    /// Whether something of it was dropped.
    pub fn is_truncated(&self) -> bool {
        self.truncated
    }

    /// The request is done; `because` says why the server has ended its command, where it has.
    pub fn finish(&mut self, outcome: &Outcome, because: Option<Ended>) {
        self.open(Open::Nothing);
        self.because = because;
        match outcome {
            Outcome::Done => {}
            Outcome::Sent { hash } => {
                let hash = blake3::Hash::from(*hash).to_hex();
                self.put_member("hash", |out| put_string(&hash, out));
            }
            Outcome::Delivered { by } => self.put_member("by", |out| put_value(by, out)),
            Outcome::Exit { code, directory } => {
                self.result = Some(i32::from(*code));
                if let Some(directory) = directory {
                    self.put_member("directory", |out| put_value(&Blob::borrowed(directory), out));
                }
                if SHELL_FAILURES.contains(code) && says_shell(&self.stderr.bytes) {
                    self.errorcode = errorcode::INVALID_COMMAND;
                }
            }
            Outcome::Signal { number, .. } => {
                self.result = Some(128 + number);
                self.put_member("signal", |out| put_value(number, out));
            }
            Outcome::Counted { count, noun } => {
                // A list of nothing is a list, unless an object tells it.
                if self.members.is_empty() && self.objects.1 == 0 {
                    self.put_member(noun, |out| out.extend_from_slice(b"[]"));
                }
                self.put_count("count", *count);
            }
            // That it was cancelled is how it was cut off.
            Outcome::Failed(refusal) if self.truncated && refusal.code == Cancelled => {}
            Outcome::Failed(refusal) => {
                // A part of a file is of no use to anybody.
                self.content = Content::None;
                self.fail(refusal.clone());
            }
        }
        self.tell_ending();
        self.tell_faults();
        for part in [&mut self.stdout, &mut self.stderr] {
            part.look();
        }
        if let Content::Collected(content) = &mut self.content {
            content.look();
        }
        if self.objects.1 > 0 {
            let (objects, count) = std::mem::take(&mut self.objects);
            self.put_member(if count == 1 { "object" } else { "objects" }, |out| {
                let (begin, end) = if count == 1 { ("", "") } else { ("[", "]") };
                out.extend_from_slice(begin.as_bytes());
                out.extend_from_slice(&objects);
                out.extend_from_slice(end.as_bytes());
            });
        }
    }

    fn tell_ending(&mut self) {
        if self.truncated {
            self.put_member("truncated", |out| out.extend_from_slice(b"true"));
            self.errorcode = errorcode::INTERNAL_ERROR;
            cut_character(&mut self.stdout.bytes);
            cut_character(&mut self.stderr.bytes);
        }
        if let Some(because) = self.because {
            self.put_member("because", |out| put_value(&because, out));
            if because != Ended::Cancelled {
                self.errorcode = errorcode::INTERNAL_ERROR;
            }
        }
    }

    fn tell_faults(&mut self) {
        let faults = std::mem::take(&mut self.faults);
        let Some(first) = faults.first() else { return };
        self.errorcode = first.code.errorcode();
        self.put_member("error", |out| put_error(first, out));
        if faults.len() > 1 {
            self.put_member("errors", |out| {
                for (at, refusal) in faults.iter().enumerate() {
                    out.push(if at == 0 { b'[' } else { b',' });
                    put_error(refusal, out);
                }
                out.push(b']');
            });
        }
    }

    /// Closes what the last member still waits for; true where `next` is begun anew.
    fn open(&mut self, next: Open) -> bool {
        if self.open == next {
            return false;
        }
        match self.open {
            Open::Nothing => {}
            Open::Entries | Open::Users | Open::UdpPorts => self.members.push(b']'),
            Open::Text => self.members.push(b'"'),
        }
        self.open = next;
        true
    }

    fn begin_item(&mut self, list: Open, begin: &[u8]) {
        match self.open(list) {
            true => self.members.extend_from_slice(begin),
            false => self.members.push(b','),
        }
    }

    fn put_member(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) {
        self.open(Open::Nothing);
        self.members.push(b',');
        put_string(name, &mut self.members);
        self.members.push(b':');
        value(&mut self.members);
    }

    /// Writes the next portion, of about `most` bytes of what it holds; true where that was the
    /// end. Each byte becomes six at most.
    pub fn put(&mut self, most: usize, out: &mut Vec<u8>) -> bool {
        let mut left = most.max(1);
        loop {
            let used = match self.stage {
                _ if left == 0 => return false,
                Stage::Head => {
                    self.put_head(out);
                    0
                }
                Stage::Stdout => self.stdout.put(&mut self.at, left, out),
                Stage::Middle => {
                    out.extend_from_slice(b",\"stderr\":");
                    0
                }
                Stage::Stderr => self.stderr.put(&mut self.at, left, out),
                Stage::Members => self.put_members(left, out),
                Stage::Content => match &self.content {
                    Content::Collected(content) => content.put(&mut self.at, left, out),
                    Content::None | Content::Ahead(_) => 0,
                },
                Stage::Tail => {
                    out.extend_from_slice(b"}\n");
                    return true;
                }
            };
            if self.at > 0 {
                return false;
            }
            left = left.saturating_sub(used);
            self.stage = self.stage.next();
        }
    }

    fn put_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(b",\"result\":");
        match self.result {
            None => out.extend_from_slice(b"null"),
            Some(result) => put_number(result as u64, out),
        }
        out.extend_from_slice(b",\"stdout\":");
    }

    fn put_members(&mut self, most: usize, out: &mut Vec<u8>) -> usize {
        if self.at == 0 {
            out.extend_from_slice(b",\"errorcode\":");
            put_number(u64::from(self.errorcode), out);
        }
        let rest = &self.members[self.at..];
        let used = rest.len().min(most);
        out.extend_from_slice(&rest[..used]);
        self.at += used;
        if self.at == self.members.len() {
            self.at = 0;
            if let Content::Collected(_) = self.content {
                out.extend_from_slice(b",\"content\":");
            }
        }
        used
    }
}

impl Stage {
    fn next(self) -> Stage {
        match self {
            Stage::Head => Stage::Stdout,
            Stage::Stdout => Stage::Middle,
            Stage::Middle => Stage::Stderr,
            Stage::Stderr => Stage::Members,
            Stage::Members => Stage::Content,
            Stage::Content | Stage::Tail => Stage::Tail,
        }
    }
}

impl Part {
    /// Tells how it will be written.
    fn look(&mut self) {
        self.is_text = std::str::from_utf8(&self.bytes).is_ok();
    }

    /// Writes up to `most` bytes of it from `at` on, which is 0 again at its end.
    fn put(&self, at: &mut usize, most: usize, out: &mut Vec<u8>) -> usize {
        let rest = &self.bytes[*at..];
        let used = match rest.len() <= most {
            true => rest.len(),
            // Base64 goes by three bytes.
            false => (most - most % 3).max(3).min(rest.len()),
        };
        // Text goes by characters.
        let is_within =
            |at: usize| self.is_text && rest.get(at).is_some_and(|it| it & 0xc0 == 0x80);
        let used = (used..).find(|at| !is_within(*at)).expect("there is an end");
        let is_begin = *at == 0;
        *at += used;
        let is_end = *at == self.bytes.len();
        match self.is_text {
            true => {
                out.extend_from_slice(if is_begin { b"\"" } else { b"" });
                put_escaped(&rest[..used], out);
                out.extend_from_slice(if is_end { b"\"" } else { b"" });
            }
            false => {
                out.extend_from_slice(if is_begin { b"{\"base64\":\"" } else { b"" });
                put_base64(&rest[..used], out);
                out.extend_from_slice(if is_end { b"\"}" } else { b"" });
            }
        }
        if is_end {
            *at = 0;
        }
        used
    }
}

/// The inside of a string: quotes, backslashes and control characters escaped, and what else could
/// deceive those who look at it on a terminal; the rest as it is. The bytes are whole characters.
pub(super) fn put_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    loop {
        let plain = syntax::plain_length(rest);
        out.extend_from_slice(&rest[..plain]);
        let Some(byte) = rest.get(plain) else { return };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                let digit = |number: u8| b"0123456789abcdef"[usize::from(number)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            0x7f => out.extend_from_slice(b"\\u007f"),
            _ => {
                rest = &rest[plain..];
                let ascii = rest.iter().position(u8::is_ascii).unwrap_or(rest.len());
                put_foreign(&rest[..ascii], out);
                rest = &rest[ascii..];
                continue;
            }
        }
        rest = &rest[plain + 1..];
    }
}

/// Characters beyond ASCII. Joiners are spelled out too: what is read is the same.
fn put_foreign(bytes: &[u8], out: &mut Vec<u8>) {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().any(is_harmful) => {
            let mut safe = String::with_capacity(text.len() + 16);
            for char in text.chars() {
                match is_harmful(char) {
                    true => spell_json(char, &mut safe),
                    false => safe.push(char),
                }
            }
            out.extend_from_slice(safe.as_bytes());
        }
        _ => out.extend_from_slice(bytes),
    }
}

fn put_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let length = base64::encoded_len(bytes.len(), true).expect("portions are small");
    let start = out.len();
    out.resize(start + length, 0);
    STANDARD.encode_slice(bytes, &mut out[start..]).expect("the room is for it");
}

pub(super) fn put_error(refusal: &Refusal, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"code\":\"");
    out.extend_from_slice(refusal.code.as_str().as_bytes());
    out.extend_from_slice(b"\",\"text\":");
    put_string(&refusal.text, out);
    out.push(b'}');
}

/// A truncated text is still a text: half a character at its end is dropped.
fn cut_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
}

/// Whether the last line was written by the shell itself. Together with its exit status this tells
/// a command that was not found, or could not be executed, from one that ends with that status.
fn says_shell(stderr: &[u8]) -> bool {
    let last = stderr.trim_ascii_end().rsplit(|byte| *byte == b'\n').next();
    last.is_some_and(|line| line.starts_with(SHELL_PREFIX))
}

impl ErrorCode {
    /// The `errorcode` of a reply that fails with it.
    pub fn errorcode(self) -> u8 {
        use ErrorCode::*;
        match self {
            BadJson | Protocol => errorcode::PARSE_ERROR,
            NoInterpreter => errorcode::INVALID_COMMAND,
            SystemError | Internal | CannotStart | Busy | TimedOut | Cancelled | FileChanged
            | NotVerified | NoSpace | QuotaExceeded | ReadOnly | ShuttingDown | Reset
            | SlowConsumer => errorcode::INTERNAL_ERROR,
            _ => errorcode::INVALID_REQUEST,
        }
    }
}
