//! When which candidate is dialled: RFC 8305, section 5, for an end that is dialled as well.
//!
//! ```text
//!  waiting ──poll──▶ dialled ──failed──▶ waiting, not before 250 ms
//!     ▲ the next one 100 ms later,          │ at most 8 times
//!     │ or at once after a failure          ▼
//!     └────────────────────────────── unreachable: never again
//! ```

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::limits::DIRECT_ATTEMPT_DELAY;

/// Pause before a candidate is dialled again. The other end may have answered that it does not
/// know us, because its introduction is still on the way.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// Dials of one candidate in one race.
const TRIES_MAX: u32 = 8;

struct Waiting {
    address: SocketAddr,
    not_before: Instant,
    tries: u32,
}

/// The candidates of one race that are not being dialled.
pub(super) struct Dials {
    waiting: VecDeque<Waiting>,
    next_at: Instant,
}

impl Dials {
    /// Begins now, with IPv6.
    pub(super) fn new(candidates: impl Iterator<Item = SocketAddr>, now: Instant) -> Dials {
        let wait = |address| Waiting { address, not_before: now, tries: 0 };
        Dials { waiting: interleave(candidates).into_iter().map(wait).collect(), next_at: now }
    }

    /// What to dial now, and how often that was done before.
    pub(super) fn poll(&mut self, now: Instant) -> Option<(SocketAddr, u32)> {
        if now < self.next_at {
            return None;
        }
        let at = self.waiting.iter().position(|it| it.not_before <= now)?;
        let next = self.waiting.remove(at)?;
        self.next_at = now + DIRECT_ATTEMPT_DELAY;
        Some((next.address, next.tries))
    }

    /// When there will be something to dial.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.iter().map(|it| it.not_before.max(self.next_at)).min()
    }

    /// A dial has ended without a connection.
    pub(super) fn handle_failed(&mut self, address: SocketAddr, tries: u32, now: Instant) {
        self.next_at = now;
        if tries + 1 < TRIES_MAX {
            let not_before = now + AGAIN_AFTER;
            self.waiting.push_back(Waiting { address, not_before, tries: tries + 1 });
        }
    }

    /// There is no way to this candidate from here.
    pub(super) fn handle_unreachable(&mut self, now: Instant) {
        self.next_at = now;
    }
}

/// Alternates the families, IPv6 first, each address once (RFC 8305, section 4).
fn interleave(candidates: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let (mut v6, mut v4) = (VecDeque::new(), VecDeque::new());
    for candidate in candidates {
        let family = if candidate.is_ipv6() { &mut v6 } else { &mut v4 };
        if !family.contains(&candidate) {
            family.push_back(candidate);
        }
    }
    let mut mixed = Vec::with_capacity(v6.len() + v4.len());
    while !v6.is_empty() || !v4.is_empty() {
        mixed.extend(v6.pop_front());
        mixed.extend(v4.pop_front());
    }
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<SocketAddr> {
        list.iter().map(|text| text.parse().expect("an address")).collect()
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn families_alternate_with_ipv6_first_and_nobody_twice() {
        let list = ["192.0.2.1:1", "192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.3:1"];
        let mixed = interleave(addresses(&list).into_iter());
        let wanted = ["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"];
        assert_eq!(mixed, addresses(&wanted));
    }

    #[test]
    fn silence_gives_way_after_100_ms_and_a_failure_at_once() {
        let list = addresses(&["[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"]);
        let begin = Instant::now();
        let mut dials = Dials::new(list.iter().copied(), begin);
        assert_eq!(dials.poll(begin), Some((list[0], 0)));
        assert_eq!(dials.poll(begin + ms(99)), None);
        assert_eq!(dials.poll_timeout(), Some(begin + ms(100)));
        assert_eq!(dials.poll(begin + ms(100)), Some((list[1], 0)));
        dials.handle_failed(list[1], 0, begin + ms(120));
        assert_eq!(dials.poll(begin + ms(120)), Some((list[2], 0)));
        assert_eq!(dials.poll_timeout(), Some(begin + ms(370)));
        assert_eq!(dials.poll(begin + ms(369)), None);
        assert_eq!(dials.poll(begin + ms(370)), Some((list[1], 1)));
        assert_eq!(dials.poll_timeout(), None);
        dials.handle_unreachable(begin + ms(380));
        assert_eq!(dials.poll(begin + ms(5000)), None);
    }

    #[test]
    fn a_candidate_is_not_dialled_for_ever() {
        let list = addresses(&["192.0.2.1:1"]);
        let mut now = Instant::now();
        let mut dials = Dials::new(list.iter().copied(), now);
        let mut count = 0;
        while let Some((address, tries)) = dials.poll(now) {
            assert_eq!(tries, count);
            count += 1;
            dials.handle_failed(address, tries, now);
            now += AGAIN_AFTER;
        }
        assert_eq!(count, TRIES_MAX);
    }
}
