//! Properties of the codecs: however the bytes are cut, the same is read; what one end writes,
//! the other reads; whatever a peer says, the answer has a form.

mod common;

use std::borrow::Cow;

use common::{Reader, decode, encode_request, encode_said, read_in_pieces};
use proptest::prelude::*;
use sixfour::{
    limits::{
        CHUNK_MAX_BYTES, FRAME_BODY_MAX_BYTES, LINE_MAX_BYTES, REQUEST_BODY_MAX_BYTES,
        TEXT_MAX_BYTES,
    },
    wire::{
        Blob, Call, Dialect, ErrorCode, Event, Name, Outcome, Recipients, Refusal, Request, Secret,
        SharePath, Stream,
        control::{DeliveredBody, DetailBody, OutcomeBody},
        dialect::{Sniffed, sniff},
        event::{Ended, Entry, EntryKind, Witness},
        frame::{self, Said, client},
        json::scan::Place,
    },
};

/// Lines of every kind, good and bad, with both line ends and none at the end.
fn mixed_lines() -> Vec<u8> {
    let text = "\r\n\n user too early|bob\nuser alice secret word\r\nhello there|bob\n\n  \t \n\
        msg bob,carol a|b|c\r\ngr\u{fc}\u{df}e \u{1f600}|*\n\
        run ps aux | grep ssh\nrun  cd  /tmp \n\
        download docs/read me.txt\ndownload ../x\nls\nls /\nls a/\nwho\nwho now\necho  x \nhelp\n\
        |||||\n|\na|\n|a\nuser -rf\nnothing\nx\ry|bob\n\
        a\u{2028}b|bob\n\u{feff}who\na\0b|c\nquit\r\n";
    let mut bytes = text.as_bytes().to_vec();
    bytes.extend_from_slice(b"bad \xff\xfe|bob\noverlong \xc0\xaf|bob\nwho\nunfinished");
    bytes
}

/// Frames of every kind, good ones and such as are answered with an error.
fn mixed_frames() -> Vec<u8> {
    let mut out = Vec::new();
    let hello = br#"{"version":1,"user":"alice","capabilities":["x"],"new":[1,{"a":null}]}"#;
    frame::put(&mut out, client::HELLO, 0, hello);
    frame::put_message(&mut out, client::MESSAGE, 0, b"bob", "hello\n\u{1f600}");
    frame::put_message(&mut out, client::MESSAGE, 1, b"*", "");
    for body in [
        &br#"{"op":"download","path":{"base64":"/w=="}}"#[..],
        br#"{"op":"download","path":"../x"}"#,
        br#"{"op":"run","command":"cat","stdin":true}"#,
        br#"{"op":"fly"}"#,
        br#"{"op":"ls"}"#,
        b"",
    ] {
        frame::put(&mut out, client::REQUEST, 2, body);
    }
    frame::put(&mut out, client::DATA, 2, b"\x00\xff\n");
    frame::put(&mut out, client::DATA, 2, b"");
    frame::put(&mut out, client::CREDIT, 2, &[0, 1, 0, 0]);
    for kind in [client::END, client::CANCEL, client::ACKNOWLEDGE, client::PING, client::PONG] {
        frame::put(&mut out, kind, u32::MAX, b"");
    }
    frame::put(&mut out, client::GOODBYE, 0, b"");
    out
}

fn assert_cuts_do_not_matter(dialect: Dialect, input: &[u8]) {
    let whole = read_in_pieces(dialect, [input]);
    for at in 0..=input.len() {
        let (head, tail) = input.split_at(at);
        assert_eq!(read_in_pieces(dialect, [head, tail]), whole, "cut at {at}");
    }
    assert_eq!(read_in_pieces(dialect, input.chunks(1)), whole, "a byte at a time");
}

#[test]
fn lines_are_read_alike_wherever_they_are_cut() {
    let input = mixed_lines();
    let ends = input.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(read_in_pieces(Dialect::Line, [&input[..]]).len(), ends, "an item a line");
    assert_cuts_do_not_matter(Dialect::Line, &input);
    for end in [&b"GET / HTTP/1.1\r\n"[..], b"host: x\n", b"{\"id\":1}\n", b"\x16\x03\x01\n"] {
        assert_cuts_do_not_matter(Dialect::Line, &[b"\nwho\n\n", end, b"run id\n"].concat());
    }
}

#[test]
fn frames_are_read_alike_wherever_they_are_cut() {
    let input = mixed_frames();
    assert_eq!(read_in_pieces(Dialect::Frame, [&input[..]]).len(), 18);
    assert_cuts_do_not_matter(Dialect::Frame, &input);
    let server_only = [&input[..100], &[0x41, 0, 0, 1, 0, 0, 0, 0, b'x']].concat();
    assert_cuts_do_not_matter(Dialect::Frame, &server_only);
}

