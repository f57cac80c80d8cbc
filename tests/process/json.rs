//! A client that speaks JSON, as programs do.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use serde_json::{Value, json};

pub struct Json {
    reader: BufReader<TcpStream>,
    /// What every object that comes has to hold up to.
    pub check: fn(&Value),
}

impl Json {
    pub fn new(stream: TcpStream) -> Json {
        Json { reader: BufReader::with_capacity(64 * 1024, stream), check: |_| {} }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends one object, with nothing behind it.
    pub fn send(&mut self, object: &Value) {
        self.send_bytes(object.to_string().as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the server takes it");
    }

    /// The next object as it is written.
    pub fn next_text(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("an object in time");
        assert_eq!(line.pop(), Some(b'\n'), "the connection ended within {line:?}");
        String::from_utf8(line).expect("objects are text")
    }

    /// The next object.
    pub fn next(&mut self) -> Value {
        let text = self.next_text();
        let object = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        (self.check)(&object);
        object
    }

    /// Sends a request and returns the next object.
    pub fn ask(&mut self, request: &Value) -> Value {
        self.send(request);
        self.next()
    }

    /// Says who it is.
    pub fn login(&mut self, name: &str) {
        let reply = self.ask(&json!({"op": "login", "user": name, "id": "login"}));
        assert_eq!(reply["user"], name, "{reply}");
    }

    /// Says that no more requests come.
    pub fn half_close(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("a half that can be closed");
    }

    /// All objects that come until the server closes.
    pub fn rest(&mut self) -> Vec<Value> {
        let mut objects = Vec::new();
        while !self.reader.fill_buf().expect("the end in time").is_empty() {
            objects.push(self.next());
        }
        objects
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Asserts that nothing comes for a moment.
    pub fn assert_silent(&mut self, moment: Duration) {
        let before = self.stream().read_timeout().expect("a timeout is set");
        self.stream().set_read_timeout(Some(moment)).expect("a timeout");
        if let Ok(bytes) = self.reader.fill_buf() {
            panic!("not silent: {:?}", String::from_utf8_lossy(bytes));
        }
        self.stream().set_read_timeout(before).expect("a timeout");
    }
}
