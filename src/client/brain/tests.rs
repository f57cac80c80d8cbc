//! The brain against a server that only its frames make: no socket, no clock.

mod between;
mod ends;
mod hosts;
mod logins;
mod posts;
mod stops;

use super::*;
use crate::{
    client::core::order::Local,
    limits::OUTPUT_WINDOW_BYTES,
    transfer::{Fault, Report, Segment},
    wire::{
        Event, HostCall, Item, Outcome, Request, Secret, Text,
        event::{Ended, Witness},
        frame,
    },
};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn refusal(code: ErrorCode) -> Refusal {
    Refusal::new(0, code, "so it is")
}

fn message(to: &str, receipt_ms: Option<u64>) -> Order {
    Order::Message { to: to.into(), text: "hello".into(), receipt_ms }
}

fn run(stdin: bool) -> Order {
    Order::Run { command: "x".into(), stdin, timeout_ms: 0 }
}

fn download(path: &str) -> Order {
    let (paths, again) = (vec![path.as_bytes().to_vec()], "again".to_owned());
    Order::Download { paths, target: Target::Beside, limit: None, again }
}

/// A client after its welcome, and the server's view of it.
struct Table {
    brain: Brain,
    now_ms: u64,
}

impl Table {
    fn new(style: Style) -> Table {
        Table::with(Setup {
            style,
            user: name("alice"),
            own_failure: None,
            progress_ms: Some(1000),
            tells_every_file: false,
            shows_output: style == Style::Prompt,
            shows_messages: true,
            can_ask: style == Style::Prompt,
            watch: None,
        })
    }

    fn with(setup: Setup) -> Table {
        let mut table = Table { brain: Brain::new(setup, 0), now_ms: 0 };
        table.brain.link().expect("a link").advance(frame::MAGIC.len());
        table.welcome();
        assert_eq!(table.effects().last(), Some(&Effect::Next));
        table
    }

    fn welcome(&mut self) {
        self.say(Event::Welcome { name: name("alice") });
        self.requests();
    }

    fn say(&mut self, event: Event<'_>) {
        let mut bytes = Vec::new();
        frame::encode(&event, &mut bytes);
        self.brain.handle_bytes(&bytes, self.now_ms).expect("good frames");
    }

    fn end(&mut self, tag: Tag, outcome: Outcome) {
        self.say(Event::End { tag, outcome: &outcome });
    }

    fn order(&mut self, order: Order) {
        self.brain.handle_order(Ok(order), self.now_ms);
        self.brain.handle_orders_done();
    }

    /// What the server would have read since the last time.
    fn requests(&mut self) -> Vec<String> {
        let Some(link) = self.brain.link() else { return Vec::new() };
        let bytes = link.outgoing().to_vec();
        link.advance(bytes.len());
        let (mut requests, mut at) = (Vec::new(), 0);
        while let Some(Item { request, consumed, .. }) =
            frame::decode(&bytes[at..]).expect("frames")
        {
            at += consumed;
            requests.push(match request.expect("a good request") {
                Request::Call { tag, .. } => format!("call {tag}"),
                Request::Message { tag, .. } => format!("message {tag}"),
                Request::Ping { number } => format!("ping {number}"),
                Request::Cancel { tag } => format!("cancel {tag}"),
                Request::Acknowledge { serial } => format!("acknowledge {serial}"),
                Request::Input { bytes, .. } => format!("input {}", bytes.len()),
                Request::InputEnd { .. } => "input end".to_owned(),
                Request::Goodbye => "goodbye".to_owned(),
                other => format!("{other:?}"),
            });
        }
        requests
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::iter::from_fn(|| self.brain.poll_effect()).collect()
    }

    fn shown(&mut self) -> Vec<Shown> {
        let shown = |effect| match effect {
            Effect::Show(shown, _) => Some(shown),
            _ => None,
        };
        self.effects().into_iter().filter_map(shown).collect()
    }

    fn left_with(&mut self) -> Option<u8> {
        let code = |effect: &Effect| match effect {
            Effect::Leave(code) => Some(*code),
            _ => None,
        };
        self.effects().iter().find_map(code)
    }
}

