//! What an input has made due for sessions other than its own, done once that is dealt with: one at
//! a time and not from within each other, as each may tell others, who may be full too.

use super::{CloseReason, SessionId};

/// Sessions for which something is due.
#[derive(Debug, Default)]
pub(super) struct Later {
    doomed: Vec<(SessionId, CloseReason)>,
    freed: Vec<SessionId>,
}

/// What is due for one of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// It must go.
    Close(SessionId, CloseReason),
    /// It may be able to go on: what others did has made room for it.
    GoOn(SessionId),
}

impl Later {
    /// The session must go.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason) {
        self.doomed.push((id, reason));
    }

    /// The session may be able to go on.
    pub(super) fn go_on(&mut self, id: SessionId) {
        self.freed.push(id);
    }

    /// What is to be done next: whatever must go does so before anything goes on.
    pub(super) fn next(&mut self) -> Option<Due> {
        let close = self.doomed.pop().map(|(id, reason)| Due::Close(id, reason));
        close.or_else(|| self.freed.pop().map(Due::GoOn))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.doomed.is_empty() && self.freed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_must_go_does_so_before_anything_goes_on() {
        let (one, other) = (SessionId::new(1, 1), SessionId::new(2, 2));
        let mut later = Later::default();
        later.go_on(one);
        later.close(other, CloseReason::SlowConsumer);
        assert_eq!(later.next(), Some(Due::Close(other, CloseReason::SlowConsumer)));
        later.close(one, CloseReason::BrokenFile);
        assert_eq!(later.next(), Some(Due::Close(one, CloseReason::BrokenFile)));
        assert_eq!(later.next(), Some(Due::GoOn(one)));
        assert_eq!(later.next(), None);
        assert!(later.is_empty());
    }
}
