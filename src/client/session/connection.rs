//! The connection of a session: bytes in and out, whatever protects them on their way.

use std::{io, ops::Range, time::Instant};

use mio::Interest;

use super::{READS_PER_TURN, SOCKET, Session, random};
use crate::{
    client::{
        brain::Route,
        link::Link,
        outgoing::FilePart,
        password,
        screen::{Shown, Where},
        secure::{Connected, left_ms},
    },
    sys::{transport::Transport, udp::interface_addresses},
    wire::{Standpoint, Stream, Tag},
};

/// The connection.
impl Session<'_> {
    pub(super) fn handle_connected(&mut self, connected: Connected) {
        let Connected { transport, notices, until, detail } = connected;
        let now_ms = self.now_ms();
        let detail = Some(detail).filter(|_| self.plan.verbose);
        for notice in notices.into_iter().chain(detail) {
            self.show(&Shown::Notice(notice), None);
        }
        match password::check_connection(self.plan, &transport) {
            Err(why) if self.brain.has_password() => self.brain.handle_unsafe(&why),
            _ => match self.adopt(transport) {
                Ok(()) => {
                    self.brain.handle_connected(now_ms);
                    self.expect_welcome_until(until);
                }
                Err(error) => {
                    self.brain.handle_unreachable(&error.to_string(), now_ms, random());
                }
            },
        }
    }

    pub(super) fn expect_welcome_until(&mut self, until: Instant) {
        if let Some(link) = self.brain.link() {
            link.expect_welcome_within(left_ms(until));
        }
    }

    pub(super) fn adopt(&mut self, mut transport: Transport) -> io::Result<()> {
        self.unsafe_because = password::check_connection(self.plan, &transport).err();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut transport, SOCKET, interest)?;
        let interfaces = interface_addresses().unwrap_or_default();
        self.brain.set_standpoint(standpoint_of(&transport), interfaces);
        self.transport = Some(transport);
        (self.readable, self.read_closed) = (true, false);
        self.inbox.clear();
        Ok(())
    }

    pub(super) fn read(&mut self) {
        for _ in 0..READS_PER_TURN {
            if !self.readable || self.is_full() {
                return;
            }
            let Some(transport) = &mut self.transport else { return };
            let room = self.inbox.room();
            match transport.read(room) {
                Ok(0) => return self.lose("the server closed it"),
                Ok(count) => {
                    self.readable = !transport.has_drained(count, room.len()) || self.read_closed;
                    self.inbox.fill(count);
                    self.digest();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.lose(&error.to_string()),
            }
        }
    }

    /// Takes apart what was read. Data goes to its writers in batches, always before what follows
    /// it.
    fn digest(&mut self) {
        let now_ms = self.now_ms();
        let mut batch = Batch::default();
        while !self.inbox.unread().is_empty() {
            if !self.brain.expects_data(self.inbox.unread()) {
                self.deliver(&mut batch);
            }
            let position = self.inbox.position();
            match self.brain.handle_bytes(self.inbox.unread(), now_ms) {
                Ok((0, _)) => break,
                Ok((count, Some((tag, stream, range)))) => {
                    if !batch.is_of(tag, stream) {
                        self.deliver(&mut batch);
                    }
                    batch.add(tag, stream, position + range.start..position + range.end);
                    self.inbox.consume(count);
                }
                Ok((count, None)) => {
                    self.inbox.consume(count);
                    self.perform_effects();
                }
                Err(refusal) => return self.lose(&refusal.text),
            }
        }
        self.deliver(&mut batch);
        self.perform_effects();
    }

    fn deliver(&mut self, batch: &mut Batch) {
        let Some((tag, stream)) = batch.of.take() else { return };
        let ranges = std::mem::take(&mut batch.ranges);
        let now_ms = self.now_ms();
        match self.brain.route(tag) {
            Route::Nowhere => {
                let count: usize = ranges.iter().map(Range::len).sum();
                self.brain.handle_unwanted(tag, count as u32);
            }
            Route::Mover => {
                if let Some(mover) = self.movers.get(&tag) {
                    mover.chunk(self.inbox.chunk(&ranges));
                }
            }
            Route::Outputs => {
                let place = if stream == Stream::Stdout { Where::Out } else { Where::Err };
                if let Some(outlet) = self.outlet(place) {
                    outlet.chunk(self.inbox.chunk(&ranges), tag);
                }
            }
            Route::Screen => {
                for bytes in self.inbox.chunk(&ranges).slices() {
                    self.brain.handle_output(tag, stream, bytes, now_ms);
                }
            }
        }
    }

    /// Sends what TLS has of its own to say. What cannot be sent now is tried again when the socket
    /// is writable.
    fn flush(&mut self) {
        if let Some(transport) = &mut self.transport
            && transport.wants_write()
        {
            let _ = transport.flush();
        }
    }

    pub(super) fn write(&mut self) {
        self.flush();
        while let Some(transport) = &mut self.transport
            && let Some(link) = self.brain.link()
        {
            let Some(sent) = send_next(transport, link) else { return };
            match sent {
                Ok(count) => {
                    link.advance(count);
                    self.brain.pump();
                    self.perform_effects();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The reason for it may still be there to be read.
                Err(_) => {
                    self.readable = true;
                    return link.give_up();
                }
            }
        }
    }

    pub(super) fn lose(&mut self, why: &str) {
        self.readable = false;
        self.transport = None;
        let now_ms = self.now_ms();
        self.brain.handle_lost(why, now_ms, random());
        self.perform_effects();
    }
}

/// Data of one operation that lies in the block, between headers.
#[derive(Default)]
struct Batch {
    of: Option<(Tag, Stream)>,
    ranges: Vec<Range<usize>>,
}

impl Batch {
    fn is_of(&self, tag: Tag, stream: Stream) -> bool {
        self.of.is_none_or(|of| of == (tag, stream))
    }

    fn add(&mut self, tag: Tag, stream: Stream, range: Range<usize>) {
        self.of = Some((tag, stream));
        self.ranges.push(range);
    }
}

/// Sends some of what is next, bytes or a part of a file; `None` where nothing waits.
pub fn send_next(transport: &mut Transport, link: &Link) -> Option<io::Result<usize>> {
    match (link.outgoing(), link.outgoing_file()) {
        ([], None) => None,
        ([], Some(part)) => Some(send_part(transport, part)),
        (bytes, file) => Some(transport.write(bytes, file.is_some())),
    }
}

/// Sends a part of a file; zeros where the file has lost it: the receiver sees by the hash.
fn send_part(transport: &mut Transport, part: &FilePart) -> io::Result<usize> {
    match transport.send_file(part.file.file(), &mut { part.offset }, part.length) {
        Ok(0) => transport.write(&vec![0; part.length], false),
        sent => sent,
    }
}

/// Where this connection shows us to be.
pub fn standpoint_of(transport: &Transport) -> Option<Standpoint> {
    let stream = transport.stream();
    let (own, server) = stream.local_addr().ok().zip(stream.peer_addr().ok())?;
    let [own, server] = [own, server].map(|end| end.ip().to_canonical());
    Some(Standpoint { own, server, seen: None })
}
