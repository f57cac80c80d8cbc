//! Messages through a real server: between dialects and families, in order, with receipts.

mod process;

use std::{thread, time::Duration};

use process::{FAMILIES, Framed, Json, Line, News, Server};
use serde_json::{Value, json};

/// A user of any dialect.
enum User {
    Line(Line),
    Json(Json),
    Framed(Framed),
}

impl User {
    fn say(&mut self, to: &str, text: &str) {
        match self {
            User::Line(line) => line.send(&format!("{text}|{to}")),
            User::Json(json) => {
                json.send(&json!({"op": "message", "to": to, "text": text, "id": 1}));
            }
            User::Framed(framed) => framed.message(0, to, text),
        }
    }

    fn hear(&mut self) -> (String, String) {
        match self {
            User::Line(line) => {
                let line = line.next();
                let (from, text) = line.split_once('|').expect("a message");
                (from.to_owned(), text.to_owned())
            }
            User::Json(json) => {
                let message = beside_good_replies(json);
                assert_eq!(message["event"], "message", "{message}");
                let member = |name: &str| message[name].as_str().expect("a text").to_owned();
                (member("from"), member("text"))
            }
            User::Framed(framed) => match framed.next() {
                News::Message { from, text, serial: 0 } => (from, text),
                other => panic!("no message but {other:?}"),
            },
        }
    }

    /// The codes of the next two errors, sorted.
    fn two_errors(&mut self) -> [String; 2] {
        let mut codes = match self {
            User::Json(json) => {
                let reply = beside_good_replies(json);
                [0, 1].map(|at| reply["errors"][at]["code"].as_str().expect("a code").to_owned())
            }
            User::Line(_) | User::Framed(_) => [self.error(), self.error()],
        };
        codes.sort();
        codes
    }

    /// The code of the error that comes next.
    fn error(&mut self) -> String {
        match self {
            User::Line(line) => line.next().split([' ', ':']).nth(1).expect("a code").to_owned(),
            User::Json(json) => {
                let object = beside_good_replies(json);
                object["error"]["code"].as_str().expect("a code").to_owned()
            }
            User::Framed(framed) => match framed.next() {
                News::Error(_, error) => error["code"].as_str().expect("a code").to_owned(),
                other => panic!("no error but {other:?}"),
            },
        }
    }
}

/// The next object that is no good reply.
fn beside_good_replies(json: &mut Json) -> Value {
    loop {
        let object = json.next();
        if object.get("event").is_some() || object["errorcode"] != 0 {
            return object;
        }
    }
}

/// One user of each dialect and family, with their names.
fn everybody(server: &Server) -> Vec<(&'static str, User)> {
    let [v6, v4] = FAMILIES;
    let json = |ip, name| {
        let mut json = server.json(ip);
        json.login(name);
        User::Json(json)
    };
    vec![
        ("json6", json(v6, "json6")),
        ("json4", json(v4, "json4")),
        ("line6", User::Line(server.user(v6, "line6"))),
        ("line4", User::Line(server.user(v4, "line4"))),
        ("frame6", User::Framed(server.framed(v6, "frame6"))),
        ("frame4", User::Framed(server.framed(v4, "frame4"))),
    ]
}

#[test]
fn anybody_reaches_anybody_whatever_the_dialect_and_the_family() {
    let server = Server::start();
    let mut users = everybody(&server);
    for sender in 0..users.len() {
        for recipient in (0..users.len()).filter(|it| *it != sender) {
            let (from, to) = (users[sender].0, users[recipient].0);
            let text = format!("gr\u{fc}\u{df}e | from {from} to {to}");
            users[sender].1.say(to, &text);
            assert_eq!(users[recipient].1.hear(), (from.to_owned(), text));
        }
    }
}

#[test]
fn several_recipients_and_everybody_get_it_once_each() {
    let server = Server::start();
    let mut users = everybody(&server);
    for sender in 0..users.len() {
        let from = users[sender].0;
        users[sender].1.say("line6,frame4, line4,frame4,json6,frame6,line6,json4,nobody", "some");
        // Oneself and the unknown are named; the others get it.
        let codes = users[sender].1.two_errors();
        assert_eq!(codes, ["bad-arguments", "no-such-user"], "{from}");
        users[sender].1.say("*", "all");
        for recipient in (0..users.len()).filter(|it| *it != sender) {
            assert_eq!(users[recipient].1.hear(), (from.to_owned(), "some".to_owned()));
            assert_eq!(users[recipient].1.hear(), (from.to_owned(), "all".to_owned()));
        }
    }
    let too_many: Vec<_> = (0..65).map(|number| format!("user{number}")).collect();
    for (_, user) in &mut users {
        user.say(&too_many.join(","), "x");
        assert_eq!(user.error(), "too-many");
        user.say("nobody", &"x".repeat(64 * 1024));
        assert_eq!(user.error(), "no-such-user");
        user.say("nobody", &"x".repeat(64 * 1024 + 1));
        assert_eq!(user.error(), "text-too-long");
    }
}

