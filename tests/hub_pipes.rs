//! The hub between two users: offers and their answers, pipes and their ends, as a table.

#[path = "hub/table.rs"]
mod table;

use serde_json::{Value, json};
use sixfour::{
    hub::{CloseReason, Effect, Input, SessionId},
    limits::Limits,
    wire::frame::{Frame, client, server},
};
use table::{Table, frame_of, message};

const WINDOW: usize = 256 * 1024;

/// What a framed session has heard: the kind, the number and the body, JSON where it is JSON.
fn news(table: &mut Table, id: SessionId) -> Vec<(u8, u32, Value)> {
    let bytes = table.heard_bytes(id);
    let (mut rest, mut news) = (&bytes[..], Vec::new());
    while let Some(frame) = Frame::split(rest).expect("good frames") {
        let body = match serde_json::from_slice(frame.body) {
            Ok(body @ Value::Object(_)) => body,
            _ => json!(String::from_utf8_lossy(frame.body)),
        };
        news.push((frame.kind, frame.number, body));
        rest = &rest[frame.length()..];
    }
    assert!(rest.is_empty(), "whole frames");
    news
}

/// The same where there is one thing.
#[track_caller]
fn only(table: &mut Table, id: SessionId) -> (u8, u32, Value) {
    let mut news = news(table, id);
    assert_eq!(news.len(), 1, "{news:?}");
    news.remove(0)
}

fn request(table: &mut Table, id: SessionId, tag: u32, body: Value) {
    let bytes = frame_of(client::REQUEST, tag, body.to_string().as_bytes());
    table.input(Input::Bytes { session: id, bytes: &bytes });
}

/// A frame in, with whatever is heard left for later.
fn put(table: &mut Table, id: SessionId, kind: u8, tag: u32, body: &[u8]) {
    let bytes = frame_of(kind, tag, body);
    table.input(Input::Bytes { session: id, bytes: &bytes });
}

fn ended(tag: u32, outcome: Value) -> (u8, u32, Value) {
    (server::END, tag, outcome)
}

#[track_caller]
fn assert_failed(news: &(u8, u32, Value), tag: u32, code: &str) {
    assert_eq!((news.0, news.1), (server::END, tag), "{news:?}");
    assert_eq!((&news.2["outcome"], &news.2["code"]), (&json!("failed"), &json!(code)), "{news:?}");
}

/// A sender and a receiver with frames, in conversation, under the tags 1 and 2.
fn talk(table: &mut Table) -> (SessionId, SessionId) {
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "form": "conversation"});
    request(table, alice, 1, offer);
    request(table, bob, 2, json!({"op": "accept", "offer": 1, "form": "conversation"}));
    let accepted = json!({"event": "accepted", "by": "bob", "form": "conversation"});
    assert_eq!(only(table, alice), (server::DETAIL, 1, accepted));
    let accepted = json!({"event": "accepted", "by": "alice", "form": "conversation"});
    assert_eq!(news(table, bob).pop(), Some((server::DETAIL, 2, accepted)));
    (alice, bob)
}

