//! The hub as a table: bytes in, replies and close reasons out, on a clock of its own.

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{
        Chunk, CloseReason, ConnectionId, Effect, Input, Work,
        admission::{Origin, Owner},
    },
    limits::Limits,
    wire::{
        ErrorCode, Outcome, Refusal, Stream,
        frame::{MAGIC, client, server},
    },
};
use table::{Table, frame_of, hello, message};

fn failed(code: ErrorCode) -> Outcome {
    Outcome::Failed(Refusal::new(0, code, "it failed"))
}

fn exit(code: u8) -> Outcome {
    Outcome::Exit { code, directory: None }
}

#[test]
fn a_name_belongs_to_one_and_is_free_when_that_one_has_gone() {
    let mut table = Table::new();
    let alice = table.line("alice");
    let other = table.open();
    assert!(table.say(other, "user alice\n").starts_with("error name-taken: "));
    assert_eq!(table.say(other, "user bob\n"), "welcome bob\n");
    assert!(table.say(other, "user carol\n").starts_with("error already-named: "));
    let framed = table.open();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(hello("alice"));
    assert!(table.say(framed, bytes).contains("name-taken"));
    assert_eq!(table.closed(framed), Some(CloseReason::NameTaken));
    assert_eq!(table.say(alice, "quit\n"), "goodbye\n");
    assert_eq!(table.closed(alice), Some(CloseReason::PeerLeft));
    table.line("alice");
}

#[test]
fn only_this_machine_is_served_and_others_are_told_so() {
    for address in ["127.0.0.1:9", "127.0.0.2:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
        let mut table = Table::new();
        let id = table.open_from(address);
        assert!(table.say(id, "help\n").contains("who"), "{address}");
        assert_eq!(table.closed(id), None);
    }
    let far = ["10.0.0.1:9", "[::ffff:10.0.0.1]:9", "[fe80::1]:9", "[2001:db8::1]:9", "[::]:9"];
    for address in far {
        for words in [&b"user alice\n"[..], &MAGIC] {
            let mut table = Table::new();
            let id = table.open_from(address);
            assert!(table.say(id, words).contains("denied"), "{address}");
            assert_eq!(table.closed(id), Some(CloseReason::NotAdmitted));
        }
    }
}

#[test]
fn what_is_not_served_is_answered_in_its_own_dialect() {
    for (words, answer) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 421 "),
        (b"POST /run HTTP/1.1\r\n", "HTTP/1.1 421 "),
        (b"\x16\x03\x01\x02\x00", "\x15\x03\x03\0\x02\x02("),
    ] {
        // The same in whole and byte by byte.
        for portion in [words.len(), 1] {
            let mut table = Table::new();
            let id = table.open();
            for bytes in words.chunks(portion) {
                table.input(Input::Bytes { connection: id, bytes });
            }
            assert!(table.heard(id).starts_with(answer));
            assert_eq!(table.closed(id), Some(CloseReason::NotServed));
        }
    }
}

