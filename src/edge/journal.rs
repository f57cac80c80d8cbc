//! The journal: what makes an upload or a deletion one thing with its line in a log.
//!
//! ```text
//!   1. the records of a batch of acts are appended here and synced:   now they are decided
//!   2. their lines are appended to the logs and synced
//!   3. files get their names, or lose them; the folder is synced
//!   4. the mark `done` is appended
//! ```
//!
//! A server that stops in between does 2 and 3 again when it starts: every record says where its
//! line begins in the log, and from which temporary name its file comes. A batch without its mark
//! can only be the last one. What fails (a full disk) is taken back: first 2, then 1.
//!
//! A record is a line of text. It begins with 16 digits of the BLAKE3 hash of the rest:
//!
//! ```text
//!   CHECK BATCH upload DEVICE FILE_ID SAMPLES REQUEST OFFSET HASH STAGE LINE
//!   CHECK BATCH delete DEVICE FILE_ID SAMPLES REQUEST OFFSET - - LINE
//!   CHECK BATCH done
//! ```
//!
//! `REQUEST` is the request's id, or `-`. The records stay for the sake of repeats: see
//! [`super::memory`]. Batch 0 is what was kept of older journals; it is done.

use super::{data_name, log};
use crate::wire::{
    Name,
    edge::{RequestId, parse_integer},
};

/// The name of the journal.
pub const JOURNAL: &str = ".edge/journal";

/// Its name while it is written anew.
pub const NEW_JOURNAL: &str = ".edge/journal.new";

/// What the names of files begin with that are being received.
pub const STAGE_PREFIX: &str = ".edge/stage.";

/// Digits of the hash that a line begins with.
const CHECK_DIGITS: usize = 16;

/// One act as it was decided.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Which acts were decided together.
    pub batch: u64,
    /// Whose file it is.
    pub device: Name,
    /// Its number.
    pub file_id: u32,
    /// Samples in it.
    pub samples: u64,
    /// As the client named the request.
    pub request: Option<RequestId>,
    /// Where its line begins in the log, in bytes.
    pub offset: u64,
    /// The time in that line.
    pub time: String,
    /// What is done.
    pub deed: Deed,
}

/// What is done to a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deed {
    /// It is stored.
    Upload {
        /// BLAKE3 of its bytes, in hexadecimal.
        hash: String,
        /// Its temporary name.
        stage: String,
    },
    /// It is deleted.
    Delete,
}

impl Record {
    /// The log that its line belongs to.
    pub fn log(&self) -> &'static str {
        match self.deed {
            Deed::Upload { .. } => log::UPLOAD_LOG,
            Deed::Delete => log::DELETION_LOG,
        }
    }

    /// Its line in the log, with its LF.
    pub fn line(&self) -> String {
        log::data_line(&self.device, &self.time, self.file_id, self.samples)
    }

    /// The file that it is about.
    pub fn data_name(&self) -> String {
        data_name(&self.device, self.file_id)
    }

    /// Appends it as a line of the journal.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Record { batch, device, file_id, samples, offset, time, .. } = self;
        let request = self.request.as_ref().map_or("-", RequestId::as_str);
        let (verb, hash, stage) = match &self.deed {
            Deed::Upload { hash, stage } => ("upload", hash.as_str(), stage.as_str()),
            Deed::Delete => ("delete", "-", "-"),
        };
        let text = format!(
            "{batch} {verb} {device} {file_id} {samples} {request} {offset} {hash} {stage} {time}"
        );
        write_checked(&text, out);
    }

    fn parse(text: &str) -> Option<Record> {
        let mut fields = text.splitn(10, ' ');
        let mut next = || fields.next();
        let batch = parse_batch(next()?)?;
        let verb = next()?;
        let device = Name::parse(next()?)?;
        let file_id = parse_integer(next()?)?;
        let samples = parse_number(next()?)?;
        let request = match next()? {
            "-" => None,
            id => Some(RequestId::parse(id)?),
        };
        let offset = parse_number(next()?)?;
        let (hash, stage) = (next()?.to_owned(), next()?.to_owned());
        let deed = match verb {
            "upload" if stage.starts_with(STAGE_PREFIX) => Deed::Upload { hash, stage },
            "delete" => Deed::Delete,
            _ => return None,
        };
        let time = next()?.to_owned();
        Some(Record { batch, device, file_id, samples, request, offset, time, deed })
    }
}

/// Appends the mark that a batch is done.
pub fn write_done(batch: u64, out: &mut Vec<u8>) {
    write_checked(&format!("{batch} done"), out);
}

