//! Rights that are taken away from those who are here, as SIGHUP does: what runs by them ends.

#[path = "hub/between.rs"]
mod between;
#[path = "hub/table.rs"]
mod table;

use between::{assert_failed, news, only, put, request};
use serde_json::json;
use sixfour::{
    hub::{
        CloseReason, ConnectionId, Effect, Input, OperationId, Verdict,
        rights::{Right, Rights},
    },
    limits::Limits,
    wire::{
        Outcome,
        frame::{MAGIC, client},
    },
};
use table::{Table, hello_with};

const SIGNALLED: Outcome = Outcome::Signal { number: 15, because: None };

fn users() -> Table {
    Table::with_users(Limits::default(), 3, &[("alice", Rights::ALL), ("bob", Rights::ALL)])
}

/// Both hear of nothing that happened before.
fn framed(table: &mut Table, user: &str) -> ConnectionId {
    let id = table.open();
    let bytes = [&MAGIC[..], &hello_with(user, Some("secret"))].concat();
    table.input(Input::Bytes { connection: id, bytes: &bytes });
    table.check(Verdict::Right);
    id
}

fn without(table: &mut Table, right: Right) {
    let rights = Rights::ALL.without(right);
    table.set_users(&[("alice", rights), ("bob", Rights::ALL)], &[]);
}

fn is_terminated(table: &Table, operation: OperationId) -> bool {
    table.effects.contains(&Effect::Terminate { operation })
}

#[test]
fn what_runs_by_a_right_ends_with_it_and_says_so() {
    for (right, call) in [
        (Right::Run, json!({"op": "run", "command": "sh", "stdin": true})),
        (Right::Run, json!({"op": "ping", "host": "::1"})),
        (Right::Files, json!({"op": "download", "path": "a"})),
        (Right::Files, json!({"op": "fetch", "paths": ["a"]})),
        (Right::Files, json!({"op": "ls"})),
        (Right::Upload, json!({"op": "store"})),
        (Right::Edge, json!({"op": "edge.upload", "file_id": 1})),
    ] {
        let mut table = users();
        let (alice, bob) = (framed(&mut table, "alice"), framed(&mut table, "bob"));
        request(&mut table, bob, 1, call.clone());
        let bobs = table.started();
        request(&mut table, alice, 1, call);
        let alices = table.started();
        // Another right is no matter; neither is that of somebody else.
        without(&mut table, Right::Admin);
        assert!(!is_terminated(&table, alices));
        table.forget([alice, bob]);
        without(&mut table, right);
        assert!(is_terminated(&table, alices) && !is_terminated(&table, bobs), "{right}");
        table.input(Input::Ended { operation: alices, outcome: SIGNALLED });
        let heard = only(&mut table, alice);
        assert_failed(&heard, 1, "denied");
        let text = heard.2["text"].as_str().expect("a sentence");
        assert!(text.starts_with(&format!("{right} was taken away from you")), "{text}");
        assert_eq!(table.closed(alice), None);
        request(&mut table, alice, 2, json!({"op": "echo", "text": "still here"}));
        assert_eq!(news(&mut table, alice).len(), 2);
    }
}

#[test]
fn lines_and_objects_hear_of_it_as_well() {
    let mut table = users();
    let alice = table.open();
    table.say(alice, "user alice secret\nrun sh\n");
    table.check(Verdict::Right);
    let operation = table.started();
    without(&mut table, Right::Run);
    table.input(Input::Ended { operation, outcome: SIGNALLED });
    assert!(table.heard(alice).starts_with("error denied: run was taken away from you"));
    let bob = table.open();
    table.say(bob, r#"{"op": "login", "user": "bob", "password": "x", "id": 1}"#);
    table.check(Verdict::Right);
    table.say(bob, r#"{"method": "sh", "id": 2}"#);
    let operation = table.started();
    table.set_users(&[("alice", Rights::ALL), ("bob", Rights::USUAL)], &[]);
    table.input(Input::Ended { operation, outcome: SIGNALLED });
    let reply = table.heard(bob);
    assert!(reply.contains(r#""id":2"#) && reply.contains(r#""code":"denied""#), "{reply}");
}

#[test]
fn offers_and_files_to_others_end_with_the_right_to_write_to_them() {
    for is_accepted in [false, true] {
        let mut table = users();
        let (alice, bob) = (framed(&mut table, "alice"), framed(&mut table, "bob"));
        request(&mut table, alice, 1, json!({"op": "send", "to": "bob", "name": "a", "size": 9}));
        if is_accepted {
            request(&mut table, bob, 2, json!({"op": "accept", "offer": 1}));
            put(&mut table, alice, client::DATA, 1, b"begun");
        }
        table.forget([alice, bob]);
        // Whoever gets it needs no right for that.
        let bobs = [("alice", Rights::ALL), ("bob", Rights::NONE)];
        table.set_users(&bobs, &[]);
        assert_eq!(news(&mut table, alice), vec![]);
        without(&mut table, Right::Message);
        assert_failed(&only(&mut table, alice), 1, "denied");
        match is_accepted {
            true => assert_failed(&only(&mut table, bob), 2, "denied"),
            false => assert_eq!(only(&mut table, bob).2["event"], "offer-withdrawn"),
        }
        assert_eq!((table.closed(alice), table.hub.ends_count()), (None, 0));
    }
}

#[test]
fn a_file_in_lines_whose_right_is_gone_is_cut_off() {
    let mut table = users();
    let alice = table.open();
    table.say(alice, "user alice secret\ndownload a\n");
    table.check(Verdict::Right);
    let operation = table.started();
    table.input(Input::Opened { operation, name: b"a", size: 9, modified: 0 });
    without(&mut table, Right::Files);
    assert!(is_terminated(&table, operation));
    let outcome = Outcome::Done;
    table.input(Input::Ended { operation, outcome });
    assert_eq!(table.closed(alice), Some(CloseReason::BrokenFile));
}
