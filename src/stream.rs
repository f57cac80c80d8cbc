//! A stream of bytes each way that outlives the path below it: what one path has lost, the next
//! one carries again, from where the other end stood.
//!
//! ```text
//!   0        1                 4
//!   +--------+-----------------+---------- - - -
//!   |  kind  |  length of body |  body
//!   +--------+-----------------+---------- - - -
//! ```
//!
//! On each path each end first says RESUME: so much of your stream I have. Pure: bytes in, bytes
//! out; PROTOCOL.md, "Direct path".

use std::{collections::VecDeque, io};

use bytes::{Buf as _, Bytes};

/// Bytes before the body.
const HEADER_BYTES: usize = 4;

/// The largest body of DATA; larger ones are an error.
const DATA_MAX_BYTES: usize = 256 * 1024;

/// The body of RESUME and ACK: a number, and whether the end was read as well.
const NOTE_BYTES: usize = 9;

/// So much is read before that is told.
const ACK_STEP_BYTES: u64 = 512 * 1024;

/// Bytes that are kept until the other end has them; more are not put on the path.
const UNACKNOWLEDGED_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// Kinds of frames.
mod kind {
    pub(super) const RESUME: u8 = 1;
    pub(super) const DATA: u8 = 2;
    pub(super) const ACK: u8 = 3;
    pub(super) const END: u8 = 4;
}

/// Both directions of a stream, at one of its ends.
#[derive(Debug, Default)]
pub struct Stream {
    unsent: VecDeque<Bytes>,
    unsent_bytes: u64,
    /// Put on a path, and not yet known to have arrived.
    unacknowledged: VecDeque<Bytes>,
    /// Offset of the first of these, and of the first that was not sent.
    acknowledged: u64,
    sent: u64,
    /// The latter before a path was lost.
    sent_ever: u64,
    /// Bytes that the other end has said and that we have, and so many of them it knows of.
    received: u64,
    told: u64,
    /// We say no more; the other end has heard that.
    is_finished: bool,
    is_end_acknowledged: bool,
    /// The other end says no more; it knows that we have heard that.
    is_ended: bool,
    is_end_told: bool,
    path: Path,
}

/// What is of the present path alone.
#[derive(Debug, Default)]
struct Path {
    /// The head of a frame, or a small one, on its way out.
    out: Bytes,
    /// The DATA frame that has begun lacks so many bytes.
    out_left: usize,
    /// Where the other end stands is known.
    is_resumed: bool,
    is_end_said: bool,
    /// The head of a frame that has not come as a whole.
    head: Vec<u8>,
    /// The DATA frame that has begun to come lacks so many bytes.
    in_left: usize,
}

/// The other end does not speak as it should.
#[derive(Debug, Eq, PartialEq)]
pub struct Wrong(pub String);

impl Stream {
    /// Begins on a path, the first or another one.
    pub fn begin(&mut self) {
        self.path = Path::default();
        // Nothing was ever sent: so nothing can have arrived.
        self.path.is_resumed = self.sent == 0;
        self.put_note(kind::RESUME);
    }

    /// Says these bytes.
    pub fn say(&mut self, bytes: Bytes) {
        self.unsent_bytes += bytes.len() as u64;
        self.unsent.push_back(bytes);
    }

    /// Says no more.
    pub fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Whether all is said and heard, each way.
    pub fn is_done(&self) -> bool {
        let both_know = self.is_end_acknowledged && self.is_end_told;
        both_know && self.path.out.is_empty()
    }