/// The same with a file of so many bytes as it is.
fn send_raw(table: &mut Table, size: usize) -> (SessionId, SessionId) {
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    request(table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": size}));
    request(table, bob, 2, json!({"op": "accept", "offer": 1}));
    (table.kinds(alice), table.kinds(bob));
    (alice, bob)
}

#[test]
fn a_file_goes_from_line_to_line_exactly_as_it_is() {
    let content = "who\nquit\n\0\u{1b}no line end";
    let text = format!("send {} my plan.txt bob\n{content}who\n", content.len());
    for portion in [1, 3, 7, text.len()] {
        let mut table = Table::new();
        let (alice, bob) = (table.line("alice"), table.line("bob"));
        text.as_bytes().chunks(portion).for_each(|bytes| {
            table.input(Input::Bytes { session: alice, bytes });
        });
        assert_eq!(table.heard(bob), format!("offer 1 alice {} my plan.txt\n", content.len()));
        assert!(!table.hub.wants_input(alice), "its bytes wait for the answer");
        let file = format!("file {} my plan.txt\n{content}", content.len());
        assert_eq!(table.say(bob, "accept 1\n"), file);
        // The line behind the bytes is a request again.
        assert_eq!(table.heard(alice), "accepted bob\ndelivered\nalice\nbob\n[2 users]\n");
        assert!(table.hub.wants_input(alice) && table.hub.wants_input(bob));
        assert_eq!(table.say(bob, "echo next\n"), "next\n");
        assert_eq!(table.hub.ends_count(), 0);
    }
}

#[test]
fn a_file_goes_from_frames_to_lines_and_back_with_its_hash_where_that_can_be_told() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 5, "form": "conversation"});
    request(&mut table, alice, 1, offer);
    assert_eq!(table.heard(bob), "offer 1 alice 5 a\n");
    assert_eq!(table.say(bob, "accept 1\n"), "file 5 a\n");
    // Lines cannot talk: the file goes as it is.
    assert_eq!(only(&mut table, alice).2, json!({"event": "accepted", "by": "bob", "form": "raw"}));
    put(&mut table, alice, client::DATA, 1, b"hel");
    put(&mut table, alice, client::DATA, 1, b"lo");
    assert_eq!(table.heard(bob), "hello");
    put(&mut table, alice, client::END, 1, &[7; 32]);
    let delivered = json!({"outcome": "delivered", "by": "connection"});
    assert_eq!(only(&mut table, alice), ended(1, delivered));
    assert_eq!(table.say(bob, "send 3 b.txt alice\nabc"), "");
    let offer = json!({
        "event": "offer", "offer": 1, "from": "bob", "name": "b.txt", "size": 3, "form": "raw",
    });
    assert_eq!(only(&mut table, alice), (server::DETAIL, 0, offer));
    request(&mut table, alice, 2, json!({"op": "accept", "offer": 1, "form": "conversation"}));
    assert_eq!(table.heard(bob), "accepted alice\ndelivered\n");
    let file = json!({"event": "file", "name": "b.txt", "size": 3, "modified": 0});
    let all = vec![
        (server::DETAIL, 2, file),
        (server::DATA, 2, json!("abc")),
        ended(2, json!({"outcome": "done"})),
    ];
    assert_eq!(news(&mut table, alice), all);
}

#[test]
fn the_hash_and_the_time_that_the_sender_tells_reach_the_receiver() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 0, "modified": 7});
    request(&mut table, alice, 1, offer);
    assert_eq!(only(&mut table, bob).2["modified"], 7);
    request(&mut table, bob, 2, json!({"op": "accept", "offer": 1}));
    assert_eq!(only(&mut table, bob).2["modified"], 7);
    let hash = blake3::hash(b"");
    put(&mut table, alice, client::END, 1, hash.as_bytes());
    let sent = json!({"outcome": "sent", "hash": hash.to_string()});
    assert_eq!(only(&mut table, bob), ended(2, sent));
}

#[test]
fn a_conversation_goes_both_ways_until_both_have_said_all() {
    let mut table = Table::new();
    let (alice, bob) = talk(&mut table);
    put(&mut table, alice, client::DATA, 1, b"list");
    put(&mut table, bob, client::DATA, 2, b"want");
    assert_eq!(only(&mut table, bob), (server::DATA, 2, json!("list")));
    assert_eq!(only(&mut table, alice), (server::DATA, 1, json!("want")));
    put(&mut table, bob, client::END, 2, b"");
    assert_eq!(only(&mut table, alice), (server::DETAIL, 1, json!({"event": "data-end"})));
    put(&mut table, alice, client::DATA, 1, b"data");
    assert_eq!(only(&mut table, bob), (server::DATA, 2, json!("data")));
    put(&mut table, alice, client::END, 1, b"");
    assert_eq!(only(&mut table, alice), ended(1, json!({"outcome": "done"})));
    let rest = vec![
        (server::DETAIL, 2, json!({"event": "data-end"})),
        ended(2, json!({"outcome": "done"})),
    ];
    assert_eq!(news(&mut table, bob), rest);
    assert_eq!((table.hub.ends_count(), table.effects.len()), (0, 0));
}

