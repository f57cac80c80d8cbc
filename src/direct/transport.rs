//! The parameters of QUIC (RFC 9000): what one connection may cost, and how it is made fast.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn_proto::{
    AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
};

use crate::limits::{
    DIRECT_IDLE_TIMEOUT, DIRECT_RECEIVE_WINDOW_BYTES, DIRECT_SEND_WINDOW_BYTES,
};

const NEAR_MTU_MAX_BYTES: u16 = 16_000;
const FAR_MTU_MAX_BYTES: u16 = 8_952;
const INITIAL_RTT: Duration = Duration::from_millis(50);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

fn tune(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|it| it.parse().ok()).unwrap_or(default)
}

/// The parameters for connections within this machine, and for those that leave it.
pub(super) struct Transports {
    near: Arc<TransportConfig>,
    far: Arc<TransportConfig>,
}

impl Transports {
    pub(super) fn new() -> Transports {
        Transports {
            near: Arc::new(config(tune("T_NEAR", NEAR_MTU_MAX_BYTES.into()) as u16)),
            far: Arc::new(config(tune("T_FAR", FAR_MTU_MAX_BYTES.into()) as u16)),
        }
    }

    pub(super) fn to(&self, remote: SocketAddr) -> Arc<TransportConfig> {
        if remote.ip().is_loopback() { self.near.clone() } else { self.far.clone() }
    }
}

fn config(mtu_max_bytes: u16) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(mtu_max_bytes);
    let idle = IdleTimeout::try_from(DIRECT_IDLE_TIMEOUT).expect("30 s fit a varint");
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(1u32.into())
        .max_concurrent_uni_streams(0u32.into())
        .max_idle_timeout(Some(idle))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window((tune("T_RWND", DIRECT_RECEIVE_WINDOW_BYTES.into()) as u32).into())
        .receive_window((tune("T_RWND", DIRECT_RECEIVE_WINDOW_BYTES.into()) as u32).into())
        .send_window(tune("T_SWND", DIRECT_SEND_WINDOW_BYTES))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_receive_buffer_size(None);
    match tune("T_CC", 0) {
        0 => config.congestion_controller_factory(Arc::new(CubicConfig::default())),
        _ => config.congestion_controller_factory(Arc::new(BbrConfig::default())),
    };
    let ack = tune("T_ACK", 0);
    if ack > 0 {
        let mut frequency = AckFrequencyConfig::default();
        frequency.ack_eliciting_threshold(VarInt::from_u32(ack as u32));
        config.ack_frequency_config(Some(frequency));
    }
    config
}

/// The only version of QUIC that is spoken (RFC 9000).
pub(super) const VERSION: u32 = 1;

/// Largest datagram that is taken: the largest that UDP has room for.
pub(super) const DATAGRAM_MAX_BYTES: u16 = 65_527;

/// What may wait for a handshake that has not been accepted: nothing, as each is at once.
pub(super) const INCOMING_BUFFER_BYTES: u64 = 0;
/// The same for all of them.
pub(super) const INCOMING_BUFFERS_BYTES: u64 = 0;

/// How many datagrams of `mtu` bytes go to the system in one piece: beyond 10 nothing is gained,
/// and 65,507 bytes are the most that it takes (udp(7)).
pub(super) fn segments(mtu: usize) -> usize {
    (65_507 / mtu).clamp(1, 10)
}
