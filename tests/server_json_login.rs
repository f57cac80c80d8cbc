//! Logins over JSON at a real server, in clear and inside TLS, over both families.

mod process;

use std::net::IpAddr;

use process::{FAMILIES, identity::Guarded};
use serde_json::{Value, json};

const WRONG: &str = "Invalid Password. Please try again";
const NOW_BLOCKED: &str = "Invalid Password. Your account has been blocked. Please try again later";
const BLOCKED: &str = "Your account is blocked due to multiple authentication failures. Please \
                       try again later";

/// Ways to say objects to the server and hear its own.
struct Talk(Box<dyn FnMut(&Value) -> Value>);

impl Talk {
    fn new(guarded: &Guarded, ip: IpAddr, is_secured: bool) -> Talk {
        if is_secured {
            let mut secured = guarded.server.secured(ip);
            return Talk(Box::new(move |request| {
                secured.send_bytes(request.to_string().as_bytes());
                serde_json::from_str(&secured.next()).expect("an object")
            }));
        }
        let mut json = guarded.server.json(ip);
        Talk(Box::new(move |request| json.ask(request)))
    }

    fn ask(&mut self, request: Value) -> Value {
        (self.0)(&request)
    }

    fn login(&mut self, name: &str, password: &str) -> Value {
        self.ask(json!({"op": "login", "user": name, "password": password, "id": "in"}))
    }
}

fn assert_error(reply: &Value, code: &str, text: &str) {
    assert_eq!((&reply["error"]["code"], &reply["error"]["text"]), (&json!(code), &json!(text)));
    assert_eq!((&reply["result"], &reply["errorcode"]), (&json!(null), &json!(2)), "{reply}");
}

#[test]
fn who_logs_in_over_json_is_let_in_turned_away_and_blocked_as_in_lines() {
    let users = "alice secret message,run\nbob other\n";
    for (number, ip) in FAMILIES.into_iter().enumerate() {
        for is_secured in [false, true] {
            let guarded = Guarded::start(users, &["--attempts", "2"]);
            let mut talk = Talk::new(&guarded, ip, is_secured);
            let early = talk.ask(json!({"method": "touch never", "id": 1}));
            assert_eq!(early["error"]["code"], "login-required", "{early}");
            let text = early["error"]["text"].as_str().expect("a text");
            let form = r#"{"op": "login", "user": NAME, "password": PASSWORD, "id": ID}"#;
            assert!(text.contains(form) && !text.contains("`user"), "{text}");
            let bare = talk.ask(json!({"op": "login", "user": "alice", "id": 2}));
            assert_eq!(bare["error"]["code"], "login-required");
            assert!(bare["error"]["text"].as_str().is_some_and(|it| it.contains(form)), "{bare}");

            assert_error(&talk.login("alice", "wrong"), "login-failed", WRONG);
            assert_eq!(talk.login("alice", "secret")["user"], "alice", "and the count is over");
            let ran = talk.ask(json!({"method": "echo ran", "id": 3}));
            assert_eq!((&ran["stdout"], &ran["id"]), (&json!("ran\n"), &json!(3)));
            let again = talk.login("bob", "other");
            assert_eq!(again["error"]["code"], "already-named");

            // The right ones are of no use now, here and from the other family.
            let mut other = Talk::new(&guarded, FAMILIES[1 - number], !is_secured);
            assert_error(&other.login("bob", "wrong"), "login-failed", WRONG);
            assert_error(&other.login("bob", ""), "login-required", bare_text(&bare));
            assert_error(&other.login("bob", "wrong"), "blocked", NOW_BLOCKED);
            assert_error(&other.login("bob", "other"), "blocked", BLOCKED);
            let mut third = Talk::new(&guarded, ip, is_secured);
            assert_error(&third.login("bob", "other"), "blocked", BLOCKED);
            assert_eq!(third.login("alice", "secret")["user"], "alice", "others are not");
            let denied = Talk::new(&guarded, ip, is_secured).login("eve", "secret");
            assert_error(&denied, "login-failed", WRONG);
            assert!(!guarded.folder.path().join("never").exists());
        }
    }
}

fn bare_text(reply: &Value) -> &str {
    reply["error"]["text"].as_str().expect("a text")
}

#[test]
fn what_is_no_login_is_told_and_counts_for_nothing() {
    let guarded = Guarded::start("alice secret\n", &["--attempts", "1"]);
    for ip in FAMILIES {
        let mut talk = Talk::new(&guarded, ip, false);
        for (request, code) in [
            (json!({"op": "login", "id": 1}), "bad-arguments"),
            (json!({"op": "login", "user": 7, "id": 1}), "bad-arguments"),
            (json!({"op": "login", "user": "../x", "password": "secret", "id": 1}), "bad-name"),
            (json!({"op": "login", "user": "alice", "password": ["x"], "id": 1}), "bad-arguments"),
            (json!({"op": "login", "user": "alice", "password": "secret"}), "bad-arguments"),
            (
                json!({"op": "login", "user": "alice", "password": "x".repeat(1025), "id": 1}),
                "bad-arguments",
            ),
            (json!({"op": "login", "user": "alice", "password": null, "id": 1}), "login-required"),
        ] {
            let reply = talk.ask(request.clone());
            assert_eq!((&reply["error"]["code"], &reply["errorcode"]), (&json!(code), &json!(2)));
            assert!(!reply.to_string().contains("secret"), "{reply}");
        }
        assert_eq!(talk.login("alice", "secret")["user"], "alice");
    }
}
