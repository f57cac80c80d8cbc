//! What goes from peer to peer: offers, answers, files and conversations, and whether what has
//! arrived is what was sent.

use std::collections::{BTreeMap, BTreeSet};

use sixfour::wire::{
    self, Blob, Dialect, ErrorCode, Form, Name, Proposal,
    control::{DetailBody, OutcomeBody},
    frame::client,
};

use crate::{
    LIMITS,
    call::{Asked, Call},
    jobs::{file_byte, input_byte},
    peer::Peer,
    rng::Rng,
};

/// Something for another peer; its name carries its number and its size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Parcel {
    pub id: usize,
    pub size: usize,
    /// The most that its end speaks.
    pub form: Form,
    /// The content has come with the request, or was cut off.
    pub inline: bool,
    pub cut: bool,
    /// The number under which it was offered, for who takes it.
    pub number: u32,
}

/// All parcels that there have ever been.
#[derive(Default)]
pub struct Depot {
    count: usize,
    /// Said to be delivered; there as a whole.
    delivered: BTreeSet<usize>,
    arrived: BTreeSet<usize>,
    /// Bytes said and heard by the end that offered (false) and the one that accepted (true).
    talks: BTreeMap<(usize, bool), (usize, usize)>,
    /// How parcels have ended.
    pub endings: Vec<&'static str>,
}

impl Depot {
    /// What is said to have arrived has, and what was said was heard.
    pub fn judge(&self) {
        let lost: Vec<_> = self.delivered.difference(&self.arrived).collect();
        assert!(lost.is_empty(), "{lost:?} were said to be delivered");
        for ((id, _), (said, heard)) in self.talks.iter().filter(|((_, accepts), _)| *accepts) {
            if let Some(other) = self.talks.get(&(*id, false)) {
                assert_eq!(*other, (*heard, *said), "conversation {id} has lost something");
            }
        }
    }
}

impl Parcel {
    fn name(&self) -> String {
        format!("g{}.{}", self.id, self.size)
    }

    /// What somebody was offered.
    fn of(name: &[u8], form: Form, number: u32) -> Parcel {
        let name = std::str::from_utf8(name).expect("our own names");
        let (id, size) = name[1..].split_once('.').expect("a number and a size");
        let number_of = |text: &str| text.parse().expect("a number");
        let (id, size) = (number_of(id), number_of(size));
        Parcel { id, size, form, inline: false, cut: false, number }
    }
}

/// Offers, as the peer that makes or gets them sees them.
impl Peer {
    pub fn offer(&mut self, rng: &mut Rng, depot: &mut Depot, names: usize) {
        depot.count += 1;
        let size = if rng.percent(30) { rng.range(0, 4000) } else { rng.range(0, 700) };
        let is_json = self.dialect == Dialect::Json;
        let inline = is_json || !self.is_line() && rng.percent(15);
        let cut = self.is_line() && size > 0 && rng.percent(8);
        let talks = !self.is_line() && !inline && rng.percent(50);
        let form = if talks { Form::Conversation } else { Form::Raw };
        let parcel = Parcel { id: depot.count, size, form, inline, cut, number: 0 };
        let (name, to) = (parcel.name(), format!("p{}", rng.range(0, names)));
        let content =
            |count: usize| -> Vec<u8> { (0..count).map(|at| file_byte(size, at)).collect() };
        let tag = self.next_tag();
        if is_json {
            self.offer_json(tag, &to, &name, &content(size));
        } else if self.is_line() {
            self.to_hub.extend(format!("send {size} {name} {to}\n").as_bytes());
            let sent = if cut { rng.range(0, size - 1) } else { size };
            self.to_hub.extend(content(sent));
            self.half_closed |= cut;
        } else {
            let data = inline.then(|| Blob(content(size).into()));
            let to = Name::parse(&to).expect("a name");
            let file = wire::Parcel::file(name.as_bytes(), size as u64);
            let size = file.size.filter(|_| !inline);
            let proposal = Proposal { to, parcel: wire::Parcel { size, form, ..file }, data };
            self.json_frame(client::REQUEST, tag, &wire::Call::Send(Box::new(proposal)));
        }
        let mut call = Call::new(tag, Asked::Send(parcel), 0);
        call.input_ended = self.is_line() || inline;
        self.calls.push_back(call);
    }