#[test]
fn a_first_line_that_is_no_request_ends_the_connection_and_nothing_behind_it_is_done() {
    for first in [
        &b"CLIENT libcurl 8\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO example.org\r\n",
        b"REGISTER sip:example.org SIP/2.0\r\n",
        b"003fgit-upload-pack /x\0host=example.org\0\n",
        b"\x00\x01\x00\x08!\x12\xa4B\n",
    ] {
        let mut table = Table::new();
        let id = table.open();
        let said = table.say(id, [first, b"run touch F\nupload 1 f\nx"].concat());
        assert!(said.starts_with("error "), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(table.closed(id), Some(CloseReason::Protocol));
        assert_eq!(table.effects, []);
    }
}

#[test]
fn the_first_request_is_due_after_ten_seconds_whatever_trickles_in() {
    for (words, heard) in [
        (&b""[..], "error timed-out: "),
        (b"POS", "error timed-out: "),
        (b"\n\n", "error timed-out: "),
        (&MAGIC, "K\0"),
    ] {
        let mut table = Table::new();
        let id = table.open();
        table.at(9_000);
        table.input(Input::Bytes { connection: id, bytes: words });
        table.at(9_999);
        assert_eq!(table.closed(id), None);
        table.at(10_000);
        assert_eq!(table.closed(id), Some(CloseReason::FirstRequestTimeout));
        assert!(table.heard(id).starts_with(heard));
    }
}

#[test]
fn somebody_with_lines_may_be_silent_for_ever() {
    let mut table = Table::new();
    let id = table.line("alice");
    table.at(10_000);
    table.at(100_000_000);
    assert_eq!(table.closed(id), None);
}

#[test]
fn a_silent_client_is_asked_after_90_seconds_and_gone_after_150() {
    let mut table = Table::new();
    let id = table.frame("alice");
    table.at(89_999);
    assert_eq!(table.kinds(id), b"");
    table.at(90_000);
    assert_eq!(table.kinds(id), [server::PING]);
    table.at(149_999);
    assert_eq!(table.closed(id), None);
    table.at(150_000);
    assert_eq!(table.closed(id), Some(CloseReason::Silent));
}

#[test]
fn a_client_that_answers_is_asked_again_90_seconds_later() {
    let mut table = Table::new();
    let id = table.frame("alice");
    table.at(90_000);
    assert_eq!(table.kinds(id), [server::PING]);
    table.now = 91_000;
    assert_eq!(table.send(id, client::PONG, 0, b""), b"");
    table.at(180_999);
    assert_eq!(table.kinds(id), b"");
    table.at(181_000);
    assert_eq!(table.kinds(id), [server::PING]);
    table.at(240_999);
    assert_eq!(table.closed(id), None);
    table.at(241_000);
    assert_eq!(table.closed(id), Some(CloseReason::Silent));
}

/// Its pong lies unread behind requests that wait for room.
#[test]
fn a_client_that_slowly_takes_a_backlog_is_not_silent() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.frame("bob"));
    table.get_stuck(bob);
    let text = "x".repeat(60_000);
    (0..10).for_each(|_| drop(table.say(alice, format!("{text}|bob\n"))));
    assert!(!table.hub.wants_input(bob));
    for minute in 1..10 {
        table.now = minute * 50_000;
        table.input(Input::Sent { connection: bob, count: 1000 });
        table.at(table.now);
    }
    assert_eq!(table.closed(bob), None);
    table.at(table.now + 60_000);
    assert_eq!(table.closed(bob), Some(CloseReason::Stalled));
}

#[test]
fn a_socket_may_take_nothing_for_60_seconds() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.get_stuck(bob);
    table.at(5_000);
    assert_eq!(table.say(alice, "one|bob\ntwo|bob\n"), "");
    table.at(64_999);
    assert_eq!(table.closed(bob), None);
    table.at(65_000);
    assert_eq!(table.closed(bob), Some(CloseReason::Stalled));
    let lost = "error not-delivered: bob has gone and did not get 2 messages of yours\n";
    assert_eq!(table.heard(alice), lost);
}

#[test]
fn what_is_left_for_somebody_who_has_gone_may_be_taken_slowly_and_after_a_fault_it_may_not() {
    let mut table = Table::new();
    let (alice, bob, carol) = (table.line("alice"), table.line("bob"), table.frame("carol"));
    let line = format!("{}|bob,carol\n", "x".repeat(60_000));
    table.get_stuck(bob);
    table.get_stuck(carol);
    (0..3).for_each(|_| assert_eq!(table.say(alice, &line), ""));
    table.say(bob, "quit\n");
    table.say(carol, frame_of(99, 0, b""));
    table.now = 1_500;
    table.input(Input::Sent { connection: carol, count: 1000 });
    table.at(1_999);
    assert_eq!(table.closed(carol), None);
    table.at(2_000);
    assert_eq!(table.closed(carol), Some(CloseReason::Protocol));
    for (now, count) in [(50_000, 1000), (100_000, 0)] {
        table.now = now;
        table.input(Input::Sent { connection: bob, count });
    }
    table.at(109_999);
    assert_eq!(table.closed(bob), None, "it has taken something less than 60 s ago");
    table.at(110_000);
    assert_eq!(table.closed(bob), Some(CloseReason::PeerLeft));
}