#[test]
fn the_longest_text_is_read_a_byte_at_a_time_too() {
    let text = "x".repeat(TEXT_MAX_BYTES);
    let lines = format!("who\n{text}|bob\nwho\n").into_bytes();
    let mut frames = Vec::new();
    frame::put(&mut frames, client::PING, 1, b"");
    frame::put_message(&mut frames, client::MESSAGE, 7, b"bob", text.as_str());
    for (dialect, input) in [(Dialect::Line, lines), (Dialect::Frame, frames)] {
        let whole = read_in_pieces(dialect, [&input[..]]);
        assert!(whole[1].contains(&text), "{}", &whole[1][..80]);
        assert_eq!(read_in_pieces(dialect, input.chunks(1)), whole);
    }
}

#[test]
fn the_first_bytes_decide_once_and_by_the_eighth() {
    let line = Sniffed::Speaks(Dialect::Line, 0);
    for (bytes, decided, after) in [
        (&b"\x06\x04sf\x01\0\0"[..], Sniffed::Speaks(Dialect::Frame, 4), 4),
        (b"\x06\x04sg", line, 4),
        (b"\x06x", line, 2),
        (b"{\"method\"", Sniffed::Speaks(Dialect::Json, 0), 1),
        (b"[{\"op\"", Sniffed::Speaks(Dialect::Json, 0), 1),
        (b"\"ping\"", Sniffed::Speaks(Dialect::Json, 0), 1),
        (b"\xef\xbb\xbf{\"op\"", Sniffed::Blank(3), 3),
        (b"\xef\xbb{", line, 3),
        (b"\x16\x03\x01\x02", Sniffed::Tls, 2),
        (b"\x16\x02", line, 2),
        (b"GET / HTTP/1.1\r\n", Sniffed::Http, 4),
        (b"OPTIONS * HTTP/1.1\r\n", Sniffed::Http, 8),
        (b"CONNECT a:1 HTTP/1.1\r\n", Sniffed::Http, 8),
        (b"GETTY|bob\n", line, 4),
        (b"PUTS x|bob\n", line, 4),
        (b"PRI * HTTP/2.0\r\n", line, 2),
        (b"get / HTTP/1.1\r\n", line, 1),
        (b"user alice\n", line, 1),
        (b"\n", Sniffed::Blank(1), 1),
        (b"\0", line, 1),
        (b" {}", Sniffed::Blank(1), 1),
    ] {
        assert_eq!(sniff(b""), Sniffed::Undecided);
        for length in 1..=bytes.len() {
            let expected = if length < after { Sniffed::Undecided } else { decided };
            assert_eq!(sniff(&bytes[..length]), expected, "{:?}", &bytes[..length]);
        }
    }
}

#[test]
fn lists_of_any_length_are_cut_into_frames_that_fit() {
    let name = |number: usize| format!("{number:05}{}", "\u{1}".repeat(250)).into_bytes();
    let entry =
        |number| Entry { name: name(number), kind: EntryKind::Other, size: 1, modified: -1 };
    let entries: Vec<Entry> = (0..1000).map(entry).collect();
    let names: Vec<Name> =
        (0..20_000).map(|n| Name::parse(&format!("n{n:031}")).unwrap()).collect();
    let mut out = Vec::new();
    frame::encode(&Event::Entries { tag: 1, entries: &entries }, &mut out);
    frame::encode(&Event::Users { tag: 1, names: &names }, &mut out);
    let (mut some_entries, mut some_names) = (Vec::new(), Vec::new());
    let mut rest = &out[..];
    while let Some((said, length)) = frame::decode_said(rest).expect("frames that fit") {
        assert!(length <= frame::HEADER_BYTES + FRAME_BODY_MAX_BYTES);
        match said {
            Said::Detail(1, DetailBody::Entries { entries }) => {
                some_entries.extend_from_slice(&entries)
            }
            Said::Detail(1, DetailBody::Users { names }) => some_names.extend_from_slice(&names),
            other => panic!("{other:?}"),
        }
        rest = &rest[length..];
    }
    assert!(rest.is_empty());
    assert_eq!((some_entries, some_names), (entries, names));
}

