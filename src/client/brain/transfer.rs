//! Downloads and uploads, as the brain sees them: asked for, under way, ended at both sides.

use std::{collections::VecDeque, path::Path};

use super::{
    Brain, Effect, Link, OutcomeBody, Shown, Tag, Target, Task, between::Peer, escape_bytes, exit,
};
use crate::{
    client::{core::order::Local, outgoing::FilePart, progress::Size},
    limits::CHUNK_MAX_BYTES,
    transfer::{Fault, Report, Segment, source::DiskFile},
    wire::{ErrorCode, Form},
};

/// While more than this waits for the connection, nothing of a transfer is put behind it: what
/// the user says meanwhile waits for no more.
const LINK_LOW_BYTES: usize = 128 * 1024;

/// Our half of a transfer is over: the server has so long to end its own, in milliseconds. It has
/// nothing to do for that but to answer; one that is gone is found out sooner.
const END_TIMEOUT_MS: u64 = 15_000;

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
    /// Our half is over: until then the server is waited for.
    end_due_ms: Option<u64>,
    /// Our half has failed at some of it and the rest was called off: how the server ends that is
    /// no news.
    is_called_off: bool,
    /// Some of it has failed.
    has_failed: bool,
    /// It was given up: nothing of it is shown any more.
    is_abandoned: bool,
    /// The file at hand, its size and what is there of it.
    current: (Vec<u8>, u64, u64),
    /// When the progress was told last, and what was there then.
    told: (u64, u64),
    /// Since when bytes move, and how many have.
    moving_ms: Option<u64>,
    moved_bytes: u64,
    /// The folders that were named, and the files within them, which are told of together.
    folders: Folders,
}

/// See [`Transfer::folders`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folders {
    /// The place of the first.
    pub first: Vec<u8>,
    /// How many.
    pub count: u64,
    /// Files within them.
    pub files: u64,
    /// Bytes of them all.
    pub size: u64,
    /// So many were there already.
    pub was_there: u64,
}

/// What has moved for less than this has no rate that means anything, in milliseconds.
const RATE_MIN_MS: u64 = 500;

#[derive(Debug)]
enum Kind {
    Fetch { paths: Vec<Vec<u8>>, target: Target },
    Store { into: Option<Vec<u8>>, from_stdin: bool },
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