#[test]
fn whoever_is_full_may_take_nothing_for_10_seconds() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.get_stuck(bob);
    let line = format!("{}|bob\n", "x".repeat(60_000));
    (0..17).for_each(|_| assert_eq!(table.say(alice, &line), ""));
    table.at(2_000);
    let busy = "error peer-busy: bob does not keep up; the message was not sent, try later\n";
    assert_eq!(table.say(alice, &line), busy);
    table.at(9_999);
    assert_eq!(table.closed(bob), None);
    table.at(10_000);
    assert_eq!(table.closed(bob), Some(CloseReason::SlowConsumer));
    assert!(table.heard(alice).contains("did not get 17 messages of yours"));
}

#[test]
fn messages_reach_whom_they_name_once() {
    let mut table = Table::new();
    let (alice, bob, carol) = (table.line("alice"), table.frame("bob"), table.line("carol"));
    assert_eq!(table.say(alice, "hi there|bob,carol,bob , carol\n"), "");
    assert_eq!(table.kinds(bob), [server::MESSAGE]);
    assert_eq!(table.heard(carol), "alice|hi there\n");
    assert_eq!(table.say(alice, "all|*\n"), "");
    assert_eq!(table.kinds(bob), [server::MESSAGE]);
    assert_eq!(table.heard(carol), "alice|all\n");
}

#[test]
fn messages_that_reach_nobody_are_answered() {
    let mut table = Table::new();
    let nameless = table.open();
    assert!(table.say(nameless, "hi|bob\n").starts_with("error not-named: "));
    let alice = table.line("alice");
    for (line, answer) in [
        ("hi|alice", "error bad-arguments: that is your own name"),
        ("hi|bob", "error no-such-user: nobody called `bob` is here"),
        ("hi|bob,alice", "error no-such-user: "),
        ("hi|b\x1b[2Jb", "error no-such-user: nobody called `b\\x1b[2Jb`"),
        ("hi|", "error bad-arguments: nobody is named"),
        ("|bob", "error bad-arguments: the text is empty"),
        ("hi|*", "error no-such-user: nobody else is here"),
    ] {
        let heard = table.say(alice, format!("{line}\n"));
        assert!(heard.starts_with(answer), "{line:?} gave {heard:?}");
    }
}

#[test]
fn a_message_has_64_recipients_and_not_65() {
    let mut table = Table::new();
    let alice = table.line("alice");
    let list = |count: usize| {
        let names: Vec<String> = (0..count).map(|number| format!("p{number}")).collect();
        names.join(",")
    };
    let heard = table.say(alice, format!("hi|{}\n", list(64)));
    assert_eq!(heard.matches("no-such-user").count(), 64);
    let heard = table.say(alice, format!("hi|{}\n", list(65)));
    assert_eq!(heard, "error too-many: a message may have 64 recipients\n");
}

#[test]
fn receipts_are_given_once_and_say_who_vouches() {
    let mut table = Table::new();
    let (alice, bob, carol) = (table.frame("alice"), table.frame("bob"), table.line("carol"));
    let heard = table.say(alice, message(5, "bob,carol", "hi"));
    assert!(heard.contains("\"carol\"") && heard.contains("\"connection\""));
    assert_eq!(table.kinds(bob), [server::MESSAGE]);
    table.send(bob, client::ACKNOWLEDGE, 1, b"");
    let heard = table.heard(alice);
    assert!(heard.contains("\"bob\"") && heard.contains("\"client\""));
    table.send(bob, client::ACKNOWLEDGE, 1, b"");
    assert_eq!(table.kinds(alice), b"");
    table.say(alice, message(6, "bob", "never acknowledged"));
    table.send(bob, client::GOODBYE, 0, b"");
    assert!(table.heard(alice).contains("not-delivered"));
    assert_eq!(table.heard(carol), "alice|hi\n");
}

