//! Offers and what comes of them, as the brain sees them.

use super::*;
use crate::{
    client::{
        core::rules::Rules,
        screen::passing::{Passed, Passing},
        weigh::Weight,
    },
    wire::{Form, Parcel},
};

fn plan() -> Parcel {
    let mut parcel = Parcel::file(b"plan", 13);
    parcel.form = Form::Conversation;
    parcel
}

fn offer(table: &mut Table, number: u32, from: &str, parcel: &Parcel) {
    table.say(Event::Offer { number, from: name(from), parcel, address: None });
}

fn accepted(table: &mut Table, tag: Tag, form: Form) {
    let by = name("bob");
    table.say(Event::Accepted { tag, by, form, introduction: None, address: None });
}

fn send() -> Order {
    let (paths, again) = (vec![Local::Path("plan".into())], "send plan bob".to_owned());
    Order::Send { paths, to: name("bob"), limit: None, again }
}

fn weight() -> Weight {
    let (size, modified) = (Some(13), Some(7));
    Weight { name: b"plan".to_vec(), size, files: 1, folder: false, modified }
}

/// The calls that the server would have read since the last time.
fn calls(table: &mut Table) -> Vec<String> {
    let Some(link) = table.brain.link() else { return Vec::new() };
    let bytes = link.outgoing().to_vec();
    link.advance(bytes.len());
    let (mut calls, mut at) = (Vec::new(), 0);
    while let Some(Item { request, consumed, .. }) = frame::decode(&bytes[at..]).expect("frames") {
        at += consumed;
        calls.push(format!("{:?}", request.expect("a good request")));
    }
    calls
}

fn passing(table: &mut Table) -> Vec<Passing> {
    let passing = |shown| match shown {
        Shown::Passing(passing) => Some(passing),
        _ => None,
    };
    table.shown().into_iter().filter_map(passing).collect()
}

/// A prompt that takes everything.
fn taker() -> Table {
    let mut table = Table::new(Style::Prompt);
    table.brain.set_rules(Rules::parse("all").expect("rules"));
    table
}

#[test]
fn at_a_prompt_the_user_is_asked_and_answers_by_number() {
    let mut table = Table::new(Style::Prompt);
    offer(&mut table, 3, "bob", &plan());
    assert!(matches!(&passing(&mut table)[..], [Passing::Offer { number: 3, .. }]));
    offer(&mut table, 4, "carol", &plan());
    table.shown();
    // Which of the two is not said.
    table.order(Order::Accept { offer: None });
    assert_eq!(error_code(&table.shown()[0]), "no-such-offer");
    table.order(Order::Refuse { offer: Some(3), reason: Some("no".into()) });
    let refused = "Call { tag: 1, call: Refuse { offer: 3, reason: Some(\"no\") } }";
    assert_eq!(calls(&mut table), [refused]);
    // The answer to that is nobody's business, whatever it is.
    table.end(1, Outcome::Failed(refusal(ErrorCode::NoSuchOffer)));
    assert_eq!(table.shown(), []);
    table.order(Order::Accept { offer: None });
    let taken =
        "Call { tag: 2, call: Accept { offer: 4, form: Conversation, introduction: None } }";
    assert_eq!(calls(&mut table), [taken]);
    table.order(Order::Accept { offer: Some(4) });
    assert_eq!(error_code(&table.shown()[0]), "no-such-offer");
}

#[test]
fn what_is_withdrawn_cannot_be_accepted_any_more() {
    let mut table = Table::new(Style::Prompt);
    offer(&mut table, 1, "bob", &plan());
    table.shown();
    table.say(Event::OfferWithdrawn { number: 1, refusal: &refusal(ErrorCode::Cancelled) });
    assert!(matches!(&passing(&mut table)[..], [Passing::Withdrawn { number: 1, .. }]));
    // What was not asked about is not told of either.
    table.say(Event::OfferWithdrawn { number: 9, refusal: &refusal(ErrorCode::Cancelled) });
    assert_eq!(table.shown(), []);
    table.order(Order::Accept { offer: Some(1) });
    assert_eq!(error_code(&table.shown()[0]), "no-such-offer");
    assert!(calls(&mut table).is_empty());
}

#[test]
fn rules_answer_in_place_of_the_user() {
    let mut table = Table::new(Style::Prompt);
    table.brain.set_rules(Rules::parse("bob:13").expect("rules"));
    offer(&mut table, 1, "bob", &plan());
    assert!(calls(&mut table)[0].contains("Accept { offer: 1,"));
    let mut larger = plan();
    larger.size = Some(14);
    offer(&mut table, 2, "bob", &larger);
    offer(&mut table, 3, "carol", &plan());
    assert_eq!(passing(&mut table).len(), 2, "the user is asked");
    table.brain.set_rules(Rules::parse("none").expect("rules"));
    offer(&mut table, 4, "bob", &plan());
    assert!(calls(&mut table)[0].contains("Refuse { offer: 4, reason: Some("));
}

