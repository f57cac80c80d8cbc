//! What is there already of the files that are announced: looked for, and proved by its hash.

use std::io;

use super::{Found, Part, READ_BYTES, Receiver, Sink, State};
use crate::{limits::TRANSFER_CLAIMS_MAX, transfer::message::Message};

impl<K: Sink> Receiver<K> {
    /// Hashes about `budget` bytes of what is there already, or of holes that had to wait; true
    /// where more is to be done.
    pub fn prove(&mut self, budget: u64) -> bool {
        let mut left = budget;
        if !self.waiting.is_empty() {
            self.hole_room = left;
            self.handle_waiting();
            left = self.hole_room;
            if !self.waiting.is_empty() {
                return true;
            }
        }
        while let Some(number) = self.claims.front().copied() {
            if left == 0 {
                return true;
            }
            left = left.saturating_sub(self.prove_some(number).max(1));
        }
        false
    }

    /// Looks for what is there of the files that were announced, as long as few enough are open.
    pub(super) fn find_some(&mut self) {
        while self.held < TRANSFER_CLAIMS_MAX
            && let Some(number) = self.unseen.pop_front()
        {
            let at = (number - self.base) as usize;
            let slot = self.slots[at].as_mut().expect("what is not looked for is open");
            let (name, part) = match self.sink.find(&slot.entry) {
                Ok(Found { name, part }) => (name, part),
                Err(fault) => {
                    self.fail(number, fault);
                    continue;
                }
            };
            slot.name = name;
            let size = slot.entry.size;
            let is_empty = |part: &Part<_>| part.is_whole && size == 0;
            let is_some = |part: &Part<_>| part.length > 0 && part.length <= size;
            let part = part.filter(|part| is_some(part) || is_empty(part));
            self.held += usize::from(part.is_some());
            match part {
                Some(part) if part.length > 0 => {
                    slot.state = State::Claiming(part, Box::default(), 0);
                    self.claims.push_back(number);
                }
                part => {
                    // Of an empty file there is nothing to be read.
                    slot.state = State::Wanted(part.map(|part| (part, Box::default())));
                    self.say(&Message::Want { number, from: 0, hash: [0; 32] });
                }
            }
        }
    }

    /// Hashes some of what is there of this entry; returns the bytes read.
    fn prove_some(&mut self, number: u32) -> u64 {
        if self.buffer.is_empty() {
            self.buffer.resize(READ_BYTES, 0);
        }
        let at = (number - self.base) as usize;
        let slot = self.slots[at].as_mut().expect("what is claimed is open");
        let State::Claiming(part, hasher, offset) = &mut slot.state else {
            unreachable!("the list holds nothing else")
        };
        let room = (part.length - *offset).min(READ_BYTES as u64) as usize;
        let read = match self.sink.read_at(&part.stage, &mut self.buffer[..room], *offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return 1,
            // What cannot be read is not there.
            Ok(0) | Err(_) => 0,
            Ok(count) => count,
        };
        hasher.update(&self.buffer[..read]);
        *offset += read as u64;
        if read > 0 && *offset < part.length {
            return read as u64;
        }
        self.claims.pop_front();
        let state = std::mem::replace(&mut slot.state, State::Wanted(None));
        let State::Claiming(part, hasher, _) = state else { unreachable!("it was looked at") };
        let (from, hash) = match read {
            0 => (0, [0; 32]),
            _ => (part.length, *hasher.finalize().as_bytes()),
        };
        match from {
            0 => self.held -= 1,
            _ => slot.state = State::Wanted(Some((part, hasher))),
        }
        self.say(&Message::Want { number, from, hash });
        read as u64
    }
}
