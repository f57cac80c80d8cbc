//! One transfer to or from another client, and the path that it has.
//!
//! ```text
//!   racing ──opened──▶ direct ──closed, or silence of 10 s──▶ piped
//!      └──── 3 s, or the first byte of the other end in the pipe ──▲
//! ```
//!
//! What comes in the pipe says that the other end has given up the direct path, or has none. So
//! both ends are soon on the same one, whichever has noticed first.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::mpsc,
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes};

use super::{Meeting, Way};
use crate::{
    client::{
        blocks::Chunk,
        brain::After,
        mover::Work,
        post::{News, Post},
    },
    direct::{ChannelId, Endpoint, SessionKey, sealed::Sealed},
    stream::{Stream, Wrong},
    transfer::{Fault, Segment},
    wire::{ErrorCode, Tag},
};

/// Bytes that wait for the thread of the transfer; more are not read.
const HELD_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Bytes that wait for the connection to the server; more are not sealed.
const PIPE_AHEAD_BYTES: usize = 512 * 1024;

/// Bytes of the pipe that are taken before credit is granted for them.
const PIPE_STEP_BYTES: u32 = 16 * 1024;

/// Bytes read in one go.
const READ_BYTES: usize = 64 * 1024;

/// Without a datagram for so long there is no path: at the latest after half of it an end asks
/// whether the other one is there.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The first byte of either end in the pipe: what follows is sealed.
const SEALED: u8 = 1;

/// What a transfer stands on in its turn.
pub(super) struct Ground<'a> {
    pub(super) endpoint: Option<&'a mut Endpoint>,
    pub(super) key: &'a SessionKey,
    pub(super) post: &'a Post,
    pub(super) now: Instant,
}

/// What comes of a turn.
pub(super) enum Turn {
    Goes,
    /// Nothing more is to be done.
    Over(Result<(), Fault>),
}

pub(super) struct Passage {
    tag: Tag,
    meeting: Meeting,
    mover: mpsc::Sender<Work>,
    stream: Stream,
    path: Path,
    pipe: Pipe,
    /// Bytes that the thread has been given and has not taken.
    held: usize,
    /// How the thread has ended.
    over: Option<Result<(), Fault>>,
    /// What cannot be mended.
    broken: Option<Fault>,
    /// The server has ended the operation: nothing is awaited any more.
    is_ended: bool,
    /// The way that the user was told of last.
    told: Option<Way>,
}

enum Path {
    /// Not yet, or not any more.
    None,
    Racing(ChannelId),
    Direct(Direct),
    Piped(Box<Piped>),
}

struct Direct {
    channel: ChannelId,
    /// Datagrams that had come when they were last counted, and the last time they were more.
    datagrams: u64,
    heard: Instant,
    look_at: Instant,
}

struct Piped {
    sealed: Sealed,
    buffer: Vec<u8>,
}

/// The pipe through the server, used or not.
#[derive(Default)]
struct Pipe {
    /// What has come, and how much of the first is dealt with.
    incoming: VecDeque<Chunk>,
    done: usize,
    has_begun: bool,
    /// Bytes that have gone to the loop and not yet to the server.
    ahead: usize,
    owed: u32,
    /// The other end says no more.
    is_ended: bool,
}

impl Passage {
    /// Begins to look for a direct path, where there can be one.
    pub(super) fn new(
        tag: Tag,
        meeting: Meeting,
        mover: mpsc::Sender<Work>,
        ground: &mut Ground<'_>,
    ) -> Passage {
        let mut passage = Passage {
            tag,
            meeting,
            mover,
            stream: Stream::default(),
            path: Path::None,
            pipe: Pipe::default(),
            held: 0,
            over: None,
            broken: None,
            is_ended: false,
            told: None,
        };
        let Meeting { introduction, is_direct, same_host } = &passage.meeting;
        let opened = match &mut ground.endpoint {
            Some(endpoint) if *is_direct => {
                let opened = endpoint.open(introduction, *same_host, ground.now);
                opened.inspect_err(|error| log::debug!("no direct path: {error}")).ok()
            }
            _ => None,
        };
        match opened {
            Some(channel) => passage.path = Path::Racing(channel),
            None => passage.enter_pipe(ground),
        }
        passage
    }

    /// The direct channel that it has, or may have soon.
    pub(super) fn channel(&self) -> Option<ChannelId> {
        match &self.path {
            Path::Racing(channel) | Path::Direct(Direct { channel, .. }) => Some(*channel),
            Path::None | Path::Piped(_) => None,
        }
    }

    /// When it wants a turn, if nothing else happens.
    pub(super) fn timeout(&self) -> Option<Instant> {
        match &self.path {
            Path::Direct(direct) => Some(direct.look_at),
            Path::None | Path::Racing(_) | Path::Piped(_) => None,
        }
    }
}

