//! Senders and receivers at full speed, in one thread and without blocking.
//!
//! Every sender owns a ring of messages that were encoded before: to send is to write a piece of
//! the ring, which keeps the load cheaper than what it loads. Each text begins with the number of
//! its sender and its place in the ring; receivers check the order and give the window back.

use std::{
    io::ErrorKind,
    marker::PhantomData,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token};
use sixfour::sys::transport::Transport;

use crate::{
    client::Client,
    machine::{cpu_time, own_cpu_time},
    peers::Peer,
    protocol::{Incoming, Protocol, Role},
};

/// Time before the measurement begins.
const WARM_UP: Duration = Duration::from_millis(500);

/// Silence that means loss: every window is full and nobody gives it back.
const STALL: Duration = Duration::from_secs(3);

const SCRATCH_BYTES: usize = 256 * 1024;

/// Digits of the sender and of the place in its ring, at the head of a text.
const STAMP_DIGITS: [usize; 2] = [3, 4];

/// Who sends to whom.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Senders, and as many receivers.
    pub pairs: usize,
    /// Whether each sender takes all receivers in turn, instead of the one of its pair.
    pub spread: bool,
    /// Messages of one sender that are not yet received.
    pub window: usize,
    /// Bytes of a text.
    pub text_bytes: usize,
}

impl Shape {
    /// Messages in a ring: a whole number of turns.
    fn ring(&self) -> usize {
        if self.spread { self.pairs * 8 } else { self.window }
    }

    fn target(&self, sender: usize, place: usize) -> usize {
        if self.spread { place % self.pairs } else { sender }
    }
}

/// What a run has shown.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Messages that arrived.
    pub messages: u64,
    /// Time that they took.
    pub wall: Duration,
    /// Processor time of the server meanwhile.
    pub server_cpu: Duration,
    /// Processor time of the load meanwhile.
    pub load_cpu: Duration,
}

/// Loads the peer for so many seconds.
pub fn run<P: Protocol>(peer: &Peer, shape: Shape, seconds: f64) -> Result<Measured, String> {
    let mut load = Load::<P>::connect(peer, shape)?;
    load.work_until(Instant::now() + WARM_UP)?;
    let (begin, before) = (Instant::now(), load.messages);
    let (server_before, load_before) = (cpu_time(peer.daemon.pid())?, own_cpu_time());
    load.work_until(begin + Duration::from_secs_f64(seconds))?;
    Ok(Measured {
        messages: load.messages - before,
        wall: begin.elapsed(),
        server_cpu: cpu_time(peer.daemon.pid())? - server_before,
        load_cpu: own_cpu_time() - load_before,
    })
}

struct Load<P> {
    poll: Poll,
    senders: Vec<Sender>,
    receivers: Vec<Inbox>,
    /// The place in the ring of a sender that a receiver must see next, by sender and receiver.
    expected: Vec<usize>,
    shape: Shape,
    scratch: Vec<u8>,
    messages: u64,
    protocol: PhantomData<P>,
}

impl<P: Protocol> Load<P> {
    /// Logs everybody in, pair by pair: the relay numbers its connections.
    fn connect(peer: &Peer, shape: Shape) -> Result<Load<P>, String> {
        let poll = Poll::new().map_err(|error| format!("no poll: {error}"))?;
        let (mut senders, mut receivers) = (Vec::new(), Vec::new());
        for pair in 0..shape.pairs {
            let name = format!("s{pair:03}");
            let sender = Client::<P>::connect(peer, pair, &name, Role::Sender)?;
            let name = receiver_name(pair);
            let receiver = Client::<P>::connect(peer, pair, &name, Role::Receiver)?;
            senders.push(Sender::new::<P>(sender, pair, shape)?);
            receivers.push(Inbox::new(receiver)?);
        }
        for (index, (sender, receiver)) in senders.iter_mut().zip(&mut receivers).enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let registry = poll.registry();
            registry
                .register(&mut sender.inbox.stream, Token(2 * index), both)
                .and_then(|()| {
                    let token = Token(2 * index + 1);
                    registry.register(&mut receiver.stream, token, Interest::READABLE)
                })
                .map_err(|error| format!("cannot poll: {error}"))?;
        }
        let first = |index: usize| if shape.spread { index % shape.pairs } else { 0 };
        let expected = (0..shape.pairs * shape.pairs).map(first).collect();
        let scratch = vec![0; SCRATCH_BYTES];
        let protocol = PhantomData;
        Ok(Load { poll, senders, receivers, expected, shape, scratch, messages: 0, protocol })
    }

    fn work_until(&mut self, end: Instant) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let mut dirty: Vec<usize> = Vec::with_capacity(self.shape.pairs);
        for sender in &mut self.senders {
            sender.flush()?;
        }
        while Instant::now() < end {
            match self.poll.poll(&mut events, Some(STALL)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("poll: {error}")),
                Ok(()) if events.is_empty() => {
                    let count = self.messages;
                    return Err(format!("stalled: nothing came for {STALL:?} after {count}"));
                }
                Ok(()) => {}
            }
            for event in &events {
                let index = event.token().0 / 2;
                if event.token().0 % 2 == 1 {
                    self.receive(index, &mut dirty)?;
                    continue;
                }
                let sender = &mut self.senders[index];
                sender.is_writable |= event.is_writable();
                sender.mark(index, &mut dirty);
                if event.is_readable() {
                    sender.listen::<P>(&mut self.scratch)?;
                }
            }
            for index in dirty.drain(..) {
                self.senders[index].is_dirty = false;
                self.senders[index].flush()?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, receiver: usize, dirty: &mut Vec<usize>) -> Result<(), String> {
        let Load { receivers, senders, expected, shape, scratch, messages, .. } = self;
        let (ring, step) = (shape.ring(), if shape.spread { shape.pairs } else { 1 });
        receivers[receiver].read::<P>(scratch, |incoming| {
            let text = match incoming {
                Incoming::Text(text) => text,
                // Silent receivers are given up after minutes; a run takes seconds.
                Incoming::Question(_) | Incoming::Other => return Ok(()),
            };
            let Some((sender, place)) = stamp(text) else {
                return Err(format!("no stamp in {:?}", String::from_utf8_lossy(text)));
            };
            let expected = &mut expected[sender * shape.pairs + receiver];
            if place != *expected || text.len() < shape.text_bytes {
                return Err(format!("place {place} of sender {sender} came for {expected}"));
            }
            *expected = (place + step) % ring;
            *messages += 1;
            let from = &mut senders[sender];
            from.allowed_bytes += from.message_bytes;
            from.mark(sender, dirty);
            Ok(())
        })
    }
}