fn error_code(shown: &Shown) -> &'static str {
    match shown {
        Shown::Error { code, .. } => code,
        other => panic!("no error: {other:?}"),
    }
}

#[test]
fn piped_orders_wait_for_the_end_of_the_one_before() {
    let mut table = Table::new(Style::Piped);
    table.order(Order::Who { long: false });
    assert_eq!((table.requests(), table.effects()), (vec!["call 1".into()], vec![]));
    table.say(Event::Users { tag: 1, names: &[name("bob")] });
    table.end(1, Outcome::Counted { count: 1, noun: "users" });
    let effects = table.effects();
    assert_eq!(effects[0], Effect::Seen(name("bob")));
    assert_eq!(effects.last(), Some(&Effect::Next));
    table.brain.handle_orders_end();
    assert_eq!(table.left_with(), Some(0));
    assert_eq!(table.requests(), ["goodbye"]);
}

#[test]
fn a_prompt_does_not_wait() {
    let mut table = Table::new(Style::Prompt);
    table.order(run(false));
    assert_eq!(table.effects(), [Effect::Next]);
    table.order(message("bob", None));
    assert_eq!(table.effects(), [Effect::Next]);
    assert_eq!(table.requests(), ["call 1", "message 0", "ping 2"]);
    table.say(Event::Pong { number: 2 });
    table.effects();
    table.order(Order::Quit);
    assert_eq!(table.left_with(), Some(0));
}

#[test]
fn a_message_is_sent_when_the_server_says_nothing_against_it() {
    for failing in [false, true] {
        let mut table = Table::new(Style::Verb);
        table.order(message("bob", None));
        table.brain.handle_orders_end();
        assert_eq!(table.requests(), ["message 0", "ping 1"]);
        if failing {
            table.say(Event::Error(&refusal(ErrorCode::NoSuchUser)));
            assert_eq!(error_code(&table.shown()[0]), "no-such-user");
        }
        table.say(Event::Pong { number: 1 });
        let effects = table.effects();
        let sent = Effect::Show(Shown::Sent { to: "bob".into() }, None);
        assert_eq!(effects.contains(&sent), !failing);
        assert_eq!(effects.last(), Some(&Effect::Leave(if failing { 5 } else { 0 })));
    }
}

#[test]
fn receipts_are_awaited_from_everybody_named_once() {
    let mut table = Table::new(Style::Verb);
    table.order(message("bob,carol,bob", Some(5000)));
    table.brain.handle_orders_end();
    assert_eq!(table.requests(), ["message 1"]);
    table.say(Event::Delivered { tag: 1, to: name("bob"), by: Witness::Client });
    assert_eq!(table.left_with(), None);
    table.say(Event::Delivered { tag: 1, to: name("carol"), by: Witness::Connection });
    assert_eq!(table.left_with(), Some(0));
}

#[test]
fn a_receipt_that_does_not_come_times_out() {
    let mut table = Table::new(Style::Verb);
    table.order(message("bob", Some(5000)));
    table.brain.handle_orders_end();
    assert_eq!(table.brain.poll_timeout_ms(), Some(5000));
    table.brain.handle_timeout(4999, 0);
    assert_eq!(table.left_with(), None);
    table.brain.handle_timeout(5000, 0);
    assert_eq!(table.left_with(), Some(exit::TIMED_OUT));
}

#[test]
fn a_message_is_acknowledged_once_it_was_seen() {
    let mut table = Table::new(Style::Prompt);
    table.say(Event::Message { from: &name("bob"), text: Text::from("hi"), serial: 9 });
    assert_eq!(table.requests(), [""; 0]);
    let after = table.effects().into_iter().find_map(|effect| match effect {
        Effect::Show(Shown::Message { .. }, after) => after,
        _ => None,
    });
    table.brain.handle_after(after.expect("something to report"));
    assert_eq!(table.requests(), ["acknowledge 9"]);
    table.brain.handle_after(After::Acknowledge(9, 77));
    assert_eq!(table.requests(), [""; 0], "of another connection");
}

