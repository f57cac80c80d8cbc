//! JSON sessions of the hub: requests in, objects out, on a clock of its own.

#[path = "hub/objects.rs"]
mod objects;
#[path = "hub/table.rs"]
mod table;

use objects::{ask, named, objects, run};
use serde_json::{Value, json};
use sixfour::{
    hub::{Chunk, CloseReason, ConnectionId, Effect, Input, OperationId, Work},
    limits::Limits,
    wire::{ErrorCode, Outcome, Refusal, Stream, event::Entry, event::EntryKind, frame::client},
};
use table::{Table, message};

/// A session that has said nothing but its first brace, and an empty object.
fn open(table: &mut Table) -> ConnectionId {
    let id = table.open();
    assert_eq!(objects(&table.say(id, "{}"))[0]["errorcode"], 2);
    id
}

fn output(table: &mut Table, operation: OperationId, stream: Stream, bytes: &[u8]) {
    assert!(table.hub.room(operation) >= bytes.len(), "there is room");
    table.input(Input::Chunk { operation, chunk: Chunk::Output { stream, bytes } });
}

fn end(table: &mut Table, operation: OperationId, outcome: Outcome) {
    table.input(Input::Ended { operation, outcome });
}

fn exit(code: u8) -> Outcome {
    Outcome::Exit { code, directory: None }
}

fn killed() -> Outcome {
    Outcome::Signal { number: 15, because: None }
}

#[test]
fn a_command_has_one_reply_with_all_of_its_output() {
    let mut table = Table::new();
    let id = open(&mut table);
    let first = run(&mut table, id, json!({"method": "one", "id": "a"}));
    let second = run(&mut table, id, json!({"command": "two", "id": 2.5}));
    output(&mut table, first, Stream::Stdout, b"x");
    output(&mut table, second, Stream::Stderr, b"\xff");
    output(&mut table, first, Stream::Stderr, b"e");
    output(&mut table, first, Stream::Stdout, b"y");
    assert_eq!(table.heard(id), "");
    end(&mut table, second, exit(7));
    assert_eq!(
        table.heard(id),
        r#"{"id":2.5,"result":7,"stdout":"","stderr":{"base64":"/w=="},"errorcode":0}"#.to_owned()
            + "\n"
    );
    end(&mut table, first, exit(0));
    assert_eq!(
        objects(&table.heard(id)),
        [json!({"id": "a", "result": 0, "stdout": "xy", "stderr": "e", "errorcode": 0})]
    );
    let third = run(&mut table, id, json!({"method": "three", "id": 3}));
    let refusal = Refusal::new(0, ErrorCode::CannotStart, "no room");
    end(&mut table, third, Outcome::Failed(refusal));
    assert_eq!(
        objects(&table.heard(id)),
        [json!({"id": 3, "result": null, "stdout": "", "stderr": "", "errorcode": 4,
            "error": {"code": "cannot-start", "text": "no room"}})]
    );
}

#[test]
fn the_request_after_the_last_slot_waits_and_none_is_refused() {
    let limits = Limits { operations_max: 2, ..Limits::default() };
    let mut table = Table::with(limits);
    let id = open(&mut table);
    let many: String = (1..=5).map(|n| format!("{{\"method\":\"m{n}\",\"id\":{n}}}")).collect();
    assert_eq!(table.say(id, &many), "");
    assert!(!table.hub.wants_input(id));
    let mut answered = Vec::new();
    for _ in 0..5 {
        let is_start = |effect: &Effect| matches!(effect, Effect::Start { .. });
        let at = table.effects.iter().position(is_start).expect("one is started at least");
        let Effect::Start { operation, work, .. } = table.effects.remove(at) else {
            unreachable!("it was looked for")
        };
        assert!(matches!(work, Work::Run { .. }));
        end(&mut table, operation, exit(0));
        answered.extend(objects(&table.heard(id)).iter().map(|reply| reply["id"].clone()));
    }
    assert_eq!(answered, [1, 2, 3, 4, 5].map(Value::from));
    assert!(
        table.hub.wants_input(id) && table.effects.contains(&Effect::Resume { connection: id })
    );
}

