//! What ended commands have left in the background still writes: it is read and thrown away, so
//! that nothing of it is ended by SIGPIPE.
//!
//! No operation, session or shell stands behind such an output any more, only a descriptor. So
//! there is a bound in all and one by source, beyond which the oldest are closed; and a pace, so
//! that what writes without an end waits for its pipe and not for a processor.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read as _},
};

use mio::{Interest, Registry, unix::pipe};

use super::{Server, token::Source};
use crate::hub::HubSource;

/// Reads of one output in one go: about what its pipe holds.
const READS_MAX: usize = 4;
/// What was not empty after that is read again so many milliseconds later.
const PAUSE_MS: u64 = 100;

/// The outputs that are read on.
pub struct Leftovers {
    /// By serial number: the first is the oldest.
    outputs: BTreeMap<usize, Leftover>,
    next: usize,
    /// More than these are not kept.
    most: usize,
    /// What was not empty, and when to go on with it.
    paused: Vec<(u64, usize)>,
}

struct Leftover {
    pipe: pipe::Receiver,
    source: Option<HubSource>,
}

impl Leftovers {
    /// Room for so many.
    pub fn new(most: usize) -> Leftovers {
        Leftovers { outputs: BTreeMap::new(), next: 0, most, paused: Vec::new() }
    }

    /// Reads on from an output that is registered already; room is made for it.
    pub fn keep(
        &mut self,
        mut pipe: pipe::Receiver,
        source: Option<HubSource>,
        registry: &Registry,
    ) {
        let serial = self.next;
        // The new interest has the poller tell again of what is there already.
        let token = Source::Leftover(serial).token();
        if let Err(error) = registry.reregister(&mut pipe, token, Interest::READABLE) {
            return log::warn!("the output of a background job is not read on: {error}");
        }
        self.make_room(source);
        self.outputs.insert(serial, Leftover { pipe, source });
        self.next += 1;
    }

    /// Closes the oldest where one more would be too many, of its source or in all.
    fn make_room(&mut self, source: Option<HubSource>) {
        let own = |leftover: &Leftover| source.is_some() && leftover.source == source;
        let count = self.outputs.values().filter(|leftover| own(leftover)).count();
        let oldest = match count >= (self.most / 4).max(2) {
            true => self.outputs.iter().find(|(_, it)| own(it)).map(|(serial, _)| *serial),
            false if self.outputs.len() >= self.most => self.outputs.keys().next().copied(),
            false => None,
        };
        if let Some(serial) = oldest {
            self.outputs.remove(&serial);
            log::info!("too many background jobs hold their outputs: the oldest is closed");
        }
    }

    /// Throws away what has come, as much as a pipe holds; what is at its end is forgotten.
    pub fn drain(&mut self, serial: usize, now: u64, buffer: &mut [u8]) {
        let Some(leftover) = self.outputs.get_mut(&serial) else { return };
        if self.paused.iter().any(|(_, paused)| *paused == serial) {
            return;
        }
        for _ in 0..READS_MAX {
            match leftover.pipe.read(buffer) {
                Ok(count) if count > 0 => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => {
                    self.outputs.remove(&serial);
                    return;
                }
            }
        }
        self.paused.push((now + PAUSE_MS, serial));
    }

    /// Goes on with what was not empty.
    pub fn tick(&mut self, now: u64, buffer: &mut [u8]) {
        let due: Vec<usize> =
            self.paused.extract_if(.., |(at, _)| *at <= now).map(|it| it.1).collect();
        due.into_iter().for_each(|serial| self.drain(serial, now, buffer));
    }

    /// When [`Leftovers::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.paused.iter().map(|(at, _)| *at).min()
    }
}

impl Server {
    /// Takes over what commands that are over have left open.
    pub(super) fn keep_leftovers(&mut self) {
        for (session, pipe) in self.commands.take_left() {
            let source = self.hub.source(session);
            self.leftovers.keep(pipe, source, self.poll.registry());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, net::IpAddr};

    use mio::Poll;

    use super::*;
    use crate::hub::SourceNet;

    const BUFFER_BYTES: usize = 64 * 1024;

    struct Table {
        poll: Poll,
        leftovers: Leftovers,
        buffer: Vec<u8>,
    }

    impl Table {
        fn new(most: usize) -> Table {
            let poll = Poll::new().expect("a poller");
            Table { poll, leftovers: Leftovers::new(most), buffer: vec![0; BUFFER_BYTES] }
        }

        fn keep(&mut self, source: Option<HubSource>) -> pipe::Sender {
            let (writer, mut reader) = pipe::new().expect("a pipe");
            let token = Source::Workers.token();
            let registry = self.poll.registry();
            registry.register(&mut reader, token, Interest::READABLE).expect("a descriptor");
            self.leftovers.keep(reader, source, registry);
            writer
        }

        fn drain(&mut self, serial: usize, now: u64) {
            self.leftovers.drain(serial, now, &mut self.buffer);
        }
    }

    fn source(ip: &str) -> Option<HubSource> {
        let ip: IpAddr = ip.parse().expect("an address");
        Some(HubSource::Network(SourceNet::of(ip)))
    }

    fn is_read(writer: &mut pipe::Sender) -> bool {
        writer.write(b"late").is_ok()
    }

    #[test]
    fn the_oldest_is_closed_for_one_too_many_in_all_and_of_a_source() {
        let mut table = Table::new(16);
        let mut other = table.keep(source("192.0.2.2"));
        let own = source("2001:db8::1");
        let mut writers: Vec<_> = (0..5).map(|_| table.keep(own)).collect();
        assert!(is_read(&mut other), "those of another source stay");
        assert!(!is_read(&mut writers[0]) && writers[1..].iter_mut().all(is_read));
        // Of nobody in particular there may be as many as in all.
        let mut nobody: Vec<_> = (0..12).map(|_| table.keep(None)).collect();
        assert!(nobody.iter_mut().all(is_read));
        assert!(!is_read(&mut other), "the oldest of all");
        assert!(writers[1..].iter_mut().all(is_read));
    }

    #[test]
    fn an_output_is_forgotten_at_its_end_and_waits_where_it_has_none() {
        let mut table = Table::new(16);
        let mut writer = table.keep(None);
        let fill = |writer: &mut pipe::Sender| {
            std::iter::from_fn(|| writer.write(&[7; 4096]).ok()).sum::<usize>()
        };
        // A small buffer, so that the pipe holds more than is read in one go.
        table.buffer.truncate(1024);
        assert!(fill(&mut writer) > READS_MAX * 1024);
        table.drain(0, 1000);
        assert_eq!(table.leftovers.next_deadline(), Some(1000 + PAUSE_MS));
        // What is paused is not read for news.
        table.drain(0, 1001);
        assert_eq!(fill(&mut writer), READS_MAX * 1024);
        table.buffer.resize(BUFFER_BYTES, 0);
        table.leftovers.tick(1000 + PAUSE_MS, &mut table.buffer);
        assert_eq!(table.leftovers.next_deadline(), None);
        drop(writer);
        table.drain(0, 2000);
        assert!(table.leftovers.outputs.is_empty());
    }
}
