//! The hub between two users: pipes and their ends, as a table.

#[path = "hub/between.rs"]
mod between;
#[path = "hub/table.rs"]
mod table;

use between::{
    WINDOW, assert_failed, credit, ended, news, only, pour, put, request, send_raw, talk,
};
use serde_json::json;
use sixfour::{
    hub::{Chunk, CloseReason, Effect, Input},
    limits::Limits,
    wire::{
        Outcome,
        frame::{client, server},
    },
};
use table::{Table, message};

#[test]
fn a_file_goes_from_line_to_line_exactly_as_it_is() {
    let content = "who\nquit\n\0\u{1b}no line end";
    let text = format!("send {} my plan.txt bob\n{content}", content.len());
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
        // The line behind the answer is a request again.
        assert_eq!(table.heard(alice), "accepted bob\ndelivered\n");
        assert_eq!(table.say(alice, "who\n"), "alice\nbob\n[2 users]\n");
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
            table.forget([bob, alice]);
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
    table.say(alice, "send 5 a bob\nhello");
    table.input(Input::EndOfInput { session: alice });
    assert_eq!((table.heard(alice).as_str(), table.closed(alice)), ("", None));
    assert_eq!(table.say(bob, "accept 1\n"), "offer 1 alice 5 a\nfile 5 a\nhello");
    assert_eq!(table.heard(alice), "accepted bob\ndelivered\n");
    assert_eq!(table.closed(alice), Some(CloseReason::PeerLeft));
}

#[test]
fn what_follows_a_file_for_somebody_before_its_answer_is_no_request() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.line("bob"));
    table.say(alice, "send 5 a bob\nhelloecho last\n");
    assert!(table.say(bob, "accept 1\n").starts_with("offer 1 alice 5 a\nfile 5 a\n"));
    let heard = table.heard(alice);
    assert!(heard.starts_with("accepted bob\nerror protocol: more bytes came"), "{heard}");
    assert_eq!(heard.lines().count(), 2, "{heard}");
    assert_eq!(table.closed(alice), Some(CloseReason::Protocol));
    assert_eq!(table.hub.ends_count(), 0);
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

#[test]
fn the_end_of_who_gets_a_file_ends_that_and_nothing_else() {
    // Nothing has come yet, some bytes have come, more wait at the server than are taken.
    for sent in [0, 5, WINDOW] {
        let mut table = Table::new();
        let (alice, bob) = send_raw(&mut table, 9_000_000);
        let carol = table.line("carol");
        table.get_stuck(bob);
        pour(&mut table, alice, 1, sent);
        table.forget([alice, bob]);
        put(&mut table, bob, client::END, 2, b"");
        // What clients say next when they could not store what came.
        put(&mut table, bob, client::CANCEL, 2, b"");
        put(&mut table, bob, client::END, 2, &[7; 32]);
        let heard = only(&mut table, alice);
        assert_failed(&heard, 1, "cancelled");
        assert_eq!(heard.2["text"], "bob has given it up");
        table.get_unstuck(bob);
        assert_failed(&news(&mut table, bob).pop().expect("an end"), 2, "protocol");
        assert_eq!((table.closed(alice), table.closed(bob)), (None, None));
        assert_eq!(table.hub.ends_count(), 0);
        assert_eq!(table.say(carol, "echo on\n"), "on\n");
    }
}

#[test]
fn a_file_that_has_been_said_in_full_is_delivered_whatever_its_receiver_ends() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    table.get_stuck(bob);
    put(&mut table, alice, client::DATA, 1, b"hello");
    put(&mut table, alice, client::END, 1, b"");
    put(&mut table, bob, client::END, 2, b"");
    assert_eq!(news(&mut table, alice), vec![]);
    table.get_unstuck(bob);
    let delivered = json!({"outcome": "delivered", "by": "connection"});
    assert_eq!(only(&mut table, alice), ended(1, delivered));
}

#[test]
fn time_that_goes_backwards_stands_still() {
    let mut table = Table::new();
    let (alice, bob) = send_raw(&mut table, 5);
    table.at(500);
    table.now = 100;
    put(&mut table, alice, client::DATA, 1, b"hello");
    assert_eq!(news(&mut table, bob).last(), Some(&(server::DATA, 2, json!("hello"))));
    table.at(0);
    assert!(table.hub.poll_timeout().is_some_and(|due| due.0 >= 500));
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
    table.forget([alice, bob]);
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
    table.forget([alice, bob]);
    table.at(609_999);
    assert_eq!(table.hub.ends_count(), 2);
    table.at(610_000);
    assert_eq!(table.hub.ends_count(), 0);
    assert!(table.heard(alice).contains("timed-out"));
}

#[test]
fn behind_its_end_an_operation_grants_no_credit_though_its_file_is_still_on_its_way() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    request(&mut table, alice, 1, json!({"op": "fetch", "paths": ["f"]}));
    let operation = table.started();
    put(&mut table, alice, client::DATA, 1, b"0123456789");
    let taken = table.hub.take_input(operation, Vec::new());
    assert_eq!(taken, Some((b"0123456789".to_vec(), false)));
    table.input(Input::InputDone { operation, count: 4 });
    assert_eq!(credit(&mut table, alice), 4);
    table.get_stuck(alice);
    let chunk = Chunk::File { file: 0, offset: 0, length: 5 };
    table.input(Input::Chunk { operation, chunk });
    table.input(Input::Ended { operation, outcome: Outcome::Done });
    let before = table.hub.unsent_bytes(alice);
    table.input(Input::InputDone { operation, count: 6 });
    assert_eq!(table.hub.unsent_bytes(alice), before);
    table.hub.check_invariants();
}