#[test]
fn introductions_are_passed_on_with_the_address_and_without_one_there_is_none() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    let ours = json!({"key": "k1", "ports": [1, 2]});
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 1, "introduction": ours});
    request(&mut table, alice, 1, offer);
    let offer = only(&mut table, bob).2;
    assert_eq!((&offer["introduction"], &offer["address"]), (&ours, &json!("[::1]:9")));
    let theirs = json!({"key": "k2"});
    request(&mut table, bob, 2, json!({"op": "accept", "offer": 1, "introduction": theirs}));
    let accepted = only(&mut table, alice).2;
    assert_eq!((&accepted["introduction"], &accepted["address"]), (&theirs, &json!("[::1]:9")));
    let long = json!({"key": "k".repeat(2048)});
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 1, "introduction": long});
    request(&mut table, alice, 3, offer);
    assert_failed(&only(&mut table, alice), 3, "text-too-long");
}

#[test]
fn an_address_is_written_as_what_it_is() {
    let mut table = Table::new();
    let bob = table.frame("bob");
    let alice = table.open_from("[::ffff:127.0.0.1]:77");
    table.input(Input::Bytes { session: alice, bytes: &sixfour::wire::frame::MAGIC });
    table.input(Input::Bytes { session: alice, bytes: &table::hello("alice") });
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 1, "introduction": {}});
    request(&mut table, alice, 1, offer);
    assert_eq!(only(&mut table, bob).2["address"], "127.0.0.1:77");
}

#[test]
fn what_cannot_be_offered_is_refused_at_once() {
    let mut table = Table::new();
    let nameless = table.open();
    let heard = table.say(nameless, "send 5 a bob\nwho\n\necho on\n");
    assert!(heard.starts_with("error not-named: ") && heard.ends_with("\non\n"), "{heard}");
    let (alice, _) = (table.line("alice"), table.line("bob"));
    for (line, code) in [
        ("send 4 a carol\nquit", "no-such-user"),
        ("send 4 a alice\nquit", "bad-arguments"),
        ("send 4 ../a bob\nquit", "bad-path"),
        ("send 4 a b|b\nquit", "bad-name"),
        ("send 4 a\nquit", "bad-arguments"),
        ("send 4 a\0 bob\nquit", "bad-text"),
        ("send 4\nquit", "bad-arguments"),
        // Nothing follows what is no size.
        ("send a bob", "bad-arguments"),
        ("send me the file|bob", "bad-arguments"),
        ("accept 1", "no-such-offer"),
        ("accept one", "bad-arguments"),
        ("refuse 1", "no-such-offer"),
    ] {
        let heard = table.say(alice, format!("{line}\necho on\n"));
        let expected = format!("error {code}: ");
        // What follows a refused file may begin with the line end of the last one.
        assert!(heard.starts_with(&expected) && heard.ends_with("\non\n"), "{line:?}: {heard}");
    }
    assert!(table.say(alice, "send 99999999999999999999 a bob\n").starts_with("error protocol: "));
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
    let carol = table.frame("carol");
    for (body, code) in [
        (json!({"op": "send", "to": "bob", "name": "a"}), "bad-arguments"),
        (json!({"op": "send", "to": "bob", "name": "a/b", "size": 1}), "bad-path"),
        (json!({"op": "send", "to": "bob", "name": "a", "size": 1, "files": 2}), "bad-arguments"),
        (
            json!({"op": "send", "to": "bob", "name": "a", "form": "conversation", "folder": true}),
            "not-supported",
        ),
        (json!({"op": "send", "to": "bob", "name": "a", "form": "conversation"}), "not-supported"),
        (json!({"op": "send", "to": "nobody", "name": "a", "size": 1}), "no-such-user"),
        (json!({"op": "accept", "offer": 1}), "no-such-offer"),
        (json!({"op": "refuse", "offer": 1}), "no-such-offer"),
    ] {
        request(&mut table, carol, 1, body.clone());
        assert_failed(&only(&mut table, carol), 1, code);
    }
}

#[test]
fn a_refusal_and_its_reason_reach_the_sender_at_once() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.frame("bob"));
    assert_eq!(table.say(alice, "send 4 a bob\nquitecho on\n"), "");
    assert_eq!(table.kinds(bob), [server::DETAIL]);
    request(&mut table, bob, 9, json!({"op": "refuse", "offer": 1, "reason": "no\nroom"}));
    assert_eq!(only(&mut table, bob), ended(9, json!({"outcome": "done"})));
    let heard = "error refused: bob does not want a: no\\nroom\non\n";
    assert_eq!(table.heard(alice), heard);
    // It is gone, and the next one has another number.
    request(&mut table, bob, 10, json!({"op": "accept", "offer": 1}));
    assert_failed(&only(&mut table, bob), 10, "no-such-offer");
    table.say(alice, "send 0 b bob\n");
    assert_eq!(only(&mut table, bob).2["offer"], 2);
}

