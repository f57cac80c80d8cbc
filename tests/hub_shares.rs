//! Nobody takes all of what there is for all: operations, memory for what waits, requests that do
//! not end.

#[path = "hub/between.rs"]
mod between;
#[path = "hub/table.rs"]
mod table;

use std::time::Duration;

use between::{assert_failed, news, only, put, request};
use serde_json::json;
use sixfour::{
    hub::{
        CloseReason, ConnectionId, Effect, Input, OperationId, Verdict,
        admission::{Mode, Owner, Policy},
        rights::Rights,
    },
    limits::Limits,
    wire::{
        ErrorCode, Outcome, Refusal,
        frame::{MAGIC, client},
    },
};
use table::{Table, hello, hello_with, message};

const SHARED: Limits = Limits {
    operations_max: 4,
    operations_total_max: 12,
    operations_source_max: 6,
    ..Limits::USUAL
};

fn open_table(limits: Limits) -> Table {
    let mode = Mode::Open { rights: Rights::ALL };
    Table::with_policy(limits, Policy { mode, plaintext: true })
}

fn framed_from(table: &mut Table, address: &str, name: &str) -> ConnectionId {
    let id = table.open_as(address, Owner::Unknown);
    table.input(Input::Bytes { connection: id, bytes: &[&MAGIC[..], &hello(name)].concat() });
    table.forget([id]);
    id
}

/// As many uploads without a byte as are asked for; how many have begun.
fn upload(table: &mut Table, id: ConnectionId, count: u32) -> usize {
    for tag in 1..=count {
        request(table, id, tag, json!({"op": "edge.upload", "file_id": tag}));
    }
    let refused = news(table, id).len();
    count as usize - refused
}

fn log_in(table: &mut Table, user: &str) -> ConnectionId {
    let id = table.open_from("[::1]:9");
    let bytes = [&MAGIC[..], &hello_with(user, Some("secret"))].concat();
    table.input(Input::Bytes { connection: id, bytes: &bytes });
    table.check(Verdict::Right);
    table.forget([id]);
    id
}

/// The operations that were to be ended since it was last asked.
fn terminated(table: &mut Table) -> Vec<OperationId> {
    let effects = std::mem::take(&mut table.effects);
    let of = |effect| match effect {
        Effect::Terminate { operation } => Some(operation),
        _ => None,
    };
    effects.into_iter().filter_map(of).collect()
}

#[test]
fn a_few_connections_of_one_source_leave_operations_for_others() {
    // A name at an open server is no proof; a network of IPv6 is one customer of its provider.
    for (addresses, other) in [
        (["10.0.0.1:5", "10.0.0.1:6", "[::ffff:10.0.0.1]:7"], "10.0.0.2:5"),
        (
            ["[2001:db8:0:1::1]:5", "[2001:db8:0:1:ffff::2]:5", "[2001:db8:0:1::3]:5"],
            "[2001:db8:0:2::1]:5",
        ),
    ] {
        let mut table = open_table(SHARED);
        let mut begun = 0;
        for (at, address) in addresses.into_iter().enumerate() {
            let id = framed_from(&mut table, address, &format!("h{at}"));
            begun += upload(&mut table, id, 4);
        }
        assert_eq!(begun, 6);
        let other = framed_from(&mut table, other, "other");
        assert_eq!(upload(&mut table, other, 4), 4);
        // What is answered at once is no operation.
        let last = framed_from(&mut table, addresses[0], "last");
        request(&mut table, last, 9, json!({"op": "echo", "text": "e"}));
        assert_eq!(news(&mut table, last).len(), 2);
        request(&mut table, last, 9, json!({"op": "ls"}));
        assert_failed(&only(&mut table, last), 9, "busy");
    }
}

#[test]
fn users_with_passwords_have_shares_of_their_own_wherever_they_come_from() {
    let users = [("alice", Rights::ALL), ("bob", Rights::ALL)];
    let mut table = Table::with_users(SHARED, 3, &users);
    let alice = log_in(&mut table, "alice");
    assert_eq!(upload(&mut table, alice, 4), 4);
    let bob = log_in(&mut table, "bob");
    assert_eq!(upload(&mut table, bob, 4), 4);
}

#[test]
fn the_servers_own_account_may_take_all() {
    let mut table = Table::with(SHARED);
    let ids = ["a", "b", "c"].map(|name| table.frame(name));
    assert_eq!(ids.map(|id| upload(&mut table, id, 4)), [4; 3]);
}

#[test]
fn uploads_that_have_waited_for_long_go_when_somebody_needs_their_places() {
    let users = ["a", "b", "c", "d", "other"].map(|name| (name, Rights::ALL));
    let mut table = Table::with_users(SHARED, 3, &users);
    for (name, _) in &users[..4] {
        let id = log_in(&mut table, name);
        upload(&mut table, id, 3);
    }
    let other = log_in(&mut table, "other");
    // They may wait as long as they like while nobody needs their place.
    table.at(59_000);
    assert_eq!(upload(&mut table, other, 1), 0);
    assert_eq!(terminated(&mut table), []);
    table.at(60_000);
    assert_eq!(terminated(&mut table), []);
    assert_eq!(upload(&mut table, other, 1), 0);
    let ended = terminated(&mut table);
    assert_eq!(ended.len(), 12);
    for operation in ended {
        let refusal = Refusal::new(0, ErrorCode::Cancelled, "cancelled by the client");
        table.input(Input::Ended { operation, outcome: Outcome::Failed(refusal) });
    }
    assert_eq!(upload(&mut table, other, 4), 4);
}

