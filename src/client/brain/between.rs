//! Files to and from other users, as the brain sees them: looked at, offered, answered, passed on.
//!
//! ```text
//!   send:    weighing ──▶ request, asked ──accepted──▶ joined ──▶ as any transfer
//!   receive: offer ──rules, or the user──▶ request accept ──accepted, file──▶ joined ──▶ ...
//!                                    └──▶ request refuse
//! ```

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Brain, Effect, Online, Opening, Shown, Style, Tag, Task,
    transfer::{Folders, Transfer},
};
use crate::{
    client::{
        channel::{Meeting, Way},
        core::{
            order::{Local, Order},
            rules::{Rules, Verdict},
        },
        meet::Meet,
        mover::peer::Taking,
        screen::passing::{Passed, Passing, What},
        weigh::Weight,
    },
    limits::{CLIENT_ANSWERS_MAX, CLIENT_OFFERS_MAX},
    transfer::Fault,
    wire::{
        Blob, Call, Contact, ErrorCode, Form, Name, OneTimeToken, Parcel, Proposal, Standpoint,
        control::DetailBody, event::Object,
    },
};

/// What goes on with other users, but for the transfers themselves.
#[derive(Debug, Default)]
pub(super) struct Between {
    rules: Rules,
    meet: Meet,
    /// What we were offered and have not answered.
    open: BTreeMap<u32, Offered>,
    /// What is looked at before it is offered.
    weighing: BTreeMap<u64, Sending>,
    last_weighed: u64,
    /// We are here to receive: so many files or folders, if not for ever.
    receiving: Option<Option<u64>>,
    /// That was known before the order for it came.
    receives_early: bool,
}

/// What somebody offers, and where their client is, if it has told that.
#[derive(Debug)]
struct Offered {
    taking: Taking,
    meeting: Option<Meeting>,
}

#[derive(Debug)]
struct Sending {
    paths: Vec<Local>,
    to: Name,
    limit: Option<u64>,
    again: String,
}

/// The other end of a transfer, where that is another user.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) with: Name,
    /// What goes through, once both take part.
    pub(super) form: Option<Form>,
    /// The hash of the file that goes or has come as it is, where it is known.
    pub(super) hash: Option<[u8; 32]>,
    /// Which way it goes, once that is known.
    way: Option<Way>,
    what: What,
    side: Side,
}

#[derive(Debug)]
enum Side {
    Gives { paths: Vec<Local>, limit: Option<u64>, token: Option<OneTimeToken> },
    Takes(Taking, Option<Meeting>),
}

impl Peer {
    pub(super) fn is_sent(&self) -> bool {
        matches!(self.side, Side::Gives { .. })
    }

    /// The bytes of one file come as they are.
    pub(super) fn takes_raw(&self) -> bool {
        !self.is_sent() && self.form == Some(Form::Raw)
    }

    /// What is said where it is given up.
    pub(super) fn broken_text(&self, again: &str) -> String {
        match (&self.side, self.form) {
            (_, None) => format!("{} is not asked any more", self.with),
            (_, Some(Form::Raw)) => "broken off; nothing of it is kept".to_owned(),
            (Side::Gives { paths, .. }, _)
                if paths.iter().any(|path| matches!(path, Local::Input(_))) =>
            {
                "broken off; standard input cannot be read again, so begin anew".to_owned()
            }
            (Side::Gives { .. }, _) => {
                format!("broken off; what is there is kept, go on with: {again}")
            }
            (Side::Takes(..), _) => {
                format!("broken off; it goes on where it was when {} sends it again", self.with)
            }
        }
    }

    /// How a file is told of that has arrived. `hash` is that of our own half.
    pub(super) fn passed(
        &self,
        name: &[u8],
        (size, hash, was_there): (u64, [u8; 32], bool),
        seconds: f64,
        per_second: Option<u64>,
    ) -> Shown {
        let is_sent = self.is_sent();
        let is_verified = self.form == Some(Form::Conversation) || self.hash.is_some();
        let hash = is_verified.then(|| blake3::Hash::from(hash).to_string());
        let with = self.with;
        let prefix = format!("{with}_");
        let bare = name.strip_prefix(prefix.as_bytes()).unwrap_or(name);
        let path = if is_sent { name } else { bare }.to_vec();
        let target = (!is_sent).then(|| name.to_vec());
        let way = self.way;
        let passed =
            Passed { with, is_sent, path, target, size, hash, seconds, per_second, was_there, way };
        Shown::Passing(Passing::Passed(passed))
    }

