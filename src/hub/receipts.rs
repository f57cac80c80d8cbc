//! What senders are to hear of their messages: that each has arrived, or that it is lost.
//!
//! ```text
//!   message --> held back --> outbox --the socket has its last byte--> told, with lines and JSON
//!                               '-----> awaiting --the client has shown it--> told, with frames
//!   anywhere: its reader has gone --> told that it is lost
//! ```
//!
//! At each of these places is one [`ReceiptQueue`]. What a sender with JSON is still to hear is
//! counted in [`Expected`], as it names its messages by ids of its own.

use std::collections::{BTreeMap, VecDeque};

use super::SessionId;
use crate::wire::Tag;

/// Whom to tell of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Receipt {
    /// The session that wrote it; [`SessionId::NOBODY`] where it is kept in another queue.
    pub sender: SessionId,
    /// Not 0: the sender asked to be told of its delivery, under this number. Of 0 only a loss is
    /// told.
    pub tag: Tag,
}

/// Messages on their way, in order, each at a place: where it ends among bytes, or its number.
#[derive(Debug, Default)]
pub struct ReceiptQueue {
    queue: VecDeque<(u64, Receipt)>,
}

impl Receipt {
    /// That of a message whose receipt is kept in another queue.
    pub const ELSEWHERE: Receipt = Receipt { sender: SessionId::NOBODY, tag: 0 };
}

impl ReceiptQueue {
    /// Puts a message at the end.
    #[inline]
    pub fn push(&mut self, at: u64, receipt: Receipt) {
        self.queue.push_back((at, receipt));
    }

    /// Takes out the first message, if it is at no later place than this.
    #[inline]
    pub fn pop_until(&mut self, at: u64) -> Option<Receipt> {
        let (place, receipt) = *self.queue.front()?;
        if place > at {
            return None;
        }
        self.queue.pop_front();
        Some(receipt)
    }

    /// Takes out the message at this place.
    pub fn take(&mut self, at: u64) -> Option<Receipt> {
        let index = self.queue.iter().position(|(place, _)| *place == at)?;
        self.queue.remove(index).map(|(_, receipt)| receipt)
    }

    /// Takes out all messages.
    pub fn drain(&mut self) -> impl Iterator<Item = Receipt> {
        self.queue.drain(..).map(|(_, receipt)| receipt)
    }

    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// All messages and their places.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Receipt)> {
        self.queue.iter().copied()
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }

    /// Panics where they are not in the order of their places, or not between these.
    pub fn check(&self, after: u64, last: u64) {
        assert!(self.queue.iter().is_sorted_by_key(|(at, _)| *at));
        assert!(self.queue.front().is_none_or(|(at, _)| *at > after));
        assert!(self.queue.back().is_none_or(|(at, _)| *at <= last));
    }
}

/// What a sender is still to hear, by the numbers of its messages.
#[derive(Debug, Default)]
pub struct Expected {
    by_tag: BTreeMap<Tag, Announced>,
}

/// News that are still to come of one message.
#[derive(Debug)]
struct Announced {
    id: Box<str>,
    count: usize,
}

impl Expected {
    pub fn len(&self) -> usize {
        self.by_tag.len()
    }

    /// So many recipients of the message have promised news.
    pub fn add(&mut self, tag: Tag, id: &str, count: usize) {
        if count > 0 {
            self.by_tag.insert(tag, Announced { id: id.into(), count });
        }
    }

    /// News have come of the message, one of those that were promised; its id.
    pub fn take(&mut self, tag: Tag) -> Option<Box<str>> {
        let announced = self.by_tag.get_mut(&tag)?;
        announced.count -= 1;
        match announced.count {
            0 => self.by_tag.remove(&tag).map(|announced| announced.id),
            _ => Some(announced.id.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(tag: Tag) -> Receipt {
        Receipt { sender: SessionId::new(3, 3), tag }
    }

    #[test]
    fn receipts_leave_in_order_or_by_their_place() {
        let mut receipts = ReceiptQueue::default();
        for at in 1..=4 {
            receipts.push(u64::from(at) * 10, receipt(at));
        }
        receipts.check(9, 40);
        assert_eq!(receipts.pop_until(9), None);
        assert_eq!(receipts.pop_until(10), Some(receipt(1)));
        assert_eq!(receipts.take(30), Some(receipt(3)));
        assert_eq!(receipts.take(30), None);
        assert_eq!(receipts.drain().collect::<Vec<_>>(), [receipt(2), receipt(4)]);
        assert_eq!(receipts.len(), 0);
    }

    #[test]
    fn a_message_to_three_is_expected_three_times() {
        let mut expected = Expected::default();
        expected.add(7, "mine", 3);
        expected.add(8, "to nobody", 0);
        assert_eq!(expected.len(), 1);
        for _ in 0..3 {
            assert_eq!(expected.take(7).as_deref(), Some("mine"));
        }
        assert_eq!(expected.take(7), None);
        assert_eq!(expected.len(), 0);
    }
}