#[test]
fn an_upload_of_somebody_without_a_password_ends_when_nothing_comes_for_long() {
    let mut table = open_table(Limits::USUAL);
    let (idle, busy) =
        (framed_from(&mut table, "[::1]:5", "idle"), framed_from(&mut table, "10.0.0.1:5", "busy"));
    for (id, body) in [(idle, json!({"op": "store"})), (busy, json!({"op": "store"}))] {
        request(&mut table, id, 1, body);
    }
    table.forget([idle, busy]);
    // Whoever goes on has as long again, and nobody waits for a disk that is slow.
    table.at(59_000);
    put(&mut table, busy, client::DATA, 1, b"abc");
    table.at(60_000);
    let ended = terminated(&mut table);
    assert_eq!(ended.len(), 1);
    let refusal = Refusal::new(0, ErrorCode::Cancelled, "ended");
    table.input(Input::Ended { operation: ended[0], outcome: Outcome::Failed(refusal) });
    let (_, tag, body) = only(&mut table, idle);
    assert_eq!((tag, &body["code"]), (1, &json!("timed-out")), "{body}");
    table.at(140_000);
    assert_eq!(terminated(&mut table), [], "its bytes are not dealt with");
}

#[test]
fn where_too_much_waits_those_who_take_nothing_go_the_largest_first() {
    let limits = Limits {
        outbox_max_bytes: 50_000,
        outbox_pause_bytes: 20_000,
        outbox_low_bytes: 10_000,
        waiting_total_max_bytes: 100_000,
        waiting_patience: Duration::from_secs(1),
        replies_total_max_bytes: 90_000,
        replies_session_max_bytes: 90_000,
        reply_max_bytes: 80_000,
        content_max_bytes: 80_000,
        ..Limits::USUAL
    };
    let mut table = Table::with(limits);
    let writer = table.frame("writer");
    let reader = table.frame("reader");
    let (small, large, largest) = (table.frame("a"), table.frame("b"), table.frame("c"));
    let write = |table: &mut Table, to: &str, count: usize| {
        for _ in 0..count {
            let bytes = message(0, to, &"x".repeat(10_000));
            table.input(Input::Bytes { connection: writer, bytes: &bytes });
        }
    };
    for id in [small, large, largest] {
        table.get_stuck(id);
    }
    write(&mut table, "a", 2);
    write(&mut table, "b", 3);
    write(&mut table, "c", 4);
    table.at(2000);
    assert_eq!([small, large, largest].map(|id| table.closed(id)), [None; 3], "it fits");
    write(&mut table, "b", 1);
    write(&mut table, "reader", 3);
    assert_eq!(table.closed(largest), Some(CloseReason::SlowConsumer));
    assert_eq!([small, large, reader].map(|id| table.closed(id)), [None; 3]);
}

#[test]
fn requests_that_do_not_end_are_bounded_in_all() {
    let limits = Limits { unfinished_total_max_bytes: 100_000, ..Limits::USUAL };
    let mut table = Table::with(limits);
    let begin = |table: &mut Table, bytes: usize| {
        let id = table.open();
        let head = format!(r#"{{"op": "echo", "id": 1, "text": "{}"#, "x".repeat(bytes));
        table.say(id, head);
        id
    };
    let ids = [begin(&mut table, 30_000), begin(&mut table, 50_000)];
    assert_eq!(ids.map(|id| table.closed(id)), [None; 2]);
    let last = begin(&mut table, 40_000);
    assert_eq!(table.closed(ids[1]), Some(CloseReason::Unfinished));
    assert!(table.heard(ids[1]).contains(r#""code":"busy""#));
    // The others come to their end.
    for id in [ids[0], last] {
        assert!(table.say(id, "\"}").contains("xxxx"));
    }
    begin(&mut table, 90_000);
    assert_eq!(table.closed(last), None);
}

#[test]
fn one_sender_leaves_offers_of_others_a_place_whatever_names_it_takes() {
    let limits = Limits { offers_of_one_max: 2, offers_source_max: 3, ..Limits::USUAL };
    let mut table = open_table(limits);
    let bob = framed_from(&mut table, "10.0.0.9:1", "bob");
    let dave = framed_from(&mut table, "10.0.0.8:1", "dave");
    let greedy = framed_from(&mut table, "10.0.0.1:1", "greedy");
    let greedy_too = framed_from(&mut table, "10.0.0.1:2", "greedy-too");
    let alice = framed_from(&mut table, "10.0.0.2:1", "alice");
    let offer = |to: &str| json!({"op": "send", "to": to, "name": "a", "size": 1});
    request(&mut table, greedy, 1, offer("bob"));
    request(&mut table, greedy_too, 1, offer("bob"));
    request(&mut table, greedy, 2, offer("bob"));
    assert_failed(&only(&mut table, greedy), 2, "peer-busy");
    request(&mut table, greedy, 3, offer("dave"));
    request(&mut table, greedy_too, 4, offer("dave"));
    assert_failed(&only(&mut table, greedy_too), 4, "too-many");
    assert_eq!((news(&mut table, bob).len(), news(&mut table, dave).len()), (2, 1));
    for (tag, to, receiver) in [(1, "bob", bob), (2, "dave", dave)] {
        request(&mut table, alice, tag, offer(to));
        assert_eq!(news(&mut table, receiver).len(), 1, "{to}");
    }
}
