//! Everything that touches the world, one file a thing. Knows no user names and no rules.

pub mod ask;
pub mod clock;
pub mod connect;
pub mod files;
pub mod fingerprint;
pub mod guard;
pub mod held_place;
pub mod host;
pub mod identity;
pub mod known_servers;
pub mod listen;
pub mod logger;
pub mod partfile;
pub mod password;
pub mod peer_owner;
pub mod process;
pub mod signals;
pub mod stage;
pub mod stage_name;
pub mod state;
pub mod terminal;
pub mod tls;
pub mod transport;
pub mod trusted_file;
pub mod udp;
pub mod workers;