#[test]
fn offers_are_bounded_for_each_user_and_in_all() {
    let limits = Limits { offers_max: 2, offers_total_max: 3, ..Limits::default() };
    let mut table = Table::with(limits);
    let (alice, bob, carol) = (table.frame("alice"), table.frame("bob"), table.frame("carol"));
    let dave = table.frame("dave");
    let offer = |to: &str| json!({"op": "send", "to": to, "name": "a", "size": 1});
    request(&mut table, alice, 1, offer("bob"));
    request(&mut table, carol, 1, offer("bob"));
    request(&mut table, dave, 1, offer("bob"));
    assert_failed(&only(&mut table, dave), 1, "peer-busy");
    request(&mut table, alice, 2, offer("carol"));
    request(&mut table, alice, 3, offer("dave"));
    assert_failed(&only(&mut table, alice), 3, "too-many");
    request(&mut table, bob, 1, offer("dave"));
    assert_eq!(news(&mut table, bob).pop().map(|news| news.2["code"].clone()), Some(json!("busy")));
    // An answer makes room.
    request(&mut table, bob, 2, json!({"op": "refuse", "offer": 1}));
    request(&mut table, dave, 4, offer("bob"));
    table.kinds(dave);
    request(&mut table, dave, 5, offer("alice"));
    assert_failed(&only(&mut table, dave), 5, "busy");
}

#[test]
fn whoever_does_not_read_is_offered_nothing() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    table.get_stuck(bob);
    let text = "x".repeat(60_000);
    (0..17).for_each(|_| drop(table.say(alice, message(0, "bob", &text))));
    table.say(alice, message(0, "bob", &text[..28_000]));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 1});
    request(&mut table, alice, 1, offer);
    assert_failed(&only(&mut table, alice), 1, "peer-busy");
    table.at(10_000);
    assert_eq!(table.closed(bob), Some(CloseReason::SlowConsumer));
}

#[test]
fn an_offer_is_to_be_answered_within_two_minutes() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.at(1_000);
    table.say(alice, "send 1 a bob\nx");
    table.heard(bob);
    table.at(120_999);
    assert_eq!((table.heard(alice), table.heard(bob)), (String::new(), String::new()));
    table.at(121_000);
    assert_eq!(table.heard(alice), "error timed-out: nobody has answered within 120 s\n");
    let withdrawn = "offer-withdrawn 1 timed-out: nobody has answered within 120 s\n";
    assert_eq!(table.heard(bob), withdrawn);
    assert!(table.say(bob, "accept 1\n").starts_with("error no-such-offer: "));
    assert_eq!(table.say(alice, "echo on\n"), "on\n");
}

#[test]
fn a_sender_may_withdraw_or_go_and_the_receiver_hears_of_it() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    let offer = json!({"op": "send", "to": "bob", "name": "a", "size": 1});
    request(&mut table, alice, 1, offer.clone());
    table.heard(bob);
    put(&mut table, alice, client::CANCEL, 1, b"");
    assert_failed(&only(&mut table, alice), 1, "cancelled");
    assert_eq!(table.heard(bob), "offer-withdrawn 1 cancelled: alice has cancelled it\n");
    for end in [Input::Gone { session: alice }, Input::EndOfInput { session: alice }] {
        let alice = match table.closed(alice) {
            None => alice,
            Some(_) => table.frame("alice"),
        };
        request(&mut table, alice, 1, offer.clone());
        table.heard(bob);
        table.input(match end {
            Input::Gone { .. } => Input::Gone { session: alice },
            _ => Input::EndOfInput { session: alice },
        });
        let withdrawn = table.heard(bob);
        assert!(withdrawn.ends_with(" peer-gone: alice has gone\n"), "{withdrawn}");
    }
}

#[test]
fn a_receiver_that_goes_is_told_to_all_who_have_offered_it_something() {
    let mut table = Table::new();
    let (alice, bob, carol) = (table.frame("alice"), table.line("bob"), table.line("carol"));
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 1}));
    table.say(carol, "send 3 a bob\nxyzecho on\n");
    assert!(table.say(bob, "quit\n").ends_with("goodbye\n"));
    assert_failed(&only(&mut table, alice), 1, "peer-gone");
    assert_eq!(table.heard(carol), "error peer-gone: bob has gone\non\n");
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 1}));
    assert_failed(&only(&mut table, alice), 1, "no-such-user");
}

