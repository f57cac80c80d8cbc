//! Received bytes on their way to a writer, without a copy where there are many.
//!
//! The [`Inbox`] reads into large blocks. What belongs to a writer is handed over as ranges of
//! the block ([`Chunk::Shared`]) while the loop goes on with the next one; the last who lets go
//! of a block gives it back. A little data is copied instead, so that it does not hold a block.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;

/// Bytes of one block: much is read at once, and little enough to stay in the cache.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Less room than this at the end of a block is not worth a read.
const ROOM_MIN_BYTES: usize = 256 * 1024;

/// Less data than this is copied rather than shared. With the output window (4 MiB an operation)
/// it bounds what writers can hold: 16 blocks each.
const SHARE_MIN_BYTES: usize = 256 * 1024;

/// Blocks that are kept for later.
const SPARE_BLOCKS_MAX: usize = 8;

type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// A block that is being filled, or was.
#[derive(Debug)]
pub struct Block {
    bytes: Vec<u8>,
    spare: Spare,
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BLOCKS_MAX {
            spare.push(std::mem::take(&mut self.bytes));
        }
    }
}

/// Data for one writer, in order.
#[derive(Clone, Debug)]
pub enum Chunk {
    /// These parts of a block.
    Shared(Arc<Block>, Vec<Range<usize>>),
    /// Bytes of its own.
    Own(Vec<u8>),
    /// Pieces of whatever they lie in.
    Pieces(Vec<Bytes>),
}

impl Chunk {
    /// The bytes, piece by piece.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let count = match self {
            Chunk::Own(_) => 1,
            Chunk::Shared(_, ranges) => ranges.len(),
            Chunk::Pieces(pieces) => pieces.len(),
        };
        (0..count).map(|at| match self {
            Chunk::Own(bytes) => &bytes[..],
            Chunk::Shared(block, ranges) => &block.bytes[ranges[at].clone()],
            Chunk::Pieces(pieces) => &pieces[at][..],
        })
    }

    /// The first bytes behind so many; nothing where there are none.
    pub fn rest(&self, mut done: usize) -> Option<&[u8]> {
        for slice in self.slices() {
            if done < slice.len() {
                return Some(&slice[done..]);
            }
            done -= slice.len();
        }
        None
    }

    /// How many bytes.
    pub fn length(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }
}

/// Where the socket is read into.
#[derive(Debug)]
pub struct Inbox {
    block: Arc<Block>,
    spare: Spare,
    /// The bytes of the block that came and were not dealt with yet.
    unread: Range<usize>,
}

impl Default for Inbox {
    fn default() -> Inbox {
        let spare = Spare::default();
        let block = Block { bytes: vec![0; BLOCK_BYTES], spare: spare.clone() };
        Inbox { block: Arc::new(block), spare, unread: 0..0 }
    }
}

impl Inbox {
    /// Room for the next read, never empty. What is unread stays, so it has to be less than a
    /// block: frames are much smaller.
    pub fn room(&mut self) -> &mut [u8] {
        let unread = self.unread.clone();
        if Arc::get_mut(&mut self.block).is_none() {
            let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut bytes = spare.unwrap_or_else(|| vec![0; BLOCK_BYTES]);
            bytes[..unread.len()].copy_from_slice(&self.block.bytes[unread.clone()]);
            self.block = Arc::new(Block { bytes, spare: self.spare.clone() });
            self.unread = 0..unread.len();
        }
        let block = Arc::get_mut(&mut self.block).expect("nobody shares it, or it is new");
        if self.unread.is_empty() || BLOCK_BYTES - self.unread.end < ROOM_MIN_BYTES {
            block.bytes.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        &mut block.bytes[self.unread.end..]
    }

    /// So many bytes of the room were filled.
    pub fn fill(&mut self, count: usize) {
        self.unread.end += count;
    }

    /// What is to be dealt with.
    pub fn unread(&self) -> &[u8] {
        &self.block.bytes[self.unread.clone()]
    }

    /// So many bytes of it are dealt with.
    pub fn consume(&mut self, count: usize) {
        self.unread.start += count;
        debug_assert!(self.unread.start <= self.unread.end);
    }

    /// The place in the block of the first unread byte, for the ranges of [`Inbox::chunk`].
    pub fn position(&self) -> usize {
        self.unread.start
    }

    /// A chunk of these parts of the block.
    pub fn chunk(&self, ranges: &[Range<usize>]) -> Chunk {
        let length: usize = ranges.iter().map(Range::len).sum();
        if length >= SHARE_MIN_BYTES {
            return Chunk::Shared(self.block.clone(), ranges.to_vec());
        }
        let mut bytes = Vec::with_capacity(length);
        ranges.iter().for_each(|range| bytes.extend_from_slice(&self.block.bytes[range.clone()]));
        Chunk::Own(bytes)
    }

    /// Forgets all bytes: they belong to a connection that is gone.
    pub fn clear(&mut self) {
        self.unread = 0..0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(inbox: &mut Inbox, bytes: &[u8]) {
        inbox.room()[..bytes.len()].copy_from_slice(bytes);
        inbox.fill(bytes.len());
    }

    #[test]
    fn a_shared_chunk_keeps_its_bytes_while_reading_goes_on() {
        let mut inbox = Inbox::default();
        let first = vec![1; SHARE_MIN_BYTES];
        put(&mut inbox, &first);
        put(&mut inbox, b"rest");
        let chunk = inbox.chunk(&[0..4, 4..SHARE_MIN_BYTES]);
        assert!(matches!(chunk, Chunk::Shared(..)));
        inbox.consume(SHARE_MIN_BYTES);
        put(&mut inbox, b" and more");
        assert_eq!(inbox.unread(), b"rest and more");
        inbox.room().fill(9);
        assert_eq!(chunk.slices().collect::<Vec<_>>().concat(), first);
        drop(chunk);
        assert_eq!(inbox.spare.lock().expect("free").len(), 1, "the block comes back");
    }

    #[test]
    fn little_data_is_copied_and_holds_no_block() {
        let mut inbox = Inbox::default();
        put(&mut inbox, b"--abc--de");
        let chunk = inbox.chunk(&[2..5, 7..9]);
        assert!(matches!(&chunk, Chunk::Own(bytes) if bytes == b"abcde"));
        assert_eq!(chunk.length(), 5);
        assert!(Arc::get_mut(&mut inbox.block).is_some());
        let rest = |done| chunk.rest(done).map(<[u8]>::to_vec);
        assert_eq!([rest(0), rest(4), rest(5)], [Some(b"abcde".into()), Some(b"e".into()), None]);
    }

    #[test]
    fn there_is_always_room_and_nothing_unread_is_lost() {
        let mut inbox = Inbox::default();
        let mut expected = Vec::new();
        for round in 0..50u8 {
            let bytes = vec![round; 100_000];
            put(&mut inbox, &bytes);
            expected.extend_from_slice(&bytes);
            let done = inbox.unread().len() - 50_000;
            assert_eq!(inbox.unread(), expected);
            inbox.consume(done);
            expected.drain(..done);
            assert!(inbox.room().len() >= ROOM_MIN_BYTES);
        }
    }
}
