//! What waits for a socket to take it.

use std::collections::VecDeque;

use super::{
    OperationId,
    receipts::{Receipt, ReceiptQueue},
};

/// The bytes and pieces of files that wait for one session, in order.
///
/// An idle session owns no buffer: a queue is lent from the [`Pool`] for as long as something
/// waits.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Option<Box<Queue>>,
}

/// Queues that nobody uses at the moment, with their memory.
#[derive(Debug, Default)]
pub struct Pool {
    #[expect(clippy::vec_box, reason = "an outbox is one word; the boxes go back and forth")]
    queues: Vec<Box<Queue>>,
    /// Bytes in memory that wait in all outboxes.
    waiting_bytes: usize,
}

#[derive(Debug, Default)]
struct Queue {
    /// Bytes before the first piece of a file.
    head: Vec<u8>,
    /// So many of them are sent. Invariant: at most `head.len()`.
    head_sent: usize,
    /// Pieces of files, each with the bytes that come after it.
    files: VecDeque<(FilePiece, Vec<u8>)>,
    /// Bytes of all that was ever put in, and of all that was sent, since the queue was lent.
    put_total: u64,
    sent_total: u64,
    /// The messages among the bytes, by their ends, so that none is lost in silence.
    ledger: ReceiptQueue,
}

/// A piece of a file that the shell sends without the hub ever holding its bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FilePiece {
    /// Whose file.
    pub operation: OperationId,
    /// Which of its files.
    pub file: u32,
    /// Where in the file the rest of the piece begins, in bytes.
    pub offset: u64,
    /// Bytes of the rest.
    pub length: usize,
}

/// What is to be sent next.
#[derive(Debug, Eq, PartialEq)]
pub enum Piece<'a> {
    /// These bytes; `more` says that a piece of a file follows at once.
    Bytes {
        /// Not empty.
        bytes: &'a [u8],
        /// Whether to wait for what follows before a packet goes out.
        more: bool,
    },
    /// This part of a file.
    File(FilePiece),
}

/// Buffers larger than this are not kept for the next.
const KEPT_MAX_BYTES: usize = 512 * 1024;
/// The same for the lists beside the bytes, in entries.
const LEDGER_KEPT_MAX: usize = 4096;
/// So many queues are kept.
const POOL_MAX: usize = 128;