    /// The same for files in folders together.
    pub(super) fn folders(&self, folders: Folders, per_second: Option<u64>) -> Shown {
        let (with, is_sent, way) = (self.with, self.is_sent(), self.way);
        Shown::Passing(Passing::Folders { with, is_sent, folders, per_second, way })
    }

    /// A file that has gone out as it is: that it was taken is all that we know.
    pub(super) fn sent_raw(&self, seconds: f64, per_second: Option<u64>) -> Option<Shown> {
        let is_it = self.is_sent() && self.form == Some(Form::Raw);
        let passed = Passed {
            with: self.with,
            is_sent: true,
            path: self.what.name.clone(),
            target: None,
            size: self.what.size.unwrap_or(0),
            hash: None,
            seconds,
            per_second,
            was_there: false,
            way: self.way,
        };
        is_it.then_some(Shown::Passing(Passing::Passed(passed)))
    }
}

impl Brain {
    /// Whose offers are taken without a question.
    pub fn set_rules(&mut self, rules: Rules) {
        self.between.rules = rules;
    }

    /// The order to receive will come: who has seen our name may offer something sooner.
    pub fn receive_early(&mut self, count: Option<u64>) {
        self.between.receiving = Some(count);
        self.between.receives_early = true;
    }

    /// Whether nothing of this kind is awaited.
    pub(super) fn is_quiet_between(&self) -> bool {
        self.between.weighing.is_empty() && self.between.receiving.is_none()
    }

    /// All that was under way is lost with the connection.
    pub(super) fn drop_between(&mut self) {
        self.between.weighing.clear();
        self.between.open.clear();
    }

    /// Whether we are here to take what others send.
    pub(super) fn is_receiving(&self) -> bool {
        self.between.receiving.is_some()
    }

    pub(super) fn perform_between(&mut self, order: Order, now_ms: u64) {
        match order {
            Order::Send { paths, to, limit, again } => {
                self.between.last_weighed += 1;
                let number = self.between.last_weighed;
                self.effects.push_back(Effect::Weigh(number, paths.clone()));
                self.between.weighing.insert(number, Sending { paths, to, limit, again });
            }
            Order::Accept { offer } => {
                if let Some((number, offered)) = self.answered(offer) {
                    self.take(number, offered, now_ms);
                }
            }
            Order::Refuse { offer, reason } => {
                if let Some((number, _)) = self.answered(offer) {
                    self.turn_down(number, reason);
                }
            }
            // Some of them may have come already.
            Order::Receive { .. } if std::mem::take(&mut self.between.receives_early) => {}
            Order::Receive { count } => self.between.receiving = Some(count),
            _ => unreachable!("the caller has chosen these"),
        }
    }

    /// The offer that the user means: of this number, or the only one.
    fn answered(&mut self, number: Option<u32>) -> Option<(u32, Offered)> {
        let open = &mut self.between.open;
        let number = match number {
            Some(number) => Some(number),
            None if open.len() == 1 => open.keys().next().copied(),
            None => None,
        };
        let found = number.and_then(|number| open.remove_entry(&number));
        if found.is_none() {
            let text = match (number, open.len()) {
                (Some(number), _) => format!("nothing is offered under the number {number}"),
                (None, 0) => "nothing is offered".to_owned(),
                (None, count) => format!("{count} offers wait; name the number of one"),
            };
            self.refuse(ErrorCode::NoSuchOffer, &text);
        }
        found
    }

