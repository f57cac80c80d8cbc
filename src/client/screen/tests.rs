//! What is shown, word for word.

use super::*;

const PROMPT: Screen = Screen {
    json: false,
    prompt: true,
    quiet: false,
    verbose: false,
    time: None,
    colour_out: false,
    colour_err: false,
};

fn bob() -> Name {
    Name::parse("bob").expect("a name")
}

fn text(screen: Screen, shown: &Shown) -> String {
    let (_, bytes) = screen.render(shown).expect("shown");
    String::from_utf8(bytes).expect("text")
}

#[test]
fn foreign_text_cannot_move_the_cursor_or_fake_a_line() {
    let evil = "x\n[server] hi\x1b[2J\u{202e}\u{9b}";
    let evil_bytes = evil.as_bytes().to_vec();
    let entry = Entry { name: evil_bytes.clone(), kind: EntryKind::File, size: 1, modified: 0 };
    for shown in [
        Shown::Welcome { user: bob(), server: evil.into() },
        Shown::Sent { to: evil.into() },
        Shown::Entries(vec![entry]),
        Shown::Progress { path: evil_bytes.clone(), received: 1, size: 2, per_second: 3 },
        Shown::refusal(ErrorCode::NoSuchFile, evil),
        Shown::Notice(evil.into()),
        Shown::Pong { text: evil.into(), us: 1 },
        Shown::Info([("load".into(), evil.into())].into_iter().collect()),
    ] {
        for json in [false, true] {
            let screen = Screen { json, verbose: true, ..PROMPT };
            let line = text(screen, &shown);
            assert_eq!(line.matches('\n').count(), 1, "{line:?}");
            assert!(line.ends_with('\n') && !line.contains('\x1b'), "{line:?}");
        }
        let line = text(Screen { verbose: true, ..PROMPT }, &shown);
        assert!(!line.contains(['\u{202e}', '\u{9b}']), "{line:?}");
    }
    let message = Shown::Message { from: bob(), text: evil.into() };
    let expected = "bob: x\n    [server] hi\\x1b[2J\\u{202e}\\x9b\n";
    assert_eq!(text(PROMPT, &message), expected);
    let line = text(Screen { json: true, ..PROMPT }, &message);
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(line.is_ascii() && !line.trim_end().contains(char::is_control), "{line:?}");
    let output = Shown::Output { stream: Stream::Stdout, bytes: b"a\tb\r\n\x1b[2J\xff".to_vec() };
    assert_eq!(text(PROMPT, &output), "a\tb\n\\x1b[2J\\xff\n");
}

#[test]
fn errors_go_to_stderr_and_answers_to_stdout() {
    let screen = Screen::default();
    let error = Shown::refusal(ErrorCode::NoSuchUser, "nobody named bob is here");
    let (place, bytes) = screen.render(&error).expect("shown");
    assert_eq!(place, Where::Err);
    assert_eq!(bytes, b"error no-such-user: nobody named bob is here\n");
    let (place, bytes) = screen.render(&Shown::Users(vec![bob()])).expect("shown");
    assert_eq!((place, &bytes[..]), (Where::Out, &b"bob\n"[..]));
    let json = Screen { json: true, ..screen };
    assert_eq!(json.render(&error).expect("shown").0, Where::Out);
}

#[test]
fn quiet_keeps_answers_and_errors_alone() {
    let quiet = Screen { quiet: true, ..Screen::default() };
    assert!(quiet.render(&Shown::Message { from: bob(), text: "x".into() }).is_none());
    assert!(quiet.render(&Shown::Notice("x".into())).is_none());
    assert!(quiet.render(&Shown::Users(vec![bob()])).is_some());
    assert!(quiet.render(&Shown::failure("x")).is_some());
}

#[test]
fn colours_come_only_where_they_are_welcome() {
    let shown = Shown::failure("x");
    assert_eq!(text(Screen::default(), &shown), "error: x\n");
    let colour_err = Screen { colour_err: true, ..Screen::default() };
    assert_eq!(text(colour_err, &shown), "\x1b[31merror\x1b[0m: x\n");
    assert_eq!(text(Screen { prompt: true, ..colour_err }, &shown), "error: x\n");
}