impl Outbox {
    /// Bytes that wait, those of files included.
    pub fn unsent_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| (queue.put_total - queue.sent_total) as usize)
    }

    /// True where nothing waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_none()
    }

    /// Appends what `write` writes, be it nothing.
    pub fn write(&mut self, pool: &mut Pool, write: impl FnOnce(&mut Vec<u8>)) {
        let queue = self.queue.get_or_insert_with(|| pool.lend());
        let tail = queue.files.back_mut().map_or(&mut queue.head, |(_, bytes)| bytes);
        let before = tail.len();
        write(tail);
        let grown = tail.len() - before;
        queue.put_total += grown as u64;
        pool.waiting_bytes += grown;
        if queue.put_total == queue.sent_total {
            pool.take_back(self.queue.take().expect("it is there"));
        }
    }

    /// Appends a message and notes whose it is.
    pub fn post(&mut self, pool: &mut Pool, receipt: Receipt, write: impl FnOnce(&mut Vec<u8>)) {
        self.write(pool, write);
        let queue = self.queue.as_mut().expect("something was written");
        queue.ledger.push(queue.put_total, receipt);
    }

    /// Appends a piece of a file.
    pub fn put_file(&mut self, pool: &mut Pool, piece: FilePiece) {
        let queue = self.queue.get_or_insert_with(|| pool.lend());
        queue.put_total += piece.length as u64;
        queue.files.push_back((piece, Vec::new()));
    }

    /// Notes a place: `on_file` of [`Outbox::consume`] hears of the operation when all that was
    /// put in before is sent. Something must wait.
    pub fn put_mark(&mut self, operation: OperationId) {
        let queue = self.queue.as_mut().expect("a mark stands behind something");
        let mark = FilePiece { operation, file: 0, offset: 0, length: 0 };
        queue.files.push_back((mark, Vec::new()));
    }

    /// What is to be sent next.
    pub fn piece(&self) -> Option<Piece<'_>> {
        let queue = self.queue.as_ref()?;
        let bytes = &queue.head[queue.head_sent..];
        match queue.files.front() {
            Some((piece, _)) if bytes.is_empty() => Some(Piece::File(*piece)),
            file => {
                let more = file.is_some_and(|(piece, _)| piece.length > 0);
                (!bytes.is_empty()).then_some(Piece::Bytes { bytes, more })
            }
        }
    }

    /// Drops `count` bytes from the front: they are sent. `on_file` hears of every piece of a
    /// file that is sent whole, `on_posted` of every message.
    pub fn consume(
        &mut self,
        pool: &mut Pool,
        mut count: usize,
        mut on_file: impl FnMut(OperationId),
        mut on_posted: impl FnMut(Receipt),
    ) {
        let Some(queue) = self.queue.as_mut() else {
            assert_eq!(count, 0, "more was sent than there was");
            return;
        };
        queue.sent_total += count as u64;
        assert!(queue.sent_total <= queue.put_total, "more was sent than there was");
        while let Some(receipt) = queue.ledger.pop_until(queue.sent_total) {
            on_posted(receipt);
        }
        loop {
            let bytes = (queue.head.len() - queue.head_sent).min(count);
            queue.head_sent += bytes;
            pool.waiting_bytes -= bytes;
            count -= bytes;
            let Some((piece, _)) = queue.files.front_mut() else { break };
            if queue.head_sent < queue.head.len() {
                break;
            }
            let taken = piece.length.min(count);
            piece.offset += taken as u64;
            piece.length -= taken;
            count -= taken;
            if piece.length > 0 {
                break;
            }
            let (piece, following) = queue.files.pop_front().expect("there is a front");
            on_file(piece.operation);
            queue.head = following;
            queue.head_sent = 0;
        }
        if queue.sent_total == queue.put_total {
            pool.take_back(self.queue.take().expect("it is there"));
        } else if queue.head_sent > KEPT_MAX_BYTES / 2 {
            queue.head.drain(..queue.head_sent);
            queue.head_sent = 0;
        }
    }

    /// How many pieces of the operation's file wait.
    pub(super) fn file_pieces(&self, operation: OperationId) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        queue.files.iter().filter(|(piece, _)| piece.operation == operation).count()
    }

    /// Bytes that wait in memory: those of files do not.
    pub(super) fn memory_bytes(&self) -> usize {
        let Some(queue) = &self.queue else { return 0 };
        let behind: usize = queue.files.iter().map(|(_, bytes)| bytes.len()).sum();
        queue.head.len() - queue.head_sent + behind
    }

    /// Panics where the totals and the contents disagree.
    pub(super) fn check(&self) {
        let Some(queue) = &self.queue else { return };
        let file_bytes = |(piece, tail): &(FilePiece, Vec<u8>)| piece.length + tail.len();
        let files: usize = queue.files.iter().map(file_bytes).sum();
        let waiting = queue.head.len() - queue.head_sent + files;
        assert_eq!(waiting, self.unsent_bytes(), "the totals are those of the contents");
        assert!(waiting > 0, "an empty queue was not given back");
        queue.ledger.check(queue.sent_total, queue.put_total);
    }

    /// Gives up all that waits; the messages among it are returned.
    pub fn abandon(&mut self, pool: &mut Pool) -> Vec<Receipt> {
        pool.waiting_bytes -= self.memory_bytes();
        let Some(mut queue) = self.queue.take() else { return Vec::new() };
        let lost = queue.ledger.drain().collect();
        pool.take_back(queue);
        lost
    }
}