#[test]
fn while_all_slots_are_taken_what_needs_none_goes_on() {
    let limits = Limits { operations_max: 1, ..Limits::default() };
    let mut table = Table::with(limits);
    let (id, bob) = (named(&mut table, "alice"), table.line("bob"));
    let operation = run(&mut table, id, json!({"method": "sleep", "id": 1}));
    assert_eq!(ask(&mut table, id, json!({"op": "ping", "id": 2}))[0]["id"], 2);
    let hi = json!({"op": "message", "to": "bob", "text": "hi", "id": 3});
    assert_eq!(ask(&mut table, id, hi)[0]["errorcode"], 0);
    assert_eq!(table.heard(bob), "alice|hi\n");
    let cancelled = ask(&mut table, id, json!({"op": "cancel", "target": 1, "id": 4}));
    assert_eq!((&cancelled[0]["id"], &cancelled[0]["cancelled"]), (&json!(4), &json!(1)));
    assert!(table.effects.contains(&Effect::Terminate { operation }));
    end(&mut table, operation, killed());
    assert_eq!(
        objects(&table.heard(id)),
        [json!({"id": 1, "result": 143, "stdout": "", "stderr": "", "errorcode": 0,
            "signal": 15, "because": "cancelled"})]
    );
    let cancelled = ask(&mut table, id, json!({"op": "cancel", "target": 1, "id": 5}));
    assert_eq!(cancelled[0]["cancelled"], 0);
}

#[test]
fn an_id_means_what_was_written_and_may_stand_twice() {
    let mut table = Table::new();
    let id = open(&mut table);
    let operations: Vec<OperationId> = ["1", "1.0", "\"1\"", "1"]
        .map(|label| {
            assert_eq!(table.say(id, format!("{{\"method\":\"x\",\"id\":{label}}}")), "");
            table.started()
        })
        .into();
    let reply = objects(&table.say(id, "{\"op\":\"cancel\",\"target\":1,\"id\":0}"));
    assert_eq!(reply[0]["cancelled"], 2);
    let terminated: Vec<bool> = operations
        .iter()
        .map(|it| table.effects.contains(&Effect::Terminate { operation: *it }))
        .collect();
    assert_eq!(terminated, [true, false, false, true]);
    for (operation, label) in operations.into_iter().zip(["1", "1.0", "\"1\"", "1"]) {
        end(&mut table, operation, exit(0));
        assert!(table.heard(id).starts_with(&format!("{{\"id\":{label},")));
    }
}

#[test]
fn output_up_to_the_bound_is_kept_and_one_byte_more_ends_the_command() {
    let limits = Limits {
        reply_max_bytes: 10,
        content_max_bytes: 10,
        replies_session_max_bytes: 100,
        ..Limits::default()
    };
    let mut table = Table::with(limits);
    let id = open(&mut table);
    let exact = run(&mut table, id, json!({"method": "x", "id": 1}));
    output(&mut table, exact, Stream::Stdout, b"12345");
    output(&mut table, exact, Stream::Stderr, b"67890");
    end(&mut table, exact, exit(0));
    let reply = &objects(&table.heard(id))[0];
    assert_eq!((&reply["stderr"], reply.get("truncated")), (&json!("67890"), None));
    table.effects.clear();
    let over = run(&mut table, id, json!({"method": "y", "id": 2}));
    output(&mut table, over, Stream::Stdout, b"123456789");
    assert_eq!(table.effects, []);
    output(&mut table, over, Stream::Stderr, b"0x");
    assert_eq!(table.effects, [Effect::Terminate { operation: over }]);
    assert_eq!(table.hub.room(over), 0);
    end(&mut table, over, killed());
    assert_eq!(
        objects(&table.heard(id)),
        [json!({"id": 2, "result": 143, "stdout": "123456789", "stderr": "0", "errorcode": 4,
            "signal": 15, "truncated": true, "because": "output-limit"})]
    );
}

fn entry(name: &str) -> Entry {
    Entry { name: name.into(), kind: EntryKind::File, size: 1, modified: 2 }
}

