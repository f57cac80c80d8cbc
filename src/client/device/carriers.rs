//! Files between a device and another user that go as a conversation: straight to the other
//! client, or sealed through the server. Pure; the loop has the threads.
//!
//! ```text
//!   accepted ──▶ Open ──▶ thread says, hears ──▶ over ──▶ input end ──▶ END ──▶ Drop, and told
//! ```

use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
};

use super::talk::Offered;
use crate::{
    client::{
        brain::{Opening, pump_queue},
        core::order::Local,
        link::Link,
        meet::Meet,
        mover::peer::Taking,
    },
    transfer::{Fault, Report, Segment, sink::Existing, source::DiskFile},
    wire::{ErrorCode, Form, OneTimeToken, Refusal, Tag, escape::escape_bytes, event::Object},
};

/// What the loop does for them.
#[derive(Debug, PartialEq)]
pub enum Carriage {
    /// Start the thread.
    Open(Tag, Opening),
    /// This has come for it from the server.
    Bytes(Tag, Vec<u8>),
    /// The connection has taken so many bytes of what it has said.
    Taken(Tag, usize),
    /// The other user says no more.
    PeerEnded(Tag),
    /// Drop the thread.
    Drop(Tag),
}

/// What is offered, until it is taken.
#[derive(Debug)]
struct Offering {
    path: PathBuf,
    token: Option<OneTimeToken>,
}

#[derive(Debug)]
struct Carrier {
    /// What comes; `None`: what goes is ours.
    offered: Option<Offered>,
    queue: VecDeque<Segment<DiskFile>>,
    /// How the thread has ended.
    over: Option<Result<(), Fault>>,
    failed: Option<Fault>,
    /// The name that the file has got.
    saved: Vec<u8>,
}

/// How one has ended.
#[derive(Debug, PartialEq)]
pub enum Ended {
    /// What we have sent.
    Sent(Result<(), Refusal>),
    /// What we have received, and its name here.
    Received(Offered, Result<Vec<u8>, String>),
}

/// All of them.
#[derive(Debug, Default)]
pub struct Carriers {
    /// Introductions.
    pub meet: Meet,
    offering: Option<Offering>,
    under_way: BTreeMap<Tag, Carrier>,
    work: VecDeque<Carriage>,
}

impl Carriers {
    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Carriage> {
        self.work.pop_front()
    }

    /// Something is about to be offered: what is said with it.
    pub fn offer(&mut self, path: PathBuf) -> Option<Object> {
        let token = self.meet.token();
        self.offering = Some(Offering { path, token });
        self.meet.introduce(token)
    }

    /// The other user takes it, and talks.
    pub fn give(&mut self, tag: Tag, contact: Option<(&Object, &str)>) {
        let Some(Offering { path, token }) = self.offering.take() else { return };
        let (said, seen) = contact.unzip();
        let meeting = self.meet.meeting(said, seen, token).filter(|_| token.is_some());
        let (paths, form) = (vec![Local::Path(path)], Form::Conversation);
        self.begin(tag, None, Opening::Give { paths, limit: None, form, meeting });
    }

    /// What was offered begins to come.
    pub fn take(&mut self, tag: Tag, offered: Offered, credit_step_bytes: u32) {
        let taking = Taking {
            from: offered.from,
            name: offered.name.clone(),
            size: offered.size,
            files: 1,
            modified: None,
            form: Form::Conversation,
            existing: Existing::Keep,
        };
        let meeting = offered.meeting.clone();
        self.begin(tag, Some(offered), Opening::Take { taking, meeting, credit_step_bytes });
    }

    fn begin(&mut self, tag: Tag, offered: Option<Offered>, opening: Opening) {
        let (over, failed, saved) = (None, None, Vec::new());
        let carrier = Carrier { offered, queue: VecDeque::new(), over, failed, saved };
        self.under_way.insert(tag, carrier);
        self.work.push_back(Carriage::Open(tag, opening));
    }

    /// Whether this is one of them.
    pub fn has(&self, tag: Tag) -> bool {
        self.under_way.contains_key(&tag)
    }

    /// Bytes have come for it.
    pub fn hear(&mut self, tag: Tag, bytes: Vec<u8>) {
        self.work.push_back(Carriage::Bytes(tag, bytes));
    }

    /// The other user says no more.
    pub fn peer_ended(&mut self, tag: Tag) {
        if self.has(tag) {
            self.work.push_back(Carriage::PeerEnded(tag));
        }
    }

    /// The thread says this.
    pub fn say(&mut self, tag: Tag, segments: Vec<Segment<DiskFile>>) {
        if let Some(carrier) = self.under_way.get_mut(&tag) {
            carrier.queue.extend(segments);
        }
    }

    /// This has happened to the file.
    pub fn note(&mut self, tag: Tag, reports: Vec<Report>) {
        let Some(carrier) = self.under_way.get_mut(&tag) else { return };
        for report in reports {
            match report {
                Report::Failed { name, fault: Fault { code, text } } => {
                    let text = format!("{}: {text}", escape_bytes(&name));
                    carrier.failed = Some(Fault { code, text });
                }
                Report::Stored { name, .. } => carrier.saved = name,
                _ => {}
            }
        }
    }

    /// The thread is over.
    pub fn over(&mut self, tag: Tag, outcome: Result<(), Fault>) {
        if let Some(carrier) = self.under_way.get_mut(&tag) {
            carrier.over = Some(outcome);
        }
    }

    /// Moves on what threads have said, as far as the connection takes it.
    pub fn pump(&mut self, link: &mut Link) {
        for (tag, carrier) in &mut self.under_way {
            let mut taken = 0;
            while let Some(count) = pump_queue(link, *tag, &mut carrier.queue) {
                taken += count;
            }
            if taken > 0 {
                self.work.push_back(Carriage::Taken(*tag, taken));
            }
            if carrier.over.is_some() && carrier.queue.is_empty() {
                link.input_end(*tag, b"");
            }
        }
    }

    /// The server has ended it, for this reason if it failed.
    pub fn end(&mut self, tag: Tag, ended: Result<(), Refusal>) -> Option<Ended> {
        let Carrier { offered, over, failed, saved, .. } = self.under_way.remove(&tag)?;
        self.work.push_back(Carriage::Drop(tag));
        let own = match (over, failed) {
            (_, Some(fault)) | (Some(Err(fault)), None) => Some(Err(fault)),
            (Some(Ok(())), None) => Some(Ok(())),
            (None, None) => None,
        };
        let refusal = |fault: Fault| Refusal::new(0, fault.code, fault.text);
        // The server's reason is the nearer one where ours is only that it has ended.
        let ended = match own {
            Some(Ok(())) if offered.is_some() => Ok(()),
            Some(Err(fault)) if ended.is_ok() || fault.code != ErrorCode::Protocol => {
                Err(refusal(fault))
            }
            _ => ended,
        };
        Some(match offered {
            Some(offered) => {
                let ended = ended.map(|()| saved).map_err(|it| it.text.into_owned());
                Ended::Received(offered, ended)
            }
            None => Ended::Sent(ended),
        })
    }

    /// All are lost with the connection.
    pub fn lose(&mut self, why: &str) -> Vec<Ended> {
        self.offering = None;
        let tags: Vec<Tag> = self.under_way.keys().copied().collect();
        let lost = || Err(Refusal::new(0, ErrorCode::PeerGone, why.to_owned()));
        tags.into_iter().filter_map(|tag| self.end(tag, lost())).collect()
    }
}
