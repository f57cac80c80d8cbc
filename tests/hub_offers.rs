//! The hub between two users: offers and their answers, as a table.

#[path = "hub/between.rs"]
mod between;
#[path = "hub/table.rs"]
mod table;

use between::{assert_failed, ended, news, only, put, request, send_raw};
use serde_json::json;
use sixfour::{
    hub::{CloseReason, Input},
    limits::Limits,
    wire::frame::{client, server},
};
use table::{Table, message};

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
    table.input(Input::Bytes { connection: alice, bytes: &sixfour::wire::frame::MAGIC });
    table.input(Input::Bytes { connection: alice, bytes: &table::hello("alice") });
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
            "refused",
        ),
        (json!({"op": "send", "to": "bob", "name": "a", "form": "conversation"}), "refused"),
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
    for end in [Input::Gone { connection: alice }, Input::EndOfInput { connection: alice }] {
        let alice = match table.closed(alice) {
            None => alice,
            Some(_) => table.frame("alice"),
        };
        request(&mut table, alice, 1, offer.clone());
        table.heard(bob);
        table.input(match end {
            Input::Gone { .. } => Input::Gone { connection: alice },
            _ => Input::EndOfInput { connection: alice },
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