#[test]
fn half_close_ends_the_requests_and_not_the_answers() {
    let mut table = Table::new();
    let id = table.open();
    // The last line lacks its end.
    table.say(id, "run date\r\necho last");
    table.input(Input::EndOfInput { connection: id });
    let run = table.started();
    assert_eq!((table.heard(id).as_str(), table.closed(id)), ("", None));
    let chunk = Chunk::Output { stream: Stream::Stdout, bytes: b"now" };
    table.input(Input::Chunk { operation: run, chunk });
    table.input(Input::Ended { operation: run, outcome: exit(7) });
    assert_eq!(table.heard(id), "now\n[exit 7]\nlast\n");
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
    let framed = table.frame("alice");
    table.input(Input::EndOfInput { connection: framed });
    assert_eq!(table.closed(framed), Some(CloseReason::PeerGone));
}

#[test]
fn blank_lines_are_nothing_however_they_come() {
    for portions in [&["\r\n", "\r\nhelp\r\n"][..], &["\n", " \n", "help\n"], &["\n\nhelp\n"]] {
        let mut table = Table::new();
        let id = table.open();
        portions.iter().for_each(|bytes| {
            table.input(Input::Bytes { connection: id, bytes: bytes.as_bytes() })
        });
        assert!(table.heard(id).starts_with("user NAME"), "{portions:?}");
    }
    let mut table = Table::new();
    let id = table.line("alice");
    (0..100_000).for_each(|_| table.input(Input::Bytes { connection: id, bytes: b"\r\n" }));
    assert_eq!((table.heard(id).as_str(), table.closed(id)), ("", None));
}

#[test]
fn a_line_waits_for_the_operation_before_it() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    assert_eq!(table.say(alice, "run one\nrun two\nhi|bob\n"), "");
    assert!(!table.hub.wants_input(alice));
    let one = table.started();
    assert_eq!(table.heard(bob), "");
    table.input(Input::Ended { operation: one, outcome: exit(0) });
    assert_eq!(table.heard(alice), "[exit 0]\n");
    let two = table.started();
    table.input(Input::Ended { operation: two, outcome: failed(ErrorCode::CannotStart) });
    assert_eq!(table.heard(alice), "error cannot-start: it failed\n");
    assert_eq!(table.heard(bob), "alice|hi\n");
    let resumed = Effect::Resume { connection: alice };
    assert!(table.effects.contains(&resumed) && table.hub.wants_input(alice));
}

#[test]
fn messages_wait_for_the_start_of_a_line() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.say(alice, "run x\n");
    let run = table.started();
    for (output, heard) in [("pass", "pass"), ("word", "word"), (":\nnext", ":\nnext")] {
        let chunk = Chunk::Output { stream: Stream::Stdout, bytes: output.as_bytes() };
        table.input(Input::Chunk { operation: run, chunk });
        table.say(bob, "hi|alice\n");
        assert_eq!(table.heard(alice), heard);
    }
    table.input(Input::Ended { operation: run, outcome: exit(0) });
    assert_eq!(table.heard(alice), "\n[exit 0]\nbob|hi\nbob|hi\nbob|hi\n");
}

#[test]
fn a_file_that_breaks_off_ends_a_line_session_even_after_its_end_was_told() {
    for ended_before in [false, true] {
        let mut table = Table::new();
        let alice = table.line("alice");
        table.say(alice, "download f\n");
        let file = table.started();
        table.get_stuck(alice);
        table.input(Input::Opened { operation: file, name: b"f", size: 9, modified: 0 });
        let chunk = Chunk::File { file: 0, offset: 0, length: 9 };
        table.input(Input::Chunk { operation: file, chunk });
        if ended_before {
            table.input(Input::Ended { operation: file, outcome: Outcome::Done });
        }
        assert_eq!(table.closed(alice), None);
        table.input(Input::Ended { operation: file, outcome: failed(ErrorCode::FileChanged) });
        assert_eq!(table.closed(alice), Some(CloseReason::BrokenFile));
        assert!(table.effects.contains(&Effect::Stop { operation: file }));
    }
}

