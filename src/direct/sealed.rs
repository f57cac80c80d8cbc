//! What protects a channel that goes through the server: TLS 1.3 (RFC 8446) between the two
//! clients, with the keys and the token by which they were introduced. The server moves the
//! bytes and cannot read them.
//!
//! The end with the lower fingerprint begins, as the client of TLS, and says the token before
//! anything else. No I/O here: bytes of the pipe go in and come out, as do those of the channel.

use std::{
    fmt,
    io::{self, ErrorKind, Read as _, Write as _},
    sync::Arc,
};

use rustls::{ClientConnection, Connection, ServerConnection, pki_types::ServerName};

use super::{
    OpenError, SessionKey,
    key::{NAME, Peers},
};
use crate::wire::{Introduction, OneTimeToken};

/// What both ends name as the protocol inside (ALPN, RFC 7301).
pub const PROTOCOL: &[u8] = b"sixfour-sealed/1";

/// Bytes for the pipe that may wait; a write that finds so many would block.
const OUTGOING_MAX_BYTES: usize = 256 * 1024;

/// Bytes of the channel that may wait to be read; more of the pipe is not taken then.
const UNREAD_MAX_BYTES: usize = 16 * 1024;

/// Largest record with its header and its tag (RFC 8446, section 5.2), rounded up.
const RECORD_MAX_BYTES: usize = 17 * 1024;

/// The seal does not hold: the other end is not who was introduced, or somebody has changed bytes
/// on the way. Nothing more can be read; what is [`Sealed::outgoing`] tells the other end.
#[derive(Debug)]
pub struct SealError(String);

impl fmt::Display for SealError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the sealed connection through the server broke: {}", self.0)
    }
}

impl std::error::Error for SealError {}

/// One end of a sealed channel.
pub struct Sealed {
    tls: Connection,
    /// What the other end has to say first, and how much of it has come.
    awaited: Option<(OneTimeToken, Vec<u8>)>,
    /// What we have to say first.
    token: Option<OneTimeToken>,
    outgoing: Vec<u8>,
    sent: usize,
    is_broken: bool,
    /// The pipe has ended.
    is_ended: bool,
    /// We have said that we say no more.
    is_finished: bool,
}

impl Sealed {
    /// Begins as `key`'s end of this introduction; the other end has to do the same with its own.
    ///
    /// # Errors
    /// The introduction is to ourselves.
    pub fn new(key: &SessionKey, introduction: &Introduction) -> Result<Sealed, OpenError> {
        let (own, peer) = (key.fingerprint(), introduction.fingerprint);
        if own == peer {
            return Err(OpenError::Oneself);
        }
        let token = introduction.token;
        let tls = if own < peer {
            let name = ServerName::try_from(NAME).expect("it is a name");
            let config = Arc::new(key.client_config(peer, PROTOCOL));
            ClientConnection::new(config, name).expect("the configuration is whole").into()
        } else {
            let peers = Peers::default();
            peers.set(vec![peer]);
            let config = Arc::new(key.server_config(peers, PROTOCOL));
            Connection::from(ServerConnection::new(config).expect("the configuration is whole"))
        };
        let is_first = own < peer;
        let mut sealed = Sealed {
            tls,
            awaited: (!is_first).then(|| (token, Vec::new())),
            token: is_first.then_some(token),
            outgoing: Vec::new(),
            sent: 0,
            is_broken: false,
            is_ended: false,
            is_finished: false,
        };
        sealed.collect();
        Ok(sealed)
    }

    /// Whether the other end has proved who it is; before, nothing can be read or written.
    pub fn is_open(&self) -> bool {
        !self.is_broken && !self.tls.is_handshaking() && self.awaited.is_none()
    }