/// What it is told.
impl Passage {
    pub(super) fn say(&mut self, bytes: Bytes) {
        self.stream.say(bytes);
    }

    pub(super) fn consumed(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
    }

    pub(super) fn mover_over(&mut self, outcome: Result<(), Fault>) {
        self.over = Some(outcome);
        self.stream.finish();
    }

    pub(super) fn piped(&mut self, chunk: Chunk) {
        self.pipe.incoming.push_back(chunk);
    }

    pub(super) fn pipe_taken(&mut self, count: usize) {
        self.pipe.ahead = self.pipe.ahead.saturating_sub(count);
    }

    /// It has all that we had to say, and we have all that it had: else it would not end.
    pub(super) fn peer_ended(&mut self) {
        self.pipe.is_ended = true;
    }

    pub(super) fn server_ended(&mut self) {
        self.is_ended = true;
        // A thread that is over has said so.
        let _ = self.mover.send(Work::End);
    }

    /// There is a direct path.
    pub(super) fn handle_opened(&mut self, remote: SocketAddr, ground: &mut Ground<'_>) {
        if let Path::Racing(channel) = self.path {
            let (heard, look_at) = (ground.now, ground.now + LOOK_EVERY);
            self.path = Path::Direct(Direct { channel, datagrams: 0, heard, look_at });
            self.stream.begin();
            self.tell_way(Way::Direct(remote), ground.post);
        }
    }

    /// The direct path is gone, or there is none.
    pub(super) fn leave_direct(&mut self, ground: &mut Ground<'_>) {
        if let Some(channel) = self.channel() {
            if let Some(endpoint) = &mut ground.endpoint {
                endpoint.close(channel, ground.now);
            }
            self.path = Path::None;
            if !self.is_done() {
                self.enter_pipe(ground);
            }
        }
    }

    /// Nobody wants it any more.
    pub(super) fn give_up(self, ground: &mut Ground<'_>) {
        if let (Some(channel), Some(endpoint)) = (self.channel(), &mut ground.endpoint) {
            endpoint.close(channel, ground.now);
        }
    }

    fn enter_pipe(&mut self, ground: &Ground<'_>) {
        match Sealed::new(ground.key, &self.meeting.introduction) {
            Ok(sealed) => {
                let buffer = vec![0; READ_BYTES];
                self.path = Path::Piped(Box::new(Piped { sealed, buffer }));
                self.stream.begin();
                self.put_in_pipe(vec![SEALED], ground.post);
            }
            Err(error) => {
                self.broken = Some(Fault::new(ErrorCode::BadArguments, error.to_string()));
            }
        }
    }

    fn put_in_pipe(&mut self, bytes: Vec<u8>, post: &Post) {
        self.pipe.ahead += bytes.len();
        post.send(News::Said(self.tag, vec![Segment::Bytes(bytes)]));
    }

    fn tell_way(&mut self, way: Way, post: &Post) {
        if self.told.replace(way) != Some(way) {
            post.send(News::Way(self.tag, way));
        }
    }
}

/// Its turn.
impl Passage {
    /// Moves what can be moved.
    pub(super) fn turn(&mut self, ground: &mut Ground<'_>) -> Turn {
        if self.channel().is_some() && !self.pipe.incoming.is_empty() {
            self.leave_direct(ground);
        }
        let turned = match &self.path {
            Path::Direct(_) => self.turn_direct(ground),
            Path::Piped(_) => self.turn_piped(ground),
            Path::None | Path::Racing(_) => Ok(()),
        };
        if let Err(fault) = turned {
            self.broken.get_or_insert(fault);
        }
        match (&self.over, &self.broken) {
            (Some(outcome), _) if self.is_ended || self.is_done() => Turn::Over(outcome.clone()),
            (_, Some(fault)) => Turn::Over(Err(fault.clone())),
            (None, None) if self.pipe.is_ended && self.pipe.incoming.is_empty() => {
                let text = "the other client has ended it in the middle";
                Turn::Over(Err(Fault::new(ErrorCode::Protocol, text)))
            }
            _ => Turn::Goes,
        }
    }

    fn is_done(&self) -> bool {
        self.over.is_some() && (self.stream.is_done() || self.pipe.is_ended)
    }

    /// Hands what was read to the thread.
    fn hand_over(&mut self, pieces: Vec<Bytes>) {
        let count: usize = pieces.iter().map(Bytes::len).sum();
        // What comes after its end is of no use to anybody.
        if count > 0 && self.over.is_none() {
            self.held += count;
            let _ = self.mover.send(Work::Chunk(Chunk::Pieces(pieces)));
        }
    }

    /// Tells the thread that so many bytes have gone.
    fn note_gone(&mut self, count: usize) {
        if count > 0 {
            let _ = self.mover.send(Work::Taken(count));
        }
    }