/// Three downloads of one client; the room is for one chunk at a time.
#[test]
fn operations_of_one_session_take_turns() {
    let limits = Limits { outbox_low_bytes: 10, chunk_max_bytes: 10, ..Limits::default() };
    let mut table = Table::with(limits);
    let alice = table.frame("alice");
    table.get_stuck(alice);
    let mut files = Vec::new();
    for tag in 1..=3 {
        let request = br#"{"op": "download", "path": "f"}"#;
        table.send(alice, client::REQUEST, tag, request);
        let file = table.started();
        table.input(Input::Opened { operation: file, name: b"f", size: 1000, modified: 0 });
        assert_eq!(table.hub.room(file), 0, "the announcement fills the outbox");
        files.push(file);
    }
    let mut turns = Vec::new();
    for _ in 0..9 {
        table.effects.clear();
        table.get_unstuck(alice);
        table.get_stuck(alice);
        let pulled = std::mem::take(&mut table.effects);
        for effect in pulled {
            let Effect::Pull { operation } = effect else { continue };
            while table.hub.room(operation) > 0 {
                turns.push(files.iter().position(|file| *file == operation).expect("ours"));
                let chunk = Chunk::File { file: 0, offset: 0, length: 10 };
                table.input(Input::Chunk { operation, chunk });
            }
        }
    }
    assert_eq!(turns, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
}

#[test]
fn credit_bounds_the_output_and_the_input_of_a_command() {
    let limits = Limits { output_window_bytes: 6, input_window_bytes: 4, ..Limits::default() };
    let mut table = Table::with(limits);
    let alice = table.frame("alice");
    table.send(alice, client::REQUEST, 1, br#"{"op": "run", "command": "cat", "stdin": true}"#);
    let run = table.started();
    assert_eq!(table.hub.room(run), 6);
    let chunk = Chunk::Output { stream: Stream::Stderr, bytes: b"sixsix" };
    table.input(Input::Chunk { operation: run, chunk });
    assert_eq!(table.kinds(alice), [server::ERROR_DATA]);
    assert_eq!(table.hub.room(run), 0);
    table.send(alice, client::CREDIT, 1, &2u32.to_be_bytes());
    assert!(table.effects.contains(&Effect::Pull { operation: run }));
    assert_eq!(table.hub.room(run), 2);
    table.send(alice, client::DATA, 1, b"1234");
    table.input(Input::InputTaken { operation: run, count: 3 });
    assert_eq!(table.kinds(alice), [server::CREDIT]);
    assert_eq!(table.hub.standard_input(run), Some((&b"4"[..], false)));
    assert_eq!(table.send(alice, client::DATA, 1, b"5678"), [server::GOODBYE]);
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
    assert!(table.effects.contains(&Effect::Stop { operation: run }));
}

#[test]
fn a_command_that_closes_its_input_gives_back_what_it_has_not_taken_of_it() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    for (tag, held) in [(1, &b"123"[..]), (2, b"")] {
        let request = br#"{"op": "run", "command": "true", "stdin": true}"#;
        table.send(alice, client::REQUEST, tag, request);
        let operation = table.started();
        table.send(alice, client::DATA, tag, held);
        table.forget([alice]);
        table.input(Input::InputClosed { operation });
        let credit = frame_of(server::CREDIT, tag, &(held.len() as u32).to_be_bytes());
        // Nothing at all is not worth a frame.
        let said = if held.is_empty() { vec![] } else { credit };
        assert_eq!(table.heard_bytes(alice), said);
    }
}

#[test]
fn a_command_is_ended_when_its_time_is_over_and_says_so() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    let request = br#"{"op": "run", "command": "sleep 9", "timeout_ms": 500}"#;
    table.send(alice, client::REQUEST, 1, request);
    let run = table.started();
    table.at(499);
    assert_eq!(table.effects, []);
    table.at(500);
    assert_eq!(table.effects, [Effect::Terminate { operation: run }]);
    let outcome = Outcome::Signal { number: 15, because: None };
    table.input(Input::Ended { operation: run, outcome });
    assert!(table.heard(alice).contains("timed-out"));
}