#[test]
fn run_gives_the_commands_code_and_255_for_failures_of_its_own() {
    let setup = Setup {
        style: Style::Verb,
        user: name("alice"),
        own_failure: Some(255),
        progress_ms: None,
        tells_every_file: false,
        shows_output: false,
        shows_messages: true,
        can_ask: false,
        watch: None,
    };
    let failed = Outcome::Failed(refusal(ErrorCode::CannotStart));
    let signal = Outcome::Signal { number: 15, because: Some(Ended::TimedOut) };
    for (outcome, code) in [
        (Outcome::Exit { code: 0, directory: None }, 0),
        (Outcome::Exit { code: 7, directory: None }, 7),
        (signal, 143),
        (failed, 255),
    ] {
        let mut table = Table::with(setup);
        table.order(run(true));
        table.brain.handle_orders_end();
        assert_eq!(table.brain.route(1), Route::Outputs);
        assert!(table.effects().contains(&Effect::StartInput));
        table.end(1, outcome);
        assert_eq!(table.left_with(), Some(code));
    }
    let mut table = Table::with(setup);
    table.order(run(true));
    table.brain.handle_lost("it broke", 0, 0);
    assert_eq!(table.left_with(), Some(255));
}

#[test]
fn standard_input_reaches_the_command_as_it_takes_it() {
    let mut table = Table::new(Style::Verb);
    table.order(run(true));
    table.requests();
    for _ in 0..5 {
        table.brain.handle_input(vec![b'x'; 64 * 1024]);
    }
    table.brain.handle_input(Vec::new());
    assert_eq!(table.requests(), vec!["input 65536"; 4], "the window is full");
    table.say(Event::Credit { tag: 1, bytes: 65_536 });
    assert_eq!(table.requests(), ["input 65536", "input end"]);
    let allowed = table.effects().iter().filter(|it| **it == Effect::MoreInput).count();
    assert_eq!(allowed, 5);
}

#[test]
fn the_first_interrupt_cancels_and_the_second_leaves() {
    let mut table = Table::new(Style::Verb);
    table.order(run(false));
    table.brain.handle_orders_end();
    table.requests();
    table.brain.handle_interrupt(2);
    assert_eq!(table.requests(), ["cancel 1"]);
    assert_eq!(table.left_with(), None);
    table.brain.handle_interrupt(2);
    assert_eq!(table.left_with(), Some(130));
}

#[test]
fn an_interrupt_at_the_prompt_ends_the_newest_command_and_nothing_else() {
    let mut table = Table::new(Style::Prompt);
    table.brain.handle_interrupt(2);
    assert_eq!((table.requests(), table.left_with()), (vec![], None));
    table.order(run(false));
    table.order(run(false));
    table.requests();
    table.brain.handle_interrupt(2);
    assert_eq!((table.requests(), table.left_with()), (vec!["cancel 2".into()], None));
    table.brain.handle_interrupt(15);
    assert_eq!(table.left_with(), Some(143));
}

fn begun(name: &[u8], size: u64, from: u64, starts_over: bool) -> Report {
    Report::Begun { name: name.to_vec(), size, from, starts_over }
}

#[test]
fn a_transfer_is_done_when_both_halves_are() {
    let mut table = Table::new(Style::Verb);
    table.order(download("a/b.txt"));
    table.brain.handle_orders_end();
    let opened = table.effects().into_iter().find_map(|effect| match effect {
        Effect::Open(1, Opening::Fetch { paths, .. }) => Some(paths),
        _ => None,
    });
    assert_eq!(opened.expect("a thread"), [b"a/b.txt"]);
    assert_eq!(table.brain.route(1), Route::Mover);
    let stored = Report::Stored {
        name: b"client_b.txt".to_vec(),
        size: 10,
        hash: [3; 32],
        was_there: false,
    };
    let reports = vec![Report::Found(10), begun(b"client_b.txt", 10, 0, false), stored];
    table.brain.handle_reports(1, reports, 100);
    let shown = table.shown();
    let is_saved = |shown: &Shown| {
        matches!(shown, Shown::Saved { path, target: Some(target), .. }
            if path == b"a/b.txt" && target == b"client_b.txt")
    };
    assert!(shown.iter().any(is_saved), "{shown:?}");
    table.end(1, Outcome::Done);
    assert_eq!(table.effects(), [Effect::Close(1)]);
    table.brain.handle_moved(1, Ok(()), 500);
    assert_eq!(table.effects(), [Effect::Abandon(1), Effect::Leave(0)]);
}

