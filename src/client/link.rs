//! The client's half of the framed dialect: bytes in, news out; requests in, bytes out.
//!
//! No I/O and no clock. [`Link`] numbers the operations, keeps both windows of each (output that
//! the server may send, input that we may send), answers pings and says when the server has been
//! silent for too long. PROTOCOL.md, "Frames".
//!
//! ```text
//!   Greeting ──welcome──▶ Ready ──goodbye of either side──▶ Over
//!       └──────────────── goodbye, or silence ───────────────▲
//! ```

use std::{collections::BTreeMap, ops::Range};

use super::outgoing::{FilePart, Outgoing};

use crate::{
    limits::{
        CHUNK_MAX_BYTES, CLIENT_OUTGOING_MAX_BYTES, CLIENT_WINDOW_MAX_BYTES, INPUT_WINDOW_BYTES,
        Limits,
    },
    wire::{
        Call, ErrorCode, Name, Refusal, Secret, Stream, Tag,
        control::{
            DeliveredBody, DetailBody, HelloBody, OutcomeBody, RefusalBody, VERSION, WelcomeBody,
        },
        escape::escape_bytes,
        frame::{self, HEADER_BYTES, Said, client, server},
    },
};

/// Credit is granted in steps of so many bytes, so that it costs little.
const CREDIT_STEP_BYTES: u32 = 256 * 1024;

/// Time that the server has to let us in where nobody has said, in milliseconds.
const WELCOME_TIMEOUT_MS: u64 = 10_000;

/// So much of what another service says is shown.
const GREETING_SHOWN_BYTES: usize = 60;

