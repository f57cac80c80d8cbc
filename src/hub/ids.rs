//! Names for connections, sessions and operations that outlive them without harm.

use std::fmt;

/// A connection: a slot of the slab and a serial, in one word that fits a poller's token.
///
/// Slots are used again, serials are not (within 2^37 openings), so news of a connection that
/// is gone reaches nobody.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(u64);

/// A session: the same for whoever is at the other end of a connection.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SessionId(u64);

/// An operation: the same for transfers and commands.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OperationId(u64);

const SLOT_BITS: u32 = 24;
/// Three bits of a token remain for whoever mixes ids of several kinds.
const SERIAL_BITS: u32 = 37;

fn pack(slot: usize, serial: u64) -> u64 {
    assert!(slot < 1 << SLOT_BITS, "slots are bounded by the limits");
    ((serial & ((1 << SERIAL_BITS) - 1)) << SLOT_BITS) | slot as u64
}

macro_rules! id {
    ($name:ident, $word:literal) => {
        impl $name {
            /// The id of what lies at `slot` and is the `serial`-th of its kind.
            pub fn new(slot: usize, serial: u64) -> $name {
                $name(pack(slot, serial))
            }

            /// Where it lies, or lay, in its slab.
            pub fn slot(self) -> usize {
                (self.0 & ((1 << SLOT_BITS) - 1)) as usize
            }

            /// The id as a number below 2^61.
            pub fn to_bits(self) -> u64 {
                self.0
            }

            /// The id that [`Self::to_bits`] gave.
            pub fn from_bits(bits: u64) -> $name {
                $name(bits)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!($word, " {}.{}"), self.0 >> SLOT_BITS, self.slot())
            }
        }
    };
}

id!(ConnectionId, "connection");
id!(SessionId, "session");
id!(OperationId, "operation");

impl SessionId {
    /// The id of no session that ever was.
    pub const NOBODY: SessionId = SessionId(u64::MAX);
}

/// As logs have it: its number, and where it lies.
impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.0 >> SLOT_BITS, self.slot())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_that_is_used_again_makes_another_id() {
        let (first, second) = (SessionId::new(7, 1), SessionId::new(7, 2));
        assert_ne!(first, second);
        assert_eq!((first.slot(), second.slot()), (7, 7));
        assert_eq!(SessionId::from_bits(first.to_bits()), first);
        assert!(SessionId::new((1 << 24) - 1, u64::MAX).to_bits() < 1 << 61);
    }
}
