//! Nobody takes the memory and the checks that all share by opening many connections: each bound
//! of what waits in the hub counts by source as well, an address or a /64 of IPv6.

#[path = "hub/objects.rs"]
mod objects;
#[path = "hub/table.rs"]
mod table;

use objects::{ask, run};
use serde_json::json;
use sixfour::{
    hub::{
        Chunk, CloseReason, Effect, Input, OperationId, SessionId, Verdict,
        admission::{Mode, Owner, Policy},
        rights::Rights,
    },
    limits::Limits,
    wire::Stream,
};
use table::Table;

/// Three addresses of one source, and one of another, in both families.
const SOURCES: [([&str; 3], &str); 2] = [
    (["10.0.0.1:5", "10.0.0.1:6", "[::ffff:10.0.0.1]:7"], "10.0.0.2:5"),
    (
        ["[2001:db8:0:1::1]:5", "[2001:db8:0:1:ffff::2]:5", "[2001:db8:0:1::3]:5"],
        "[2001:db8:0:2::1]:5",
    ),
];

fn open_table(limits: Limits) -> Table {
    let mode = Mode::Open { rights: Rights::ALL };
    Table::with_policy(limits, Policy { mode, plaintext: true })
}

fn named_from(table: &mut Table, address: &str, name: &str) -> SessionId {
    let id = table.open_as(address, Owner::Unknown);
    let reply = ask(table, id, json!({"op": "login", "user": name, "id": 0}));
    assert_eq!(reply[0]["user"], name);
    id
}

fn output(table: &mut Table, operation: OperationId, bytes: &[u8]) {
    let chunk = Chunk::Output { stream: Stream::Stdout, bytes };
    table.input(Input::Chunk { operation, chunk });
}

#[test]
fn input_of_one_source_leaves_room_for_that_of_others() {
    let limits =
        Limits { inputs_session_max_bytes: 60, inputs_total_max_bytes: 400, ..Limits::USUAL };
    let cat = |id: u32| json!({"method": "cat", "stdin": "x".repeat(50), "id": id});
    for (addresses, other) in SOURCES {
        let mut table = open_table(limits);
        let [a, b, c] =
            [0, 1, 2].map(|at| named_from(&mut table, addresses[at], &format!("h{at}")));
        run(&mut table, a, cat(1));
        let second = run(&mut table, b, cat(1));
        let refused = &ask(&mut table, c, cat(1))[0]["error"];
        assert_eq!(refused["code"], "busy");
        let text = refused["text"].as_str().expect("a sentence");
        assert!(text.contains("100 of all your connections") && text.contains("100 may"), "{text}");
        let other = named_from(&mut table, other, "other");
        run(&mut table, other, cat(1));
        table.input(Input::InputTaken { operation: second, count: 50 });
        run(&mut table, c, cat(2));
    }
}

