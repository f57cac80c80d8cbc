//! A device's conversation with its server, over as many connections as it takes.
//!
//! Pure: bytes and time in, news out. One request at a time; whoever asks has to ask again after a
//! loss, and request ids make that harmless.
//!
//! ```text
//!   Off ──log_in──▶ Connecting ──▶ Greeting ──welcome──▶ Joining ──joined──▶ Ready
//!                      ▲  │            │ refused: Off        │ refused: Off    │ lost
//!                      │  └─fails──┐   └──────────────┐      │                 │
//!                      └─────── Pause ◀───────────────┴──────┴─────────────────┘
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use super::carriers::{self, Carriers};
use crate::{
    client::{
        channel::Meeting,
        core::backoff::Backoff,
        link::{Heard, Link},
    },
    wire::{
        Call, EdgeAnswer, EdgeCall, ErrorCode, Form, Name, Parcel, Proposal, Refusal, Secret, Tag,
        control::{DetailBody, OutcomeBody, RefusalBody},
        event::Object,
    },
};

/// Who the device is.
#[derive(Clone)]
pub struct Who {
    /// Its name.
    pub user: Name,
    /// What proves it.
    pub password: Option<Secret<'static>>,
    /// Where it takes files from others; 0: nowhere.
    pub udp_port: u16,
}

/// What comes of the conversation.
#[derive(Debug, PartialEq)]
pub enum News {
    /// Connect; then call [`Talk::handle_connected`] or [`Talk::handle_unreachable`].
    Connect,
    /// Drop the connection.
    Disconnect,
    /// The device is in, and active. `again`: after a loss.
    Ready {
        /// Whether it was before.
        again: bool,
    },
    /// The server does not let it in; see [`Talk::log_in`].
    Refused(Refusal),
    /// There is a server.
    Reachable,
    /// There is no server, and there was none before.
    Unreachable(String),
    /// The connection is lost; it is being tried to get it back.
    Lost(String),
    /// An attempt to get it (back) has failed; there will be others.
    Away(String),
    /// A part of the answer.
    Answer(EdgeAnswer),
    /// The answer is complete, or the request has failed.
    Ended(Result<(), Refusal>),
    /// The upload may go on: see [`Talk::input`].
    MoreInput,
    /// The other device takes the file that was offered, as it is.
    Accepted,
    /// Somebody wants to send us something: see [`Talk::accept`].
    Offer(u32, Offered),
    /// A file begins to come.
    Coming(Tag, Offered),
    /// Bytes of it; see [`Talk::taken`].
    Piece(Tag, Vec<u8>),
    /// It is complete, and should hash to this.
    Complete(Tag, Option<[u8; 32]>),
    /// It will never be complete.
    Broken(Tag, String),
    /// A file that came by other ways has this name, or why not.
    Arrived(Offered, Result<Vec<u8>, String>),
    /// Somebody wrote.
    Message {
        /// Who.
        from: Name,
        /// What.
        text: String,
    },
}

/// What somebody wants to send us.
#[derive(Clone, Debug, PartialEq)]
pub struct Offered {
    /// Who.
    pub from: Name,
    /// As the sender calls it.
    pub name: Vec<u8>,
    /// Bytes; `None` where it is more than one file, or nobody knows.
    pub size: Option<u64>,
    /// The most that the sender can speak.
    pub form: Form,
    /// How we meet the sender's client, where that is known.
    pub meeting: Option<Meeting>,
}

enum Online {
    Off,
    /// Only to see whether there is a server.
    Probing,
    Connecting,
    Pause {
        due_ms: u64,
    },
    Greeting(Link),
    Joining(Link, Tag),
    Ready(Link),
    Leaving(Link),
}

/// See the head of this file.
pub struct Talk {
    who: Option<Who>,
    online: Online,
    /// Whether the device was in already: then a loss is no end.
    was_in: bool,
    /// See [`Talk::ask_first`].
    asks_first: bool,
    /// The server has said that it wants a password in clear.
    was_asked: bool,
    backoff: Backoff,
    last_number: Tag,
    request: Option<Tag>,
    /// What we have accepted.
    incoming: BTreeMap<Tag, Offered>,
    /// The request that tells our port.
    announcement: Option<Tag>,
    /// Files that go or come by other ways than as they are.
    pub carriers: Carriers,
    news: VecDeque<News>,
}

impl Default for Talk {
    fn default() -> Talk {
        Talk {
            who: None,
            online: Online::Off,
            was_in: false,
            asks_first: false,
            was_asked: false,
            backoff: Backoff::default(),
            last_number: 0,
            request: None,
            incoming: BTreeMap::new(),
            announcement: None,
            carriers: Carriers::default(),
            news: VecDeque::new(),
        }
    }
}