    /// What is to be sent was looked at.
    pub fn handle_weighed(&mut self, number: u64, weight: Result<Weight, Fault>, now_ms: u64) {
        let Some(sending) = self.between.weighing.remove(&number) else { return };
        let weight = match weight {
            Ok(weight) => weight,
            Err(fault) => {
                self.refuse(fault.code, &fault.text);
                return self.settle();
            }
        };
        let Online::Here(link) = &mut self.online else { return self.settle() };
        let Sending { paths, to, limit, again } = sending;
        let Weight { name, size, files, folder, modified } = weight;
        let token = self.between.meet.token();
        let parcel = Parcel {
            name: Blob::borrowed(&name).into_owned(),
            size,
            modified,
            files,
            folder,
            form: Form::Conversation,
            introduction: self.between.meet.introduce(token),
        };
        let tag = link.request(&Call::Send(Box::new(Proposal { to, parcel, data: None })));
        let what = What { name: name.clone(), size, files, folder };
        self.show(Shown::Passing(Passing::Asked { to, what: what.clone() }));
        let side = Side::Gives { paths, limit, token };
        let peer = Peer { with: to, form: None, hash: None, way: None, what, side };
        self.tasks.insert(tag, Task::Transfer(Box::new(Transfer::peer(peer, again, now_ms))));
    }

    /// News of offers; what is none of these is of no account.
    pub(super) fn handle_offer(&mut self, detail: DetailBody<'_>, now_ms: u64) {
        match detail {
            DetailBody::Offer {
                offer,
                from,
                name,
                size,
                modified,
                files,
                folder,
                introduction,
                address,
                ..
            } => {
                let name = name.0.into_owned();
                let meeting =
                    self.between.meet.meeting(introduction.as_deref(), address.as_deref(), None);
                let what = What { name: name.clone(), size, files, folder };
                // The form is what both can; it is told when both take part.
                let form = Form::Conversation;
                let existing = self.between.rules.existing();
                let taking = Taking { from, name, size, files, modified, form, existing };
                self.effects.push_back(Effect::Seen(from));
                self.judge(offer, Offered { taking, meeting }, what, now_ms);
            }
            DetailBody::OfferWithdrawn { offer, text, .. }
                if self.between.open.remove(&offer).is_some() =>
            {
                let (number, text) = (offer, text.into_owned());
                self.show(Shown::Passing(Passing::Withdrawn { number, text }));
            }
            _ => {}
        }
    }

    fn judge(&mut self, number: u32, offered: Offered, what: What, now_ms: u64) {
        let Taking { from, size, .. } = offered.taking;
        let verdict = match self.setup.style {
            Style::Verb if self.between.receiving.is_none() => {
                Verdict::Refuse("this client is busy with something else".to_owned())
            }
            _ => self.between.rules.verdict(from, size),
        };
        if self.tasks.len() >= CLIENT_ANSWERS_MAX {
            let text = "the server passes on offers and ends none of the answers".to_owned();
            return self.effects.push_back(Effect::Lost(text));
        }
        let reason = match verdict {
            Verdict::Take => return self.take(number, offered, now_ms),
            Verdict::Ask(_) if self.between.open.len() >= CLIENT_OFFERS_MAX => {
                "too many offers wait for an answer here".to_owned()
            }
            Verdict::Ask(_) if self.setup.can_ask => {
                let (existing, here) = (offered.taking.existing, None);
                let offer = Passing::Offer { number, from, what, existing, here };
                self.show(Shown::Passing(offer));
                self.between.open.insert(number, offered);
                return;
            }
            Verdict::Ask(reason) | Verdict::Refuse(reason) => reason,
        };
        self.turn_down(number, Some(reason.clone()));
        if self.setup.style != Style::Verb || self.between.receiving.is_some() {
            self.show(Shown::Passing(Passing::Refused { from, what, reason }));
        }
    }

    fn take(&mut self, number: u32, Offered { taking, meeting }: Offered, now_ms: u64) {
        let Online::Here(link) = &mut self.online else { return };
        let form = Form::Conversation;
        // Who has not introduced itself has no use for it.
        let introduction = meeting.as_ref().and_then(|_| self.between.meet.introduce(None));
        let introduction = introduction.map(Box::new);
        let tag = link.request(&Call::Accept { offer: number, form, introduction });
        let Taking { from, name, size, files, .. } = &taking;
        let what = What { name: name.clone(), size: *size, files: *files, folder: false };
        let side = Side::Takes(taking.clone(), meeting);
        let peer = Peer { with: *from, form: None, hash: None, way: None, what, side };
        let transfer = Transfer::peer(peer, String::new(), now_ms);
        self.tasks.insert(tag, Task::Transfer(Box::new(transfer)));
    }

