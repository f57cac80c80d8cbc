//! Runs the vectors of PROTOCOL.md against the codecs, in both directions, so that the document
//! cannot drift from the code.

mod common;

use std::{collections::BTreeSet, fs};

use common::{encode_request, encode_said, hex};
use sixfour::{
    limits::LINE_MAX_BYTES,
    transfer::message::{self, Decoder, Side},
    wire::{
        Announcement, Call, Contact, ErrorCode, Event, Introduction, Name, Outcome, Refusal,
        Request,
        dialect::{Sniffed, farewell, sniff, unserved},
        event::{Ended, Entry, EntryKind, Object},
        frame::{self, client, server},
        line,
    },
};

/// One fenced block that is marked `vector`.
struct Vector {
    /// The line of the document that opens it.
    number: usize,
    /// The word behind `vector`.
    side: String,
    /// The last line of text before it: the body, where that is JSON.
    before: String,
    lines: Vec<String>,
}

impl Vector {
    /// The hexadecimal digits of the block, spaces and line ends dropped.
    fn bytes(&self) -> Vec<u8> {
        let digits: String =
            self.lines.iter().filter(|line| !line.starts_with("= ")).cloned().collect();
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b' ').collect();
        let byte = |pair: &[u8]| {
            let pair = std::str::from_utf8(pair).expect("digits are ASCII");
            u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("line {}: {pair}", self.number))
        };
        digits.chunks(2).map(byte).collect()
    }

    /// Checks that the text above the block shows its body, where that is JSON.
    fn check_shown(&self) {
        let body = self.bytes().split_off(frame::HEADER_BYTES);
        if body.first() == Some(&b'{') {
            let body = String::from_utf8(body).expect("JSON is UTF-8");
            assert_eq!(self.before, format!("`{body}`"), "PROTOCOL.md:{}", self.number);
        }
    }

    /// What the block says that the bytes mean.
    fn meaning(&self) -> &str {
        let meaning = self.lines.last().and_then(|line| line.strip_prefix("= "));
        meaning.unwrap_or_else(|| panic!("line {}: the block ends without `= `", self.number))
    }
}

fn vectors(side: &str) -> Vec<Vector> {
    let text = fs::read_to_string("PROTOCOL.md").expect("PROTOCOL.md is there");
    let mut found: Vec<Vector> = Vec::new();
    let (mut open, mut before) = (false, "");
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        match line.strip_prefix("```") {
            Some(mark) if !open && mark.starts_with("vector ") => {
                let side = mark["vector ".len()..].to_string();
                let before = before.to_string();
                found.push(Vector { number, side, before, lines: Vec::new() });
                open = true;
            }
            Some("") if open => open = false,
            _ if open => found.last_mut().expect("one is open").lines.push(line.to_string()),
            _ if line.is_empty() => {}
            _ => before = line,
        }
    }
    found.retain(|vector| vector.side == side);
    assert!(!found.is_empty(), "PROTOCOL.md has no vectors for {side}");
    found
}

#[test]
fn frames_of_clients_are_what_the_document_says() {
    let mut kinds = BTreeSet::new();
    let mut calls = BTreeSet::new();
    for vector in vectors("client") {
        let bytes = vector.bytes();
        let place = format!("PROTOCOL.md:{}", vector.number);
        vector.check_shown();
        let number = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        let item = frame::decode(&bytes).expect(&place).expect(&place);
        let request = item.request.expect(&place);
        assert_eq!(format!("{request:?}"), vector.meaning(), "{place}");
        assert_eq!(item.consumed, bytes.len(), "{place}");
        assert_eq!(hex(&encode_request(&request, number)), hex(&bytes), "{place}");
        kinds.insert(bytes[0]);
        if let Request::Call { call, .. } = &request {
            calls.insert(op(call));
        }
    }
    assert!(kinds.into_iter().eq(client::HELLO..=client::GOODBYE), "a kind has no vector");
    assert_eq!(calls.len(), 12 + 15 + 7, "an op has no vector: {calls:?}");
}

#[test]
fn messages_of_transfers_are_what_the_document_says() {
    for vector in vectors("transfer") {
        let (bytes, place) = (vector.bytes(), format!("PROTOCOL.md:{}", vector.number));
        let mut rest = &bytes[..];
        let message = Decoder::default().next(&mut rest).expect(&place).expect(&place);
        assert_eq!(format!("{message:?}"), vector.meaning(), "{place}");
        let mut again = Vec::new();
        message::put(&mut again, Side::Sender, &message);
        assert_eq!(hex(&again), hex(&bytes), "{place}");
    }
}

fn op(call: &Call<'_>) -> String {
    match call {
        Call::Download { .. } => "download".into(),
        Call::Fetch { .. } => "fetch".into(),
        Call::Store { .. } => "store".into(),
        Call::Upload { .. } => panic!("frames have `store`"),
        Call::Run { .. } => "run".into(),
        Call::List { .. } => "ls".into(),
        Call::Who => "who".into(),
        Call::Announce { .. } => "announce".into(),
        Call::Echo { .. } => "echo".into(),
        Call::Help => "help".into(),
        // Each has its own name there.
        Call::Host(call) => format!("{call:?}"),
        Call::Edge(call) => format!("{call:?}"),
        Call::Send(_) => "send".into(),
        Call::Accept { .. } => "accept".into(),
        Call::Refuse { .. } => "refuse".into(),
        Call::Refused(refusal) => panic!("a vector is no request: {refusal:?}"),
    }
}

