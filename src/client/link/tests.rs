//! The link against frames that are made here.

use super::*;
use crate::wire::{
    Event, Item, Outcome, Request,
    event::{Ended, Witness},
};

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn encoded(events: &[Event<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    events.iter().for_each(|event| frame::encode(event, &mut bytes));
    bytes
}

/// A link after its welcome, nothing waiting for the socket.
fn ready() -> Link {
    let mut link = Link::new(name("alice"), None, 0, 0);
    let welcome = encoded(&[Event::Welcome { name: name("alice") }]);
    let (taken, heard) = link.handle(&welcome, 0).expect("a welcome");
    assert!(taken == welcome.len() && matches!(heard, Some(Heard::Welcome(_))));
    link.advance(link.outgoing().len());
    link
}

/// All that the server would read, as its own codec tells it; clears the output.
fn read_by_server(link: &mut Link) -> Vec<String> {
    let mut bytes = link.outgoing().to_vec();
    link.advance(bytes.len());
    let mut requests = Vec::new();
    while let Some(Item { request, consumed, .. }) = frame::decode(&bytes).expect("our frames") {
        requests.push(match request.expect("a good request") {
            Request::Input { tag, bytes } => format!("input {tag} {}", bytes.len()),
            other => format!("{other:?}"),
        });
        bytes.drain(..consumed);
    }
    assert!(bytes.is_empty());
    requests
}

fn run(stdin: bool) -> Call<'static> {
    Call::Run { command: "x".into(), stdin, timeout_ms: 0 }
}

