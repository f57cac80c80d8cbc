//! Two honest peers among hostile ones: alice with frames and bob with lines.

use std::collections::BTreeMap;

use sixfour::{
    hub::{
        ConnectionId, Input, Piece, Time, Verdict,
        admission::{Origin, Owner},
    },
    wire::frame::{self, Frame, client, server},
};

use super::Riot;
use crate::words::Dice;

#[derive(Default)]
pub struct Witnesses {
    alice: Option<ConnectionId>,
    bob: Option<ConnectionId>,
    has_passwords: bool,
    pub to_write: Vec<ConnectionId>,
    heard: BTreeMap<ConnectionId, Vec<u8>>,
    tag: u32,
}

impl Witnesses {
    pub fn has(&self, id: ConnectionId) -> bool {
        [self.alice, self.bob].contains(&Some(id))
    }

    pub fn have_passwords(&self) -> bool {
        self.has_passwords
    }

    pub fn forget(&mut self, id: ConnectionId) {
        for own in [&mut self.alice, &mut self.bob] {
            *own = own.filter(|own| *own != id);
        }
    }
}

impl<D: Dice> Riot<D> {
    pub(super) fn greet_honest(&mut self, has_passwords: bool) {
        self.honest.has_passwords = has_passwords;
        let mut ids = Vec::new();
        for address in ["[::1]:1", "127.0.0.1:1"] {
            let origin = Origin::new(address.parse().expect("an address"), Owner::Ours);
            ids.push(self.hub.open(Time(self.now), origin).expect("there is room"));
        }
        (self.honest.alice, self.honest.bob) = (Some(ids[0]), Some(ids[1]));
        let password = if has_passwords { ",\"password\":\"p\"" } else { "" };
        let body = format!(r#"{{"version":1,"user":"alice"{password}}}"#);
        let mut hello = frame::MAGIC.to_vec();
        frame::put(&mut hello, client::HELLO, 0, body.as_bytes());
        self.input(Input::Bytes { connection: ids[0], bytes: &hello });
        let line = if has_passwords { "user bob p\n" } else { "user bob\n" };
        self.input(Input::Bytes { connection: ids[1], bytes: line.as_bytes() });
        for (session, _) in std::mem::take(&mut self.checks) {
            self.input(Input::Verified { session, verdict: Verdict::Right });
        }
        assert_eq!(self.frames_for_alice()[0].0, server::WELCOME);
        assert_eq!(self.text_for_bob(), "welcome bob\n");
    }

    /// Their sockets take everything at once.
    pub(super) fn hear_honest(&mut self) {
        while let Some(id) = self.honest.to_write.pop() {
            while let Some(piece) = self.hub.piece(id) {
                let Piece::Bytes { bytes, .. } = piece else { panic!("they ask for no files") };
                let count = bytes.len();
                self.honest.heard.entry(id).or_default().extend_from_slice(bytes);
                self.hub.handle(Time(self.now), Input::Sent { connection: id, count });
                self.take_effects();
            }
        }
    }

    fn frames_for_alice(&mut self) -> Vec<(u8, u32, Vec<u8>)> {
        let Some(alice) = self.honest.alice else { return Vec::new() };
        let bytes = self.honest.heard.remove(&alice).unwrap_or_default();
        let (mut rest, mut frames) = (&bytes[..], Vec::new());
        while let Some(frame) = Frame::split(rest).expect("good frames") {
            frames.push((frame.kind, frame.number, frame.body.to_vec()));
            rest = &rest[frame.length()..];
        }
        assert!(rest.is_empty(), "whole frames");
        frames
    }

    fn text_for_bob(&mut self) -> String {
        let Some(bob) = self.honest.bob else { return String::new() };
        String::from_utf8(self.honest.heard.remove(&bob).unwrap_or_default()).expect("text")
    }

    fn put(&mut self, kind: u8, tag: u32, body: &[u8]) {
        let Some(session) = self.honest.alice else { return };
        let mut bytes = Vec::new();
        frame::put(&mut bytes, kind, tag, body);
        assert!(self.hub.wants_input(session), "alice may speak");
        self.input(Input::Bytes { connection: session, bytes: &bytes });
    }

    fn line(&mut self, line: &str) {
        let Some(session) = self.honest.bob else { return };
        assert!(self.hub.wants_input(session), "bob may speak");
        self.input(Input::Bytes { connection: session, bytes: line.as_bytes() });
    }

    /// Pings are answered, and lines are heard.
    pub(super) fn say_that_honest_are_there(&mut self) {
        self.put(client::PONG, 0, b"");
    }

    /// They ask for something, and get what they have asked for.
    pub(super) fn be_honest(&mut self) {
        if self.honest.alice.is_none() || self.honest.bob.is_none() || self.stopped {
            return;
        }
        drop((self.frames_for_alice(), self.text_for_bob()));
        self.honest.tag = self.honest.tag % 1_000_000 + 1;
        let tag = self.honest.tag;
        match self.dice.below(3) {
            0 => {
                self.put(client::REQUEST, tag, br#"{"op":"echo","text":"here"}"#);
                let heard = self.frames_for_alice();
                let own = |it: &&(u8, u32, Vec<u8>)| it.1 == tag;
                let kinds: Vec<u8> = heard.iter().filter(own).map(|it| it.0).collect();
                assert_eq!(kinds, [server::DETAIL, server::END]);
                self.line("echo there\n");
                assert!(self.text_for_bob().contains("there\n"));
                self.saw("honest echo");
            }
            1 => {
                let mut message = Vec::new();
                let text = format!("letter {tag}.");
                frame::put_message(&mut message, client::MESSAGE, tag, b"bob", text.as_str());
                let Some(session) = self.honest.alice else { return };
                self.input(Input::Bytes { connection: session, bytes: &message });
                let heard = self.text_for_bob();
                assert!(heard.contains(&text), "bob has heard {heard:?}");
                self.saw("honest message");
            }
            _ => self.pass_a_file(tag),
        }
    }

    /// From alice to bob, as it is.
    fn pass_a_file(&mut self, tag: u32) {
        let content = format!("content {tag}.");
        let size = content.len();
        let offer = format!(r#"{{"op":"send","to":"bob","name":"f","size":{size}}}"#);
        self.put(client::REQUEST, tag, offer.as_bytes());
        let heard = self.text_for_bob();
        let offer = heard.lines().find_map(|line| line.strip_prefix("offer "));
        let is_alice = |offer: &&str| offer.split(' ').nth(1) == Some("alice");
        let Some(offer) = offer.filter(is_alice) else {
            // There are bounds, and others have used them up.
            let end = self.frames_for_alice().into_iter().find(|it| it.1 == tag);
            let body = String::from_utf8(end.expect("an answer").2).expect("JSON");
            let codes = ["too-many", "peer-busy", "busy"];
            let is_full = codes.iter().any(|code| body.contains(&format!("\"{code}\"")));
            assert!(is_full, "{body}");
            return self.saw("honest and refused");
        };
        let number = offer.split(' ').next().expect("a number").to_owned();
        self.line(&format!("accept {number}\n"));
        let heard = self.text_for_bob();
        if !heard.contains(&format!("file {size} f\n")) {
            assert!(heard.contains("error busy") || heard.contains("error too-many"), "{heard}");
            self.put(client::CANCEL, tag, b"");
            return self.saw("honest and refused");
        }
        self.put(client::DATA, tag, content.as_bytes());
        self.put(client::END, tag, b"");
        assert!(self.text_for_bob().starts_with(&content));
        let end = self.frames_for_alice().pop().expect("an end");
        assert!(String::from_utf8_lossy(&end.2).contains("delivered"), "{end:?}");
        self.saw("honest file");
    }
}
