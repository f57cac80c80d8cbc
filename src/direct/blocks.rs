//! Memory for what was received: blocks that are used again, as giving 64 KiB back to the system
//! and asking for them again costs a quarter of the whole time at full speed.

use std::collections::VecDeque;

use bytes::BytesMut;

/// What the kernel hands over in one piece at most.
const BLOCK_BYTES: usize = 64 * 1024;

/// Blocks that are kept for use: as much as may be between the socket and a quick reader.
const BLOCKS_MAX: usize = 128;

/// Blocks that are looked at before one more is made.
const LOOKS: usize = 4;

/// Smaller datagrams get memory of their own: a block lives as long as the smallest part of it
/// that somebody has not read, and a peer could make that many.
const SHARING_MIN_BYTES: usize = 4096;

/// The blocks, the one that was used longest ago first.
#[derive(Default)]
pub(super) struct Blocks(VecDeque<BytesMut>);

impl Blocks {
    /// Copies datagrams of `stride` bytes each, of which the last may be shorter, and hands them
    /// over one by one.
    pub(super) fn copy(&mut self, bytes: &[u8], stride: usize, mut take: impl FnMut(BytesMut)) {
        if stride < SHARING_MIN_BYTES {
            return bytes.chunks(stride.max(1)).for_each(|datagram| take(datagram.into()));
        }
        let mut shared = self.copy_whole(bytes);
        while !shared.is_empty() {
            take(shared.split_to(stride.min(shared.len())));
        }
    }

    fn copy_whole(&mut self, bytes: &[u8]) -> BytesMut {
        for _ in 0..LOOKS.min(self.0.len()) {
            if self.0[0].try_reclaim(bytes.len()) {
                return self.fill_first(bytes);
            }
            self.0.rotate_left(1);
        }
        if self.0.len() == BLOCKS_MAX {
            return bytes.into();
        }
        self.0.push_front(BytesMut::with_capacity(BLOCK_BYTES));
        self.fill_first(bytes)
    }

    fn fill_first(&mut self, bytes: &[u8]) -> BytesMut {
        let block = &mut self.0[0];
        block.extend_from_slice(bytes);
        let filled = block.split();
        self.0.rotate_left(1);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied(blocks: &mut Blocks, bytes: &[u8], stride: usize) -> Vec<BytesMut> {
        let mut found = Vec::new();
        blocks.copy(bytes, stride, |datagram| found.push(datagram));
        found
    }

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let mut blocks = Blocks::default();
        let bytes: Vec<u8> = (0..60_000u32).map(|it| it as u8).collect();
        for stride in [1, 1452, 4096, 16_000, 60_000, 70_000] {
            let found = copied(&mut blocks, &bytes, stride);
            assert_eq!(found.concat(), bytes);
            assert!(found.iter().rev().skip(1).all(|it| it.len() == stride));
        }
        assert!(copied(&mut blocks, b"", 1452).is_empty());
    }

    #[test]
    fn blocks_are_used_again_and_never_while_somebody_holds_a_part() {
        let mut blocks = Blocks::default();
        let held = copied(&mut blocks, &[7; 60_000], 20_000).pop().expect("there are three");
        for round in 0..200 {
            drop(copied(&mut blocks, &[round; 60_000], 20_000));
        }
        assert_eq!(held, [7; 20_000][..]);
        assert!(blocks.0.len() <= 3, "{} blocks", blocks.0.len());
        let all: Vec<_> =
            (0..200).flat_map(|it| copied(&mut blocks, &[it; 60_000], 60_000)).collect();
        assert!(all.iter().zip(0..).all(|(block, it)| *block == [it; 60_000][..]));
        assert_eq!(blocks.0.len(), BLOCKS_MAX);
    }
}