    /// Accepts or refuses the oldest offer.
    pub fn answer(&mut self, rng: &mut Rng) -> &'static str {
        if self.offers.is_empty() || self.leaving || self.half_closed {
            return "no offer";
        }
        let offered = self.offers.remove(0);
        let (number, tag) = (offered.number, self.next_tag());
        if rng.percent(25) {
            let reason: Option<&str> = rng.percent(50).then_some("no room");
            match self.dialect {
                Dialect::Line => {
                    self.line(&format!("refuse {number} {}", reason.unwrap_or_default()));
                    return "refuse";
                }
                Dialect::Json => self.refuse_json(tag, number, reason),
                Dialect::Frame => {
                    let body = wire::Call::Refuse { offer: number, reason: reason.map(Into::into) };
                    self.json_frame(client::REQUEST, tag, &body);
                }
            }
            self.calls.push_back(Call::new(tag, Asked::Refuse(offered), 0));
            return "refuse";
        }
        let form = if rng.percent(70) { Form::Conversation } else { Form::Raw };
        match self.dialect {
            Dialect::Line => self.line(&format!("accept {number}")),
            Dialect::Json => self.accept_json(tag, number, form),
            Dialect::Frame => {
                let body = wire::Call::Accept { offer: number, form, introduction: None };
                self.json_frame(client::REQUEST, tag, &body);
            }
        }
        let can_talk = offered.form != Form::Raw && self.dialect == Dialect::Frame;
        let form = if can_talk { form } else { Form::Raw };
        let taken = Asked::Take(Parcel { form, ..offered });
        self.calls.push_back(Call::new(tag, taken, 0));
        "accept"
    }

    /// One more part of what goes to another peer, or the end of it.
    pub fn pass_on(&mut self, at: usize, rng: &mut Rng, in_earnest: bool) {
        let call = &mut self.calls[at];
        let (tag, room, sent) = (call.tag, call.input_room, call.input_sent);
        let (Asked::Send(parcel) | Asked::Take(parcel)) = call.asked else { return };
        let is_sender = matches!(call.asked, Asked::Send(_));
        let (left, byte): (usize, fn(usize, usize) -> u8) = match call.joined {
            Some(Form::Raw) if is_sender => (parcel.size - sent, file_byte),
            // A client that could not store what comes has said so.
            None if !is_sender
                && parcel.form == Form::Raw
                && !call.input_ended
                && !in_earnest
                && rng.percent(15) =>
            {
                call.input_ended = true;
                call.has_given_up = true;
                return self.frame(client::END, tag, b"");
            }
            Some(Form::Conversation) if !in_earnest => (300, |_, at| input_byte(at)),
            Some(Form::Conversation) => (0, |_, _| 0),
            _ => return,
        };
        if call.input_ended {
            return;
        }
        let may_end = left == 0 || call.joined == Some(Form::Conversation) && rng.percent(10);
        let count = rng.range(0, left.min(room).min(300));
        if may_end {
            call.input_ended = true;
            let hash: &[u8] = if parcel.id.is_multiple_of(2) { &[7; 32] } else { b"" };
            self.frame(client::END, tag, hash);
        } else if count > 0 {
            let bytes: Vec<u8> = (sent..sent + count).map(|at| byte(parcel.size, at)).collect();
            call.input_room -= count;
            call.input_sent += count;
            self.frame(client::DATA, tag, &bytes);
        }
    }

    /// Takes in what a frame says of offers and pipes; false where it is about something else.
    pub fn hear_of_parcel(&mut self, tag: u32, detail: &DetailBody<'_>) -> bool {
        match detail {
            DetailBody::Offer { offer, from, name, size, form, .. } => {
                let parcel = Parcel::of(&name.0, *form, *offer);
                assert_eq!((tag, *size), (0, Some(parcel.size as u64)));
                assert_ne!(from.as_str(), format!("p{}", self.name), "nobody writes to oneself");
                self.note_offer(parcel);
            }
            DetailBody::OfferWithdrawn { offer, .. } => {
                assert_eq!(tag, 0);
                self.forget_offer(*offer);
            }
            DetailBody::Accepted { form, .. } => {
                let call = self.find(tag);
                assert_eq!(call.joined, None, "joined twice");
                call.joined = Some(*form);
                let (Asked::Send(parcel) | Asked::Take(parcel)) = &call.asked else {
                    panic!("{:?} was accepted", call.asked)
                };
                assert!(*form == Form::Raw || parcel.form == Form::Conversation);
            }
            DetailBody::DataEnd => {
                let call = self.find(tag);
                assert_eq!(call.joined, Some(Form::Conversation));
                assert!(!std::mem::replace(&mut call.data_ended, true), "it ends once");
            }
            _ => return false,
        }
        true
    }

    fn note_offer(&mut self, parcel: Parcel) {
        let is_new = self.offers.iter().all(|it| it.number != parcel.number);
        assert!(is_new && parcel.number > self.last_offer, "numbers of offers are not used again");
        self.last_offer = parcel.number;
        self.offers.push(parcel);
    }

    /// An offer is withdrawn; our answer to it may be on its way.
    fn forget_offer(&mut self, number: u32) {
        assert!(number <= self.last_offer, "what was never offered is withdrawn");
        self.offers.retain(|it| it.number != number);
        assert!(self.withdrawn.insert(number), "withdrawn twice");
    }

    /// What is not offered any more was withdrawn, and that was said before.
    pub fn judge_missing_offer(&mut self, tag: u32, outcome: &OutcomeBody<'_>) {
        let is_missing =
            matches!(outcome, OutcomeBody::Failed { code: ErrorCode::NoSuchOffer, .. });
        let (Asked::Take(parcel) | Asked::Refuse(parcel)) = self.find(tag).asked else { return };
        assert!(!is_missing || self.withdrawn.contains(&parcel.number), "{parcel:?} is offered");
    }

    /// The same for lines.
    pub fn hear_offer_line(&mut self, line: &str) -> bool {
        if let Some(rest) = line.strip_prefix("offer ") {
            let words: Vec<&str> = rest.split(' ').collect();
            let [number, from, size, name] = words[..] else { panic!("{line}") };
            assert!(Name::parse(from).is_some());
            let number = number.parse().expect("a number");
            let parcel = Parcel::of(name.as_bytes(), Form::Raw, number);
            assert_eq!(size, parcel.size.to_string());
            self.note_offer(parcel);
            return true;
        }
        let Some(rest) = line.strip_prefix("offer-withdrawn ") else { return false };
        let number = rest.split(' ').next().and_then(|word| word.parse().ok());
        self.forget_offer(number.expect("a number"));
        true
    }

    /// Lines: an error that ends what goes to or comes from another peer; false where it is about
    /// something else.
    pub fn hear_parcel_error(&mut self, code: ErrorCode, text: &str, depot: &mut Depot) -> bool {
        if code == ErrorCode::NoSuchOffer {
            let number = text.split(&[' ', ';'][..]).find_map(|word| word.parse::<u32>().ok());
            let number = number.expect("the number stands in the error");
            assert!(self.withdrawn.contains(&number), "{text}, and yet it is");
        }
        let Some(front) = self.calls.front() else {
            return code == ErrorCode::NoSuchOffer;
        };
        let is_over = match front.asked {
            Asked::Send(parcel) => {
                let is_cut = text.starts_with("the input ended before");
                assert!(!is_cut || parcel.cut);
                let words = [
                    "nobody called `",
                    "to take it;",
                    "nothing was offered",
                    "offers to answer",
                    "does not keep up; try later",
                    "nobody has answered within",
                    " has gone",
                    "has cancelled it",
                    "has given it up",
                    "does not want g",
                    "nothing has moved",
                    "too many offers",
                    "the server is stopping",
                    "the input ended before",
                    "bytes that were announced",
                ];
                let is_letter = text.contains("did not get") || text.contains("the message was");
                let fits = |word: &&str| match *word {
                    "nobody called `" => text.contains(word) && text.contains("to take it;"),
                    word => text.contains(word),
                };
                !is_letter && words.iter().any(fits)
            }
            Asked::Take(parcel) => {
                let number = format!("under the number {};", parcel.number);
                text.contains(&number) || text == "the server is stopping"
            }
            _ => false,
        };
        if is_over {
            depot.endings.push(ending(code));
            self.calls.pop_front();
        }
        is_over || code == ErrorCode::NoSuchOffer
    }

    /// Lines: a line that answers an offer of ours.
    pub fn hear_passing(&mut self, line: &str, depot: &mut Depot) {
        let call = self.calls.front_mut().expect("something was offered");
        let Asked::Send(parcel) = call.asked else { panic!("{line} answers {call:?}") };
        if line.starts_with("accepted p") {
            assert_eq!(call.joined.replace(Form::Raw), None, "accepted twice");
        } else {
            assert_eq!((line, call.joined), ("delivered", Some(Form::Raw)));
            depot.delivered.insert(parcel.id);
            depot.endings.push("delivered");
            self.calls.pop_front();
        }
    }
}