impl Talk {
    /// From the first attempt on, what fails is tried again.
    pub fn be_patient(&mut self) {
        self.was_in = true;
    }

    /// Looks whether there is a server. It is left again: nobody knows how long it takes to type a
    /// password, and the server does not wait for long.
    pub fn probe(&mut self) {
        self.online = Online::Probing;
        self.news.push_back(News::Connect);
    }

    /// Connects, logs in and joins.
    pub fn log_in(&mut self, who: Who) {
        self.who = Some(who);
        self.connect();
    }

    /// The next thing that has come of it.
    pub fn poll_news(&mut self) -> Option<News> {
        self.news.pop_front()
    }

    /// Whether the next hello carries a password.
    pub fn has_password(&self) -> bool {
        let is_greeted = !matches!(self.online, Online::Probing);
        is_greeted && self.who.as_ref().is_some_and(|who| who.password.is_some())
    }

    /// Whether something can be asked.
    pub fn is_ready(&self) -> bool {
        matches!(self.online, Online::Ready(_))
    }

    /// The connection's bytes, while there is a connection.
    pub fn link(&mut self) -> Option<&mut Link> {
        match &mut self.online {
            Online::Greeting(link) | Online::Joining(link, _) => Some(link),
            Online::Ready(link) | Online::Leaving(link) => Some(link),
            Online::Off | Online::Probing | Online::Connecting | Online::Pause { .. } => None,
        }
    }

    /// Asks for something; only where nothing is under way and [`Talk::is_ready`].
    pub fn ask(&mut self, call: &EdgeCall) {
        let Online::Ready(link) = &mut self.online else { unreachable!("the caller has looked") };
        assert!(self.request.is_none(), "one request at a time");
        self.request = Some(link.request(&Call::Edge(call.clone())));
    }

