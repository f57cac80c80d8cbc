//! Who is let in and may do what, at the hub: admission, logins, lockout, rights, takeover.

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{
        CloseReason, ConnectionId, Effect, Input, Verdict,
        admission::{Mode, Owner, Policy},
        rights::{Right, Rights},
    },
    limits::{LOGIN_FAILURES_MAX, Limits},
    wire::{
        Outcome,
        frame::{MAGIC, client, server},
    },
};
use table::{Table, frame_of, hello, hello_with, message};

const WRONG: &str = "error login-failed: Invalid Password. Please try again\n";
const NOW_BLOCKED: &str = "error blocked: Invalid Password. Your account has been blocked. Please \
                           try again later\n";
const BLOCKED: &str = "error blocked: Your account is blocked due to multiple authentication \
                       failures. Please try again later\n";

/// alice and bob log in with passwords.
fn users(attempts: u8) -> Table {
    users_within(Limits::default(), attempts)
}

fn users_within(limits: Limits, attempts: u8) -> Table {
    let users = [("alice", Rights::USUAL), ("bob", Rights::ALL)];
    Table::with_users(limits, attempts, &users)
}

fn has_started(table: &Table) -> bool {
    table.effects.iter().any(|effect| matches!(effect, Effect::Start { .. }))
}

/// Says `line`, whose password is then found to be as said; what is heard.
fn log_in(table: &mut Table, id: ConnectionId, line: &str, verdict: Verdict) -> String {
    assert_eq!(table.say(id, format!("{line}\n")), "");
    table.check(verdict)
}

fn framed_login(table: &mut Table, address: &str, user: &str) -> ConnectionId {
    let id = table.open_from(address);
    let bytes = [&MAGIC[..], &hello_with(user, Some("secret"))].concat();
    table.input(Input::Bytes { connection: id, bytes: &bytes });
    id
}

#[test]
fn strangers_of_a_protected_server_get_one_line_in_their_dialect() {
    for (address, owner) in [
        ("[::1]:9", Owner::Other),
        ("127.0.0.1:9", Owner::Unknown),
        ("10.0.0.1:9", Owner::Unknown),
        ("[::ffff:10.0.0.1]:9", Owner::Ours),
        ("[fe80::1]:9", Owner::Ours),
        ("[2001:db8::1]:9", Owner::Ours),
    ] {
        for words in [&b"run id\n"[..], b"user alice\nrun id\n", b"help\n", b"|\n", b"PROXY TCP4 "]
        {
            let mut table = Table::new();
            let id = table.open_as(address, owner);
            let heard = table.say(id, words);
            assert!(heard.starts_with("error denied: ") && heard.ends_with('\n'), "{heard}");
            assert_eq!(heard.lines().count(), 1, "{heard}");
            assert!(heard.contains("--credentials FILE") && heard.contains("--open"), "{heard}");
            assert_eq!(table.closed(id), Some(CloseReason::NotAdmitted), "{address}");
            assert!(!has_started(&table), "{:?}", table.effects);
        }
        let mut table = Table::new();
        let id = table.open_as(address, owner);
        let bytes = [&MAGIC[..], &hello("alice")].concat();
        table.input(Input::Bytes { connection: id, bytes: &bytes });
        assert_eq!(table.kinds(id), [server::GOODBYE]);
        let id = table.open_as(address, owner);
        assert!(table.say(id, "GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 421 "));
    }
}

#[test]
fn other_machines_are_let_in_once_tls_protects_them() {
    let mode = Mode::Open { rights: Rights::OPEN };
    let mut table = Table::with_policy(Limits::default(), Policy { mode, plaintext: false });
    let id = table.open_as("[2001:db8::1]:9", Owner::Unknown);
    assert!(table.say(id, "echo x\n").contains("--plaintext"));
    assert_eq!(table.closed(id), Some(CloseReason::NotAdmitted));
    let id = table.open_as("[2001:db8::1]:9", Owner::Unknown);
    table.input(Input::Secured { connection: id });
    assert_eq!(table.say(id, "echo x\n"), "x\n");
    let mut table = Table::with_policy(Limits::default(), Policy { mode, plaintext: true });
    let id = table.open_as("192.0.2.1:9", Owner::Unknown);
    assert_eq!(table.say(id, "echo x\n"), "x\n");
    // TLS makes no machine this one.
    let mut table = Table::new();
    let id = table.open_as("[2001:db8::1]:9", Owner::Unknown);
    table.input(Input::Secured { connection: id });
    assert!(table.say(id, "echo x\n").starts_with("error denied: "));
}

