//! The thread of all channels: sockets, commands, news, and a turn for each transfer.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker};

use super::{
    Channels, Command, Started,
    passage::{Ground, Passage, Turn},
};
use crate::{
    client::post::{News, Post},
    direct::{ChannelId, Event, SessionKey, driver::Driver},
    sys::listen::Families,
    wire::{Contact, Tag, contact::Place},
};

const COMMANDS: Token = Token(0);
const SOCKETS: [Token; 2] = [Token(6), Token(4)];

/// Time in which a channel that has done its work may take leave of the other end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Commands in one turn; then others have theirs.
const COMMANDS_PER_TURN: usize = 256;

struct Thread {
    poll: Poll,
    commands: mpsc::Receiver<Command>,
    post: Post,
    key: SessionKey,
    driver: Option<Driver>,
    passages: BTreeMap<Tag, Passage>,
    /// Channels that have done their work.
    leaving: Vec<(ChannelId, Instant)>,
    /// There may be more commands than were looked at.
    has_more: bool,
}

pub(super) fn start(udp_port: Option<u16>, post: Post) -> io::Result<Started> {
    let poll = Poll::new()?;
    let waker = Arc::new(Waker::new(poll.registry(), COMMANDS)?);
    let key = SessionKey::generate()?;
    let (mut notes, mut driver) = (Vec::new(), None);
    if let Some(port) = udp_port {
        match Driver::bind(key.clone(), port, Families::Both, SOCKETS, poll.registry()) {
            Ok(bound) => {
                notes.extend(bound.notes().iter().cloned());
                driver = Some(bound);
            }
            Err(error) => notes.push(format!("files go through the server: {error}")),
        }
    }
    let direct = driver.as_ref().map(|driver| {
        let announcement = driver.announcement();
        Place { port: announcement.port, addresses: announcement.addresses }
    });
    let contact = Contact { fingerprint: key.fingerprint(), direct, token: None };
    let (sender, commands) = mpsc::channel();
    let (passages, leaving) = (BTreeMap::new(), Vec::new());
    let has_more = false;
    let thread = Thread { poll, commands, post, key, driver, passages, leaving, has_more };
    thread::Builder::new().name("channels".into()).spawn(move || {
        if let Err(error) = thread.run() {
            log::error!("files between users cannot go on: {error}");
        }
    })?;
    Ok(Started { channels: Channels { sender, waker }, contact, notes })
}

