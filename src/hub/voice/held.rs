//! Words for a session that must not land in the middle of something.

use super::super::{
    outbox::{Outbox, Pool},
    receipts::{Receipt, ReceiptQueue},
};

/// Words that wait until the output of a session stands at the start of a line, or of an object,
/// again.
#[derive(Debug, Default)]
pub struct Held {
    pub(in crate::hub) bytes: Vec<u8>,
    /// The messages among them, by their ends.
    pub(in crate::hub) posts: ReceiptQueue,
}

impl Held {
    /// Holds a message back.
    pub(in crate::hub) fn post(&mut self, receipt: Receipt, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.posts.push(self.bytes.len() as u64, receipt);
    }

    /// Puts all of it into the outbox.
    pub(in crate::hub) fn release(&self, outbox: &mut Outbox, pool: &mut Pool) {
        let mut start = 0;
        for (end, receipt) in self.posts.iter() {
            let bytes = &self.bytes[start..end as usize];
            outbox.post(pool, receipt, |out| out.extend_from_slice(bytes));
            start = end as usize;
        }
        let rest = &self.bytes[start..];
        outbox.write(pool, |out| out.extend_from_slice(rest));
    }
}
