//! When to look at what again.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{OperationId, SessionId, Time};

/// Whom a timer concerns.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Alarm {
    /// A session's deadlines.
    Session(SessionId),
    /// A command's time limit.
    Operation(OperationId),
    /// Logins that had to wait because of failures before them.
    Logins,
    /// The end of the time that a stopping server gives.
    Shutdown,
}

/// A heap of alarms. Alarms are not taken back: whoever is woken looks whether it is time, and
/// sets the next. So what happens often (a byte was heard) costs nothing here.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Time, Alarm)>>,
}

impl Timers {
    /// Wakes `alarm` at `due`.
    pub fn set(&mut self, due: Time, alarm: Alarm) {
        self.heap.push(Reverse((due, alarm)));
    }

    /// The next alarm whose time has come, with the time for which it was set.
    pub fn pop(&mut self, now: Time) -> Option<(Time, Alarm)> {
        let Reverse((due, _)) = self.heap.peek()?;
        if *due > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }

    /// Keeps the alarms of which `is_needed` says so.
    pub fn retain(&mut self, mut is_needed: impl FnMut(Time, Alarm) -> bool) {
        self.heap.retain(|Reverse((due, alarm))| is_needed(*due, *alarm));
    }

    /// All alarms, stale ones included, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Time, Alarm)> {
        self.heap.iter().map(|Reverse(entry)| *entry)
    }

    /// How many alarms are set, stale ones included.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// When the next alarm is due, stale ones included.
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }
}
