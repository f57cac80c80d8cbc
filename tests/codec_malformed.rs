//! What codecs answer to bytes that no good client sends: a named error and nothing worse.

mod common;

use common::{decode, read_in_pieces};
use sixfour::{
    limits::{
        CHUNK_MAX_BYTES, COMMAND_MAX_BYTES, LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES,
        RECIPIENTS_MAX_BYTES, REQUEST_BODY_MAX_BYTES, TEXT_MAX_BYTES,
    },
    wire::{
        Call, Dialect, ErrorCode,
        ErrorCode::*,
        Event, Name, Outcome, Refusal, Request,
        dialect::{Sniffed, farewell, unserved},
        event::{Entry, EntryKind},
        frame::{self, client, server},
        line,
    },
};

/// What became of one piece of input.
#[derive(Debug, PartialEq)]
enum Fate {
    /// A request.
    Good,
    /// An answer with this error; the connection lives on.
    Error(ErrorCode),
    /// The end of the connection, for this reason.
    End(ErrorCode),
    /// More is awaited.
    Open,
}
use Fate::*;

fn fate(dialect: Dialect, bytes: &[u8], line_max: usize) -> (Fate, String) {
    match decode(dialect, bytes, line_max, &mut Vec::new()) {
        Ok(None) => (Open, String::new()),
        Ok(Some(item)) => {
            assert_eq!(item.consumed, bytes.len(), "all of it is one request");
            match item.request {
                Ok(Request::Call { tag, call: Call::Refused(refusal) }) => {
                    assert_eq!(refusal.tag, tag);
                    (Error(refusal.code), refusal.text.into_owned())
                }
                Ok(request) => (Good, format!("{request:?}")),
                Err(refusal) => (Error(refusal.code), refusal.text.into_owned()),
            }
        }
        Err(refusal) => (End(refusal.code), refusal.text.into_owned()),
    }
}

fn line(text: &[u8]) -> (Fate, String) {
    fate(Dialect::Line, &[text, b"\n"].concat(), LINE_MAX_BYTES)
}

fn framed(kind: u8, number: u32, body: &[u8]) -> Fate {
    let mut bytes = Vec::new();
    frame::put(&mut bytes, kind, number, body);
    fate(Dialect::Frame, &bytes, REQUEST_BODY_MAX_BYTES).0
}

fn request(body: &[u8]) -> Fate {
    framed(client::REQUEST, 1, body)
}

#[test]
fn bytes_that_are_no_text_are_refused_with_their_position() {
    for (bytes, position) in [
        (&b"a\0b|bob"[..], Some(2)),
        (b"ab\rc|bob", Some(3)),
        (b"abc|bob\r\r", Some(8)),
        (b"\xef\xbb\xbfwho", Some(1)),
        ("a\u{2028}b|bob".as_bytes(), Some(2)),
        ("a\u{2029}b|bob".as_bytes(), Some(2)),
        (b"ab\xff|bob", Some(3)),
        (b"a\xc0\xaf|bob", Some(2)),
        (b"a\xe0\x80\xaf|bob", Some(2)),
        (b"a\xed\xa0\x80|bob", Some(2)),
        (b"a\xf4\x90\x80\x80|bob", Some(2)),
        (b"a|bob\xe2\x82", Some(6)),
        (b"run printf '\0'", Some(13)),
        (b"a\x1b[31m\x07\x7f|bob", None),
        ("a\u{85}\u{202e}|bob".as_bytes(), None),
    ] {
        match (line(bytes), position) {
            ((Error(BadText), text), Some(position)) => {
                assert!(text.contains(&format!("at byte {position} ")), "{bytes:?}: {text}");
            }
            ((Good, _), None) => {}
            (other, _) => panic!("{bytes:?}: {other:?}"),
        }
    }
    assert_eq!(line(b"hello|bob\r"), line(b"hello|bob"));
}