#[test]
fn where_nobody_can_be_asked_what_no_rule_takes_is_refused() {
    for style in [Style::Piped, Style::Verb] {
        let mut table = Table::new(style);
        offer(&mut table, 1, "bob", &plan());
        assert!(calls(&mut table)[0].contains("Refuse { offer: 1, reason: Some("));
    }
    // A verb takes nothing that it was not started for.
    let mut table = Table::new(Style::Verb);
    table.brain.set_rules(Rules::parse("all").expect("rules"));
    offer(&mut table, 1, "bob", &plan());
    assert!(calls(&mut table)[0].contains("Refuse { offer: 1, reason: Some("));
}

#[test]
fn receiving_ends_after_so_many_whether_they_arrive_or_fail() {
    let mut table = Table::new(Style::Verb);
    table.brain.set_rules(Rules::parse("all").expect("rules"));
    table.order(Order::Receive { count: Some(2) });
    table.brain.handle_orders_end();
    assert_eq!(table.left_with(), None);
    offer(&mut table, 1, "bob", &plan());
    calls(&mut table);
    table.end(1, Outcome::Failed(refusal(ErrorCode::NoSuchOffer)));
    assert_eq!(table.left_with(), None);
    offer(&mut table, 2, "bob", &plan());
    accepted(&mut table, 2, Form::Conversation);
    let opened = table.effects();
    assert!(opened.iter().any(|effect| matches!(effect, Effect::Open(2, Opening::Take { .. }))));
    table.brain.handle_moved(2, Ok(()), 0);
    assert!(calls(&mut table).ends_with(&["InputEnd { tag: 2, hash: None }".to_owned()]));
    assert_eq!(table.left_with(), None);
    table.end(2, Outcome::Done);
    assert_eq!(table.left_with(), Some(5), "the first of them has failed");
}

#[test]
fn what_is_offered_before_the_order_to_receive_has_come_is_taken() {
    let mut table = Table::new(Style::Verb);
    table.brain.set_rules(Rules::parse("all").expect("rules"));
    table.brain.receive_early(Some(1));
    offer(&mut table, 1, "bob", &plan());
    assert!(calls(&mut table)[0].contains("Accept { offer: 1,"));
    table.order(Order::Receive { count: Some(1) });
    table.brain.handle_orders_end();
    assert_eq!(table.left_with(), None);
    table.end(1, Outcome::Failed(refusal(ErrorCode::NoSuchOffer)));
    assert_eq!(table.left_with(), Some(5), "that was the one");
}

#[test]
fn what_is_sent_is_looked_at_then_offered_then_passed_on() {
    let mut table = Table::new(Style::Prompt);
    table.order(send());
    let weigh = Effect::Weigh(1, vec![Local::Path("plan".into())]);
    assert!(table.effects().contains(&weigh));
    assert!(calls(&mut table).is_empty());
    table.brain.handle_weighed(1, Ok(weight()), 0);
    let call = calls(&mut table);
    assert!(call[0].starts_with("Call { tag: 1, call: Send(Proposal { to: \"bob\""), "{call:?}");
    assert!(call[0].contains("form: Conversation"));
    assert!(matches!(&passing(&mut table)[..], [Passing::Asked { .. }]));
    accepted(&mut table, 1, Form::Conversation);
    let give = |effect: &Effect| matches!(effect, Effect::Open(1, Opening::Give { .. }));
    assert!(table.effects().iter().any(give));
    // Our half says something, and has then said all.
    table.brain.handle_said(1, vec![Segment::Bytes(vec![7; 5])]);
    let stored =
        Report::Stored { name: b"plan".to_vec(), size: 13, hash: [1; 32], was_there: false };
    table.brain.handle_reports(1, vec![stored], 0);
    table.brain.handle_moved(1, Ok(()), 0);
    assert_eq!(table.requests(), ["input 5", "input end"]);
    table.end(1, Outcome::Done);
    let Some(Passing::Passed(Passed { is_sent, hash, .. })) = passing(&mut table).pop() else {
        panic!("it is told of")
    };
    assert!(is_sent && hash.is_some());
}

#[test]
fn what_is_not_there_is_not_offered() {
    let mut table = Table::new(Style::Verb);
    table.order(send());
    table.brain.handle_orders_end();
    assert_eq!(table.left_with(), None, "it is looked at");
    let missing = Fault::new(ErrorCode::NoSuchFile, "plan: there is no such file");
    table.brain.handle_weighed(1, Err(missing), 0);
    assert!(calls(&mut table).iter().all(|call| !call.contains("Send")));
    assert_eq!(table.left_with(), Some(5));
}

