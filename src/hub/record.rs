//! What the log is told of sessions and logins: one line each, `key=value`, of nothing that a peer
//! could make up. Names are those of users, which have no spaces; what may be a password that was
//! typed in the wrong place is not told.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use super::{CloseReason, Session, SessionId};
use crate::wire::{Dialect, Name};

/// How many sessions have ended, by the reason.
#[derive(Debug, Default)]
pub struct Closes {
    counts: BTreeMap<&'static str, u64>,
}

impl Closes {
    /// Counts and tells the end of a session, to whoever asks for that where it had no name.
    pub(super) fn tell(&mut self, session: &Session, user: Option<Name>, reason: CloseReason) {
        *self.counts.entry(reason.as_str()).or_default() += 1;
        let level = if user.is_some() { log::Level::Info } else { log::Level::Debug };
        let (id, peer, reason) = (session.id, session.connection.origin.peer(), reason.as_str());
        let user = user.as_ref().map_or("-", Name::as_str);
        log::log!(level, "event=end session={id} user={user} address={peer} reason={reason}");
    }
}

/// `peer-left=3 silent=1`
impl fmt::Display for Closes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (reason, count)) in self.counts.iter().enumerate() {
            let space = if at > 0 { " " } else { "" };
            write!(formatter, "{space}{reason}={count}")?;
        }
        Ok(())
    }
}

pub(super) fn begun(id: SessionId, peer: SocketAddr) {
    log::debug!("event=begin session={id} address={peer}");
}

pub(super) fn logged_in(session: &Session, name: &Name) {
    let (id, peer) = (session.id, session.connection.origin.peer());
    let dialect = match session.connection.dialect() {
        Some(Dialect::Line) => "lines",
        Some(Dialect::Json) => "json",
        Some(Dialect::Frame) => "frames",
        None => "none",
    };
    log::info!("event=login user={name} session={id} address={peer} dialect={dialect}");
}

/// `name` where it is a user's; `failures` in a row where that is known.
pub(super) fn login_failed(name: Option<&Name>, id: SessionId, peer: SocketAddr, failures: u8) {
    let reason = if name.is_some() { "wrong-password" } else { "no-such-user" };
    let user = name.map_or("?", Name::as_str);
    log::warn!(
        "event=login-failed user={user} session={id} address={peer} reason={reason} \
         failures={failures}"
    );
}

pub(super) fn blocked(name: Option<&Name>, peer: SocketAddr, seconds: u64) {
    let user = name.map_or("?", Name::as_str);
    log::warn!("event=login-blocked user={user} address={peer} seconds={seconds}");
}

pub(super) fn block_over(name: Option<&Name>, refused: u32) {
    let user = name.map_or("?", Name::as_str);
    log::info!("event=login-block-over user={user} refused={refused}");
}

impl CloseReason {
    /// As logs have it.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::PeerLeft => "peer-left",
            CloseReason::PeerGone => "peer-gone",
            CloseReason::Protocol => "protocol",
            CloseReason::NotServed => "not-served",
            CloseReason::NotAdmitted => "not-admitted",
            CloseReason::NameTaken => "name-taken",
            CloseReason::NotLoggedIn => "not-logged-in",
            CloseReason::Replaced => "replaced",
            CloseReason::FirstRequestTimeout => "first-request-timeout",
            CloseReason::LoginTimeout => "login-timeout",
            CloseReason::Silent => "silent",
            CloseReason::Stalled => "stalled",
            CloseReason::SlowConsumer => "slow-consumer",
            CloseReason::BrokenFile => "broken-file",
            CloseReason::MadeRoom => "made-room",
            CloseReason::ShuttingDown => "shutting-down",
            CloseReason::Reset => "reset",
            CloseReason::Unfinished => "unfinished",
            CloseReason::Fault => "fault",
        }
    }
}
