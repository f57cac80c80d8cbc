//! Downloads and uploads, as the brain sees them: asked for, under way, ended at both sides.

use std::{collections::VecDeque, path::Path};

use super::{
    Brain, Effect, Link, OutcomeBody, Shown, Tag, Target, Task, between::Peer, escape_bytes, exit,
};
use crate::{
    client::{
        channel::Meeting, mover::peer::Taking, order::Local, outgoing::FilePart, progress::Size,
    },
    limits::CHUNK_MAX_BYTES,
    transfer::{Fault, Report, Segment, source::DiskFile},
    wire::{ErrorCode, Form},
};

/// While more than this waits for the connection, nothing of a transfer is put behind it: what
/// the user says meanwhile waits for no more.
const LINK_LOW_BYTES: usize = 128 * 1024;

/// What the thread of a transfer has to know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opening {
    /// Files of the server come.
    Fetch {
        /// What was asked for.
        paths: Vec<Vec<u8>>,
        /// Where it goes.
        target: Target,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// Bytes that may be taken before they are reported.
        credit_step_bytes: u32,
    },
    /// Files of ours go to another user.
    Give {
        /// Which.
        paths: Vec<Local>,
        /// Bytes a second, at most.
        limit: Option<u64>,
        /// How they go.
        form: Form,
        /// How the two clients meet, where both have told how they can.
        meeting: Option<Meeting>,
    },
    /// Files of another user come.
    Take {
        /// What and how.
        taking: Taking,
        /// See [`Opening::Give`].
        meeting: Option<Meeting>,
        /// Bytes that may be taken before they are reported.
        credit_step_bytes: u32,
    },
    /// Files of ours go.
    Store {
        /// Which.
        paths: Vec<Local>,
        /// Bytes a second, at most.
        limit: Option<u64>,
    },
}

impl Opening {
    /// Bytes a second, at most.
    pub fn limit(&self) -> Option<u64> {
        match self {
            Opening::Fetch { limit, .. }
            | Opening::Store { limit, .. }
            | Opening::Give { limit, .. } => *limit,
            Opening::Take { .. } => None,
        }
    }

    /// How the two clients meet, if they do.
    pub fn meeting(&self) -> Option<&Meeting> {
        match self {
            Opening::Give { meeting, .. } | Opening::Take { meeting, .. } => meeting.as_ref(),
            Opening::Fetch { .. } | Opening::Store { .. } => None,
        }
    }