#[test]
fn texts_of_the_host_are_cut_into_frames_that_fit() {
    let texts = [
        "\u{1}\u{2}".repeat(CHUNK_MAX_BYTES / 2),
        "\u{1f600}\"\n".repeat(CHUNK_MAX_BYTES / 6),
        format!("\n{}\n", "\\".repeat(2 * CHUNK_MAX_BYTES)),
        "\n".repeat(CHUNK_MAX_BYTES),
    ];
    for text in texts {
        let (mut out, mut said_lines) = (Vec::new(), Vec::new());
        frame::encode(&Event::Text { tag: 1, text: &text }, &mut out);
        let mut rest = &out[..];
        while let Some((said, length)) = frame::decode_said(rest).expect("frames that fit") {
            assert!(length <= frame::HEADER_BYTES + FRAME_BODY_MAX_BYTES);
            let Said::Detail(1, DetailBody::Text { text }) = said else { panic!("{said:?}") };
            said_lines.push(text.into_owned());
            rest = &rest[length..];
        }
        assert!(rest.is_empty() && said_lines.len() > 1);
        match text.contains('\n') {
            // Each text is shown as lines of its own.
            true => assert_eq!(said_lines.join("\n").replace('\n', ""), text.replace('\n', "")),
            false => assert_eq!(said_lines.concat(), text),
        }
    }
}