#[test]
fn a_listing_beyond_the_bound_says_that_it_is_cut() {
    let limits = Limits { reply_max_bytes: 300, content_max_bytes: 300, ..Limits::default() };
    let mut table = Table::with(limits);
    let id = open(&mut table);
    let listing = run(&mut table, id, json!({"op": "ls", "id": 1}));
    let mut given = 0;
    while table.hub.room(listing) > 0 {
        let chunk = Chunk::Entries(&[entry("name")]);
        table.input(Input::Chunk { operation: listing, chunk });
        given += 1;
        assert!(given < 100, "it goes on for ever");
    }
    assert!(table.effects.contains(&Effect::Terminate { operation: listing }));
    let refusal = Refusal::new(0, ErrorCode::Cancelled, "cancelled by the client");
    end(&mut table, listing, Outcome::Failed(refusal));
    let reply = &objects(&table.heard(id))[0];
    assert_eq!((&reply["truncated"], &reply["errorcode"]), (&json!(true), &json!(4)));
    assert_eq!(reply["entries"].as_array().map(Vec::len), Some(given));
    assert_eq!((reply.get("error"), &reply["because"]), (None, &json!("output-limit")));
}

#[test]
fn an_empty_list_is_a_list() {
    let mut table = Table::new();
    let id = open(&mut table);
    assert_eq!(ask(&mut table, id, json!({"op": "who", "id": 1}))[0]["users"], json!([]));
    let listing = run(&mut table, id, json!({"op": "ls", "id": 2}));
    end(&mut table, listing, Outcome::Counted { count: 0, noun: "entries" });
    assert_eq!(objects(&table.heard(id))[0]["entries"], json!([]));
}

/// One that does not read fills its own replies alone, and all but the largest of them wait.
#[test]
fn replies_that_hold_too_much_wait_for_the_largest() {
    let limits = Limits {
        reply_max_bytes: 100,
        content_max_bytes: 100,
        replies_session_max_bytes: 100,
        ..Limits::default()
    };
    let mut table = Table::with(limits);
    let id = open(&mut table);
    let large = run(&mut table, id, json!({"method": "large", "id": 1}));
    let small = run(&mut table, id, json!({"method": "small", "id": 2}));
    output(&mut table, large, Stream::Stdout, &[b'x'; 60]);
    output(&mut table, small, Stream::Stdout, &[b'y'; 40]);
    assert_eq!(table.hub.room(small), 0);
    output(&mut table, large, Stream::Stdout, &[b'x'; 30]);
    assert_eq!(table.effects, []);
    end(&mut table, large, exit(0));
    let release = Effect::Release { operation: large };
    assert_eq!(table.effects, [release, Effect::Pull { operation: small }]);
    output(&mut table, small, Stream::Stdout, &[b'y'; 10]);
    end(&mut table, small, exit(0));
    let lengths: Vec<_> = objects(&table.heard(id))
        .iter()
        .map(|reply| reply["stdout"].as_str().map(str::len))
        .collect();
    assert_eq!(lengths, [Some(90), Some(50)]);
}

#[test]
fn the_total_of_all_replies_is_bounded() {
    let limits = Limits {
        reply_max_bytes: 100,
        content_max_bytes: 100,
        replies_session_max_bytes: 100,
        replies_total_max_bytes: 150,
        ..Limits::default()
    };
    let mut table = Table::with(limits);
    let (one, other) = (open(&mut table), open(&mut table));
    let first = run(&mut table, one, json!({"method": "x", "id": 1}));
    let second = run(&mut table, other, json!({"method": "y", "id": 2}));
    output(&mut table, first, Stream::Stdout, &[b'x'; 100]);
    output(&mut table, second, Stream::Stdout, &[b'y'; 60]);
    assert_eq!(table.effects, [Effect::Terminate { operation: second }]);
    end(&mut table, second, killed());
    let reply = &objects(&table.heard(other))[0];
    assert_eq!(reply["stdout"].as_str().map(str::len), Some(50));
    assert_eq!(reply["truncated"], true);
    end(&mut table, first, exit(0));
    assert!(objects(&table.heard(one))[0].get("truncated").is_none());
}

