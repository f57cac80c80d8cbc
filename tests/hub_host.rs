//! The host commands, as the hub does them: bytes in, replies, effects and close reasons out.

#![allow(dead_code, reason = "the table is for other tests as well")]

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{Chunk, CloseReason, Effect, Input, Program, Work},
    wire::{
        ErrorCode, Outcome, Refusal, Stream,
        frame::{MAGIC, client, server},
        host::{Interpreter, Question},
    },
};
use table::{Table, message};

/// The work of what was started last.
fn work(table: &mut Table) -> Work {
    let is_start = |effect: &Effect| matches!(effect, Effect::Start { .. });
    let at = table.effects.iter().rposition(is_start).expect("something was started");
    match &table.effects[at] {
        Effect::Start { work, .. } => work.clone(),
        _ => unreachable!("it was looked for"),
    }
}

#[test]
fn what_needs_the_world_is_started_and_answered_in_its_turn() {
    let script = |interpreter| {
        let command = "dir | more".to_owned();
        Work::Program { program: Program::Script { interpreter, command }, stdin: false }
    };
    for (line, wanted) in [
        ("IP", Work::Ask(Question::Addresses)),
        ("name", Work::Ask(Question::Name)),
        ("Ram", Work::Ask(Question::Memory)),
        ("os", Work::Ask(Question::System)),
        ("cpu", Work::Ask(Question::Processor)),
        ("ping", Work::Ask(Question::Pong)),
        ("info", Work::Ask(Question::Info { interval_ms: 500 })),
        ("python --version", Work::Program { program: Program::PythonVersion, stdin: false }),
        ("dos:dir | more", script(Interpreter::Dos)),
        ("POWERSHELL: dir | more", script(Interpreter::PowerShell)),
        ("linux:dir | more", Work::Run { command: "dir | more".into(), stdin: false }),
    ] {
        let mut table = Table::new();
        let alice = table.line("alice");
        assert_eq!(table.say(alice, format!("{line}\necho next\n")), "", "{line}");
        assert_eq!(work(&mut table), wanted);
        let operation = table.started();
        table.input(Input::Chunk { operation, chunk: Chunk::Text("one\ntwo") });
        assert_eq!(table.heard(alice), "one\ntwo\n");
        table.input(Input::Ended { operation, outcome: Outcome::Done });
        assert_eq!(table.heard(alice), "next\n", "the request after it waits for its end");
    }
}

#[test]
fn a_ping_has_a_time_limit_of_the_hub_too() {
    let mut table = Table::new();
    let alice = table.line("alice");
    table.say(alice, "ping fe80::1%eth0\n");
    let operation = table.started();
    table.at(14_999);
    assert!(!table.effects.contains(&Effect::Terminate { operation }));
    table.at(15_000);
    assert!(table.effects.contains(&Effect::Terminate { operation }));
    let outcome = Outcome::Signal { number: 15, because: None };
    table.input(Input::Ended { operation, outcome });
    assert_eq!(table.heard(alice), "[signal 15: timed out]\n");
}