#[test]
fn a_half_that_fails_here_is_ended_there_and_counts_once() {
    let mut table = Table::new(Style::Verb);
    table.order(download("x"));
    table.order(download("y"));
    table.brain.handle_orders_end();
    table.requests();
    let fault = Fault::new(ErrorCode::SystemError, "the disk is gone");
    table.brain.handle_moved(1, Err(fault), 0);
    assert_eq!(table.requests(), ["input end", "cancel 1"]);
    assert_eq!(table.brain.route(1), Route::Nowhere);
    table.end(1, Outcome::Failed(refusal(ErrorCode::Cancelled)));
    let failed = Report::Failed {
        name: b"y".to_vec(),
        fault: Fault::new(ErrorCode::NoSuchFile, "there is no such file"),
    };
    table.brain.handle_reports(2, vec![failed], 0);
    table.brain.handle_moved(2, Ok(()), 0);
    table.end(2, Outcome::Done);
    let errors: Vec<_> = table
        .effects()
        .into_iter()
        .filter(|it| matches!(it, Effect::Show(Shown::Error { .. }, _)))
        .collect();
    assert_eq!(errors.len(), 2, "{errors:?}");
    table.brain.handle_orders_end();
    assert_eq!(table.brain.code, Some(exit::FAILED));
}

#[test]
fn the_reason_of_the_server_is_told_where_ours_is_only_that_it_ended() {
    let mut table = Table::new(Style::Verb);
    table.order(download("x"));
    table.brain.handle_orders_end();
    table.end(1, Outcome::Failed(refusal(ErrorCode::Busy)));
    let own = Fault::new(ErrorCode::Protocol, "it ended");
    table.brain.handle_moved(1, Err(own), 0);
    let shown = table.shown();
    assert_eq!(shown.iter().map(error_code).collect::<Vec<_>>(), ["busy"]);
}

#[test]
fn what_the_thread_says_goes_out_as_the_server_takes_it() {
    let mut table = Table::new(Style::Verb);
    let (paths, again) = (vec![Local::Path("x".into())], "again".to_owned());
    table.order(Order::Upload { paths, into: None, limit: None, again });
    table.requests();
    table.effects();
    let window = crate::limits::INPUT_WINDOW_BYTES as usize;
    table.brain.handle_said(1, vec![Segment::Bytes(vec![7; window + 1000])]);
    let mut sent = 0;
    loop {
        let requests = table.requests();
        table.brain.pump();
        let size = |text: &String| text["input ".len()..].parse::<usize>().expect("a number");
        match requests.iter().map(size).sum::<usize>() {
            0 => break,
            some => sent += some,
        }
    }
    assert_eq!(sent, window);
    table.say(Event::Credit { tag: 1, bytes: 5000 });
    assert_eq!(table.requests(), ["input 1000"]);
    let taken: usize = table
        .effects()
        .iter()
        .map(|effect| if let Effect::Taken(1, count) = effect { *count } else { 0 })
        .sum();
    assert_eq!(taken, window + 1000);
}

#[test]
fn going_on_starting_over_and_breaking_off_are_said() {
    let mut table = Table::new(Style::Prompt);
    table.order(download("x"));
    table.effects();
    table.brain.handle_reports(1, vec![begun(b"client_x", 1000, 600, false)], 0);
    table.brain.handle_reports(1, vec![begun(b"client_x", 1000, 0, true)], 0);
    table.brain.handle_interrupt(2);
    let notices: Vec<String> = table
        .shown()
        .into_iter()
        .filter_map(|shown| match shown {
            Shown::Notice(text) => Some(text),
            _ => None,
        })
        .collect();
    let parts = ["going on at 600 B of 1.00 kB", "starting over", "go on with: again"];
    assert_eq!(notices.len(), parts.len(), "{notices:?}");
    for (notice, part) in notices.iter().zip(parts) {
        assert!(notice.contains(part), "{notice}");
    }
    assert_eq!(table.brain.route(1), Route::Nowhere);
}

