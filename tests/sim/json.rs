//! A peer that speaks JSON: one object a request, and exactly one that answers it.

use std::collections::{BTreeMap, BTreeSet};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sixfour::wire::{
    ErrorCode, Form, Stream,
    control::OutcomeBody,
    event::{Ended, Witness},
};

use crate::{
    LIMITS,
    call::{Asked, Call},
    jobs::{What, fact, input_byte, output_stream},
    parcels::Depot,
    peer::{Peer, name_of, number_of},
    post::Office,
    rng::Rng,
};

/// What a peer with JSON has asked besides its calls, and is owed one reply for.
#[derive(Default)]
pub struct Owed {
    /// Messages, and 0 or their number where their delivery is to be told.
    letters: BTreeMap<u32, u32>,
    /// Logins, pings, cancels and goodbyes.
    others: BTreeSet<u32>,
    /// Objects that are none.
    broken: usize,
}

impl Owed {
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty() && self.others.is_empty() && self.broken == 0
    }
}

impl Peer {
    fn object(&mut self, object: &Value) {
        // The first byte of all chooses the dialect.
        let spaces = [&b"\n"[..], b"", b" \r\n\t"][self.tag as usize % 3];
        self.to_hub.extend(spaces);
        self.to_hub.extend(object.to_string().as_bytes());
    }

    fn other(&mut self, mut object: Value) {
        self.tag += 1;
        object["id"] = self.tag.into();
        self.owed.others.insert(self.tag);
        self.object(&object);
    }

    pub fn greet_json(&mut self, password: Option<String>) {
        let user = name_of(self.name);
        self.other(json!({"op": "login", "user": user.as_str(), "password": password}));
    }

    /// The tag is 0 where no receipt is wanted.
    pub fn write_json_letter(&mut self, tag: u32, to: &[String], text: &str) {
        if tag == 0 {
            self.tag += 1;
        }
        let id = self.tag;
        self.owed.letters.insert(id, tag);
        let to = if id.is_multiple_of(2) { json!(to) } else { json!(to.join(",")) };
        let message =
            json!({"op": "message", "to": to, "text": text, "id": id, "receipt": tag != 0});
        self.object(&message);
    }

    pub fn send_json_call(&mut self, call: &mut Call, interval_ms: u32) {
        let id = call.tag;
        let words = match &call.asked {
            Asked::Work(what) => what.words(),
            _ => String::new(),
        };
        let object = match &call.asked {
            Asked::Work(What::Folder { .. }) => json!({"op": "ls", "path": words, "id": id}),
            Asked::Work(What::Repeat) => {
                call.input_sent = 7 * id as usize % 900;
                call.input_ended = true;
                let input: Vec<u8> = (0..call.input_sent).map(input_byte).collect();
                json!({"method": words, "id": id, "stdin": {"base64": STANDARD.encode(input)}})
            }
            Asked::Work(what) if what.is_command() => {
                let prefix = ["", "dos:", "PowerShell: ", "LINUX:"][id as usize % 4];
                let command = format!("{prefix}{words}");
                json!({"command": command, "id": id, "timeout_ms": call.timeout_ms})
            }
            Asked::Work(What::Question { .. }) => {
                json!({"op": "info", "interval_ms": interval_ms, "id": id})
            }
            Asked::Work(_) => json!({"op": "download", "id": id, "path": words}),
            Asked::Who => json!({"op": "who", "id": id}),
            Asked::Echo(text) => json!({"id": id, "text": text, "op": "echo"}),
            Asked::Help => json!({"op": "help", "id": id}),
            Asked::Clear => json!({"op": "clear", "id": id}),
            Asked::Reset => json!({"op": "reset", "id": id}),
            Asked::Kill => json!({"op": "kill", "id": id}),
            other => unreachable!("{other:?} is asked for elsewhere"),
        };
        self.object(&object);
    }

    pub fn offer_json(&mut self, tag: u32, to: &str, name: &str, content: &[u8]) {
        let data = json!({"base64": STANDARD.encode(content)});
        self.object(&json!({"op": "send", "id": tag, "to": to, "name": name, "data": data}));
    }

    pub fn accept_json(&mut self, tag: u32, offer: u32, form: Form) {
        self.object(&json!({"op": "accept", "id": tag, "offer": offer, "form": form}));
    }

    pub fn refuse_json(&mut self, tag: u32, offer: u32, reason: Option<&str>) {
        self.object(&json!({"op": "refuse", "id": tag, "offer": offer, "reason": reason}));
    }

    pub fn go_on_json(&mut self, rng: &mut Rng) {
        let at = rng.range(0, self.calls.len() - 1);
        let call = &mut self.calls[at];
        if !call.cancelled && rng.percent(15) {
            call.cancelled = true;
            let target = call.tag;
            self.other(json!({"op": "cancel", "target": target}));
        }
    }

