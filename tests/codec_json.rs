//! Properties of the JSON codec, and what it answers to input that no good client sends.

mod common;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{assert_the_short_way_says_the_same, decode, read_in_pieces};
use proptest::prelude::*;
use serde_json::{Value, json};
use sixfour::{
    limits::{
        COMMAND_MAX_BYTES, ID_MAX_BYTES, OBJECT_DEPTH_MAX, OBJECT_FIRST_MAX_BYTES,
        OBJECT_MAX_BYTES, RECIPIENTS_MAX_BYTES, TEXT_MAX_BYTES,
    },
    wire::{
        Dialect, ErrorCode,
        ErrorCode::*,
        Event, Name, Outcome, Refusal, Request, Stream, Text,
        event::{Ended, Entry, EntryKind},
        json::{self, Reply},
    },
};

/// Objects of every kind, good and bad, with all kinds of white space between them and none.
fn mixed_objects() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (object, space) in [
        (r#"{"op":"login","user":"alice","id":1}"#, ""),
        ("{}", "\n\n  "),
        (r#"{"id" : 2}"#, "\r\n"),
        (r#"{"op":"login","user":"../x","id":"\u0041\"}{"}"#, "\t"),
        (r#"{"method":"printf '}\"{' | cat","id":-0.50e+3}"#, ""),
        (r#"{"command":"cat","stdin":{"base64":"/wA="},"timeout_ms":5,"id":null}"#, " "),
        (r#"{"op":"run","method":"x","id":[1]}"#, ""),
        (r#"{"op":"message","to":["bob","carol"],"text":"\ud83d\ude00\n","id":3}"#, ""),
        (r#"{"op":"message","to":"*","text":"","id":4,"receipt":true}"#, ""),
        ("{nonsense}", ""),
        (r#"{"a":[1,2}"#, ""),
        ("{]}", ""),
        (r#"{"id":5,"id":6}"#, ""),
        (r#"{"op":"ls","id":7}"#, "\n"),
        (r#"{"op":"ls","path":"a\u002fb","id":8}"#, ""),
        (r#"{"op":"fly","id":9}"#, ""),
        (r#"{"op":"echo","text":"\\\\","id":true}"#, ""),
        (r#"{"op":"cancel","target":1.0,"id":false}"#, ""),
        (r#"{"op":"ping","id":1e400}"#, ""),
        (r#"{"op":"quit","id":10,"x":{"y":[[[{}]]]}}"#, " \n "),
    ] {
        bytes.extend_from_slice(object.as_bytes());
        bytes.extend_from_slice(space.as_bytes());
    }
    for object in [&b"{\"method\":\"\xff\",\"id\":1}"[..], b"{\"method\":\"a\0b\",\"id\":1}"] {
        bytes.extend_from_slice(object);
    }
    bytes.extend_from_slice(b"{\"unfinished\":");
    bytes
}

fn assert_cuts_do_not_matter(input: &[u8]) {
    let whole = read_in_pieces(Dialect::Json, [input]);
    for at in 0..=input.len() {
        let (head, tail) = input.split_at(at);
        assert_eq!(read_in_pieces(Dialect::Json, [head, tail]), whole, "cut at {at}");
    }
    assert_eq!(read_in_pieces(Dialect::Json, input.chunks(1)), whole, "a byte at a time");
}

#[test]
fn objects_are_read_alike_wherever_they_are_cut() {
    let input = mixed_objects();
    let whole = read_in_pieces(Dialect::Json, [&input[..]]);
    assert_eq!(whole.len(), 22, "{whole:#?}");
    assert_cuts_do_not_matter(&input);
    let deep = [b"{\"a\":", &b"[".repeat(OBJECT_DEPTH_MAX)[..], b"1"].concat();
    for end in [&b"GET / HTTP/1.1\r\n"[..], b"}", b"[]", b"\xef\xbb\xbf{}", b"\0", &deep] {
        assert_cuts_do_not_matter(&[b"{} \n{\"id\":1}\n", end, b"{\"id\":2}"].concat());
    }
}

#[test]
fn the_largest_object_is_read_in_any_portions_and_one_byte_more_is_refused() {
    let object = |length: usize| {
        let (head, tail) = (r#"{"op":"ping","id":1,"x":""#, r#""}"#);
        format!("{head}{}{tail}", "}".repeat(length - head.len() - tail.len())).into_bytes()
    };
    for (max, first) in
        [(OBJECT_FIRST_MAX_BYTES, ""), (OBJECT_MAX_BYTES, r#"{"op":"ping","id":0}"#)]
    {
        for (length, read) in [(max, "Ping"), (max + 1, "end "), (max + 99_999, "end ")] {
            let input = [first.as_bytes(), &object(length), b"{\"op\":\"ping\",\"id\":2}"].concat();
            let whole = read_in_pieces(Dialect::Json, [&input[..]]);
            assert!(whole[usize::from(!first.is_empty())].contains(read), "{length}: {whole:?}");
            for portion in [1, 999, 65_536] {
                assert_eq!(read_in_pieces(Dialect::Json, input.chunks(portion)), whole);
            }
        }
    }
}

/// What became of one piece of input.
#[derive(Debug, PartialEq)]
enum Fate {
    /// A request.
    Good,
    /// An answer with this error and this id; the connection lives on.
    Error(ErrorCode, String),
    /// The end of the connection, for this reason.
    End(ErrorCode),
    /// More is awaited.
    Open,
}
use Fate::*;

fn fate(bytes: &[u8]) -> Fate {
    match decode(Dialect::Json, bytes, OBJECT_MAX_BYTES, &mut Vec::new()) {
        Ok(None) => Open,
        Ok(Some(item)) => {
            assert_eq!(item.consumed, bytes.len(), "all of it is one object");
            match item.request {
                Ok(_) => Good,
                Err(refusal) => {
                    let id = item.label.expect("every object has a label").id;
                    Error(refusal.code, id.to_owned())
                }
            }
        }
        Err(refusal) => End(refusal.code),
    }
}

#[test]
fn objects_that_are_none_are_answered_where_their_end_can_be_told() {
    let nested = |depth: usize| {
        let depth = depth - 1;
        format!("{{\"op\":\"ping\",\"id\":1,\"x\":{}{}}}", "[".repeat(depth), "]".repeat(depth))
    };
    let broken = || Error(BadJson, "null".to_owned());
    for (bytes, expected) in [
        (nested(OBJECT_DEPTH_MAX).as_bytes(), Good),
        (nested(OBJECT_DEPTH_MAX + 1).as_bytes(), End(Protocol)),
        (nested(100_000).as_bytes(), End(Protocol)),
        (&b"{\"a\":".repeat(100_000), End(Protocol)),
        (br#"{"op":"ping","id":1,"x":1e400,"y":99999999999999999999999999}"#, Good),
        (br#"{"op":"ping","id":1,"id":1}"#, broken()),
        (br#"{"op":"ping","id":1,"x":{"a":1,"a":1}}"#, broken()),
        (br#"{"op":"ping","id":1,"\u0069d":1}"#, broken()),
        (br#"{"op":"ping","id":"\ud800"}"#, broken()),
        (br#"{"op":"ping","id":1,"x":"\udc00\ud800"}"#, broken()),
        (br#"{"op":"ping","id":"\ud83d\ude00"}"#, Good),
        (b"{\"op\":\"ping\",\"id\":\"\0\"}", broken()),
        (b"{\"op\":\"ping\",\"id\":\"\n", broken()),
        (b"{\"op\":\"ping\",\"id\":\"\\\n", broken()),
        (b"{\"op\":\"ping\",\"id\":\"\x7f\"}", Good),
        (b"{\"op\":\"ping\",\"id\":\"\xc0\xaf\"}", broken()),
        (b"{\"op\":\"ping\",\"id\":\"\xed\xa0\x80\"}", broken()),
        (b"{\xef\xbb\xbf\"op\":\"ping\",\"id\":1}", broken()),
        (b"{\"op\":\"ping\",\"id\":01}", broken()),
        (b"{\"op\":\"ping\",\"id\":0x10}", broken()),
        (b"{\"op\":\"ping\",\"id\":NaN}", broken()),
        (b"{'op':'ping','id':1}", broken()),
        (b"{\"op\":\"ping\",\"id\":1,}", broken()),
        (b"{\"op\":\"ping\" \"id\":1}", broken()),
        (b"{/**/}", broken()),
        (b"{[}", broken()),
        (b"{", Open),
        (b"{\"op\":\"ping\",\"id\":1", Open),
        (b"{\"op\":\"ping\",\"id\":\"1}", Open),
        (b"", Open),
        (b" \r\n\t", Good),
        (b"}", End(Protocol)),
        (b"[1]", End(Protocol)),
        (b"null", End(Protocol)),
        (b"\0", End(Protocol)),
        (b" \xef\xbb\xbf\n\xef\xbb\xbf\xef", Good),
        (b"\xbb\xbf{}", End(Protocol)),
        (b"\xff", End(Protocol)),
        (b"\x16\x03\x01", End(Protocol)),
        (b"GET / HTTP/1.1\r\n", End(Protocol)),
        (b"who\n", End(Protocol)),
        ("\u{2028}".as_bytes(), End(Protocol)),
    ] {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        assert_eq!(fate(bytes), expected, "{shown}");
    }
    let long = format!("{{\"op\":\"echo\",\"id\":1,\"text\":\"{}", "x".repeat(10_000_000));
    assert_eq!(fate(long.as_bytes()), End(Protocol));
}

#[test]
fn what_follows_a_broken_object_is_read_whichever_quote_or_brace_is_wrong() {
    let good = "{\"op\":\"ping\",\"id\":7}\n";
    let pings = |read: &[String]| read.iter().filter(|it| it.contains("Ping")).count();
    for broken in [
        "{\"method\":\"echo it\"s\",\"id\":1}\n",
        "{\"method\":\"echo its,\"id\":1}\n",
        "{\"method:\"echo\",\"id\":1}\r\n",
        "{\"method\":\"two\nlines {\",\"id\":1}\n",
        "{\"method\":\"three\n\nlines\n\\\\\",\"id\":[\n1]}\n",
        "{\"method\":\"a backslash\\\n\",\"id\":1}\n",
        "{\"method\":\"no brace\",\"id\":1\n",
        "{\"method\":[\"no bracket\",\"id\":1}\n",
        "{\"method\":{\"id\":1}\n  ",
        "{\n  \"method\": \"x\",\n  \"id\": 1\n\n",
    ] {
        let input = [good, broken, good, "\u{feff}", good].concat();
        let whole = read_in_pieces(Dialect::Json, [input.as_bytes()]);
        assert_eq!((whole.len(), pings(&whole)), (4, 3), "{broken:?}: {whole:?}");
        assert!(whole[1].contains("BadJson") && whole[1].contains("byte "), "{whole:?}");
        assert_cuts_do_not_matter(input.as_bytes());
    }
}

#[test]
fn requests_with_a_fault_are_answered_by_its_name_with_their_id() {
    let bad = |id: &str| Error(BadArguments, id.to_owned());
    let long_name = "n".repeat(33);
    for (object, expected) in [
        ("{}", bad("null")),
        (r#"{"method":"ls"}"#, bad("null")),
        (r#"{"method":"ls","id":{}}"#, bad("null")),
        (r#"{"method":"ls","id":[1]}"#, bad("null")),
        (r#"{"id":7}"#, bad("7")),
        (r#"{"id":"x","text":"y"}"#, bad("\"x\"")),
        (r#"{"id":7,"method":""}"#, bad("7")),
        (r#"{"id":7,"method":" \n\t"}"#, bad("7")),
        (r#"{"id":7,"method":null}"#, bad("7")),
        (r#"{"id":7,"method":["ls"]}"#, bad("7")),
        (r#"{"id":7,"method":1,"command":"ls"}"#, bad("7")),
        (r#"{"id":7,"method":"ls","command":"ls"}"#, bad("7")),
        (r#"{"id":7,"op":"run"}"#, bad("7")),
        (r#"{"id":7,"op":"run","command":"ls"}"#, Good),
        (r#"{"id":7,"op":null,"method":"ls"}"#, bad("7")),
        (r#"{"id":7,"op":7,"method":"ls"}"#, bad("7")),
        (r#"{"id":7,"op":"Run","method":"ls"}"#, bad("7")),
        (r#"{"id":7,"op":"","method":"ls"}"#, bad("7")),
        (r#"{"id":7,"method":"a\u0000b"}"#, Error(BadText, "7".into())),
        (r#"{"id":7,"method":"ls","stdin":true}"#, bad("7")),
        (r#"{"id":7,"method":"ls","stdin":5}"#, bad("7")),
        (r#"{"id":7,"method":"ls","stdin":{"base64":"!"}}"#, bad("7")),
        (r#"{"id":7,"method":"ls","stdin":{"base64":"AA==","x":1}}"#, bad("7")),
        (r#"{"id":7,"method":"ls","stdin":false}"#, Good),
        (r#"{"id":7,"method":"ls","stdin":""}"#, Good),
        (r#"{"id":7,"method":"ls","timeout_ms":-1}"#, bad("7")),
        (r#"{"id":7,"method":"ls","timeout_ms":"1"}"#, bad("7")),
        (r#"{"id":7,"method":"ls","timeout_ms":1.5}"#, bad("7")),
        (r#"{"id":7,"method":"ls","timeout_ms":1e400}"#, bad("7")),
        (r#"{"id":7,"method":"ls","timeout_ms":18446744073709551616}"#, bad("7")),
        (r#"{"id":7,"method":"ls","timeout_ms":18446744073709551615}"#, Good),
        (r#"{"id":7,"op":"echo"}"#, bad("7")),
        (r#"{"id":7,"op":"echo","text":1}"#, bad("7")),
        (r#"{"id":7,"op":"download"}"#, bad("7")),
        (r#"{"id":7,"op":"download","path":"../x"}"#, Error(BadPath, "7".into())),
        (r#"{"id":7,"op":"download","path":"a\u0000"}"#, Error(BadPath, "7".into())),
        (r#"{"id":7,"op":"ls","path":"/etc"}"#, Error(BadPath, "7".into())),
        (r#"{"id":7,"op":"ls","path":7}"#, bad("7")),
        (r#"{"id":7,"op":"login"}"#, bad("7")),
        (r#"{"id":7,"op":"login","user":["a"]}"#, bad("7")),
        (r#"{"id":7,"op":"login","user":"a b"}"#, Error(BadName, "7".into())),
        (&format!(r#"{{"id":7,"op":"login","user":"{long_name}"}}"#), Error(BadName, "7".into())),
        (r#"{"id":7,"op":"login","user":"a","password":1}"#, bad("7")),
        (r#"{"id":7,"op":"login","user":"a","password":null}"#, Good),
        (r#"{"id":7,"op":"message","text":"x"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":"bob"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":"","text":"x"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":[],"text":"x"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":[1],"text":"x"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":{},"text":"x"}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":["a,b"],"text":"x"}"#, Error(BadName, "7".into())),
        (r#"{"id":7,"op":"message","to":"bob","text":""}"#, bad("7")),
        (r#"{"id":7,"op":"message","to":"bob","text":"x","receipt":1}"#, bad("7")),
        (r#"{"id":7,"op":"cancel"}"#, bad("7")),
        (r#"{"id":7,"op":"cancel","target":[7]}"#, bad("7")),
        (r#"{"id":7,"op":"fly"}"#, bad("7")),
        (r#"{"id":7,"op":"fetch","paths":["a"]}"#, bad("7")),
        (r#"{"id":7,"op":"store"}"#, bad("7")),
        (r#"{"id":7,"op":"upload","path":"a"}"#, bad("7")),
        (r#"{"id":7,"op":"upload","content":"a"}"#, bad("7")),
        (r#"{"id":7,"op":"upload","path":"a","content":5}"#, bad("7")),
        (r#"{"id":7,"op":"upload","path":"../a","content":"x"}"#, Error(BadPath, "7".into())),
        (r#"{"id":7,"method":"Linux:"}"#, bad("7")),
        (r#"{"id":7,"method":"ls","interpreter":"fish"}"#, bad("7")),
        (r#"{"\u0069\u0064":7,"\u006fp":"p\u0069ng"}"#, Good),
    ] {
        assert_eq!(fate(object.as_bytes()), expected, "{object}");
    }
}

#[test]
fn what_is_wrong_with_a_member_is_told_by_its_name_and_never_in_the_words_of_a_library() {
    for (members, text) in [
        (r#""op":"publish""#, "there is no `op` \"publish\"; there are run, login, message, "),
        (r#""op":"announcement""#, "there is no `op` "),
        (r#""op":"edge.join""#, "the request has no `udp_port`"),
        (r#""op":"edge.join","udp_port":65536"#, "`udp_port` is a whole number from 0 to 65535"),
        (r#""op":"edge.join","udp_port":"x""#, "`udp_port` is a whole number from 0 to 65535"),
        (r#""op":"edge.upload","file_id":1,"samples":[1.5]"#, "`samples` is an array of whole "),
        (r#""op":"edge.compute","file_id":-1,"operation":"SUM""#, "`file_id` is a whole number "),
        (r#""op":"edge.compute","file_id":1,"operation":[]"#, "`operation` is a string"),
        (r#""op":"info","interval_ms":1.5"#, "`interval_ms` is a whole number "),
        (r#""op":"ls","path":7"#, "`path` is a string or {\"base64\": \"...\"}"),
        (r#""op":"download","path":{"base64":"%"}"#, "`path` is a string or {\"base64\": "),
        (r#""op":"accept","offer":"one""#, "`offer` is the number of an offer"),
        (r#""op":"send","to":"bob","name":"f","data":[]"#, "`data` is a string or "),
        (r#""op":"send","to":"bob","name":"f","data":"","size":-1"#, "`size` is a whole number "),
        (r#""op":"ping","host":1"#, "`host` is a string"),
        (r#""method":"ls","timeout_ms":"1s""#, "`timeout_ms` is a whole number of milliseconds"),
        (r#""method":"ls","interpreter":"bash""#, "`interpreter` is `linux`, `dos` or "),
        (r#""method":"ls","stdin":7"#, "`stdin` is a string or {\"base64\": \"...\"}"),
        (r#""method":"\u0000""#, "a command may not hold a NUL"),
    ] {
        let object = format!("{{{members},\"id\":1}}");
        let mut scratch = Vec::new();
        let item = decode(Dialect::Json, object.as_bytes(), OBJECT_MAX_BYTES, &mut scratch);
        let refusal = item.expect("good").expect("whole").request.expect_err(&object);
        assert!(refusal.text.starts_with(text), "{object}: {}", refusal.text);
        for word in ["invalid type", "unknown variant", "expected", "line 1", "variant"] {
            assert!(!refusal.text.contains(word), "{object}: {}", refusal.text);
        }
        let all_told = refusal.text.len() < 500 && !refusal.text.ends_with("...");
        assert!(all_told, "{}", refusal.text);
    }
}

#[test]
fn every_op_that_a_refusal_lists_is_one() {
    let text = |op: &str| {
        let object = format!("{{\"op\":\"{op}\",\"id\":1}}");
        let mut scratch = Vec::new();
        let item = decode(Dialect::Json, object.as_bytes(), OBJECT_MAX_BYTES, &mut scratch);
        match item.expect("good").expect("whole").request {
            Ok(_) => String::new(),
            Err(refusal) => refusal.text.into_owned(),
        }
    };
    let refused = text("publish");
    let (_, list) = refused.split_once("there are ").expect("a list");
    let ops = list.split(", ").collect::<Vec<_>>();
    assert_eq!(ops.len(), 32);
    for op in ops {
        assert!(!text(op).contains("there is no `op`"), "{op}");
    }
}

#[test]
fn replies_and_messages_hold_nothing_that_moves_a_cursor_or_hides_text() {
    let odd = "\u{9b}2J\u{7f}\u{85}\u{202e}\u{feff}\u{e0041}a\u{200d}b gr\u{fc}n \u{1f600}\n";
    let mut reply = Reply::default();
    let mut whole = Vec::new();
    for most in [usize::MAX, 1, 2, 3, 5, 7] {
        reply.begin("1");
        let bytes = odd.as_bytes();
        reply.take_in(&Event::Output { tag: 1, stream: Stream::Stdout, bytes });
        reply.take_in(&Event::Text { tag: 1, text: odd });
        let entry = Entry { name: bytes.into(), kind: EntryKind::File, size: 1, modified: 1 };
        reply.take_in(&Event::Entries { tag: 1, entries: &[entry] });
        reply.finish(&Outcome::Failed(Refusal::new(1, BadPath, odd)), None);
        let out = written(&mut reply, most);
        assert!(whole.is_empty() || whole == out, "{most}");
        whole = out;
    }
    let from = Name::parse("alice").expect("a name");
    let message = Event::Message { from: &from, text: Text::from(odd), serial: 0 };
    Dialect::Json.encode(&message, &mut whole);
    let text = String::from_utf8(whole).expect("UTF-8");
    for line in text.lines() {
        assert_eq!(sixfour::wire::escape::escape(line), line);
    }
    let objects = text.lines().map(|it| serde_json::from_str::<Value>(it).expect("an object"));
    let [reply, message] = &objects.collect::<Vec<_>>()[..] else { panic!("{text}") };
    for same in [&reply["stdout"], &reply["text"], &reply["entries"][0]["name"], &message["text"]] {
        assert_eq!(same, odd);
    }
    assert_eq!(reply["error"]["text"], odd);
    // The short way of echo says the same.
    let echo = json!({"op": "echo", "id": 1, "text": "\u{202e}"}).to_string();
    assert!(json::quick(echo.as_bytes(), OBJECT_MAX_BYTES).is_none());
}

#[test]
fn bounds_of_texts_commands_recipients_and_ids_hold_to_the_byte() {
    let object = |value: Value| fate(value.to_string().as_bytes());
    let too_long = |code| Error(code, "7".to_owned());
    let text = "x".repeat(TEXT_MAX_BYTES);
    let more = format!("{text}y");
    for (text, fate) in [(&text, Good), (&more, too_long(TextTooLong))] {
        assert_eq!(object(json!({"id": 7, "op": "echo", "text": text})), fate);
        assert_eq!(object(json!({"id": 7, "op": "message", "to": "bob", "text": text})), fate);
    }
    let command = "x".repeat(COMMAND_MAX_BYTES);
    assert_eq!(object(json!({"id": 7, "method": command})), Good);
    assert_eq!(object(json!({"id": 7, "method": command + "y"})), too_long(TextTooLong));
    let names = "n".repeat(RECIPIENTS_MAX_BYTES);
    let message = |to: &str| object(json!({"id": 7, "op": "message", "to": to, "text": "x"}));
    assert_eq!(message(&names), Good);
    assert_eq!(message(&format!("{names}n")), too_long(TooMany));
    let id = "i".repeat(ID_MAX_BYTES - 2);
    assert_eq!(object(json!({"id": id, "op": "ping"})), Good);
    let refused = object(json!({"id": id + "i", "op": "ping"}));
    assert_eq!(refused, Error(BadArguments, "null".to_owned()));
}

fn read_one(object: &str) -> String {
    read_in_pieces(Dialect::Json, [object.as_bytes()]).concat()
}

#[test]
fn what_is_asked_for_is_what_is_read() {
    for (object, label, request) in [
        (r#"{"method":"ls -l","id":1}"#, "1", r#"Run { command: "ls -l", stdin: false"#),
        (r#"{"id":"a","op":"run","command":"x","timeout_ms":9}"#, "\\\"a\\\"", "timeout_ms: 9 }"),
        (r#"{"id":0,"method":"cat","stdin":"a\nb"}"#, "input: Some([97, 10, 98])", "stdin: true"),
        (r#"{"id":0,"method":"cat","stdin":{"base64":"/w=="}}"#, "[255]", "stdin: true"),
        (r#"{"id":0,"method":"cat","stdin":""}"#, "input: Some([])", "stdin: true"),
        (r#"{"id":-1.50,"op":"echo","text":"\u00fc\""}"#, "-1.50", r#"Echo { text: "ü\"" }"#),
        (
            r#"{"id":1,"op":"login","user":"al","password":"p\t"}"#,
            "1",
            "password: Some(Secret(..))",
        ),
        (r#"{"id":1,"op":"message","to":["a","b"],"text":"x"}"#, "1", r#"tag: 0, to: "a,b""#),
        (
            r#"{"id":1,"op":"message","to":"*","text":"\\","receipt":true}"#,
            "1",
            r#"tag: 1, to: "*""#,
        ),
        (
            r#"{"id":1,"op":"message","to":"a\u002cb","text":"\u0020x"}"#,
            "1",
            r#"to: "a,b", text: " x""#,
        ),
        (r#"{"id":1,"op":"cancel","target":"x"}"#, r#"target: Some("\"x\"")"#, "Cancel"),
        (r#"{"id":1,"op":"download","path":{"base64":"/w=="}}"#, "1", "Download { path: "),
        (r#"{"id":1,"op":"ls","path":null}"#, "1", "List { path: None }"),
        (r#"{"id":1,"op":"upload","path":"a/b","content":"xy"}"#, "[120, 121]", "size: 2 }"),
        (r#"{"id":1,"op":"upload","path":"a","content":{"base64":"/w=="}}"#, "[255]", "size: 1 }"),
        (r#"{"id":1,"method":"Linux: ls"}"#, "1", r#"Run { command: "ls""#),
        (r#"{"id":1,"method":"powershell:x"}"#, "1", r#"PowerShell, command: "x""#),
        (r#"{"id":1,"method":"dos:x","interpreter":"linux"}"#, "1", r#"Run { command: "dos:x""#),
        (r#"{"id":1,"op":"info"}"#, "1", "Host(Ask(Info {"),
        (r#"{"id":1,"op":"who"}"#, "1", "Who"),
        (r#"{"id":1,"op":"help"}"#, "1", "Help"),
        (r#"{"id":1,"op":"quit"}"#, "1", "Goodbye"),
    ] {
        let read = read_one(object);
        assert!(read.contains(label) && read.contains(request), "{object}: {read}");
    }
}

/// All portions of a reply, joined.
fn written(reply: &mut Reply, most: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while !reply.put(most, &mut out) {}
    out
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match (value.as_str(), value["base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).expect("base64"),
        (None, None) => panic!("neither text nor bytes: {value}"),
    }
}

#[test]
fn the_shell_that_finds_no_command_is_told_from_a_command_with_its_status() {
    let exit = |code, stderr: &str| {
        let mut reply = Reply::default();
        reply.begin("1");
        let (tag, stream, bytes) = (1, Stream::Stderr, stderr.as_bytes());
        reply.take_in(&Event::Output { tag, stream, bytes });
        reply.finish(&Outcome::Exit { code, directory: None }, None);
        let reply: Value = serde_json::from_slice(&written(&mut reply, 99)).expect("an object");
        assert_eq!(reply["result"], code);
        reply["errorcode"].as_u64()
    };
    for (code, stderr, errorcode) in [
        (127, "/bin/sh: 1: x: not found\n", 3),
        (127, "/bin/sh: line 1: x: command not found\n", 3),
        (127, "something else\n/bin/sh: 2: x: not found\n\n", 3),
        (126, "/bin/sh: 1: /etc/passwd: Permission denied\n", 3),
        (127, "", 0),
        (127, "env: 'x': No such file or directory\n", 0),
        (127, "/bin/sh: 1: x: not found\nafterwards\n", 0),
        (1, "/bin/sh: 1: x: not found\n", 0),
        (128, "/bin/sh: 1: x: not found\n", 0),
    ] {
        assert_eq!(exit(code, stderr), Some(errorcode), "{code} {stderr:?}");
    }
}

#[test]
fn a_truncated_text_is_still_text() {
    let mut reply = Reply::default();
    reply.begin("1");
    let (tag, stream, bytes) = (1, Stream::Stdout, &b"gr\xc3\xbc\xc3"[..]);
    reply.take_in(&Event::Output { tag, stream, bytes });
    reply.truncate();
    let outcome = Outcome::Signal { number: 15, because: Some(Ended::OutputLimit) };
    reply.finish(&outcome, Some(Ended::OutputLimit));
    let reply: Value = serde_json::from_slice(&written(&mut reply, 2)).expect("an object");
    assert_eq!(
        reply,
        json!({"id": 1, "result": 143, "stdout": "gr\u{fc}", "stderr": "", "errorcode": 4,
            "signal": 15, "truncated": true, "because": "output-limit"})
    );
}

#[test]
fn lists_and_texts_that_come_in_several_events_are_one_member() {
    let mut reply = Reply::default();
    for _ in 0..2 {
        reply.begin("\"x\"");
        let name = |text: &str| Name::parse(text).expect("a name");
        for names in [&[name("a"), name("b")][..], &[], &[name("c")]] {
            reply.take_in(&Event::Users { tag: 1, names });
        }
        for text in ["one \"1\"", "two"] {
            reply.take_in(&Event::Text { tag: 1, text });
        }
        let entry = |name: &[u8]| Entry {
            name: name.to_vec(),
            kind: EntryKind::File,
            size: 1,
            modified: -1,
        };
        reply.take_in(&Event::Entries { tag: 1, entries: &[entry(b"a")] });
        reply.take_in(&Event::Entries { tag: 1, entries: &[entry(b"\xff")] });
        let object = serde_json::from_value(json!({"a": [1]})).expect("an object");
        reply.take_in(&Event::Object { tag: 1, object: &object });
        reply.take_in(&Event::Error(&Refusal::new(1, NoSuchUser, "nobody")));
        reply.take_in(&Event::Error(&Refusal::new(1, PeerBusy, "busy")));
        reply.finish(&Outcome::Counted { count: 3, noun: "users" }, None);
        let bytes = written(&mut reply, usize::MAX);
        let file = |name: Value| json!({"name": name, "kind": "file", "size": 1, "modified": -1});
        let errors = [
            json!({"code": "no-such-user", "text": "nobody"}),
            json!({"code": "peer-busy", "text": "busy"}),
        ];
        assert_eq!(
            serde_json::from_slice::<Value>(&bytes).expect("an object"),
            json!({"id": "x", "result": null, "stdout": "", "stderr": "", "errorcode": 2,
                "users": ["a", "b", "c"], "text": "one \"1\"\ntwo", "count": 3,
                "entries": [file(json!("a")), file(json!({"base64": "/w=="}))],
                "object": {"a": [1]}, "error": errors[0], "errors": errors})
        );
    }
}

#[test]
fn echo_and_ping_as_programs_write_them_take_the_short_way_and_nothing_else_does() {
    let longest = format!(r#"{{"op":"echo","id":1,"text":"{}"}}"#, "x".repeat(TEXT_MAX_BYTES));
    for object in [
        r#"{"op":"echo","text":"hello","id":1}"#,
        r#"{"id":"a\"b","text":"","op":"echo"} {"#,
        " \r\n\t{ \"op\" : \"echo\" , \"id\" : null , \"text\" : \"gr\u{fc}n \u{1f600}\" }",
        r#"{"op":"ping","id":-1.5e3}{"op":"ping"}"#,
        &longest,
    ] {
        assert!(assert_the_short_way_says_the_same(object.as_bytes()), "{object}");
        let whole = object.trim_end().rfind('}').map_or(object.len(), |at| at + 1);
        for cut in 0..whole.min(100) {
            let bytes = &object.as_bytes()[..cut];
            let is_whole = bytes.contains(&b'}');
            assert!(is_whole || json::quick(bytes, OBJECT_MAX_BYTES).is_none(), "{object}: {cut}");
        }
    }
    let too_long = longest.replace("xx\"", "xxx\"");
    for object in [
        "",
        "x",
        "[]",
        "{}",
        r#"{"op":"echo","text":"no id"}"#,
        r#"{"op":"echo","id":1}"#,
        r#"{"op":"ping","id":1,"text":"x"}"#,
        r#"{"op":"ping","id":1,"host":"::1"}"#,
        r#"{"op":"ping","id":1,"id":1}"#,
        r#"{"op":"ping","id":[]}"#,
        r#"{"op":"ping","id":{}}"#,
        r#"{"op":"ping","id":1,}"#,
        r#"{"op":"ping" "id":1}"#,
        r#"{"op":"ping","id":01}"#,
        r#"{"op":"echo","id":1,"text":7}"#,
        r#"{"op":"echo","id":1,"text":"a\nb"}"#,
        "{\"op\":\"echo\",\"id\":1,\"text\":\"a\nb\"}",
        r#"{"\u006fp":"ping","id":1}"#,
        r#"{"method":"true","id":1}"#,
        r#"{"op":"who","id":1}"#,
        &format!(r#"{{"op":"ping","id":"{}"}}"#, "x".repeat(ID_MAX_BYTES)),
        &too_long,
    ] {
        assert_eq!(json::quick(object.as_bytes(), OBJECT_MAX_BYTES), None, "{object}");
    }
    let object = br#"{"op":"ping","id":1}"#;
    assert!(json::quick(object, object.len()).is_some());
    assert!(json::quick(object, object.len() - 1).is_none());
}

proptest! {
    #[test]
    fn the_short_way_of_a_request_leads_where_the_long_one_does(
        op in prop::sample::select(vec!["\"echo\"", "\"ping\"", "\"who\"", "\"echo", "1"]),
        id in prop::sample::select(vec!["1", "\"x\"", "nul", "null", "[1]", "\"\\u00e9\"", "-"]),
        text in "[ -~]{0,40}|.{0,20}",
        order in Just(vec![0, 1, 2, 3]).prop_shuffle(),
        count in 1usize..5,
        space in "[ \t\r\n]{0,2}",
        change in (any::<u8>(), 0usize..100),
    ) {
        let all = [
            format!("\"op\"{space}:{op}"),
            format!("\"id\":{space}{id}"),
            format!("\"text\":\"{text}\""),
            "\"op\":\"ping\"".to_owned(),
        ];
        let members: Vec<&str> = order[..count].iter().map(|at| all[*at].as_str()).collect();
        let mut object = format!("{space}{{{space}{}}}", members.join(",")).into_bytes();
        assert_the_short_way_says_the_same(&object);
        if let Some(byte) = object.get_mut(change.1) {
            *byte = change.0;
        }
        assert_the_short_way_says_the_same(&object);
    }

    #[test]
    fn bytes_of_any_kind_are_read_alike_however_they_are_cut(
        parts in proptest::collection::vec(
            prop_oneof![
                prop::sample::select(vec![
                    "{", "}", "[", "]", "\"", "\\", ":", ",", " ", "\n", "1", "true", "\"id\"",
                    "\"op\"", "{\"id\":1,\"op\":\"ping\"}", "\"a\":", "\\u", "\\ud83d\\ude00", "{}",
                ]).prop_map(|text| text.as_bytes().to_vec()),
                any::<u8>().prop_map(|byte| vec![byte]),
            ],
            0..40,
        ),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = [b"{", &parts.concat()[..]].concat();
        let whole = read_in_pieces(Dialect::Json, [&bytes[..]]);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.sort_unstable();
        let ends = at.iter().copied().chain([bytes.len()]);
        let starts = [0].into_iter().chain(at.iter().copied());
        let pieces = starts.zip(ends).map(|(start, end)| &bytes[start..end]);
        prop_assert_eq!(read_in_pieces(Dialect::Json, pieces), whole.clone());
        prop_assert_eq!(read_in_pieces(Dialect::Json, bytes.chunks(1)), whole);
    }

    /// But for what is stricter here: twins, half pairs and numbers that no double holds.
    #[test]
    fn an_object_is_what_serde_takes_for_one(
        members in proptest::collection::vec(
            prop::sample::select(vec![
                r#""a":1"#, r#""b":[1,-2.5e+3 ,[]]"#, r#""c":{"d":null, "e":{}}"#, r#""f":"x""#,
                r#""g":"\u00e9\ud83d\ude00\\\n""#, r#""h" : true"#, r#""":"\"""#, r#""\u0069":0"#,
                r#""j":1e400"#, r#""k":"\ud800""#,
            ]),
            0..5,
        ),
        separator in prop::sample::select(vec![",", " , ", "", ",,"]),
        change in proptest::option::of((any::<prop::sample::Index>(), "[ -~]")),
    ) {
        let mut object = format!("{{{}}}", members.join(separator));
        if let Some((at, char)) = change {
            let at = at.index(object.len());
            object.replace_range(at..=at, &char);
        }
        let ours = match fate_of_first(object.as_bytes()) {
            Some(is_object) => is_object,
            None => return Ok(()),
        };
        let theirs = serde_json::from_str::<Value>(&object);
        match (ours, theirs) {
            (true, Err(error)) => prop_assert!(
                error.to_string().contains("number out of range"), "{object}: {error}"
            ),
            (false, Ok(read)) => {
                // A twin is not there twice in what serde has read.
                let names = object.matches("\":").count() + object.matches("\" :").count();
                let inner = read.pointer("/c").and_then(Value::as_object).map_or(0, |it| it.len());
                let kept = read.as_object().expect("an object").len() + inner;
                prop_assert!(kept < names, "{object}");
            }
            _ => {}
        }
    }

    #[test]
    fn a_reply_is_the_same_in_any_portions_and_says_what_was_put_in(
        id in prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ],
        outputs in proptest::collection::vec(
            (any::<bool>(), prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..40),
            ]),
            0..5,
        ),
        code in any::<u8>(),
        most in 1..200usize,
    ) {
        let make = || {
            let mut reply = Reply::default();
            reply.begin(&id.to_string());
            for (is_stderr, bytes) in &outputs {
                let stream = if *is_stderr { Stream::Stderr } else { Stream::Stdout };
                reply.take_in(&Event::Output { tag: 1, stream, bytes });
            }
            reply.finish(&Outcome::Exit { code, directory: None }, None);
            reply
        };
        let whole = written(&mut make(), usize::MAX);
        prop_assert_eq!(&written(&mut make(), most), &whole);
        prop_assert_eq!(whole.iter().filter(|byte| **byte == b'\n').count(), 1, "a line");
        let read: Value = serde_json::from_slice(&whole).expect("an object");
        let joined = |is_stderr: bool| -> Vec<u8> {
            outputs.iter().filter(|it| it.0 == is_stderr).flat_map(|it| it.1.clone()).collect()
        };
        prop_assert_eq!(&read["id"], &id);
        prop_assert_eq!(&read["result"], &json!(code));
        prop_assert_eq!(bytes_of(&read["stdout"]), joined(false));
        prop_assert_eq!(bytes_of(&read["stderr"]), joined(true));
    }

    #[test]
    fn messages_to_json_are_objects_of_one_line_that_keep_their_text(text in any::<String>()) {
        let from = Name::parse("alice").expect("a name");
        let mut out = Vec::new();
        let message = Event::Message { from: &from, text: text.as_str().into(), serial: 0 };
        Dialect::Json.encode(&message, &mut out);
        prop_assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read: Value = serde_json::from_slice(&out).expect("an object");
        prop_assert_eq!(read, json!({"event": "message", "from": "alice", "text": text}));
    }
}

/// Whether the bytes are one object, where they end with the first one.
fn fate_of_first(bytes: &[u8]) -> Option<bool> {
    let mut scratch = Vec::new();
    match decode(Dialect::Json, bytes, OBJECT_MAX_BYTES, &mut scratch) {
        Ok(Some(item)) if item.consumed == bytes.len() => match item.request {
            Err(refusal) => Some(refusal.code != BadJson),
            Ok(Request::Nothing) => None,
            Ok(_) => Some(true),
        },
        _ => None,
    }
}