    fn turn_down(&mut self, offer: u32, reason: Option<String>) {
        let Online::Here(link) = &mut self.online else { return };
        let tag = link.request(&Call::Refuse { offer, reason });
        self.tasks.insert(tag, Task::Refusal);
    }

    /// Both take part: the bytes begin to go. `contact` is what the other client has told of
    /// itself, and where the server sees it; for who gets the bytes that was in the offer.
    pub(super) fn handle_joined(
        &mut self,
        tag: Tag,
        form: Form,
        contact: Option<(&Object, &str)>,
        now_ms: u64,
    ) {
        let Some(credit_step_bytes) = self.link().map(|link| link.credit_step_bytes()) else {
            return;
        };
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let Some(peer) = transfer.join(form, now_ms) else { return };
        let talks = form == Form::Conversation;
        let opening = match &mut peer.side {
            Side::Gives { paths, limit, token } => {
                let (said, seen) = contact.unzip();
                let meeting = self.between.meet.meeting(said, seen, *token);
                let meeting = meeting.filter(|_| talks && token.is_some());
                Opening::Give { paths: paths.clone(), limit: *limit, form, meeting }
            }
            Side::Takes(taking, meeting) => {
                let taking = Taking { form, ..taking.clone() };
                let meeting = meeting.take().filter(|_| talks);
                Opening::Take { taking, meeting, credit_step_bytes }
            }
        };
        let is_met = opening.meeting().is_some();
        self.effects.push_back(Effect::Open(tag, opening));
        if !is_met {
            self.handle_way(tag, Way::Relayed);
        }
    }

    /// The bytes go this way from now on.
    pub fn handle_way(&mut self, tag: Tag, way: Way) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        if !transfer.is_wanted() {
            return;
        }
        let Some(peer) = transfer.peer_mut() else { return };
        let (with, is_sent) = (peer.with, peer.is_sent());
        let before = peer.way.replace(way);
        self.show(Shown::Passing(match before {
            None => Passing::Joined { with, is_sent, way },
            Some(_) => Passing::Rerouted { with, way },
        }));
    }

    /// What is told of this client, where it has a key: `random` are 32 bytes of the system's
    /// random source, from which tokens are made.
    pub fn set_contact(&mut self, contact: Contact, random: [u8; 32]) {
        self.between.meet.set_contact(contact, random);
    }

    /// Tells the server where we take files straight from others.
    pub(super) fn announce(&mut self) {
        let Some(udp_port) = self.between.meet.udp_port() else { return };
        let Online::Here(link) = &mut self.online else { return };
        let tag = link.request(&Call::Announce { udp_port });
        self.tasks.insert(tag, Task::Announcement);
    }

    /// The server has told where it sees us.
    pub(super) fn note_seen(&mut self, address: &str) {
        self.between.meet.note_seen(address);
    }

    /// From where the server is reached, and where; and the addresses of our interfaces.
    pub fn set_standpoint(&mut self, standpoint: Option<Standpoint>, interfaces: Vec<IpAddr>) {
        self.between.meet.set_standpoint(standpoint, interfaces);
    }

    /// The hash of a file that has been read as it is.
    pub fn handle_hashed(&mut self, tag: Tag, hash: [u8; 32]) {
        if let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag)
            && let Some(peer) = transfer.peer_mut()
        {
            peer.hash = Some(hash);
        }
    }

    /// Data came that nobody wants any more: its sender must not wait for us, or it could not even
    /// say that it has heard of it.
    pub fn handle_unwanted(&mut self, tag: Tag, bytes: u32) {
        if matches!(self.tasks.get(&tag), Some(Task::Transfer(_)))
            && let Some(link) = self.link()
        {
            link.consumed(tag, bytes);
        }
    }

    /// Something that was taken is at its end, one way or another.
    pub(super) fn count_taken(&mut self) {
        if let Some(Some(left)) = &mut self.between.receiving {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.between.receiving = None;
            }
        }
    }
}