    /// Sends bytes of the upload: how many there was room for. Where the upload is over they go
    /// nowhere, and all of them.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        match (&mut self.online, self.request) {
            (Online::Ready(link), Some(tag)) => link.input(tag, bytes),
            _ => bytes.len(),
        }
    }

    /// The upload has no more bytes; `hash` is that of a file for another device, else empty.
    pub fn input_end(&mut self, hash: &[u8]) {
        if let (Online::Ready(link), Some(tag)) = (&mut self.online, self.request) {
            link.input_end(tag, hash);
        }
    }

    /// Offers one file to another device, as a request that is under way. Its bytes may follow
    /// after [`News::Accepted`], where it does not go by other ways.
    pub fn offer(&mut self, to: Name, path: &Path, size: u64, modified: i64) {
        let name = path.file_name().unwrap_or_default().as_bytes();
        let Online::Ready(link) = &mut self.online else { unreachable!("the caller has looked") };
        assert!(self.request.is_none(), "one request at a time");
        let parcel = Parcel {
            modified: Some(modified),
            form: Form::Conversation,
            introduction: self.carriers.offer(path.to_owned()),
            ..Parcel::file(name, size)
        };
        let proposal = Box::new(Proposal { to, parcel, data: None });
        self.request = Some(link.request(&Call::Send(proposal)));
    }

    /// Takes what was offered.
    pub fn accept(&mut self, offer: u32, offered: Offered) {
        if let Online::Ready(link) = &mut self.online {
            let introduction = offered.meeting.as_ref();
            let introduction = introduction.and_then(|_| self.carriers.meet.introduce(None));
            let introduction = introduction.map(Box::new);
            let call = Call::Accept { offer, form: offered.form, introduction };
            self.incoming.insert(link.request(&call), offered);
        }
    }

    /// Does not take it.
    pub fn turn_down(&mut self, offer: u32, reason: &str) {
        if let Online::Ready(link) = &mut self.online {
            link.request(&Call::Refuse { offer, reason: Some(reason.into()) });
        }
    }

    /// So many bytes of a file that comes were written.
    pub fn taken(&mut self, tag: Tag, bytes: u32) {
        if let Online::Ready(link) = &mut self.online {
            link.consumed(tag, bytes);
        }
    }

    /// Wants no more of a file that comes.
    pub fn stop_taking(&mut self, tag: Tag) {
        if let (Online::Ready(link), true) = (&mut self.online, self.incoming.contains_key(&tag)) {
            link.cancel(tag);
        }
    }

    /// Wants no more of what is under way.
    pub fn cancel(&mut self) {
        if let (Online::Ready(link), Some(tag)) = (&mut self.online, self.request) {
            link.cancel(tag);
        }
    }

    /// Takes leave of the server. Nothing is asked after that.
    pub fn leave(&mut self) {
        self.request = None;
        self.online = match std::mem::replace(&mut self.online, Online::Off) {
            Online::Greeting(mut link) | Online::Joining(mut link, _) | Online::Ready(mut link) => {
                link.goodbye();
                Online::Leaving(link)
            }
            Online::Leaving(link) => Online::Leaving(link),
            Online::Off | Online::Probing | Online::Connecting | Online::Pause { .. } => {
                Online::Off
            }
        };
    }

    /// Everybody on the way can read what is said on the connection that there is: the password
    /// waits until the server has said, once, that it wants one all the same.
    pub fn ask_first(&mut self, is_exposed: bool) {
        self.asks_first = is_exposed && !self.was_asked;
    }

    /// There is a connection.
    pub fn handle_connected(&mut self, now_ms: u64) {
        if matches!(self.online, Online::Probing) {
            self.online = Online::Off;
            return self.news.extend([News::Disconnect, News::Reachable]);
        }
        let (Online::Connecting, Some(who)) = (&self.online, &self.who) else { return };
        let password = who.password.as_ref().filter(|_| !self.asks_first);
        let link = Link::new(who.user, password, self.last_number, now_ms);
        self.online = Online::Greeting(link);
    }

    /// There is none.
    pub fn handle_unreachable(&mut self, why: &str, now_ms: u64, random: u64) {
        match self.was_in {
            true => {
                self.news.push_back(News::Away(why.to_owned()));
                self.pause(now_ms, random);
            }
            false => {
                self.online = Online::Off;
                self.news.push_back(News::Unreachable(why.to_owned()));
            }
        }
    }

    /// There is one, and it is not to be spoken on: that ends it.
    pub fn handle_unsafe(&mut self, why: &str) {
        self.online = Online::Off;
        let refusal = Refusal::new(0, ErrorCode::Denied, why.to_owned());
        self.news.extend([News::Disconnect, News::Refused(refusal)]);
    }

    /// The connection has ended.
    pub fn handle_lost(&mut self, why: &str, now_ms: u64, random: u64) {
        if let Some(link) = self.link() {
            self.last_number = link.last_number();
        }
        self.request = None;
        self.drop_incoming(why);
        let was_ready = self.is_ready();
        self.news.push_back(News::Disconnect);
        match self.online {
            Online::Leaving(_) => self.online = Online::Off,
            _ if self.was_in => {
                let why = why.to_owned();
                self.news.push_back(if was_ready { News::Lost(why) } else { News::Away(why) });
                self.pause(now_ms, random);
            }
            _ => self.handle_unreachable(why, now_ms, random),
        }
    }

    /// Reads the next thing in `bytes`, which came from the server: how many bytes it took; none:
    /// more are needed.
    ///
    /// # Errors
    /// The other end is no server of ours.
    pub fn handle_bytes(
        &mut self,
        bytes: &[u8],
        now_ms: u64,
        random: u64,
    ) -> Result<usize, Refusal> {
        let Some(link) = self.link() else { return Ok(bytes.len()) };
        let (taken, heard) = link.handle(bytes, now_ms)?;
        match heard {
            None => {}
            Some(Heard::Data(tag, _, range)) if self.carriers.has(tag) => {
                self.carriers.hear(tag, bytes[range].to_vec());
            }
            Some(Heard::Data(tag, _, range)) => {
                self.news.push_back(News::Piece(tag, bytes[range].to_vec()));
            }
            Some(heard) => self.handle_heard(heard, now_ms, random),
        }
        Ok(taken)
    }

    /// Whether something is waited for that a dead server would never send.
    pub fn waits(&self) -> bool {
        self.request.is_some() || !self.incoming.is_empty()
    }

    /// When [`Talk::handle_timeout`] is due.
    pub fn poll_timeout_ms(&self) -> Option<u64> {
        match &self.online {
            Online::Off | Online::Probing | Online::Connecting => None,
            Online::Pause { due_ms } => Some(*due_ms),
            Online::Greeting(link) | Online::Joining(link, _) => Some(link.poll_timeout_ms()),
            Online::Ready(link) | Online::Leaving(link) => Some(link.poll_timeout_ms()),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now_ms: u64, random: u64) {
        if let Online::Pause { due_ms } = self.online {
            if due_ms <= now_ms {
                self.connect();
            }
        } else if let Some(Err(why)) = self.link().map(|link| link.handle_timeout(now_ms)) {
            self.handle_lost(&why, now_ms, random);
        }
    }

    fn connect(&mut self) {
        self.online = Online::Connecting;
        self.news.push_back(News::Connect);
    }

    fn pause(&mut self, now_ms: u64, random: u64) {
        self.online = Online::Pause { due_ms: now_ms + self.backoff.next_ms(random) };
    }

    fn handle_heard(&mut self, heard: Heard<'_>, now_ms: u64, random: u64) {
        match heard {
            Heard::Welcome(_) => self.join(),
            Heard::Message { from, text, serial } => {
                let text = text.to_owned();
                self.news.push_back(News::Message { from, text });
                if let Some(link) = self.link().filter(|_| serial != 0) {
                    link.acknowledge(serial);
                }
            }
            Heard::Detail(_, DetailBody::Object { object }) => {
                // What a newer server tells beyond what we know is left out.
                if let (Some(answer), true) = (EdgeAnswer::of_object(&object), self.is_ready()) {
                    self.news.push_back(News::Answer(answer));
                }
            }
            Heard::Detail(tag, DetailBody::Accepted { form, introduction, address, .. }) => {
                let contact = introduction.as_deref().zip(address.as_deref());
                self.handle_accepted(tag, form, contact);
            }
            Heard::Detail(tag, DetailBody::Text { text }) if self.announcement == Some(tag) => {
                self.carriers.meet.note_seen(&text);
            }
            Heard::Detail(tag, DetailBody::DataEnd) => self.carriers.peer_ended(tag),
            Heard::Detail(0, offer @ DetailBody::Offer { .. }) => self.handle_offer(offer),
            Heard::Detail(tag, DetailBody::File { size, .. }) => {
                if let Some(offered) = self.incoming.get_mut(&tag) {
                    offered.size = Some(size);
                    self.news.push_back(News::Coming(tag, offered.clone()));
                }
            }
            Heard::End(tag, outcome) if self.carriers.has(tag) => {
                let ended = self.carriers.end(tag, ended_of(outcome));
                self.request = self.request.filter(|request| *request != tag);
                self.tell_carried(ended);
            }
            Heard::End(tag, outcome) if self.incoming.remove(&tag).is_some() => {
                self.news.push_back(match outcome {
                    OutcomeBody::Failed { text, .. } => News::Broken(tag, text.into_owned()),
                    OutcomeBody::Sent { hash } => {
                        let hash = blake3::Hash::from_hex(hash.as_bytes()).ok();
                        News::Complete(tag, hash.map(|hash| *hash.as_bytes()))
                    }
                    _ => News::Complete(tag, None),
                });
            }
            Heard::End(tag, outcome) => self.handle_end(tag, outcome, now_ms, random),
            Heard::InputRoom(tag) if self.request == Some(tag) => {
                self.news.push_back(News::MoreInput);
            }
            Heard::Goodbye(why) => self.handle_goodbye(why, now_ms, random),
            Heard::Detail(..) | Heard::Data(..) | Heard::InputRoom(_) => {}
            Heard::Error(..) | Heard::Delivered(..) | Heard::Pong(_) => {}
        }
    }

    /// Somebody offers something.
    fn handle_offer(&mut self, offer: DetailBody<'_>) {
        let DetailBody::Offer {
            offer,
            from,
            name,
            size,
            files,
            folder,
            form,
            introduction,
            address,
            ..
        } = offer
        else {
            return;
        };
        let size = size.filter(|_| files == 1 && !folder);
        let meet = &self.carriers.meet;
        let meeting = meet.meeting(introduction.as_deref(), address.as_deref(), None);
        let name = name.0.into_owned();
        self.news.push_back(News::Offer(offer, Offered { from, name, size, form, meeting }));
    }

    /// Both ends take part, in this form.
    fn handle_accepted(&mut self, tag: Tag, form: Form, contact: Option<(&Object, &str)>) {
        let step = self.link().map_or(1, |link| link.credit_step_bytes());
        let is_ours = self.request == Some(tag);
        match (form, is_ours, self.incoming.contains_key(&tag)) {
            (Form::Raw, true, _) => self.news.push_back(News::Accepted),
            (Form::Conversation, true, _) => self.carriers.give(tag, contact),
            (Form::Conversation, false, true) => {
                let offered = self.incoming.remove(&tag).expect("looked at");
                self.carriers.take(tag, offered, step);
            }
            _ => {}
        }
    }

    fn tell_carried(&mut self, ended: impl IntoIterator<Item = carriers::Ended>) {
        self.news.extend(ended.into_iter().map(|ended| match ended {
            carriers::Ended::Sent(ended) => News::Ended(ended),
            carriers::Ended::Received(offered, kept) => News::Arrived(offered, kept),
        }));
    }

    /// Tells the server where this device takes files straight, and hears where it is seen.
    fn announce(&mut self) {
        if let (Online::Ready(link), Some(udp_port)) =
            (&mut self.online, self.carriers.meet.udp_port())
        {
            self.announcement = Some(link.request(&Call::Announce { udp_port }));
        }
    }

    /// The carriers' part of a turn: what their threads have said goes on.
    pub fn pump_carriers(&mut self) {
        if let Online::Ready(link) = &mut self.online {
            self.carriers.pump(link);
        }
    }

    fn drop_incoming(&mut self, why: &str) {
        let lost = self.carriers.lose(why);
        // What was under way of our own is asked for again, or refused with all else.
        let lost = lost.into_iter().filter(|it| matches!(it, carriers::Ended::Received(..)));
        self.tell_carried(lost.collect::<Vec<_>>());
        for tag in std::mem::take(&mut self.incoming).into_keys() {
            self.news.push_back(News::Broken(tag, why.to_owned()));
        }
    }

    fn join(&mut self) {
        let udp_port = self.who.as_ref().map_or(0, |who| who.udp_port);
        if let Online::Greeting(mut link) = std::mem::replace(&mut self.online, Online::Off) {
            let tag = link.request(&Call::Edge(EdgeCall::Join { udp_port }));
            self.online = Online::Joining(link, tag);
        }
    }

    fn handle_end(&mut self, tag: Tag, outcome: OutcomeBody<'_>, now_ms: u64, random: u64) {
        let ended = ended_of(outcome);
        if self.request == Some(tag) {
            self.request = None;
            return self.news.push_back(News::Ended(ended));
        }
        let is_join = matches!(&self.online, Online::Joining(_, joining) if *joining == tag);
        if !is_join {
            return;
        }
        match (ended, std::mem::replace(&mut self.online, Online::Off)) {
            (Ok(()), Online::Joining(link, _)) => {
                self.online = Online::Ready(link);
                self.announce();
                self.backoff = Backoff::default();
                let again = std::mem::replace(&mut self.was_in, true);
                self.news.push_back(News::Ready { again });
            }
            (Err(refusal), Online::Joining(mut link, _)) => {
                link.goodbye();
                self.last_number = link.last_number();
                self.refuse(refusal, now_ms, random);
            }
            _ => unreachable!("it was just looked at"),
        }
    }

    fn handle_goodbye(&mut self, why: Option<RefusalBody<'_>>, now_ms: u64, random: u64) {
        let Some(why) = why else {
            return self.handle_lost("the server has said goodbye", now_ms, random);
        };
        let is_wanted = why.code == ErrorCode::LoginRequired && self.has_password();
        if matches!(self.online, Online::Greeting(_)) && is_wanted && self.asks_first {
            (self.asks_first, self.was_asked) = (false, true);
            self.online = Online::Connecting;
            return self.news.extend([News::Disconnect, News::Connect]);
        }
        if matches!(self.online, Online::Greeting(_) | Online::Joining(..)) {
            if let Some(link) = self.link() {
                self.last_number = link.last_number();
            }
            let refusal = Refusal::new(0, why.code, why.text.into_owned());
            return self.refuse(refusal, now_ms, random);
        }
        // Another client has our name, or nobody may be here any more: trying again would fight.
        if is_lasting(why.code) {
            self.was_in = false;
            let refusal = Refusal::new(0, why.code, why.text.into_owned());
            return self.refuse(refusal, now_ms, random);
        }
        self.handle_lost(&why.text, now_ms, random);
    }

    /// The server does not let us in. After a loss that may be because of the connection that we
    /// have lost, of which it does not know yet, or because it has something else to do.
    fn refuse(&mut self, refusal: Refusal, now_ms: u64, random: u64) {
        self.news.push_back(News::Disconnect);
        self.request = None;
        self.drop_incoming(&refusal.text);
        if self.was_in && !is_lasting(refusal.code) {
            self.news.push_back(News::Away(refusal.text.into_owned()));
            return self.pause(now_ms, random);
        }
        self.online = Online::Off;
        self.news.push_back(News::Refused(refusal));
    }
}

fn ended_of(outcome: OutcomeBody<'_>) -> Result<(), Refusal> {
    match outcome {
        OutcomeBody::Failed { code, text } => Err(Refusal::new(0, code, text.into_owned())),
        _ => Ok(()),
    }
}

/// What is refused now is refused again.
fn is_lasting(code: ErrorCode) -> bool {
    use ErrorCode::{BadName, Denied, LoginFailed, LoginRequired, NotSupported, Replaced};
    matches!(code, BadName | Denied | LoginFailed | LoginRequired | NotSupported | Replaced)
}

#[cfg(test)]
mod tests;
