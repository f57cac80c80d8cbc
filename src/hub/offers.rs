//! Offers from user to user: made, answered, withdrawn.

use super::{
    Connection, Hub, OperationId, OperationKind, Session, SessionId,
    directory::NameTarget,
    pipe::{Offer, OpenOffer, PipeEnd, Role},
    rights::Right,
    timers::Alarm,
};
use crate::{
    limits::INTRODUCTION_MAX_BYTES,
    wire::{
        Event, Form, Name, Outcome, Parcel, Proposal, Refusal, Tag,
        error::{ErrorCode, ErrorCode::*},
        escape::escape_bytes,
        event::Object,
    },
};

/// What is said to whoever hands in bytes that nobody is to get.
pub(super) const NOT_ACCEPTED: &str =
    "nothing may be sent before the other user has accepted, nor by who gets a file";

/// Bytes of the news of an offer but for its name and its introduction.
const NEWS_BYTES: usize = 512;

impl Hub {
    /// Offers something to somebody, or says why not.
    pub(super) fn on_send(&mut self, id: SessionId, tag: Tag, proposal: Proposal) {
        if let Err(refusal) = self.offer(id, tag, proposal) {
            self.say(id, &Event::End { tag, outcome: &Outcome::Failed(refusal) });
        }
    }

    fn offer(&mut self, id: SessionId, tag: Tag, proposal: Proposal) -> Result<(), Refusal> {
        let refuse = |code: ErrorCode, text: String| Err(Refusal::new(tag, code, text));
        let Proposal { to, parcel, data } = proposal;
        let Some(from) = self.session(id).and_then(Session::name) else {
            let usage = self.connection(id).map_or("", Connection::name_usage);
            let text = format!("say {usage} first, so that others know who sends");
            return refuse(NotNamed, text);
        };
        self.may_start(id, tag)?;
        let target = match self.look_up(to.as_bytes(), " to take it") {
            Ok(NameTarget::Session(target)) => target,
            Err(refusal) => return Err(Refusal { tag, ..refusal }),
        };
        if target == id {
            return refuse(BadArguments, "that is your own name; nothing was offered".into());
        }
        self.may_offer(id, tag)?;
        self.check_offers_to(id, target, tag, to)?;
        let limits = self.limits;
        let receiver = self.session_mut(target).expect("named sessions are there");
        if !receiver.connection.can_converse() && !parcel.can_be_raw() {
            let text = format!("{to} speaks a dialect that takes single files of a known size");
            return refuse(Refused, text);
        }
        if receiver.offers.len() >= limits.offers_max {
            let text = format!("{to} has {} offers to answer; try later", receiver.offers.len());
            return refuse(PeerBusy, text);
        }
        if receiver.connection.waiting_bytes() + news_max_bytes(&parcel) > limits.outbox_max_bytes {
            receiver.connection.overflowed = true;
            self.arm(target);
            return refuse(PeerBusy, format!("{to} does not keep up; try later"));
        }
        let number = receiver.next_offer();
        let mut offer = Offer::new(target, number, parcel.clone(), self.now);
        if let Some(data) = data {
            offer.flow_mut().set_whole(&data.0);
        }
        let kind = OperationKind::Offer(Box::new(offer));
        let offer = self.add_operation(id, tag, Some(Right::Message), kind);
        let receiver = self.session_mut(target).expect("named sessions are there");
        receiver.offers.push(OpenOffer { number, offer });
        self.offers_count += 1;
        self.watch(target);
        self.set_alarm(self.now + limits.offer_timeout, Alarm::Operation(offer));
        let address = self.address_of(id, parcel.introduction.is_some());
        let address = address.as_deref();
        self.say(target, &Event::Offer { number, from, parcel: &parcel, address });
        Ok(())
    }

    fn may_offer(&self, id: SessionId, tag: Tag) -> Result<(), Refusal> {
        let session = self.session(id).expect("its request is at hand");
        let is_offer = |id: &&OperationId| self.offer_of(**id).is_some();
        let own = session.operations.iter().filter(is_offer).count();
        if own >= self.limits.offers_max {
            let text = format!("{own} offers of yours wait for an answer, and no more may");
            return Err(Refusal::new(tag, TooMany, text));
        }
        if self.offers_count >= self.limits.offers_total_max {
            let text = "too many offers wait for an answer on this server; try again later";
            return Err(Refusal::new(tag, Busy, text));
        }
        if self.offers_count >= self.limits.offers_source_max {
            let offers = self.operations.iter().filter(|(_, it)| it.offer().is_some());
            let owners = offers.filter_map(|(_, it)| self.session_of(it.owner()));
            let own = owners.filter(|owner| self.are_of_one(id, *owner)).count();
            if own >= self.limits.offers_source_max {
                let text = format!("{own} offers from where you are wait for an answer");
                return Err(Refusal::new(tag, TooMany, text));
            }
        }
        Ok(())
    }