    /// Puts on the path what it takes, until `write` would block or nothing is left; tells how
    /// many bytes of the stream went for the first time.
    ///
    /// # Errors
    /// What `write` said, but for that it would block.
    pub fn write_to(
        &mut self,
        write: &mut dyn FnMut(&mut Bytes) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            let written = match self.path.out.is_empty() {
                false => write(&mut self.path.out),
                true if self.path.out_left > 0 => self.write_data(write),
                true if self.prepare() => continue,
                true => break,
            };
            match written {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let before = self.sent_ever;
        self.sent_ever = before.max(self.sent);
        Ok((self.sent_ever - before) as usize)
    }

    fn write_data(
        &mut self,
        write: &mut dyn FnMut(&mut Bytes) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let front = self.unsent.front_mut().expect("a frame has no more than there is");
        let mut piece = front.slice(..front.len().min(self.path.out_left));
        let count = write(&mut piece)?;
        let piece = front.split_to(count);
        if front.is_empty() {
            self.unsent.pop_front();
        }
        if count > 0 {
            self.unacknowledged.push_back(piece);
        }
        self.path.out_left -= count;
        self.unsent_bytes -= count as u64;
        self.sent += count as u64;
        Ok(count)
    }

    /// Makes the next frame; false where there is none to be said.
    fn prepare(&mut self) -> bool {
        let is_end_news = self.is_ended && !self.is_end_told;
        if self.received - self.told >= ACK_STEP_BYTES || is_end_news {
            self.put_note(kind::ACK);
            return true;
        }
        if !self.path.is_resumed {
            return false;
        }
        let room = UNACKNOWLEDGED_MAX_BYTES.saturating_sub(self.sent - self.acknowledged);
        let length = self.unsent_bytes.min(room).min(DATA_MAX_BYTES as u64) as usize;
        if length > 0 {
            self.path.out = head(kind::DATA, length);
            self.path.out_left = length;
            return true;
        }
        let has_said_all = self.is_finished && self.unsent_bytes == 0;
        if has_said_all && !self.path.is_end_said && !self.is_end_acknowledged {
            self.path.is_end_said = true;
            self.path.out = head(kind::END, 0);
            return true;
        }
        false
    }

    fn put_note(&mut self, kind: u8) {
        self.told = self.received;
        self.is_end_told = self.is_ended;
        let mut out = head(kind, NOTE_BYTES).to_vec();
        out.extend_from_slice(&self.received.to_be_bytes());
        out.push(self.is_ended.into());
        self.path.out = out.into();
    }

    /// Takes in bytes of the path; those of the stream go to `take`.
    ///
    /// # Errors
    /// They are no stream.
    pub fn handle(&mut self, mut bytes: Bytes, take: &mut Vec<Bytes>) -> Result<(), Wrong> {
        while !bytes.is_empty() {
            if self.path.in_left > 0 {
                let piece = bytes.split_to(bytes.len().min(self.path.in_left));
                self.path.in_left -= piece.len();
                self.received += piece.len() as u64;
                take.push(piece);
                continue;
            }
            let head = &mut self.path.head;
            let wanted = match head.get(..HEADER_BYTES) {
                None => HEADER_BYTES,
                Some(&[_, a, b, c]) => HEADER_BYTES + length(a, b, c),
                Some(_) => unreachable!("it has four bytes"),
            };
            let count = bytes.len().min(wanted - head.len());
            head.extend_from_slice(&bytes[..count]);
            bytes.advance(count);
            self.digest()?;
        }
        Ok(())
    }

    /// Deals with the frame, if the head of it, and what belongs to that, is there.
    fn digest(&mut self) -> Result<(), Wrong> {
        let head = &self.path.head;
        let Some((&[kind, a, b, c], body)) = head.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(());
        };
        let length = length(a, b, c);
        match (kind, length) {
            (kind::DATA, 1..=DATA_MAX_BYTES) if !self.is_ended => self.path.in_left = length,
            (kind::RESUME | kind::ACK, NOTE_BYTES) => {
                let Some((number, &[is_ended])) = body.split_first_chunk::<8>() else {
                    return Ok(());
                };
                let (number, is_ended) = (u64::from_be_bytes(*number), is_ended != 0);
                self.handle_note(kind, number, is_ended)?;
            }
            (kind::END, 0) => (self.is_ended, self.is_end_told) = (true, false),
            _ => return Err(Wrong(format!("a frame of kind {kind} with {length} bytes"))),
        }
        self.path.head.clear();
        Ok(())
    }

    fn handle_note(&mut self, kind: u8, number: u64, is_ended: bool) -> Result<(), Wrong> {
        if !(self.acknowledged..=self.sent).contains(&number) {
            let text = format!("{number} bytes of {} are acknowledged", self.sent);
            return Err(Wrong(text));
        }
        let mut count = number - self.acknowledged;
        self.acknowledged = number;
        while let Some(front) = self.unacknowledged.front_mut().filter(|_| count > 0) {
            let known = front.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            front.advance(known);
            count -= known as u64;
            if front.is_empty() {
                self.unacknowledged.pop_front();
            }
        }
        self.is_end_acknowledged |= is_ended;
        if kind == kind::RESUME && !self.path.is_resumed {
            self.path.is_resumed = true;
            // What the other end does not have goes again.
            self.unsent_bytes += self.sent - number;
            self.sent = number;
            while let Some(last) = self.unacknowledged.pop_back() {
                self.unsent.push_front(last);
            }
        }
        Ok(())
    }
}