#[test]
fn nothing_comes_within_a_large_reply_and_what_waited_follows_it() {
    let mut table = Table::new();
    let (id, bob) = (named(&mut table, "alice"), table.line("bob"));
    let large = run(&mut table, id, json!({"method": "large", "id": 1}));
    let small = run(&mut table, id, json!({"method": "small", "id": 2}));
    for _ in 0..40 {
        output(&mut table, large, Stream::Stdout, &[b'x'; 60_000]);
    }
    table.get_stuck(id);
    end(&mut table, large, exit(0));
    table.say(bob, "hi|alice\n");
    end(&mut table, small, exit(0));
    // Requests wait as well, for their replies would.
    assert_eq!(table.say(id, json!({"op": "ping", "id": 3}).to_string()), "");
    assert!(table.hub.unsent_bytes(id) < 1 << 20, "it is not written before it is taken");
    table.get_unstuck(id);
    let heard = objects(&table.heard(id));
    assert_eq!(heard[0]["stdout"].as_str().map(str::len), Some(2_400_000));
    assert_eq!(heard[1], json!({"event": "message", "from": "bob", "text": "hi"}));
    assert_eq!((&heard[2]["id"], &heard[3]["id"]), (&json!(2), &json!(3)));
}

#[test]
fn a_small_file_stands_in_the_reply_and_a_large_one_goes_ahead() {
    let limits = Limits { content_max_bytes: 6, ..Limits::default() };
    let mut table = Table::with(limits);
    let id = open(&mut table);
    for (size, parts) in [(6, [&b"abc"[..], b"d\xffe"]), (7, [b"abc", b"defg"])] {
        let file = run(&mut table, id, json!({"op": "download", "path": "d/f", "id": size}));
        assert!(table.hub.wants_content(file));
        table.input(Input::Opened { operation: file, name: b"f", size, modified: 5 });
        parts.iter().for_each(|part| output(&mut table, file, Stream::Stdout, part));
        end(&mut table, file, Outcome::Sent { hash: [0xab; 32] });
        let heard = objects(&table.heard(id));
        let reply = heard.last().expect("there is a reply");
        let facts = [&reply["name"], &reply["size"], &reply["modified"], &reply["hash"]];
        let hash = "ab".repeat(32);
        assert_eq!(facts, [&json!("f"), &json!(size), &json!(5), &json!(hash)]);
        match size {
            6 => assert_eq!(reply["content"], json!({"base64": "YWJjZP9l"})),
            _ => assert_eq!(
                heard[..2],
                [
                    json!({"event": "content", "id": 7, "offset": 0,
                        "content": {"base64": "YWJj"}}),
                    json!({"event": "content", "id": 7, "offset": 3,
                        "content": {"base64": "ZGVmZw=="}}),
                ]
            ),
        }
    }
    let file = run(&mut table, id, json!({"op": "download", "path": "f", "id": 8}));
    table.input(Input::Opened { operation: file, name: b"f", size: 5, modified: 5 });
    output(&mut table, file, Stream::Stdout, b"part");
    let refusal = Refusal::new(0, ErrorCode::FileChanged, "it shrank");
    end(&mut table, file, Outcome::Failed(refusal));
    let reply = &objects(&table.heard(id))[0];
    assert_eq!((&reply["error"]["code"], reply.get("content")), (&json!("file-changed"), None));
}

#[test]
fn standard_input_is_given_whole_however_large() {
    let mut table = Table::new();
    let id = open(&mut table);
    let input = "x".repeat(600_000);
    let cat = run(&mut table, id, json!({"method": "cat", "stdin": input, "id": 1}));
    assert!(table.effects.contains(&Effect::Feed { operation: cat }));
    assert_eq!(table.hub.standard_input(cat), Some((input.as_bytes(), true)));
    table.input(Input::InputTaken { operation: cat, count: 500_000 });
    assert_eq!(table.hub.standard_input(cat), Some((&input.as_bytes()[..100_000], true)));
    table.input(Input::InputClosed { operation: cat });
    assert_eq!(table.heard(id), "", "there is no credit in JSON");
    end(&mut table, cat, exit(0));
    assert_eq!(objects(&table.heard(id))[0]["result"], 0);
}

#[test]
fn host_commands_are_asked_for_in_any_case_and_other_operations_are_not() {
    let mut table = Table::new();
    let id = open(&mut table);
    for op in ["IP", "Name", "rAM", "OS", "Cpu", "INFO", "Python-Version"] {
        run(&mut table, id, json!({"op": op, "id": 1}));
    }
    run(&mut table, id, json!({"op": "PING", "host": "::1", "id": 1}));
    for (op, member) in [("Help", "text"), ("PinG", "result"), ("CLEAR", "stdout")] {
        let reply = &ask(&mut table, id, json!({"op": op, "id": op}))[0];
        assert!(reply["errorcode"] == 0 && reply.get(member).is_some(), "{reply}");
    }
    for op in ["ECHO", "Who", "LS", "pings"] {
        assert_eq!(ask(&mut table, id, json!({"op": op, "id": 1, "text": ""}))[0]["errorcode"], 2);
    }
    let other = open(&mut table);
    assert_eq!(ask(&mut table, id, json!({"op": "Reset", "id": 2}))[0]["errorcode"], 0);
    assert!(table.effects.contains(&Effect::ListenAgain));
    assert_eq!(objects(&table.heard(other))[0]["error"]["code"], "reset");
}