    /// Asks whether the server is there, or says what is no object though its end can be told.
    pub fn ping_json(&mut self) {
        let words = ["{\"a\":}", "{,}", "{\"id\":1,\"id\":2}", "{\"}\":\"\\x\"}", "{]}"];
        match words.get(self.tag as usize % (2 * words.len())) {
            Some(words) => {
                self.owed.broken += 1;
                self.to_hub.extend(words.as_bytes());
                self.tag += 1;
            }
            None => self.other(json!({"op": "ping"})),
        }
    }

    pub fn leave_json(&mut self) {
        let op = ["quit", "disconnect"][self.tag as usize % 2];
        self.other(json!({ "op": op }));
    }

    pub fn hear_object(&mut self, bytes: &[u8], office: &mut Office) -> usize {
        // Spaces between objects ask whether anybody reads.
        let spaces = bytes.iter().take_while(|byte| **byte == b' ').count();
        if spaces > 0 {
            return spaces;
        }
        let mut objects = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
        let object = match objects.next() {
            Some(Ok(object)) => object,
            Some(Err(error)) if error.is_eof() => return 0,
            other => panic!("no object: {other:?} in {:?}", String::from_utf8_lossy(bytes)),
        };
        let used = objects.byte_offset();
        match bytes.get(used) {
            None => return 0,
            Some(end) => assert_eq!(*end, b'\n', "every object ends its line"),
        }
        match object["event"].as_str() {
            Some("message") => {
                let from = number_of(object["from"].as_str().expect("a name"));
                let text = object["text"].as_str().expect("a text");
                office.receive((self.name, from), text, false, &mut self.last);
            }
            Some("delivered") => {
                let to = number_of(object["to"].as_str().expect("a name"));
                office.deliver(self.life, id_of(&object).expect("it has an id"), to);
            }
            Some("error") => {
                let (code, text) = error_of(&object).expect("an error");
                self.hear_error(id_of(&object).unwrap_or(0), code, &text, office);
            }
            Some("goodbye") => self.said_goodbye = true,
            Some("content") => {
                let call = self.find(id_of(&object).expect("it has an id"));
                assert_eq!(object["offset"], call.got, "the next part comes next");
                call.announced = true;
                call.take_data(&bytes_of(&object["content"]), None);
                office.met.insert("content ahead");
            }
            Some("offer" | "offer-withdrawn" | "accepted") => {
                let text = object.to_string();
                let detail = serde_json::from_str(&text).expect("an event as frames have it");
                assert!(self.hear_of_parcel(id_of(&object).unwrap_or(0), &detail));
            }
            Some(other) => panic!("an event {other}"),
            None => self.hear_reply(&object, office),
        }
        used + 1
    }

    fn hear_reply(&mut self, reply: &Value, office: &mut Office) {
        for member in ["id", "result", "stdout", "stderr", "errorcode"] {
            assert!(reply.get(member).is_some(), "a reply has {member}: {reply}");
        }
        let Some(id) = id_of(reply) else {
            assert_eq!(reply["errorcode"], 1, "{reply}");
            self.owed.broken -= 1;
            return;
        };
        if let Some(tag) = self.owed.letters.remove(&id) {
            return self.hear_posted(tag, reply, office);
        }
        if self.owed.others.remove(&id) {
            self.welcomed |= reply.get("user").is_some();
            self.said_goodbye |= self.leaving && self.owed.others.is_empty();
            if let Some((code, text)) = error_of(reply) {
                self.hear_refused_login(code, &text);
            }
            return;
        }
        let at = self.calls.iter().position(|call| call.tag == id);
        let at = at.expect("every request has one reply");
        if let Asked::Send(_) | Asked::Take(_) | Asked::Refuse(_) = self.calls[at].asked {
            self.judge_missing_offer(id, &outcome_of(reply));
        }
        let mut call = self.calls.remove(at).expect("found");
        judge(&mut call, reply, &mut office.depot);
        if reply.get("truncated").is_some() {
            office.met.insert("truncated reply");
        }
    }

    fn hear_refused_login(&mut self, code: ErrorCode, text: &str) {
        assert!(!self.welcomed, "{code}: {text}");
        match code {
            ErrorCode::NameTaken => return self.leave(),
            ErrorCode::Busy => self.refused_logins.push("busy login"),
            ErrorCode::LoginRequired | ErrorCode::LoginFailed | ErrorCode::Blocked => {
                self.refused_logins.push(code.as_str());
            }
            other => panic!("nobody asked for this: {other}: {text}"),
        }
        self.is_refused = true;
    }

    /// What has become of a letter at once: errors name those who did not get it.
    fn hear_posted(&mut self, tag: u32, reply: &Value, office: &mut Office) {
        let errors = reply.get("errors").and_then(Value::as_array).cloned();
        let errors = errors.unwrap_or_else(|| reply.get("error").cloned().into_iter().collect());
        assert_eq!(reply["errorcode"] == 0, errors.is_empty(), "{reply}");
        for error in errors {
            let (code, text) = error_of(&json!({ "error": error })).expect("an error");
            match code {
                ErrorCode::TooMany => office.refuse_all(self.life, tag),
                _ => self.hear_error(tag, code, &text, office),
            }
        }
    }
}

