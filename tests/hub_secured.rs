//! What TLS changes for the hub: its end is said, or else it is not taken for one.

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{CloseReason, ConnectionId, Effect, Input, Work},
    wire::Outcome,
};
use table::Table;

/// A session whose first bytes will come inside TLS.
fn secured(table: &mut Table) -> ConnectionId {
    let id = table.open();
    table.input(Input::Secured { connection: id });
    id
}

fn cut_off(table: &mut Table, id: ConnectionId) -> String {
    table.input(Input::CutOff { connection: id });
    table.heard(id)
}

#[test]
fn inside_tls_the_dialects_are_told_again_and_tls_is_none_of_them() {
    let mut table = Table::new();
    let lines = secured(&mut table);
    assert_eq!(table.say(lines, "echo hello\n"), "hello\n");
    let twice = secured(&mut table);
    assert_eq!(table.say(twice, b"\x16\x03\x01"), "\x15\x03\x03\0\x02\x02(");
    assert_eq!(table.closed(twice), Some(CloseReason::NotServed));
}

#[test]
fn a_line_that_is_cut_off_is_not_done() {
    for (said, heard) in [
        (&b"echo one\necho tw"[..], "one\n"),
        (b"echo one\n", "one\n"),
        (b"echo on", ""),
        (b"ech", ""),
        // What could have become HTTP, and is a line that never ended.
        (b"GE", ""),
        (b"", ""),
    ] {
        let mut table = Table::new();
        let id = secured(&mut table);
        let mut all = table.say(id, said);
        all += &cut_off(&mut table, id);
        assert_eq!(all, heard, "{}", String::from_utf8_lossy(said));
        assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
    }
}

#[test]
fn whole_lines_before_a_cut_are_answered_one_after_the_other() {
    let mut table = Table::new();
    let id = secured(&mut table);
    table.say(id, "run one\nrun two\necho three\nrun fo");
    cut_off(&mut table, id);
    let mut commands = Vec::new();
    while let Some(at) = table.effects.iter().position(|it| matches!(it, Effect::Start { .. })) {
        let started = table.effects.remove(at);
        let Effect::Start { operation, work: Work::Run { command, .. }, .. } = started else {
            panic!("only commands are asked for")
        };
        commands.push(command);
        let outcome = Outcome::Exit { code: 0, directory: None };
        table.input(Input::Ended { operation, outcome });
    }
    assert_eq!(commands, ["one", "two"]);
    assert_eq!(table.heard(id), "[exit 0]\n[exit 0]\nthree\n");
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
}

#[test]
fn frames_that_are_cut_off_are_gone() {
    let mut table = Table::new();
    let id = table.frame("alice");
    cut_off(&mut table, id);
    assert_eq!(table.closed(id), Some(CloseReason::PeerGone));
    table.line("alice");
}