#[test]
fn progress_is_told_now_and_then_and_counts_from_where_it_went_on() {
    let mut table = Table::new(Style::Prompt);
    table.order(download("x"));
    table.brain.handle_reports(1, vec![begun(b"client_x", 90_000_000, 50_000_000, false)], 0);
    table.effects();
    for (now_ms, told) in [(100, false), (999, false), (1000, true), (1500, false), (2000, true)] {
        table.brain.handle_reports(1, vec![Report::Moved(1_000_000)], now_ms);
        let shown = table.shown();
        assert_eq!(!shown.is_empty(), told, "at {now_ms}");
        if now_ms == 1000 {
            let Shown::Progress { received, per_second, .. } = shown[0] else {
                panic!("{shown:?}")
            };
            assert_eq!((received, per_second), (53_000_000, 3_000_000));
        }
    }
}

#[test]
fn the_rate_counts_what_has_moved_and_not_what_was_there() {
    for (from, moved_ms, per_second) in
        [(80_000_000, 2000, Some(10_000_000)), (0, 499, None), (100_000_000, 2000, None)]
    {
        let mut table = Table::new(Style::Verb);
        table.order(download("x"));
        let size = 100_000_000;
        // Its beginning was proved for a minute.
        table.brain.handle_reports(1, vec![begun(b"client_x", size, from, false)], 60_000);
        table.effects();
        let now_ms = 60_000 + moved_ms;
        let (name, was_there) = (b"client_x".to_vec(), from == size);
        let moved = Report::Moved(size - from);
        let reports = vec![moved, Report::Stored { name, size, hash: [3; 32], was_there }];
        table.brain.handle_reports(1, reports, now_ms);
        let told = table.shown().into_iter().find_map(|shown| match shown {
            Shown::Saved { per_second, .. } => Some(per_second),
            _ => None,
        });
        assert_eq!(told, Some(per_second), "{from}");
    }
}

#[test]
fn folders_without_files_are_told_of_as_well() {
    let mut table = Table::new(Style::Prompt);
    table.order(download("a"));
    let folder = |name: &[u8]| Report::Folder { name: name.to_vec() };
    let reports = vec![folder(b"client_a"), folder(b"client_b")];
    table.brain.handle_reports(1, reports, 1);
    let target = |shown: &Shown| match shown {
        Shown::Folder { target, .. } => target.clone(),
        _ => None,
    };
    let targets: Vec<_> = table.shown().iter().filter_map(target).collect();
    assert_eq!(targets, [b"client_a".to_vec(), b"client_b".to_vec()]);
    table.end(1, Outcome::Done);
    table.brain.handle_moved(1, Ok(()), 2);
    let first = b"client_a".to_vec();
    let folders = Folders { first, count: 2, ..Folders::default() };
    let told = Shown::SavedFolder { folders, is_upload: false, per_second: None };
    assert!(table.shown().contains(&told));
}

#[test]
fn output_above_a_prompt_comes_in_whole_lines_and_credit_follows_it() {
    let mut table = Table::new(Style::Prompt);
    table.order(run(false));
    assert_eq!(table.brain.route(1), Route::Screen);
    table.effects();
    let half = OUTPUT_WINDOW_BYTES / 2;
    table.brain.handle_output(1, Stream::Stdout, b"one\ntw", 0);
    table.brain.handle_output(1, Stream::Stderr, b"bad", 0);
    table.brain.handle_output(1, Stream::Stdout, b"o", 0);
    let effects = table.effects();
    let output = |stream, bytes: &[u8]| Shown::Output { stream, bytes: bytes.to_vec() };
    let one = output(Stream::Stdout, b"one\n");
    assert_eq!(effects, [Effect::Show(one, Some(After::Consumed(1, 6)))]);
    table.requests();
    table.brain.handle_after(After::Consumed(1, half));
    assert_eq!(table.requests().len(), 1, "credit");
    table.end(1, Outcome::Exit { code: 3, directory: None });
    let ended = Shown::Ended(Ending::Exit(3));
    let rest = [output(Stream::Stdout, b"two"), output(Stream::Stderr, b"bad"), ended];
    assert_eq!(table.shown(), rest);
}