fn id_of(object: &Value) -> Option<u32> {
    object.get("id")?.as_u64().map(|id| id as u32)
}

fn error_of(object: &Value) -> Option<(ErrorCode, String)> {
    let error = object.get("error")?;
    let code = serde_json::from_value(error["code"].clone()).expect("a known code");
    Some((code, error["text"].as_str().expect("a text").to_owned()))
}

fn bytes_of(value: &Value) -> Vec<u8> {
    match (value.as_str(), value["base64"].as_str()) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(text)) => STANDARD.decode(text).expect("base64"),
        (None, None) => panic!("neither text nor bytes: {value}"),
    }
}

/// Judges the reply to a call as the same answer in frames would be judged.
fn judge(call: &mut Call, reply: &Value, depot: &mut Depot) {
    let (stdout, stderr) = (bytes_of(&reply["stdout"]), bytes_of(&reply["stderr"]));
    if let Asked::Work(What::Output { .. }) = call.asked {
        take_both(call, &stdout, &stderr);
    } else if !stdout.is_empty() {
        call.take_data(&stdout, Some(Stream::Stdout));
    }
    if let Some(content) = reply.get("content") {
        call.announced = true;
        call.take_data(&bytes_of(content), None);
    }
    if let (Asked::Take(parcel), Some(size)) = (&call.asked, reply.get("size")) {
        assert_eq!(*size, parcel.size);
        call.announced = true;
    }
    for (list, is_asked) in [
        ("entries", matches!(call.asked, Asked::Work(What::Folder { .. }))),
        ("users", call.asked == Asked::Who),
    ] {
        let length = reply.get(list).and_then(Value::as_array).map_or(0, Vec::len);
        assert!(is_asked || length == 0, "{reply}");
        call.got += length;
    }
    if let (Asked::Echo(text), Some(said)) = (&call.asked, reply.get("text")) {
        assert_eq!(said, text);
    }
    if let Asked::Work(What::Question { .. }) = call.asked {
        take_facts(call, reply);
    }
    if reply.get("truncated").is_some() {
        assert_eq!(reply["errorcode"], 4);
        return assert!(call.got <= LIMITS.reply_max_bytes);
    }
    let outcome = outcome_of(reply);
    let is_good = match &outcome {
        OutcomeBody::Failed { .. } => false,
        OutcomeBody::Signal { because, .. } => *because != Some(Ended::TimedOut),
        _ => true,
    };
    assert_eq!(reply["errorcode"] == 0, is_good, "{reply}");
    call.judge_end(&outcome, depot);
}

/// The bytes of both outputs in the order in which the command wrote them.
fn take_both(call: &mut Call, stdout: &[u8], stderr: &[u8]) {
    let (mut stdout, mut stderr) = (stdout.iter(), stderr.iter());
    loop {
        let stream = output_stream(call.got);
        let next = if stream == Stream::Stdout { stdout.next() } else { stderr.next() };
        let Some(byte) = next else { break };
        call.take_data(&[*byte], Some(stream));
    }
    assert!(stdout.next().is_none() && stderr.next().is_none(), "bytes are missing");
}

/// The pieces of an answer: texts and objects take turns.
fn take_facts(call: &mut Call, reply: &Value) {
    let texts = reply.get("text").and_then(Value::as_str).into_iter().flat_map(str::lines);
    let objects = match (reply.get("object"), reply.get("objects")) {
        (Some(object), None) => vec![object.clone()],
        (None, Some(objects)) => objects.as_array().expect("a list").clone(),
        (None, None) => Vec::new(),
        both => panic!("{both:?}"),
    };
    let mut objects = objects.iter().map(|object| object["fact"].as_str().expect("a fact"));
    for text in texts {
        assert_eq!(text, fact(call.got));
        call.got += 1;
        if let Some(text) = objects.next() {
            assert_eq!(text, fact(call.got));
            call.got += 1;
        }
    }
    assert_eq!(objects.next(), None);
}

fn outcome_of(reply: &Value) -> OutcomeBody<'static> {
    if let Some((code, text)) = error_of(reply) {
        assert!(reply["result"].is_null());
        return OutcomeBody::Failed { code, text: text.into() };
    }
    if let Some(by) = reply.get("by") {
        assert_eq!(by, "connection");
        return OutcomeBody::Delivered { by: Witness::Connection };
    }
    if let Some(hash) = reply["hash"].as_str() {
        return OutcomeBody::Sent { hash: hash.to_owned().into() };
    }
    if let Some(count) = reply["count"].as_u64() {
        return OutcomeBody::Counted { count };
    }
    if let Some(number) = reply["signal"].as_i64() {
        assert_eq!(reply["result"], 128 + number);
        let because = serde_json::from_value(reply["because"].clone()).expect("a reason or null");
        return OutcomeBody::Signal { number: number as i32, because };
    }
    match reply["result"].as_u64() {
        Some(code) => OutcomeBody::Exit { code: code as u8, directory: None },
        None => OutcomeBody::Done,
    }
}
