//! Sessions that have not said who they are: how many come from where, and who makes room.
//!
//! Anybody can open connections, as many as one address gives; so those of strangers are bounded
//! by source, and where there is no room the oldest of them goes first. Whoever has logged in with
//! a password is never among them. A stranger that only needs a moment to log in is not the oldest
//! one. A name at an open server costs nothing and proves nothing: sessions that have one are
//! counted with the strangers of their source, and go after those.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use super::{CloseReason, Connection, Hub, Phase, SessionId, directory::Keyed};
use crate::limits::Limits;

/// Where connections come from, as far as one owner can choose: a customer of a network provider
/// has a whole /64 of IPv6 (RFC 6177, section 2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SourceNet {
    /// This machine, in either family.
    Loopback,
    /// An IPv4 address.
    V4([u8; 4]),
    /// A network of IPv6, its first 64 bits.
    V6([u8; 8]),
}

impl SourceNet {
    /// The source that an address belongs to.
    pub fn of(address: IpAddr) -> SourceNet {
        match address.to_canonical() {
            address if address.is_loopback() => SourceNet::Loopback,
            IpAddr::V4(address) => SourceNet::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                SourceNet::V6([a, b, c, d, e, f, g, h])
            }
        }
    }

    /// Sessions that have proved nothing and may come from here.
    fn strangers_max(self, limits: &Limits) -> usize {
        match self {
            // Programs of this machine are many, and it is they who share it anyway.
            SourceNet::Loopback => (limits.sessions_max * 3 / 4).max(1),
            _ => limits.strangers_by_source_max.min((limits.sessions_max / 2).max(1)),
        }
    }
}

/// Sessions that have proved nothing: those without a name, or those with one that anybody could
/// have taken. Ids of sessions sort by their age.
#[derive(Debug)]
pub(super) struct Strangers {
    all: BTreeSet<SessionId>,
    by_source: HashMap<SourceNet, BTreeSet<SessionId>, Keyed>,
}

/// So many of the oldest are looked through for one that can go.
const LOOKED_AT_MAX: usize = 64;

impl Strangers {
    pub(super) fn new(key: Keyed) -> Strangers {
        Strangers { all: BTreeSet::new(), by_source: HashMap::with_hasher(key) }
    }

    pub(super) fn insert(&mut self, id: SessionId, source: SourceNet) {
        self.all.insert(id);
        self.by_source.entry(source).or_default().insert(id);
    }

    pub(super) fn remove(&mut self, id: SessionId, source: SourceNet) {
        if !self.all.remove(&id) {
            return;
        }
        if let Some(ids) = self.by_source.get_mut(&source) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }

    fn of(&self, source: SourceNet) -> usize {
        self.by_source.get(&source).map_or(0, BTreeSet::len)
    }

    /// The source with the most sessions, if those are more than so many.
    fn largest(&self, beyond: usize) -> Option<SourceNet> {
        let sources = self.by_source.iter().map(|(source, ids)| (ids.len(), *source));
        let largest = sources.max_by_key(|(count, _)| *count);
        largest.filter(|(count, _)| *count > beyond).map(|(_, source)| source)
    }

    /// Panics where its two tables disagree; whether the session is among them.
    pub(super) fn check(&self, id: SessionId, source: SourceNet) -> bool {
        let by_source: usize = self.by_source.values().map(BTreeSet::len).sum();
        assert_eq!(by_source, self.all.len(), "each stranger has a source");
        let is_there = self.all.contains(&id);
        let ids = self.by_source.get(&source);
        assert_eq!(ids.is_some_and(|ids| ids.contains(&id)), is_there, "{id:?} has another source");
        is_there
    }
}

impl Hub {
    /// Sees to it that one more session can come from here; false where it cannot.
    pub(super) fn admits(&mut self, source: SourceNet) -> bool {
        let most = source.strangers_max(&self.limits);
        let own = self.strangers.of(source) + self.unproven.of(source);
        let has_share = own < most || self.let_one_go(Some(source)) || self.let_unproven_go(source);
        has_share
            && (self.sessions.len() < self.limits.sessions_max
                || self.let_one_go(None)
                || self.let_one_of_many_go(own + 1))
    }

    /// Lets the oldest stranger go, where there is one: the system has no room for more.
    pub fn make_room(&mut self) -> bool {
        self.let_one_go(None) || self.let_one_of_many_go(1)
    }

    /// Lets one go that has a name which it had not to prove, from the source with the most of
    /// them, if those are more than so many: else nobody has too much.
    fn let_one_of_many_go(&mut self, beyond: usize) -> bool {
        self.unproven.largest(beyond).is_some_and(|source| self.let_unproven_go(source))
    }

    /// The same for this source: whichever has nothing under way, and has been silent longest.
    fn let_unproven_go(&mut self, source: SourceNet) -> bool {
        let ids = self.unproven.by_source.get(&source).into_iter().flatten();
        let sessions = ids.take(LOOKED_AT_MAX).filter_map(|id| self.session(*id));
        let idle = sessions.filter(|session| !session.has_work());
        let chosen = idle.min_by_key(|session| session.connection.heard).map(|session| session.id);
        chosen.inspect(|id| self.remove(*id, CloseReason::MadeRoom)).is_some()
    }

    fn let_one_go(&mut self, source: Option<SourceNet>) -> bool {
        let ids = match source {
            Some(source) => self.strangers.by_source.get(&source),
            None => Some(&self.strangers.all),
        };
        let oldest = || ids.into_iter().flatten().take(LOOKED_AT_MAX).copied();
        let is_idle = |id: &SessionId| self.session(*id).is_some_and(|it| !it.has_work());
        let is_checked = |it: &Connection| matches!(it.phase, Phase::Verifying);
        let is_of_no_use = |id: &SessionId| {
            self.connection(*id).is_some_and(|it| it.is_nobody() && !is_checked(it))
        };
        let chosen = oldest().find(is_of_no_use).or_else(|| oldest().find(is_idle));
        chosen.inspect(|id| self.remove(*id, CloseReason::MadeRoom)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_what_one_owner_can_choose_from() {
        let of = |text: &str| SourceNet::of(text.parse().expect("an address"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        for local in ["::1", "127.0.0.1", "127.9.9.9", "::ffff:127.0.0.1"] {
            assert_eq!(of(local), SourceNet::Loopback);
        }
    }
}