#[test]
fn whatever_fits_a_request_fits_its_answer() {
    let fill = |head: &str, one: &str, tail: &str| {
        let room = REQUEST_BODY_MAX_BYTES - head.len() - tail.len();
        [head, &one.repeat(room / one.len()), tail].concat()
    };
    let (alike, hostile) = (r#"{"op":"echo","text":""#, r#"{"op":""#);
    for one in ["\\n", "\\u0001", "\\\\", "\\\"", "\u{7f}", "\u{2028}", "x"] {
        for body in [
            fill(alike, one, r#""}"#),
            fill(hostile, one, r#""}"#),
            fill(r#"{"op":"run","timeout_ms":""#, one, r#""}"#),
            fill(r#"{"op":"ls","path":""#, one, r#""}"#),
        ] {
            let mut input = Vec::new();
            frame::put(&mut input, client::REQUEST, 9, body.as_bytes());
            let item = frame::decode(&input).expect("a whole frame").expect("a whole frame");
            let mut out = Vec::new();
            match item.request {
                Ok(Request::Call { tag, call: Call::Echo { text } }) => {
                    Dialect::Frame.encode(&Event::Text { tag, text: &text }, &mut out);
                }
                Ok(Request::Call { tag, call: Call::Refused(refusal) }) => {
                    let outcome = Outcome::Failed(refusal);
                    Dialect::Frame.encode(&Event::End { tag, outcome: &outcome }, &mut out);
                }
                other => panic!("{other:?}"),
            }
            let (_, length) = frame::decode_said(&out).expect("good").expect("whole");
            assert_eq!(length, out.len());
        }
    }
}

fn any_name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9_.-]{0,31}".prop_map(|text| Name::parse(&text).expect("by the rule"))
}

fn any_path() -> impl Strategy<Value = SharePath> {
    let bytes = proptest::collection::vec(any::<u8>(), 1..40);
    bytes.prop_filter_map("no path", |bytes| SharePath::parse(&bytes).ok())
}

fn any_call() -> impl Strategy<Value = Call<'static>> {
    prop_oneof![
        any_path().prop_map(|path| Call::Download { path }),
        proptest::collection::vec(any_path(), 1..4).prop_map(|paths| Call::Fetch { paths }),
        proptest::option::of(any_path()).prop_map(|into| Call::Store { into }),
        ("[^\0]{0,30}[a-z]", any::<bool>(), any::<u64>()).prop_map(
            |(command, stdin, timeout_ms)| {
                Call::Run { command: Cow::Owned(command), stdin, timeout_ms }
            }
        ),
        proptest::option::of(any_path()).prop_map(|path| Call::List { path }),
        Just(Call::Who),
        any::<u16>().prop_map(|udp_port| Call::Announce { udp_port }),
        any::<String>().prop_map(|text| Call::Echo { text: Cow::Owned(text) }),
        Just(Call::Help),
    ]
}

fn any_refusal() -> impl Strategy<Value = Refusal> {
    (any::<u32>(), any::<String>()).prop_map(|(tag, text)| Refusal::new(tag, ErrorCode::Busy, text))
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let ended = prop::sample::select(vec![
        None,
        Some(Ended::Cancelled),
        Some(Ended::TimedOut),
        Some(Ended::OutputLimit),
    ]);
    prop_oneof![
        Just(Outcome::Done),
        any::<[u8; 32]>().prop_map(|hash| Outcome::Sent { hash }),
        (any::<u8>(), proptest::option::of(bytes()))
            .prop_map(|(code, directory)| Outcome::Exit { code, directory }),
        (1..65i32, ended).prop_map(|(number, because)| Outcome::Signal { number, because }),
        any::<u64>().prop_map(|count| Outcome::Counted { count, noun: "entries" }),
        any_refusal().prop_map(Outcome::Failed),
    ]
}

/// The request comes back from the bytes that a client makes of it, and again from those.
fn assert_round_trip(request: &Request<'_>) {
    let bytes = encode_request(request, 0);
    let item = frame::decode(&bytes).expect("a whole frame").expect("a whole frame");
    assert_eq!(item.request.as_ref(), Ok(request));
    assert_eq!(item.consumed, bytes.len());
    for length in 0..bytes.len() {
        assert_eq!(frame::decode(&bytes[..length]), Ok(None));
    }
}

/// The event comes out of its frame as `expected`, which makes the same frame again.
fn assert_said(event: &Event<'_>, expected: &Said<'_>) {
    let mut bytes = Vec::new();
    frame::encode(event, &mut bytes);
    let (said, length) = frame::decode_said(&bytes).expect("a whole frame").expect("a whole frame");
    assert_eq!(format!("{said:?}"), format!("{expected:?}"));
    assert_eq!((length, encode_said(&said)), (bytes.len(), bytes.clone()));
    for length in 0..bytes.len() {
        assert!(matches!(frame::decode_said(&bytes[..length]), Ok(None)));
    }
}

proptest! {
    #[test]
    fn requests_come_back_from_their_frames(
        tag in 1..=u32::MAX,
        call in any_call(),
        names in proptest::collection::vec(any_name(), 1..5),
        text in ".{1,200}",
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        password in proptest::option::of(any::<String>()),
        number in any::<u32>(),
    ) {
        let to = names.iter().map(Name::as_str).collect::<Vec<_>>().join(",");
        let to = Recipients(to.as_bytes());
        for request in [
            Request::Login { name: names[0], password: password.as_deref().map(Secret::from) },
            Request::Message { tag, to, text: text.as_str().into() },
            Request::Call { tag, call },
            Request::Input { tag, bytes: &bytes },
            Request::InputEnd { tag, hash: None },
            Request::InputEnd { tag, hash: Some([7; 32]) },
            Request::Credit { tag, bytes: number },
            Request::Cancel { tag },
            Request::Acknowledge { serial: number },
            Request::Ping { number },
            Request::Pong,
            Request::Goodbye,
        ] {
            assert_round_trip(&request);
        }
    }

    #[test]
    fn events_come_back_from_their_frames(
        tag in any::<u32>(),
        from in any_name(),
        text in any::<String>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        (size, modified) in any::<(u64, i64)>(),
        outcome in any_outcome(),
        refusal in any_refusal(),
    ) {
        let entry = Entry { name: bytes.clone(), kind: EntryKind::File, size, modified };
        let entries = [entry.clone(), Entry { kind: EntryKind::Folder, ..entry }];
        let file = DetailBody::File { name: Blob::borrowed(&bytes), size, modified };
        let users = DetailBody::Users { names: Cow::Borrowed(std::slice::from_ref(&from)) };
        let one_text = DetailBody::Text { text: Cow::Borrowed(&text) };
        let (to, by) = (from, Witness::Connection);
        let stream = Stream::Stderr;
        for (event, said) in [
            (
                Event::Message { from: &from, text: text.as_str().into(), serial: tag },
                Said::Message { from, text: &text, serial: tag },
            ),
            (Event::Delivered { tag, to, by }, Said::Delivered(tag, DeliveredBody { to, by })),
            (Event::File { tag, name: &bytes, size, modified }, Said::Detail(tag, file)),
            (Event::Output { tag, stream, bytes: &bytes }, Said::Data(tag, stream, &bytes)),
            (
                Event::Entries { tag, entries: &entries },
                Said::Detail(tag, DetailBody::Entries { entries: Cow::Borrowed(&entries) }),
            ),
            (Event::Users { tag, names: &[from] }, Said::Detail(tag, users)),
            (Event::Text { tag, text: &text }, Said::Detail(tag, one_text)),
            (Event::End { tag, outcome: &outcome }, Said::End(tag, OutcomeBody::from(&outcome))),
            (Event::Credit { tag, bytes: tag }, Said::Credit(tag, tag)),
            (Event::Ping { number: tag }, Said::Ping(tag)),
            (Event::Pong { number: tag }, Said::Pong(tag)),
            (Event::Goodbye(None), Said::Goodbye(None)),
        ] {
            assert_said(&event, &said);
        }
        let mut bytes = Vec::new();
        frame::encode(&Event::Error(&refusal), &mut bytes);
        frame::encode(&Event::Goodbye(Some(&refusal)), &mut bytes);
        let (said, length) = frame::decode_said(&bytes).expect("good").expect("whole");
        prop_assert!(matches!(said, Said::Error(of, body)
            if of == refusal.tag && body.text == refusal.text && body.code == refusal.code));
        let (said, _) = frame::decode_said(&bytes[length..]).expect("good").expect("whole");
        prop_assert!(matches!(said, Said::Goodbye(Some(body)) if body.text == refusal.text));
    }

    #[test]
    fn a_message_is_one_harmless_line_whatever_it_says(
        from in any_name(),
        text in any::<String>(),
    ) {
        let mut out = Vec::new();
        let message = Event::Message { from: &from, text: text.as_str().into(), serial: 1 };
        Dialect::Line.encode(&message, &mut out);
        let line = std::str::from_utf8(&out).expect("lines are UTF-8");
        let said = line.strip_prefix(from.as_str()).and_then(|line| line.strip_prefix('|'));
        let said = said.and_then(|line| line.strip_suffix('\n')).expect("NAME|TEXT LF");
        prop_assert!(!said.chars().any(|char| char.is_control() && char != '\t'), "{said:?}");
    }

    #[test]
    fn bytes_of_any_kind_are_read_alike_however_they_are_cut(
        bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(b'\n'), Just(b'|'), 0..12u8],
            0..120,
        ),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        for dialect in [Dialect::Line, Dialect::Frame] {
            let whole = read_in_pieces(dialect, [&bytes[..]]);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.sort_unstable();
            let mut reader = Reader::new(dialect);
            let mut start = 0;
            for end in at.into_iter().chain([bytes.len()]) {
                reader.feed(&bytes[start..end]);
                start = end;
            }
            prop_assert_eq!(&reader.read, &whole);
        }
    }

    #[test]
    fn the_short_way_of_a_message_leads_where_the_long_one_does(
        text in "[ -~\t]{0,80}|.{0,40}",
        end in prop::sample::select(
            vec!["\n", "\r\n", "\r", "", "|bob\n", "|bob\r\n", " | a,b \n"],
        ),
        prefix in prop::sample::select(vec!["", "run ", "msg bob ", "GET ", "{\"a\"}", "user "]),
        names in "[a-z,*]{0,9}",
        tag in any::<u32>(),
    ) {
        let line = format!("{prefix}{text}{end}");
        let mut framed = Vec::new();
        frame::put_message(&mut framed, client::MESSAGE, tag, names.as_bytes(), text.as_str());
        for (dialect, bytes) in [(Dialect::Line, line.as_bytes()), (Dialect::Frame, &framed)] {
            let mut scratch = Vec::new();
            if let Some(post) = dialect.post(bytes, Place::default(), LINE_MAX_BYTES) {
                let decoded = decode(dialect, bytes, LINE_MAX_BYTES, &mut scratch);
                prop_assert_eq!(decoded, Ok(Some(post.into())));
            }
        }
        // It is the way of every plain message, or it would be of no use.
        if !text.is_empty() && !names.is_empty() {
            let post = Dialect::Frame.post(&framed, Place::default(), LINE_MAX_BYTES);
            prop_assert!(post.is_some());
        }
    }

    #[test]
    fn more_bytes_never_change_a_decision(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
        let mut bytes = &bytes[..];
        while let Sniffed::Blank(count) = sniff(bytes) {
            bytes = &bytes[count..];
        }
        let mut decided = Sniffed::Undecided;
        for length in 0..=bytes.len() {
            let now = sniff(&bytes[..length]);
            prop_assert!(decided == Sniffed::Undecided || decided == now);
            prop_assert!(length < 8 || now != Sniffed::Undecided);
            decided = now;
        }
    }
}

#[test]
fn commands_of_telnet_among_lines_are_nothing_wherever_they_are_cut() {
    let putty = b"\xff\xfb\x1f\xff\xfb\x20\xff\xfb\x18\xff\xfd\x01\xff\xfd\x03";
    let input = [&putty[..], b"user alice\r\n\xff\xf4\xff\xfd\x06who\n\xff\xfb\necho \xff\xff\n"];
    let input = input.concat();
    let whole = read_in_pieces(Dialect::Line, [&input[..]]);
    let plain = read_in_pieces(Dialect::Line, [&b"user alice\nwho\n\necho \xff\n"[..]]);
    assert_eq!(whole, plain);
    for size in 1..input.len() {
        assert_eq!(read_in_pieces(Dialect::Line, input.chunks(size)), whole, "{size}");
    }
}