#[test]
fn either_end_may_cancel_or_go_and_the_other_hears_why() {
    for (who, input, code) in [
        (0, client::CANCEL, "cancelled"),
        (1, client::CANCEL, "cancelled"),
        (0, client::GOODBYE, "peer-gone"),
        (1, client::GOODBYE, "peer-gone"),
    ] {
        for raw in [false, true] {
            let mut table = Table::new();
            let (alice, bob) = if raw { send_raw(&mut table, 9) } else { talk(&mut table) };
            let (one, other) = if who == 0 { (alice, bob) } else { (bob, alice) };
            let (tag, others_tag) = if who == 0 { (1, 2) } else { (2, 1) };
            put(&mut table, alice, client::DATA, 1, b"begun");
            (table.kinds(bob), table.kinds(alice));
            put(&mut table, one, input, tag, b"");
            let heard = only(&mut table, other);
            assert_failed(&heard, others_tag, code);
            let name = if who == 0 { "alice" } else { "bob" };
            let text = heard.2["text"].as_str().expect("a sentence");
            assert!(text.starts_with(&format!("{name} has ")), "{text}");
            if input == client::CANCEL {
                assert_failed(&only(&mut table, one), tag, "cancelled");
            }
            // What was on its way meanwhile is of no account.
            put(&mut table, other, client::DATA, others_tag, b"late");
            put(&mut table, other, client::END, others_tag, b"");
            put(&mut table, other, client::CREDIT, others_tag, &[0, 0, 1, 0]);
            assert_eq!((table.closed(other), table.hub.ends_count()), (None, 0));
        }
    }
}

#[test]
fn somebody_with_lines_whose_file_breaks_off_is_cut_off() {
    for kind in [client::CANCEL, client::GOODBYE] {
        let mut table = Table::new();
        let (alice, bob) = (table.frame("alice"), table.line("bob"));
        request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 9}));
        table.say(bob, "accept 1\n");
        put(&mut table, alice, client::DATA, 1, b"begun");
        put(&mut table, alice, kind, 1, b"");
        assert_eq!(table.heard(bob), "begun");
        assert_eq!(table.closed(bob), Some(CloseReason::BrokenFile));
    }
}

#[test]
fn somebody_with_lines_who_hangs_up_within_the_file_ends_it_for_both() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.frame("bob"));
    table.say(alice, "send 9 a bob\nbegun");
    request(&mut table, bob, 2, json!({"op": "accept", "offer": 1}));
    assert_eq!(table.kinds(bob), [server::DETAIL, server::DETAIL, server::DATA]);
    table.input(Input::EndOfInput { session: alice });
    assert_failed(&only(&mut table, bob), 2, "bad-arguments");
    assert!(table.heard(alice).ends_with("before all bytes that were announced had come\n"));
    assert_eq!(table.closed(alice), Some(CloseReason::PeerLeft));
    // Where not even the offer is answered, nobody need wait for it.
    let alice = table.line("alice");
    table.say(alice, "send 9 a bob\nbegun");
    table.input(Input::EndOfInput { session: alice });
    assert!(table.heard(alice).starts_with("error bad-arguments: the input ended"));
    let news = news(&mut table, bob);
    assert_eq!(news[1].2["event"], "offer-withdrawn", "{news:?}");
}

#[test]
fn half_close_behind_the_file_waits_for_all_answers() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.say(alice, "send 5 a bob\nhelloecho last");
    table.input(Input::EndOfInput { session: alice });
    assert_eq!((table.heard(alice).as_str(), table.closed(alice)), ("", None));
    assert_eq!(table.say(bob, "accept 1\n"), "offer 1 alice 5 a\nfile 5 a\nhello");
    assert_eq!(table.heard(alice), "accepted bob\ndelivered\nlast\n");
    assert_eq!(table.closed(alice), Some(CloseReason::PeerLeft));
}

