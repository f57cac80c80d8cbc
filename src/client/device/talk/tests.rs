//! The conversation of a device, frame by frame.

use super::*;
use crate::wire::{Event, Outcome, edge::Statistic, frame};

fn who() -> Who {
    let user = Name::parse("watch").expect("a name");
    Who { user, password: Some("secret".into()), udp_port: 6000 }
}

/// The server says this.
fn hear(talk: &mut Talk, event: &Event<'_>) {
    let mut bytes = Vec::new();
    frame::encode(event, &mut bytes);
    let taken = talk.handle_bytes(&bytes, 5, 0).expect("good frames");
    assert_eq!(taken, bytes.len());
}

fn news(talk: &mut Talk) -> Vec<News> {
    std::iter::from_fn(|| talk.poll_news()).collect()
}

/// What the server reads.
fn said(talk: &mut Talk) -> String {
    let link = talk.link().expect("a connection");
    let text = String::from_utf8_lossy(link.outgoing()).into_owned();
    link.advance(link.outgoing().len());
    text
}

fn greet(talk: &mut Talk) {
    talk.handle_connected(0);
    let hello = said(talk);
    assert!(hello.contains(r#""user":"watch","password":"secret""#), "{hello}");
    hear(talk, &Event::Welcome { name: who().user });
    assert!(said(talk).contains(r#"{"op":"edge.join","udp_port":6000}"#));
}

fn end(talk: &mut Talk, outcome: Outcome) {
    let tag = talk.link().expect("a connection").last_number();
    hear(talk, &Event::End { tag, outcome: &outcome });
}

fn ready() -> Talk {
    let mut talk = Talk::default();
    talk.log_in(who());
    assert_eq!(news(&mut talk), [News::Connect]);
    greet(&mut talk);
    end(&mut talk, Outcome::Done);
    assert_eq!(news(&mut talk), [News::Ready { again: false }]);
    talk
}

#[test]
fn a_request_is_answered_and_ends() {
    let mut talk = ready();
    talk.ask(&EdgeCall::Compute { file_id: 1, operation: Statistic::Sum });
    assert!(said(&mut talk).contains("edge.compute"));
    let left = EdgeAnswer::Left { device: who().user };
    let tag = talk.link().expect("a connection").last_number();
    hear(&mut talk, &Event::Object { tag, object: &left.to_object() });
    end(&mut talk, Outcome::Done);
    assert_eq!(news(&mut talk), [News::Answer(left), News::Ended(Ok(()))]);
}

#[test]
fn a_lost_connection_is_got_back_and_joins_again() {
    let mut talk = ready();
    talk.ask(&EdgeCall::List);
    talk.handle_lost("the cable", 10, 700);
    let lost = News::Lost("the cable".into());
    assert_eq!(news(&mut talk), [News::Disconnect, lost]);
    assert_eq!(talk.poll_timeout_ms(), Some(710));
    talk.handle_timeout(709, 0);
    assert_eq!(news(&mut talk), []);
    talk.handle_timeout(710, 0);
    assert_eq!(news(&mut talk), [News::Connect]);
    talk.handle_unreachable("refused", 720, 500);
    assert_eq!(news(&mut talk), [News::Away("refused".into())]);
    talk.handle_timeout(1220, 0);
    assert_eq!(news(&mut talk), [News::Connect]);
    greet(&mut talk);
    end(&mut talk, Outcome::Done);
    assert_eq!(news(&mut talk), [News::Ready { again: true }]);
    talk.ask(&EdgeCall::List);
}

#[test]
fn a_refusal_at_the_door_is_the_callers_and_a_name_of_our_own_is_waited_for() {
    let mut talk = Talk::default();
    talk.log_in(who());
    talk.handle_connected(0);
    let taken = Refusal::new(0, ErrorCode::NameTaken, "somebody is here");
    hear(&mut talk, &Event::Goodbye(Some(&taken)));
    let wanted = [News::Connect, News::Disconnect, News::Refused(taken.clone())];
    assert_eq!(news(&mut talk), wanted);
    assert_eq!(talk.poll_timeout_ms(), None);

    let mut talk = ready();
    talk.handle_lost("the cable", 0, 0);
    talk.handle_timeout(0, 0);
    talk.handle_connected(0);
    news(&mut talk);
    hear(&mut talk, &Event::Goodbye(Some(&taken)));
    assert_eq!(news(&mut talk), [News::Disconnect, News::Away("somebody is here".into())]);
    assert!(talk.poll_timeout_ms().is_some());
    talk.handle_timeout(60_000, 0);
    talk.handle_connected(60_000);
    news(&mut talk);
    let denied = Refusal::new(0, ErrorCode::Denied, "not you");
    hear(&mut talk, &Event::Goodbye(Some(&denied)));
    assert_eq!(news(&mut talk), [News::Disconnect, News::Refused(denied)]);
}

#[test]
fn a_refused_join_is_told() {
    let mut talk = Talk::default();
    talk.log_in(who());
    news(&mut talk);
    greet(&mut talk);
    let refusal = Refusal::new(0, ErrorCode::NoSpace, "full");
    end(&mut talk, Outcome::Failed(refusal.clone()));
    assert_eq!(news(&mut talk), [News::Disconnect, News::Refused(refusal)]);
}

#[test]
fn where_all_can_read_it_a_password_waits_until_the_server_wants_it() {
    let mut talk = Talk::default();
    talk.log_in(who());
    talk.ask_first(true);
    talk.handle_connected(0);
    assert!(!said(&mut talk).contains("secret"));
    news(&mut talk);
    let wanted = Refusal::new(0, ErrorCode::LoginRequired, "say who you are");
    hear(&mut talk, &Event::Goodbye(Some(&wanted)));
    assert_eq!(news(&mut talk), [News::Disconnect, News::Connect]);
    talk.ask_first(true);
    greet(&mut talk);
}
