//! Who is where: the index from user names to sessions.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

use siphasher::sip::SipHasher13;

use super::SessionId;
use crate::wire::Name;

/// The sessions by the names of their users.
///
/// Peers choose the names, so the hash is keyed, and the key comes from outside: a simulation
/// hands in a constant and sees the same order every time.
#[derive(Debug)]
pub struct Names {
    sessions: HashMap<Name, SessionId, Keyed>,
}

/// The secret key of such a hash.
#[derive(Clone, Copy, Debug)]
pub struct Keyed(pub [u64; 2]);

impl BuildHasher for Keyed {
    type Hasher = Hash13;

    fn build_hasher(&self) -> Hash13 {
        Hash13(SipHasher13::new_with_keys(self.0[0], self.0[1]))
    }
}

/// SipHash-1-3 without the length prefix and the terminator that `std` adds: the keys of this
/// map are whole byte strings, nothing is concatenated.
pub struct Hash13(SipHasher13);

impl Hasher for Hash13 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0.finish()
    }
}

impl Names {
    /// An empty index under a secret key.
    pub fn new(key: Keyed) -> Names {
        Names { sessions: HashMap::with_hasher(key) }
    }

    /// The session of the user whose name is `name`; bytes that are no name find nobody.
    pub fn get(&self, name: &[u8]) -> Option<SessionId> {
        self.sessions.get(name).copied()
    }

    /// Gives the name to the session; false where somebody has it.
    pub fn claim(&mut self, name: Name, session: SessionId) -> bool {
        match self.sessions.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(session);
                true
            }
        }
    }

    /// Makes the name free.
    pub fn release(&mut self, name: &Name) {
        self.sessions.remove(name.as_bytes());
    }

    /// Everybody, in the order of the names.
    pub fn sorted(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.sessions.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// All pairs, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, SessionId)> {
        self.sessions.iter().map(|(name, session)| (name, *session))
    }

    /// How many names are taken.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }
}
