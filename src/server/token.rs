//! What a poller's token stands for: the kind in the upper bits, the id in the others.

use mio::Token;

use crate::hub::{ConnectionId, OperationId};

/// Whose readiness it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// The socket of a connection.
    Connection(ConnectionId),
    /// One end of a command's pipes, or its exit.
    Command(OperationId, Pipe),
    /// A socket that is on its way out, by its slot.
    Lingering(usize),
    /// The listener on `[::]`.
    ListenerV6,
    /// The listener on `0.0.0.0`.
    ListenerV4,
    /// A worker has a result.
    Workers,
    /// A signal has come.
    Signals,
}

/// What of a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pipe {
    /// Its standard output can be read.
    Stdout,
    /// Its error output can be read.
    Stderr,
    /// Its standard input can be written.
    Stdin,
    /// It has exited.
    Exit,
}

const KIND_SHIFT: u32 = 61;
const VALUE_MASK: usize = (1 << KIND_SHIFT) - 1;

impl Source {
    /// The token that stands for it.
    pub fn token(self) -> Token {
        let (kind, value) = match self {
            Source::Connection(id) => (0, id.to_bits() as usize),
            Source::Command(id, Pipe::Stdout) => (1, id.to_bits() as usize),
            Source::Command(id, Pipe::Stderr) => (2, id.to_bits() as usize),
            Source::Command(id, Pipe::Stdin) => (3, id.to_bits() as usize),
            Source::Command(id, Pipe::Exit) => (4, id.to_bits() as usize),
            Source::Lingering(slot) => (5, slot),
            Source::ListenerV6 => (6, 0),
            Source::ListenerV4 => (6, 1),
            Source::Workers => (6, 2),
            Source::Signals => (6, 3),
        };
        Token(kind << KIND_SHIFT | value)
    }

    /// What the token stands for.
    pub fn of(token: Token) -> Source {
        let value = token.0 & VALUE_MASK;
        let command = |pipe| Source::Command(OperationId::from_bits(value as u64), pipe);
        match (token.0 >> KIND_SHIFT, value) {
            (0, _) => Source::Connection(ConnectionId::from_bits(value as u64)),
            (1, _) => command(Pipe::Stdout),
            (2, _) => command(Pipe::Stderr),
            (3, _) => command(Pipe::Stdin),
            (4, _) => command(Pipe::Exit),
            (5, slot) => Source::Lingering(slot),
            (_, 0) => Source::ListenerV6,
            (_, 1) => Source::ListenerV4,
            (_, 2) => Source::Workers,
            _ => Source::Signals,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_source() {
        let connection = ConnectionId::new(9_999, u64::MAX);
        let operation = OperationId::new(77, 1 << 36);
        let mut sources = vec![
            Source::Connection(connection),
            Source::Lingering(3),
            Source::ListenerV6,
            Source::ListenerV4,
            Source::Workers,
            Source::Signals,
        ];
        for pipe in [Pipe::Stdout, Pipe::Stderr, Pipe::Stdin, Pipe::Exit] {
            sources.push(Source::Command(operation, pipe));
        }
        for source in sources {
            assert_eq!(Source::of(source.token()), source);
        }
    }
}