impl Thread {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(8);
        loop {
            let timeout = self.timeout(Instant::now());
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => other?,
            }
            let now = Instant::now();
            self.receive(&events, now);
            if !self.take_commands(now) {
                self.shut_down(now);
                return Ok(());
            }
            self.take_news(now);
            self.give_turns(now);
            if self.take_news(now) {
                self.give_turns(now);
            }
            self.take_leave(now);
            if let Some(driver) = &mut self.driver {
                driver.transmit(Instant::now());
            }
        }
    }

    fn timeout(&mut self, now: Instant) -> Option<Duration> {
        if self.has_more {
            return Some(Duration::ZERO);
        }
        let driver = self.driver.as_mut().and_then(|driver| driver.timeout(now));
        let passages = self.passages.values().filter_map(Passage::timeout);
        let leaving = self.leaving.iter().map(|(_, until)| *until);
        let due = passages.chain(leaving).min();
        let due = due.map(|at| at.saturating_duration_since(now));
        driver.into_iter().chain(due).min()
    }

    fn receive(&mut self, events: &Events, now: Instant) {
        let Some(driver) = &mut self.driver else { return };
        for event in events {
            driver.handle_ready(event);
        }
        if let Err(error) = driver.receive(now) {
            log::warn!("no direct paths any more: {error}");
            self.driver = None;
            self.leaving.clear();
            let (mut ground, passages) = self.split(now);
            passages.values_mut().for_each(|passage| passage.leave_direct(&mut ground));
        }
    }

    fn split(&mut self, now: Instant) -> (Ground<'_>, &mut BTreeMap<Tag, Passage>) {
        let Thread { driver, key, post, passages, .. } = self;
        let endpoint = driver.as_mut().map(|driver| &mut driver.endpoint);
        (Ground { endpoint, key, post, now }, passages)
    }

    /// False where the loop is gone.
    fn take_commands(&mut self, now: Instant) -> bool {
        self.has_more = true;
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.try_recv() {
                Ok(command) => self.handle(command, now),
                Err(mpsc::TryRecvError::Empty) => {
                    self.has_more = false;
                    break;
                }
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn handle(&mut self, command: Command, now: Instant) {
        let (mut ground, passages) = self.split(now);
        match command {
            Command::Open(tag, meeting, mover) => {
                passages.insert(tag, Passage::new(tag, meeting, mover, &mut ground));
            }
            Command::Drop(tag) => {
                if let Some(passage) = passages.remove(&tag) {
                    passage.give_up(&mut ground);
                }
            }
            Command::Say(tag, bytes) => with(passages, tag, |it| it.say(bytes)),
            Command::Consumed(tag, count) => with(passages, tag, |it| it.consumed(count)),
            Command::Over(tag, outcome) => with(passages, tag, |it| it.mover_over(outcome)),
            Command::Piped(tag, chunk) => with(passages, tag, |it| it.piped(chunk)),
            Command::PipeTaken(tag, count) => with(passages, tag, |it| it.pipe_taken(count)),
            Command::PeerEnded(tag) => with(passages, tag, Passage::peer_ended),
            Command::ServerEnded(tag) => with(passages, tag, Passage::server_ended),
        }
    }

    /// Hands the news of channels to their transfers; true where there were any.
    fn take_news(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.driver.as_mut().and_then(|driver| driver.poll_event(now)) {
            any = true;
            let (mut ground, passages) = self.split(now);
            let (Event::Opened { channel, .. }
            | Event::Readable(channel)
            | Event::Writable(channel)
            | Event::Closed(channel, _)) = &event;
            let of = passages.values_mut().find(|it| it.channel() == Some(*channel));
            match (of, event) {
                (Some(passage), Event::Opened { remote, .. }) => {
                    passage.handle_opened(remote, &mut ground);
                }
                (Some(passage), Event::Closed(_, why)) => {
                    log::debug!("the direct path is over: {why}");
                    passage.leave_direct(&mut ground);
                }
                (None, Event::Closed(channel, _)) => {
                    self.leaving.retain(|(leaving, _)| *leaving != channel);
                }
                // All have their turn after news.
                _ => {}
            }
        }
        any
    }

    fn give_turns(&mut self, now: Instant) {
        let (mut ground, passages) = self.split(now);
        let mut done = Vec::new();
        for (tag, passage) in passages.iter_mut() {
            match passage.turn(&mut ground) {
                Turn::Goes => {}
                Turn::Over(outcome) => done.push((*tag, outcome)),
            }
        }
        for (tag, outcome) in done {
            let channel = self.passages.remove(&tag).and_then(|passage| passage.channel());
            self.leaving.extend(channel.map(|channel| (channel, now + FAREWELL)));
            self.post.send(News::Moved(tag, outcome));
        }
    }

    /// Ends the channels that have done their work: in order, or in time.
    fn take_leave(&mut self, now: Instant) {
        let Some(driver) = &mut self.driver else { return };
        for (channel, _) in &self.leaving {
            let _ = driver.endpoint.finish(*channel);
            while matches!(driver.endpoint.read_chunk(*channel, usize::MAX), Ok(Some(_))) {}
        }
        let late = self.leaving.iter().filter(|(_, until)| *until <= now);
        let late: Vec<ChannelId> = late.map(|(channel, _)| *channel).collect();
        for channel in late {
            driver.endpoint.close(channel, now);
            self.leaving.retain(|(leaving, _)| *leaving != channel);
        }
    }

    fn shut_down(&mut self, now: Instant) {
        if let Some(driver) = &mut self.driver {
            driver.endpoint.shut_down(now);
            driver.transmit(now);
        }
    }
}

fn with(passages: &mut BTreeMap<Tag, Passage>, tag: Tag, act: impl FnOnce(&mut Passage)) {
    if let Some(passage) = passages.get_mut(&tag) {
        act(passage);
    }
}