    /// The same, for who opens the way.
    pub fn take_meeting(&mut self) -> Option<Meeting> {
        match self {
            Opening::Give { meeting, .. } | Opening::Take { meeting, .. } => meeting.take(),
            Opening::Fetch { .. } | Opening::Store { .. } => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Transfer {
    kind: Kind,
    /// The line that goes on with it.
    again: String,
    began_ms: u64,
    /// What our half of the conversation says and the connection has not taken.
    queue: VecDeque<Segment<DiskFile>>,
    /// How the server has ended it, if it failed with a name.
    ended: Option<Result<(), Fault>>,
    /// How our half has ended.
    over: Option<Result<(), Fault>>,
    /// It was given up: nothing of it is shown any more.
    is_abandoned: bool,
    /// The file at hand, its size and what is there of it.
    current: (Vec<u8>, u64, u64),
    /// When the progress was told last, and what was there then.
    told: (u64, u64),
    /// Files within folders, which are told of together.
    nested_files: u64,
    nested_bytes: u64,
    was_there_files: u64,
}

#[derive(Debug)]
enum Kind {
    Fetch { paths: Vec<Vec<u8>>, target: Target },
    Store { into: Option<Vec<u8>> },
    Peer(Box<Peer>),
}

impl Transfer {
    pub(super) fn fetch(
        paths: Vec<Vec<u8>>,
        target: Target,
        again: String,
        now_ms: u64,
    ) -> Transfer {
        Transfer::new(Kind::Fetch { paths, target }, again, now_ms)
    }

    pub(super) fn store(into: Option<Vec<u8>>, again: String, now_ms: u64) -> Transfer {
        Transfer::new(Kind::Store { into }, again, now_ms)
    }

    /// To or from another user.
    pub(super) fn peer(peer: Peer, again: String, now_ms: u64) -> Transfer {
        Transfer::new(Kind::Peer(Box::new(peer)), again, now_ms)
    }

    pub(super) fn peer_mut(&mut self) -> Option<&mut Peer> {
        match &mut self.kind {
            Kind::Peer(peer) => Some(peer),
            Kind::Fetch { .. } | Kind::Store { .. } => None,
        }
    }

    /// Both ends take part from now on. `None` where that cannot be, or nobody wants it any more.
    pub(super) fn join(&mut self, form: Form, now_ms: u64) -> Option<&mut Peer> {
        (self.began_ms, self.told) = (now_ms, (now_ms, 0));
        let is_wanted = self.is_wanted();
        let peer = self.peer_mut().filter(|peer| peer.form.is_none() && is_wanted)?;
        peer.form = Some(form);
        Some(peer)
    }

    fn new(kind: Kind, again: String, now_ms: u64) -> Transfer {
        Transfer {
            kind,
            again,
            began_ms: now_ms,
            queue: VecDeque::new(),
            ended: None,
            over: None,
            is_abandoned: false,
            current: (Vec::new(), 0, 0),
            told: (now_ms, 0),
            nested_files: 0,
            nested_bytes: 0,
            was_there_files: 0,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.is_abandoned && self.over.is_none()
    }

    /// What was asked for, for a file with this name at the receiver.
    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let Kind::Fetch { paths, target } = &self.kind else { return name.to_vec() };
        let is_it = |path: &&Vec<u8>| {
            let last = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            name.strip_prefix(b"client_") == Some(last)
        };
        let is_renamed = *target != Target::Beside && !name.contains(&b'/');
        let single = || paths.first().filter(|_| paths.len() == 1 && is_renamed);
        paths.iter().find(is_it).or_else(single).cloned().unwrap_or_else(|| name.to_vec())
    }

    /// Where the file of this name at the receiver is, for people.
    fn place_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        use std::os::unix::ffi::OsStrExt as _;
        match &self.kind {
            Kind::Fetch { target: Target::Stdout, .. } => None,
            Kind::Fetch { target: Target::Beside, .. } => Some(name.to_vec()),
            Kind::Fetch { target: Target::File(path), .. } => {
                let parent = path.parent().unwrap_or(Path::new(""));
                let path = parent.join(std::ffi::OsStr::from_bytes(name));
                Some(path.as_os_str().as_bytes().to_vec())
            }
            Kind::Store { into: None } | Kind::Peer(_) => Some(name.to_vec()),
            Kind::Store { into: Some(into) } => Some([into, &b"/"[..], name].concat()),
        }
    }
}

/// Puts the next piece of what a transfer says on the connection: how many bytes, where there is
/// room and something to say.
pub fn pump_queue(
    link: &mut Link,
    tag: Tag,
    queue: &mut VecDeque<Segment<DiskFile>>,
) -> Option<usize> {
    let room = link.input_room(tag).min(CHUNK_MAX_BYTES);
    if room == 0 || link.waiting() >= LINK_LOW_BYTES {
        return None;
    }
    match queue.front_mut()? {
        Segment::Bytes(bytes) => {
            let count = bytes.len().min(room);
            link.input(tag, &bytes[..count]);
            if count == bytes.len() {
                queue.pop_front();
            } else {
                bytes.drain(..count);
            }
            Some(count)
        }
        Segment::File { file, offset, length } => {
            let count = room.min(*length);
            let part = FilePart { file: file.clone(), offset: *offset, length: count };
            link.input_file(tag, part);
            *offset += count as u64;
            *length -= count;
            if *length == 0 {
                queue.pop_front();
            }
            Some(count)
        }
    }
}

impl Brain {
    /// Our half of the conversation has said something.
    pub fn handle_said(&mut self, tag: Tag, segments: Vec<Segment<DiskFile>>) {
        if let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) {
            transfer.queue.extend(segments);
        }
        self.pump();
    }

    /// Moves on what transfers have to say, as far as the server and the connection take it.
    pub fn pump(&mut self) {
        let tags: Vec<_> = self.tasks.keys().copied().collect();
        for tag in tags {
            let mut taken = 0;
            while let Some(count) = self.pump_one(tag) {
                taken += count;
            }
            if taken > 0 {
                self.effects.push_back(Effect::Taken(tag, taken));
            }
            self.end_input_of(tag);
        }
    }

    /// Tells another user that we have no more to say, once all is said.
    fn end_input_of(&mut self, tag: Tag) {
        let super::Online::Here(link) = &mut self.online else { return };
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let is_over = transfer.over.is_some() && transfer.queue.is_empty();
        // Whoever gets a file as it is has no input that could end.
        if let Some(peer) = transfer.peer_mut().filter(|peer| is_over && !peer.takes_raw()) {
            link.input_end(tag, peer.hash.as_ref().map_or(&b""[..], |hash| hash));
        }
    }

    fn pump_one(&mut self, tag: Tag) -> Option<usize> {
        let super::Online::Here(link) = &mut self.online else { return None };
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return None };
        pump_queue(link, tag, &mut transfer.queue)
    }

