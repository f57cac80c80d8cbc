//! Requests of devices in the hub: what is started for whom, how a file comes in, what is heard.

#[path = "hub/table.rs"]
mod table;

use sixfour::{
    hub::{Chunk, ConnectionId, Effect, Input, Work},
    wire::{
        EdgeAnswer, EdgeCall, ErrorCode, Name, Outcome, Refusal,
        edge::Statistic,
        frame::{client, server},
    },
};
use table::Table;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

/// What was to be started last, taken from the effects.
fn started(table: &mut Table) -> (Option<Name>, EdgeCall, bool) {
    let start = table.effects.iter().rev().find_map(|effect| match effect {
        Effect::Start { work: Work::Edge { device, call, plain }, .. } => {
            Some((*device, call.clone(), *plain))
        }
        _ => None,
    });
    start.expect("something was started")
}

fn request(table: &mut Table, id: ConnectionId, tag: u32, body: &str) -> Vec<u8> {
    table.send(id, client::REQUEST, tag, body.as_bytes())
}

#[test]
fn a_device_has_a_name_and_anybody_may_ask_who_is_active() {
    let mut table = Table::new();
    let nobody = table.open();
    for line in
        ["edge.join 1", "edge.upload 1 5", "edge.compute 1 SUM", "edge.delete 1", "edge.leave"]
    {
        let heard = table.say(nobody, format!("{line}\n"));
        assert!(heard.starts_with("error not-named: "), "{line}: {heard}");
        assert!(table.effects.is_empty(), "{line}");
    }
    assert_eq!(table.say(nobody, "edge.list\n"), "");
    assert_eq!(started(&mut table), (None, EdgeCall::List, true));
    let operation = table.started();
    let outcome = Outcome::Counted { count: 0, noun: "devices" };
    table.input(Input::Chunk { operation, chunk: Chunk::Text("no other active edge devices") });
    table.input(Input::Ended { operation, outcome });
    assert_eq!(table.heard(nobody), "no other active edge devices\n[0 devices]\n");
}

#[test]
fn people_get_sentences_and_programs_objects() {
    let mut table = Table::new();
    let (nina, alice) = (table.line("nina"), table.frame("alice"));
    let answer = EdgeAnswer::Computed {
        file_id: 1,
        operation: Statistic::Sum,
        result: "10".into(),
        samples: 3,
    };
    let call = EdgeCall::Compute { file_id: 1, operation: Statistic::Sum };
    table.say(nina, "edge.compute 1 SUM\nwho\n");
    assert_eq!(started(&mut table), (Some(name("nina")), call.clone(), true));
    let operation = table.started();
    table.input(Input::Chunk { operation, chunk: Chunk::Text(&answer.text()) });
    assert_eq!(table.heard(nina), "computation (SUM) result on the file (ID:1) is: 10\n");
    table.input(Input::Ended { operation, outcome: Outcome::Done });
    assert_eq!(table.heard(nina), "alice\nnina\n[2 users]\n", "what waited is done now");

    let body = r#"{"op":"edge.compute","file_id":1,"operation":"SUM"}"#;
    assert_eq!(request(&mut table, alice, 3, body), [0; 0]);
    assert_eq!(started(&mut table), (Some(name("alice")), call, false));
    let operation = table.started();
    table.input(Input::Chunk { operation, chunk: Chunk::Object(&answer.to_object()) });
    table.input(Input::Ended { operation, outcome: Outcome::Done });
    assert_eq!(table.kinds(alice), [server::DETAIL, server::END]);
}

#[test]
fn a_file_comes_in_as_input_and_is_credited_as_it_is_taken() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    let body = r#"{"op":"edge.upload","file_id":7,"request_id":"r-1"}"#;
    request(&mut table, alice, 1, body);
    let (device, call, _) = started(&mut table);
    assert_eq!(device, Some(name("alice")));
    assert!(matches!(call, EdgeCall::Upload { file_id: 7, samples: None, .. }));
    let operation = table.started();
    table.send(alice, client::DATA, 1, b"5\n-3");
    table.send(alice, client::DATA, 1, b"\n8\n");
    let feeds = |table: &mut Table| std::mem::take(&mut table.effects).len();
    assert_eq!(feeds(&mut table), 2);
    assert_eq!(table.hub.standard_input(operation), Some((&b"5\n-3\n8\n"[..], false)));
    table.input(Input::InputTaken { operation, count: 7 });
    assert_eq!(table.kinds(alice), [server::CREDIT]);
    table.send(alice, client::END, 1, b"");
    assert_eq!(feeds(&mut table), 1);
    assert_eq!(table.hub.standard_input(operation), Some((&b""[..], true)));
    let refusal = Refusal::new(0, ErrorCode::BadSamples, "line 1 is not an integer");
    table.input(Input::Ended { operation, outcome: Outcome::Failed(refusal) });
    assert_eq!(table.kinds(alice), [server::END]);
    // What was on its way when it failed is nobody's.
    assert_eq!(table.send(alice, client::DATA, 1, b"9\n"), [0; 0]);
    assert_eq!(table.closed(alice), None);
}

#[test]
fn who_goes_takes_the_upload_along() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    request(&mut table, alice, 1, r#"{"op":"edge.upload","file_id":7}"#);
    let operation = table.started();
    request(&mut table, alice, 2, r#"{"op":"edge.join","udp_port":6000}"#);
    let joining = table.started();
    table.send(alice, client::CANCEL, 1, b"");
    assert_eq!(table.effects, [Effect::Terminate { operation }]);
    table.effects.clear();
    table.input(Input::Gone { connection: alice });
    let stops = [Effect::Stop { operation }, Effect::Stop { operation: joining }];
    assert_eq!(table.effects, stops);
}

#[test]
fn bad_requests_of_devices_have_their_own_errors() {
    let mut table = Table::new();
    let alice = table.frame("alice");
    for (body, code) in [
        (r#"{"op":"edge.join"}"#, "bad-arguments"),
        (r#"{"op":"edge.join","udp_port":65536}"#, "bad-arguments"),
        (r#"{"op":"edge.join","udp_port":"6000"}"#, "bad-arguments"),
        (r#"{"op":"edge.upload","file_id":-1,"samples":[1]}"#, "bad-arguments"),
        (r#"{"op":"edge.upload","file_id":1,"samples":[]}"#, "bad-samples"),
        (r#"{"op":"edge.upload","file_id":1,"samples":[1.5]}"#, "bad-arguments"),
        (r#"{"op":"edge.upload","file_id":1,"samples":[9223372036854775808]}"#, "bad-arguments"),
        (r#"{"op":"edge.upload","file_id":1,"hash":"00"}"#, "bad-arguments"),
        (r#"{"op":"edge.upload","file_id":1,"request_id":"a b"}"#, "bad-arguments"),
        (r#"{"op":"edge.delete","file_id":1,"request_id":"-"}"#, "bad-arguments"),
        (r#"{"op":"edge.delete","file_id":4294967296}"#, "bad-arguments"),
        (r#"{"op":"edge.compute","file_id":1,"operation":"sum"}"#, "unknown-operation"),
        (r#"{"op":"edge.compute","file_id":"../1","operation":"SUM"}"#, "bad-arguments"),
        (r#"{"op":"edge.fly"}"#, "bad-arguments"),
    ] {
        table.input(Input::Bytes {
            connection: alice,
            bytes: &table::frame_of(client::REQUEST, 5, body.as_bytes()),
        });
        let heard = table.heard(alice);
        assert!(heard.contains(&format!("\"code\":\"{code}\"")), "{body}: {heard}");
        assert!(table.effects.is_empty(), "{body}");
    }
}
