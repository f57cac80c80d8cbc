//! The parameters of QUIC (RFC 9000): what one connection may cost, and how it is made fast.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn_proto::{IdleTimeout, MtuDiscoveryConfig, TransportConfig};

use super::congestion::{Factory, Gate};
use crate::limits::{DIRECT_IDLE_TIMEOUT, DIRECT_RECEIVE_WINDOW_BYTES, DIRECT_SEND_WINDOW_BYTES};

/// The only version of QUIC that is spoken (RFC 9000).
pub(super) const VERSION: u32 = 1;

/// Largest datagram that is taken: the largest that UDP has room for.
pub(super) const DATAGRAM_MAX_BYTES: u16 = 65_527;

/// Largest datagram that is tried within this machine. Of 1,452, 8,952, 16,000, 32,000 and 65,000
/// bytes this takes the least time, with 32,000: four of them go to the system in one piece.
const NEAR_MTU_MAX_BYTES: u16 = 16_000;

/// The same over a network: what jumbo frames of Ethernet have room for.
const FAR_MTU_MAX_BYTES: u16 = 8_952;

/// Taken for the round trip before one was measured. A third of a second, as RFC 9002 has it,
/// would leave a lost first datagram only one more chance within the time of a race.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Silence after which the other end is asked whether it is there, so that the table entries of
/// translators on the way live on (30 s for UDP in many, RFC 4787).
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Datagrams for handshakes that have not been accepted: none, as each is at once, or never.
pub(super) const INCOMING_BUFFER_BYTES: u64 = 0;

/// The parameters of one connection to `remote`, and what lets its farewell pass.
pub(super) fn parameters(remote: SocketAddr) -> (Arc<TransportConfig>, Gate) {
    let is_near = remote.ip().is_loopback();
    let gate = Gate::default();
    let mtu_max_bytes = if is_near { NEAR_MTU_MAX_BYTES } else { FAR_MTU_MAX_BYTES };
    (Arc::new(config(mtu_max_bytes, gate.clone())), gate)
}

fn config(mtu_max_bytes: u16, gate: Gate) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(mtu_max_bytes);
    let idle = IdleTimeout::try_from(DIRECT_IDLE_TIMEOUT).expect("30 s are within 62 bits of ms");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(DIRECT_RECEIVE_WINDOW_BYTES.into())
        .receive_window(DIRECT_RECEIVE_WINDOW_BYTES.into())
        .send_window(DIRECT_SEND_WINDOW_BYTES)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .congestion_controller_factory(Arc::new(Factory(gate)));
    config
}

/// How many datagrams of `mtu` bytes go to the system in one piece: beyond 10 nothing is gained,
/// and 65,507 bytes are the most that it takes (udp(7)).
pub(super) fn segments(mtu: usize) -> usize {
    (65_507 / mtu).clamp(1, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_is_larger_than_the_system_takes() {
        for mtu in 1200..=65_527 {
            let segments = segments(mtu);
            assert!((1..=10).contains(&segments));
            assert!(segments == 1 || segments * mtu <= 65_507, "{segments} of {mtu}");
        }
        assert_eq!((segments(1452), segments(16_000)), (10, 4));
    }
}