    /// Takes bytes of the pipe, and tells how many; the others have to be given again after a
    /// read.
    ///
    /// # Errors
    /// [`SealError`], for good.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<usize, SealError> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.is_full()? {
            if let Err(error) = self.tls.read_tls(&mut rest) {
                return self.fail(error.to_string());
            }
            self.is_full()?;
        }
        Ok(bytes.len() - rest.len())
    }

    /// The pipe has ended. If the other end has not said that it ends, that is a break, and
    /// reading says so.
    pub fn handle_end(&mut self) {
        self.is_ended = true;
        // No bytes are the end to it.
        let _ = self.tls.read_tls(&mut io::empty());
    }

    /// Digests what was taken, and tells whether so much is unread that no more can be taken.
    fn is_full(&mut self) -> Result<bool, SealError> {
        if self.is_broken {
            return Err(SealError("it broke before".to_owned()));
        }
        let state = match self.tls.process_new_packets() {
            Ok(state) => state,
            Err(error) => return self.fail(error.to_string()),
        };
        if let Some(token) = self.token.take_if(|_| !self.tls.is_handshaking()) {
            let said = self.tls.writer().write_all(&token.0);
            said.expect("an empty buffer has room for 32 bytes");
        }
        self.collect();
        if let Some((token, came)) = &mut self.awaited {
            let missing = 32 - came.len();
            let mut reader = self.tls.reader().take(missing as u64);
            match reader.read_to_end(came) {
                Err(error) if error.kind() != ErrorKind::WouldBlock => {
                    return self.fail(error.to_string());
                }
                _ => {}
            }
            match <[u8; 32]>::try_from(&came[..]) {
                Ok(came) if token.matches(&came) => self.awaited = None,
                Ok(_) => return self.fail("the token is not that of the introduction".to_owned()),
                Err(_) => {}
            }
        }
        Ok(state.plaintext_bytes_to_read() >= UNREAD_MAX_BYTES)
    }

    fn fail<T>(&mut self, why: String) -> Result<T, SealError> {
        self.collect();
        self.is_broken = true;
        Err(SealError(why))
    }

    /// Moves what TLS has to say to the bytes for the pipe.
    fn collect(&mut self) {
        if self.sent > 0 && self.sent == self.outgoing.len() {
            self.outgoing.clear();
            self.sent = 0;
        }
        while self.tls.wants_write() {
            let written = self.tls.write_tls(&mut self.outgoing);
            written.expect("memory takes everything");
        }
    }

    /// What is to go into the pipe.
    pub fn outgoing(&self) -> &[u8] {
        &self.outgoing[self.sent..]
    }

    /// So much of it has gone.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        assert!(self.sent <= self.outgoing.len(), "more went than there was");
        self.collect();
    }

    /// Reads bytes of the channel; 0 is its end.
    ///
    /// # Errors
    /// `WouldBlock` where there is nothing yet, `UnexpectedEof` where the pipe ended before the
    /// channel, `ConnectionAborted` after a [`SealError`].
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_broken {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        match (self.awaited.is_some(), self.is_ended) {
            (true, true) => Err(ErrorKind::UnexpectedEof.into()),
            (true, false) => Err(ErrorKind::WouldBlock.into()),
            (false, _) => self.tls.reader().read(buffer),
        }
    }

    /// Takes the start of `bytes` and tells how much of it.
    ///
    /// # Errors
    /// `WouldBlock` where there is no room or the other end is not known yet, `BrokenPipe` after
    /// [`Sealed::finish`], `ConnectionAborted` after a [`SealError`].
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_broken {
            return Err(ErrorKind::ConnectionAborted.into());
        }
        if self.is_finished {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let waiting = self.outgoing.len() - self.sent;
        if !self.is_open() || waiting + RECORD_MAX_BYTES > OUTGOING_MAX_BYTES {
            return Err(ErrorKind::WouldBlock.into());
        }
        let room = OUTGOING_MAX_BYTES - RECORD_MAX_BYTES - waiting;
        let count = self.tls.writer().write(&bytes[..bytes.len().min(room.max(1))])?;
        self.collect();
        Ok(count)
    }

    /// We say no more; the other end reads the end after all that was written. Fine to repeat.
    pub fn finish(&mut self) {
        if !std::mem::replace(&mut self.is_finished, true) {
            self.tls.send_close_notify();
        }
        self.collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Candidates, Fingerprint};

    fn introduction(to: Fingerprint, token: u8) -> Introduction {
        let token = OneTimeToken([token; 32]);
        Introduction { fingerprint: to, token, candidates: Candidates::default() }
    }

    /// Both ends of a good channel; the one that begins comes first or last.
    fn pair(seeds: [u8; 2]) -> [Sealed; 2] {
        let keys = seeds.map(|seed| SessionKey::from_seed(&[seed; 32]));
        [0, 1].map(|own| {
            let introduction = introduction(keys[1 - own].fingerprint(), 9);
            Sealed::new(&keys[own], &introduction).expect("not to oneself")
        })
    }

    /// Carries up to `portion` bytes each way; what passed, in both directions.
    fn carry(ends: &mut [Sealed; 2], portion: usize) -> Result<Vec<u8>, SealError> {
        let mut passed = Vec::new();
        for from in 0..2 {
            let count = ends[from].outgoing().len().min(portion);
            let bytes = ends[from].outgoing()[..count].to_vec();
            let taken = ends[1 - from].handle_bytes(&bytes)?;
            ends[from].advance(taken);
            passed.extend_from_slice(&bytes[..taken]);
        }
        Ok(passed)
    }

    fn carry_all(ends: &mut [Sealed; 2]) -> Result<(), SealError> {
        while !carry(ends, usize::MAX)?.is_empty() {}
        Ok(())
    }

    fn read_all(end: &mut Sealed) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let mut buffer = [0; 5000];
        loop {
            match end.read(&mut buffer) {
                Ok(0) => return Ok(all),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) if all.is_empty() => return Err(error),
                Err(_) => return Ok(all),
            }
        }
    }

    #[test]
    fn what_is_said_is_heard_and_nobody_between_reads_it() {
        let text = b"nobody but the other end shall read this. ".repeat(5000);
        for (seeds, portion) in [([1, 2], 1000), ([2, 1], 70_000), ([1, 2], usize::MAX)] {
            let mut ends = pair(seeds);
            let (mut passed, mut said, mut heard) = (Vec::new(), [0; 2], [Vec::new(), Vec::new()]);
            while heard.iter().any(|heard| heard.len() < text.len()) {
                for at in 0..2 {
                    while said[at] < text.len() {
                        match ends[at].write(&text[said[at]..]) {
                            Ok(count) => said[at] += count,
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                                break;
                            }
                        }
                    }
                    assert!(ends[at].outgoing().len() <= OUTGOING_MAX_BYTES);
                    heard[at].extend(read_all(&mut ends[at]).unwrap_or_default());
                }
                passed.extend(carry(&mut ends, portion).expect("nobody has changed anything"));
            }
            assert!(heard.iter().all(|heard| *heard == text));
            for secret in [&b"nobody but"[..], &[9; 32]] {
                let is_seen = passed.windows(secret.len()).any(|window| window == secret);
                assert!(!is_seen, "{secret:?} passed in clear");
            }
            ends[0].finish();
            carry_all(&mut ends).expect("a good end");
            assert_eq!(ends[1].read(&mut [0; 9]).expect("the end"), 0);
            let late = ends[0].write(b"x").expect_err("it has finished");
            assert_eq!(late.kind(), ErrorKind::BrokenPipe);
            assert!(ends[1].write(b"one end goes on").is_ok());
        }
    }

    #[test]
    fn single_bytes_are_enough() {
        let mut ends = pair([1, 2]);
        for _ in 0..5000 {
            carry(&mut ends, 1).expect("nobody has changed anything");
        }
        assert!(ends.iter().all(Sealed::is_open));
    }

    #[test]
    fn another_key_another_token_and_a_changed_byte_break_it() {
        let [one, two, three] = [1, 2, 3].map(|seed| SessionKey::from_seed(&[seed; 32]));
        let seal = |key: &SessionKey, to: &SessionKey, token| {
            Sealed::new(key, &introduction(to.fingerprint(), token)).expect("not to oneself")
        };
        for mut ends in [
            [seal(&one, &two, 9), seal(&two, &three, 9)],
            [seal(&one, &three, 9), seal(&two, &one, 9)],
            [seal(&one, &two, 9), seal(&two, &one, 8)],
        ] {
            let roles_differ = ends[0].token.is_some() != ends[1].token.is_some();
            let broken = carry_all(&mut ends);
            assert!(broken.is_err() || !roles_differ, "it holds");
            assert!(ends.iter().any(|end| !end.is_open()));
            for end in ends.iter_mut().filter(|end| end.is_broken) {
                let text = end.handle_bytes(b"x").expect_err("it is broken").to_string();
                assert!(text.starts_with("the sealed connection through the server"), "{text}");
                let read = end.read(&mut [0; 9]).expect_err("it is broken");
                assert_eq!(read.kind(), ErrorKind::ConnectionAborted);
                assert!(end.write(b"x").is_err());
            }
        }
        let mut ends = pair([1, 2]);
        carry_all(&mut ends).expect("nobody has changed anything");
        assert_eq!(ends[0].write(b"seventeen is good").expect("there is room"), 17);
        let mut bytes = ends[0].outgoing().to_vec();
        bytes[12] ^= 1;
        assert!(ends[1].handle_bytes(&bytes).is_err());
    }

    #[test]
    fn nothing_of_the_channel_is_seen_before_the_token() {
        let mut ends = pair([1, 2]);
        ends.sort_by_key(|end| end.token.is_none());
        assert_eq!(ends[0].write(b"x").expect_err("too early").kind(), ErrorKind::WouldBlock);
        ends[0].token = None;
        carry_all(&mut ends).expect("the handshake is good");
        assert!(ends[0].is_open() && !ends[1].is_open());
        assert_eq!(ends[0].write(b"no token").expect("there is room"), 8);
        carry_all(&mut ends).expect("eight bytes are no token");
        let early = ends[1].read(&mut [0; 9]).expect_err("nothing of the channel");
        assert_eq!(early.kind(), ErrorKind::WouldBlock);
        assert!(ends[1].write(b"x").is_err());
        ends[1].handle_end();
        let ended = ends[1].read(&mut [0; 9]).expect_err("it is cut off");
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_pipe_that_ends_too_early_is_told_from_the_end() {
        let mut ends = pair([1, 2]);
        carry_all(&mut ends).expect("nobody has changed anything");
        ends[1].handle_end();
        let ended = ends[1].read(&mut [0; 9]).expect_err("it is cut off");
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_reader_that_does_not_read_lets_the_pipe_fill() {
        let mut ends = pair([1, 2]);
        carry_all(&mut ends).expect("nobody has changed anything");
        let mut said = 0;
        while let Ok(count) = ends[0].write(&[7; 9000]) {
            said += count;
            carry_all(&mut ends).expect("nobody has changed anything");
            assert!(said < 1_000_000, "all of it is taken");
        }
        assert_eq!(read_all(&mut ends[1]).expect("there is much").len() % 9000, 0);
        carry_all(&mut ends).expect("there is room again");
        assert!(ends[0].write(&[7; 9000]).is_ok());
    }

    #[test]
    fn nobody_seals_a_channel_to_itself() {
        let key = SessionKey::from_seed(&[1; 32]);
        let sealed = Sealed::new(&key, &introduction(key.fingerprint(), 9));
        assert_eq!(sealed.err(), Some(OpenError::Oneself));
    }
}