#[test]
fn an_answer_in_an_object_has_no_empty_list_beside_it() {
    let mut table = Table::new();
    let id = open(&mut table);
    let list = run(&mut table, id, json!({"op": "edge.list", "id": 1}));
    let devices = json!({"edge": "devices", "devices": [{"device": "watch"}]});
    let object = serde_json::from_value(devices.clone()).expect("an object");
    table.input(Input::Chunk { operation: list, chunk: Chunk::Object(&object) });
    end(&mut table, list, Outcome::Counted { count: 1, noun: "devices" });
    let reply = json!({
        "id": 1, "result": null, "stdout": "", "stderr": "", "errorcode": 0, "count": 1,
        "object": devices,
    });
    assert_eq!(objects(&table.heard(id)), [reply]);
}

#[test]
fn time_ends_a_command_and_its_reply_says_so_whatever_its_exit() {
    let mut table = Table::new();
    let id = open(&mut table);
    for (label, outcome, result) in [(1, killed(), 143), (2, exit(0), 0)] {
        table.effects.clear();
        let slow = run(&mut table, id, json!({"method": "x", "timeout_ms": 500, "id": label}));
        let now = table.now;
        table.at(now + 500);
        assert_eq!(table.effects, [Effect::Terminate { operation: slow }]);
        end(&mut table, slow, outcome);
        let reply = &objects(&table.heard(id))[0];
        let facts = (&reply["result"], &reply["because"], &reply["errorcode"]);
        assert_eq!(facts, (&json!(result), &json!("timed-out"), &json!(4)));
    }
}

#[test]
fn messages_are_answered_once_and_their_receipts_are_events() {
    let mut table = Table::new();
    let alice = named(&mut table, "alice");
    let (bob, carol) = (table.frame("bob"), named(&mut table, "carol"));
    let dave = table.line("dave");
    let to_all = json!({"op": "message", "to": ["bob", "carol", "dave", "eve", "alice"],
        "text": "hi\n", "id": "m", "receipt": true});
    let heard = ask(&mut table, alice, to_all);
    let reply = heard.iter().find(|it| it.get("event").is_none()).expect("a reply");
    assert_eq!((&reply["id"], &reply["errorcode"]), (&json!("m"), &json!(2)));
    assert_eq!(reply["error"]["code"], "no-such-user");
    assert_eq!(reply["errors"][1]["code"], "bad-arguments");
    let delivered: Vec<_> = heard.iter().filter(|it| it["event"] == "delivered").collect();
    assert_eq!(delivered.len(), 2);
    assert!(delivered.iter().all(|it| it["id"] == "m" && it["by"] == "connection"));
    assert_eq!(
        objects(&table.heard(carol)),
        [json!({"event": "message", "from": "alice", "text": "hi\n"})]
    );
    assert_eq!(table.heard(dave), "alice|hi\\n\n");
    table.kinds(bob);
    table.send(bob, client::ACKNOWLEDGE, 1, b"");
    assert_eq!(
        objects(&table.heard(alice)),
        [json!({"event": "delivered", "id": "m", "to": "bob", "by": "client"})]
    );
    // Without a receipt there is only the reply.
    let one = json!({"op": "message", "to": "bob", "text": "x", "id": 2});
    assert_eq!(
        ask(&mut table, alice, one),
        [json!({"id": 2, "result": null, "stdout": "", "stderr": "", "errorcode": 0})]
    );
    // What is lost later is told later, with the id where there is one.
    ask(
        &mut table,
        alice,
        json!({"op": "message", "to": "bob", "text": "x", "id": 3, "receipt": true}),
    );
    table.send(bob, client::GOODBYE, 0, b"");
    let heard = objects(&table.heard(alice));
    assert_eq!((&heard[0]["event"], &heard[0]["id"]), (&json!("error"), &json!(3)));
    table.get_stuck(dave);
    ask(&mut table, alice, json!({"op": "message", "to": "dave", "text": "x", "id": 4}));
    table.input(Input::Gone { connection: dave });
    let heard = objects(&table.heard(alice));
    assert_eq!((&heard[0]["event"], heard[0].get("id")), (&json!("error"), None));
    assert_eq!(heard[0]["error"]["code"], "not-delivered");
    // Somebody with frames hears the same of somebody with JSON.
    let erin = table.frame("erin");
    assert!(table.say(erin, message(9, "carol", "x")).contains("\"connection\""));
}

