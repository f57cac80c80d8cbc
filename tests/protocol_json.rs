//! PROTOCOL.md's section on JSON, tried on a real server and held against the schema.
//!
//! Blocks marked `json exchange` are connections: `> ` before what is sent, then all that comes.
//! Where the mark ends with `bad`, what is sent need not be a good request. Blocks marked
//! `json users` have several connections, of users who have logged in: `NAME> ` and `NAME< `.
//! `json answer` hold objects of the server that depend on more than one connection.

mod process;
#[path = "process/schema.rs"]
mod schema;

use std::{collections::BTreeMap, fs};

use process::{FAMILIES, Json, Server};
use schema::{assert_valid, schema};
use serde_json::json;
use sixfour::wire::{ErrorCode, json::reply::errorcode, verbs::VERBS};

fn document() -> String {
    fs::read_to_string("PROTOCOL.md").expect("PROTOCOL.md is there")
}

/// The fenced blocks with this mark, each with the number of its first line.
fn blocks(mark: &str) -> Vec<(usize, String)> {
    let (text, fence) = (document(), format!("```{mark}"));
    let lines: Vec<&str> = text.lines().collect();
    let starts = lines.iter().enumerate().filter(|(_, line)| **line == fence);
    let block = |(start, _): (usize, &&str)| {
        let body = lines[start + 1..].iter().take_while(|line| **line != "```");
        (start + 2, body.copied().collect::<Vec<_>>().join("\n"))
    };
    let blocks: Vec<(usize, String)> = starts.map(block).collect();
    assert!(!blocks.is_empty(), "PROTOCOL.md has no block marked {mark}");
    blocks
}

/// The shared folder of the examples, whose one file has the age that they show.
fn server() -> Server {
    let server = Server::start();
    fs::create_dir(server.path("docs")).expect("a folder of the test");
    server.put("docs/plan.txt", b"Hello, world\n");
    let file = fs::File::options().write(true).open(server.path("docs/plan.txt"));
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    file.and_then(|file| file.set_modified(time)).expect("a file of the test");
    server
}

#[test]
fn every_exchange_goes_as_the_document_says() {
    let server = server();
    let root = server.root().canonicalize().expect("it is there");
    let root = root.to_str().expect("text");
    let (requests, answers) = (schema("request"), schema("answer"));
    for (mark, is_good) in [("json exchange", true), ("json exchange bad", false)] {
        for (number, block) in blocks(mark) {
            let mut clients: Vec<Json> = FAMILIES.map(|ip| server.json(ip)).into();
            for (at, line) in block.lines().enumerate() {
                let place = format!("PROTOCOL.md:{}", number + at);
                if let Some(request) = line.strip_prefix("> ") {
                    if is_good {
                        let request = serde_json::from_str(request).expect(&place);
                        assert_valid(&requests, &request, &place);
                    }
                    clients[0].send_bytes(request.as_bytes());
                } else {
                    assert_valid(&answers, &serde_json::from_str(line).expect(&place), &place);
                    let heard = clients[0].next_text();
                    assert_eq!(heard.replace(root, "/srv/share"), line, "{place}");
                }
            }
            // Over the other family the whole block comes at once.
            let sent: String = block.lines().filter_map(|line| line.strip_prefix("> ")).collect();
            let wanted = block.lines().filter(|line| !line.starts_with("> ")).count();
            let mut other = clients.remove(1);
            if !sent.contains("\"login\"") {
                other.send_bytes(sent.as_bytes());
                other.half_close();
                assert_eq!(other.rest().len(), wanted, "PROTOCOL.md:{number}");
            }
        }
    }
    for (number, block) in blocks("json answer") {
        for (at, line) in block.lines().enumerate() {
            let place = format!("PROTOCOL.md:{}", number + at);
            assert_valid(&answers, &serde_json::from_str(line).expect(&place), &place);
        }
    }
}

/// Puts the time of the examples in the place of every other one.
fn with_times_of_examples(line: &str) -> String {
    let mut out = line.to_owned();
    for member in ["\"time\":\"", "\"since\":\""] {
        if let Some(at) = out.find(member) {
            let begin = at + member.len();
            let length = out[begin..].find('"').expect("a string ends");
            out.replace_range(begin..begin + length, "30 September 2022 10:31:13");
        }
    }
    out
}

#[test]
fn users_deal_with_each_other_as_the_document_says() {
    let (requests, answers) = (schema("request"), schema("answer"));
    for [first, second] in [FAMILIES, [FAMILIES[1], FAMILIES[0]]] {
        for (number, block) in blocks("json users") {
            let server = server();
            let mut users: BTreeMap<&str, Json> = BTreeMap::new();
            for line in block.lines() {
                let name = line.split(['>', '<']).next().expect("a name");
                let ip = if users.is_empty() { first } else { second };
                users.entry(name).or_insert_with(|| {
                    let mut user = server.json(ip);
                    user.login(name);
                    user
                });
            }
            for (at, line) in block.lines().enumerate() {
                let place = format!("PROTOCOL.md:{}", number + at);
                let (name, object) = line.split_once(' ').expect(&place);
                let value = serde_json::from_str(object).expect(&place);
                let user = users.get_mut(&name[..name.len() - 1]).expect(&place);
                if name.ends_with('>') {
                    assert_valid(&requests, &value, &place);
                    user.send_bytes(object.as_bytes());
                } else {
                    assert_valid(&answers, &value, &place);
                    let heard = with_times_of_examples(&user.next_text());
                    assert_eq!(heard.replace("127.0.0.1", "::1"), object, "{place}");
                }
            }
        }
    }
}