    fn turn_direct(&mut self, ground: &mut Ground<'_>) -> Result<(), Fault> {
        let (Path::Direct(direct), Some(endpoint)) = (&mut self.path, &mut ground.endpoint) else {
            return Ok(());
        };
        let channel = direct.channel;
        let is_silent = direct.look(endpoint, ground.now);
        let (mut pieces, mut count) = (Vec::new(), self.held);
        while count < HELD_MAX_BYTES {
            match endpoint.read_chunk(channel, READ_BYTES) {
                Ok(Some(bytes)) => {
                    count += bytes.len();
                    self.stream.handle(bytes, &mut pieces).map_err(wrong)?;
                }
                // An end, or a break, which is told.
                Ok(None) | Err(_) => break,
            }
        }
        let write = &mut |bytes: &mut Bytes| endpoint.write_chunk(channel, bytes);
        // What is broken is told as an event.
        let gone = self.stream.write_to(write).unwrap_or(0);
        self.hand_over(pieces);
        self.note_gone(gone);
        if is_silent && !self.is_done() {
            log::debug!("nothing was heard on the direct path for {SILENCE_MAX:?}");
            self.leave_direct(ground);
        }
        Ok(())
    }

    fn turn_piped(&mut self, ground: &mut Ground<'_>) -> Result<(), Fault> {
        self.take_from_pipe(ground)?;
        let Path::Piped(piped) = &mut self.path else { return Ok(()) };
        let (mut gone, mut said) = (0, Vec::new());
        while self.pipe.ahead + said.len() < PIPE_AHEAD_BYTES {
            let write = &mut |bytes: &mut Bytes| {
                let count = piped.sealed.write(bytes)?;
                bytes.advance(count);
                Ok(count)
            };
            let seal_broke = |error: io::Error| unsealed(error.to_string());
            gone += self.stream.write_to(write).map_err(seal_broke)?;
            let outgoing = piped.sealed.outgoing();
            if outgoing.is_empty() {
                break;
            }
            said.extend_from_slice(outgoing);
            piped.sealed.advance(outgoing.len());
        }
        let is_open = piped.sealed.is_open();
        if !said.is_empty() {
            self.put_in_pipe(said, ground.post);
        }
        self.note_gone(gone);
        if is_open {
            self.tell_way(Way::Sealed, ground.post);
        }
        Ok(())
    }

    fn take_from_pipe(&mut self, ground: &Ground<'_>) -> Result<(), Fault> {
        let Path::Piped(piped) = &mut self.path else { return Ok(()) };
        let (mut pieces, mut held) = (Vec::new(), self.held);
        let mut broken = Ok(());
        while let Some(chunk) = self.pipe.incoming.front().filter(|_| held < HELD_MAX_BYTES) {
            let taken = match (chunk.rest(self.pipe.done), self.pipe.has_begun) {
                (None, _) => {
                    self.pipe.incoming.pop_front();
                    self.pipe.done = 0;
                    continue;
                }
                (Some([SEALED, ..]), false) => {
                    self.pipe.has_begun = true;
                    1
                }
                (Some(_), false) => {
                    return Err(wrong(Wrong("bytes that are not sealed".to_owned())));
                }
                (Some(bytes), true) => match piped.sealed.handle_bytes(bytes) {
                    Ok(taken) => taken,
                    Err(error) => {
                        broken = Err(unsealed(error.to_string()));
                        break;
                    }
                },
            };
            self.pipe.done += taken;
            self.pipe.owed += taken as u32;
            while let Ok(count @ 1..) = piped.sealed.read(&mut piped.buffer) {
                held += count;
                let bytes = Bytes::copy_from_slice(&piped.buffer[..count]);
                self.stream.handle(bytes, &mut pieces).map_err(wrong)?;
            }
        }
        if self.pipe.owed >= PIPE_STEP_BYTES {
            let owed = std::mem::take(&mut self.pipe.owed);
            ground.post.send(News::After(After::Consumed(self.tag, owed)));
        }
        self.hand_over(pieces);
        broken
    }
}

impl Direct {
    /// Whether nothing was heard for too long.
    fn look(&mut self, endpoint: &Endpoint, now: Instant) -> bool {
        if now < self.look_at {
            return false;
        }
        self.look_at = now + LOOK_EVERY;
        let datagrams = endpoint.statistics(self.channel).map(|it| it.udp_rx.datagrams);
        if let Some(datagrams) = datagrams.filter(|count| *count != self.datagrams) {
            (self.datagrams, self.heard) = (datagrams, now);
        }
        now.saturating_duration_since(self.heard) >= SILENCE_MAX
    }
}

fn wrong(Wrong(what): Wrong) -> Fault {
    Fault::new(ErrorCode::Protocol, format!("the other client sent {what}"))
}

fn unsealed(why: String) -> Fault {
    Fault::new(ErrorCode::NotVerified, why)
}
