//! A scripted peer: what it says, and how it judges what it hears.

#[path = "hear.rs"]
mod hear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use sixfour::{
    hub::{CloseReason, ConnectionId},
    limits::INFO_INTERVAL_MS,
    wire::{
        self, Dialect, EdgeCall, ErrorCode, HostCall, Name, SharePath,
        control::{DetailBody, HelloBody},
        frame::{self, Said, client},
        host::{Interpreter, Question},
    },
};

use crate::{
    Chances, LIMITS,
    call::{Asked, CLEAR, Call},
    jobs::{What, exit_of, fact, input_byte, output_byte, pieces_of},
    json::Owed,
    parcels::{Depot, Parcel},
    post::Office,
    rng::Rng,
};

/// One peer, through all its connections.
pub struct Peer {
    /// The number in its name `p0`, `p1` ...
    pub name: usize,
    /// Which of all connections this is.
    pub life: u32,
    pub connection: Option<ConnectionId>,
    pub dialect: Dialect,
    /// It begins with something else than it should.
    pub is_stranger: bool,
    /// The kernel's buffers, each way.
    pub to_hub: VecDeque<u8>,
    pub to_peer: VecDeque<u8>,
    /// It has said its last byte; the shell has seen that.
    pub half_closed: bool,
    pub end_read: bool,
    /// The hub did not want its bytes; a resume must follow.
    pub parked: bool,
    /// The shell is to write; the kernel's buffer was full.
    pub to_write: bool,
    pub kernel_full: bool,
    /// It reads nothing; answers no ping; acknowledges nothing; grants nothing.
    pub stalled: bool,
    pub mute: bool,
    pub rude: bool,
    pub stingy: bool,
    pub welcomed: bool,
    /// It has said goodbye; something that no dialect allows.
    pub leaving: bool,
    pub broken: bool,
    /// When its bytes last came to the hub; when the kernel last took some of the hub's.
    pub heard: u64,
    pub taken: u64,
    /// When the kernel first refused some of them.
    pub refused: u64,
    /// Pings heard since its bytes last came to the hub.
    pub pings: usize,
    pub opened: u64,
    /// Where the server asks for it; how often it says another one, in percent.
    pub password: Option<String>,
    pub guesses: usize,
    /// Its login was refused, and it has not tried again.
    pub is_refused: bool,
    /// The names of the errors with which logins were refused.
    pub refused_logins: Vec<&'static str>,
    /// Asked and not yet answered.
    pub calls: VecDeque<Call>,
    pub last: BTreeMap<usize, usize>,
    /// JSON: what else is not answered.
    pub owed: Owed,
    /// What it was offered and has not answered, and the last number that was given.
    pub offers: Vec<Parcel>,
    pub last_offer: u32,
    /// Offers that are not to be had any more.
    pub withdrawn: BTreeSet<u32>,
    pub tag: u32,
    pending: Vec<u8>,
    /// Serials that are not acknowledged, and credit that is not granted.
    unacknowledged: Vec<u32>,
    /// Lines: so much of the file at hand is still to come.
    file_left: usize,
    /// The last that came was the last byte of a file of another peer.
    took: bool,
    pub said_goodbye: bool,
    /// The output at hand breaks off: nothing but the reason may follow.
    is_cut: bool,
}

pub fn name_of(number: usize) -> Name {
    Name::parse(&format!("p{number}")).expect("a good name")
}

pub fn number_of(name: &str) -> usize {
    name[1..].parse().expect("names are p and a number")
}

impl Peer {
    pub fn new(name: usize, dialect: Dialect) -> Peer {
        Peer {
            name,
            life: 0,
            connection: None,
            dialect,
            is_stranger: false,
            to_hub: VecDeque::new(),
            to_peer: VecDeque::new(),
            half_closed: false,
            end_read: false,
            parked: false,
            to_write: false,
            kernel_full: false,
            stalled: false,
            mute: false,
            rude: false,
            stingy: false,
            welcomed: false,
            leaving: false,
            broken: false,
            heard: 0,
            taken: 0,
            refused: 0,
            pings: 0,
            opened: 0,
            password: None,
            guesses: 0,
            is_refused: false,
            refused_logins: Vec::new(),
            calls: VecDeque::new(),
            last: BTreeMap::new(),
            owed: Owed::default(),
            offers: Vec::new(),
            last_offer: 0,
            withdrawn: BTreeSet::new(),
            tag: 0,
            pending: Vec::new(),
            unacknowledged: Vec::new(),
            file_left: 0,
            took: false,
            said_goodbye: false,
            is_cut: false,
        }
    }