    /// Whether a sender leaves the others a place at a receiver.
    fn check_offers_to(
        &self,
        id: SessionId,
        target: SessionId,
        tag: Tag,
        to: Name,
    ) -> Result<(), Refusal> {
        let receiver = self.session(target).expect("named sessions are there");
        let senders = receiver.offers.iter().filter_map(|it| self.listener(it.offer));
        let own = senders.filter(|(sender, _)| self.are_of_one(id, *sender)).count();
        if own < self.limits.offers_of_one_max {
            return Ok(());
        }
        let text = format!("{to} has {own} offers of yours to answer; try later");
        Err(Refusal::new(tag, PeerBusy, text))
    }

    /// Where a session comes from, for a peer to whom it has introduced itself.
    fn address_of(&self, id: SessionId, is_introduced: bool) -> Option<String> {
        let session = self.session(id).filter(|_| is_introduced)?;
        Some(session.connection.origin.peer().to_string())
    }

    /// Joins the sender of an offer and its receiver, or says why not.
    pub(super) fn on_accept(
        &mut self,
        id: SessionId,
        tag: Tag,
        number: u32,
        form: Form,
        introduction: Option<&Object>,
    ) {
        if let Err(refusal) = self.accept(id, tag, number, form, introduction) {
            self.say(id, &Event::End { tag, outcome: &Outcome::Failed(refusal) });
        }
    }

    fn accept(
        &mut self,
        id: SessionId,
        tag: Tag,
        number: u32,
        form: Form,
        introduction: Option<&Object>,
    ) -> Result<(), Refusal> {
        let now = self.now;
        let sender = self.find_offer(id, tag, number)?;
        let gone = || no_such_offer(tag, number);
        let (owner, sender_tag) = self.listener(sender).ok_or_else(gone)?;
        self.may_start(id, tag)?;
        let session = self.session(id).expect("its request is at hand");
        let by = session.name().expect("offers are made to names");
        let can_talk = form == Form::Conversation && session.connection.can_converse();
        let parcel = self.offer_of(sender).ok_or_else(gone)?.parcel();
        let form = if can_talk { parcel.form } else { Form::Raw };
        if form == Form::Raw && !parcel.can_be_raw() {
            let text = "it is no single file of a known size, and needs the form `conversation`";
            return Err(Refusal::new(tag, BadArguments, text));
        }
        let (ours, theirs) = match form {
            Form::Raw => {
                let size = parcel.size.expect("files have sizes");
                (Role::Gets, Role::Sends { size })
            }
            Form::Conversation => (Role::Talks, Role::Talks),
        };
        self.unlist(sender);
        let kind = OperationKind::Pipe(Box::new(PipeEnd::of_receiver(sender, ours, now)));
        let receiver = self.add_operation(id, tag, None, kind);
        let offer = self.operation_mut(sender).expect("it was there");
        let parcel = offer.join(receiver, theirs, now).expect("it was an offer");
        self.set_alarm(now + self.limits.pipe_stall_timeout, Alarm::Operation(receiver));
        let address = self.address_of(id, introduction.is_some());
        let address = address.as_deref();
        let tag = sender_tag;
        self.say(owner, &Event::Accepted { tag, by, form, introduction, address });
        self.begin_to_get(receiver, owner, form, &parcel);
        self.begin_to_pass(sender);
        self.later.go_on(owner);
        Ok(())
    }

    /// Tells the receiver what comes now.
    fn begin_to_get(&mut self, id: OperationId, from: SessionId, form: Form, parcel: &Parcel) {
        if form == Form::Conversation {
            let Some((owner, tag)) = self.listener(id) else { return };
            let by = self.session(from).and_then(Session::name).expect("senders have names");
            let event = Event::Accepted { tag, by, form, introduction: None, address: None };
            return self.say(owner, &event);
        }
        let Parcel { name, size, modified, .. } = parcel;
        let name = &name.0;
        let size = size.expect("files have sizes");
        let modified = modified.unwrap_or(0);
        self.announce_file(id, name, size, modified);
    }

    /// Tells the sender that its offer is refused.
    pub(super) fn on_refuse(
        &mut self,
        id: SessionId,
        tag: Tag,
        number: u32,
        reason: Option<String>,
    ) {
        let outcome = match self.find_offer(id, tag, number) {
            Err(refusal) => Outcome::Failed(refusal),
            Ok(offer) => {
                let by = self.session(id).and_then(Session::name).expect("offers are for names");
                let name = self.parcel_name(offer);
                let text = match reason {
                    Some(reason) => format!("{by} does not want {name}: {reason}"),
                    None => format!("{by} does not want {name}"),
                };
                self.unlist(offer);
                self.end_end(offer, Refused, text);
                Outcome::Done
            }
        };
        self.say(id, &Event::End { tag, outcome: &outcome });
    }

    fn parcel_name(&self, offer: OperationId) -> String {
        match self.offer_of(offer) {
            Some(offer) => escape_bytes(&offer.parcel().name.0).into_owned(),
            None => "it".to_owned(),
        }
    }

    fn find_offer(&self, id: SessionId, tag: Tag, number: u32) -> Result<OperationId, Refusal> {
        let session = self.session(id).expect("its request is at hand");
        let found = session.offers.iter().find(|waiting| waiting.number == number);
        found.map(|waiting| waiting.offer).ok_or_else(|| no_such_offer(tag, number))
    }

