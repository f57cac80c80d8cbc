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
    limits::{CHUNK_MAX_BYTES, INPUT_WINDOW_BYTES, Limits},
    wire::{
        ErrorCode, Name, Refusal, Secret, Stream, Tag,
        control::{
            CallBody, DeliveredBody, DetailBody, HelloBody, OutcomeBody, RefusalBody, VERSION,
            WelcomeBody,
        },
        frame::{self, HEADER_BYTES, Said, client, server},
    },
};

/// Credit is granted in steps of so many bytes, so that it costs little.
const CREDIT_STEP_BYTES: u32 = 256 * 1024;

/// Time that the server has to answer the hello, in milliseconds.
const WELCOME_TIMEOUT_MS: u64 = 10_000;

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

    /// Asks for something; the answers carry the tag that is returned.
    pub fn request(&mut self, call: &CallBody<'_>) -> Tag {
        let State::Ready { window_bytes } = self.state else {
            unreachable!("requests are made between the welcome and the goodbye")
        };
        let tag = self.next_number();
        let takes_input = matches!(
            call,
            CallBody::Run { stdin: true, .. } | CallBody::Fetch { .. } | CallBody::Store { .. }
        );
        let operation = Operation {
            output_room: window_bytes.into(),
            owed: 0,
            input_room: INPUT_WINDOW_BYTES,
            input_open: takes_input,
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

    /// Says that no more input follows.
    pub fn input_end(&mut self, tag: Tag) {
        if let Some(operation) = self.operations.get_mut(&tag)
            && std::mem::take(&mut operation.input_open)
        {
            self.out.write(|out| frame::put(out, client::END, tag, b""));
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
        let Some((said, length)) = frame::decode_said(bytes)? else { return Ok((0, None)) };
        Ok((length, self.handle_said(said)?))
    }

    /// Whether what comes next, at the head of `bytes`, is data.
    pub fn expects_data(&self, bytes: &[u8]) -> bool {
        self.data.is_some() || matches!(bytes.first(), Some(&(server::DATA | server::ERROR_DATA)))
    }

    /// The moment of the next [`Link::handle_timeout`], in milliseconds.
    pub fn poll_timeout_ms(&self) -> u64 {
        self.heard_ms
            + match self.state {
                State::Greeting | State::Over => WELCOME_TIMEOUT_MS,
                State::Ready { .. } if self.pinged => self.gone_after_ms,
                State::Ready { .. } => self.ping_after_ms,
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
            State::Greeting | State::Over => {
                Err(format!("no answer within {} s; is it a sixfour server?", 10))
            }
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
            Said::Ping(number) => {
                self.out.write(|out| frame::put(out, client::PONG, number, b""));
                return Ok(None);
            }
            Said::Pong(number) => Heard::Pong(number),
            Said::Message { from, text, serial } => Heard::Message { from, text, serial },
            Said::Delivered(number, body) => Heard::Delivered(number, body),
            Said::Detail(tag, body) => {
                self.operations.get(&tag).ok_or_else(|| unknown(tag))?;
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

fn wrong(what: impl std::fmt::Display) -> Refusal {
    let text = format!("the server sent {what}; is it a sixfour server of this version?");
    Refusal::new(0, ErrorCode::Protocol, text)
}

fn unknown(tag: Tag) -> Refusal {
    wrong(format_args!("an answer to a request that was not made ({tag})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        Event, Item, Outcome, Request,
        event::{Ended, Witness},
    };

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn encoded(events: &[Event<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        events.iter().for_each(|event| frame::encode(event, &mut bytes));
        bytes
    }

    /// A link after its welcome, nothing waiting for the socket.
    fn ready() -> Link {
        let mut link = Link::new(name("alice"), None, 0, 0);
        let welcome = encoded(&[Event::Welcome { name: name("alice") }]);
        let (taken, heard) = link.handle(&welcome, 0).expect("a welcome");
        assert!(taken == welcome.len() && matches!(heard, Some(Heard::Welcome(_))));
        link.advance(link.outgoing().len());
        link
    }

    /// All that the server would read, as its own codec tells it; clears the output.
    fn read_by_server(link: &mut Link) -> Vec<String> {
        let mut bytes = link.outgoing().to_vec();
        link.advance(bytes.len());
        let mut requests = Vec::new();
        while let Some(Item { request, consumed, .. }) = frame::decode(&bytes).expect("our frames")
        {
            requests.push(match request.expect("a good request") {
                Request::Input { tag, bytes } => format!("input {tag} {}", bytes.len()),
                other => format!("{other:?}"),
            });
            bytes.drain(..consumed);
        }
        assert!(bytes.is_empty());
        requests
    }

    fn run(stdin: bool) -> CallBody<'static> {
        CallBody::Run { command: "x".into(), stdin, timeout_ms: 0, interpreter: None }
    }

    #[test]
    fn introduces_itself_with_the_magic_and_its_name() {
        for password in [None, Some(Secret::from("two words"))] {
            let mut link = Link::new(name("alice"), password.as_ref(), 0, 0);
            let rest = link.outgoing().strip_prefix(&frame::MAGIC).expect("the magic first");
            let item = frame::decode(rest).expect("a frame").expect("all of it");
            let login = Request::Login { name: name("alice"), password };
            assert_eq!(item.request, Ok(login));
            // Once it is sent, nothing is left of it.
            let sent = link.outgoing().len() - 1;
            link.advance(sent);
            assert!(link.out.sent_bytes().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn a_data_frame_is_told_in_pieces_wherever_it_is_cut() {
        for cut in 1..40 {
            let mut link = ready();
            let tag = link.request(&run(false));
            let output = Event::Output { tag, stream: Stream::Stderr, bytes: b"hello, you all" };
            let end = Outcome::Exit { code: 7, directory: None };
            let bytes = encoded(&[output, Event::End { tag, outcome: &end }]);
            let (mut told, mut ended) = (Vec::new(), false);
            let (mut start, mut limit) = (0, cut.min(bytes.len()));
            while start < bytes.len() {
                let (taken, heard) = link.handle(&bytes[start..limit], 0).expect("good frames");
                match heard {
                    Some(Heard::Data(_, Stream::Stderr, range)) => {
                        told.extend_from_slice(&bytes[start..][range]);
                    }
                    Some(Heard::End(_, OutcomeBody::Exit { code: 7, .. })) => ended = true,
                    None => {}
                    other => panic!("{other:?}"),
                }
                start += taken;
                if taken == 0 {
                    limit = bytes.len();
                }
            }
            assert_eq!(told, b"hello, you all", "cut at {cut}");
            assert!(ended, "cut at {cut}");
        }
    }

    #[test]
    fn credit_is_granted_in_steps_for_what_was_consumed() {
        let mut link = ready();
        let tag = link.request(&run(false));
        read_by_server(&mut link);
        link.consumed(tag, CREDIT_STEP_BYTES - 1);
        assert!(link.outgoing().is_empty());
        link.consumed(tag, 11);
        let granted = format!("Credit {{ tag: {tag}, bytes: {} }}", CREDIT_STEP_BYTES + 10);
        assert_eq!(read_by_server(&mut link), [granted]);
        link.consumed(tag + 1, u32::MAX);
        assert!(link.outgoing().is_empty(), "nothing is granted to what does not run");
    }

    #[test]
    fn a_server_that_sends_beyond_its_credit_is_left() {
        let mut link = ready();
        let tag = link.request(&run(false));
        let chunk = vec![b'x'; CHUNK_MAX_BYTES];
        let frame = encoded(&[Event::Output { tag, stream: Stream::Stdout, bytes: &chunk }]);
        let frames = crate::limits::OUTPUT_WINDOW_BYTES as usize / CHUNK_MAX_BYTES;
        for _ in 0..frames {
            link.handle(&frame, 0).expect("within the window");
        }
        assert_eq!(link.handle(&frame, 0).expect_err("beyond").code, ErrorCode::Protocol);
        let mut link = ready();
        let tag = link.request(&run(false));
        for _ in 0..3 * frames {
            link.handle(&frame, 0).expect("credit follows");
            link.consumed(tag, CHUNK_MAX_BYTES as u32);
        }
    }

    #[test]
    fn input_waits_for_the_command_to_take_it() {
        let mut link = ready();
        let tag = link.request(&run(true));
        let much = vec![b'x'; INPUT_WINDOW_BYTES as usize + 5];
        assert_eq!(link.input(tag, &much), INPUT_WINDOW_BYTES as usize);
        assert_eq!((link.input_room(tag), link.input(tag, b"more")), (0, 0));
        let credit = encoded(&[Event::Credit { tag, bytes: 4 }]);
        let (_, heard) = link.handle(&credit, 0).expect("credit");
        assert!(matches!(heard, Some(Heard::InputRoom(at)) if at == tag));
        assert_eq!(link.input(tag, b"more than there is room for"), 4);
        link.input_end(tag);
        link.input_end(tag);
        let read = read_by_server(&mut link);
        let inputs = vec![format!("input {tag} {CHUNK_MAX_BYTES}"); 4];
        assert_eq!(read[1..5], inputs);
        assert_eq!(read[5..], [format!("input {tag} 4"), format!("InputEnd {{ tag: {tag} }}")]);
    }

    #[test]
    fn what_concerns_an_operation_that_is_over_is_dropped() {
        let mut link = ready();
        let tag = link.request(&run(true));
        let end = Outcome::Signal { number: 15, because: Some(Ended::Cancelled) };
        let end = encoded(&[Event::End { tag, outcome: &end }]);
        link.handle(&end, 0).expect("the end");
        read_by_server(&mut link);
        assert_eq!(link.input(tag, b"late"), 4);
        link.input_end(tag);
        link.cancel(tag);
        link.consumed(tag, u32::MAX);
        assert!(link.outgoing().is_empty());
        assert!(link.handle(&end, 0).is_err(), "nothing ends twice");
    }

    #[test]
    fn answers_that_nobody_asked_for_end_the_connection() {
        let (to, by) = (name("bob"), Witness::Client);
        for early in [
            Event::Pong { number: 1 },
            Event::Delivered { tag: 1, to, by },
            Event::Text { tag: 1, text: "x" },
        ] {
            let mut link = Link::new(name("alice"), None, 0, 0);
            assert!(link.handle(&encoded(&[early]), 0).is_err());
        }
        for late in [
            Event::Welcome { name: to },
            Event::Text { tag: 1, text: "x" },
            Event::Output { tag: 1, stream: Stream::Stdout, bytes: b"x" },
            Event::End { tag: 1, outcome: &Outcome::Done },
        ] {
            assert!(ready().handle(&encoded(&[late]), 0).is_err());
        }
    }

    #[test]
    fn pings_are_answered_and_silence_is_broken_by_one() {
        let mut link = ready();
        let ping = encoded(&[Event::Ping { number: 9 }]);
        assert!(link.handle(&ping, 1000).expect("a ping").1.is_none());
        assert_eq!(read_by_server(&mut link), ["Pong"]);
        assert_eq!(link.poll_timeout_ms(), 91_000);
        link.handle_timeout(90_999).expect("early");
        assert!(link.outgoing().is_empty());
        link.handle_timeout(91_000).expect("asks");
        link.handle_timeout(91_001).expect("asks once");
        assert_eq!(read_by_server(&mut link), ["Ping { number: 1 }"]);
        assert_eq!(link.poll_timeout_ms(), 151_000);
        link.handle_timeout(151_000).expect_err("gone");
    }

    #[test]
    fn numbers_skip_zero_and_what_still_runs() {
        let mut link = ready();
        link.last_number = u32::MAX - 1;
        let running = link.request(&run(false));
        assert_eq!(running, u32::MAX);
        assert_eq!(link.request(&run(false)), 1);
        link.last_number = u32::MAX - 1;
        assert_eq!(link.request(&run(false)), 2);
    }
}