#[test]
fn a_file_for_who_cannot_talk_goes_as_it_is_with_its_hash_at_the_end() {
    let mut table = Table::new(Style::Verb);
    table.order(send());
    table.brain.handle_orders_end();
    table.brain.handle_weighed(1, Ok(weight()), 0);
    accepted(&mut table, 1, Form::Raw);
    table.brain.handle_said(1, vec![Segment::Bytes(vec![7; 13])]);
    table.brain.handle_hashed(1, [3; 32]);
    table.brain.handle_moved(1, Ok(()), 0);
    let hash = format!("InputEnd {{ tag: 1, hash: Some({:?}) }}", [3; 32]);
    assert_eq!(calls(&mut table).last(), Some(&hash));
    table.end(1, Outcome::Delivered { by: Witness::Connection });
    let effects = table.effects();
    let told = effects.iter().find_map(|effect| match effect {
        Effect::Show(Shown::Passing(Passing::Passed(passed)), _) => Some(passed),
        _ => None,
    });
    assert_eq!(told.map(|passed| passed.hash.clone()), Some(None), "nobody has verified it");
    assert!(effects.contains(&Effect::Leave(0)));
}

#[test]
fn a_file_that_comes_as_it_is_is_verified_by_the_hash_at_its_end() {
    let mut table = taker();
    offer(&mut table, 1, "bob", &Parcel::file(b"plan", 13));
    table.say(Event::File { tag: 1, name: b"plan", size: 13, modified: 0 });
    let raw = |effect: &Effect| match effect {
        Effect::Open(1, Opening::Take { taking, .. }) => taking.form == Form::Raw,
        _ => false,
    };
    assert!(table.effects().iter().any(raw));
    table.end(1, Outcome::Sent { hash: [3; 32] });
    assert!(table.effects().contains(&Effect::Verify(1, Some([3; 32]))));
    let wrong = Fault::new(ErrorCode::NotVerified, "not those");
    table.brain.handle_moved(1, Err(wrong), 0);
    assert_eq!(error_code(&table.shown()[0]), "not-verified");
}

#[test]
fn whoever_cannot_store_a_file_as_it_is_cancels_it_and_says_no_more() {
    let mut table = taker();
    offer(&mut table, 1, "bob", &Parcel::file(b"plan", 13));
    table.say(Event::File { tag: 1, name: b"plan", size: 13, modified: 0 });
    drop((table.requests(), table.effects()));
    let full = Fault::new(ErrorCode::NoSpace, "plan: the disk is full");
    table.brain.handle_moved(1, Err(full), 0);
    table.brain.pump();
    assert_eq!(table.requests(), ["cancel 1"]);
    table.end(1, Outcome::Failed(refusal(ErrorCode::Cancelled)));
    assert_eq!(error_code(&table.shown()[0]), "no-space");
}

#[test]
fn a_refusal_is_told_and_is_an_exit_code() {
    let mut table = Table::new(Style::Verb);
    table.order(send());
    table.brain.handle_orders_end();
    table.brain.handle_weighed(1, Ok(weight()), 0);
    table.effects();
    table.end(1, Outcome::Failed(refusal(ErrorCode::Refused)));
    let effects = table.effects();
    assert!(effects.contains(&Effect::Leave(4)), "{effects:?}");
}

#[test]
fn an_interrupt_takes_an_offer_back() {
    let mut table = Table::new(Style::Prompt);
    table.order(send());
    table.brain.handle_weighed(1, Ok(weight()), 0);
    table.requests();
    table.effects();
    table.brain.handle_interrupt(2);
    assert_eq!(table.requests(), ["cancel 1"]);
    assert_eq!(table.shown(), [Shown::Notice("bob is not asked any more".into())]);
    table.end(1, Outcome::Failed(refusal(ErrorCode::Cancelled)));
    assert_eq!(table.shown(), []);
}

#[test]
fn offers_go_with_the_connection() {
    let mut table = Table::new(Style::Prompt);
    offer(&mut table, 1, "bob", &plan());
    table.brain.handle_lost("gone", 0, 0);
    table.brain.handle_connected(0);
    table.brain.link().expect("a link").advance(frame::MAGIC.len());
    table.welcome();
    table.effects();
    table.order(Order::Accept { offer: Some(1) });
    assert_eq!(error_code(&table.shown()[0]), "no-such-offer");
}

#[test]
fn a_file_that_comes_as_it_is_and_cannot_be_saved_is_cancelled_and_not_ended() {
    let mut table = taker();
    offer(&mut table, 1, "bob", &Parcel::file(b"plan", 13));
    table.say(Event::File { tag: 1, name: b"plan", size: 13, modified: 0 });
    table.requests();
    table.brain.handle_moved(1, Err(Fault::new(ErrorCode::NoSpace, "no room")), 0);
    assert_eq!(table.requests(), ["cancel 1"]);
}

#[test]
fn a_refusal_of_a_passing_name_says_how_to_give_the_own_one() {
    let mut table = Table::new(Style::Verb);
    table.brain.login.account = Some(name("carol"));
    table.order(send());
    table.brain.handle_orders_end();
    table.brain.handle_weighed(1, Ok(weight()), 0);
    table.effects();
    table.end(1, Outcome::Failed(refusal(ErrorCode::Refused)));
    let shown = table.shown();
    let hint = |shown: &Shown| match shown {
        Shown::Error { code: "refused", text } => text.ends_with("--user carol"),
        _ => false,
    };
    assert!(shown.iter().any(hint), "{shown:?}");
}