#[test]
fn the_schema_refuses_what_the_document_excludes() {
    let (requests, answers) = (schema("request"), schema("answer"));
    for bad in [
        json!({}),
        json!([]),
        json!({"method": "ls"}),
        json!({"id": 1}),
        json!({"id": [1], "method": "ls"}),
        json!({"id": 1, "method": ""}),
        json!({"id": 1, "method": 5}),
        json!({"id": 1, "method": "ls", "command": "ls"}),
        json!({"id": 1, "op": "fly"}),
        json!({"id": 1, "op": "message", "to": "bob"}),
        json!({"id": 1, "op": "login", "user": "../x"}),
        json!({"id": 1, "op": "download"}),
        json!({"id": 1, "op": "send", "to": "bob", "name": "x"}),
        json!({"id": 1, "op": "accept"}),
        json!({"id": 1, "op": "refuse", "offer": -1}),
        json!({"id": 1, "op": "edge.join", "udp_port": 65536}),
        json!({"id": 1, "op": "edge.upload", "file_id": 1}),
        json!({"id": 1, "op": "edge.compute", "file_id": 1, "operation": "sum"}),
        json!({"id": 1, "op": "edge.delete", "request_id": "-"}),
        json!({"id": 1, "method": "ls", "timeout_ms": -1}),
        json!({"id": 1, "method": "ls", "stdin": {"base64": "!"}}),
    ] {
        assert!(!requests.is_valid(&bad), "{bad}");
    }
    let good = json!({"id": 1, "result": 0, "stdout": "", "stderr": "", "errorcode": 0});
    assert!(answers.is_valid(&good));
    for member in ["id", "result", "stdout", "stderr", "errorcode"] {
        let mut bad = good.clone();
        bad.as_object_mut().expect("an object").remove(member);
        assert!(!answers.is_valid(&bad), "{bad}");
    }
    for (member, value) in [
        ("result", json!("0")),
        ("result", json!(256)),
        ("errorcode", json!(5)),
        ("errorcode", json!(1)),
        ("errorcode", json!(3)),
        ("stdout", json!(null)),
        ("stdout", json!({"base64": "A"})),
        ("truncated", json!(true)),
        ("signal", json!(9)),
        ("error", json!({"code": "x", "text": "y"})),
        ("unheard_of", json!(1)),
    ] {
        let mut bad = good.clone();
        bad[member] = value;
        assert!(!answers.is_valid(&bad), "{bad}");
    }
}

#[test]
fn every_verb_has_its_op_in_the_document_and_in_the_schema() {
    let text = document();
    let section = text.split("\n## JSON\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let section = section.expect("there is a section on JSON");
    let schema = fs::read_to_string("protocol.schema.json").expect("the schema is there");
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let ops: String = rows.filter_map(|row| row.split(" | ").next()).collect();
    for entry in VERBS {
        // Some have another name among programs.
        let op = match entry.word {
            "user" => "login",
            "msg" => "message",
            "python" => "python-version",
            word => word.trim_end_matches(':'),
        };
        let is_there = match entry.word.ends_with(':') {
            true => section.contains(&format!("`{op}`")),
            false => ops.contains(&format!("`{op}`")),
        };
        assert!(is_there, "PROTOCOL.md: no row for {op}");
        assert!(schema.contains(&format!("\"{op}\"")), "the schema lacks {op}");
    }
}

/// The sentence that says which errors go with which number is that of the code.
#[test]
fn the_errors_have_the_numbers_that_the_document_gives_them() {
    let text = document();
    let (_, rest) = text.split_once("Of the [errors](#errors), ").expect("the sentence");
    let (sentence, _) = rest.split_once("all others with 2.").expect("the end of the sentence");
    let (ones, rest) = sentence.split_once("go with 1;").expect("a first part");
    let (threes, fours) = rest.split_once("goes with 3;").expect("two more");
    let rows = text.split("| code | means |\n|---|---|\n").nth(1).expect("the table of errors");
    let mut count = 0;
    for row in rows.lines().take_while(|line| line.starts_with("| `")) {
        let code = row.split('`').nth(1).expect("a code");
        let quoted = format!("`{code}`");
        let number = match [ones, threes, fours].map(|part| part.contains(&quoted)) {
            [true, false, false] => errorcode::PARSE_ERROR,
            [false, true, false] => errorcode::INVALID_COMMAND,
            [false, false, true] => errorcode::INTERNAL_ERROR,
            [false, false, false] => errorcode::INVALID_REQUEST,
            _ => panic!("{code} has two numbers"),
        };
        let code: ErrorCode = serde_json::from_value(json!(code)).expect("a known code");
        assert_eq!(code.errorcode(), number, "{code}");
        count += 1;
    }
    assert!(count >= 30, "only {count} errors");
}
