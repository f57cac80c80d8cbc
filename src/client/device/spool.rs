//! Batches of samples that wait for the server: files in the state folder, so that they outlive the
//! connection, the program and the machine.
//!
//! ```text
//!   lock             held by the program that works in the folder
//!   sequence         the number of the last batch
//!   000000000007-3-6b1f....samples    the batch 7, for the file 3, and the id of its upload
//!   000000000002-2-90aa....refused    a batch that the server did not take
//! ```
//!
//! A batch is there as a whole or not at all. Bounded: what does not fit is not measured.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

use crate::{
    edge::samples::Scanner,
    limits::{SPOOL_MAX_BATCHES, SPOOL_MAX_BYTES},
    sys::{partfile::PartFile, stage_name::is_stage_name},
    wire::{
        edge::{RequestId, parse_integer},
        escape::escape,
    },
};

/// The ending of batches that were put aside.
const REFUSED: &str = "refused";

/// What waits at the moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Holding {
    /// The oldest.
    pub first: Option<Batch>,
    /// How many.
    pub count: usize,
}

/// One batch.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Batch {
    /// Where its samples are.
    pub path: PathBuf,
    /// The number of its file at the server.
    pub file_id: u32,
    /// The id of its upload.
    pub request: RequestId,
}

/// The folder, locked.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// In the order in which they were measured, with their bytes.
    batches: VecDeque<(Batch, u64)>,
    sequence: u64,
    /// Bytes of batches that were put aside.
    refused: u64,
    _lock: File,
}

impl Spool {
    /// Opens a folder, and makes it where it is missing.
    ///
    /// # Errors
    /// A sentence: another program works in it, or the disk fails.
    pub fn open(folder: &Path) -> Result<Spool, String> {
        let failed = |error: io::Error| format!("the spool {folder:?} cannot be used: {error}");
        make_private(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            // Some network disks know no locks.
            Ok(()) | Err(Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(Errno::WOULDBLOCK) => {
                return Err(format!("another client works in the spool {folder:?}"));
            }
            Err(errno) => return Err(failed(errno.into())),
        }
        let _ = sweep(folder);
        let (mut batches, mut refused) = (Vec::new(), 0);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let bytes = entry.metadata().map_err(failed)?.len();
            if entry.path().extension().is_some_and(|it| it == REFUSED) {
                refused += bytes;
            }
            let Some((number, batch)) = parse_name(&entry.path()) else { continue };
            batches.push((number, batch, bytes));
        }
        batches.sort_unstable_by_key(|(number, ..)| *number);
        let last = batches.last().map_or(0, |(number, ..)| *number);
        let noted = fs::read_to_string(folder.join("sequence")).unwrap_or_default();
        let sequence = noted.trim().parse().unwrap_or(0).max(last);
        let batches = batches.into_iter().map(|(_, batch, bytes)| (batch, bytes)).collect();
        Ok(Spool { folder: folder.to_owned(), batches, sequence, refused, _lock: lock })
    }

    /// What waits.
    pub fn holding(&self) -> Holding {
        let first = self.batches.front().map(|(batch, _)| batch.clone());
        Holding { first, count: self.batches.len() }
    }

    /// Whether another batch may be measured.
    ///
    /// # Errors
    /// A sentence: there is no room.
    pub fn check_room(&self) -> Result<(), String> {
        let waiting: u64 = self.batches.iter().map(|(_, bytes)| bytes).sum();
        let bytes = waiting.saturating_add(self.refused);
        if self.batches.len() >= SPOOL_MAX_BATCHES || bytes >= SPOOL_MAX_BYTES {
            let count = self.batches.len();
            return Err(format!(
                "the spool is full: {count} batches, {bytes} bytes, {} of them in files *.refused; \
                 nothing is measured until some of them are with the server or removed",
                self.refused
            ));
        }
        Ok(())
    }

    /// Adds a batch. Its file at the server has the number `file_id`, or that of the batch.
    ///
    /// # Errors
    /// A sentence: they are no samples, or the disk fails.
    pub fn add(&mut self, file_id: Option<u32>, random: u64, samples: &[u8]) -> Result<(), String> {
        let failed = |error: io::Error| format!("the spool cannot be written: {error}");
        let mut scanner = Scanner::default();
        scanner.feed(samples).and_then(|()| scanner.finish()).map_err(|it| it.to_string())?;
        let sequence = self.sequence + 1;
        let file_id = match file_id {
            Some(file_id) => file_id,
            None => u32::try_from(sequence).map_err(|_| "all numbers of files are used up")?,
        };
        let request = RequestId::parse(&format!("{random:016x}-{sequence}")).expect("it is good");
        let name = format!("{sequence:012}-{file_id}-{}.samples", request.as_str());
        let path = self.folder.join(name);
        // First its number, so that no other batch ever has it.
        self.note_sequence(sequence).map_err(failed)?;
        let mut part = PartFile::create(&path).map_err(failed)?;
        part.write_all(samples).map_err(failed)?;
        part.finish(None, true).map_err(failed)?;
        let bytes = samples.len() as u64;
        self.batches.push_back((Batch { path, file_id, request }, bytes));
        Ok(())
    }

    fn note_sequence(&mut self, sequence: u64) -> io::Result<()> {
        let mut part = PartFile::create(&self.folder.join("sequence"))?;
        part.write_all(format!("{sequence}\n").as_bytes())?;
        part.finish(None, true)?;
        self.sequence = sequence;
        Ok(())
    }

