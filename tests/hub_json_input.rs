//! Input that JSON requests bring with them, or do not: bounds, and who is told what.

#[path = "hub/objects.rs"]
mod objects;
#[path = "hub/table.rs"]
mod table;

use objects::{ask, named, objects, run};
use serde_json::{Value, json};
use sixfour::{
    hub::{Input, OperationId, rights::Rights},
    limits::Limits,
    wire::Outcome,
};
use table::Table;

fn end(table: &mut Table, operation: OperationId, outcome: Outcome) {
    table.input(Input::Ended { operation, outcome });
}

#[test]
fn input_that_waits_is_bounded_for_a_session_and_for_all() {
    let limits =
        Limits { inputs_session_max_bytes: 100, inputs_total_max_bytes: 150, ..Limits::default() };
    let mut table = Table::with(limits);
    let (alice, bob, carol) =
        (named(&mut table, "alice"), named(&mut table, "bob"), named(&mut table, "carol"));
    let x = |bytes: usize| "x".repeat(bytes);
    let cat = |bytes: usize, id: u32| json!({"method": "cat", "stdin": x(bytes), "id": id});
    let put = |bytes: usize| json!({"op": "upload", "path": "f", "content": x(bytes), "id": "u"});
    let offer = |bytes: usize| {
        let data = x(bytes);
        json!({"op": "send", "to": "carol", "name": "f", "data": data, "id": "s"})
    };
    let is_busy = |heard: Vec<Value>| {
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert_eq!((&heard[0]["result"], &heard[0]["errorcode"]), (&json!(null), &json!(4)));
        heard[0]["error"]["code"] == "busy"
    };
    let first = run(&mut table, alice, cat(60, 1));
    assert!(is_busy(ask(&mut table, alice, cat(41, 2))));
    assert!(is_busy(ask(&mut table, alice, put(41))));
    assert!(is_busy(ask(&mut table, alice, offer(41))));
    assert_eq!(table.heard(carol), "", "nothing was offered");
    // Without input there is always room, and for what fits too.
    run(&mut table, alice, json!({"method": "cat", "id": 3}));
    assert_eq!(ask(&mut table, alice, offer(40)), [json!(null); 0]);
    assert!(is_busy(ask(&mut table, bob, cat(51, 1))), "all together have too much");
    let second = run(&mut table, bob, put(50));
    // What is taken, refused, or over makes room.
    table.input(Input::InputTaken { operation: first, count: 60 });
    run(&mut table, alice, cat(60, 4));
    let offered = objects(&table.heard(carol))[0]["offer"].clone();
    ask(&mut table, carol, json!({"op": "refuse", "offer": offered, "id": 1}));
    assert_eq!(objects(&table.heard(alice))[0]["error"]["code"], "refused");
    run(&mut table, alice, cat(40, 5));
    end(&mut table, second, Outcome::Done);
    assert_eq!(objects(&table.heard(bob))[0]["errorcode"], 0);
    run(&mut table, bob, put(50));
    table.hub.check_invariants();
}

#[test]
fn what_would_wait_for_input_that_cannot_come_is_refused() {
    let mut table = Table::new();
    let id = named(&mut table, "watch");
    for (request, member) in [
        (json!({"op": "edge.upload", "file_id": 1, "id": 1}), "samples"),
        (json!({"op": "send", "to": "watch", "name": "f", "size": 5, "id": 1}), "data"),
        (json!({"op": "upload", "path": "f", "id": 1}), "content"),
    ] {
        let reply = &ask(&mut table, id, request)[0];
        assert_eq!(reply["error"]["code"], "bad-arguments", "{reply}");
        assert!(reply["error"]["text"].as_str().is_some_and(|it| it.contains(member)), "{reply}");
    }
}

#[test]
fn who_may_not_ask_hears_that_and_not_of_room() {
    let limits = Limits { inputs_session_max_bytes: 10, ..Limits::default() };
    let mut table = Table::with_users(limits, 3, &[("alice", Rights::USUAL)]);
    let id = table.open();
    let command = json!({"method": "cat", "stdin": "more than ten bytes", "id": 1});
    assert_eq!(ask(&mut table, id, command)[0]["error"]["code"], "login-required");
}