/// A byte at this place of what comes from another peer.
pub fn byte_of(parcel: &Parcel, joined: Option<Form>, announced: bool, at: usize) -> u8 {
    match joined {
        Some(Form::Conversation) => input_byte(at),
        _ => {
            assert!(announced && at < parcel.size, "more than was announced");
            file_byte(parcel.size, at)
        }
    }
}

/// Judges how the end of a parcel has ended.
pub fn judge_end(call: &Call, outcome: &OutcomeBody<'_>, depot: &mut Depot) {
    let (Asked::Send(parcel) | Asked::Take(parcel)) = &call.asked else {
        panic!("no parcel: {call:?}")
    };
    let accepts = matches!(call.asked, Asked::Take(_));
    match outcome {
        OutcomeBody::Delivered { .. } => {
            assert!(!accepts && call.input_ended && call.joined == Some(Form::Raw));
            assert!(parcel.inline || call.input_sent == parcel.size);
            depot.delivered.insert(parcel.id);
            depot.endings.push("delivered");
        }
        OutcomeBody::Done if call.joined == Some(Form::Conversation) => {
            assert!(call.input_ended && call.data_ended, "{call:?}");
            let said = (call.input_sent, call.got);
            assert_eq!(depot.talks.insert((parcel.id, accepts), said), None);
            depot.endings.push("talked");
        }
        OutcomeBody::Sent { .. } | OutcomeBody::Done => {
            assert!(accepts && call.announced);
            note_arrival(parcel, call.got, depot);
        }
        OutcomeBody::Failed { code: ErrorCode::Protocol, .. } => {
            assert!(accepts && call.has_given_up, "{call:?}");
            depot.endings.push("end of who gets");
        }
        OutcomeBody::Failed { code, .. } => {
            use ErrorCode::*;
            let is_known = matches!(
                code,
                NoSuchUser
                    | NoSuchOffer
                    | PeerBusy
                    | PeerGone
                    | Refused
                    | TooMany
                    | Busy
                    | TimedOut
                    | Cancelled
                    | ShuttingDown
                    | BadArguments
            );
            assert!(is_known, "{call:?} has ended with {code}");
            depot.endings.push(ending(*code));
        }
        other => panic!("{call:?} has ended with {other:?}"),
    }
}

/// All of a file is there.
pub fn note_arrival(parcel: &Parcel, got: usize, depot: &mut Depot) {
    assert_eq!(got, parcel.size);
    assert!(depot.arrived.insert(parcel.id), "it arrives once");
}

fn ending(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::Refused => "refused",
        ErrorCode::PeerGone => "peer gone",
        ErrorCode::TimedOut => "too late",
        ErrorCode::Cancelled => "cancelled",
        ErrorCode::NoSuchUser => "nobody there",
        ErrorCode::NoSuchOffer => "no such offer",
        ErrorCode::PeerBusy | ErrorCode::Busy | ErrorCode::TooMany => "too many offers",
        ErrorCode::BadArguments => "cut input",
        _ => "other ending",
    }
}

/// The window of a peer that sends, in one place.
pub const WINDOW: usize = LIMITS.input_window_bytes as usize;