    /// The oldest batch is with the server.
    ///
    /// # Errors
    /// It cannot be removed: a sentence.
    pub fn delivered(&mut self) -> Result<(), String> {
        let Some((batch, _)) = self.batches.pop_front() else { return Ok(()) };
        match fs::remove_file(&batch.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(format!("a batch in the spool cannot be removed: {error}"))
            }
            _ => Ok(()),
        }
    }

    /// The oldest batch will never be with the server: it is kept under another name.
    ///
    /// # Errors
    /// It cannot be renamed: a sentence.
    pub fn put_aside(&mut self) -> Result<(), String> {
        let Some((batch, bytes)) = self.batches.pop_front() else { return Ok(()) };
        self.refused = self.refused.saturating_add(bytes);
        fs::rename(&batch.path, batch.path.with_extension(REFUSED))
            .map_err(|error| format!("a batch in the spool cannot be renamed: {error}"))
    }
}

/// Removes what was not finished when the last program ended: nobody else writes here.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_stage_name(entry.file_name().as_bytes()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn parse_name(path: &Path) -> Option<(u64, Batch)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".samples")?;
    let (number, rest) = name.split_once('-')?;
    let (file_id, request) = rest.split_once('-')?;
    let (file_id, request) = (parse_integer(file_id)?, RequestId::parse(request)?);
    Some((number.parse().ok()?, Batch { path: path.to_owned(), file_id, request }))
}

/// The name of the spool of a device for a server, below the state folder.
pub fn folder_name(user: &str, host: &str, port: u16) -> String {
    let plain = |char: char| if char.is_ascii_alphanumeric() || char == '.' { char } else { '_' };
    let host: String = host.chars().map(plain).collect();
    format!("{}@{host}_{port}", escape(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(spool: &mut Spool, file_id: Option<u32>, text: &str) -> Result<(), String> {
        spool.add(file_id, 7, text.as_bytes())
    }

    #[test]
    fn batches_wait_in_order_and_outlive_the_program() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path()).expect("a spool");
        assert_eq!(spool.holding(), Holding::default());
        add(&mut spool, None, "1\n2\n").expect("samples");
        add(&mut spool, Some(9), "3\n").expect("samples");
        let first = spool.holding().first.expect("a batch");
        assert_eq!((first.file_id, spool.holding().count), (1, 2));
        assert_eq!(fs::read(&first.path).expect("its file"), b"1\n2\n");
        let taken = Spool::open(folder.path()).expect_err("it is in use");
        assert!(taken.contains("another client"), "{taken}");
        drop(spool);

        let mut spool = Spool::open(folder.path()).expect("a spool");
        assert_eq!(spool.holding().first, Some(first.clone()), "with the same id");
        spool.delivered().expect("it is ours");
        assert!(!first.path.exists());
        assert_eq!(spool.holding().first.map(|batch| batch.file_id), Some(9));
        spool.put_aside().expect("it is ours");
        assert_eq!(spool.holding(), Holding::default());
        drop(spool);

        // Numbers are not used again.
        let mut spool = Spool::open(folder.path()).expect("a spool");
        add(&mut spool, None, "4\n").expect("samples");
        assert_eq!(spool.holding().first.map(|batch| batch.file_id), Some(3));
    }

    #[test]
    fn what_is_no_batch_is_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path()).expect("a spool");
        let wrong = add(&mut spool, None, "1\nx\n").expect_err("no samples");
        assert!(wrong.contains("line 2"), "{wrong}");
        assert!(add(&mut spool, None, "").is_err());
        assert_eq!(spool.holding(), Holding::default());
        let names = fs::read_dir(folder.path()).expect("a folder").flatten();
        assert_eq!(names.map(|it| it.file_name()).collect::<Vec<_>>(), ["lock"]);
    }

    #[test]
    fn what_was_not_finished_is_swept_and_what_was_refused_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        drop(Spool::open(folder.path()).expect("a spool"));
        for name in ["000000000001-1-7-1.samples", "sequence"] {
            let left = crate::sys::stage_name::stable(std::ffi::OsStr::new(name));
            fs::write(folder.path().join(left), "1\n").expect("a file");
        }
        fs::write(at("000000000001-1-7-1.refused"), "1\n").expect("a file");
        let mut spool = Spool::open(folder.path()).expect("a spool");
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .expect("a folder")
            .flatten()
            .map(|it| it.file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["000000000001-1-7-1.refused", "lock"]);
        assert_eq!(spool.refused, 2);
        add(&mut spool, None, "1\n2\n").expect("samples");
        spool.put_aside().expect("it is ours");
        assert_eq!(spool.refused, 6);
        assert_eq!(spool.check_room(), Ok(()));
        spool.refused = SPOOL_MAX_BYTES;
        let told = spool.check_room().expect_err("full");
        assert!(told.contains("*.refused"), "{told}");
    }

    #[test]
    fn a_full_spool_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::open(folder.path()).expect("a spool");
        add(&mut spool, None, "1\n").expect("samples");
        let (batch, _) = spool.batches[0].clone();
        assert_eq!(spool.check_room(), Ok(()));
        spool.batches.push_back((batch.clone(), SPOOL_MAX_BYTES));
        assert!(spool.check_room().is_err());
        spool.batches.pop_back();
        spool.batches.extend(vec![(batch, 1); SPOOL_MAX_BATCHES]);
        assert!(spool.check_room().expect_err("full").contains("the spool is full"));
    }

    #[test]
    fn every_device_and_server_has_a_spool_of_its_own() {
        assert_eq!(folder_name("watch", "::1", 5000), "watch@__1_5000");
        assert_eq!(folder_name("watch", "fe80::1%eth0", 1), "watch@fe80__1_eth0_1");
        assert_eq!(folder_name("watch", "example.org", 5000), "watch@example.org_5000");
    }
}