    /// An offer that nobody has answered.
    pub(super) fn offer_of(&self, id: OperationId) -> Option<&Offer> {
        self.operation(id)?.offer()
    }

    /// Takes an offer from the list of its receiver, and says who that is.
    fn unlist(&mut self, offer: OperationId) -> Option<(SessionId, u32)> {
        let open = self.offer_of(offer)?;
        let (to, number) = (open.to(), open.number());
        self.unlist_from(to, offer);
        Some((to, number))
    }

    fn unlist_from(&mut self, to: SessionId, offer: OperationId) {
        self.offers_count -= 1;
        if let Some(receiver) = self.session_mut(to) {
            receiver.offers.retain(|waiting| waiting.offer != offer);
        }
    }

    /// Ends an offer that nobody has answered; both sides hear why.
    pub(super) fn withdraw(
        &mut self,
        offer: OperationId,
        code: ErrorCode,
        to_sender: String,
        to_receiver: String,
    ) {
        if let Some((to, number)) = self.unlist(offer) {
            self.say_withdrawn(to, number, code, to_receiver);
            self.end_end(offer, code, to_sender);
        }
    }

    fn say_withdrawn(&mut self, to: SessionId, number: u32, code: ErrorCode, text: String) {
        let refusal = Refusal::new(0, code, text);
        self.say(to, &Event::OfferWithdrawn { number, refusal: &refusal });
    }

    /// The sender of an offer has gone.
    pub(super) fn on_offer_lost(&mut self, id: OperationId, offer: &Offer, who: Option<Name>) {
        self.unlist_from(offer.to(), id);
        self.say_withdrawn(offer.to(), offer.number(), PeerGone, gone(who));
    }

    /// The sender of an offer wants no more of it.
    pub(super) fn on_offer_cancel(&mut self, offer: OperationId) {
        let text = format!("{} has cancelled it", self.owner_name(offer));
        self.withdraw(offer, Cancelled, "you have cancelled it".to_owned(), text);
    }

    /// The sender of an offer may not send to others any more, for this reason.
    pub(super) fn on_offer_revoked(&mut self, offer: OperationId, own: String) {
        let text = format!("{} may not send any more", self.owner_name(offer));
        self.withdraw(offer, Denied, own, text);
    }

    /// The input of its sender, who speaks lines, has ended within the bytes of the file.
    pub(super) fn on_offer_cut(&mut self, offer: OperationId) {
        let text = "the input ended before all bytes that were announced had come".to_owned();
        self.withdraw(offer, BadArguments, text.clone(), text);
    }

    /// The sender of an offer hands in bytes although nobody has accepted.
    pub(super) fn on_early_input(&mut self, id: SessionId) {
        self.break_off(id, NOT_ACCEPTED);
    }

    /// Those who have offered something to a session that goes hear of it.
    pub(super) fn drop_offers_to(&mut self, id: SessionId, who: Option<Name>) {
        let Some(session) = self.session_mut(id) else { return };
        for waiting in std::mem::take(&mut session.offers) {
            self.offers_count -= 1;
            self.end_end(waiting.offer, PeerGone, gone(who));
        }
    }

    /// The time for an answer is over.
    pub(super) fn on_offer_late(&mut self, offer: OperationId) {
        let seconds = self.limits.offer_timeout.as_secs();
        let text = format!("nobody has answered within {seconds} s");
        self.withdraw(offer, TimedOut, text.clone(), text);
    }

    /// Nothing can come of offers any more when the server stops.
    pub(super) fn withdraw_all(&mut self) {
        let offers = self.operations.iter().filter(|(_, operation)| operation.offer().is_some());
        let offers: Vec<OperationId> = offers.map(|(_, operation)| operation.id()).collect();
        for offer in offers {
            let text = "the server is stopping".to_owned();
            self.withdraw(offer, ShuttingDown, text.clone(), text);
        }
    }
}

fn no_such_offer(tag: Tag, number: u32) -> Refusal {
    let text =
        format!("nothing is offered to you under the number {number}; it may have been withdrawn");
    Refusal::new(tag, NoSuchOffer, text)
}

/// The most that the news of an offer takes: JSON may write one byte of a name as six.
fn news_max_bytes(parcel: &Parcel) -> usize {
    let introduction = parcel.introduction.as_ref().map_or(0, |_| INTRODUCTION_MAX_BYTES);
    NEWS_BYTES + 6 * parcel.name.0.len() + introduction
}

/// What is said of somebody who is not there any more.
pub(super) fn gone(who: Option<Name>) -> String {
    match who {
        Some(name) => format!("{name} has gone"),
        None => "the other user has gone".to_owned(),
    }
}

impl Session {
    /// A number for the next offer, which no open one has: so many are not open at once.
    fn next_offer(&mut self) -> u32 {
        self.offers_made = self.offers_made.checked_add(1).unwrap_or(1);
        self.offers_made
    }
}
