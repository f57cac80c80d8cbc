//! What an idle session costs in resident memory.

use std::{thread, time::Duration};

use crate::{
    client::Client,
    machine::resident_bytes,
    peers::Peer,
    protocol::{Protocol, Role},
};

/// A server has so long to give back what the logins took.
const SETTLE: Duration = Duration::from_millis(1500);

/// Descriptors that we need beside the sessions.
const SPARE_DESCRIPTORS: u64 = 200;

/// What the sessions took.
pub struct Taken {
    /// Resident bytes of the server, one session being there for warmth.
    pub before: u64,
    /// The same with all of them.
    pub after: u64,
    /// How many were opened between the two.
    pub sessions: u64,
}

/// Opens so many named sessions, or as many as the limit of descriptors allows.
pub fn run<P: Protocol>(peer: &Peer, sessions: u64, descriptors: u64) -> Result<Taken, String> {
    let sessions = sessions.min(descriptors.saturating_sub(SPARE_DESCRIPTORS));
    let pid = peer.daemon.pid();
    let mut clients = vec![Client::<P>::connect(peer, 0, "n00000", Role::Receiver)?];
    thread::sleep(SETTLE);
    let before = resident_bytes(pid)?;
    for index in 1..=sessions {
        let client =
            Client::<P>::connect(peer, index as usize, &format!("n{index:05}"), Role::Receiver);
        clients.push(client.map_err(|error| format!("session {index}: {error}"))?);
    }
    thread::sleep(SETTLE);
    let after = resident_bytes(pid)?;
    Ok(Taken { before, after, sessions })
}
