//! Messages from session to session: the hot path, and what is owed when they do not arrive.

use super::{
    Connection, Effect, Hub, Session, SessionId, directory::NameTarget, outbox::Pool,
    receipts::Receipt, voice::Voice,
};
use crate::{
    limits::{Limits, RECIPIENTS_MAX},
    wire::{
        ErrorCode, Event, Name, Recipients, Refusal, Tag, Text, error::ErrorCode::*, event::Witness,
    },
};

impl Hub {
    pub(super) fn on_message(
        &mut self,
        id: SessionId,
        tag: Tag,
        to: Recipients<'_>,
        text: Text<'_>,
    ) {
        let Some(from) = self.session(id).and_then(Session::name) else {
            let usage = self.connection(id).map_or("", Connection::name_usage);
            let text = format!("say {usage} first, so that others know who writes");
            return self.refuse(id, tag, NotNamed, text);
        };
        let letter = Letter { sender: id, from, tag, text };
        if to.is_everybody() {
            self.send_to_everybody(&letter);
            if self.directory.users_count() == 1 {
                self.refuse(id, tag, NoSuchUser, "nobody else is here");
            }
        } else if let Some(name) = to.single() {
            self.send_to(&letter, name);
        } else {
            let mut names: Vec<&[u8]> = Vec::new();
            for name in to.names() {
                if !names.contains(&name) {
                    names.push(name);
                }
                if names.len() > RECIPIENTS_MAX {
                    let text = format!("a message may have {RECIPIENTS_MAX} recipients");
                    return self.refuse(id, tag, TooMany, text);
                }
            }
            names.into_iter().for_each(|name| self.send_to(&letter, name));
        }
    }

    fn send_to(&mut self, letter: &Letter<'_>, name: &[u8]) {
        let target = match self.find(letter.sender, name) {
            Ok(NameTarget::Session(target)) => target,
            Err(refusal) => {
                let refusal = Refusal { tag: letter.tag, ..refusal };
                return self.say(letter.sender, &Event::Error(&refusal));
            }
        };
        if target == letter.sender {
            return self.refuse(letter.sender, letter.tag, BadArguments, "that is your own name");
        }
        self.hand_over(letter, target);
    }

    /// What has this name. People talk: whoever was written to last is looked at first.
    fn find(&mut self, sender: SessionId, name: &[u8]) -> Result<NameTarget, Refusal> {
        let last = self.session(sender).map_or(SessionId::NOBODY, |session| session.last_target);
        if self.session(last).is_some_and(|session| session.is_named(name)) {
            return Ok(NameTarget::Session(last));
        }
        let found = self.look_up(name, "")?;
        let NameTarget::Session(target) = found;
        if let Some(session) = self.session_mut(sender) {
            session.last_target = target;
        }
        Ok(found)
    }

    fn send_to_everybody(&mut self, letter: &Letter<'_>) {
        // In the order of the slots, and those alone that have a name: the others cannot answer.
        for slot in 0..self.sessions.capacity() {
            let Some(session) = self.sessions.get(slot) else { continue };
            if session.id != letter.sender && session.name().is_some() {
                let target = session.id;
                self.hand_over(letter, target);
            }
        }
    }

    /// Puts the letter into the recipient's queue, or tells the sender why not.
    fn hand_over(&mut self, letter: &Letter<'_>, target: SessionId) {
        let recipient = self.sessions.get_mut(target.slot()).expect("named sessions are there");
        let was_empty = recipient.connection.outbox.is_empty();
        match recipient.connection.take_in(letter, &mut self.pool, &self.limits) {
            Ok(()) => {
                self.messages += 1;
                if was_empty && !recipient.connection.outbox.is_empty() {
                    self.effects.push_back(Effect::Flush { connection: recipient.connection.id });
                }
                if letter.tag != 0 {
                    self.note_receipt(letter.sender);
                    self.watch(target);
                }
            }
            Err(code) => {
                let name = recipient.name().expect("only named sessions get letters");
                self.arm(target);
                let text = format!("{name} does not keep up; the message was not sent, try later");
                self.refuse(letter.sender, letter.tag, code, text);
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        id: SessionId,
        tag: Tag,
        code: ErrorCode,
        text: impl Into<std::borrow::Cow<'static, str>>,
    ) {
        self.say(id, &Event::Error(&Refusal::new(tag, code, text)));
    }

    pub(super) fn on_acknowledge(&mut self, id: SessionId, serial: u32) {
        let Some(session) = self.session_mut(id) else { return };
        let Some(name) = session.name() else { return };
        let Some(Voice::Frame(frame)) = &mut session.connection.voice else { return };
        let Some(receipt) = frame.take_promise(serial) else { return };
        let by = Witness::Client;
        self.say(receipt.sender, &Event::Delivered { tag: receipt.tag, to: name, by });
    }

    /// Lines and JSON have no acknowledgement: that the connection took the bytes must do.
    pub(super) fn on_posted(&mut self, recipient: Name, receipt: Receipt) {
        let by = Witness::Connection;
        self.say(receipt.sender, &Event::Delivered { tag: receipt.tag, to: recipient, by });
    }

    /// Tells the senders what of theirs has not arrived with `name`, whose session is over.
    pub(super) fn report_lost(&mut self, name: Name, mut lost: Vec<Receipt>) {
        lost.sort_unstable_by_key(|it| (it.sender, it.tag));
        for mine in lost.chunk_by(|a, b| a.sender == b.sender && a.tag == 0 && b.tag == 0) {
            let Receipt { sender, tag } = mine[0];
            let what = match mine.len() {
                1 => "a message".to_string(),
                count => format!("{count} messages"),
            };
            let text = format!("{name} has gone and did not get {what} of yours");
            self.refuse(sender, tag, NotDelivered, text);
        }
    }
}

/// A message on its way.
pub(super) struct Letter<'a> {
    sender: SessionId,
    from: Name,
    tag: Tag,
    text: Text<'a>,
}

impl Connection {
    fn take_in(
        &mut self,
        letter: &Letter<'_>,
        pool: &mut Pool,
        limits: &Limits,
    ) -> Result<(), ErrorCode> {
        if self.waiting_bytes() + letter.text.len() > limits.outbox_max_bytes {
            self.overflowed = true;
            return Err(PeerBusy);
        }
        let receipt = Receipt { sender: letter.sender, tag: letter.tag };
        let voice = self.voice.as_mut().expect("only peers that have said something have names");
        let dialect = voice.dialect();
        let serial = match voice {
            Voice::Frame(frame) if letter.tag != 0 => frame.promise(receipt, limits)?,
            _ => 0,
        };
        let message = Event::Message { from: &letter.from, text: letter.text, serial };
        let write = |out: &mut Vec<u8>| dialect.encode(&message, out);
        // A receipt that waits for an acknowledgement is kept with those.
        let receipt = if serial == 0 { receipt } else { Receipt::ELSEWHERE };
        match voice.hold() {
            None => self.outbox.post(pool, receipt, write),
            Some(held) => held.post(receipt, write),
        }
        Ok(())
    }
}