    /// What has happened to the files of a transfer.
    pub fn handle_reports(&mut self, tag: Tag, reports: Vec<Report>, now_ms: u64) {
        for report in reports {
            let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
            if transfer.is_abandoned {
                return;
            }
            match report {
                Report::Found(_) => {}
                Report::Begun { name, size, from, starts_over } => {
                    transfer.current = (name.clone(), size, from);
                    transfer.told = (now_ms, from);
                    let is_top = !name.contains(&b'/');
                    let (path, shown) = (transfer.path_of(&name), escape_bytes(&name));
                    let notice = match (starts_over, from) {
                        (true, _) => Some(format!(
                            "{shown}: the source is not what was begun with; starting over"
                        )),
                        (false, from) if from > 0 && from < size => {
                            Some(format!("{shown}: going on at {} of {}", Size(from), Size(size)))
                        }
                        _ => None,
                    };
                    if is_top || self.setup.tells_every_file {
                        self.show(Shown::File { path, size });
                    }
                    notice.into_iter().for_each(|text| self.show(Shown::Notice(text)));
                }
                Report::Moved(bytes) => {
                    transfer.current.2 += bytes;
                    self.tell_progress(tag, now_ms);
                }
                Report::Stored { name, size, hash, was_there } => {
                    self.handle_stored(tag, &name, (size, hash, was_there), now_ms);
                }
                Report::Failed { name, fault } => {
                    let path = transfer.path_of(&name);
                    let text = format!("{}: {}", escape_bytes(&path), fault.text);
                    self.refuse(fault.code, &text);
                }
            }
        }
    }