#[test]
fn ten_thousand_messages_keep_their_order() {
    const COUNT: usize = 10_000;
    /// As many may be on their way before the sender waits for the recipient.
    const WINDOW: usize = 500;
    let server = Server::start();
    let users = everybody(&server);
    let mut pairs: Vec<_> = users.into_iter().collect();
    let (frame4, frame6) = (pairs.pop().expect("four"), pairs.pop().expect("four"));
    let (line4, line6) = (pairs.pop().expect("four"), pairs.pop().expect("four"));
    let chat = |mut one: (&'static str, User), mut other: (&'static str, User)| {
        thread::spawn(move || {
            for round in 0..COUNT / WINDOW {
                for number in round * WINDOW..(round + 1) * WINDOW {
                    one.1.say(other.0, &format!("message {number}"));
                }
                for number in round * WINDOW..(round + 1) * WINDOW {
                    let expected = (one.0.to_owned(), format!("message {number}"));
                    assert_eq!(other.1.hear(), expected);
                }
            }
        })
    };
    for chat in [chat(line6, frame4), chat(frame6, line4)] {
        chat.join().expect("all in order");
    }
}

#[test]
fn a_receipt_says_who_vouches_for_the_delivery() {
    let server = Server::start();
    for (ip, other) in [(FAMILIES[0], FAMILIES[1]), (FAMILIES[1], FAMILIES[0])] {
        let mut sender = server.framed(ip, "sender");
        let mut client = server.framed(other, "client");
        let mut line = server.user(other, "line");
        sender.message(7, "line", "hello");
        assert_eq!(line.next(), "sender|hello");
        let by_connection = json!({"to": "line", "by": "connection"});
        assert_eq!(sender.next(), News::Delivered(7, by_connection));

        sender.message(8, "client", "hello");
        let News::Message { from, text, serial } = client.next() else { panic!("no message") };
        assert_eq!((from.as_str(), text.as_str()), ("sender", "hello"));
        assert_ne!(serial, 0, "it is to be acknowledged");
        client.acknowledge(serial);
        // Twice is no harm, and neither is a number that was never given.
        client.acknowledge(serial);
        client.acknowledge(12_345);
        let by_client = json!({"to": "client", "by": "client"});
        assert_eq!(sender.next(), News::Delivered(8, by_client));

        sender.message(9, "client,line", "both");
        assert_eq!(line.next(), "sender|both");
        let News::Message { serial, .. } = client.next() else { panic!("no message") };
        client.acknowledge(serial);
        let mut witnesses = Vec::new();
        for _ in 0..2 {
            let News::Delivered(9, body) = sender.next() else { panic!("no receipt") };
            witnesses.push(body["by"].as_str().expect("a witness").to_owned());
        }
        witnesses.sort();
        assert_eq!(witnesses, ["client", "connection"]);

        // Whoever goes without acknowledging leaves an error behind, with the tag.
        sender.message(10, "client", "lost");
        assert!(matches!(client.next(), News::Message { .. }));
        client.reset();
        let News::Error(10, error) = sender.next() else { panic!("no error") };
        assert_eq!(error["code"], "not-delivered");
        line.send("quit");
        assert_eq!(line.rest_text(), "goodbye\n");
        sender.send(sixfour::wire::frame::client::GOODBYE, 0, b"");
        assert_eq!(sender.next(), News::Goodbye(None));
        assert_eq!(sender.next(), News::Closed);
    }
}

#[test]
fn whoever_does_not_read_is_busy_and_the_others_chat_on() {
    let server = Server::start();
    let canary = process::Canary::start(&server);
    for ip in FAMILIES {
        let deaf = server.framed(ip, "deaf");
        let mut sender = server.framed(ip, "sender");
        let text = "x".repeat(60_000);
        let mut busy = None;
        // What the kernel takes comes first: a few MiB, then our own queue.
        for number in 1..1000 {
            sender.message(0, "deaf", &text);
            sender.send(sixfour::wire::frame::client::PING, number, b"");
            match sender.next() {
                News::Pong(_) => {}
                News::Error(0, error) => {
                    busy = Some(error);
                    assert!(matches!(sender.next(), News::Pong(_)));
                    break;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        assert_eq!(busy.expect("its queue is bounded")["code"], "peer-busy");
        deaf.reset();
        let News::Error(0, error) = sender.next() else { panic!("nobody said what was lost") };
        assert_eq!(error["code"], "not-delivered");
        sender.reset();
        await_free(&server, "sender");
        await_free(&server, "deaf");
    }
    canary.stop();
}

/// Waits until nobody has the name.
fn await_free(server: &Server, name: &str) {
    let mut line = server.line(FAMILIES[0]);
    line.stream().set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
    process::await_true("the name is free", || {
        line.send("who");
        let mut found = false;
        loop {
            let said = line.next();
            if said.starts_with('[') {
                return !found;
            }
            found |= said == name;
        }
    });
}