#[test]
fn more_or_fewer_bytes_than_announced_end_it() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    put(&mut table, alice, client::DATA, 1, b"more than five");
    assert_failed(&only(&mut table, alice), 1, "bad-arguments");
    assert_failed(&only(&mut table, bob), 2, "bad-arguments");
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    put(&mut table, alice, client::DATA, 1, b"four");
    put(&mut table, alice, client::END, 1, b"");
    assert_failed(&only(&mut table, alice), 1, "bad-arguments");
    assert_failed(&news(&mut table, bob)[1], 2, "bad-arguments");
    assert_eq!((table.closed(alice), table.closed(bob)), (None, None));
}

#[test]
fn whoever_sends_what_nobody_has_asked_for_is_cut_off() {
    // Before the answer.
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 5}));
    put(&mut table, alice, client::DATA, 1, b"early");
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
    assert_eq!(news(&mut table, bob)[1].2["event"], "offer-withdrawn");
    // To who sends a file.
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    put(&mut table, bob, client::DATA, 2, b"back");
    assert_eq!(table.closed(bob), Some(CloseReason::Protocol));
    assert_failed(&only(&mut table, alice), 1, "peer-gone");
    // After its end.
    let mut table = Table::new();
    let (alice, _) = talk(&mut table);
    put(&mut table, alice, client::END, 1, b"");
    put(&mut table, alice, client::DATA, 1, b"more");
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
}

/// Sends chunks until so many bytes were sent.
fn pour(table: &mut Table, id: SessionId, tag: u32, mut count: usize) {
    let chunk = vec![b'x'; 64 * 1024];
    while count > 0 {
        let part = count.min(chunk.len());
        put(table, id, client::DATA, tag, &chunk[..part]);
        count -= part;
    }
}

fn credit_in(news: &[(u8, u32, Value)], bytes: &[u8]) -> usize {
    assert!(news.iter().all(|(kind, ..)| *kind == server::CREDIT), "{news:?}");
    let (mut rest, mut sum) = (bytes, 0);
    while let Some(frame) = Frame::split(rest).expect("good frames") {
        sum += u32::from_be_bytes(frame.body.try_into().expect("4 bytes")) as usize;
        rest = &rest[frame.length()..];
    }
    sum
}

fn credit(table: &mut Table, id: SessionId) -> usize {
    let bytes = table.heard_bytes(id);
    credit_in(&[], &bytes)
}

#[test]
fn a_receiver_that_takes_nothing_holds_up_its_sender_and_nobody_else() {
    let mut table = Table::new();
    let (alice, bob) = talk(&mut table);
    let carol = table.line("carol");
    table.get_stuck(bob);
    // Two chunks fill its queue to the mark, four more are held.
    pour(&mut table, alice, 1, WINDOW);
    let granted = credit(&mut table, alice);
    assert_eq!(granted, 2 * 64 * 1024);
    pour(&mut table, alice, 1, granted);
    assert_eq!(credit(&mut table, alice), 0);
    assert!(table.hub.unsent_bytes(bob) < 200 * 1024);
    // A message passes, and waits only for what is in the queue.
    let queued = table.hub.unsent_bytes(bob);
    table.say(carol, "hello|bob\n");
    assert!(table.hub.unsent_bytes(bob) < queued + 100);
    assert_eq!(table.say(carol, "echo on\n"), "on\n");
    table.get_unstuck(bob);
    let heard = table.heard_bytes(bob);
    assert!(heard.len() > WINDOW + granted);
    assert_eq!(credit(&mut table, alice), WINDOW);
    // One byte too much.
    table.get_stuck(bob);
    pour(&mut table, alice, 1, WINDOW + 2 * 64 * 1024);
    assert_eq!(table.closed(alice), None);
    put(&mut table, alice, client::DATA, 1, b"x");
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
}

#[test]
fn the_credit_of_the_receiver_holds_up_the_sender_too() {
    let mut table = Table::new();
    let (alice, bob) = talk(&mut table);
    let window = 4 * 1024 * 1024;
    let mut sent = 0;
    while sent < window {
        pour(&mut table, alice, 1, WINDOW);
        sent += WINDOW;
        assert_eq!(credit(&mut table, alice), WINDOW);
    }
    table.heard_bytes(bob);
    pour(&mut table, alice, 1, WINDOW);
    assert_eq!(credit(&mut table, alice), 0);
    assert!(table.heard_bytes(bob).is_empty(), "there is no credit");
    put(&mut table, bob, client::CREDIT, 2, &100_000u32.to_be_bytes());
    let heard: usize =
        news(&mut table, bob).iter().map(|news| news.2.as_str().map_or(0, str::len)).sum();
    assert_eq!(heard, 100_000);
    // What is less than a step is granted with the next one.
    assert_eq!(credit(&mut table, alice), 64 * 1024);
}