fn receiver_name(index: usize) -> String {
    format!("r{index:03}")
}

/// Sender and place out of the head of a text.
fn stamp(text: &[u8]) -> Option<(usize, usize)> {
    let number = |digits: &[u8]| {
        digits.iter().try_fold(0, |number, digit| {
            digit.is_ascii_digit().then(|| number * 10 + (digit - b'0') as usize)
        })
    };
    let (sender, rest) = text.split_at_checked(STAMP_DIGITS[0])?;
    Some((number(sender)?, number(rest.get(..STAMP_DIGITS[1])?)?))
}

struct Sender {
    inbox: Inbox,
    /// Whole messages of equal length.
    ring: Vec<u8>,
    message_bytes: usize,
    cursor: usize,
    /// What the window lets us send.
    allowed_bytes: usize,
    /// Answers to the server's questions; they go between two messages.
    answers: Vec<u8>,
    is_writable: bool,
    is_dirty: bool,
}

impl Sender {
    fn new<P: Protocol>(client: Client<P>, index: usize, shape: Shape) -> Result<Sender, String> {
        let mut ring = Vec::new();
        for place in 0..shape.ring() {
            let mut text = format!("{index:03}{place:04} ");
            while text.len() < shape.text_bytes {
                text.push((b'a' + (text.len() % 26) as u8) as char);
            }
            P::put_message(&mut ring, &receiver_name(shape.target(index, place)), &text);
        }
        let message_bytes = ring.len() / shape.ring();
        assert!(message_bytes * shape.ring() == ring.len(), "all messages have one length");
        Ok(Sender {
            inbox: Inbox::new(client)?,
            ring,
            message_bytes,
            cursor: 0,
            allowed_bytes: message_bytes * shape.window,
            answers: Vec::new(),
            is_writable: true,
            is_dirty: false,
        })
    }

    fn mark(&mut self, index: usize, dirty: &mut Vec<usize>) {
        if !self.is_dirty {
            self.is_dirty = true;
            dirty.push(index);
        }
    }

    fn listen<P: Protocol>(&mut self, scratch: &mut [u8]) -> Result<(), String> {
        let answers = &mut self.answers;
        self.inbox.read::<P>(scratch, |incoming| {
            if let Incoming::Question(answer) = incoming {
                answers.extend_from_slice(answer);
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), String> {
        while self.is_writable {
            let into_message = self.cursor % self.message_bytes;
            let answers = !self.answers.is_empty();
            let most = match answers {
                true => (self.message_bytes - into_message) % self.message_bytes,
                false => self.ring.len() - self.cursor,
            };
            let piece = match answers && into_message == 0 {
                true => &self.answers[..],
                false => &self.ring[self.cursor..][..most.min(self.allowed_bytes)],
            };
            if piece.is_empty() {
                return Ok(());
            }
            match self.inbox.stream.write(piece, false) {
                Ok(count) => {
                    // With TLS a call takes only so much, however much the socket would take.
                    let is_secured = self.inbox.stream.is_secured();
                    self.is_writable = is_secured || count == piece.len();
                    self.advance(count, answers && into_message == 0);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("cannot send: {error}")),
            }
        }
        Ok(())
    }

    fn advance(&mut self, count: usize, were_answers: bool) {
        if were_answers {
            self.answers.drain(..count);
        } else {
            self.cursor = (self.cursor + count) % self.ring.len();
            self.allowed_bytes -= count;
        }
    }
}

/// A connection that is read, and the incomplete rest of what it said.
struct Inbox {
    stream: Transport,
    rest: Vec<u8>,
}

impl Inbox {
    fn new<P: Protocol>(client: Client<P>) -> Result<Inbox, String> {
        Ok(Inbox { stream: client.into_transport()?, rest: Vec::new() })
    }

    /// Reads all that is there and hands it on, thing by thing.
    fn read<P: Protocol>(
        &mut self,
        scratch: &mut [u8],
        mut each: impl FnMut(Incoming<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        loop {
            let kept = self.rest.len();
            scratch[..kept].copy_from_slice(&self.rest);
            let room = scratch.len() - kept;
            let count = match self.stream.read(&mut scratch[kept..]) {
                Ok(0) => return Err("the server closed the connection".to_owned()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("cannot read: {error}")),
            };
            let mut bytes = &scratch[..kept + count];
            while let Some((incoming, used)) = P::next(bytes)? {
                each(incoming)?;
                bytes = &bytes[used..];
            }
            self.rest.clear();
            self.rest.extend_from_slice(bytes);
            if self.stream.has_drained(count, room) {
                return Ok(());
            }
        }
    }
}