fn head(kind: u8, length: usize) -> Bytes {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    Bytes::copy_from_slice(&[kind, a, b, c])
}

fn length(a: u8, b: u8, c: u8) -> usize {
    u32::from_be_bytes([0, a, b, c]) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One end and what it has heard.
    #[derive(Default)]
    struct End {
        stream: Stream,
        heard: Vec<u8>,
    }

    /// Takes at most so many bytes, then blocks.
    fn write(stream: &mut Stream, mut room: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let went = stream.write_to(&mut |bytes| {
            let count = bytes.len().min(room);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            room -= count;
            out.extend_from_slice(&bytes.split_to(count));
            Ok(count)
        });
        went.expect("only blocks");
        out
    }

    fn hear(end: &mut End, bytes: &[u8]) {
        let mut pieces = Vec::new();
        end.stream.handle(Bytes::copy_from_slice(bytes), &mut pieces).expect("it is right");
        pieces.iter().for_each(|piece| end.heard.extend_from_slice(piece));
    }

    fn pattern(seed: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_derive_key("test")
            .update(&seed.to_be_bytes())
            .finalize_xof()
            .fill(&mut bytes);
        bytes
    }

    #[test]
    fn whatever_paths_lose_the_stream_is_whole() {
        for seed in 0..60u64 {
            let random = pattern(seed, 4096);
            let mut random = random.iter().cycle().map(|byte| usize::from(*byte));
            let mut next = move |most: usize| random.next().expect("for ever") * most / 255;
            let said = [pattern(seed, 1_200_000 + seed as usize), pattern(seed + 1000, 70_000)];
            let mut ends = [End::default(), End::default()];
            let mut paths = 0;
            for (end, said) in ends.iter_mut().zip(&said) {
                for piece in said.chunks(1 + next(300_000)) {
                    end.stream.say(Bytes::copy_from_slice(piece));
                }
                end.stream.finish();
            }
            while !ends.iter().all(|end| end.stream.is_done()) {
                paths += 1;
                assert!(paths < 1000, "it does not get on");
                ends.iter_mut().for_each(|end| end.stream.begin());
                let mut flying = [Vec::new(), Vec::new()];
                // A path that breaks after some turns: what flies is lost.
                for _ in 0..if paths > 20 { 10_000 } else { next(8) } {
                    for at in 0..2 {
                        let bytes = write(&mut ends[at].stream, next(200_000));
                        flying[at].extend(bytes);
                        let count = flying[at].len().min(1 + next(150_000));
                        let some: Vec<u8> = flying[at].drain(..count).collect();
                        hear(&mut ends[1 - at], &some);
                    }
                    if ends.iter().all(|end| end.stream.is_done()) {
                        break;
                    }
                }
            }
            assert!(ends[0].heard == said[1] && ends[1].heard == said[0], "seed {seed}");
        }
    }

    #[test]
    fn what_is_kept_for_another_path_is_bounded() {
        let mut stream = Stream::default();
        stream.begin();
        for _ in 0..40 {
            stream.say(vec![7; 1024 * 1024].into());
        }
        let went = write(&mut stream, usize::MAX).len() as u64;
        let frames = UNACKNOWLEDGED_MAX_BYTES / DATA_MAX_BYTES as u64 * HEADER_BYTES as u64;
        let note = (HEADER_BYTES + NOTE_BYTES) as u64;
        assert_eq!(went, UNACKNOWLEDGED_MAX_BYTES + frames + note);
    }

    #[test]
    fn what_is_no_stream_is_an_error() {
        let note = |kind: u8, number: u64| {
            let mut bytes = head(kind, NOTE_BYTES).to_vec();
            bytes.extend(number.to_be_bytes());
            bytes.push(0);
            bytes
        };
        let after_end = [head(kind::END, 0), head(kind::DATA, 1)].concat();
        for bytes in [
            head(9, 0).to_vec(),
            head(kind::DATA, 0).to_vec(),
            head(kind::DATA, DATA_MAX_BYTES + 1).to_vec(),
            head(kind::END, 1).to_vec(),
            head(kind::ACK, 8).to_vec(),
            note(kind::ACK, 1),
            note(kind::RESUME, u64::MAX),
            after_end,
        ] {
            let mut stream = Stream::default();
            stream.begin();
            let handled = stream.handle(bytes.clone().into(), &mut Vec::new());
            assert!(handled.is_err(), "{bytes:?}");
        }
    }
}
