//! What the names lead to.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher},
};

use siphasher::sip::SipHasher13;

use super::{Hub, SessionId};
use crate::wire::{Name, Refusal, error::ErrorCode::NoSuchUser, escape::escape_bytes};

/// Everything that has a name.
///
/// Peers choose the names, so the hash is keyed, and the key comes from outside: a simulation
/// hands in a constant and sees the same order every time.
#[derive(Debug)]
pub struct Directory {
    targets: HashMap<Name, NameTarget, Keyed>,
}

/// What a name leads to. Whatever else may have one is a variant here, and an arm wherever
/// something is sent to a name: `Hub::send_to` and `Hub::on_send`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameTarget {
    /// The session of the user of that name.
    Session(SessionId),
}

/// How much of a name is shown that nobody has.
const SHOWN_NAME_CHARS: usize = 40;

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

impl Directory {
    /// An empty directory under a secret key.
    pub fn new(key: Keyed) -> Directory {
        Directory { targets: HashMap::with_hasher(key) }
    }

    /// What has this name; bytes that are no name find nothing.
    pub fn get(&self, name: &[u8]) -> Option<NameTarget> {
        self.targets.get(name).copied()
    }

    /// The session of the user of this name, while they have one.
    pub fn session(&self, name: &Name) -> Option<SessionId> {
        match self.get(name.as_bytes())? {
            NameTarget::Session(id) => Some(id),
        }
    }

    /// Gives the name to the session; false where somebody has it.
    pub fn claim(&mut self, name: Name, session: SessionId) -> bool {
        match self.targets.entry(name) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(NameTarget::Session(session));
                true
            }
        }
    }

    /// Makes the name free.
    pub fn release(&mut self, name: &Name) {
        self.targets.remove(name.as_bytes());
    }

    /// All users who are here, in the order of their names.
    pub fn sorted(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.sessions().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names
    }

    /// All users who are here and their sessions, in no order that means anything.
    pub fn sessions(&self) -> impl Iterator<Item = (&Name, SessionId)> {
        self.targets.iter().map(|(name, target)| match target {
            NameTarget::Session(id) => (name, *id),
        })
    }

    /// How many users are here.
    pub fn users_count(&self) -> usize {
        self.targets.len()
    }
}

impl Hub {
    /// What a sender means by this name, or that there is nothing: the one place that says so.
    /// `purpose` is what it would be here for, if that is to be said.
    pub(super) fn look_up(&self, name: &[u8], purpose: &str) -> Result<NameTarget, Refusal> {
        self.directory.get(name).ok_or_else(|| {
            let name = escape_bytes(name);
            let mut shown: String = name.chars().take(SHOWN_NAME_CHARS).collect();
            if shown.len() < name.len() {
                shown.push_str("...");
            }
            let text = format!("nobody called `{shown}` is here{purpose}; `who` lists the users");
            Refusal::new(0, NoSuchUser, text)
        })
    }
}