impl Pool {
    /// Bytes in memory that wait in all outboxes.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn lend(&mut self) -> Box<Queue> {
        self.queues.pop().unwrap_or_default()
    }

    fn take_back(&mut self, mut queue: Box<Queue>) {
        let is_large = queue.head.capacity() > KEPT_MAX_BYTES
            || queue.ledger.capacity() > LEDGER_KEPT_MAX
            || queue.files.capacity() > LEDGER_KEPT_MAX;
        if self.queues.len() >= POOL_MAX || is_large {
            return;
        }
        let Queue { head, head_sent, files, put_total, sent_total, ledger } = &mut *queue;
        head.clear();
        files.clear();
        ledger.clear();
        (*head_sent, *put_total, *sent_total) = (0, 0, 0);
        self.queues.push(queue);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::SessionId, *};

    fn sent(outbox: &mut Outbox, pool: &mut Pool, count: usize) -> (Vec<OperationId>, usize) {
        let (mut files, mut posts) = (Vec::new(), 0);
        outbox.consume(pool, count, |operation| files.push(operation), |_| posts += 1);
        (files, posts)
    }

    #[test]
    fn bytes_and_files_leave_in_order() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let operation = OperationId::new(0, 1);
        outbox.write(&mut pool, |out| out.extend(b"head"));
        outbox.put_file(&mut pool, FilePiece { operation, file: 0, offset: 10, length: 5 });
        outbox.write(&mut pool, |out| out.extend(b"tail"));
        assert_eq!(outbox.unsent_bytes(), 13);
        assert_eq!(outbox.piece(), Some(Piece::Bytes { bytes: b"head", more: true }));
        assert_eq!(sent(&mut outbox, &mut pool, 3), (vec![], 0));
        assert_eq!(outbox.piece(), Some(Piece::Bytes { bytes: b"d", more: true }));
        assert_eq!(sent(&mut outbox, &mut pool, 3), (vec![], 0));
        let rest = FilePiece { operation, file: 0, offset: 12, length: 3 };
        assert_eq!(outbox.piece(), Some(Piece::File(rest)));
        assert_eq!(sent(&mut outbox, &mut pool, 4), (vec![operation], 0));
        assert_eq!(outbox.piece(), Some(Piece::Bytes { bytes: b"ail", more: false }));
        assert_eq!(sent(&mut outbox, &mut pool, 3), (vec![], 0));
        assert!(outbox.is_empty() && outbox.piece().is_none());
    }

    #[test]
    fn a_mark_is_heard_of_when_the_byte_before_it_is_sent() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let (first, second) = (OperationId::new(0, 1), OperationId::new(1, 2));
        outbox.write(&mut pool, |out| out.extend(b"abc"));
        outbox.put_mark(first);
        outbox.put_mark(second);
        outbox.write(&mut pool, |out| out.extend(b"de"));
        outbox.check();
        assert_eq!(outbox.piece(), Some(Piece::Bytes { bytes: b"abc", more: false }));
        assert_eq!(sent(&mut outbox, &mut pool, 2).0, []);
        assert_eq!(sent(&mut outbox, &mut pool, 1).0, [first, second]);
        assert_eq!(outbox.piece(), Some(Piece::Bytes { bytes: b"de", more: false }));
        outbox.put_mark(first);
        assert_eq!(sent(&mut outbox, &mut pool, 2).0, [first]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_message_counts_as_sent_only_when_its_last_byte_is() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        let receipt = Receipt { sender: SessionId::new(3, 3), tag: 0 };
        for text in [b"one", b"two"] {
            outbox.post(&mut pool, receipt, |out| out.extend(text));
        }
        assert_eq!(sent(&mut outbox, &mut pool, 5).1, 1);
        assert_eq!(outbox.abandon(&mut pool).len(), 1);
        assert!(outbox.is_empty());
    }

    #[test]
    fn a_queue_that_is_never_quite_empty_does_not_grow() {
        let (mut outbox, mut pool) = (Outbox::default(), Pool::default());
        outbox.write(&mut pool, |out| out.push(0));
        for _ in 0..10_000 {
            outbox.write(&mut pool, |out| out.extend([0; 1000]));
            sent(&mut outbox, &mut pool, 1000);
        }
        let queue = outbox.queue.as_ref().expect("a byte waits");
        assert!(queue.head.capacity() <= 2 * KEPT_MAX_BYTES);
    }
}
