//! Whether the other end of a connection is still there, as our kernel knows it.
//!
//! A host that lives acknowledges what comes, whatever its programs do: one that is stopped, slow,
//! or does not read is there. `TCP_USER_TIMEOUT` (tcp(7)) alone does not tell that: it also ends
//! the connection of a program that is alive and takes nothing for as long. So the kernel is made
//! to ask often ([`ask_often`]), and here is looked at what came back.

use std::io;
use std::net::SocketAddr;

use mio::net::TcpStream;

use super::listen::ask_often;
use super::peer_owner::{FarEnd, SocketTable};
use crate::limits::{PEER_SILENT_MAX, PULSE_EVERY};

/// Questions or repeats without an answer that make silence a sign: an idle connection that nobody
/// asked anything is silent too.
const UNANSWERED_MIN: u8 = 3;

/// How the other end of a connection does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pulse {
    /// It is there, or nothing is known to the contrary.
    Beats,
    /// Its host has not answered for a while, though it was asked.
    HostSilent,
    /// Its program, on this machine, has closed it in both directions.
    Closed,
}

/// Looks at connections. Without sock_diag(7) it sees nothing, and the kernel's own times hold.
#[derive(Debug, Default)]
pub struct PulseReader {
    table: Option<SocketTable>,
    /// It could not be opened; that will not change.
    is_blind: bool,
}

impl PulseReader {
    /// Looks at one, in microseconds. `has_ended` says that its peer sends no more.
    pub fn look(&mut self, stream: &TcpStream, has_ended: bool) -> Pulse {
        match self.try_to_look(stream, has_ended) {
            Ok(pulse) => pulse,
            Err(error) => {
                log::debug!("a connection cannot be looked at: {error}");
                Pulse::Beats
            }
        }
    }

    fn try_to_look(&mut self, stream: &TcpStream, has_ended: bool) -> io::Result<Pulse> {
        if self.table.is_none() && !self.is_blind {
            self.table = SocketTable::open().ok();
            self.is_blind = self.table.is_none();
        }
        let Some(table) = &mut self.table else { return Ok(Pulse::Beats) };
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        if has_ended && peer.ip().to_canonical().is_loopback() {
            let end = FarEnd::new(peer, local);
            if table.is_abandoned(end)? {
                return Ok(Pulse::Closed);
            }
        }
        // The socket of a link-local connection is bound to its interface.
        let interface_id = match local {
            SocketAddr::V6(local) => local.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        let info = table.tcp_info(FarEnd::new(local, peer), interface_id)?;
        Ok(info.as_deref().map_or(Pulse::Beats, judge))
    }
}

/// One connection that is looked at for as long as something is waited for on it.
#[derive(Debug, Default)]
pub struct PulseWatch {
    reader: PulseReader,
    /// When to look again; `None` while nothing is waited for.
    next_ms: Option<u64>,
}

impl PulseWatch {
    /// Forgets the connection before; another one begins.
    pub fn begin(&mut self) {
        self.next_ms = None;
    }

    /// To be called in every turn, and at [`PulseWatch::due_ms`]: whether the other end is gone.
    pub fn is_lost(&mut self, stream: &TcpStream, waits: bool, now_ms: u64) -> bool {
        let is_new = waits != self.next_ms.is_some();
        if is_new && let Err(error) = ask_often(stream, waits) {
            log::debug!("keepalive could not be set: {error}");
        }
        let is_due = self.next_ms.is_some_and(|at| at <= now_ms);
        if is_new || is_due {
            self.next_ms = waits.then_some(now_ms + PULSE_EVERY.as_millis() as u64);
        }
        waits && is_due && self.reader.look(stream, false) != Pulse::Beats
    }

    /// When to look again.
    pub fn due_ms(&self) -> Option<u64> {
        self.next_ms
    }
}

/// Judges by `struct tcp_info` (linux/tcp.h), whose beginning has stood still since Linux 2.4:
/// repeats of what is not acknowledged, questions without an answer, and milliseconds since the
/// last acknowledgement.
fn judge(info: &[u8]) -> Pulse {
    const RETRANSMITS: usize = 2;
    const PROBES: usize = 3;
    const LAST_ACK_RECEIVED: usize = 56;
    let (Some(retransmits), Some(probes)) = (info.get(RETRANSMITS), info.get(PROBES)) else {
        return Pulse::Beats;
    };
    let word = info.get(LAST_ACK_RECEIVED..).and_then(|rest| rest.first_chunk());
    let silent_ms = word.map_or(0, |word| u32::from_ne_bytes(*word));
    let is_unanswered = (*retransmits).max(*probes) >= UNANSWERED_MIN;
    match is_unanswered && u128::from(silent_ms) >= PEER_SILENT_MAX.as_millis() {
        true => Pulse::HostSilent,
        false => Pulse::Beats,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::*;

    fn info(retransmits: u8, probes: u8, silent_ms: u32) -> Vec<u8> {
        let mut info = vec![0; 104];
        (info[2], info[3]) = (retransmits, probes);
        info[56..60].copy_from_slice(&silent_ms.to_ne_bytes());
        info
    }

    #[test]
    fn a_host_is_silent_that_was_asked_often_and_for_long() {
        for (retransmits, probes, silent_ms, pulse) in [
            (0, 3, 9_000, Pulse::HostSilent),
            (5, 0, 12_000, Pulse::HostSilent),
            // An idle connection that nobody asked.
            (0, 0, 80_000, Pulse::Beats),
            // One that is asked less and less often as it takes nothing, and answers each time.
            (0, 1, 13_000, Pulse::Beats),
            (3, 3, 8_999, Pulse::Beats),
        ] {
            assert_eq!(judge(&info(retransmits, probes, silent_ms)), pulse, "{silent_ms}");
        }
        assert_eq!(judge(&info(9, 9, 99_999)[..40]), Pulse::Beats);
        assert_eq!(judge(b""), Pulse::Beats);
    }

    #[test]
    fn a_program_that_has_closed_is_told_from_one_that_only_says_no_more() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(address) else { continue };
            let mut peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            let mut reader = PulseReader::default();
            let mut look = |stream: &std::net::TcpStream| {
                let stream = stream.try_clone().unwrap();
                reader.look(&TcpStream::from_std(stream), true)
            };
            assert_eq!(look(&server), Pulse::Beats);
            peer.write_all(b"x").unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            server.read_exact(&mut [0]).unwrap();
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            assert_eq!(look(&server), Pulse::Beats, "{address}: it still reads");
            drop(peer);
            if SocketTable::open().is_ok() {
                assert_eq!(look(&server), Pulse::Closed, "{address}");
            }
        }
    }
}
