//! How large the data frames of a stream may be: large where they pass quickly.
//!
//! What follows a frame on its connection waits for all of it, so on a slow line frames are
//! small. On a fast one large frames cost less: the other end knows that so much is coming, and is
//! woken once for it ([`Transport::expect`](crate::sys::transport::Transport::expect)).

use crate::limits::{CHUNK_MAX_BYTES, DATA_FRAME_MAX_BYTES};

/// So much in a millisecond is fast: a large frame passes in 8 ms (some 32 MiB/s).
const FAST_BYTES_PER_MS: u64 = 32 * 1024;

/// Time that is looked at, in milliseconds.
const WINDOW_MS: u64 = 10;

/// See the head of this file. Times are in milliseconds of any clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameSize {
    began_ms: u64,
    bytes: u64,
    is_fast: bool,
}

impl FrameSize {
    /// Whether large frames pass quickly.
    pub fn is_large(&self) -> bool {
        self.is_fast
    }

    /// The largest body that the next frame should have, in bytes.
    pub fn body_max_bytes(&self) -> usize {
        if self.is_fast { DATA_FRAME_MAX_BYTES } else { CHUNK_MAX_BYTES }
    }

    /// A frame with so many bytes was handed on, which happens no faster than they pass.
    pub fn note(&mut self, bytes: usize, now_ms: u64) {
        self.bytes += bytes as u64;
        let passed_ms = now_ms.saturating_sub(self.began_ms);
        if passed_ms >= WINDOW_MS {
            self.is_fast = self.bytes >= passed_ms.saturating_mul(FAST_BYTES_PER_MS);
            (self.began_ms, self.bytes) = (now_ms, 0);
        }
    }
}

const _: () = assert!(FAST_BYTES_PER_MS * 8 >= DATA_FRAME_MAX_BYTES as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_large_while_they_pass_quickly_and_small_again_afterwards() {
        let mut size = FrameSize::default();
        assert_eq!(size.body_max_bytes(), CHUNK_MAX_BYTES);
        size.note(CHUNK_MAX_BYTES, 1_000_000);
        assert_eq!(size.body_max_bytes(), CHUNK_MAX_BYTES, "nothing is known of it yet");
        (1..=10).for_each(|ms| size.note(CHUNK_MAX_BYTES, 1_000_000 + ms));
        assert_eq!(size.body_max_bytes(), DATA_FRAME_MAX_BYTES);
        size.note(DATA_FRAME_MAX_BYTES, 1_000_110);
        assert_eq!(size.body_max_bytes(), CHUNK_MAX_BYTES);
    }
}
