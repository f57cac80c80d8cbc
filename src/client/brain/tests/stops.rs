//! A server that stops, and lets what runs come to its end.

use super::*;

fn stop_is_near(table: &mut Table) {
    table.say(Event::Error(&refusal(ErrorCode::ShuttingDown)));
}

fn goodbye(table: &mut Table) {
    let why = refusal(ErrorCode::ShuttingDown);
    table.say(Event::Goodbye(Some(&why)));
}

#[test]
fn the_word_of_a_stop_is_no_failure_of_a_command_that_ends_well() {
    for code in [0, 7] {
        let mut table = Table::new(Style::Verb);
        table.order(run(false));
        table.brain.handle_orders_end();
        stop_is_near(&mut table);
        assert!(matches!(table.shown()[..], [Shown::Notice(_)]));
        table.end(1, Outcome::Exit { code, directory: None });
        assert_eq!(table.left_with(), Some(code));
    }
}

#[test]
fn the_goodbye_does_not_overtake_the_thread_that_has_the_whole_answer() {
    for says_goodbye in [true, false] {
        let mut table = Table::new(Style::Verb);
        table.order(download("a"));
        table.brain.handle_orders_end();
        stop_is_near(&mut table);
        table.end(1, Outcome::Done);
        if says_goodbye {
            goodbye(&mut table);
        }
        table.brain.handle_lost("the server closed it", 0, 0);
        let effects = table.effects();
        assert!(!effects.contains(&Effect::Abandon(1)), "{effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::Leave(_))), "{effects:?}");
        assert_eq!(table.brain.poll_timeout_ms(), None);
        table.brain.handle_moved(1, Ok(()), 0);
        assert_eq!(table.left_with(), Some(exit::DONE));
    }
}

#[test]
fn what_the_server_has_not_answered_is_broken_off_by_its_goodbye() {
    let mut table = Table::new(Style::Verb);
    table.order(download("a"));
    table.order(download("b"));
    table.brain.handle_orders_end();
    table.end(1, Outcome::Done);
    goodbye(&mut table);
    assert_eq!(table.left_with(), Some(exit::FAILED));
}