#[test]
fn receipts_that_are_still_to_come_are_bounded() {
    let limits = Limits { receipts_max: 2, ..Limits::default() };
    let mut table = Table::with(limits);
    let (alice, bob, carol) =
        (named(&mut table, "alice"), table.frame("bob"), table.frame("carol"));
    let send = |table: &mut Table, to: &str, id: u32| {
        let request = json!({"op": "message", "to": to, "text": "x", "id": id, "receipt": true});
        ask(table, alice, request)[0]["error"]["code"].clone()
    };
    assert_eq!(send(&mut table, "bob", 1), json!(null));
    assert_eq!(send(&mut table, "carol", 2), json!(null));
    assert_eq!(send(&mut table, "bob", 3), "too-many");
    table.kinds(bob);
    table.send(bob, client::ACKNOWLEDGE, 1, b"");
    table.heard(alice);
    assert_eq!(send(&mut table, "bob", 4), json!(null));
    assert_eq!(table.kinds(carol).len(), 1);
}

#[test]
fn a_login_is_answered_and_a_refused_one_may_be_repeated() {
    let mut table = Table::new();
    let bob = table.line("bob");
    let id = open(&mut table);
    let hello = json!({"op": "message", "to": "bob", "text": "x", "id": 1});
    assert_eq!(ask(&mut table, id, hello)[0]["error"]["code"], "not-named");
    let login = |table: &mut Table, name: &str| {
        ask(table, id, json!({"op": "login", "user": name, "id": 2})).remove(0)
    };
    assert_eq!(login(&mut table, "bob")["error"]["code"], "name-taken");
    assert_eq!(login(&mut table, "Bob")["user"], "Bob");
    assert_eq!(login(&mut table, "carol")["error"]["code"], "already-named");
    assert!(table.say(bob, "hi|Bob\n").is_empty());
    assert_eq!(objects(&table.heard(id))[0]["text"], "hi");
}