#[test]
fn introduces_itself_with_the_magic_and_its_name() {
    for password in [None, Some(Secret::from("two words"))] {
        let mut link = Link::new(name("alice"), password.as_ref(), 0, 0);
        let rest = link.outgoing().strip_prefix(&frame::MAGIC).expect("the magic first");
        let item = frame::decode(rest).expect("a frame").expect("all of it");
        let login = Request::Login { name: name("alice"), password };
        assert_eq!(item.request, Ok(login));
        // Once it is sent, nothing is left of it.
        let sent = link.outgoing().len() - 1;
        link.advance(sent);
        assert!(link.out.sent_bytes().iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_data_frame_is_told_in_pieces_wherever_it_is_cut() {
    for cut in 1..40 {
        let mut link = ready();
        let tag = link.request(&run(false));
        let output = Event::Output { tag, stream: Stream::Stderr, bytes: b"hello, you all" };
        let end = Outcome::Exit { code: 7, directory: None };
        let bytes = encoded(&[output, Event::End { tag, outcome: &end }]);
        let (mut told, mut ended) = (Vec::new(), false);
        let (mut start, mut limit) = (0, cut.min(bytes.len()));
        while start < bytes.len() {
            let (taken, heard) = link.handle(&bytes[start..limit], 0).expect("good frames");
            match heard {
                Some(Heard::Data(_, Stream::Stderr, range)) => {
                    told.extend_from_slice(&bytes[start..][range]);
                }
                Some(Heard::End(_, OutcomeBody::Exit { code: 7, .. })) => ended = true,
                None => {}
                other => panic!("{other:?}"),
            }
            start += taken;
            if taken == 0 {
                limit = bytes.len();
            }
        }
        assert_eq!(told, b"hello, you all", "cut at {cut}");
        assert!(ended, "cut at {cut}");
    }
}

#[test]
fn credit_is_granted_in_steps_for_what_was_consumed() {
    let mut link = ready();
    let tag = link.request(&run(false));
    read_by_server(&mut link);
    link.consumed(tag, CREDIT_STEP_BYTES - 1);
    assert!(link.outgoing().is_empty());
    link.consumed(tag, 11);
    let granted = format!("Credit {{ tag: {tag}, bytes: {} }}", CREDIT_STEP_BYTES + 10);
    assert_eq!(read_by_server(&mut link), [granted]);
    link.consumed(tag + 1, u32::MAX);
    assert!(link.outgoing().is_empty(), "nothing is granted to what does not run");
}

#[test]
fn a_server_that_sends_beyond_its_credit_is_left() {
    let mut link = ready();
    let tag = link.request(&run(false));
    let chunk = vec![b'x'; CHUNK_MAX_BYTES];
    let frame = encoded(&[Event::Output { tag, stream: Stream::Stdout, bytes: &chunk }]);
    let frames = crate::limits::OUTPUT_WINDOW_BYTES as usize / CHUNK_MAX_BYTES;
    for _ in 0..frames {
        link.handle(&frame, 0).expect("within the window");
    }
    assert_eq!(link.handle(&frame, 0).expect_err("beyond").code, ErrorCode::Protocol);
    let mut link = ready();
    let tag = link.request(&run(false));
    for _ in 0..3 * frames {
        link.handle(&frame, 0).expect("credit follows");
        link.consumed(tag, CHUNK_MAX_BYTES as u32);
    }
}

#[test]
fn input_waits_for_the_command_to_take_it() {
    let mut link = ready();
    let tag = link.request(&run(true));
    let much = vec![b'x'; INPUT_WINDOW_BYTES as usize + 5];
    assert_eq!(link.input(tag, &much), INPUT_WINDOW_BYTES as usize);
    assert_eq!((link.input_room(tag), link.input(tag, b"more")), (0, 0));
    let credit = encoded(&[Event::Credit { tag, bytes: 4 }]);
    let (_, heard) = link.handle(&credit, 0).expect("credit");
    assert!(matches!(heard, Some(Heard::InputRoom(at)) if at == tag));
    assert_eq!(link.input(tag, b"more than there is room for"), 4);
    link.input_end(tag, b"");
    link.input_end(tag, b"");
    let read = read_by_server(&mut link);
    let inputs = vec![format!("input {tag} {CHUNK_MAX_BYTES}"); 4];
    assert_eq!(read[1..5], inputs);
    assert_eq!(
        read[5..],
        [format!("input {tag} 4"), format!("InputEnd {{ tag: {tag}, hash: None }}")]
    );
}

#[test]
fn what_concerns_an_operation_that_is_over_is_dropped() {
    let mut link = ready();
    let tag = link.request(&run(true));
    let end = Outcome::Signal { number: 15, because: Some(Ended::Cancelled) };
    let end = encoded(&[Event::End { tag, outcome: &end }]);
    link.handle(&end, 0).expect("the end");
    read_by_server(&mut link);
    assert_eq!(link.input(tag, b"late"), 4);
    link.input_end(tag, b"");
    link.cancel(tag);
    link.consumed(tag, u32::MAX);
    assert!(link.outgoing().is_empty());
    assert!(link.handle(&end, 0).is_err(), "nothing ends twice");
}

#[test]
fn answers_that_nobody_asked_for_end_the_connection() {
    let (to, by) = (name("bob"), Witness::Client);
    for early in [
        Event::Pong { number: 1 },
        Event::Delivered { tag: 1, to, by },
        Event::Text { tag: 1, text: "x" },
    ] {
        let mut link = Link::new(name("alice"), None, 0, 0);
        assert!(link.handle(&encoded(&[early]), 0).is_err());
    }
    for late in [
        Event::Welcome { name: to },
        Event::Text { tag: 1, text: "x" },
        Event::Output { tag: 1, stream: Stream::Stdout, bytes: b"x" },
        Event::End { tag: 1, outcome: &Outcome::Done },
    ] {
        assert!(ready().handle(&encoded(&[late]), 0).is_err());
    }
}

#[test]
fn pings_are_answered_and_silence_is_broken_by_one() {
    let mut link = ready();
    let ping = encoded(&[Event::Ping { number: 9 }]);
    assert!(link.handle(&ping, 1000).expect("a ping").1.is_none());
    assert_eq!(read_by_server(&mut link), ["Pong"]);
    assert_eq!(link.poll_timeout_ms(), 91_000);
    link.handle_timeout(90_999).expect("early");
    assert!(link.outgoing().is_empty());
    link.handle_timeout(91_000).expect("asks");
    link.handle_timeout(91_001).expect("asks once");
    assert_eq!(read_by_server(&mut link), ["Ping { number: 1 }"]);
    assert_eq!(link.poll_timeout_ms(), 151_000);
    link.handle_timeout(151_000).expect_err("gone");
}

#[test]
fn numbers_skip_zero_and_what_still_runs() {
    let mut link = ready();
    link.last_number = u32::MAX - 1;
    let running = link.request(&run(false));
    assert_eq!(running, u32::MAX);
    assert_eq!(link.request(&run(false)), 1);
    link.last_number = u32::MAX - 1;
    assert_eq!(link.request(&run(false)), 2);
}

#[test]
fn a_welcome_that_comes_byte_by_byte_has_no_more_time_than_one_that_does_not_come() {
    let mut link = Link::new(name("alice"), None, 0, 0);
    link.expect_welcome_within(3000);
    let welcome = encoded(&[Event::Welcome { name: name("alice") }]);
    for (at, now_ms) in (0..10).map(|at| (at, at as u64 * 250)) {
        let (taken, heard) = link.handle(&welcome[..at], now_ms).expect("the beginning of one");
        assert!(taken == 0 && heard.is_none());
        assert_eq!((link.poll_timeout_ms(), link.handle_timeout(now_ms)), (3000, Ok(())));
    }
    let why = link.handle_timeout(3000).expect_err("it is late");
    assert!(why.contains("3.0 s") && why.contains("sixfour"), "{why}");
}

#[test]
fn another_service_at_the_port_is_told_by_what_it_says() {
    let mut link = Link::new(name("alice"), None, 0, 0);
    let refusal = link.handle(b"SSH-2.0-OpenSSH_9.2\x1b[2J\r\n", 0).expect_err("no server");
    let part = "no sixfour server: it says \"SSH-2.0-OpenSSH_9.2\\x1b[2J\"";
    assert!(refusal.text.ends_with(part), "{}", refusal.text);
    let mut link = Link::new(name("alice"), None, 0, 0);
    let long = link.handle(&[b'x'; 5000], 0).expect_err("no server").text;
    assert!(long.len() < 150, "{long}");
}

#[test]
fn a_server_that_asks_and_does_not_read_is_left_before_it_fills_the_memory() {
    let mut link = ready();
    let pings = encoded(&[Event::Ping { number: 1 }]).repeat(1000);
    let mut left = None;
    for _ in 0..100_000 {
        let mut at = 0;
        while at < pings.len() && left.is_none() {
            match link.handle(&pings[at..], 0) {
                Ok((taken, _)) => at += taken,
                Err(refusal) => left = Some(refusal),
            }
        }
        if left.is_some() {
            break;
        }
    }
    assert!(left.expect("it is left").text.contains("more than it takes answers to"));
    assert!(link.waiting() <= CLIENT_OUTGOING_MAX_BYTES + 1000);
}

#[test]
fn a_window_that_would_take_all_memory_is_no_welcome() {
    let mut link = Link::new(name("alice"), None, 0, 0);
    let body = WelcomeBody { output_window_bytes: u32::MAX, ..WelcomeBody::new(name("alice")) };
    let mut bytes = Vec::new();
    frame::put_json(&mut bytes, server::WELCOME, 0, &body);
    let refusal = link.handle(&bytes, 0).expect_err("no such window");
    assert!(refusal.text.contains("4294967295"), "{}", refusal.text);
}

#[test]
fn what_is_asked_before_the_welcome_and_after_the_goodbye_goes_nowhere() {
    let mut early = Link::new(name("alice"), None, 0, 0);
    early.advance(early.outgoing().len());
    let mut late = ready();
    let goodbye = encoded(&[Event::Goodbye(None)]);
    assert!(matches!(late.handle(&goodbye, 0), Ok((_, Some(Heard::Goodbye(None))))));
    for mut link in [early, late] {
        let tag = link.request(&run(true));
        assert_eq!((link.input_room(tag), link.input(tag, b"abc")), (0, 3));
        link.input_end(tag, b"");
        link.consumed(tag, 7);
        link.cancel(tag);
        assert_eq!(link.waiting(), 0);
    }
}
