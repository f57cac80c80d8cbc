//! Transfers of which one end stops before the other does.

use super::*;
use crate::transfer::SIZE_UNKNOWN;

fn download_to(target: Target) -> Order {
    let (paths, again) = (vec![b"x".to_vec()], "again".to_owned());
    Order::Download { paths, target, limit: None, again }
}

fn failed(code: ErrorCode) -> Report {
    Report::Failed { name: b"client_x".to_vec(), fault: Fault::new(code, "no room") }
}

fn notices(table: &mut Table) -> Vec<String> {
    let text = |shown| match shown {
        Shown::Notice(text) => Some(text),
        _ => None,
    };
    table.shown().into_iter().filter_map(text).collect()
}

#[test]
fn a_download_whose_disk_fails_is_called_off_and_ends_with_its_own_reason() {
    let mut table = Table::new(Style::Verb);
    table.order(download("x"));
    table.brain.handle_orders_end();
    table.requests();
    table.brain.handle_reports(1, vec![begun(b"client_x", 1000, 0, false)], 0);
    table.brain.handle_reports(1, vec![failed(ErrorCode::NoSpace)], 0);
    table.brain.handle_moved(1, Ok(()), 0);
    assert_eq!(table.requests(), ["cancel 1"]);
    // What was on its way has credit all the same: the server may need it to get to its end.
    assert_eq!(table.brain.route(1), Route::Nowhere);
    table.brain.handle_unwanted(1, OUTPUT_WINDOW_BYTES / 2);
    assert_eq!(table.requests().len(), 1, "credit");
    table.effects();
    table.end(1, Outcome::Failed(refusal(ErrorCode::Cancelled)));
    let effects = table.effects();
    assert!(!effects.iter().any(|it| matches!(it, Effect::Show(Shown::Error { .. }, _))));
    assert!(effects.contains(&Effect::Leave(exit::FAILED)), "{effects:?}");
}

#[test]
fn a_server_that_never_ends_a_transfer_is_not_waited_for_without_end() {
    for outcome in [Ok(()), Err(Fault::new(ErrorCode::SystemError, "the disk is gone"))] {
        let mut table = Table::new(Style::Verb);
        table.order(download("x"));
        table.brain.handle_orders_end();
        table.brain.handle_moved(1, outcome, 1000);
        let due = table.brain.poll_timeout_ms().expect("a time");
        assert!((1000..=20_000).contains(&due), "{due}");
        // Something comes now and then, so that the connection is not silent.
        for now_ms in [5000, 10_000, due - 1] {
            table.now_ms = now_ms;
            table.say(Event::Ping { number: 7 });
            table.brain.handle_timeout(now_ms, 0);
            assert_eq!(table.left_with(), None, "at {now_ms}");
        }
        table.brain.handle_timeout(due, 0);
        let code = table.left_with().expect("it leaves");
        assert_ne!(code, exit::DONE);
    }
}

#[test]
fn nobody_who_reads_standard_output_ends_a_download_to_it_as_sigpipe_does() {
    let mut table = Table::new(Style::Verb);
    table.order(download_to(Target::Stdout));
    table.brain.handle_orders_end();
    table.requests();
    table.effects();
    table.brain.handle_output_closed();
    assert_eq!(table.requests(), ["cancel 1", "goodbye"]);
    assert_eq!(table.effects(), [Effect::Abandon(1), Effect::Leave(exit::of_signal(13))]);
}

#[test]
fn what_is_broken_off_is_told_as_it_is() {
    let stdin = vec![Local::Input(b"x".to_vec())];
    let store = |paths| Order::Upload { paths, into: None, limit: None, again: "again".into() };
    for (order, is_begun, part) in [
        (download_to(Target::Stdout), true, "the beginning alone"),
        (download_to(Target::Beside), false, "before anything came"),
        (download_to(Target::Beside), true, "what is there is kept, go on with: again"),
        (store(stdin), true, "begin anew"),
        (store(vec![Local::Path("x".into())]), true, "what is there is kept"),
    ] {
        let mut table = Table::new(Style::Prompt);
        table.order(order.clone());
        if is_begun {
            table.brain.handle_reports(1, vec![begun(b"client_x", SIZE_UNKNOWN, 0, false)], 0);
        }
        table.effects();
        table.brain.handle_interrupt(2);
        let told = notices(&mut table);
        assert!(matches!(&told[..], [one] if one.contains(part)), "{order:?}: {told:?}");
    }
}

#[test]
fn what_has_failed_already_is_not_told_as_kept() {
    let mut table = Table::new(Style::Prompt);
    table.order(download("x"));
    table.brain.handle_reports(1, vec![begun(b"client_x", 1000, 0, false)], 0);
    table.brain.handle_reports(1, vec![failed(ErrorCode::NoSpace)], 0);
    table.brain.handle_moved(1, Ok(()), 0);
    table.effects();
    table.brain.handle_interrupt(2);
    assert_eq!(notices(&mut table), [""; 0]);
}

#[test]
fn an_interrupt_before_the_first_prompt_leaves() {
    let setup = Setup { style: Style::Prompt, ..Table::new(Style::Prompt).brain.setup };
    let mut table = Table { brain: Brain::new(setup, 0), now_ms: 0 };
    table.brain.handle_interrupt(2);
    assert_eq!(table.left_with(), Some(130));
}

#[test]
fn an_order_that_fits_no_request_is_refused_and_the_next_one_is_asked() {
    let mut paths = download("x");
    if let Order::Download { paths, .. } = &mut paths {
        *paths = vec![vec![b'x'; 4000]; 30];
    }
    // As JSON each backslash is two.
    let command = "\\".repeat(40_000);
    for order in [paths, Order::Run { command, stdin: false, timeout_ms: 0 }] {
        let mut table = Table::new(Style::Piped);
        table.requests();
        table.order(order);
        assert_eq!(error_code(&table.shown()[0]), "text-too-long");
        assert_eq!(table.requests(), [""; 0]);
        table.order(run(false));
        assert_eq!(table.requests(), ["call 1"]);
    }
}

#[test]
fn a_prompt_that_loses_its_server_tells_of_every_command_that_was_under_way() {
    let mut table = Table::new(Style::Prompt);
    table.order(run(false));
    table.order(run(false));
    table.order(Order::Who { long: false });
    table.brain.handle_output(1, Stream::Stdout, b"half", 0);
    table.effects();
    table.brain.handle_lost("gone", 0, 0);
    let told = |shown: &Shown| match shown {
        Shown::Output { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Shown::Error { code, text } => format!("{code}: {text}"),
        other => format!("{other:?}"),
    };
    let told: Vec<_> = table.shown().iter().map(told).collect();
    let unknown = "lost: run x: whether it has ended is not known";
    let answer = "lost: an answer that was awaited is lost with the connection";
    assert!(told[0].contains("connection lost: gone"), "{told:?}");
    assert_eq!(told[1..], ["half", unknown, unknown, answer]);
}