#[test]
fn frames_of_servers_are_what_the_document_says() {
    let mut kinds = BTreeSet::new();
    for vector in vectors("server") {
        let bytes = vector.bytes();
        let place = format!("PROTOCOL.md:{}", vector.number);
        vector.check_shown();
        let (said, consumed) = frame::decode_said(&bytes).expect(&place).expect(&place);
        assert_eq!(format!("{said:?}"), vector.meaning(), "{place}");
        assert_eq!(consumed, bytes.len(), "{place}");
        assert_eq!(hex(&encode_said(&said)), hex(&bytes), "{place}");
        kinds.insert(bytes[0]);
    }
    assert!(kinds.into_iter().eq(server::WELCOME..=server::ERROR_DATA), "a kind has no vector");
    let all: String = vectors("server").iter().map(|vector| vector.meaning().to_string()).collect();
    let words = "File Entries Users Text Object Done Sent Exit Signal Counted Failed Client \
        Connection Offer OfferWithdrawn Accepted DataEnd Delivered";
    for word in words.split_ascii_whitespace() {
        assert!(all.contains(word), "no vector shows {word}");
    }
}

#[test]
fn lines_are_read_as_the_document_says() {
    for vector in vectors("line") {
        for row in &vector.lines {
            let (input, meaning) = row.split_once(" = ").expect("a row is `LINE = MEANING`");
            let end = input.rfind("\\n").expect("a line ends with \\n") + 2;
            let bytes = input[..end].replace("\\r", "\r").replace("\\n", "\n");
            let read = match line::decode(bytes.as_bytes(), 0, LINE_MAX_BYTES) {
                Ok(item) => match item.expect("a whole line").request {
                    Ok(request) => format!("{request:?}"),
                    Err(refusal) => format!("error {}", refusal.code),
                },
                Err(refusal) => format!("end {}", refusal.code),
            };
            assert_eq!(read, meaning, "PROTOCOL.md:{}: {row}", vector.number);
        }
    }
}

#[test]
fn answers_in_lines_are_those_of_the_document() {
    let name = |text: &str| Name::parse(text).expect("a good name");
    let entry = |name: &[u8], kind, size| {
        let entries = vec![Entry { name: name.to_vec(), kind, size, modified: 1_700_000_000 }];
        said(&Event::Entries { tag: 0, entries: &entries })
    };
    let file = Event::File { tag: 0, name: b"readme.txt", size: 1234, modified: 0 };
    let end = |outcome: Outcome| said(&Event::End { tag: 0, outcome: &outcome });
    let signal = |number, because| end(Outcome::Signal { number, because });
    let message =
        |text: &str| said(&Event::Message { from: &name("alice"), text: text.into(), serial: 0 });
    let nobody = Refusal::new(0, ErrorCode::NoSuchUser, "nobody named bob is here");
    let answers = [
        said(&Event::Welcome { name: name("alice") }),
        message("hello there"),
        message("two\nlines, \x1b[31m and \u{202e} are escaped"),
        said(&file),
        entry(b"readme.txt", EntryKind::File, 1234),
        entry(b"docs", EntryKind::Folder, 0),
        end(Outcome::Counted { count: 2, noun: "entries" }),
        end(Outcome::Exit { code: 7, directory: None }),
        signal(9, None),
        signal(15, Some(Ended::Cancelled)),
        signal(9, Some(Ended::TimedOut)),
        said(&Event::Error(&nobody)),
        said(&Event::Goodbye(None)),
    ];
    let documented = vectors("answer").remove(0).lines.join("\n") + "\n";
    assert_eq!(answers.concat(), documented);
}

fn said(event: &Event<'_>) -> String {
    let mut out = Vec::new();
    line::encode(event, &mut out);
    String::from_utf8(out).expect("these answers are text")
}

#[test]
fn dialects_that_are_not_served_get_the_answer_of_the_document() {
    for vector in vectors("farewell") {
        let sniffed = sniff(&vector.bytes());
        let refusal = unserved(sniffed).expect("the document names only unserved ones");
        let answer = farewell(sniffed, &refusal);
        let text = String::from_utf8(answer).expect("these answers happen to be UTF-8");
        assert_eq!(format!("{text:?}"), vector.meaning());
    }
    let page = farewell(Sniffed::Http, &Refusal::new(0, ErrorCode::NotSupported, ""));
    assert!(page.starts_with(b"HTTP/1.1 421 "));
}

#[test]
fn contacts_are_what_the_document_says() {
    for json in vectors("contact").remove(0).lines {
        let object: Object = serde_json::from_str(&json).expect("an object");
        let contact = Contact::of_object(&object).expect("a contact");
        assert_eq!(serde_json::to_string(&contact).expect("it is JSON"), json);
        assert!(contact.direct.is_some() && contact.token.is_some());
    }
}

#[test]
fn introductions_are_what_the_document_says() {
    let lines = vectors("introduction").remove(0).lines;
    let mut seen = Vec::new();
    for pair in lines.chunks(2) {
        let (json, kind) = (&pair[0], pair[1].as_str());
        let again = match kind {
            "= Announcement" => {
                let read: Announcement = serde_json::from_str(json).expect(json);
                serde_json::to_string(&read)
            }
            "= Introduction" => {
                let read: Introduction = serde_json::from_str(json).expect(json);
                serde_json::to_string(&read)
            }
            other => panic!("{other} is neither"),
        };
        assert_eq!(&again.expect("it is JSON"), json);
        seen.push(kind);
    }
    assert_eq!(seen, ["= Announcement", "= Introduction"]);
}