    pub(super) fn store(
        paths: &[Local],
        into: Option<Vec<u8>>,
        again: String,
        now_ms: u64,
    ) -> Transfer {
        let from_stdin = paths.iter().any(|path| matches!(path, Local::Input(_)));
        Transfer::new(Kind::Store { into, from_stdin }, again, now_ms)
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
            end_due_ms: None,
            is_called_off: false,
            has_failed: false,
            is_abandoned: false,
            current: (Vec::new(), 0, 0),
            told: (now_ms, 0),
            moving_ms: None,
            moved_bytes: 0,
            folders: Folders::default(),
        }
    }

    /// Bytes a second. What was there already has not moved.
    fn per_second(&self, now_ms: u64) -> Option<u64> {
        let passed_ms = now_ms.saturating_sub(self.moving_ms?);
        let means_something = passed_ms >= RATE_MIN_MS && self.moved_bytes > 0;
        means_something.then(|| self.moved_bytes.saturating_mul(1000) / passed_ms)
    }

    pub(super) fn is_wanted(&self) -> bool {
        !self.is_abandoned && self.over.is_none()
    }

    /// Until when the server is waited for, where only its end is missing.
    pub(super) fn end_due_ms(&self) -> Option<u64> {
        self.end_due_ms.filter(|_| self.ended.is_none())
    }

    fn gets_from_server(&self) -> bool {
        matches!(self.kind, Kind::Fetch { .. })
    }

    /// Whether nothing is left to be done before the server ends it. Another user may still have
    /// much to take of what we have said.
    fn is_soon_ended(&self, outcome: &Result<(), Fault>) -> bool {
        !matches!(self.kind, Kind::Peer(_)) || outcome.is_err()
    }

    /// What comes goes to our standard output.
    pub(super) fn goes_to_stdout(&self) -> bool {
        matches!(self.kind, Kind::Fetch { target: Target::Stdout, .. })
    }

    /// What is said where it is given up. It promises no more than is there.
    fn broken_text(&self) -> String {
        let again = &self.again;
        match &self.kind {
            Kind::Peer(peer) => peer.broken_text(again),
            Kind::Fetch { target: Target::Stdout, .. } => {
                "broken off; standard output has the beginning alone".to_owned()
            }
            Kind::Store { from_stdin: true, .. } => {
                "broken off; standard input cannot be read again, so begin anew".to_owned()
            }
            Kind::Fetch { .. } if self.current.0.is_empty() => {
                format!("broken off before anything came; ask again with: {again}")
            }
            Kind::Fetch { .. } | Kind::Store { .. } => {
                format!("broken off; what is there is kept, go on with: {again}")
            }
        }
    }

    /// The server has ended it well, and what it has said is being dealt with.
    pub(super) fn is_answered(&self) -> bool {
        self.is_wanted() && matches!(self.ended, Some(Ok(())))
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
            Kind::Store { into: None, .. } | Kind::Peer(_) => Some(name.to_vec()),
            Kind::Store { into: Some(into), .. } => Some([into, &b"/"[..], name].concat()),
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
        let is_good = matches!(transfer.over, Some(Ok(())));
        // A file that goes as it is ends when all of it has gone, and at the side that sends.
        let says_end = |peer: &Peer| match peer.form {
            Some(Form::Raw) => peer.is_sent() && is_good,
            _ => true,
        };
        if let Some(peer) = transfer.peer_mut().filter(|peer| is_over && says_end(peer)) {
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
                    transfer.moving_ms.get_or_insert(now_ms);
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
                    transfer.moved_bytes += bytes;
                    self.tell_progress(tag, now_ms);
                }
                Report::Stored { name, size, hash, was_there } => {
                    self.handle_stored(tag, &name, (size, hash, was_there), now_ms);
                }
                Report::Folder { name } => {
                    let (path, target) = (transfer.path_of(&name), transfer.place_of(&name));
                    if transfer.folders.count == 0 {
                        transfer.folders.first = target.clone().unwrap_or_else(|| name.clone());
                    }
                    transfer.folders.count += 1;
                    self.show(Shown::Folder { path, target });
                }
                Report::Skipped { name, count } => self.show(skipped(&name, count)),
                Report::Grown { name, size } => {
                    let (name, size) = (escape_bytes(&name), Size(size));
                    let text = format!("{name}: it has grown to {size}; this is its beginning");
                    self.show(Shown::Notice(text));
                }
                Report::Failed { name, fault } => {
                    let path = transfer.path_of(&name);
                    let text = format!("{}: {}", escape_bytes(&path), fault.text);
                    transfer.has_failed = true;
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
            transfer.folders.files += 1;
            transfer.folders.was_there += u64::from(was_there);
            transfer.folders.size += size;
            if !self.setup.tells_every_file {
                return;
            }
        }
        let seconds = now_ms.saturating_sub(transfer.began_ms) as f64 / 1000.0;
        let per_second = transfer.per_second(now_ms);
        if let Kind::Peer(peer) = &transfer.kind {
            let shown = peer.passed(name, (size, hash, was_there), seconds, per_second);
            return self.show(shown);
        }
        let (path, target) = (transfer.path_of(name), transfer.place_of(name));
        let is_upload = matches!(transfer.kind, Kind::Store { .. });
        let hash = blake3::Hash::from(hash).to_string();
        self.show(Shown::Saved {
            path,
            target,
            size,
            hash,
            seconds,
            per_second,
            is_upload,
            was_there,
        });
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
        // Somebody who sends to us may have much on its way that nobody takes any more.
        let has_stopped = is_local || transfer.has_failed && transfer.gets_from_server();
        transfer.is_called_off = has_stopped && !is_local;
        transfer.end_due_ms = transfer.is_soon_ended(&outcome).then_some(now_ms + END_TIMEOUT_MS);
        transfer.over = Some(outcome);
        // Who talks to another user has said there what is wrong.
        let talks = transfer.peer_mut().map(|peer| peer.form == Some(Form::Conversation));
        if is_local || talks.is_some() {
            // What we had to say about it is on its way, if anything; the server ends it.
            self.pump();
        }
        if has_stopped
            && talks != Some(true)
            && let Some(link) = self.link()
        {
            if is_local && talks.is_none() {
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
        let ended = transfer.ended.clone().expect("looked at");
        let over = transfer.over.clone().expect("as well");
        match (over, ended) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(_)) if transfer.is_called_off => {}
            // The server's reason is the nearer one where ours is only that it has ended.
            (Err(own), Err(fault)) if own.code == ErrorCode::Protocol => {
                self.refuse(fault.code, &fault.text);
            }
            (Err(fault), _) if fault.code == ErrorCode::SystemError => {
                self.fail(exit::FAILED);
                self.show(Shown::failure(fault.text));
            }
            (Err(fault), _) | (_, Err(fault)) => {
                let hint = self.refused_hint(&transfer.kind, fault.code);
                self.refuse(fault.code, &format!("{}{hint}", fault.text));
            }
        }
    }

    /// Rules go by names, and a verb has a passing one where none is given.
    fn refused_hint(&self, kind: &Kind, code: ErrorCode) -> String {
        let is_sent = matches!(kind, Kind::Peer(peer) if peer.is_sent());
        let account = self.login.account.filter(|account| *account != self.setup.user);
        match account.filter(|_| is_sent && code == ErrorCode::Refused) {
            Some(account) => format!("; to be known by your name, give it: --user {account}"),
            None => String::new(),
        }
    }

    /// Tells of what is only known at the end.
    fn tell_end(&mut self, transfer: &Transfer, now_ms: u64) {
        let seconds = now_ms.saturating_sub(transfer.began_ms) as f64 / 1000.0;
        let per_second = transfer.per_second(now_ms);
        let is_good = matches!((&transfer.ended, &transfer.over), (Some(Ok(())), Some(Ok(()))));
        if let Kind::Peer(peer) = &transfer.kind
            && is_good
        {
            peer.sent_raw(seconds, per_second).into_iter().for_each(|shown| self.show(shown));
        }
        let folders = transfer.folders.clone();
        let is_nothing = folders.files == 0 && (folders.count == 0 || !is_good);
        if is_nothing || self.setup.tells_every_file {
            return;
        }
        self.show(match &transfer.kind {
            Kind::Peer(peer) => peer.folders(folders, per_second),
            kind => {
                let is_upload = matches!(kind, Kind::Store { .. });
                Shown::SavedFolder { folders, is_upload, per_second }
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
        // What has failed here has told so already.
        let text = transfer.over.is_none().then(|| transfer.broken_text());
        self.effects.push_back(Effect::Abandon(tag));
        text.into_iter().for_each(|text| self.show(Shown::Notice(text)));
    }

    /// Nobody reads what goes to standard output any more, and that needs no word.
    pub(super) fn drop_downloads_to_stdout(&mut self) {
        let goes_out = |task: &Task| match task {
            Task::Transfer(transfer) => transfer.goes_to_stdout(),
            _ => false,
        };
        let tags: Vec<_> =
            self.tasks.iter().filter(|(_, task)| goes_out(task)).map(|(tag, _)| *tag).collect();
        for tag in tags {
            self.tasks.remove(&tag);
            self.effects.push_back(Effect::Abandon(tag));
            if let Some(link) = self.link() {
                link.cancel(tag);
            }
        }
    }

    /// Gives up transfers of which only the server's end is missing, and does not come.
    pub(super) fn handle_transfers_timeout(&mut self, now_ms: u64) {
        let due = |task: &Task| match task {
            Task::Transfer(transfer) => transfer.end_due_ms().is_some_and(|due| due <= now_ms),
            _ => false,
        };
        let late: Vec<_> =
            self.tasks.iter().filter(|(_, task)| due(task)).map(|it| *it.0).collect();
        for tag in late {
            let seconds = END_TIMEOUT_MS / 1000;
            let text = format!("the server has not ended the transfer within {seconds} s");
            let outcome = OutcomeBody::Failed { code: ErrorCode::TimedOut, text: text.into() };
            self.handle_transfer_end(tag, outcome, now_ms);
            self.settle();
        }
    }

    /// When the first of them is given up.
    pub(super) fn transfers_due_ms(&self) -> Option<u64> {
        let due = |task: &Task| match task {
            Task::Transfer(transfer) => transfer.end_due_ms(),
            _ => None,
        };
        self.tasks.values().filter_map(due).min()
    }
}

/// What is said where not all of a folder can be carried. It is no error.
fn skipped(name: &[u8], count: u32) -> Shown {
    let name = escape_bytes(name);
    Shown::Notice(match count {
        1 => format!("{name}: left out, it is neither a file, a folder nor a link within it"),
        _ => format!(
            "{count} things are left out, {name} first: they are neither files, folders nor \
             links within them"
        ),
    })
}