#[test]
fn a_reset_closes_each_session_once_with_its_reason() {
    let mut table = Table::new();
    let (alice, bob) = (table.line("alice"), table.frame("bob"));
    let (nameless, silent, greeting) = (table.open(), table.open(), table.open());
    table.say(nameless, "run sleep\n");
    let sleep = table.started();
    table.input(Input::Bytes { connection: greeting, bytes: &MAGIC });
    table.send(bob, client::REQUEST, 7, br#"{"op":"run","command":"sleep"}"#);
    let other_sleep = table.started();
    // One is on its way out already, for another reason.
    let leaving = table.line("leaving");
    table.get_stuck(leaving);
    table.say(leaving, "quit\n");
    table.input(Input::Chunk {
        operation: sleep,
        chunk: Chunk::Output { stream: Stream::Stdout, bytes: b"half a line" },
    });
    table.heard(nameless);
    assert_eq!(table.hub.counts().sessions, 6);
    let why = "error reset: all sessions were ended by alice; connect again\n";
    assert_eq!(table.say(alice, "reset\necho more\n"), why);
    assert_eq!(table.heard(nameless), format!("\n{why}"));
    assert_eq!(table.kinds(bob), [server::GOODBYE]);
    assert_eq!(table.heard(silent), "");
    assert_eq!(table.kinds(greeting), [server::GOODBYE]);
    for id in [alice, bob, nameless, silent, greeting] {
        assert_eq!(table.closed(id), Some(CloseReason::Reset));
    }
    for operation in [sleep, other_sleep] {
        assert!(table.effects.contains(&Effect::Stop { operation }));
    }
    let again = table.effects.iter().filter(|effect| **effect == Effect::ListenAgain).count();
    assert_eq!(again, 1);
    table.get_unstuck(leaving);
    assert_eq!(table.closed(leaving), Some(CloseReason::PeerLeft));
    assert_eq!(table.hub.counts().sessions, 0);
    // Their names are free, and it goes on.
    table.line("alice");
    table.frame("bob");
}

#[test]
fn whoever_takes_nothing_at_a_reset_is_gone_after_two_seconds() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    table.get_stuck(bob);
    table.at(1_000);
    let kinds = table.send(alice, client::REQUEST, 1, br#"{"op":"reset"}"#);
    assert_eq!(kinds, [server::END, server::GOODBYE]);
    table.at(2_999);
    assert_eq!(table.closed(bob), None);
    table.at(3_000);
    assert_eq!(table.closed(bob), Some(CloseReason::Reset));
}

#[test]
fn a_kill_waits_for_nobody_and_then_all_is_finished() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    table.say(bob, "run sleep\n");
    let sleep = table.started();
    let kinds = table.send(alice, client::REQUEST, 1, br#"{"op":"kill"}"#);
    assert_eq!(kinds, [server::END, server::GOODBYE]);
    assert_eq!(table.heard(bob), "error shutting-down: the server was stopped by alice\n");
    for id in [alice, bob] {
        assert_eq!(table.closed(id), Some(CloseReason::ShuttingDown));
    }
    assert!(table.effects.contains(&Effect::Stop { operation: sleep }));
    assert!(table.effects.contains(&Effect::Quit) && table.hub.is_finished());
}

#[test]
fn a_server_that_stops_already_can_be_killed_and_not_reset() {
    let mut table = Table::new();
    let bob = table.line("bob");
    let nameless = table.open();
    for id in [bob, nameless] {
        table.say(id, "run sleep\n");
    }
    let frames = table.frame("carol");
    table.send(frames, client::REQUEST, 1, br#"{"op":"run","command":"sleep"}"#);
    table.input(Input::Stop);
    assert_eq!(table.kinds(frames), [server::ERROR]);
    let kinds = table.send(frames, client::REQUEST, 2, br#"{"op":"reset"}"#);
    assert_eq!(kinds, [server::END]);
    assert_eq!(table.closed(bob), None);
    table.send(frames, client::REQUEST, 3, br#"{"op":"kill"}"#);
    for id in [bob, nameless, frames] {
        assert_eq!(table.closed(id), Some(CloseReason::ShuttingDown));
    }
    assert!(table.hub.is_finished());
}

#[test]
fn clear_and_disconnect_need_nobody_else() {
    let mut table = Table::new();
    let nameless = table.open();
    assert_eq!(table.say(nameless, "CLEAR\n"), "\x1b[H\x1b[2J\x1b[3J\n");
    assert_eq!(table.say(nameless, "Disconnect\n"), "goodbye\n");
    assert_eq!(table.closed(nameless), Some(CloseReason::PeerLeft));
    let alice = table.frame("alice");
    let kinds = table.send(alice, client::REQUEST, 1, br#"{"op":"clear"}"#);
    assert_eq!(kinds, [server::DATA, server::END]);
    let kinds = table.send(alice, client::REQUEST, 2, br#"{"op":"disconnect"}"#);
    assert_eq!(kinds, [server::END, server::GOODBYE]);
    assert_eq!(table.closed(alice), Some(CloseReason::PeerLeft));
}

#[test]
fn messages_are_counted_for_each_who_gets_them() {
    let mut table = Table::new();
    let (alice, bob) = (table.frame("alice"), table.line("bob"));
    let _carol = table.line("carol");
    table.input(Input::Bytes { connection: alice, bytes: &message(0, "bob,carol,nobody", "hi") });
    table.say(bob, "hello|*\n");
    let counts = table.hub.counts();
    assert_eq!((counts.messages, counts.users, counts.operations), (4, 3, 0));
}

#[test]
fn a_question_that_fails_says_why() {
    let mut table = Table::new();
    let alice = table.line("alice");
    table.say(alice, "ram\n");
    let operation = table.started();
    let refusal = Refusal::new(0, ErrorCode::SystemError, "the host does not tell: x");
    table.input(Input::Ended { operation, outcome: Outcome::Failed(refusal) });
    assert_eq!(table.heard(alice), "error system-error: the host does not tell: x\n");
}