#[test]
fn requests_of_one_source_that_do_not_end_cost_that_source_alone() {
    // An object has a MiB: so much a source may have in any case.
    let limits = Limits { unfinished_total_max_bytes: 3 << 20, ..Limits::USUAL };
    for (addresses, other) in SOURCES {
        let mut table = open_table(limits);
        let begin = |table: &mut Table, address: &str, bytes: usize| {
            let id = table.open_as(address, Owner::Unknown);
            let head = format!(r#"{{"op": "echo", "id": 1, "text": "{}"#, "x".repeat(bytes));
            table.say(id, head);
            id
        };
        let victim = begin(&mut table, other, 900_000);
        let small = begin(&mut table, addresses[0], 400_000);
        let large = begin(&mut table, addresses[1], 500_000);
        assert_eq!([victim, small, large].map(|id| table.closed(id)), [None; 3]);
        let last = begin(&mut table, addresses[2], 300_000);
        assert_eq!(table.closed(large), Some(CloseReason::Unfinished));
        assert!(table.heard(large).contains(r#""code":"busy""#));
        for id in [victim, small, last] {
            assert_eq!(table.say(id, "\"}").matches("errorcode").count(), 1);
            assert_eq!(table.closed(id), None);
        }
    }
}

#[test]
fn replies_of_one_source_are_cut_short_before_those_of_others() {
    let limits = Limits {
        reply_max_bytes: 100,
        content_max_bytes: 100,
        replies_session_max_bytes: 100,
        replies_total_max_bytes: 600,
        ..Limits::USUAL
    };
    for (addresses, other) in SOURCES {
        let mut table = open_table(limits);
        let begin = |table: &mut Table, address: &str, name: &str| {
            let id = named_from(table, address, name);
            let operation = run(table, id, json!({"method": "x", "id": 1}));
            table.effects.clear();
            output(table, operation, &[b'x'; 90]);
            operation
        };
        begin(&mut table, addresses[0], "a");
        assert_eq!(table.effects, []);
        let beyond = begin(&mut table, addresses[1], "b");
        assert_eq!(table.effects, [Effect::Terminate { operation: beyond }], "a quarter is 150");
        begin(&mut table, other, "other");
        assert_eq!(table.effects, []);
    }
}

#[test]
fn sessions_of_one_source_that_take_nothing_go_before_a_larger_one_of_another() {
    let limits = Limits {
        outbox_max_bytes: 50_000,
        outbox_pause_bytes: 20_000,
        outbox_low_bytes: 10_000,
        waiting_total_max_bytes: 200_000,
        replies_total_max_bytes: 90_000,
        replies_session_max_bytes: 90_000,
        reply_max_bytes: 80_000,
        content_max_bytes: 80_000,
        ..Limits::USUAL
    };
    for (addresses, other) in SOURCES {
        let mut table = open_table(limits);
        let writer = named_from(&mut table, "192.0.2.1:1", "writer");
        let greedy = [0, 1, 2].map(|at| named_from(&mut table, addresses[at], &format!("g{at}")));
        let victim = named_from(&mut table, other, "victim");
        for id in greedy.into_iter().chain([victim]) {
            table.get_stuck(id);
        }
        let write = |table: &mut Table, to: &str, bytes: usize| {
            let post = json!({"to": to, "text": "x".repeat(bytes), "op": "message", "id": 1});
            assert_eq!(ask(table, writer, post)[0]["errorcode"], 0);
        };
        write(&mut table, "victim", 40_000);
        for to in ["g0", "g1"] {
            write(&mut table, to, 20_000);
        }
        // A quarter is 50,000; beyond it whoever of them holds most goes.
        write(&mut table, "g2", 25_000);
        table.at(2000);
        assert_eq!(table.closed(greedy[2]), Some(CloseReason::SlowConsumer));
        let left = [greedy[0], greedy[1], victim, writer];
        assert_eq!(left.map(|id| table.closed(id)), [None; 4]);
    }
}

#[test]
fn a_login_of_another_source_finds_a_place_where_one_source_has_all_of_them() {
    let limits = Limits { logins_waiting_max: 4, verifications_max: 1, ..Limits::USUAL };
    let users = [("alice", Rights::ALL)];
    for (addresses, other) in SOURCES {
        let mode = Mode::Credentials { grant: Rights::NONE, attempts: 3 };
        let mut table = Table::with_policy(limits, Policy { mode, plaintext: true });
        table.set_users(&users, &[]);
        let log_in = |table: &mut Table, address: &str, name: &str| {
            let id = table.open_as(address, Owner::Unknown);
            (id, table.say(id, format!("user {name} secret\n")))
        };
        let greedy: Vec<_> =
            (0..5).map(|at| log_in(&mut table, addresses[at % 3], &format!("u{at}"))).collect();
        assert!(greedy.iter().all(|(_, heard)| heard.is_empty()), "{greedy:?}");
        assert!(log_in(&mut table, addresses[0], "u5").1.starts_with("error busy: "));
        let (alice, heard) = log_in(&mut table, other, "alice");
        assert_eq!(heard, "");
        // The last of the many hears of it, and may try again.
        let last = greedy[4].0;
        assert!(table.heard(last).starts_with("error busy: "));
        assert!(table.say(last, "user u4 secret\n").starts_with("error busy: "));
        for _ in 0..4 {
            table.check(Verdict::Wrong);
        }
        assert_eq!(table.check(Verdict::Right), "welcome alice\n");
        assert_eq!(table.closed(alice), None);
        table.hub.check_invariants();
    }
}

#[test]
fn the_users_of_this_machine_have_more_room_and_leave_some_to_others() {
    let limits =
        Limits { inputs_session_max_bytes: 50, inputs_total_max_bytes: 400, ..Limits::USUAL };
    let cat = json!({"method": "cat", "stdin": "x".repeat(50), "id": 1});
    let mut table = open_table(limits);
    for at in 0..6 {
        let id = named_from(&mut table, ["[::1]:5", "127.0.0.1:5"][at % 2], &format!("u{at}"));
        run(&mut table, id, cat.clone());
    }
    let beyond = named_from(&mut table, "[::1]:6", "beyond");
    assert_eq!(ask(&mut table, beyond, cat.clone())[0]["error"]["code"], "busy");
    let other = named_from(&mut table, "10.0.0.1:1", "other");
    run(&mut table, other, cat.clone());
    // Where only the server's own account is served, all of it is theirs.
    let mut table = Table::with(limits);
    for at in 0..8 {
        let id = objects::named(&mut table, &format!("u{at}"));
        run(&mut table, id, cat.clone());
    }
}