fn write_checked(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(check_of(text.as_bytes()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn check_of(text: &[u8]) -> String {
    blake3::hash(text).to_hex()[..CHECK_DIGITS].to_owned()
}

fn parse_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// So that there is always a next one.
fn parse_batch(text: &str) -> Option<u64> {
    parse_number(text).filter(|batch| *batch < u64::MAX / 2)
}

/// What a journal holds.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Contents {
    /// All records, in order.
    pub records: Vec<Record>,
    /// The batches that are done have this number or a lower one.
    pub done: u64,
    /// Bytes of it that are good; what follows was not written to its end.
    pub good_bytes: usize,
}

/// A journal that cannot be trusted: something in its midst is not what was written.
#[derive(Debug, Eq, PartialEq)]
pub struct Damaged {
    /// Where it begins, in bytes.
    pub offset: usize,
}

enum Entry {
    Record(Record),
    Done(u64),
}

fn parse_entry(line: &[u8]) -> Option<Entry> {
    let (check, rest) = line.split_at_checked(CHECK_DIGITS)?;
    let text = rest.strip_prefix(b" ")?;
    if check_of(text).as_bytes() != check {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    match text.strip_suffix(" done") {
        Some(batch) => parse_batch(batch).map(Entry::Done),
        None => Record::parse(text).map(Entry::Record),
    }
}

/// Reads a journal.
///
/// # Errors
/// A line is damaged, and one behind it is not: that is no end that was not written.
pub fn read(bytes: &[u8]) -> Result<Contents, Damaged> {
    let mut contents = Contents::default();
    let mut offset = 0;
    while let Some(end) = memchr::memchr(b'\n', &bytes[offset..]) {
        match parse_entry(&bytes[offset..offset + end]) {
            Some(Entry::Record(record)) => contents.records.push(record),
            Some(Entry::Done(batch)) => contents.done = contents.done.max(batch),
            None => break,
        }
        offset += end + 1;
        contents.good_bytes = offset;
    }
    let mut behind = bytes[offset..].split(|byte| *byte == b'\n').skip(1);
    match behind.any(|line| parse_entry(line).is_some()) {
        true => Err(Damaged { offset }),
        false => Ok(contents),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records() -> Vec<Record> {
        let device = Name::parse("watch").expect("a name");
        let stage = format!("{STAGE_PREFIX}7");
        let upload = Record {
            batch: 3,
            device,
            file_id: 1,
            samples: 10,
            request: RequestId::parse("x-1"),
            offset: 51,
            time: "30 September 2022 10:31:13".into(),
            deed: Deed::Upload { hash: "00ff".into(), stage },
        };
        let delete = Record { request: None, deed: Deed::Delete, batch: 4, ..upload.clone() };
        vec![upload, delete]
    }

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        records().iter().for_each(|record| record.write(&mut bytes));
        write_done(3, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let bytes = written();
        let contents = read(&bytes).expect("good");
        let wanted = Contents { records: records(), done: 3, good_bytes: bytes.len() };
        assert_eq!(contents, wanted);
        assert_eq!(read(b""), Ok(Contents::default()));
    }

    #[test]
    fn a_batch_that_none_can_follow_is_none_of_ours() {
        for batch in [u64::MAX, u64::MAX / 2] {
            let mut bytes = Vec::new();
            write_done(batch, &mut bytes);
            Record { batch, ..records().remove(0) }.write(&mut bytes);
            assert_eq!(read(&bytes), Ok(Contents::default()));
        }
    }

    #[test]
    fn an_end_that_was_not_written_is_left_out() {
        let bytes = written();
        let ends: Vec<_> =
            (1..=bytes.len()).filter(|end| bytes[end - 1] == b'\n').chain([0]).collect();
        for cut in 0..bytes.len() {
            let contents = read(&bytes[..cut]).expect("only the end is missing");
            let good = *ends.iter().filter(|end| **end <= cut).max().expect("0 is one");
            assert_eq!(contents.good_bytes, good, "cut at {cut}");
        }
    }

    #[test]
    fn damage_in_the_midst_is_told_with_its_place() {
        let good = written();
        let last = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines");
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            match read(&bytes) {
                Err(Damaged { offset }) => assert!(at <= last && offset <= at, "byte {at}"),
                // In the last line nobody can tell it from one that was not written to its end.
                Ok(contents) => assert!(at >= last && contents.good_bytes <= last + 1, "byte {at}"),
            }
        }
    }
}