#[test]
fn a_stop_lets_go_everybody_within_its_time() {
    let mut table = Table::new();
    let (idle, busy, leaving) = (table.line("idle"), table.frame("busy"), table.line("leaving"));
    table.send(busy, client::REQUEST, 1, br#"{"op": "run", "command": "sleep"}"#);
    let run = table.started();
    table.get_stuck(leaving);
    table.say(leaving, "quit\n");
    table.at(1_000);
    table.input(Input::Stop);
    assert!(table.heard(idle).starts_with("error shutting-down: "));
    assert_eq!(table.closed(idle), Some(CloseReason::ShuttingDown));
    assert_eq!(table.kinds(busy), [server::ERROR]);
    let origin = Origin::new("[::1]:9".parse().expect("an address"), Owner::Ours);
    assert!(table.hub.open(sixfour::hub::Time(1_000), origin).is_err());
    assert_eq!(table.send(busy, client::REQUEST, 2, br#"{"op": "ls"}"#), [server::END]);
    table.at(8_999);
    assert_eq!(table.closed(busy), None);
    table.at(9_000);
    assert_eq!(table.kinds(busy), [server::GOODBYE]);
    assert!(table.effects.contains(&Effect::Stop { operation: run }));
    table.at(10_999);
    assert!(!table.hub.is_finished(), "somebody still has something to read");
    table.at(11_000);
    assert!(table.hub.is_finished());
}

#[test]
fn time_limits_of_commands_that_are_over_are_forgotten() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    let request = br#"{"op": "run", "command": "true", "timeout_ms": 9000000000000}"#;
    for tag in 1..2000 {
        table.send(alice, client::REQUEST, tag, request);
        let run = table.started();
        // The invariants bound the alarms.
        table.input(Input::Ended { operation: run, outcome: exit(0) });
        table.effects.clear();
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Greeting,
    Ready,
    Running,
    Closing,
}

impl State {
    fn reach(self, table: &mut Table) -> ConnectionId {
        if self == State::Greeting {
            let id = table.open();
            assert_eq!(table.say(id, MAGIC), "");
            return id;
        }
        let id = table.frame("alice");
        match self {
            State::Running => {
                let run = br#"{"op": "run", "command": "cat", "stdin": true}"#;
                table.send(id, client::REQUEST, 5, run);
                table.started();
            }
            State::Closing => {
                table.get_stuck(id);
                table.send(id, client::GOODBYE, 0, b"");
            }
            State::Greeting | State::Ready => {}
        }
        id
    }

    /// The kinds of frames that answer, and whether that is the end.
    fn answer(self, kind: u8) -> (&'static [u8], Option<CloseReason>) {
        match (self, kind) {
            (State::Closing, _) => (&[], None),
            (State::Greeting, client::HELLO) => (&[server::WELCOME], None),
            (State::Greeting, _) => (&[server::GOODBYE], Some(CloseReason::Protocol)),
            (_, client::HELLO) => (&[server::ERROR], None),
            (State::Ready, client::REQUEST) => (&[server::DETAIL, server::END], None),
            (_, client::REQUEST | client::MESSAGE) => (&[server::ERROR], None),
            (_, client::PING) => (&[server::PONG], None),
            (_, client::GOODBYE) => (&[server::GOODBYE], Some(CloseReason::PeerLeft)),
            (_, client::DATA..=client::PONG) => (&[], None),
            _ => (&[server::GOODBYE], Some(CloseReason::Protocol)),
        }
    }
}

#[test]
fn every_frame_in_every_state() {
    let hello = &hello("alice")[8..];
    let letter = &message(0, "nobody", "x")[8..];
    let body = |kind: u8| match kind {
        client::HELLO => hello,
        client::REQUEST => br#"{"op": "echo", "text": "x"}"#,
        client::MESSAGE => letter,
        client::DATA => b"input",
        client::CREDIT => &[0, 0, 0, 1],
        _ => b"",
    };
    for state in [State::Greeting, State::Ready, State::Running, State::Closing] {
        for kind in 0..=255 {
            let mut table = Table::new();
            let id = state.reach(&mut table);
            let heard = table.send(id, kind, 5, body(kind));
            let (answer, end) = state.answer(kind);
            assert_eq!(heard, answer, "{kind:#04x} while {state:?}");
            assert_eq!(table.closed(id), end, "{kind:#04x} while {state:?}");
            let effect = match (state, kind) {
                (State::Running, client::DATA | client::END) => "[Feed",
                (State::Running, client::CANCEL) => "[Terminate",
                (State::Running, _) if end.is_some() => "[Stop",
                _ => "[]",
            };
            let effects = format!("{:?}", table.effects);
            assert!(effects.starts_with(effect), "{kind:#04x} while {state:?}: {effects}");
        }
    }
}

/// Nobody asked for the receipts to come all at once, so reading less cannot help.
#[test]
fn whoever_cannot_take_even_its_receipts_is_let_go() {
    let limits = Limits {
        outbox_max_bytes: 2000,
        outbox_pause_bytes: 1000,
        outbox_low_bytes: 500,
        ..Limits::default()
    };
    let mut table = Table::with(limits);
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    (1..=200).for_each(|tag| assert_eq!(table.say(alice, message(tag, "bob", "hi")), ""));
    table.get_stuck(alice);
    (1..=200).for_each(|serial| drop(table.send(bob, client::ACKNOWLEDGE, serial, b"")));
    assert_eq!(table.closed(alice), Some(CloseReason::SlowConsumer));
    assert_eq!(table.closed(bob), None);
}

#[test]
fn frames_with_bodies_that_are_none_of_theirs_end_the_connection() {
    for (kind, body) in [
        (client::CREDIT, &b"123"[..]),
        (client::PING, b"x"),
        (client::END, b"x"),
        (client::MESSAGE, b"\0\xffab"),
        (client::HELLO, b"{}"),
        (client::GOODBYE, b"bye"),
    ] {
        let mut table = Table::new();
        let id = table.frame("alice");
        assert_eq!(table.send(id, kind, 1, body), [server::GOODBYE], "{kind:#04x}");
        assert_eq!(table.closed(id), Some(CloseReason::Protocol));
    }
    let mut table = Table::new();
    let id = table.frame("alice");
    let heard = table.say(id, [client::PING, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert!(heard.contains("protocol"), "a length is refused before its bytes are awaited");
    assert_eq!(table.closed(id), Some(CloseReason::Protocol));
}

#[test]
fn lines_that_go_on_in_another_dialect_end_the_connection() {
    for line in ["{\"method\": \"ls\"}", "GET / HTTP/1.1", "Host: localhost"] {
        let mut table = Table::new();
        let id = table.line("alice");
        assert!(table.say(id, format!("{line}\n")).starts_with("error protocol: "), "{line}");
        assert_eq!(table.closed(id), Some(CloseReason::Protocol));
    }
}

#[test]
fn a_download_is_started_as_the_dialect_can_take_it() {
    let mut table = Table::new();
    let (line, framed) = (table.line("alice"), table.frame("bob"));
    table.say(line, "download a/b\n");
    table.input(Input::Bytes {
        connection: framed,
        bytes: &frame_of(client::REQUEST, 1, br#"{"op": "download", "path": "a/b"}"#),
    });
    let verified: Vec<bool> = table
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Start { work: Work::Download { verified, .. }, .. } => *verified,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(verified, [false, true]);
}

#[test]
fn what_comes_behind_a_file_before_its_answer_is_more_of_it_and_never_a_request() {
    let whole = b"upload 4 f\nfilerun touch F\n";
    for cut in [11, 13, 15, 16, whole.len()] {
        let mut table = Table::new();
        let id = table.line("alice");
        let said = [&whole[..cut], &whole[cut..]].map(|bytes| table.say(id, bytes)).concat();
        assert!(said.starts_with("error protocol: more bytes came than"), "{cut}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(table.closed(id), Some(CloseReason::Protocol));
        let is_run =
            |effect: &Effect| matches!(effect, Effect::Start { work: Work::Run { .. }, .. });
        assert!(!table.effects.iter().any(is_run));
        table.hub.check_invariants();
    }
    // White space is no request, and what comes behind the answer is one.
    let mut table = Table::new();
    let id = table.line("alice");
    assert_eq!(table.say(id, "upload 4 f\nfile\r\n"), "");
    assert_eq!(table.say(id, "\n"), "");
    assert!(table.hub.wants_input(id), "more of the file has to be noticed");
    let operation = table.started();
    table.input(Input::Ended { operation, outcome: Outcome::Done });
    assert_eq!(table.say(id, "echo on\n"), "on\n");
    assert_eq!(table.closed(id), None);
}