#[test]
fn lines_with_a_fault_are_answered_by_its_name() {
    let pipes = "|".repeat(1000);
    let long_name = "n".repeat(33);
    for (text, expected) in [
        ("hello", Error(UnknownCommand)),
        ("RUN id", Error(UnknownCommand)),
        ("run\tid", Error(UnknownCommand)),
        ("login a b", Error(UnknownCommand)),
        (&pipes, Error(BadArguments)),
        (&format!("a{pipes}"), Error(BadArguments)),
        (&format!("a{pipes}bob"), Good),
        ("|", Error(BadArguments)),
        ("|bob", Error(BadArguments)),
        ("  |bob", Error(BadArguments)),
        ("hello|", Error(BadArguments)),
        ("hello|  ", Error(BadArguments)),
        ("msg", Error(BadArguments)),
        ("msg bob", Error(BadArguments)),
        ("msg bob  ", Error(BadArguments)),
        ("user", Error(BadName)),
        ("user ..", Error(BadName)),
        ("user a|b", Error(BadName)),
        ("user \u{430}lice", Error(BadName)),
        (&format!("user {long_name}"), Error(BadName)),
        ("run", Error(BadArguments)),
        ("run   ", Error(BadArguments)),
        ("download", Error(BadPath)),
        ("download /etc/passwd", Error(BadPath)),
        ("download a/../../b", Error(BadPath)),
        ("download ..", Error(BadPath)),
        ("download a/", Error(BadPath)),
        ("download ..%2f..\\x", Good),
        ("ls ..", Error(BadPath)),
        ("ls //", Error(BadPath)),
        ("ls /", Good),
        ("who me", Error(BadArguments)),
        ("help me", Error(BadArguments)),
        ("quit now", Error(BadArguments)),
        ("echo", Good),
        ("", Good),
    ] {
        assert_eq!(line(text.as_bytes()).0, expected, "{:?}", &text[..text.len().min(40)]);
    }
}

#[test]
fn another_language_within_lines_ends_the_connection() {
    for text in [
        &b"GET / HTTP/1.1"[..],
        b"POST /run?x=%20 HTTP/1.0",
        b"Host: localhost",
        b"HOST:x|bob",
        b"{\"method\":\"id\",\"id\":1}",
        b"{\"op\": \"message\"}",
        b"\x16\x03\x01\x02\x00",
    ] {
        assert_eq!(line(text).0, End(Protocol), "{text:?}");
    }
    for text in [&b"GET me a coffee|bob"[..], b"the Host: x|bob", b"{a}|bob", b"{\"a\":1} ?|bob"] {
        assert_eq!(line(text).0, Good, "{text:?}");
    }
    let posted = b"\r\nPOST / HTTP/1.1\r\nHost: x\r\n\r\nuser a b\nrun id\n";
    let read = read_in_pieces(Dialect::Line, posted.chunks(1));
    assert!(read.len() == 2 && read[1].starts_with("end "), "{read:?}");
}

#[test]
fn an_endless_line_is_given_up_at_its_bound() {
    for max in [LINE_FIRST_MAX_BYTES, LINE_MAX_BYTES] {
        let long = vec![b'a'; max + 1];
        assert_eq!(fate(Dialect::Line, &long[..max], max).0, Open);
        assert_eq!(fate(Dialect::Line, &long, max).0, End(LineTooLong));
        let ended = [&long[..max], b"\n"].concat();
        assert_eq!(fate(Dialect::Line, &ended, max).0, Error(UnknownCommand));
        assert_eq!(fate(Dialect::Line, &[&long[..], b"\n"].concat(), max).0, End(LineTooLong));
        assert_eq!(fate(Dialect::Line, &vec![b' '; max + 1], max).0, End(LineTooLong));
    }
    let empty = read_in_pieces(Dialect::Line, vec![b"\r\n".as_slice(); 100_000]);
    assert!(empty.len() == 100_000 && empty.iter().all(|item| item == "Nothing"));
}

