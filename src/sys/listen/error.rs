//! Why listening failed, in words for the operator.

use std::fmt;
use std::io;

use rustix::io::Errno;

use super::{Families, Family};

/// Why listening failed. Its text names family and port and says what to do.
#[derive(Debug)]
pub enum ListenError {
    /// Another program has the port (`EADDRINUSE`).
    Busy {
        /// The family in which it is taken.
        family: Family,
        /// The port asked for.
        port: u16,
    },
    /// The port is reserved and this account may not use it (`EACCES`, ip(7)).
    NotAllowed {
        /// The family that said so.
        family: Family,
        /// The port asked for.
        port: u16,
    },
    /// The host has none of the wanted families.
    NoFamily {
        /// What was wanted.
        families: Families,
    },
    /// No number was free in both families, however often another one was tried.
    NoFreePort,
    /// Anything else the system said.
    Other {
        /// The family that failed.
        family: Family,
        /// The port asked for.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy { family, port } => write!(
                f,
                "port {port} is busy on {family} ({}): another program listens there; \
                 choose another --port or stop it",
                family.any(*port)
            ),
            Self::NotAllowed { family, port } => write!(
                f,
                "port {port} on {family} ({}) is reserved for the system; \
                 choose a --port from 1024 on",
                family.any(*port)
            ),
            Self::NoFamily { families } => match families {
                Families::Both => {
                    f.write_str("this host has neither IPv6 nor IPv4; enable its network first")
                }
                Families::V4Only => {
                    f.write_str("this host has no IPv4; enable it or listen on IPv6")
                }
                Families::V6Only => {
                    f.write_str("this host has no IPv6; enable it or listen on IPv4")
                }
            },
            Self::NoFreePort => {
                f.write_str("found no port that is free on both IPv6 and IPv4; name one by --port")
            }
            Self::Other { family, port, source } => write!(
                f,
                "cannot listen on port {port} on {family} ({}): {source}",
                family.any(*port)
            ),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Other { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl ListenError {
    /// Sorts what the system said.
    pub(super) fn new(family: Family, port: u16, source: io::Error) -> Self {
        match Errno::from_io_error(&source) {
            Some(Errno::ADDRINUSE) => Self::Busy { family, port },
            Some(Errno::ACCESS) => Self::NotAllowed { family, port },
            _ => Self::Other { family, port, source },
        }
    }
}
