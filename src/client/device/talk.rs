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

use std::collections::VecDeque;

use crate::{
    client::{
        backoff::Backoff,
        link::{Heard, Link},
    },
    wire::{
        EdgeAnswer, EdgeCall, ErrorCode, Name, Refusal, Secret, Tag,
        control::{CallBody, DetailBody, OutcomeBody, RefusalBody},
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
    /// Somebody wrote.
    Message {
        /// Who.
        from: Name,
        /// What.
        text: String,
    },
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
    backoff: Backoff,
    last_number: Tag,
    request: Option<Tag>,
    news: VecDeque<News>,
}

impl Default for Talk {
    fn default() -> Talk {
        Talk {
            who: None,
            online: Online::Off,
            was_in: false,
            backoff: Backoff::default(),
            last_number: 0,
            request: None,
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
        self.request = Some(link.request(&CallBody::from(call)));
    }

    /// Sends bytes of the upload: how many there was room for. Where the upload is over they go
    /// nowhere, and all of them.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        match (&mut self.online, self.request) {
            (Online::Ready(link), Some(tag)) => link.input(tag, bytes),
            _ => bytes.len(),
        }
    }

    /// The upload has no more bytes.
    pub fn input_end(&mut self) {
        if let (Online::Ready(link), Some(tag)) = (&mut self.online, self.request) {
            link.input_end(tag, b"");
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

    /// There is a connection.
    pub fn handle_connected(&mut self, now_ms: u64) {
        if matches!(self.online, Online::Probing) {
            self.online = Online::Off;
            return self.news.extend([News::Disconnect, News::Reachable]);
        }
        let (Online::Connecting, Some(who)) = (&self.online, &self.who) else { return };
        let link = Link::new(who.user, who.password.as_ref(), self.last_number, now_ms);
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
        if let Some(heard) = heard {
            self.handle_heard(heard, now_ms, random);
        }
        Ok(taken)
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
            Heard::End(tag, outcome) => self.handle_end(tag, outcome, now_ms, random),
            Heard::InputRoom(tag) if self.request == Some(tag) => {
                self.news.push_back(News::MoreInput);
            }
            Heard::Goodbye(why) => self.handle_goodbye(why, now_ms, random),
            Heard::Detail(..) | Heard::Data(..) | Heard::InputRoom(_) => {}
            Heard::Error(..) | Heard::Delivered(..) | Heard::Pong(_) => {}
        }
    }

    fn join(&mut self) {
        let udp_port = self.who.as_ref().map_or(0, |who| who.udp_port);
        if let Online::Greeting(mut link) = std::mem::replace(&mut self.online, Online::Off) {
            let tag = link.request(&CallBody::from(&EdgeCall::Join { udp_port }));
            self.online = Online::Joining(link, tag);
        }
    }

    fn handle_end(&mut self, tag: Tag, outcome: OutcomeBody<'_>, now_ms: u64, random: u64) {
        let ended = match outcome {
            OutcomeBody::Failed { code, text } => Err(Refusal::new(0, code, text.into_owned())),
            _ => Ok(()),
        };
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
        if self.was_in && !is_lasting(refusal.code) {
            self.news.push_back(News::Away(refusal.text.into_owned()));
            return self.pause(now_ms, random);
        }
        self.online = Online::Off;
        self.news.push_back(News::Refused(refusal));
    }
}

/// What is refused now is refused again.
fn is_lasting(code: ErrorCode) -> bool {
    use ErrorCode::{BadName, Denied, LoginFailed, LoginRequired, NotSupported, Replaced};
    matches!(code, BadName | Denied | LoginFailed | LoginRequired | NotSupported | Replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Event, Outcome, edge::Statistic, frame};

    fn who() -> Who {
        let user = Name::parse("watch").expect("a name");
        Who { user, password: Some("secret".into()), udp_port: 6000 }
    }

    /// The server says this.
    fn hear(talk: &mut Talk, event: &Event<'_>) {
        let mut bytes = Vec::new();
        frame::encode(event, &mut bytes);
        let taken = talk.handle_bytes(&bytes, 5, 0).expect("good frames");
        assert_eq!(taken, bytes.len());
    }

    fn news(talk: &mut Talk) -> Vec<News> {
        std::iter::from_fn(|| talk.poll_news()).collect()
    }

    /// What the server reads.
    fn said(talk: &mut Talk) -> String {
        let link = talk.link().expect("a connection");
        let text = String::from_utf8_lossy(link.outgoing()).into_owned();
        link.advance(link.outgoing().len());
        text
    }

    fn greet(talk: &mut Talk) {
        talk.handle_connected(0);
        let hello = said(talk);
        assert!(hello.contains(r#""user":"watch","password":"secret""#), "{hello}");
        hear(talk, &Event::Welcome { name: who().user });
        assert!(said(talk).contains(r#"{"op":"edge.join","udp_port":6000}"#));
    }

    fn end(talk: &mut Talk, outcome: Outcome) {
        let tag = talk.link().expect("a connection").last_number();
        hear(talk, &Event::End { tag, outcome: &outcome });
    }

    fn ready() -> Talk {
        let mut talk = Talk::default();
        talk.log_in(who());
        assert_eq!(news(&mut talk), [News::Connect]);
        greet(&mut talk);
        end(&mut talk, Outcome::Done);
        assert_eq!(news(&mut talk), [News::Ready { again: false }]);
        talk
    }

    #[test]
    fn a_request_is_answered_and_ends() {
        let mut talk = ready();
        talk.ask(&EdgeCall::Compute { file_id: 1, operation: Statistic::Sum });
        assert!(said(&mut talk).contains("edge.compute"));
        let left = EdgeAnswer::Left { device: who().user };
        let tag = talk.link().expect("a connection").last_number();
        hear(&mut talk, &Event::Object { tag, object: &left.to_object() });
        end(&mut talk, Outcome::Done);
        assert_eq!(news(&mut talk), [News::Answer(left), News::Ended(Ok(()))]);
    }

    #[test]
    fn a_lost_connection_is_got_back_and_joins_again() {
        let mut talk = ready();
        talk.ask(&EdgeCall::List);
        talk.handle_lost("the cable", 10, 700);
        let lost = News::Lost("the cable".into());
        assert_eq!(news(&mut talk), [News::Disconnect, lost]);
        assert_eq!(talk.poll_timeout_ms(), Some(710));
        talk.handle_timeout(709, 0);
        assert_eq!(news(&mut talk), []);
        talk.handle_timeout(710, 0);
        assert_eq!(news(&mut talk), [News::Connect]);
        talk.handle_unreachable("refused", 720, 500);
        assert_eq!(news(&mut talk), [News::Away("refused".into())]);
        talk.handle_timeout(1220, 0);
        assert_eq!(news(&mut talk), [News::Connect]);
        greet(&mut talk);
        end(&mut talk, Outcome::Done);
        assert_eq!(news(&mut talk), [News::Ready { again: true }]);
        talk.ask(&EdgeCall::List);
    }

    #[test]
    fn a_refusal_at_the_door_is_the_callers_and_a_name_of_our_own_is_waited_for() {
        let mut talk = Talk::default();
        talk.log_in(who());
        talk.handle_connected(0);
        let taken = Refusal::new(0, ErrorCode::NameTaken, "somebody is here");
        hear(&mut talk, &Event::Goodbye(Some(&taken)));
        let wanted = [News::Connect, News::Disconnect, News::Refused(taken.clone())];
        assert_eq!(news(&mut talk), wanted);
        assert_eq!(talk.poll_timeout_ms(), None);

        let mut talk = ready();
        talk.handle_lost("the cable", 0, 0);
        talk.handle_timeout(0, 0);
        talk.handle_connected(0);
        news(&mut talk);
        hear(&mut talk, &Event::Goodbye(Some(&taken)));
        assert_eq!(news(&mut talk), [News::Disconnect, News::Away("somebody is here".into())]);
        assert!(talk.poll_timeout_ms().is_some());
        talk.handle_timeout(60_000, 0);
        talk.handle_connected(60_000);
        news(&mut talk);
        let denied = Refusal::new(0, ErrorCode::Denied, "not you");
        hear(&mut talk, &Event::Goodbye(Some(&denied)));
        assert_eq!(news(&mut talk), [News::Disconnect, News::Refused(denied)]);
    }

    #[test]
    fn a_refused_join_is_told() {
        let mut talk = Talk::default();
        talk.log_in(who());
        news(&mut talk);
        greet(&mut talk);
        let refusal = Refusal::new(0, ErrorCode::NoSpace, "full");
        end(&mut talk, Outcome::Failed(refusal.clone()));
        assert_eq!(news(&mut talk), [News::Disconnect, News::Refused(refusal)]);
    }
}