/// Requests in lines with the right that each needs; `None` is a login.
const NEEDS: [(&str, Option<Right>); 19] = [
    ("hello|bob", Some(Right::Message)),
    ("msg bob hello", Some(Right::Message)),
    ("download x", Some(Right::Files)),
    ("ls", Some(Right::Files)),
    ("run id", Some(Right::Run)),
    // What follows it is no request, whether it is taken or not.
    ("upload 6 x\nrun id", Some(Right::Upload)),
    ("send 6 x bob\nrun id", Some(Right::Message)),
    ("Linux:id", Some(Right::Run)),
    ("DOS:dir", Some(Right::Run)),
    ("PowerShell:ls", Some(Right::Run)),
    ("ping localhost", Some(Right::Run)),
    ("reset", Some(Right::Admin)),
    ("kill", Some(Right::Admin)),
    ("who", None),
    ("info", None),
    ("ip", None),
    ("cpu", None),
    ("python --version", None),
    ("ls folder", Some(Right::Files)),
];

#[test]
fn a_request_without_its_right_is_denied_in_one_text_and_starts_nothing() {
    for (line, need) in NEEDS {
        for lacking in Right::ALL {
            let others = Right::ALL.into_iter().filter(|right| *right != lacking);
            let rights = others.fold(Rights::NONE, Rights::with);
            let users = [("alice", rights), ("bob", Rights::ALL)];
            let mut table = Table::with_users(Limits::default(), 3, &users);
            let (alice, bob) = (table.open(), table.open());
            log_in(&mut table, bob, "user bob secret", Verdict::Right);
            log_in(&mut table, alice, "user alice secret", Verdict::Right);
            let heard = table.say(alice, format!("{line}\n"));
            let is_denied = need == Some(lacking);
            let denial = format!("error denied: {}\n", lacking.denial());
            assert_eq!(heard == denial, is_denied, "{line} without {lacking}: {heard}");
            assert!(!is_denied || !has_started(&table), "{:?}", table.effects);
            assert!(!is_denied || table.heard(bob).is_empty(), "nothing was sent");
            assert!(!is_denied || table.closed(alice).is_none());
        }
    }
}

