//! Randomness from one seed, so that a simulation can run again as it ran.

use quinn_proto::{ConnectionId, ConnectionIdGenerator};

/// Length of the connection IDs that we give out, in bytes.
const ID_BYTES: usize = 8;

/// Length of the first destination ID of a dial: at least 8 and not to be guessed (RFC 9000,
/// section 7.2).
const FIRST_ID_BYTES: usize = 16;

/// As good as its seed: the output of BLAKE3, which is a pseudorandom function where it is keyed.
pub(super) struct Random(blake3::OutputReader);

impl Random {
    /// `purpose` parts streams that come from one seed.
    pub(super) fn new(seed: &[u8; 32], purpose: &str) -> Random {
        let mut hasher = blake3::Hasher::new_keyed(seed);
        hasher.update(purpose.as_bytes());
        Random(hasher.finalize_xof())
    }

    pub(super) fn bytes<const COUNT: usize>(&mut self) -> [u8; COUNT] {
        let mut bytes = [0; COUNT];
        self.0.fill(&mut bytes);
        bytes
    }

    pub(super) fn first_id(&mut self) -> ConnectionId {
        ConnectionId::new(&self.bytes::<FIRST_ID_BYTES>())
    }
}

impl ConnectionIdGenerator for Random {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.bytes::<ID_BYTES>())
    }

    fn cid_len(&self) -> usize {
        ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}