    /// Behind a file of announced size a line peer says nothing until that has its answer.
    pub fn awaits_answer(&self) -> bool {
        self.is_line() && self.calls.iter().any(|call| matches!(call.asked, Asked::Send(_)))
    }

    pub fn is_line(&self) -> bool {
        self.dialect == Dialect::Line
    }

    pub fn frame(&mut self, kind: u8, number: u32, body: &[u8]) {
        let mut out = Vec::new();
        frame::put(&mut out, kind, number, body);
        self.to_hub.extend(out);
    }

    pub fn json_frame(&mut self, kind: u8, number: u32, body: &wire::Call<'_>) {
        let mut out = Vec::new();
        frame::put_json(&mut out, kind, number, body);
        self.to_hub.extend(out);
    }

    pub fn next_tag(&mut self) -> u32 {
        self.tag += 1;
        self.tag
    }

    pub fn line(&mut self, line: &str) {
        self.to_hub.extend(line.as_bytes());
        self.to_hub.extend(if line.len().is_multiple_of(3) { &b"\r\n"[..] } else { b"\n" });
    }

    /// Strangers begin with what is not served, unless they come from far and are not anyway.
    pub fn greet(&mut self, rng: &mut Rng, is_far: bool) {
        if self.is_stranger && !(is_far && rng.percent(50)) {
            let words = [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01abc"];
            self.to_hub.extend(words[rng.range(0, 1)]);
        } else if self.is_line() {
            (0..rng.range(0, 2)).for_each(|_| self.to_hub.extend(b"\r\n"));
            self.say_who(rng);
        } else if self.dialect == Dialect::Json {
            self.say_who(rng);
        } else {
            self.to_hub.extend(frame::MAGIC);
            let user = format!("p{}", self.name).into();
            let password = self.say_password(rng).map(Into::into);
            let hello = HelloBody { version: 1, user, password, capabilities: vec![] };
            let mut out = Vec::new();
            frame::put_json(&mut out, client::HELLO, 0, &hello);
            self.to_hub.extend(out);
        }
    }

    /// The password, or none, or another one.
    fn say_password(&self, rng: &mut Rng) -> Option<String> {
        let password = self.password.clone()?;
        match rng.percent(self.guesses) {
            false => Some(password),
            true => rng.percent(80).then(|| format!("{password}?")),
        }
    }

    fn say_who(&mut self, rng: &mut Rng) {
        match self.say_password(rng) {
            password if self.dialect == Dialect::Json => self.greet_json(password),
            Some(password) => self.line(&format!("user p{} {password}", self.name)),
            None => self.line(&format!("user p{}", self.name)),
        }
    }

    /// Tries again after a refused login, gives up, or just stays.
    pub fn go_on_logging_in(&mut self, rng: &mut Rng) {
        if !std::mem::take(&mut self.is_refused) || self.leaving || self.half_closed {
            return;
        }
        match rng.range(0, 9) {
            0 => {}
            1 => self.leave(),
            _ => self.say_who(rng),
        }
    }

    /// Writes to some of the names; one of them belongs to nobody.
    pub fn write_letter(
        &mut self,
        rng: &mut Rng,
        office: &mut Office,
        names: usize,
        chances: &Chances,
    ) {
        let mut to = Vec::new();
        if !(chances.stars && rng.percent(5)) {
            match chances.favourite {
                Some(name) if rng.percent(90) => to.push(name),
                _ => to.push(rng.range(0, names)),
            }
            while rng.percent(20) {
                let more = rng.range(0, names);
                if !to.contains(&more) {
                    to.push(more);
                }
            }
        }
        let mut tag = 0;
        if !self.is_line() && rng.percent(50) {
            self.tag += 1;
            tag = self.tag;
        }
        let is_long = rng.percent(chances.long_letters);
        let from = (self.name, self.life);
        let text = office.write(from, &to, tag, names + 1, self.is_line(), is_long);
        let mut list: Vec<String> = to.iter().map(|name| format!("p{name}")).collect();
        if to.is_empty() {
            list.push("*".into());
        }
        let list = list.join(",");
        match self.dialect {
            Dialect::Line if rng.percent(50) => self.line(&format!("{text}| {list}")),
            Dialect::Line => self.line(&format!("msg {list} {text}")),
            Dialect::Json => {
                let names: Vec<String> = list.split(',').map(str::to_owned).collect();
                self.write_json_letter(tag, &names, &text);
            }
            Dialect::Frame => {
                let mut out = Vec::new();
                frame::put_message(&mut out, client::MESSAGE, tag, list.as_bytes(), text.as_str());
                self.to_hub.extend(out);
            }
        }
    }

    pub fn call(&mut self, rng: &mut Rng) {
        let size = if rng.percent(20) { rng.range(0, 9000) } else { rng.range(0, 900) };
        let interval_ms =
            if self.is_line() { INFO_INTERVAL_MS } else { rng.range(100, 120) as u32 };
        let asked = match rng.range(0, 14) {
            0..=2 => Asked::Work(What::File { size, shrinks: rng.percent(15) }),
            3 | 4 => Asked::Work(What::Output { total: size, seed: rng.range(0, 999) }),
            5 if !self.is_line() => Asked::Work(What::Repeat),
            6 if !self.is_line() => Asked::Work(What::Sleep),
            7 if self.dialect == Dialect::Frame => match rng.range(0, 2) {
                0 => Asked::Work(What::Talk),
                1 => Asked::Work(What::Fetch { size }),
                _ => Asked::Work(What::Keep),
            },
            5..=7 => Asked::Work(What::Folder { entries: rng.range(0, 40) }),
            8 => Asked::Work(What::Failure),
            9 => Asked::Who,
            10 => Asked::Echo("echo".repeat(rng.range(1, 30))),
            11 => Asked::Clear,
            12 | 13 => Asked::Work(What::Question { pieces: pieces_of(interval_ms) }),
            _ => Asked::Help,
        };
        // With JSON a request that waits for the end of another would hold up the cancel as well.
        let is_sleep = asked == Asked::Work(What::Sleep);
        let timeout = is_sleep && (self.dialect == Dialect::Json || rng.percent(50));
        let timeout_ms = if timeout { rng.range(1, 400) as u64 } else { 0 };
        self.tag += 1;
        let words = ["run ", "dos:", "PowerShell: ", "LINUX:"][rng.range(0, 3)];
        let mut call = Call::new(self.tag, asked, timeout_ms);
        match self.dialect {
            Dialect::Line => self.line(&match &call.asked {
                Asked::Work(what) if what.is_command() => format!("{words}{}", what.words()),
                Asked::Work(What::Question { .. }) => "Info".into(),
                Asked::Work(what @ What::Folder { .. }) => format!("ls {}", what.words()),
                Asked::Work(what) => format!("download {}", what.words()),
                Asked::Who => "who".into(),
                Asked::Echo(text) => format!("echo {text}"),
                Asked::Help => "help".into(),
                Asked::Clear => "CLEAR".into(),
                other => unreachable!("{other:?} is no call"),
            }),
            Dialect::Json => self.send_json_call(&mut call, interval_ms),
            Dialect::Frame => self.send_call(&call.asked, timeout_ms, interval_ms),
        }
        self.calls.push_back(call);
    }

    /// Has the server end all sessions, or the server end.
    pub fn end_all(&mut self, asked: Asked) {
        self.tag += 1;
        match (self.dialect, &asked) {
            (Dialect::Line, Asked::Reset) => self.line("reset"),
            (Dialect::Line, _) => self.line("Kill"),
            (Dialect::Json, _) => {
                let mut call = Call::new(self.tag, asked, 0);
                self.send_json_call(&mut call, 0);
                return self.calls.push_back(call);
            }
            (Dialect::Frame, _) => self.send_call(&asked, 0, 0),
        }
        if !self.is_line() {
            self.calls.push_back(Call::new(self.tag, asked, 0));
        }
    }

    fn send_call(&mut self, asked: &Asked, timeout_ms: u64, interval_ms: u32) {
        let words = match asked {
            Asked::Work(what) => what.words(),
            _ => String::new(),
        };
        let host = wire::Call::Host;
        let path = || SharePath::parse(words.as_bytes()).expect("a path");
        let body = match asked {
            Asked::Work(What::Folder { .. }) => wire::Call::List { path: Some(path()) },
            Asked::Work(what) if what.is_command() => {
                let (command, stdin) = (words.clone().into(), *what == What::Repeat);
                let interpreter = Interpreter::Dos;
                match words.len() % 2 {
                    0 => wire::Call::Run { command, stdin, timeout_ms },
                    _ => host(HostCall::Script { interpreter, command, stdin, timeout_ms }),
                }
            }
            Asked::Work(What::Question { .. }) => {
                host(HostCall::Ask(Question::Info { interval_ms }))
            }
            Asked::Work(What::Talk) => wire::Call::Store { into: Some(path()) },
            Asked::Work(What::Fetch { .. }) => wire::Call::Fetch { paths: vec![path()] },
            Asked::Work(What::Keep) => {
                let (file_id, request, hash, samples) = (1, None, None, None);
                wire::Call::Edge(EdgeCall::Upload { file_id, request, hash, samples })
            }
            Asked::Work(_) => wire::Call::Download { path: path() },
            Asked::Who => wire::Call::Who,
            Asked::Echo(text) => wire::Call::Echo { text: text.into() },
            Asked::Help => wire::Call::Help,
            Asked::Clear => host(HostCall::Clear),
            Asked::Disconnect => host(HostCall::Disconnect),
            Asked::Reset => host(HostCall::Reset),
            Asked::Kill => host(HostCall::Kill),
            other => unreachable!("{other:?} is asked for elsewhere"),
        };
        self.json_frame(client::REQUEST, self.tag, &body);
    }

    /// Something about a call that is under way: input, its end, credit, cancellation.
    pub fn go_on(&mut self, rng: &mut Rng, in_earnest: bool) {
        if in_earnest && !self.awaits_answer() {
            self.answer(rng);
        }
        if self.is_line() || self.calls.is_empty() || self.leaving || self.half_closed {
            return;
        }
        if self.dialect == Dialect::Json {
            if !in_earnest {
                self.go_on_json(rng);
            }
            return;
        }
        let at = rng.range(0, self.calls.len() - 1);
        if rng.percent(50) {
            self.pass_on(at, rng, in_earnest);
        }
        let call = &mut self.calls[at];
        let tag = call.tag;
        let repeats = matches!(&call.asked, Asked::Work(what) if what.takes_input());
        let sleeps = call.asked == Asked::Work(What::Sleep) && call.timeout_ms == 0;
        match rng.range(0, 3) {
            0 if repeats && !call.input_ended && !in_earnest => {
                let count = rng.range(0, call.input_room.min(300));
                let bytes: Vec<u8> = (call.input_sent..).take(count).map(input_byte).collect();
                call.input_room -= count;
                call.input_sent += count;
                self.frame(client::DATA, tag, &bytes);
            }
            1 if repeats && !call.input_ended && (in_earnest || rng.percent(20)) => {
                call.input_ended = true;
                self.frame(client::END, tag, b"");
            }
            // What has a time limit must end by itself.
            2 if !call.cancelled && sleeps && in_earnest => {
                call.cancelled = true;
                self.frame(client::CANCEL, tag, b"");
            }
            2 if !call.cancelled && !in_earnest && rng.percent(15) => {
                call.cancelled = true;
                self.frame(client::CANCEL, tag, b"");
            }
            _ => {
                let credit = std::mem::take(&mut call.withheld) as u32;
                if credit > 0 {
                    self.frame(client::CREDIT, tag, &credit.to_be_bytes());
                }
            }
        }
    }

    pub fn acknowledge(&mut self) {
        for serial in std::mem::take(&mut self.unacknowledged) {
            self.frame(client::ACKNOWLEDGE, serial, b"");
        }
    }

    pub fn ping(&mut self) {
        match self.dialect {
            Dialect::Line => {}
            Dialect::Json => self.ping_json(),
            Dialect::Frame => self.frame(client::PING, 7, b""),
        }
    }

    pub fn leave(&mut self) {
        self.leaving = true;
        // There are two ways to say it.
        self.tag += 1;
        match self.dialect {
            Dialect::Line if self.tag.is_multiple_of(2) => self.line("Disconnect"),
            Dialect::Line => self.line("quit"),
            Dialect::Json => self.leave_json(),
            Dialect::Frame if self.tag.is_multiple_of(2) => {
                self.send_call(&Asked::Disconnect, 0, 0);
                self.calls.push_back(Call::new(self.tag, Asked::Disconnect, 0));
            }
            Dialect::Frame => self.frame(client::GOODBYE, 0, b""),
        }
    }

    /// Says what no dialect allows.
    pub fn talk_nonsense(&mut self) {
        self.broken = true;
        self.leaving = true;
        match self.dialect {
            Dialect::Line => self.line("{\"method\": \"ls\"}"),
            Dialect::Json => self.to_hub.extend(b"[{\"method\": \"ls\", \"id\": 1}]"),
            Dialect::Frame => self.frame(0x41, 0, b"{}"),
        }
    }

    /// The kernel has bytes for it. With `lost` nobody reads them any more: letters among them
    /// have only come as far as the kernel, and that is where they may be lost.
    pub fn hear(&mut self, count: usize, office: &mut Office, lost: bool) {
        self.pending.extend(self.to_peer.drain(..count));
        // Who has not said enough to be known is answered with a line.
        let is_unknown = !self.is_line() && !self.welcomed && self.pending.first() == Some(&b'e');
        self.is_stranger |= is_unknown;
        if self.is_stranger {
            return self.pending.clear();
        }
        let mut pending = std::mem::take(&mut self.pending);
        let mut used = 0;
        while used < pending.len() {
            let step = match self.dialect {
                Dialect::Line => self.hear_line(&pending[used..], office, lost),
                Dialect::Json => self.hear_object(&pending[used..], office),
                Dialect::Frame => self.hear_frame(&pending[used..], office, lost),
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        pending.drain(..used);
        self.pending = pending;
    }

    /// The connection is over; what the kernel still has is read unless it is lost.
    /// `is_complete` where the hub has sent all that it had to say.
    pub fn end(&mut self, reason: CloseReason, office: &mut Office, is_complete: bool) {
        use CloseReason::*;
        let lost = matches!(reason, PeerGone | Stalled | SlowConsumer | Silent | BrokenFile);
        let lost = lost || reason == MadeRoom;
        let is_broken_file = reason == BrokenFile;
        let before = self.pending.len() + self.to_peer.len();
        self.hear(self.to_peer.len(), office, lost);
        if is_broken_file {
            let may_break = |call: &Call| match call.asked {
                Asked::Work(What::File { shrinks, .. }) => shrinks,
                Asked::Take(_) => true,
                _ => false,
            };
            // The sender may give up when all bytes are there and only its end is not.
            assert!(self.took || self.calls.iter().any(may_break), "{:?}", self.calls);
        }
        if reason == Silent && !self.kernel_full && !self.to_write {
            assert!(self.pings > 0, "nobody has asked whether it is there");
        }
        if lost || self.is_stranger || !is_complete {
            return;
        }
        // Whoever is made to leave within a large reply is left with a part of it.
        let is_orderly = matches!(reason, PeerLeft | Protocol);
        let is_cut = self.dialect == Dialect::Json && !is_orderly;
        let left = self.pending.len();
        assert!(left == 0 || is_cut, "{reason:?}: {left} of {before} left");
        if reason == PeerLeft && (self.is_line() || self.dialect == Dialect::Json && !self.leaving)
        {
            assert!(self.calls.is_empty(), "left without an answer to {:?}", self.calls);
            assert!(self.owed.is_empty(), "left without an answer");
        }
        if reason == PeerLeft && self.leaving && !self.is_line() && self.welcomed {
            assert!(self.said_goodbye, "goodbye is answered");
        }
    }

    /// Nothing is owed to it.
    pub fn is_content(&self) -> bool {
        let is_silent = self.calls.is_empty() && self.offers.is_empty() && self.owed.is_empty();
        is_silent && self.pending.is_empty() && self.unacknowledged.is_empty()
    }

    pub fn find(&mut self, tag: u32) -> &mut Call {
        let mut calls = self.calls.iter_mut();
        calls.find(|call| call.tag == tag).expect("answers belong to what was asked, and end once")
    }
}
