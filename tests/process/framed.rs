//! A client that speaks frames.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::{Value, json};
use sixfour::{
    limits::INPUT_WINDOW_BYTES,
    wire::frame::{self, Frame, client, server},
};

use super::reset_on_close;

pub struct Framed {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// So many bytes of the buffer are used up.
    start: usize,
}

/// What the server has said.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    Welcome(Value),
    Detail(u32, Value),
    Message {
        from: String,
        text: String,
        serial: u32,
    },
    Stdout(u32, Vec<u8>),
    Stderr(u32, Vec<u8>),
    End(u32, Value),
    Credit(u32, u32),
    Error(u32, Value),
    Delivered(u32, Value),
    Ping(u32),
    Pong(u32),
    Goodbye(Option<Value>),
    /// The connection is at its end.
    Closed,
}

/// All that belongs to one operation.
#[derive(Debug, Default)]
pub struct Answer {
    pub details: Vec<Value>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub outcome: Value,
    /// What came in between and concerns something else.
    pub others: Vec<News>,
}

impl Framed {
    /// Sends the magic and nothing else.
    pub fn begin(mut stream: TcpStream) -> Framed {
        stream.write_all(&frame::MAGIC).expect("the server takes it");
        Framed { stream, buffer: Vec::new(), start: 0 }
    }