#[test]
fn half_close_ends_the_requests_and_not_the_replies() {
    let mut table = Table::new();
    let id = table.open();
    assert_eq!(table.say(id, r#"{"method":"date","id":1}{"op":"who","id":2"#), "");
    table.input(Input::EndOfInput { connection: id });
    let heard = objects(&table.heard(id));
    assert_eq!((&heard[0]["id"], &heard[0]["errorcode"]), (&json!(null), &json!(1)));
    assert_eq!(table.closed(id), None);
    let date = table.started();
    end(&mut table, date, exit(0));
    assert_eq!(objects(&table.heard(id))[0]["id"], 1);
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
    // A large reply is fetched to its end first.
    let id = table.open();
    table.say(id, r#"{"method":"x","id":1}"#);
    let large = table.started();
    (0..9).for_each(|_| output(&mut table, large, Stream::Stdout, &[b'x'; 60_000]));
    table.input(Input::EndOfInput { connection: id });
    table.get_stuck(id);
    end(&mut table, large, exit(0));
    assert_eq!(table.closed(id), None);
    table.get_unstuck(id);
    assert_eq!(objects(&table.heard(id))[0]["stdout"].as_str().map(str::len), Some(540_000));
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
}

#[test]
fn quit_is_answered_and_ends_what_still_runs() {
    let mut table = Table::new();
    let id = open(&mut table);
    let sleep = run(&mut table, id, json!({"method": "sleep", "id": 1}));
    let heard = ask(&mut table, id, json!({"op": "quit", "id": 2}));
    assert_eq!(heard.len(), 1);
    assert_eq!((&heard[0]["id"], &heard[0]["errorcode"]), (&json!(2), &json!(0)));
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
    assert!(table.effects.contains(&Effect::Stop { operation: sleep }));
}

#[test]
fn the_first_request_is_due_and_a_broken_object_is_none() {
    for words in ["{", "{}", "{\"method\":", "{\"id\":1}{nonsense}"] {
        let mut table = Table::new();
        let id = table.open();
        table.at(9_000);
        table.input(Input::Bytes { connection: id, bytes: words.as_bytes() });
        table.at(9_999);
        assert_eq!(table.closed(id), None);
        table.at(10_000);
        assert_eq!(table.closed(id), Some(CloseReason::FirstRequestTimeout));
        let heard = objects(&table.heard(id));
        let last = heard.last().expect("it is told why");
        assert_eq!((&last["event"], &last["errorcode"]), (&json!("goodbye"), &json!(4)));
        assert_eq!(last["error"]["code"], "timed-out");
    }
    // Afterwards it may be silent for ever: the kernel asks whether it is there.
    let mut table = Table::new();
    let id = named(&mut table, "alice");
    table.at(100_000_000);
    assert_eq!((table.heard(id).as_str(), table.closed(id)), ("", None));
}

#[test]
fn what_is_no_object_ends_the_connection_after_its_answer() {
    for foreign in ["x", "[]", "GET / HTTP/1.1\r\n", "\u{fefe}{}", "user alice\n", "\x16\x03\x01"] {
        for portion in [1, 100] {
            let mut table = Table::new();
            let id = table.open();
            let words =
                format!("{{\"op\":\"ping\",\"id\":1}} {foreign}{{\"method\":\"x\",\"id\":2}}");
            for bytes in words.as_bytes().chunks(portion) {
                table.input(Input::Bytes { connection: id, bytes });
            }
            let heard = objects(&table.heard(id));
            assert_eq!(heard.len(), 2, "{foreign:?}");
            assert_eq!((&heard[1]["id"], &heard[1]["errorcode"]), (&json!(null), &json!(1)));
            assert_eq!(heard[1]["error"]["code"], "protocol");
            assert_eq!(table.closed(id), Some(CloseReason::Protocol));
            assert_eq!(table.effects, []);
        }
    }
}

#[test]
fn what_runs_is_answered_before_nonsense_ends_the_connection() {
    let deep = "{\"a\":".repeat(40);
    for nonsense in ["not json\n", &deep] {
        let mut table = Table::new();
        let id = open(&mut table);
        let operation = run(&mut table, id, json!({"method": "sleep", "id": 1}));
        assert_eq!(table.say(id, nonsense), "");
        assert_eq!(table.say(id, r#"{"method":"never","id":2}"#), "", "nothing more is taken");
        assert_eq!((table.effects.len(), table.closed(id)), (0, None));
        end(&mut table, operation, exit(3));
        let heard = objects(&table.heard(id));
        assert_eq!((heard.len(), &heard[0]["id"], &heard[0]["result"]), (2, &json!(1), &json!(3)));
        assert_eq!((&heard[1]["event"], &heard[1]["errorcode"]), (&json!("goodbye"), &json!(1)));
        assert_eq!(heard[1]["error"]["code"], "protocol");
        assert_eq!(table.closed(id), Some(CloseReason::Protocol));
    }
}

#[test]
fn one_quote_too_many_costs_one_request_and_no_other() {
    for portion in [1, 2, 7, 31, 1000] {
        let mut table = Table::new();
        let id = open(&mut table);
        let bad = "{\"method\":\"echo it\"s\",\"id\":1}\n";
        let good = |id: u32| format!("{{\"op\":\"ping\",\"id\":{id}}}\n");
        let words = [bad, &good(2), bad, &good(3), &good(4)].concat();
        let mut heard = String::new();
        for (bytes, at) in words.as_bytes().chunks(portion).zip(1..) {
            table.input(Input::Bytes { connection: id, bytes });
            heard.push_str(&table.heard(id));
            let is_told = portion * at < bad.len() || !heard.is_empty();
            assert!(is_told, "the line end is enough");
        }
        let ids = objects(&heard).iter().map(|reply| reply["id"].clone()).collect::<Vec<_>>();
        assert_eq!(json!(ids), json!([null, 2, null, 3, 4]), "{portion}");
        assert_eq!(objects(&heard)[0]["error"]["code"], "bad-json");
        table.hub.check_invariants();
    }
}

#[test]
fn blanks_before_the_first_byte_that_says_something_choose_nothing() {
    for blank in ["\n", "\r\n", " ", "\t", "\u{feff}", "\u{feff}\r\n\u{feff}", &" ".repeat(100)] {
        for portion in [1, 1000] {
            let mut table = Table::new();
            let (json, lines, array) = (table.open(), table.open(), table.open());
            for (id, words) in
                [(json, "{\"op\":\"ping\",\"id\":1}"), (lines, "echo hi\n"), (array, "[")]
            {
                for bytes in [blank, words].concat().as_bytes().chunks(portion) {
                    table.input(Input::Bytes { connection: id, bytes });
                }
            }
            assert_eq!(objects(&table.heard(json))[0]["id"], 1);
            assert_eq!(table.heard(lines), "hi\n");
            let heard = objects(&table.heard(array));
            assert_eq!((heard.len(), &heard[0]["errorcode"]), (1, &json!(1)));
            assert_eq!(table.closed(array), Some(CloseReason::Protocol));
        }
    }
}

#[test]
fn strangers_are_told_in_an_object_that_they_are_not_served() {
    let mut table = Table::new();
    let id = table.open_from("10.0.0.1:9");
    let heard = objects(&table.say(id, r#"{"method":"ls","id":1}"#));
    assert_eq!((heard.len(), &heard[0]["errorcode"]), (1, &json!(2)));
    assert_eq!(heard[0]["error"]["code"], "denied");
    assert_eq!(table.closed(id), Some(CloseReason::NotAdmitted));
}

#[test]
fn a_stop_lets_what_runs_finish_and_says_goodbye() {
    let mut table = Table::new();
    let (idle, busy) = (open(&mut table), open(&mut table));
    let date = run(&mut table, busy, json!({"method": "date", "id": 1}));
    table.at(1_000);
    table.input(Input::Stop);
    let heard = objects(&table.heard(idle));
    assert_eq!((heard.len(), &heard[0]["event"]), (1, &json!("goodbye")));
    assert_eq!(table.closed(idle), Some(CloseReason::ShuttingDown));
    assert_eq!(objects(&table.heard(busy))[0]["event"], "error");
    let refused = ask(&mut table, busy, json!({"method": "late", "id": 2}));
    assert_eq!((&refused[0]["id"], &refused[0]["errorcode"]), (&json!(2), &json!(4)));
    end(&mut table, date, exit(0));
    let heard = objects(&table.heard(busy));
    assert_eq!((&heard[0]["id"], &heard[1]["event"]), (&json!(1), &json!("goodbye")));
    assert_eq!(table.closed(busy), Some(CloseReason::ShuttingDown));
}

#[test]
fn a_space_between_objects_finds_out_whether_a_program_that_says_no_more_still_reads() {
    let mut table = Table::new();
    let every = Limits::default().watch_every.as_millis() as u64;
    let id = open(&mut table);
    let operation = run(&mut table, id, json!({"method": "sleep", "id": 1}));
    let watch = |holds| Effect::Watch { connection: id, holds };
    table.at(every);
    assert!(table.effects.contains(&watch(true)), "{:?}", table.effects);
    assert_eq!(table.heard(id), "", "one that may still ask is asked by the kernel alone");
    table.input(Input::EndOfInput { connection: id });
    table.at(2 * every);
    table.at(3 * every);
    assert_eq!(table.heard(id), "  ");
    end(&mut table, operation, exit(0));
    assert_eq!(objects(&table.heard(id))[0]["result"], 0);
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
}

#[test]
fn a_session_for_which_nothing_is_held_is_not_looked_at() {
    let mut table = Table::new();
    let every = Limits::default().watch_every.as_millis() as u64;
    let id = open(&mut table);
    table.at(2 * every);
    let is_watch = |effect: &Effect| matches!(effect, Effect::Watch { .. });
    assert!(!table.effects.iter().any(is_watch));
    let operation = run(&mut table, id, json!({"method": "true", "id": 1}));
    end(&mut table, operation, exit(0));
    table.at(11 * every);
    assert!(table.effects.contains(&Effect::Watch { connection: id, holds: false }));
    table.effects.clear();
    table.at(30 * every);
    assert!(!table.effects.iter().any(is_watch), "{:?}", table.effects);
}