/// What the server has said, after the link has done its own part with it.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The name is accepted; requests may begin.
    Welcome(WelcomeBody<'a>),
    /// Somebody wrote; a serial other than 0 wants [`Link::acknowledge`].
    Message {
        /// Who.
        from: Name,
        /// What.
        text: &'a str,
        /// For the acknowledgement.
        serial: u32,
    },
    /// News of an operation that runs.
    Detail(Tag, DetailBody<'a>),
    /// Output of an operation that runs: these of the bytes handed in. A frame may come in pieces.
    Data(Tag, Stream, Range<usize>),
    /// The command takes more input: see [`Link::input_room`].
    InputRoom(Tag),
    /// The operation is over; its tag is free again.
    End(Tag, OutcomeBody<'a>),
    /// The message with this number failed, or something else did (0).
    Error(Tag, RefusalBody<'a>),
    /// The message with this number has arrived at somebody.
    Delivered(Tag, DeliveredBody),
    /// The answer to [`Link::ping`].
    Pong(u32),
    /// The server ends the connection; nothing follows.
    Goodbye(Option<RefusalBody<'a>>),
}

/// One connection, from the first byte to the last.
#[derive(Debug)]
pub struct Link {
    state: State,
    /// What waits for the socket.
    out: Outgoing,
    /// The data frame that has begun: bytes of it are still to come.
    data: Option<(Tag, Stream, usize)>,
    operations: BTreeMap<Tag, Operation>,
    /// The last number given to an operation, a message or a ping.
    last_number: Tag,
    /// When the welcome is late, in milliseconds, however much comes before it; and how long that
    /// was from the start.
    welcome_due_ms: u64,
    patience_ms: u64,
    /// When the last byte came, in milliseconds.
    heard_ms: u64,
    /// Whether the present silence was broken by a ping already.
    pinged: bool,
    ping_after_ms: u64,
    gone_after_ms: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Greeting,
    Ready { window_bytes: u32 },
    Over,
}

#[derive(Debug)]
struct Operation {
    /// Bytes that the server may send before it has to wait for credit.
    output_room: u64,
    /// Bytes taken by our consumer for which no credit was granted yet.
    owed: u32,
    /// Bytes that we may send before we have to wait for credit.
    input_room: u32,
    /// The end of the input is not said yet.
    input_open: bool,
}

impl Link {
    /// Introduces `user` on a fresh connection, with the password if there is one. Numbers continue
    /// after `last_number`, so that late news about operations of an older connection reach nobody.
    pub fn new(user: Name, password: Option<&Secret<'_>>, last_number: Tag, now_ms: u64) -> Link {
        let limits = Limits::default();
        let mut link = Link {
            state: State::Greeting,
            out: Outgoing::default(),
            data: None,
            operations: BTreeMap::new(),
            last_number,
            welcome_due_ms: now_ms + WELCOME_TIMEOUT_MS,
            patience_ms: WELCOME_TIMEOUT_MS,
            heard_ms: now_ms,
            pinged: false,
            ping_after_ms: limits.ping_after.as_millis() as u64,
            gone_after_ms: limits.gone_after.as_millis() as u64,
        };
        let hello = HelloBody {
            version: VERSION,
            user: user.as_str().into(),
            password: password.map(Secret::borrowed),
            capabilities: Vec::new(),
        };
        link.out.write(|out| {
            out.extend_from_slice(&frame::MAGIC);
            frame::put_json(out, client::HELLO, 0, &hello);
        });
        link
    }

    /// Gives a fresh connection so long, in milliseconds, until the server has let us in.
    pub fn expect_welcome_within(&mut self, patience_ms: u64) {
        self.welcome_due_ms = self.heard_ms + patience_ms;
        self.patience_ms = patience_ms;
    }

    /// The server has welcomed us and not said goodbye.
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// One side has said goodbye.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// See [`Link::new`].
    pub fn last_number(&self) -> Tag {
        self.last_number
    }

    /// Bytes that a consumer may hold back before it reports them with [`Link::consumed`].
    pub fn credit_step_bytes(&self) -> u32 {
        match self.state {
            State::Ready { window_bytes } => CREDIT_STEP_BYTES.min(window_bytes / 4).max(1),
            State::Greeting | State::Over => 1,
        }
    }

    /// Asks for something; the answers carry the tag that is returned. Before the welcome and
    /// after the goodbye nobody is asked: what was wanted ends with the connection.
    pub fn request(&mut self, call: &Call<'_>) -> Tag {
        let tag = self.next_number();
        let State::Ready { window_bytes } = self.state else { return tag };
        let operation = Operation {
            output_room: window_bytes.into(),
            owed: 0,
            input_room: INPUT_WINDOW_BYTES,
            input_open: call.takes_input(),
        };
        self.operations.insert(tag, operation);
        self.out.write(|out| frame::put_json(out, client::REQUEST, tag, call));
        tag
    }

    /// Sends a text; with `receipt` the number returned comes back once for each recipient.
    pub fn message(&mut self, to: &str, text: &str, receipt: bool) -> u32 {
        let number = if receipt { self.next_number() } else { 0 };
        self.out.write(|out| frame::put_message(out, client::MESSAGE, number, to.as_bytes(), text));
        number
    }

    /// Bytes of input that the command `tag` may be sent at the moment.
    pub fn input_room(&self, tag: Tag) -> usize {
        let open = self.operations.get(&tag).filter(|operation| operation.input_open);
        open.map_or(0, |operation| operation.input_room as usize)
    }

    /// Sends as much of `bytes` as there is room for and returns how much that was. Input of an
    /// operation that is over goes nowhere, and all of it.
    pub fn input(&mut self, tag: Tag, bytes: &[u8]) -> usize {
        let Some(operation) = self.operations.get_mut(&tag) else { return bytes.len() };
        let taken = bytes.len().min(operation.input_room as usize);
        operation.input_room -= taken as u32;
        for piece in bytes[..taken].chunks(CHUNK_MAX_BYTES) {
            self.out.write(|out| frame::put(out, client::DATA, tag, piece));
        }
        taken
    }

    /// Sends a part of a file as input, no larger than a chunk and than [`Link::input_room`].
    pub fn input_file(&mut self, tag: Tag, part: FilePart) {
        let Some(operation) = self.operations.get_mut(&tag) else { return };
        operation.input_room -= part.length as u32;
        self.out.write(|out| frame::put_header(out, client::DATA, tag, part.length));
        self.out.put_file(part);
    }

    /// Says that no more input follows; `hash` is that of the file that it was, or empty.
    pub fn input_end(&mut self, tag: Tag, hash: &[u8]) {
        if let Some(operation) = self.operations.get_mut(&tag)
            && std::mem::take(&mut operation.input_open)
        {
            self.out.write(|out| frame::put(out, client::END, tag, hash));
        }
    }

    /// The consumer of the operation's output has really taken so many bytes.
    pub fn consumed(&mut self, tag: Tag, bytes: u32) {
        let step = self.credit_step_bytes();
        let Some(operation) = self.operations.get_mut(&tag) else { return };
        operation.owed += bytes;
        if operation.owed >= step {
            let credit = std::mem::take(&mut operation.owed);
            operation.output_room += u64::from(credit);
            self.out.write(|out| frame::put(out, client::CREDIT, tag, &credit.to_be_bytes()));
        }
    }

    /// Wants no more of an operation; its end still comes.
    pub fn cancel(&mut self, tag: Tag) {
        if self.operations.contains_key(&tag) {
            self.out.write(|out| frame::put(out, client::CANCEL, tag, b""));
        }
    }

    /// The message with this serial was shown.
    pub fn acknowledge(&mut self, serial: u32) {
        self.out.write(|out| frame::put(out, client::ACKNOWLEDGE, serial, b""));
    }

    /// Asks for a [`Heard::Pong`] with the number returned. The server works in order: whatever
    /// it has to say to what was sent before comes first.
    pub fn ping(&mut self) -> u32 {
        let number = self.next_number();
        self.out.write(|out| frame::put(out, client::PING, number, b""));
        number
    }

    /// Takes leave. Nothing can be asked afterwards.
    pub fn goodbye(&mut self) {
        if self.state != State::Over {
            self.out.write(|out| frame::put(out, client::GOODBYE, 0, b""));
            self.state = State::Over;
        }
    }

    /// Bytes that are next for the socket; empty where [`Link::outgoing_file`] is, or nothing.
    pub fn outgoing(&self) -> &[u8] {
        self.out.bytes()
    }

    /// The part of a file that goes to the socket behind these bytes.
    pub fn outgoing_file(&self) -> Option<&FilePart> {
        self.out.file()
    }

    /// Bytes that wait for the socket, those of files included.
    pub fn waiting(&self) -> usize {
        self.out.waiting()
    }

    /// The socket has taken so many of what is next.
    pub fn advance(&mut self, bytes: usize) {
        if self.state == State::Greeting {
            // There may be a password in it.
            self.out.forget(bytes);
        }
        self.out.advance(bytes);
    }

    /// The socket takes nothing any more.
    pub fn give_up(&mut self) {
        self.out.clear();
    }

    /// Reads the next thing that the server has said at the head of `bytes`: how many bytes it
    /// took, and the news, if there is any for us. No bytes taken: more are needed.
    ///
    /// # Errors
    /// What is no frame, or not one that may come now: the other end is no server of ours.
    pub fn handle<'a>(
        &mut self,
        bytes: &'a [u8],
        now_ms: u64,
    ) -> Result<(usize, Option<Heard<'a>>), Refusal> {
        self.heard_ms = now_ms;
        self.pinged = false;
        if let Some((tag, stream, left)) = self.data {
            return Ok(self.take_data(tag, stream, bytes, 0, left));
        }
        if let Some((tag, stream, length)) = self.begin_data(bytes)? {
            return Ok(self.take_data(tag, stream, bytes, HEADER_BYTES, length));
        }
        if self.state == State::Greeting && !begins_as_server(bytes) {
            return Err(no_server(bytes));
        }
        let Some((said, length)) = frame::decode_said(bytes)? else { return Ok((0, None)) };
        Ok((length, self.handle_said(said)?))
    }

    /// Whether what comes next, at the head of `bytes`, is data.
    pub fn expects_data(&self, bytes: &[u8]) -> bool {
        self.data.is_some() || matches!(bytes.first(), Some(&(server::DATA | server::ERROR_DATA)))
    }

    /// The moment of the next [`Link::handle_timeout`], in milliseconds.
    pub fn poll_timeout_ms(&self) -> u64 {
        match self.state {
            State::Greeting => self.welcome_due_ms,
            State::Over => self.heard_ms + WELCOME_TIMEOUT_MS,
            State::Ready { .. } if self.pinged => self.heard_ms + self.gone_after_ms,
            State::Ready { .. } => self.heard_ms + self.ping_after_ms,
        }
    }

    /// Does what silence asks for.
    ///
    /// # Errors
    /// The server has been silent for too long: how it is called.
    pub fn handle_timeout(&mut self, now_ms: u64) -> Result<(), String> {
        if now_ms < self.poll_timeout_ms() {
            return Ok(());
        }
        match self.state {
            State::Ready { .. } if !self.pinged => {
                self.pinged = true;
                self.ping();
                Ok(())
            }
            State::Ready { .. } => {
                Err(format!("the server has been silent for {} s", self.gone_after_ms / 1000))
            }
            State::Greeting => {
                let seconds = self.patience_ms as f64 / 1000.0;
                Err(format!("no welcome within {seconds:.1} s; is it a sixfour server?"))
            }
            State::Over => Err("no answer to the goodbye".to_owned()),
        }
    }

    /// The header of a data frame at the head of `bytes`, if there is one: checked, counted.
    fn begin_data(&mut self, bytes: &[u8]) -> Result<Option<(Tag, Stream, usize)>, Refusal> {
        let Some([kind, a, b, c, number @ ..]) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let stream = match *kind {
            server::DATA => Stream::Stdout,
            server::ERROR_DATA => Stream::Stderr,
            _ => return Ok(None),
        };
        let (tag, length) = (u32::from_be_bytes(*number), u32::from_be_bytes([0, *a, *b, *c]));
        if length as usize > CHUNK_MAX_BYTES {
            return Err(wrong(format!("a data frame of {length} bytes")));
        }
        let operation = self.operations.get_mut(&tag).ok_or_else(|| unknown(tag))?;
        let Some(room) = operation.output_room.checked_sub(length.into()) else {
            return Err(wrong("more output than there was credit for"));
        };
        operation.output_room = room;
        Ok(Some((tag, stream, length as usize)))
    }

    /// Takes what is there of a data frame that still lacks `left` bytes, which begin at `start`.
    fn take_data(
        &mut self,
        tag: Tag,
        stream: Stream,
        bytes: &[u8],
        start: usize,
        left: usize,
    ) -> (usize, Option<Heard<'static>>) {
        let end = bytes.len().min(start + left);
        let still = left - (end - start);
        self.data = (still > 0).then_some((tag, stream, still));
        (end, (end > start).then_some(Heard::Data(tag, stream, start..end)))
    }

    fn handle_said<'a>(&mut self, said: Said<'a>) -> Result<Option<Heard<'a>>, Refusal> {
        let early = self.state == State::Greeting;
        Ok(Some(match said {
            Said::Welcome(body) if early && body.output_window_bytes > CLIENT_WINDOW_MAX_BYTES => {
                let bytes = body.output_window_bytes;
                return Err(wrong(format_args!("a window of {bytes} bytes")));
            }
            Said::Welcome(body) if early => {
                self.state = State::Ready { window_bytes: body.output_window_bytes };
                Heard::Welcome(body)
            }
            Said::Welcome(_) => return Err(wrong("a second welcome")),
            Said::Goodbye(why) => {
                self.state = State::Over;
                Heard::Goodbye(why)
            }
            Said::Error(number, body) => Heard::Error(number, body),
            _ if early => return Err(wrong("something else than a welcome")),
            // Each of these is answered.
            Said::Ping(_) | Said::Message { .. }
                if self.out.waiting() > CLIENT_OUTGOING_MAX_BYTES =>
            {
                return Err(wrong("more than it takes answers to"));
            }
            Said::Ping(number) => {
                self.out.write(|out| frame::put(out, client::PONG, number, b""));
                return Ok(None);
            }
            Said::Pong(number) => Heard::Pong(number),
            Said::Message { from, text, serial } => Heard::Message { from, text, serial },
            Said::Delivered(number, body) => Heard::Delivered(number, body),
            // Nobody has asked for offers: their tag is 0.
            Said::Detail(tag, body) => {
                let is_known = tag == 0 || self.operations.contains_key(&tag);
                is_known.then_some(()).ok_or_else(|| unknown(tag))?;
                Heard::Detail(tag, body)
            }
            Said::End(tag, body) => {
                self.operations.remove(&tag).ok_or_else(|| unknown(tag))?;
                Heard::End(tag, body)
            }
            Said::Credit(tag, bytes) => match self.operations.get_mut(&tag) {
                Some(operation) => {
                    operation.input_room = operation.input_room.saturating_add(bytes);
                    Heard::InputRoom(tag)
                }
                None => return Ok(None),
            },
            Said::Data(..) => unreachable!("data frames are taken in pieces"),
        }))
    }

    fn next_number(&mut self) -> Tag {
        loop {
            self.last_number = self.last_number.wrapping_add(1);
            if self.last_number != 0 && !self.operations.contains_key(&self.last_number) {
                return self.last_number;
            }
        }
    }
}

/// Whether a server of ours may begin so: with a frame that lets us in, or says why not.
fn begins_as_server(bytes: &[u8]) -> bool {
    let kinds = [server::WELCOME, server::ERROR, server::GOODBYE];
    bytes.first().is_none_or(|kind| kinds.contains(kind))
}

/// Something else answers at that port: what it says tells people what it is.
fn no_server(bytes: &[u8]) -> Refusal {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let line = escape_bytes(&line[..line.len().min(GREETING_SHOWN_BYTES)]);
    let text = format!("what answers there is no sixfour server: it says \"{line}\"");
    Refusal::new(0, ErrorCode::Protocol, text)
}

fn wrong(what: impl std::fmt::Display) -> Refusal {
    let text = format!("the server sent {what}; is it a sixfour server of this version?");
    Refusal::new(0, ErrorCode::Protocol, text)
}

fn unknown(tag: Tag) -> Refusal {
    wrong(format_args!("an answer to a request that was not made ({tag})"))
}

#[cfg(test)]
mod tests;
