//! A client that speaks lines, as somebody with `nc` does.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use super::reset_on_close;

pub struct Line {
    reader: BufReader<TcpStream>,
}

impl Line {
    pub fn new(stream: TcpStream) -> Line {
        Line { reader: BufReader::with_capacity(64 * 1024, stream) }
    }

    pub fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// What was read ahead, and then the connection.
    pub fn reader(&mut self) -> &mut BufReader<TcpStream> {
        &mut self.reader
    }

    /// Sends one line.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).expect("the server takes it");
    }

    /// The next line, without its end.
    pub fn next(&mut self) -> String {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("a line in time");
        assert_eq!(line.pop(), Some(b'\n'), "the connection ended within {line:?}");
        String::from_utf8(line).expect("lines are text")
    }

    /// The next `count` lines.
    pub fn lines(&mut self, count: usize) -> Vec<String> {
        (0..count).map(|_| self.next()).collect()
    }

    /// Exactly so many bytes.
    pub fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.read_exact(&mut bytes).expect("so many bytes");
        bytes
    }

    /// Reads so many bytes and hashes them.
    pub fn hash_of(&mut self, mut count: u64) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 1024 * 1024];
        while count > 0 {
            let most = buffer.len().min(count.try_into().unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..most]).expect("bytes in time");
            assert_ne!(read, 0, "{count} bytes are missing");
            hasher.update(&buffer[..read]);
            count -= read as u64;
        }
        hasher.finalize()
    }

    /// Says that no more requests come.
    pub fn half_close(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("a half that can be closed");
    }

    /// All that comes until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.reader.read_to_end(&mut bytes).expect("the end in time");
        bytes
    }

    /// The same as text.
    pub fn rest_text(&mut self) -> String {
        String::from_utf8_lossy(&self.rest()).into_owned()
    }

    /// All that comes until the end, be it in order or by a reset.
    pub fn rest_until_broken(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.reader.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("neither an end nor a reset: {error}"),
        }
        bytes
    }

    /// Asserts that nothing comes for a moment.
    pub fn assert_silent(&mut self, moment: Duration) {
        let before = self.stream().read_timeout().expect("a timeout is set");
        self.stream().set_read_timeout(Some(moment)).expect("a timeout");
        match self.reader.fill_buf() {
            Ok(bytes) => panic!("not silent: {:?}", String::from_utf8_lossy(bytes)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.stream().set_read_timeout(before).expect("a timeout");
    }

    /// Hangs up with a reset.
    pub fn reset(self) {
        reset_on_close(self.stream());
    }
}
