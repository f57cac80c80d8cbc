//! Logging that never blocks the loop and never panics.
//!
//! Records go through a bounded queue to a thread that writes to stderr. Where stderr is a pipe
//! that nobody reads, the thread waits and the loop does not: records that find the queue full
//! are counted, and the count is logged once there is room.

use std::{
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    thread,
    time::Duration,
};

use env_logger::{Target, WriteStyle};

use super::terminal::{self, Stream};

/// Records that may wait.
const QUEUE_MAX: usize = 4096;
/// How long a flush waits for the writer.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

static QUEUE: OnceLock<SyncSender<Message>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Message {
    Record(Vec<u8>),
    Flush(SyncSender<()>),
}

/// Starts logging records of `level` and above to stderr; `RUST_LOG` wins over `level`.
pub fn start(level: log::LevelFilter) {
    let (sender, receiver) = mpsc::sync_channel(QUEUE_MAX);
    let writer = thread::Builder::new().name("logger".into());
    if writer.spawn(move || write_all(&receiver, &mut io::stderr())).is_err() {
        // Without a thread to spare, silence is better than a server that does not start.
        return;
    }
    let _ = QUEUE.set(sender);
    let style = match terminal::wants_colour(Stream::Stderr) {
        true => WriteStyle::Always,
        false => WriteStyle::Never,
    };
    let _ = env_logger::Builder::new()
        .filter_level(level)
        // Its every poll would bury what is ours.
        .filter_module("mio", log::LevelFilter::Warn)
        .parse_env("RUST_LOG")
        .write_style(style)
        .target(Target::Pipe(Box::new(Queued)))
        .try_init();
}

/// Waits a moment until what was logged so far is written; for the end of the program.
pub fn flush() {
    let Some(queue) = QUEUE.get() else { return };
    let (done, is_done) = mpsc::sync_channel(1);
    if queue.try_send(Message::Flush(done)).is_ok() {
        let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
    }
}

/// The end of the queue that the logging crate writes to: one call, one record.
struct Queued;

impl Write for Queued {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if let Some(queue) = QUEUE.get()
            && let Err(TrySendError::Full(_)) = queue.try_send(Message::Record(record.to_vec()))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_all(queue: &Receiver<Message>, target: &mut impl Write) {
    for message in queue {
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let _ = writeln!(target, "{dropped} log records were dropped: stderr was not read");
        }
        // A log that cannot be written is no reason to stop serving.
        match message {
            Message::Record(record) => drop(target.write_all(&record)),
            Message::Flush(done) => drop(done.send(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_written_in_order_and_a_flush_waits_for_them() {
        let (sender, receiver) = mpsc::sync_channel(8);
        let (done, is_done) = mpsc::sync_channel(1);
        for record in [&b"one\n"[..], b"two\n"] {
            sender.send(Message::Record(record.to_vec())).unwrap();
        }
        sender.send(Message::Flush(done)).unwrap();
        drop(sender);
        let mut target = Vec::new();
        write_all(&receiver, &mut target);
        assert_eq!(target, b"one\ntwo\n");
        assert!(is_done.try_recv().is_ok());
    }
}