#[test]
fn frames_are_denied_with_the_same_text_at_the_end_of_what_was_asked() {
    let mut table = Table::with_users(Limits::default(), 3, &[("alice", Rights::NONE)]);
    let alice = framed_login(&mut table, "[::1]:9", "alice");
    table.check(Verdict::Right);
    for (tag, body, right) in [
        (1, r#"{"op":"run","command":"id","stdin":true}"#, Right::Run),
        (2, r#"{"op":"download","path":"x"}"#, Right::Files),
        (3, r#"{"op":"ls"}"#, Right::Files),
        (5, r#"{"op":"fetch","paths":["x"]}"#, Right::Files),
        (6, r#"{"op":"store"}"#, Right::Upload),
        (7, r#"{"op":"kill"}"#, Right::Admin),
    ] {
        let bytes = frame_of(client::REQUEST, tag, body.as_bytes());
        let heard = table.say(alice, bytes);
        assert!(heard.contains(right.denial()) && heard.contains("\"denied\""), "{heard}");
        assert_eq!(heard.as_bytes()[0], server::END);
    }
    // What follows as if it had begun does nothing.
    assert_eq!(table.send(alice, client::DATA, 1, b"x"), b"");
    let heard = table.say(alice, message(7, "bob", "hello"));
    assert!(heard.contains(Right::Message.denial()), "{heard}");
    assert_eq!(heard.as_bytes()[0], server::ERROR);
    assert_eq!(table.send(alice, client::REQUEST, 4, br#"{"op":"who"}"#).len(), 2);
    assert!(!has_started(&table), "{:?}", table.effects);
}

#[test]
fn anybody_at_an_open_server_has_the_rights_that_it_gives() {
    let mode = Mode::Open { rights: Rights::OPEN };
    let mut table = Table::with_policy(Limits::default(), Policy { mode, plaintext: false });
    let (nobody, bob) = (table.open(), table.line("bob"));
    assert!(table.say(nobody, "run id\n").contains(Right::Run.denial()));
    assert!(table.say(nobody, "x|bob\n").starts_with("error not-named: "));
    assert_eq!(table.say(nobody, "user alice any password\n"), "welcome alice\n");
    assert_eq!(table.say(nobody, "x|bob\n"), "");
    assert_eq!(table.heard(bob), "alice|x\n");
    assert!(!has_started(&table), "{:?}", table.effects);
    let run = Rights::OPEN.with(Right::Run);
    let policy = Policy { mode: Mode::Open { rights: run }, plaintext: false };
    let mut table = Table::with_policy(Limits::default(), policy);
    let id = table.open();
    table.say(id, "run id\n");
    assert!(has_started(&table));
}

#[test]
fn nobodies_may_ask_for_help_and_an_echo_and_leave_and_nothing_else() {
    let mut table = users(3);
    let id = table.open();
    assert!(table.say(id, "help\n").contains("quit"));
    assert_eq!(table.say(id, "echo x\n"), "x\n");
    for (line, _) in NEEDS {
        let heard = table.say(id, format!("{line}\n"));
        assert!(heard.starts_with("error login-required: "), "{line}: {heard}");
        assert_eq!(heard.lines().count(), 1);
    }
    for line in ["user alice", "user alice "] {
        let heard = table.say(id, format!("{line}\n"));
        assert!(heard.starts_with("error login-required: this server asks for a password"));
    }
    assert!(!has_started(&table), "{:?}", table.effects);
    assert_eq!(table.say(id, "quit\n"), "goodbye\n");
    for hello in [hello("alice"), hello_with("alice", Some(""))] {
        let id = table.open();
        assert!(table.say(id, [&MAGIC[..], &hello].concat()).contains("\"login-required\""));
        assert_eq!(table.closed(id), Some(CloseReason::NotLoggedIn));
    }
    assert!(!has_started(&table), "{:?}", table.effects);
}

#[test]
fn a_nobody_is_cheap_and_does_not_stay() {
    let mut table = users(3);
    let id = table.open();
    assert_eq!(table.hub.input_max_bytes(id), 4096);
    table.say(id, "help\n");
    assert_eq!(table.hub.input_max_bytes(id), 4096);
    let long = format!("echo {}\n", "x".repeat(4096));
    assert!(table.say(id, long).starts_with("error line-too-long: "));
    let id = table.open();
    table.get_stuck(id);
    table.input(Input::Bytes { connection: id, bytes: "help\n".repeat(800).as_bytes() });
    assert!(table.hub.unsent_bytes(id) < 10_000, "{}", table.hub.unsent_bytes(id));
    assert!(!table.hub.wants_input(id));
    table.get_unstuck(id);
    table.heard(id);
    table.now = 1_000;
    let late = table.open();
    table.say(late, "echo x\n");
    table.at(120_999);
    assert_eq!(table.closed(late), None);
    table.at(121_000);
    assert!(table.heard(late).starts_with("error timed-out: nobody logged in within 120 s"));
    assert_eq!(table.closed(late), Some(CloseReason::LoginTimeout));
    let alice = table.open();
    log_in(&mut table, alice, "user alice secret", Verdict::Right);
    assert_eq!(table.hub.input_max_bytes(alice), usize::MAX);
    table.at(10_000_000);
    assert_eq!(table.closed(alice), None);
}

#[test]
fn the_password_goes_to_the_check_as_it_is_and_the_next_requests_wait() {
    let mut table = users(3);
    let id = table.open();
    let heard = table.say(id, "user bob  two words \r\necho one\nwho\n");
    assert_eq!(heard, "");
    assert_eq!(table.checks(), [(id, "bob".to_owned(), " two words ".to_owned())]);
    assert!(!table.hub.wants_input(id));
    assert!(table.hub.take_heard_secret() && !table.hub.take_heard_secret());
    assert_eq!(table.verified(id, Verdict::Right), "welcome bob\none\nbob\n[1 users]\n");
    assert!(table.effects.contains(&Effect::Resume { connection: id }));

    let odd = "nul \0 and\nline \u{1f600}";
    let id = table.open();
    let bytes = [&MAGIC[..], &hello_with("alice", Some(odd))].concat();
    for byte in bytes {
        table.input(Input::Bytes { connection: id, bytes: &[byte] });
    }
    assert_eq!(table.checks(), [(id, "alice".to_owned(), odd.to_owned())]);
    let session = table.session(id);
    table.input(Input::Verified { session, verdict: Verdict::Right });
    assert_eq!(table.kinds(id), [server::WELCOME]);
}

#[test]
fn the_end_of_input_waits_for_the_check() {
    let mut table = users(3);
    let id = table.open();
    table.say(id, "user bob secret\nwho\n");
    table.input(Input::EndOfInput { connection: id });
    assert_eq!(table.closed(id), None);
    assert_eq!(table.check(Verdict::Right), "welcome bob\nbob\n[1 users]\n");
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
    let id = table.open();
    table.say(id, "user bob secret\n");
    table.input(Input::EndOfInput { connection: id });
    assert_eq!(table.check(Verdict::Wrong), WRONG);
    assert_eq!(table.closed(id), Some(CloseReason::PeerLeft));
}

#[test]
fn the_last_failure_blocks_the_name_with_the_words_that_were_agreed() {
    for attempts in 1..=5 {
        for who in ["alice", "nobody"] {
            let mut table = users(attempts);
            let id = table.open();
            let line = format!("user {who} wrong");
            for _ in 1..attempts {
                assert_eq!(log_in(&mut table, id, &line, Verdict::Wrong), WRONG);
            }
            table.now = 500;
            assert_eq!(log_in(&mut table, id, &line, Verdict::Wrong), NOW_BLOCKED);
            // Neither the right password nor anything else changes that before its time.
            for now in [500, 5_000, 10_499] {
                table.now = now;
                assert_eq!(table.say(id, format!("{line}\n")), BLOCKED);
                assert_eq!(table.checks(), []);
            }
            table.now = 10_500;
            let answer = if attempts == 1 { NOW_BLOCKED } else { WRONG };
            assert_eq!(log_in(&mut table, id, &line, Verdict::Wrong), answer);
        }
    }
}

#[test]
fn a_success_resets_the_count() {
    let mut table = users(2);
    for _ in 0..3 {
        let id = table.open();
        assert_eq!(log_in(&mut table, id, "user alice wrong", Verdict::Wrong), WRONG);
        assert_eq!(log_in(&mut table, id, "user alice secret", Verdict::Right), "welcome alice\n");
        assert_eq!(table.say(id, "quit\n"), "goodbye\n");
    }
}

#[test]
fn failures_add_up_over_addresses_and_dialects() {
    let mut table = users(3);
    let line = table.open_from("127.0.0.2:9");
    assert_eq!(log_in(&mut table, line, "user alice wrong", Verdict::Wrong), WRONG);
    let frame = framed_login(&mut table, "[::1]:9", "alice");
    assert!(table.check(Verdict::Wrong).contains("Invalid Password. Please try again"));
    assert_eq!(table.closed(frame), Some(CloseReason::NotLoggedIn));
    let mapped = table.open_from("[::ffff:127.0.0.1]:9");
    assert_eq!(log_in(&mut table, mapped, "user alice wrong", Verdict::Wrong), NOW_BLOCKED);
    let frame = framed_login(&mut table, "127.0.0.9:9", "alice");
    assert!(table.heard(frame).contains("multiple authentication failures"));
    // Others are not concerned, and case matters.
    assert_eq!(log_in(&mut table, line, "user Alice wrong", Verdict::Wrong), WRONG);
    assert_eq!(log_in(&mut table, line, "user bob secret", Verdict::Right), "welcome bob\n");
}

#[test]
fn however_many_guess_at_once_no_more_are_checked_than_may_fail() {
    for attempts in 1..=5u8 {
        let mut table = users(attempts);
        let ids: Vec<ConnectionId> = (0..200).map(|_| table.open()).collect();
        let said: Vec<_> = ids.iter().map(|id| table.say(*id, "user alice guess\n")).collect();
        let mut checked = 0;
        let mut heard = Vec::new();
        loop {
            let checks = table.checks();
            assert!(checks.len() <= 2);
            if checks.is_empty() {
                break;
            }
            for (id, ..) in checks {
                checked += 1;
                heard.push(table.verified(id, Verdict::Wrong));
            }
        }
        assert_eq!(checked, usize::from(attempts));
        let last = heard.pop().expect("the last one");
        assert!(heard.iter().all(|text| text == WRONG) && last == NOW_BLOCKED);
        let rest = ids.iter().map(|id| table.heard(*id)).chain(said).collect::<Vec<_>>();
        let blocked = rest.iter().filter(|text| *text == BLOCKED).count();
        let busy = rest.iter().filter(|text| text.starts_with("error busy: ")).count();
        assert_eq!(checked + blocked + busy, 200);
    }
}

#[test]
fn the_right_password_among_many_is_let_in_if_it_comes_before_the_block() {
    let mut table = users(1);
    let (first, second, third) = (table.open(), table.open(), table.open());
    for id in [first, second, third] {
        table.say(id, "user alice secret\n");
    }
    // With one failure to go, one at a time is checked.
    assert_eq!(table.check(Verdict::Right), "welcome alice\n");
    assert_eq!(table.check(Verdict::Right), "welcome alice\n");
    assert!(table.heard(first).starts_with("error replaced: "));
    assert_eq!(table.check(Verdict::Wrong), NOW_BLOCKED);
    assert_eq!(table.closed(second), None);
}

#[test]
fn two_are_checked_at_once_64_wait_and_the_next_is_told_that_we_are_busy() {
    let mut table = users(3);
    let ids: Vec<ConnectionId> = (0..67).map(|_| table.open()).collect();
    for (at, id) in ids.iter().enumerate() {
        let heard = table.say(*id, format!("user u{at} x\n"));
        assert_eq!(heard.starts_with("error busy: "), at == 66, "{at}: {heard}");
    }
    let order = (0..66).map(|at| format!("u{at}"));
    let mut names = Vec::new();
    loop {
        let checks = table.checks();
        let Some((id, ..)) = checks.first() else { break };
        names.extend(checks.iter().map(|(_, name, _)| name.clone()));
        table.verified(*id, Verdict::Wrong);
        for (id, ..) in &checks[1..] {
            table.verified(*id, Verdict::Wrong);
        }
    }
    assert!(names.into_iter().eq(order), "first come, first checked");
}

#[test]
fn a_check_outlives_the_client_that_asked_and_counts() {
    let mut table = users(1);
    let (gone, waiting, other) = (table.open(), table.open(), table.open());
    table.say(gone, "user alice wrong\n");
    table.say(waiting, "user alice wrong\n");
    table.say(other, "user bob x\n");
    let checks = table.checks();
    assert_eq!(checks.len(), 2);
    table.input(Input::Gone { connection: gone });
    table.input(Input::Gone { connection: waiting });
    // Its place is still taken, and the name still has a failure to come.
    let next = table.open();
    table.say(next, "user alice secret\n");
    assert_eq!(table.checks(), []);
    assert_eq!(table.verified(gone, Verdict::Wrong), "");
    assert_eq!(table.heard(next), BLOCKED);
    assert_eq!(table.checks(), [], "whoever has gone is not checked");
    assert_eq!(table.verified(other, Verdict::Right), "welcome bob\n");
    // News of a check that nobody asked for.
    assert_eq!(table.verified(next, Verdict::Right), "");
    assert_eq!(table.verified(gone, Verdict::Right), "");
}

#[test]
fn a_check_that_could_not_be_made_does_not_count() {
    let mut table = users(1);
    let id = table.open();
    for _ in 0..3 {
        let heard = log_in(&mut table, id, "user alice x", Verdict::Unchecked);
        assert!(heard.starts_with("error busy: "), "{heard}");
    }
    assert_eq!(log_in(&mut table, id, "user alice secret", Verdict::Right), "welcome alice\n");
}

#[test]
fn unknown_names_cannot_be_told_from_real_ones() {
    let transcript = |who: &str| {
        let mut table = users(2);
        let mut heard = String::new();
        for round in 0..2 {
            table.now = round * 10_000;
            let id = table.open();
            heard += &table.say(id, format!("user {who}\n"));
            heard += &table.say(id, format!("user {who} {}\n", "x".repeat(1025)));
            for _ in 0..2 {
                heard += &log_in(&mut table, id, &format!("user {who} x"), Verdict::Wrong);
            }
            heard += &table.say(id, format!("user {who} x\n"));
            let frame = framed_login(&mut table, "[::1]:9", who);
            heard += &table.heard(frame);
        }
        heard
    };
    assert_eq!(transcript("alice"), transcript("zelda"));
    assert_eq!(transcript("bob"), transcript("nul"));
}

#[test]
fn a_password_of_more_than_1024_bytes_is_not_even_looked_at() {
    let mut table = users(1);
    let id = table.open();
    for _ in 0..3 {
        let heard = table.say(id, format!("user alice {}\n", "x".repeat(1025)));
        assert!(heard.starts_with("error bad-arguments: a password has at most 1024"), "{heard}");
    }
    assert_eq!(table.checks(), []);
    let heard = log_in(&mut table, id, &format!("user alice {}", "x".repeat(1024)), Verdict::Wrong);
    assert_eq!(heard, NOW_BLOCKED);
}

#[test]
fn a_second_login_with_the_password_takes_over_and_the_older_is_told() {
    let mut table = users(3);
    let old = table.open();
    log_in(&mut table, old, "user bob secret", Verdict::Right);
    table.say(old, "run sleep\n");
    let run = table.started();
    let alice = table.open();
    log_in(&mut table, alice, "user alice secret", Verdict::Right);
    assert_eq!(table.say(alice, "one|bob\n"), "");
    assert_eq!(table.heard(old), "alice|one\n");
    // Not before the password was checked.
    let new = table.open_from("[::ffff:127.0.0.3]:77");
    table.say(new, "user bob secret\n");
    table.say(alice, "two|bob\n");
    assert_eq!(table.heard(old), "alice|two\n");
    assert_eq!(table.check(Verdict::Right), "welcome bob\n");
    assert_eq!(table.heard(old), "error replaced: replaced by a login from 127.0.0.3\n");
    assert_eq!(table.closed(old), Some(CloseReason::Replaced));
    assert!(table.effects.contains(&Effect::Stop { operation: run }));
    table.say(alice, "three|bob\n");
    assert_eq!((table.heard(old), table.heard(new)), (String::new(), "alice|three\n".into()));
    assert_eq!(table.say(alice, "who\n"), "alice\nbob\n[2 users]\n");
    // Frames the same.
    let framed = framed_login(&mut table, "[::1]:9", "bob");
    table.check(Verdict::Right);
    assert_eq!(table.heard(new), "error replaced: replaced by a login from ::1\n");
    let again = table.open();
    log_in(&mut table, again, "user bob secret", Verdict::Right);
    assert_eq!(table.kinds(framed), [server::GOODBYE]);
    assert_eq!(table.closed(framed), Some(CloseReason::Replaced));
}

#[test]
fn a_message_to_somebody_who_is_taken_over_goes_to_exactly_one() {
    let mut table = users(3);
    let old = table.open();
    log_in(&mut table, old, "user bob secret", Verdict::Right);
    let alice = framed_login(&mut table, "[::1]:9", "alice");
    table.check(Verdict::Right);
    table.heard(alice);
    table.get_stuck(old);
    assert_eq!(table.say(alice, message(5, "bob", "stuck")), "");
    let new = table.open();
    log_in(&mut table, new, "user bob secret", Verdict::Right);
    table.say(alice, message(6, "bob", "new"));
    assert_eq!(table.heard(new), "alice|new\n");
    // The older one never reads: what waited for it is not delivered, and the sender hears so.
    assert_eq!(table.closed(old), None);
    table.at(2_000);
    assert_eq!(table.closed(old), Some(CloseReason::Replaced));
    let heard = table.heard(alice);
    assert!(heard.contains("\"not-delivered\"") && !table.heard(new).contains("stuck"), "{heard}");
}

#[test]
fn without_passwords_a_name_is_taken_until_its_owner_has_vanished() {
    let mut table = Table::new();
    let old = table.frame("alice");
    table.now = 5_000;
    let new = table.open();
    assert!(table.say(new, "user alice\n").starts_with("error name-taken: "));
    // Somebody wants the name: its owner is asked whether it is there.
    assert_eq!(table.kinds(old), [server::PING]);
    table.send(old, client::PONG, 0, b"");
    table.now = 8_000;
    assert!(table.say(new, "user alice\n").starts_with("error name-taken: "));
    assert_eq!(table.kinds(old), [server::PING]);
    table.now = 9_999;
    assert!(table.say(new, "user alice\n").starts_with("error name-taken: "));
    assert_eq!(table.kinds(old), b"", "it is asked once");
    table.now = 10_000;
    assert_eq!(table.say(new, "user alice\n"), "welcome alice\n");
    assert_eq!(table.kinds(old), [server::GOODBYE]);
    assert_eq!(table.closed(old), Some(CloseReason::Replaced));
}

#[test]
fn without_passwords_a_name_whose_owner_takes_nothing_is_free_again() {
    let mut table = Table::new();
    let (old, bob) = (table.line("alice"), table.line("bob"));
    table.get_stuck(old);
    table.say(bob, "hello|alice\n");
    let new = table.open();
    table.now = 9_999;
    assert!(table.say(new, "user alice\n").starts_with("error name-taken: "));
    table.now = 10_000;
    assert_eq!(table.say(new, "user alice\n"), "welcome alice\n");
    table.at(12_000);
    assert_eq!(table.closed(old), Some(CloseReason::Replaced));
}

#[test]
fn other_accounts_hold_at_once_for_those_who_are_here() {
    let mut table = users(3);
    let ids: Vec<ConnectionId> = ["alice", "bob"]
        .map(|who| {
            let id = table.open();
            log_in(&mut table, id, &format!("user {who} secret"), Verdict::Right);
            id
        })
        .to_vec();
    assert!(table.say(ids[0], "run id\n").starts_with("error denied: "));
    let run = [("alice", Rights::ALL), ("bob", Rights::NONE)];
    table.set_users(&run, &[]);
    table.say(ids[0], "run id\n");
    let operation = table.started();
    table.input(Input::Ended { operation, outcome: Outcome::Done });
    assert!(table.say(ids[1], "x|alice\n").starts_with("error denied: message"));
    // Another password, and none any more.
    table.set_users(&[("alice", Rights::ALL)], &["alice"]);
    for id in ids {
        let heard = table.heard(id);
        assert!(heard.ends_with("your password was changed or taken away; log in again\n"));
        assert_eq!(table.closed(id), Some(CloseReason::NotLoggedIn));
    }
    // A check that was under way when its account was taken away.
    let id = table.open();
    table.say(id, "user alice secret\n");
    table.set_users(&[], &[]);
    assert_eq!(table.check(Verdict::Right), WRONG);
}

#[test]
fn a_lock_outlasts_a_change_of_the_accounts() {
    let mut table = users(1);
    let id = table.open();
    assert_eq!(log_in(&mut table, id, "user alice x", Verdict::Wrong), NOW_BLOCKED);
    assert_eq!(log_in(&mut table, id, "user carol x", Verdict::Wrong), NOW_BLOCKED);
    table.set_users(&[("carol", Rights::ALL)], &[]);
    for who in ["alice", "carol"] {
        assert_eq!(table.say(id, format!("user {who} x\n")), BLOCKED);
    }
}

#[test]
fn a_stop_does_not_wait_for_a_check() {
    let mut table = users(3);
    let id = table.open();
    table.say(id, "user alice x\n");
    table.input(Input::Stop);
    assert!(table.heard(id).starts_with("error shutting-down: "));
    assert!(table.hub.is_finished());
    assert_eq!(table.check(Verdict::Right), "");
}

/// A hub that other machines reach in clear, with alice and bob.
fn plain_users() -> Table {
    let mode = Mode::Credentials { grant: Rights::NONE, attempts: 3 };
    let mut table = Table::with_policy(Limits::default(), Policy { mode, plaintext: true });
    table.set_users(&[("alice", Rights::ALL), ("bob", Rights::ALL)], &[]);
    table
}

#[test]
fn one_source_leaves_room_for_the_logins_of_others() {
    let mut table = plain_users();
    let most = Limits::default().logins_by_source_max;
    let id = table.open_from("[2001:db8:1:2::ffff]:9");
    table.say(id, "user somebody x\n");
    table.check(Verdict::Wrong);
    // Two are being checked, and wait no more.
    for at in 0..most + 3 {
        let id = table.open_from(&format!("[2001:db8:1:2::{at:x}]:9"));
        let heard = table.say(id, format!("user u{at} x\n"));
        assert_eq!(heard.starts_with("error busy: "), at == most + 2, "{at}: {heard}");
    }
    let id = table.open_from("[2001:db8:1:3::1]:9");
    assert_eq!(table.say(id, "user alice secret\n"), "");
    for _ in 0..most + 3 {
        let checks = table.checks();
        for (session, name, _) in checks {
            let verdict = if name == "alice" { Verdict::Right } else { Verdict::Wrong };
            let heard = table.verified(session, verdict);
            assert_eq!(heard.starts_with("welcome alice"), session == id, "{heard}");
        }
    }
}

#[test]
fn a_connection_whose_logins_fail_again_and_again_is_ended() {
    let mut table = users(5);
    let id = table.open();
    for at in 1..=LOGIN_FAILURES_MAX {
        assert_eq!(table.closed(id), None, "{at}");
        table.say(id, format!("user u{at} x\n"));
        assert_eq!(table.check(Verdict::Wrong), WRONG);
    }
    assert_eq!(table.closed(id), Some(CloseReason::NotLoggedIn));
}

#[test]
fn a_source_that_guesses_is_slowed_down_and_no_other() {
    let mut table = plain_users();
    for at in 0..40 {
        let id = table.open_from(&format!("192.0.2.1:{}", at + 1));
        table.say(id, format!("user u{at} x\n"));
        if at < 20 {
            table.check(Verdict::Wrong);
            continue;
        }
        let (mut checks, begun) = (table.checks(), table.now);
        if checks.is_empty() {
            // Others come through meanwhile.
            let other = table.open_from("192.0.2.2:9");
            table.say(other, "user bob secret\n");
            assert_eq!(table.check(Verdict::Right), "welcome bob\n");
        }
        while checks.is_empty() {
            table.at(table.now + 50);
            assert!(table.now <= begun + 4_000, "a wait has an end");
            checks = table.checks();
        }
        for (session, ..) in checks {
            table.verified(session, Verdict::Wrong);
        }
    }
    assert!(table.now > 1_000, "{} ms for 40 guesses", table.now);
}

#[test]
fn the_oldest_stranger_makes_room_and_nobody_who_has_logged_in() {
    let limits = Limits { sessions_max: 8, strangers_by_source_max: 3, ..Limits::default() };
    let mode = Mode::Open { rights: Rights::OPEN };
    let mut table = Table::with_policy(limits, Policy { mode, plaintext: true });
    let alice = table.line("alice");
    let first = table.open_from("192.0.2.1:1");
    for port in 2..=20 {
        table.open_from(&format!("192.0.2.1:{port}"));
    }
    table.at(0);
    assert_eq!(table.closed(first), Some(CloseReason::MadeRoom));
    assert_eq!(table.hub.counts().sessions, 1 + 3);
    for host in 2..=20 {
        table.open_from(&format!("192.0.2.{host}:1"));
    }
    table.at(0);
    assert_eq!(table.hub.counts().sessions, 8);
    assert_eq!(table.closed(alice), None);
    assert_eq!(table.say(alice, "echo here\n"), "here\n");
}

#[test]
fn names_that_cost_nothing_are_shared_by_source_as_strangers_are() {
    let limits = Limits { sessions_max: 8, strangers_by_source_max: 3, ..Limits::default() };
    let mode = Mode::Open { rights: Rights::OPEN };
    let mut table = Table::with_policy(limits, Policy { mode, plaintext: true });
    let named = |table: &mut Table, address: &str, name: String| {
        let id = table.open_from(address);
        table.say(id, format!("user {name}\n"));
        id
    };
    let alice = named(&mut table, "192.0.2.200:1", "alice".into());
    let first = named(&mut table, "192.0.2.1:1", "first".into());
    for port in 2..=20 {
        table.at(port);
        named(&mut table, &format!("192.0.2.1:{port}"), format!("n{port}"));
    }
    assert_eq!(table.closed(first), Some(CloseReason::MadeRoom));
    assert_eq!(table.hub.counts().sessions, 1 + 3);
    for port in 2..=20 {
        named(&mut table, &format!("192.0.2.2:{port}"), format!("m{port}"));
    }
    named(&mut table, "192.0.2.201:1", "carol".into());
    assert_eq!(table.hub.counts().sessions, 8);
    // The server is full: whoever comes from elsewhere takes a place of those who have many.
    let bob = named(&mut table, "192.0.2.202:1", "bob".into());
    assert_eq!(table.hub.counts().sessions, 8);
    for id in [alice, bob] {
        assert_eq!(table.closed(id), None);
        assert_eq!(table.say(id, "echo here\n"), "here\n");
    }
}
