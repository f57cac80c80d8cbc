//! A small vocabulary: bytes in, replies, effects and close reasons out.

#![allow(dead_code, reason = "every test takes what it needs")]

use std::collections::{BTreeMap, BTreeSet};

use sixfour::{
    hub::{
        CloseReason, ConnectionId, Effect, Hub, Input, OperationId, Piece, SessionId, Time,
        Verdict,
        admission::{Mode, Origin, Owner, Policy},
        rights::Rights,
    },
    limits::Limits,
    wire::{
        Name,
        control::HelloBody,
        frame::{self, Frame, client},
    },
};

/// A hub, and sockets that take everything at once unless they are stuck.
pub struct Table {
    pub hub: Hub,
    pub now: u64,
    heard: BTreeMap<ConnectionId, Vec<u8>>,
    closed: BTreeMap<ConnectionId, CloseReason>,
    stuck: BTreeSet<ConnectionId>,
    /// The sessions of all connections that ever were.
    sessions: BTreeMap<SessionId, ConnectionId>,
    forgotten: BTreeSet<SessionId>,
    /// What is to be done, but for flushing and closing.
    pub effects: Vec<Effect>,
}

impl Table {
    pub fn new() -> Table {
        Table::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Table {
        Table::with_policy(limits, Policy { mode: Mode::Protected, plaintext: false })
    }

    /// One at which these users log in with passwords, and which blocks a name after so many
    /// failures.
    pub fn with_users(limits: Limits, attempts: u8, users: &[(&str, Rights)]) -> Table {
        let mode = Mode::Credentials { grant: Rights::NONE, attempts };
        let mut table = Table::with_policy(limits, Policy { mode, plaintext: false });
        table.set_users(users, &[]);
        table
    }

    pub fn with_policy(limits: Limits, policy: Policy) -> Table {
        Table {
            hub: Hub::new(limits, [1, 2], policy),
            now: 0,
            heard: BTreeMap::new(),
            closed: BTreeMap::new(),
            stuck: BTreeSet::new(),
            sessions: BTreeMap::new(),
            forgotten: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    pub fn open(&mut self) -> ConnectionId {
        self.open_from("[::1]:9")
    }

    pub fn open_from(&mut self, address: &str) -> ConnectionId {
        self.open_as(address, Owner::Ours)
    }

    pub fn open_as(&mut self, address: &str, owner: Owner) -> ConnectionId {
        let origin = Origin::new(address.parse().expect("an address"), owner);
        let opened = self.hub.open(Time(self.now), origin);
        self.take_effects();
        let id = opened.expect("there is room");
        self.sessions.insert(self.hub.session_at(id).expect("it was just opened"), id);
        id
    }

    /// The session of a connection, also where both have gone.
    pub fn session(&self, id: ConnectionId) -> SessionId {
        let session = self.sessions.iter().find(|(_, connection)| **connection == id);
        *session.expect("it was opened here").0
    }

    pub fn set_users(&mut self, users: &[(&str, Rights)], changed: &[&str]) {
        let name = |text: &str| Name::parse(text).expect("a name");
        let accounts: Vec<_> = users.iter().map(|(text, rights)| (name(text), *rights)).collect();
        let changed: Vec<_> = changed.iter().map(|text| name(text)).collect();
        self.input(Input::Accounts { accounts: &accounts, changed: &changed });
    }

    /// Those whose password is to be checked, and what they gave, since it was asked last.
    pub fn checks(&mut self) -> Vec<(ConnectionId, String, String)> {
        let effects = std::mem::take(&mut self.effects);
        let mut checks = Vec::new();
        for effect in effects {
            match effect {
                Effect::Verify { session, name, password } => {
                    let id = self.sessions[&session];
                    checks.push((id, name.to_string(), password.reveal().to_owned()));
                }
                other => self.effects.push(other),
            }
        }
        checks
    }

    /// The one check that is asked for ends like this; what the session hears then.
    pub fn check(&mut self, verdict: Verdict) -> String {
        let checks = self.checks();
        let [(id, ..)] = &checks[..] else { panic!("not one check but {checks:?}") };
        self.verified(*id, verdict)
    }

    pub fn verified(&mut self, id: ConnectionId, verdict: Verdict) -> String {
        let session = self.session(id);
        self.input(Input::Verified { session, verdict });
        self.heard(id)
    }

    /// Somebody with lines.
    pub fn line(&mut self, name: &str) -> ConnectionId {
        let id = self.open();
        let welcome = self.say(id, format!("user {name}\n"));
        assert_eq!(welcome, format!("welcome {name}\n"));
        id
    }

    /// Somebody with frames.
    pub fn frame(&mut self, name: &str) -> ConnectionId {
        let id = self.open();
        self.input(Input::Bytes { connection: id, bytes: &frame::MAGIC });
        self.input(Input::Bytes { connection: id, bytes: &hello(name) });
        assert_eq!(self.kinds(id), [frame::server::WELCOME]);
        id
    }

    /// Bytes in; what the peer hears since it was asked last.
    pub fn say(&mut self, id: ConnectionId, bytes: impl AsRef<[u8]>) -> String {
        self.input(Input::Bytes { connection: id, bytes: bytes.as_ref() });
        self.heard(id)
    }

    /// A frame in; the kinds of the frames that are heard.
    pub fn send(&mut self, id: ConnectionId, kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
        let bytes = frame_of(kind, number, body);
        self.input(Input::Bytes { connection: id, bytes: &bytes });
        self.kinds(id)
    }

    pub fn heard(&mut self, id: ConnectionId) -> String {
        String::from_utf8_lossy(&self.heard_bytes(id)).into_owned()
    }

    /// The same as bytes.
    pub fn heard_bytes(&mut self, id: ConnectionId) -> Vec<u8> {
        self.heard.remove(&id).unwrap_or_default()
    }

    /// The kinds of the frames heard since it was asked last.
    pub fn kinds(&mut self, id: ConnectionId) -> Vec<u8> {
        let bytes = self.heard.remove(&id).unwrap_or_default();
        let (mut rest, mut kinds) = (&bytes[..], Vec::new());
        while let Some(frame) = Frame::split(rest).expect("good frames") {
            kinds.push(frame.kind);
            rest = &rest[frame.length()..];
        }
        assert!(rest.is_empty(), "whole frames");
        kinds
    }

    /// What these have heard is of no account.
    pub fn forget<const COUNT: usize>(&mut self, ids: [ConnectionId; COUNT]) {
        ids.iter().for_each(|id| drop(self.heard.remove(id)));
    }

    /// Why the session is over, if it is.
    pub fn closed(&self, id: ConnectionId) -> Option<CloseReason> {
        self.closed.get(&id).copied()
    }

    /// From now on the socket takes nothing.
    pub fn get_stuck(&mut self, id: ConnectionId) {
        self.stuck.insert(id);
    }

    pub fn get_unstuck(&mut self, id: ConnectionId) {
        self.stuck.remove(&id);
        self.write(id);
        self.take_effects();
    }

    /// The time comes, as late as nothing else happens.
    pub fn at(&mut self, milliseconds: u64) {
        self.now = milliseconds;
        self.input(Input::Tick);
    }

    pub fn input(&mut self, input: Input<'_>) {
        self.hub.handle(Time(self.now), input);
        self.take_effects();
    }

    /// The operation that was started last.
    pub fn started(&mut self) -> OperationId {
        let is_start = |effect: &Effect| matches!(effect, Effect::Start { .. });
        let at = self.effects.iter().rposition(is_start).expect("something was started");
        match self.effects.remove(at) {
            Effect::Start { operation, .. } => operation,
            _ => unreachable!("it was looked for"),
        }
    }

    fn take_effects(&mut self) {
        self.hub.check_invariants();
        let mut to_write = Vec::new();
        while let Some(effect) = self.hub.poll_effect() {
            match effect {
                Effect::Flush { connection } => to_write.push(connection),
                Effect::Close { connection, reason } => {
                    assert_eq!(self.closed.insert(connection, reason), None, "closed twice");
                }
                Effect::Forget { session } => {
                    assert!(self.forgotten.insert(session), "a session has ended twice");
                }
                other => self.effects.push(other),
            }
        }
        to_write.into_iter().for_each(|id| self.write(id));
    }

    fn write(&mut self, session: ConnectionId) {
        while let Some(piece) = self.hub.piece(session) {
            let count = match piece {
                _ if self.stuck.contains(&session) => 0,
                Piece::Bytes { bytes, .. } => {
                    self.heard.entry(session).or_default().extend(bytes);
                    bytes.len()
                }
                Piece::File(piece) => {
                    let heard = self.heard.entry(session).or_default();
                    heard.resize(heard.len() + piece.length, b'F');
                    piece.length
                }
            };
            self.hub.handle(Time(self.now), Input::Sent { connection: session, count });
            self.take_effects();
            if count == 0 {
                return;
            }
        }
    }
}

pub fn frame_of(kind: u8, number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put(&mut out, kind, number, body);
    out
}

pub fn hello(name: &str) -> Vec<u8> {
    hello_with(name, None)
}

pub fn hello_with(name: &str, password: Option<&str>) -> Vec<u8> {
    let (user, password) = (name.into(), password.map(Into::into));
    let hello = HelloBody { version: 1, user, password, capabilities: vec![] };
    let mut out = Vec::new();
    frame::put_json(&mut out, client::HELLO, 0, &hello);
    out
}

pub fn message(tag: u32, to: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_message(&mut out, client::MESSAGE, tag, to.as_bytes(), text);
    out
}
