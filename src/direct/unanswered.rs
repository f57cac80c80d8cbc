//! How much is sent to addresses that have not answered: whoever names them may have named somebody
//! who knows nothing of it.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// The time in which so much may be sent.
const WINDOW: Duration = Duration::from_secs(10);

/// Datagrams of dials within the present window, over all channels of an endpoint.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// To one address, and in all.
    most: (u32, u32),
    since: Option<Instant>,
    /// By address whatever the port; `None` where one of them has answered. At most as many as
    /// datagrams.
    sent: BTreeMap<IpAddr, Option<u32>>,
    total: u32,
}

impl Unanswered {
    /// Nothing was sent so far, and so much may be: to one address, and in all.
    pub(super) fn new(most: (u32, u32)) -> Unanswered {
        Unanswered { most, since: None, sent: BTreeMap::new(), total: 0 }
    }

    /// Whether one more datagram may be sent there.
    pub(super) fn may(&mut self, to: IpAddr, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + WINDOW) {
            *self = Unanswered { since: Some(now), ..Unanswered::new(self.most) };
        }
        let (address_max, max) = self.most;
        match self.sent.get(&to) {
            Some(None) => true,
            Some(Some(sent)) if *sent >= address_max => false,
            Some(Some(_)) | None => self.total < max,
        }
    }

    /// So many were sent.
    pub(super) fn note_sent(&mut self, to: IpAddr, count: u32) {
        if let Some(sent) = self.sent.entry(to).or_insert(Some(0)) {
            *sent += count;
            self.total += count;
        }
    }

    /// Somebody is there who knows of it.
    pub(super) fn note_answer(&mut self, from: IpAddr) {
        if let Some(sent) = self.sent.insert(from, None).flatten() {
            self.total = self.total.saturating_sub(sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: (u32, u32) = (48, 160);

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn send_all(unanswered: &mut Unanswered, to: IpAddr, now: Instant) -> u32 {
        let mut count = 0;
        while count < 10_000 && unanswered.may(to, now) {
            unanswered.note_sent(to, 1);
            count += 1;
        }
        count
    }

    #[test]
    fn silent_addresses_are_left_alone_after_so_many_datagrams_and_in_all() {
        let begin = Instant::now();
        let mut unanswered = Unanswered::new(MOST);
        let counts: Vec<u32> =
            (0..200).map(|at| send_all(&mut unanswered, ip(at), begin)).collect();
        assert_eq!(counts[0], MOST.0);
        assert_eq!(counts.iter().sum::<u32>(), MOST.1);
        let almost = begin + WINDOW - Duration::from_millis(1);
        assert_eq!(send_all(&mut unanswered, ip(0), almost), 0);
        let next = send_all(&mut unanswered, ip(0), begin + WINDOW);
        assert_eq!(next, MOST.0);
    }

    #[test]
    fn who_answers_is_no_stranger_and_counts_no_more() {
        let begin = Instant::now();
        let mut unanswered = Unanswered::new(MOST);
        send_all(&mut unanswered, ip(0), begin);
        unanswered.note_answer(ip(0));
        assert_eq!(send_all(&mut unanswered, ip(0), begin), 10_000);
        let others: u32 = (1..200).map(|at| send_all(&mut unanswered, ip(at), begin)).sum();
        assert_eq!(others, MOST.1);
    }
}