    /// Logs in as `name`.
    pub fn hello(stream: TcpStream, name: &str) -> Framed {
        let mut framed = Framed::begin(stream);
        framed.send(client::HELLO, 0, json!({"version": 1, "user": name}).to_string().as_bytes());
        match framed.next() {
            News::Welcome(welcome) => assert_eq!(welcome["user"], name),
            other => panic!("no welcome but {other:?}"),
        }
        framed
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends one frame.
    pub fn send(&mut self, kind: u8, number: u32, body: &[u8]) {
        let mut bytes = Vec::with_capacity(body.len() + frame::HEADER_BYTES);
        frame::put(&mut bytes, kind, number, body);
        self.stream.write_all(&bytes).expect("the server takes it");
    }

    pub fn request(&mut self, tag: u32, body: Value) {
        self.send(client::REQUEST, tag, body.to_string().as_bytes());
    }

    pub fn run(&mut self, tag: u32, command: &str) {
        self.request(tag, json!({"op": "run", "command": command}));
    }

    pub fn download(&mut self, tag: u32, path: &str) {
        self.request(tag, json!({"op": "download", "path": path}));
    }

    /// Sends a message; with a tag other than 0 its delivery is told.
    pub fn message(&mut self, tag: u32, to: &str, text: &str) {
        let mut bytes = Vec::new();
        frame::put_message(&mut bytes, client::MESSAGE, tag, to.as_bytes(), text);
        self.stream.write_all(&bytes).expect("the server takes it");
    }

    pub fn cancel(&mut self, tag: u32) {
        self.send(client::CANCEL, tag, b"");
    }

    pub fn acknowledge(&mut self, serial: u32) {
        self.send(client::ACKNOWLEDGE, serial, b"");
    }

    pub fn credit(&mut self, tag: u32, bytes: u32) {
        self.send(client::CREDIT, tag, &bytes.to_be_bytes());
    }

    /// The next thing that the server says; pings are answered on the way.
    pub fn next(&mut self) -> News {
        loop {
            if let Some((news, used)) = self.decode() {
                self.start += used;
                if let News::Ping(number) = news {
                    self.send(client::PONG, number, b"");
                    continue;
                }
                return news;
            }
            self.buffer.drain(..self.start);
            self.start = 0;
            let held = self.buffer.len();
            self.buffer.resize(held + 256 * 1024, 0);
            let count = self.stream.read(&mut self.buffer[held..]).expect("news in time");
            self.buffer.truncate(held + count);
            if count == 0 {
                assert_eq!(held, 0, "the connection ended within a frame");
                return News::Closed;
            }
        }
    }

    fn decode(&self) -> Option<(News, usize)> {
        let bytes = &self.buffer[self.start..];
        let frame = Frame::split(bytes).expect("frames of the server are good")?;
        // What the product's own client makes of it must be good too.
        frame::decode_said(bytes).expect("frames of the server are good");
        let json = || serde_json::from_slice::<Value>(frame.body).expect("a JSON body");
        let number = frame.number;
        let news = match frame.kind {
            server::WELCOME => News::Welcome(json()),
            server::DETAIL => News::Detail(number, json()),
            server::MESSAGE => {
                let (length, rest) = frame.body.split_at(2);
                let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
                let (from, body) = (text(&rest[..length]), text(&rest[length..]));
                News::Message { from, text: body, serial: number }
            }
            server::DATA => News::Stdout(number, frame.body.to_vec()),
            server::ERROR_DATA => News::Stderr(number, frame.body.to_vec()),
            server::END => News::End(number, json()),
            server::CREDIT => {
                News::Credit(number, u32::from_be_bytes(frame.body.try_into().expect("4 bytes")))
            }
            server::ERROR => News::Error(number, json()),
            server::DELIVERED => News::Delivered(number, json()),
            server::PING => News::Ping(number),
            server::PONG => News::Pong(number),
            server::GOODBYE => News::Goodbye((!frame.body.is_empty()).then(json)),
            kind => panic!("a frame of kind {kind:#04x}"),
        };
        Some((news, frame.length()))
    }

    /// Everything of the operation `tag` up to its end; gives credit for what comes.
    pub fn answer(&mut self, tag: u32) -> Answer {
        let mut answer = Answer::default();
        loop {
            match self.next() {
                News::Detail(number, detail) if number == tag => answer.details.push(detail),
                News::Stdout(number, bytes) if number == tag => {
                    self.credit(tag, bytes.len() as u32);
                    answer.stdout.extend(bytes);
                }
                News::Stderr(number, bytes) if number == tag => {
                    self.credit(tag, bytes.len() as u32);
                    answer.stderr.extend(bytes);
                }
                News::End(number, outcome) if number == tag => {
                    answer.outcome = outcome;
                    return answer;
                }
                News::Closed => panic!("the connection ended after {answer:?}"),
                other => answer.others.push(other),
            }
        }
    }

    /// Runs a command to its end.
    pub fn run_to_end(&mut self, tag: u32, command: &str) -> Answer {
        self.run(tag, command);
        self.answer(tag)
    }

    /// Runs a command to its end, with this standard input, within its window.
    pub fn run_with_input(&mut self, tag: u32, command: &str, input: &[u8]) -> Answer {
        self.request(tag, json!({"op": "run", "command": command, "stdin": true}));
        let mut answer = Answer::default();
        let (mut window, mut rest, mut ended) = (INPUT_WINDOW_BYTES as usize, input, false);
        loop {
            while window > 0 && !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(window).min(64 * 1024));
                self.send(client::DATA, tag, now);
                (window, rest) = (window - now.len(), later);
            }
            if rest.is_empty() && !std::mem::replace(&mut ended, true) {
                self.send(client::END, tag, b"");
            }
            match self.next() {
                News::Credit(_, bytes) => window += bytes as usize,
                News::Stdout(_, bytes) => {
                    self.credit(tag, bytes.len() as u32);
                    answer.stdout.extend(bytes);
                }
                News::Stderr(_, bytes) => answer.stderr.extend(bytes),
                News::End(_, outcome) => {
                    answer.outcome = outcome;
                    return answer;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Hangs up with a reset.
    pub fn reset(self) {
        reset_on_close(&self.stream);
    }
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn error_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Asserts how a command exited.
    #[track_caller]
    pub fn assert_exit(&self, code: u8) {
        assert_eq!(self.outcome["outcome"], "exit", "{self:?}");
        assert_eq!(self.outcome["code"], code, "{self:?}");
    }
}
