//! What waits for the connection: bytes, and parts of files that are sent from where they lie.

use std::{collections::VecDeque, sync::Arc};

use zeroize::Zeroize as _;

use crate::transfer::source::DiskFile;

/// A part of a file.
#[derive(Clone, Debug)]
pub struct FilePart {
    /// Whose.
    pub file: Arc<DiskFile>,
    /// Where the rest of it begins.
    pub offset: u64,
    /// Bytes of the rest.
    pub length: usize,
}

/// The queue, in order.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Bytes before the first part of a file; those before `sent` are gone already.
    head: Vec<u8>,
    sent: usize,
    /// Parts of files, each with the bytes that come after it.
    files: VecDeque<(FilePart, Vec<u8>)>,
    waiting: usize,
}

impl Outgoing {
    /// Appends what `write` writes.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.files.back_mut().map_or(&mut self.head, |(_, bytes)| bytes);
        let before = tail.len();
        write(tail);
        self.waiting += tail.len() - before;
    }

    /// Appends a part of a file.
    pub fn put_file(&mut self, part: FilePart) {
        self.waiting += part.length;
        self.files.push_back((part, Vec::new()));
    }

    /// Bytes that wait.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// The bytes that are next; empty where a part of a file is, or nothing.
    pub fn bytes(&self) -> &[u8] {
        &self.head[self.sent..]
    }

    /// The part of a file that comes behind these bytes.
    pub fn file(&self) -> Option<&FilePart> {
        self.files.front().map(|(part, _)| part)
    }

    /// Overwrites so much of the bytes that are next, which are sent: a secret may be in them.
    pub fn forget(&mut self, count: usize) {
        let end = (self.sent + count).min(self.head.len());
        self.head[self.sent..end].zeroize();
    }

    /// What is left in memory of bytes that were sent.
    #[cfg(test)]
    pub fn sent_bytes(&self) -> &[u8] {
        &self.head[..self.sent]
    }

    /// So much of what is next is sent.
    pub fn advance(&mut self, mut count: usize) {
        self.waiting -= count;
        let bytes = count.min(self.head.len() - self.sent);
        self.sent += bytes;
        count -= bytes;
        if self.sent < self.head.len() {
            return;
        }
        self.head.clear();
        self.sent = 0;
        let Some((part, _)) = self.files.front_mut() else { return };
        part.offset += count as u64;
        part.length -= count;
        if part.length == 0 {
            let (_, following) = self.files.pop_front().expect("there is a front");
            self.head = following;
        }
    }

    /// Gives all up.
    pub fn clear(&mut self) {
        *self = Outgoing::default();
    }
}