#[test]
fn a_lost_server_is_said_at_once_and_tried_again() {
    let mut table = Table::new(Style::Prompt);
    table.order(run(false));
    table.requests();
    table.effects();
    table.brain.handle_lost("it broke", 1000, 500);
    let effects = table.effects();
    assert_eq!(effects[0], Effect::Disconnect);
    assert!(matches!(&effects[1], Effect::Show(Shown::Notice(_), None)));
    table.order(Order::Who { long: false });
    let effects = table.effects();
    assert!(matches!(&effects[0], Effect::Show(Shown::Error { code: "not-connected", .. }, _)));
    assert_eq!(table.brain.poll_timeout_ms(), Some(1500));
    table.brain.handle_timeout(1499, 0);
    assert_eq!(table.effects(), []);
    table.brain.handle_timeout(1500, 0);
    assert_eq!((table.effects(), table.brain.poll_timeout_ms()), (vec![Effect::Connect], None));
    table.brain.handle_unreachable("nobody is there", 2000, 700);
    assert_eq!(table.brain.poll_timeout_ms(), Some(2700));
    table.brain.handle_timeout(2700, 0);
    table.brain.handle_connected(3000);
    table.brain.link().expect("a link").advance(frame::MAGIC.len());
    table.welcome();
    assert_eq!(table.shown(), [Shown::Notice("connected again".into())]);
    table.order(Order::Who { long: false });
    assert_eq!(table.requests(), ["call 2"], "numbers go on");
}

#[test]
fn a_server_that_has_become_another_ends_the_prompt() {
    let mut table = Table::new(Style::Prompt);
    table.brain.handle_lost("it broke", 1000, 500);
    table.effects();
    table.brain.handle_refused("key-changed", "it shows another key".into());
    let shown = Shown::Error { code: "key-changed", text: "it shows another key".into() };
    let effects = table.effects();
    assert_eq!(effects, [Effect::Show(shown, None), Effect::Leave(exit::REFUSED)]);
    assert_eq!(table.brain.poll_timeout_ms(), None, "it is not tried again");
}

#[test]
fn a_server_that_stops_is_tried_again_and_one_that_denies_is_not() {
    for (code, again) in [(ErrorCode::ShuttingDown, true), (ErrorCode::Denied, false)] {
        let mut table = Table::new(Style::Prompt);
        table.say(Event::Goodbye(Some(&refusal(code))));
        let lost = Effect::Lost("so it is".into());
        let effects = table.effects();
        assert_eq!(effects.contains(&lost), again);
        assert_eq!(effects.contains(&Effect::Leave(exit::REFUSED)), !again);
    }
}

#[test]
fn verbs_and_pipes_end_with_the_server() {
    for style in [Style::Verb, Style::Piped] {
        let mut table = Table::new(style);
        table.order(Order::Who { long: false });
        table.brain.handle_lost("it broke", 0, 0);
        assert_eq!(table.left_with(), Some(exit::FAILED));
    }
}

#[test]
fn a_refused_name_ends_the_client_with_the_reason() {
    for style in [Style::Prompt, Style::Verb] {
        let setup = Setup { style, ..Table::new(style).brain.setup };
        let mut table = Table { brain: Brain::new(setup, 0), now_ms: 0 };
        table.say(Event::Goodbye(Some(&refusal(ErrorCode::NameTaken))));
        let effects = table.effects();
        assert!(matches!(&effects[0], Effect::Show(Shown::Error { code: "name-taken", .. }, _)));
        assert_eq!(effects.last(), Some(&Effect::Leave(exit::REFUSED)));
    }
}

#[test]
fn a_reader_that_has_enough_ends_it_quietly() {
    let mut table = Table::new(Style::Verb);
    table.order(Order::Who { long: false });
    table.brain.handle_output_closed();
    assert_eq!(table.left_with(), Some(exit::DONE));
    let mut table = Table::with(Setup { own_failure: Some(255), ..table.brain.setup });
    table.order(run(false));
    table.requests();
    table.brain.handle_output_closed();
    assert_eq!(table.requests(), ["cancel 1", "goodbye"]);
    assert_eq!(table.left_with(), Some(141));
}