    fn handle_stored(
        &mut self,
        tag: Tag,
        name: &[u8],
        (size, hash, was_there): (u64, [u8; 32], bool),
        now_ms: u64,
    ) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let nested = memchr::memchr(b'/', name);
        if nested.is_some() {
            transfer.nested_files += 1;
            transfer.was_there_files += u64::from(was_there);
            transfer.nested_bytes += size;
            if !self.setup.tells_every_file {
                return;
            }
        }
        let seconds = now_ms.saturating_sub(transfer.began_ms) as f64 / 1000.0;
        if let Kind::Peer(peer) = &transfer.kind {
            let shown = peer.passed(name, (size, hash, was_there), seconds);
            return self.show(shown);
        }
        let (path, target) = (transfer.path_of(name), transfer.place_of(name));
        let is_upload = matches!(transfer.kind, Kind::Store { .. });
        let hash = blake3::Hash::from(hash).to_string();
        self.show(Shown::Saved { path, target, size, hash, seconds, is_upload, was_there });
    }

    fn tell_progress(&mut self, tag: Tag, now_ms: u64) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let Some(every_ms) = self.setup.progress_ms else { return };
        let (told_ms, told_bytes) = transfer.told;
        let passed_ms = now_ms.saturating_sub(told_ms);
        let (name, size, received) = &transfer.current;
        let (size, received) = (*size, *received);
        if passed_ms < every_ms || received >= size {
            return;
        }
        let path = transfer.path_of(name);
        transfer.told = (now_ms, received);
        let per_second = received.saturating_sub(told_bytes) * 1000 / passed_ms.max(1);
        self.show(Shown::Progress { path, received, size, per_second });
    }

    /// Our half of the conversation is over.
    pub fn handle_moved(&mut self, tag: Tag, outcome: Result<(), Fault>, now_ms: u64) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let is_local = outcome.is_err() && transfer.ended.is_none();
        let gets_raw = transfer.peer_mut().is_some_and(|peer| peer.takes_raw());
        transfer.over = Some(outcome);
        // Who talks to another user has said there what is wrong.
        let talks = transfer.peer_mut().map(|peer| peer.form == Some(Form::Conversation));
        if is_local || talks.is_some() {
            // What we had to say about it is on its way, if anything; the server ends it.
            self.pump();
        }
        if is_local
            && talks != Some(true)
            && let Some(link) = self.link()
        {
            if !gets_raw {
                link.input_end(tag, b"");
            }
            link.cancel(tag);
        }
        self.end_transfer(tag, now_ms);
        self.settle();
    }

    /// The server has ended a transfer.
    pub(super) fn handle_transfer_end(&mut self, tag: Tag, outcome: OutcomeBody<'_>, now_ms: u64) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        let hash = match &outcome {
            OutcomeBody::Sent { hash } => blake3::Hash::from_hex(&**hash).ok(),
            _ => None,
        };
        let hash = hash.map(|hash| *hash.as_bytes());
        transfer.ended = Some(match outcome {
            OutcomeBody::Failed { code, text } => Err(Fault::new(code, text.into_owned())),
            _ => Ok(()),
        });
        let is_good = matches!(transfer.ended, Some(Ok(())));
        let mut close = Effect::Close(tag);
        if let Kind::Peer(peer) = &mut transfer.kind {
            if peer.takes_raw() && is_good {
                peer.hash = hash;
                close = Effect::Verify(tag, hash);
            }
            if peer.form.is_none() {
                transfer.over = Some(Ok(()));
            }
        }
        self.effects.push_back(close);
        if self.tasks.get(&tag).is_some_and(|task| match task {
            Task::Transfer(transfer) => transfer.is_abandoned,
            _ => false,
        }) {
            self.remove_transfer(tag);
            return self.settle();
        }
        self.end_transfer(tag, now_ms);
    }

    fn remove_transfer(&mut self, tag: Tag) -> Option<Box<Transfer>> {
        let Some(Task::Transfer(mut transfer)) = self.tasks.remove(&tag) else { return None };
        if transfer.peer_mut().is_some_and(|peer| !peer.is_sent()) {
            self.count_taken();
        }
        Some(transfer)
    }

    /// Says how a transfer ended, once both sides are at their end.
    fn end_transfer(&mut self, tag: Tag, now_ms: u64) {
        let Some(Task::Transfer(transfer)) = self.tasks.get(&tag) else { return };
        if transfer.is_abandoned || transfer.ended.is_none() || transfer.over.is_none() {
            return;
        }
        let Some(transfer) = self.remove_transfer(tag) else { return };
        self.effects.push_back(Effect::Abandon(tag));
        self.tell_end(&transfer, now_ms);
        let (ended, over) = (transfer.ended.expect("looked at"), transfer.over.expect("as well"));
        match (over, ended) {
            (Ok(()), Ok(())) => {}
            // The server's reason is the nearer one where ours is only that it has ended.
            (Err(own), Err(fault)) if own.code == ErrorCode::Protocol => {
                self.refuse(fault.code, &fault.text);
            }
            (Err(fault), _) if fault.code == ErrorCode::SystemError => {
                self.fail(exit::FAILED);
                self.show(Shown::failure(fault.text));
            }
            (Err(fault), _) | (_, Err(fault)) => self.refuse(fault.code, &fault.text),
        }
    }

    /// Tells of what is only known at the end.
    fn tell_end(&mut self, transfer: &Transfer, now_ms: u64) {
        let seconds = now_ms.saturating_sub(transfer.began_ms) as f64 / 1000.0;
        let is_good = matches!((&transfer.ended, &transfer.over), (Some(Ok(())), Some(Ok(()))));
        if let Kind::Peer(peer) = &transfer.kind
            && is_good
        {
            peer.sent_raw(seconds).into_iter().for_each(|shown| self.show(shown));
        }
        let (files, size) = (transfer.nested_files, transfer.nested_bytes);
        if files == 0 || self.setup.tells_every_file {
            return;
        }
        let was_there = transfer.was_there_files;
        self.show(match &transfer.kind {
            Kind::Peer(peer) => peer.folders((files, size, was_there), seconds),
            kind => {
                let is_upload = matches!(kind, Kind::Store { .. });
                Shown::SavedFolder { files, size, was_there, is_upload, seconds }
            }
        });
    }

    /// Drops the thread of a transfer, and says how to go on with it.
    pub(super) fn abandon(&mut self, tag: Tag) {
        let Some(Task::Transfer(transfer)) = self.tasks.get_mut(&tag) else { return };
        if std::mem::replace(&mut transfer.is_abandoned, true) {
            return;
        }
        transfer.queue.clear();
        let text = match &transfer.kind {
            Kind::Peer(peer) => peer.broken_text(&transfer.again),
            _ => format!("broken off; what is there is kept, go on with: {}", transfer.again),
        };
        self.effects.push_back(Effect::Abandon(tag));
        self.show(Shown::Notice(text));
    }
}