#[test]
fn somebody_with_lines_who_sends_is_read_only_as_far_as_the_other_takes_it() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.frame("bob"));
    let size = 4 * WINDOW;
    table.say(alice, format!("send {size} a bob\n"));
    request(&mut table, bob, 2, json!({"op": "accept", "offer": 1}));
    table.kinds(bob);
    table.get_stuck(bob);
    let mut sent = 0;
    while table.hub.wants_input(alice) {
        let part = [b'x'; 10_000];
        table.input(Input::Bytes { session: alice, bytes: &part });
        sent += part.len();
    }
    assert!(sent < 2 * WINDOW, "{sent} bytes were read for nobody");
    // Chat for the sender goes on meanwhile, and so does its own reading afterwards.
    let carol = table.line("carol");
    assert_eq!(table.say(carol, "hello|alice\n"), "");
    assert_eq!(table.heard(alice), "accepted bob\ncarol|hello\n");
    table.get_unstuck(bob);
    assert!(table.effects.contains(&Effect::Resume { session: alice }));
    assert!(table.hub.wants_input(alice));
    while sent < size {
        let part = vec![b'x'; 10_000.min(size - sent)];
        table.input(Input::Bytes { session: alice, bytes: &part });
        sent += part.len();
    }
    let heard: usize =
        news(&mut table, bob).iter().map(|news| news.2.as_str().map_or(0, str::len)).sum();
    assert_eq!(heard, size);
    assert_eq!(table.heard(alice), "delivered\n");
}

#[test]
fn delivered_is_said_when_the_last_byte_has_left_for_the_receiver() {
    for is_line in [false, true] {
        let mut table = Table::new();
        let alice = table.frame("alice");
        let bob = if is_line { table.line("bob") } else { table.frame("bob") };
        request(
            &mut table,
            alice,
            1,
            json!({"op": "send", "to": "bob", "name": "a", "data": "hello"}),
        );
        table.get_stuck(bob);
        match is_line {
            true => drop(table.say(bob, "accept 1\n")),
            false => request(&mut table, bob, 2, json!({"op": "accept", "offer": 1})),
        }
        assert_eq!(table.kinds(alice), [server::DETAIL]);
        // It is too late to cancel, and the sender may go.
        put(&mut table, alice, client::CANCEL, 1, b"");
        let left = table.hub.unsent_bytes(bob);
        table.input(Input::Sent { session: bob, count: left - 1 });
        assert_eq!(table.kinds(alice), b"");
        table.input(Input::Sent { session: bob, count: 1 });
        assert_eq!(table.kinds(alice), [server::END]);
        assert_eq!(table.hub.ends_count(), 0);
    }
}

#[test]
fn a_receiver_that_goes_before_the_last_byte_is_told_to_the_sender() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "data": "hello"}));
    table.get_stuck(bob);
    table.say(bob, "accept 1\n");
    table.kinds(alice);
    table.at(60_000);
    assert_eq!(table.closed(bob), Some(CloseReason::Stalled));
    assert_failed(&only(&mut table, alice), 1, "peer-gone");
}

#[test]
fn a_sender_that_has_said_all_may_go_before_it_has_arrived() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "data": "hello"}));
    table.get_stuck(bob);
    table.heard(bob);
    table.say(bob, "accept 1\necho on\n");
    table.send(alice, client::GOODBYE, 0, b"");
    assert_eq!(table.hub.ends_count(), 1);
    table.get_unstuck(bob);
    assert_eq!(table.heard(bob), "file 5 a\nhelloon\n");
    assert_eq!((table.hub.ends_count(), table.closed(bob)), (0, None));
}

#[test]
fn nothing_is_mixed_into_a_file_and_what_waited_follows_it() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 6}));
    table.say(bob, "accept 1\nhello|alice\n");
    put(&mut table, alice, client::DATA, 1, b"one");
    table.say(alice, message(0, "bob", "a message"));
    request(&mut table, alice, 3, json!({"op": "send", "to": "bob", "name": "b", "size": 6}));
    put(&mut table, alice, client::DATA, 1, b"two");
    assert_eq!(table.heard(bob), "onetwo");
    put(&mut table, alice, client::END, 1, b"");
    assert_eq!(table.heard(bob), "alice|a message\noffer 2 alice 6 b\n");
    assert!(table.kinds(alice).contains(&server::MESSAGE), "its own line had to wait as well");
}

