//! The bytes behind a refused size: as many as were announced are skipped, none is a request.

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{CloseReason, ConnectionId, Effect, Work, rights::Rights},
    limits::Limits,
};
use table::Table;

const BYTES: &[u8] = b"run touch F\n|bob\n\0\xff\nupload 3 g\n";

fn assert_no_command(table: &Table) {
    let is_run = |effect: &Effect| matches!(effect, Effect::Start { work: Work::Run { .. }, .. });
    assert!(!table.effects.iter().any(is_run), "{:?}", table.effects);
    table.hub.check_invariants();
}

/// The one answer is the refusal, and the `echo on` behind the bytes is answered.
fn assert_refused_behind<'a>(
    table: &mut Table,
    id: ConnectionId,
    portions: impl Iterator<Item = &'a [u8]>,
    code: &str,
) {
    let said: String = portions.map(|bytes| table.say(id, bytes)).collect();
    let lines: Vec<_> = said.lines().collect();
    assert!(lines[0].starts_with(&format!("error {code}: ")), "{said}");
    assert_eq!(lines[1..], ["on"], "{said}");
    assert_no_command(table);
}

#[test]
fn bytes_behind_a_refused_size_are_skipped_exactly_and_never_read_as_requests() {
    let size = BYTES.len();
    let lines: [(Vec<u8>, &str); 5] = [
        ([format!("upload {size} ").as_bytes(), b"a\xffb\n"].concat(), "bad-text"),
        ([format!("upload {size} ").as_bytes(), b"a\0b\n"].concat(), "bad-text"),
        ([format!("send {size} ").as_bytes(), b"a\xffb bob\n"].concat(), "bad-text"),
        (format!("send {size} a nobody\n").into_bytes(), "no-such-user"),
        (format!("send {size} a\n").into_bytes(), "bad-arguments"),
    ];
    for (line, code) in lines {
        let all = [&line[..], BYTES, b"echo on\n"].concat();
        for portion in [1, 7, line.len(), all.len()] {
            let mut table = Table::new();
            let id = table.line("alice");
            assert_refused_behind(&mut table, id, all.chunks(portion), code);
        }
    }
}

#[test]
fn an_upload_that_may_not_begin_is_refused_behind_its_bytes() {
    let whole = [format!("upload {} f\n", BYTES.len()).as_bytes(), BYTES, b"echo on\n"].concat();
    let limits = Limits { operations_total_max: 1, operations_source_max: 1, ..Limits::USUAL };
    let nobody = || {
        let mut table = Table::with_users(Limits::USUAL, 3, &[("alice", Rights::ALL)]);
        let id = table.open();
        assert_eq!(table.say(id, "echo first\n"), "first\n");
        (table, id, "login-required")
    };
    let full = || {
        let mut table = Table::with(limits);
        let (bob, id) = (table.line("bob"), table.line("alice"));
        table.say(bob, "run sleep 9\n");
        table.effects.clear();
        (table, id, "busy")
    };
    for place in [&nobody as &dyn Fn() -> _, &full] {
        for portion in [1, 7, whole.len()] {
            let (mut table, id, code) = place();
            assert_refused_behind(&mut table, id, whole.chunks(portion), code);
        }
    }
}

#[test]
fn a_size_beyond_all_sizes_ends_the_connection() {
    for size in ["9223372036854775808", "18446744073709551616", &"9".repeat(40)] {
        for line in [format!("upload {size} f\n"), format!("send {size} f bob\n")] {
            let mut table = Table::new();
            let id = table.line("alice");
            let said = table.say(id, [line.as_bytes(), BYTES].concat());
            assert!(said.starts_with("error protocol: "), "{said}");
            assert_eq!(table.closed(id), Some(CloseReason::Protocol), "{line}");
            assert_no_command(&table);
        }
    }
}