#[test]
fn json_is_one_object_a_line_and_loses_no_byte() {
    let json = Screen { json: true, ..Screen::default() };
    let output = Shown::Output { stream: Stream::Stderr, bytes: b"\xff".to_vec() };
    assert_eq!(text(json, &output), "{\"data\":{\"base64\":\"/w==\"},\"event\":\"stderr\"}\n");
    let users = text(json, &Shown::Users(vec![bob(), bob()]));
    assert_eq!(users.lines().count(), 2);
    for line in users.lines() {
        let value: Value = serde_json::from_str(line).expect("an object");
        assert_eq!(value["name"], "bob");
    }
}

#[test]
fn the_lines_of_a_message_are_set_in_under_the_first() {
    let message = |text: &str| Shown::Message { from: bob(), text: text.into() };
    assert_eq!(text(PROMPT, &message("a\r\nb\n\nc")), "bob: a\n    b\n    \n    c\n");
    assert_eq!(text(PROMPT, &message("carol: hi")), "bob: carol: hi\n");
}

#[test]
fn one_is_no_plural() {
    let all = |count, what| text(PROMPT, &Shown::Counted { count, what });
    assert_eq!([all(1, "users"), all(1, "entries")], ["[1 user]\n", "[1 entry]\n"]);
    assert_eq!([all(0, "users"), all(2, "entries")], ["[0 users]\n", "[2 entries]\n"]);
}

#[test]
fn programs_learn_when_a_message_came_and_that_nobody_knows_a_size() {
    let json = Screen { json: true, time: Some(1_700_000_000), ..Screen::default() };
    let message = Shown::Message { from: bob(), text: "x".into() };
    let value: Value = serde_json::from_str(&text(json, &message)).expect("an object");
    assert_eq!(value["time"], 1_700_000_000);
    let file = Shown::File { path: b"x".to_vec(), size: u64::MAX };
    let value: Value = serde_json::from_str(&text(json, &file)).expect("an object");
    assert_eq!(value["size"], Value::Null);
}

#[test]
fn lines_are_shown_whole_and_endless_ones_in_pieces() {
    let mut lines = lines::LineBuffer::default();
    assert_eq!(lines.push(b"a"), None);
    assert_eq!(lines.push(b"b\nc\nd"), Some(b"ab\nc\n".to_vec()));
    assert_eq!(lines.finish(), Some(b"d".to_vec()));
    assert_eq!(lines.finish(), None);
    assert_eq!(lines.push(&[b'x'; lines::LINE_PIECE_BYTES]), None);
    assert_eq!(lines.push(b"x").map(|piece| piece.len()), Some(lines::LINE_PIECE_BYTES + 1));
}

#[test]
fn what_is_saved_is_said_with_its_size_and_that_it_is_verified() {
    let saved = |per_second| Shown::Saved {
        path: b"a/report.pdf".to_vec(),
        target: Some(b"client_report.pdf".to_vec()),
        size: 12_300_000,
        hash: "00".into(),
        seconds: 2.0,
        per_second,
        is_upload: false,
        was_there: false,
    };
    let quick = "saved client_report.pdf (12.3 MB, verified)\n";
    assert_eq!(text(PROMPT, &saved(None)), quick);
    let slow = "saved client_report.pdf (12.3 MB, 6.15 MB/s, verified)\n";
    assert_eq!(text(PROMPT, &saved(Some(6_150_000))), slow);
}

#[test]
fn files_in_folders_are_told_with_the_folders_also_where_there_are_none() {
    let told = |count, files, was_there| {
        let first = b"client_docs".to_vec();
        let folders = Folders { first, count, files, size: 19 * files, was_there };
        let saved = Shown::SavedFolder { folders, is_upload: false, per_second: Some(1000) };
        text(PROMPT, &saved)
    };
    for (count, files, was_there, words) in [
        (1, 2, 0, "saved 2 files in client_docs/ (38 B, 1.00 kB/s, verified)\n"),
        (1, 0, 0, "saved 0 files in client_docs/ (0 B, 1.00 kB/s, verified)\n"),
        (2, 1, 0, "saved 1 file in client_docs/ and 1 more folder (19 B, 1.00 kB/s, verified)\n"),
        (
            3,
            2,
            2,
            "saved 2 files in client_docs/ and 2 more folders (38 B, 2 unchanged, verified)\n",
        ),
    ] {
        assert_eq!(told(count, files, was_there), words);
    }
    let folder = Shown::Folder { path: b"docs".to_vec(), target: Some(b"client_docs".to_vec()) };
    assert!(PROMPT.render(&folder).is_none());
    let line = "{\"event\":\"folder\",\"file\":\"client_docs\",\"path\":\"docs\"}\n";
    assert_eq!(text(Screen { json: true, ..PROMPT }, &folder), line);
}