#[test]
fn several_files_between_the_same_two_share_the_connection() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.frame("bob"));
    for tag in 1..=3 {
        let offer = json!({"op": "send", "to": "bob", "name": "a", "size": WINDOW});
        request(&mut table, alice, tag, offer);
        request(&mut table, bob, tag + 10, json!({"op": "accept", "offer": tag}));
    }
    (table.kinds(alice), table.kinds(bob));
    table.get_stuck(bob);
    (1..=3).for_each(|tag| pour(&mut table, alice, tag, WINDOW));
    table.get_unstuck(bob);
    let tags: Vec<u32> = news(&mut table, bob).iter().map(|news| news.1).collect();
    assert_eq!(tags.len(), 12);
    // The first filled the queue; then each has its turn, and who has all is missed by nobody.
    assert_eq!(tags, [11, 11, 11, 12, 13, 11, 12, 13, 12, 13, 12, 13]);
}

#[test]
fn a_file_that_does_not_move_for_a_minute_is_given_up() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 100);
    table.at(30_000);
    put(&mut table, alice, client::DATA, 1, b"begun");
    table.kinds(bob);
    table.at(89_999);
    assert_eq!(table.hub.ends_count(), 2);
    table.at(90_000);
    assert_failed(&only(&mut table, alice), 1, "timed-out");
    let heard = news(&mut table, bob);
    let end = heard.iter().find(|news| news.0 == server::END).expect("it is told");
    assert_failed(end, 2, "timed-out");
    assert_eq!(table.hub.ends_count(), 0);
}

#[test]
fn a_conversation_may_pause_but_what_waits_is_to_be_taken() {
    let mut table = Table::with(Limits { output_window_bytes: 10, ..Limits::default() });
    let (alice, bob) = talk(&mut table);
    for minute in 1..10 {
        table.now = minute * 60_000;
        put(&mut table, alice, client::PONG, 0, b"");
        put(&mut table, bob, client::PONG, 0, b"");
        table.at(table.now);
    }
    assert_eq!(table.hub.ends_count(), 2);
    table.at(550_000);
    put(&mut table, alice, client::DATA, 1, b"more than ten bytes");
    (table.kinds(alice), table.kinds(bob));
    table.at(609_999);
    assert_eq!(table.hub.ends_count(), 2);
    table.at(610_000);
    assert_eq!(table.hub.ends_count(), 0);
    assert!(table.heard(alice).contains("timed-out"));
}

#[test]
fn a_stopping_server_withdraws_offers_and_lets_pipes_finish() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    let carol = table.line("carol");
    table.say(carol, "send 1 a bob\nx");
    table.kinds(bob);
    table.input(Input::Stop);
    let heard = table.heard(carol);
    assert!(heard.starts_with("error shutting-down: the server is stopping\n"), "{heard}");
    assert_eq!(table.closed(carol), Some(CloseReason::ShuttingDown));
    assert_eq!(news(&mut table, bob)[0].2["event"], "offer-withdrawn");
    put(&mut table, alice, client::DATA, 1, b"hello");
    put(&mut table, alice, client::END, 1, b"");
    assert_eq!(
        news(&mut table, bob)[..2],
        [(server::DATA, 2, json!("hello")), ended(2, json!({"outcome": "done"})),]
    );
    assert!(table.hub.is_finished());
}

#[test]
fn the_number_of_an_operation_that_runs_is_not_taken_twice() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "b", "size": 5}));
    assert_eq!(table.kinds(alice), [server::ERROR]);
    request(&mut table, alice, 3, json!({"op": "send", "to": "bob", "name": "b", "size": 5}));
    table.kinds(bob);
    request(&mut table, bob, 2, json!({"op": "accept", "offer": 2}));
    assert_eq!(table.kinds(bob), [server::ERROR]);
    request(&mut table, bob, 4, json!({"op": "accept", "offer": 2}));
    assert_eq!(table.kinds(bob), [server::DETAIL]);
}
