//! Messages of which the server has said nothing yet.

use super::*;

fn text(text: &str) -> Order {
    Order::Message { to: "bob".into(), text: text.into(), receipt_ms: None }
}

/// The texts that are told as not sent.
fn unsent(table: &mut Table) -> Vec<String> {
    let text = |shown| match shown {
        Shown::Error { code: "not-sent", text } => text.split_once(": ").map(|it| it.1.to_owned()),
        _ => None,
    };
    table.shown().into_iter().filter_map(text).collect()
}

fn pong(table: &mut Table, pings: &[String]) {
    let number = pings.iter().find_map(|ping| ping.strip_prefix("ping ")).expect("a ping");
    table.say(Event::Pong { number: number.parse().expect("a number") });
}

#[test]
fn each_text_that_the_server_may_not_have_taken_is_told_when_the_connection_breaks() {
    let mut table = Table::new(Style::Prompt);
    table.order(text("one"));
    let first = table.requests();
    table.order(text("two"));
    table.order(text("three"));
    pong(&mut table, &first);
    table.effects();
    table.brain.handle_lost("it broke", 0, 0);
    assert_eq!(unsent(&mut table), ["two|bob", "three|bob"]);
    // Back again, they are not told twice.
    table.brain.handle_connected(10);
    table.brain.handle_lost("it broke", 20, 0);
    assert_eq!(unsent(&mut table), [""; 0]);
}

#[test]
fn a_text_that_was_refused_is_not_told_as_lost() {
    let mut table = Table::new(Style::Prompt);
    table.order(text("one"));
    table.say(Event::Error(&refusal(ErrorCode::NoSuchUser)));
    table.effects();
    table.brain.handle_lost("it broke", 0, 0);
    assert_eq!(unsent(&mut table), [""; 0]);
}

#[test]
fn a_verb_or_a_piped_line_that_may_be_lost_is_a_failure() {
    for style in [Style::Verb, Style::Piped] {
        let mut table = Table::new(style);
        table.order(text("one"));
        table.effects();
        table.brain.handle_lost("it broke", 0, 0);
        let shown = table.effects();
        let told = |part: &str| shown.iter().any(|it| format!("{it:?}").contains(part));
        assert!(told("one|bob") && told("connection lost"), "{shown:?}");
        assert_eq!(told("not sent"), style == Style::Piped, "{shown:?}");
        assert!(shown.contains(&Effect::Leave(exit::FAILED)), "{shown:?}");
    }
}

#[test]
fn a_prompt_is_left_when_its_last_texts_are_taken_and_not_much_later() {
    for comes in [true, false] {
        let mut table = Table::new(Style::Prompt);
        table.order(text("one"));
        let pings = table.requests();
        table.effects();
        table.order(Order::Quit);
        assert_eq!(table.left_with(), None);
        if comes {
            pong(&mut table, &pings);
            assert_eq!(table.left_with(), Some(exit::DONE));
            continue;
        }
        let due = table.brain.poll_timeout_ms().expect("a time");
        table.brain.handle_timeout(due, 0);
        assert!(due <= 5000, "{due}");
        assert_eq!(unsent(&mut table), ["one|bob"]);
    }
    let mut table = Table::new(Style::Prompt);
    table.order(Order::Quit);
    assert_eq!(table.left_with(), Some(exit::DONE), "nothing is on its way");
}

#[test]
fn the_beginning_of_a_line_is_shown_when_its_end_does_not_come() {
    let mut table = Table::new(Style::Prompt);
    table.order(run(false));
    table.effects();
    table.brain.handle_output(1, Stream::Stdout, b"Name? ", 1000);
    assert_eq!(table.shown(), []);
    assert_eq!(table.brain.poll_timeout_ms(), Some(1100));
    let output = |bytes: &[u8]| Shown::Output { stream: Stream::Stdout, bytes: bytes.to_vec() };
    table.brain.handle_timeout(1100, 0);
    assert_eq!(table.shown(), [output(b"Name? ")]);
    // What moves all the time is shown once a second, and always in its last form.
    for at in 1..10 {
        table.brain.handle_output(1, Stream::Stdout, format!("\r{at} %").as_bytes(), 1100 + at);
        table.brain.handle_timeout(1100 + at, 0);
    }
    assert_eq!(table.shown(), []);
    table.brain.handle_timeout(2100, 0);
    let shown = table.shown();
    assert_eq!(shown.len(), 1);
    let screen = crate::client::screen::Screen { prompt: true, ..Default::default() };
    let (_, line) = screen.render(&shown[0]).expect("it is shown");
    assert_eq!(line, b"9 %\n");
}

#[test]
fn who_receives_tries_a_lost_server_again_and_takes_what_comes_then() {
    let mut table = Table::new(Style::Verb);
    table.order(Order::Receive { count: None });
    table.brain.handle_orders_end();
    table.effects();
    table.brain.handle_lost("it broke", 0, 500);
    assert_eq!(table.left_with(), None);
    let due = table.brain.poll_timeout_ms().expect("it is tried again");
    table.brain.handle_timeout(due, 500);
    assert!(table.effects().contains(&Effect::Connect));
    table.brain.handle_unreachable("refused", due, 500);
    assert_eq!(table.left_with(), None);
    let due = table.brain.poll_timeout_ms().expect("and again");
    table.brain.handle_timeout(due, 500);
    table.brain.handle_connected(due);
    table.brain.link().expect("a link").advance(frame::MAGIC.len());
    table.welcome();
    assert_eq!(table.left_with(), None, "it waits for what comes");
}
