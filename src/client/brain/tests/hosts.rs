//! What is asked about hosts, and how long a way is.

use super::*;

fn facts() -> crate::wire::event::Object {
    crate::wire::info::Info::default().into_object()
}

/// A client that watches, after its welcome.
fn watcher(count: Option<u32>) -> Table {
    let watch = Some(Watch { interval_ms: 2000, count });
    let setup = Setup { style: Style::Watch, watch, ..Table::new(Style::Verb).brain.setup };
    let mut table = Table { brain: Brain::new(setup, 0), now_ms: 0 };
    table.brain.link().expect("a link").advance(frame::MAGIC.len());
    table.say(Event::Welcome { name: name("alice") });
    table.effects();
    table
}

#[test]
fn who_watches_asks_again_as_soon_as_it_is_answered() {
    let mut table = watcher(Some(3));
    assert_eq!(table.requests()[1..], ["call 1"]);
    for tag in 1..=3 {
        let object = facts();
        table.say(Event::Object { tag, object: &object });
        assert_eq!(table.shown(), [Shown::Info(object)]);
        assert_eq!(table.requests(), [""; 0], "not before its end");
        table.end(tag, Outcome::Done);
        let next = if tag < 3 { format!("call {}", tag + 1) } else { "goodbye".into() };
        assert_eq!(table.requests(), [next]);
    }
    assert_eq!(table.left_with(), Some(exit::DONE));
}

#[test]
fn who_watches_comes_back_to_a_lost_server_and_leaves_one_that_refuses() {
    let mut table = watcher(None);
    table.brain.handle_lost("it broke", 0, 0);
    assert!(matches!(&table.shown()[..], [Shown::Notice(text)] if text.contains("it broke")));
    let due = table.brain.poll_timeout_ms().expect("it tries again");
    table.brain.handle_timeout(due, 0);
    assert_eq!(table.effects(), [Effect::Connect]);
    table.brain.handle_connected(due);
    table.brain.link().expect("a link").advance(frame::MAGIC.len());
    table.say(Event::Welcome { name: name("alice") });
    assert_eq!(table.requests()[1..], ["call 2"]);
    table.effects();
    table.end(2, Outcome::Failed(refusal(ErrorCode::Busy)));
    assert_eq!((table.requests(), table.effects()), (vec![], vec![]));
    table.brain.handle_timeout(1000, 0);
    assert_eq!(table.requests(), ["call 3"], "later it may be answered");
    table.end(3, Outcome::Failed(refusal(ErrorCode::Denied)));
    let effects = table.effects();
    assert!(matches!(&effects[0], Effect::Show(Shown::Error { code: "denied", .. }, _)));
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
}

#[test]
fn an_interrupt_is_the_way_out_of_watching() {
    for (number, code) in [(2, exit::DONE), (15, exit::of_signal(15))] {
        let mut table = watcher(None);
        table.brain.handle_interrupt(number);
        assert_eq!(table.left_with(), Some(code));
    }
}

#[test]
fn round_trips_follow_each_other_and_are_summed_up() {
    let mut table = Table::new(Style::Verb);
    let route = crate::client::core::order::Route { family: "IPv6".into(), address: "::1".into() };
    let probe = Order::Probe { route: route.clone(), count: 3, interval_ms: 50 };
    table.order(probe.clone());
    table.brain.handle_orders_end();
    for (number, us) in [(1, 30), (2, 10), (3, 20)] {
        assert_eq!(table.requests(), [format!("ping {number}")]);
        assert_eq!(table.effects(), [Effect::StartClock(number)]);
        table.say(Event::Pong { number });
        assert_eq!(table.effects(), [Effect::StopClock(number)]);
        table.brain.handle_clock(number, us, table.now_ms);
        let told = Shown::RoundTrip { route: route.clone(), us };
        if number < 3 {
            assert_eq!(table.shown(), [told]);
            table.now_ms += 49;
            table.brain.handle_timeout(table.now_ms, 0);
            assert_eq!(table.requests(), [""; 0]);
            table.now_ms += 1;
            table.brain.handle_timeout(table.now_ms, 0);
        }
    }
    let effects = table.effects();
    let trips = Trips { count: 3, min_us: 10, max_us: 30, sum_us: 60 };
    assert_eq!(trips.average_us(), 20);
    assert_eq!(effects[1], Effect::Show(Shown::RoundTrips { route, trips }, None));
    assert_eq!(effects.last(), Some(&Effect::Leave(exit::DONE)));
    let mut table = Table::new(Style::Verb);
    table.order(probe);
    table.brain.handle_orders_end();
    table.effects();
    table.brain.handle_timeout(9_999, 0);
    assert_eq!(table.effects(), []);
    table.brain.handle_timeout(10_000, 0);
    assert_eq!(table.left_with(), Some(exit::TIMED_OUT));
}

#[test]
fn a_pong_is_shown_with_the_time_that_it_took() {
    use crate::wire::host::Question;
    let mut table = Table::new(Style::Prompt);
    table.order(Order::Call(Call::Host(HostCall::Ask(Question::Pong))));
    assert_eq!(table.effects()[0], Effect::StartClock(1));
    table.say(Event::Text { tag: 1, text: "pong now" });
    assert_eq!(table.effects(), [Effect::StopClock(1)]);
    table.brain.handle_clock(1, 81, 0);
    assert_eq!(table.shown(), [Shown::Pong { text: "pong now".into(), us: 81 }]);
    table.end(1, Outcome::Done);
    assert_eq!(table.effects(), []);
}

#[test]
fn who_watches_goes_on_trying_while_the_server_is_away() {
    let mut table = watcher(None);
    table.brain.handle_lost("it broke", 0, 500);
    for _ in 0..5 {
        let due = table.brain.poll_timeout_ms().expect("it tries again");
        table.brain.handle_timeout(due, 500);
        assert!(table.effects().contains(&Effect::Connect));
        table.brain.handle_unreachable("refused", due, 500);
        assert_eq!(table.left_with(), None);
    }
}