#[test]
fn texts_and_commands_have_64_kib_and_not_one_byte_more() {
    let text = "x".repeat(TEXT_MAX_BYTES);
    let more = format!("{text}y");
    for (text, fate) in [(&text, Good), (&more, Error(TextTooLong))] {
        assert_eq!(line(format!("{text}|bob").as_bytes()).0, fate);
        assert_eq!(line(format!("msg bob {text}").as_bytes()).0, fate);
        assert_eq!(line(format!("  {text}  |  bob").as_bytes()).0, fate);
        assert_eq!(message(b"bob", text.as_bytes()), fate);
        let echo = format!(r#"{{"op":"echo","text":"{text}"}}"#);
        assert_eq!(request(echo.as_bytes()), fate);
    }
    let command = "x".repeat(COMMAND_MAX_BYTES);
    for (command, fate) in [(command.clone(), Good), (command + "y", Error(TextTooLong))] {
        assert_eq!(line(format!("run {command}").as_bytes()).0, fate);
        let run = format!(r#"{{"op":"run","command":"{command}"}}"#);
        assert_eq!(request(run.as_bytes()), fate);
    }
    let longest = format!("{text}|{}", "n".repeat(RECIPIENTS_MAX_BYTES));
    assert_eq!(line(longest.as_bytes()).0, Good);
    assert_eq!(line(format!("{longest}n").as_bytes()).0, Error(TooMany));
}

fn message(names: &[u8], text: &[u8]) -> Fate {
    let length = (names.len() as u16).to_be_bytes();
    framed(client::MESSAGE, 7, &[&length, names, text].concat())
}

#[test]
fn message_frames_with_a_fault_are_answered_or_cut() {
    assert_eq!(message(b"bob", b"hi"), Good);
    assert_eq!(message(b"bob", b""), Error(BadArguments));
    assert_eq!(message(b"", b"hi"), Error(BadArguments));
    assert_eq!(message(b"bob", b"a\xff"), Error(BadText));
    assert_eq!(message(b"bob", b"\xc0\xaf"), Error(BadText));
    assert_eq!(message(&vec![b'n'; RECIPIENTS_MAX_BYTES], b"hi"), Good);
    assert_eq!(message(&vec![b'n'; RECIPIENTS_MAX_BYTES + 1], b"hi"), Error(TooMany));
    for body in [&b""[..], b"\0", b"\0\x01", b"\0\x04bob", b"\xff\xffbob"] {
        assert_eq!(framed(client::MESSAGE, 7, body), End(Protocol), "{body:?}");
    }
}

#[test]
fn a_declared_length_beyond_the_bound_is_refused_by_the_header() {
    let bounds = [
        (client::HELLO, LINE_FIRST_MAX_BYTES),
        (client::REQUEST, REQUEST_BODY_MAX_BYTES),
        (client::MESSAGE, REQUEST_BODY_MAX_BYTES),
        (client::DATA, CHUNK_MAX_BYTES),
        (client::CREDIT, 4),
        (client::END, 32),
        (client::CANCEL, 0),
        (client::ACKNOWLEDGE, 0),
        (client::PING, 0),
        (client::PONG, 0),
        (client::GOODBYE, 0),
    ];
    for (kind, max) in bounds {
        let header = |length: usize| {
            let length = (length as u32).to_be_bytes();
            [kind, length[1], length[2], length[3], 0, 0, 0, 1]
        };
        for length in [max + 1, 0x10_0000, 0xff_ffff] {
            let (fate, text) = fate(Dialect::Frame, &header(length), REQUEST_BODY_MAX_BYTES);
            assert_eq!(fate, End(Protocol), "{kind:#x} {length}");
            assert!(text.contains(&length.to_string()), "{text}");
        }
        if max > 0 {
            assert_eq!(fate(Dialect::Frame, &header(max), REQUEST_BODY_MAX_BYTES).0, Open);
        }
        let first = fate(Dialect::Frame, &header(LINE_FIRST_MAX_BYTES + 1), LINE_FIRST_MAX_BYTES);
        assert_eq!(first.0, End(Protocol), "before anything valid was said");
    }
}

#[test]
fn kinds_of_the_other_side_and_unknown_ones_are_cut_off() {
    for kind in (0..=255).filter(|kind| !(client::HELLO..=client::GOODBYE).contains(kind)) {
        assert_eq!(framed(kind, 1, b""), End(Protocol), "{kind:#x} from a client");
    }
    for kind in (0..=255).filter(|kind| !(server::WELCOME..=server::ERROR_DATA).contains(kind)) {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, 1, b"");
        let refusal = frame::decode_said(&bytes).expect_err("no server sends that");
        assert_eq!(refusal.code, Protocol, "{kind:#x} from a server");
    }
}

#[test]
fn frames_of_servers_with_a_fault_are_refused() {
    for (kind, body) in [
        (server::WELCOME, &b"{}"[..]),
        (server::WELCOME, b""),
        (server::DETAIL, br#"{"event":"unheard-of"}"#),
        (server::DETAIL, br#"["text","x"]"#),
        (server::DETAIL, br#"{"event":"users","names":["../x"]}"#),
        (server::MESSAGE, b"\0\x05alice\xff"),
        (server::MESSAGE, b"\0\x01*hello"),
        (server::MESSAGE, b"\0\0hello"),
        (server::MESSAGE, b"\0\x09alice"),
        (server::END, br#"{"outcome":"exit","code":256}"#),
        (server::END, br#"{"outcome":"exit","code":-1}"#),
        (server::CREDIT, b"\0\0\0"),
        (server::ERROR, br#"{"code":"busy"}"#),
        (server::DELIVERED, br#"{"to":"bob","by":"magic"}"#),
        (server::PING, b"x"),
        (server::GOODBYE, b"{"),
    ] {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, 1, body);
        let refusal = frame::decode_said(&bytes).expect_err("a fault");
        assert_eq!(refusal.code, Protocol, "{kind:#x} {}", String::from_utf8_lossy(body));
    }
}

#[test]
fn bodies_of_requests_with_a_fault_are_answered() {
    let nested = [br#"{"op":"who","x":"#.as_slice(), &b"[".repeat(60_000)].concat();
    let closed = [&nested[..30_000], &b"]".repeat(29_984), b"}"].concat();
    for body in [
        &b""[..],
        b"who",
        b"null",
        b"[]",
        br#"["who"]"#,
        br#""who""#,
        b"{}",
        b"{",
        br#"{"op":"who"}x"#,
        br#"{"op":"fly"}"#,
        br#"{"op":"Who"}"#,
        br#"{"op":1}"#,
        br#"{"op":null}"#,
        br#"{"op":"who","op":"help"}"#,
        br#"{"op":"echo","text":"a","text":"b"}"#,
        br#"{"op":"echo"}"#,
        br#"{"op":"echo","text":7}"#,
        br#"{"op":"echo","text":"\ud800"}"#,
        br#"{"op":"echo","text":"\udc00\ud800"}"#,
        b"{\"op\":\"echo\",\"text\":\"\xff\"}",
        b"{\"op\":\"echo\",\"text\":\"\xc0\xaf\"}",
        b"{\"op\":\"echo\",\"text\":\"a\nb\"}",
        b"{\"op\":\"echo\",\"text\":\"a\0b\"}",
        b"\xef\xbb\xbf{\"op\":\"who\"}",
        br#"{"op":"run"}"#,
        br#"{"op":"run","command":""}"#,
        br#"{"op":"run","command":" \n"}"#,
        br#"{"op":"run","command":["id"]}"#,
        br#"{"op":"run","command":"id","stdin":1}"#,
        br#"{"op":"run","command":"id","timeout_ms":-1}"#,
        br#"{"op":"run","command":"id","timeout_ms":1.5}"#,
        br#"{"op":"run","command":"id","timeout_ms":1e400}"#,
        br#"{"op":"run","command":"id","timeout_ms":18446744073709551616}"#,
        br#"{"op":"run","command":"id","timeout_ms":"1"}"#,
        br#"{"op":"download"}"#,
        br#"{"op":"download","path":null}"#,
        br#"{"op":"download","path":{"base64":"!"}}"#,
        br#"{"op":"download","path":{"base64":"YQ"}}"#,
        br#"{"op":"download","path":["YQ=="]}"#,
        br#"{"op":"download","path":{"base64":"YQ==","x":1}}"#,
        br#"{"op":"who","x":1e400}"#,
        &nested,
        &closed,
    ] {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(request(body), Error(BadArguments), "{shown}");
    }
    assert_eq!(request(br#"{"op":"run","command":"a\u0000b"}"#), Error(BadText));
    assert_eq!(framed(client::REQUEST, 0, br#"{"op":"who"}"#), End(Protocol));
}

#[test]
fn paths_in_requests_are_checked_like_those_in_lines() {
    for path in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", ".", "a\\u0000b"] {
        let body = format!(r#"{{"op":"download","path":"{path}"}}"#);
        assert_eq!(request(body.as_bytes()), Error(BadPath), "{path}");
    }
    for path in ["..", "/etc", "a/../b", "//"] {
        let body = format!(r#"{{"op":"ls","path":"{path}"}}"#);
        assert_eq!(request(body.as_bytes()), Error(BadPath), "{path}");
    }
    for body in [r#"{"op":"ls"}"#, r#"{"op":"ls","path":""}"#, r#"{"op":"ls","path":"/"}"#] {
        let mut bytes = Vec::new();
        frame::put(&mut bytes, client::REQUEST, 1, body.as_bytes());
        let item = frame::decode(&bytes).expect("whole").expect("whole");
        let root = Request::Call { tag: 1, call: Call::List { path: None } };
        assert_eq!(item.request, Ok(root), "{body}");
    }
}

#[test]
fn a_bad_hello_ends_the_connection_by_its_name() {
    let hello = |body: &[u8]| framed(client::HELLO, 0, body);
    assert_eq!(hello(br#"{"version":1,"user":"alice","later":{"x":[]}}"#), Good);
    assert_eq!(hello(br#"{"version":2,"user":"alice"}"#), End(NotSupported));
    assert_eq!(hello(br#"{"version":0,"user":"alice"}"#), End(NotSupported));
    assert_eq!(hello(br#"{"version":1,"user":"../x"}"#), End(BadName));
    assert_eq!(hello(br#"{"version":1,"user":""}"#), End(BadName));
    for body in [
        &b""[..],
        b"{}",
        br#"[1,"alice"]"#,
        br#"{"version":1}"#,
        br#"{"version":"1","user":"alice"}"#,
        br#"{"version":4294967297,"user":"alice"}"#,
        br#"{"version":1,"user":"alice","user":"bob"}"#,
        br#"{"version":1,"user":"alice","password":7}"#,
        br#"{"version":1,"user":"alice","capabilities":"x"}"#,
    ] {
        assert_eq!(hello(body), End(Protocol), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn foreign_text_is_one_escaped_line_wherever_it_stands() {
    let evil = "x\n[server] bye\r\x1b[2J\x1b]52;c;\x07\u{9b}1m\u{202e}\u{2028}\u{200b}\u{feff}\0";
    let shown = "x\\n[server] bye\\r\\x1b[2J\\x1b]52;c;\\x07\\x9b1m\\u{202e}\\u{2028}\\u{200b}\
                 \\u{feff}\\x00";
    let alice = Name::parse("alice").expect("a name");
    let entry =
        Entry { name: evil.as_bytes().to_vec(), kind: EntryKind::File, size: 1, modified: 0 };
    let failed = Outcome::Failed(Refusal::new(0, NoSuchFile, evil));
    for (event, line) in [
        (Event::Message { from: &alice, text: evil.into(), serial: 0 }, format!("alice|{shown}\n")),
        (
            Event::File { tag: 0, name: evil.as_bytes(), size: 1, modified: 0 },
            format!("file 1 {shown}\n"),
        ),
        (Event::Entries { tag: 0, entries: &[entry] }, format!("1 1970-01-01T00:00:00Z {shown}\n")),
        (
            Event::Error(&Refusal::new(0, NoSuchUser, evil)),
            format!("error no-such-user: {shown}\n"),
        ),
        (Event::End { tag: 0, outcome: &failed }, format!("error no-such-file: {shown}\n")),
        (Event::Text { tag: 0, text: "a\n\x1b\n" }, "a\n\\x1b\n\n".to_string()),
        (Event::Text { tag: 0, text: "" }, "\n".to_string()),
    ] {
        let mut out = Vec::new();
        line::encode(&event, &mut out);
        assert_eq!(String::from_utf8(out).expect("text"), line);
    }
}

#[test]
fn every_dialect_is_told_goodbye_in_its_own_words() {
    let refusal = Refusal::new(0, Denied, "only this machine is served");
    let last = |sniffed| String::from_utf8_lossy(&farewell(sniffed, &refusal)).into_owned();
    let lines = "error denied: only this machine is served\n";
    assert_eq!(last(Sniffed::Speaks(Dialect::Line, 0)), lines);
    assert_eq!(last(Sniffed::Undecided), lines);
    assert!(last(Sniffed::Http).starts_with("HTTP/1.1 421 "));
    let json = last(Sniffed::Speaks(Dialect::Json, 0));
    assert!(json.contains(r#"{"code":"denied","text":"only this machine is served"}"#), "{json}");
    assert_eq!(farewell(Sniffed::Tls, &refusal)[0], 0x15);
    let framed = farewell(Sniffed::Speaks(Dialect::Frame, 4), &refusal);
    assert_eq!(framed[0], server::GOODBYE);
    for dialect in [Dialect::Line, Dialect::Json, Dialect::Frame] {
        assert_eq!(unserved(Sniffed::Speaks(dialect, 0)), None);
    }
    assert_eq!(unserved(Sniffed::Undecided), None);
}
