//! A file of samples on its way in: checked, counted and hashed while it comes, under a temporary
//! name.

use std::io;

use super::{
    disk::{Disk, DiskFile as _},
    journal::STAGE_PREFIX,
    samples::Scanner,
};
use crate::{
    limits::SAMPLES_MAX_BYTES,
    wire::{ErrorCode, Refusal},
};

/// A file that is being received. Dropped, it is removed.
#[derive(Debug)]
pub struct Stage<D: Disk> {
    file: D::File,
    name: TemporaryName<D>,
    length: u64,
    scanner: Scanner,
    hasher: blake3::Hasher,
}

/// A file that is here as a whole, and durable, but for its name. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged<D: Disk> {
    name: TemporaryName<D>,
    /// Samples in it.
    pub samples: u64,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub hash: String,
}

/// Removes the file in the end, unless it has got another name.
#[derive(Debug)]
struct TemporaryName<D: Disk> {
    disk: D,
    /// Empty once it is somebody else's.
    name: String,
}

impl<D: Disk> Drop for TemporaryName<D> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            // What cannot be removed now is when the server starts again.
            let _ = self.disk.remove(&self.name);
        }
    }
}

impl<D: Disk> Stage<D> {
    /// Begins a file; no two have the same `number`.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn begin(disk: D, number: u64) -> Result<Stage<D>, Refusal> {
        let name = format!("{STAGE_PREFIX}{number:x}");
        let file = disk.create(&name).map_err(|error| refusal_of(&error))?;
        let name = TemporaryName { disk, name };
        let (scanner, hasher) = (Scanner::default(), blake3::Hasher::new());
        Ok(Stage { file, name, length: 0, scanner, hasher })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// A line is no sample, the file is too long, or the disk does not take it.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        if self.length + bytes.len() as u64 > SAMPLES_MAX_BYTES {
            let text = format!("a file of samples may have {SAMPLES_MAX_BYTES} bytes");
            return Err(Refusal::new(0, ErrorCode::TextTooLong, text));
        }
        self.scanner.feed(bytes).map_err(|fault| bad_samples(&fault))?;
        self.hasher.update(bytes);
        self.file.write_all_at(bytes, self.length).map_err(|error| refusal_of(&error))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// All is here: makes it durable. `hash` is what its bytes should hash to, if that is known.
    ///
    /// # Errors
    /// The last line is no sample, there is none, it is not what was announced, or the disk fails.
    pub fn finish(self, hash: Option<&[u8; 32]>) -> Result<Staged<D>, Refusal> {
        let tally = self.scanner.finish().map_err(|fault| bad_samples(&fault))?;
        let found = self.hasher.finalize();
        if hash.is_some_and(|hash| found != blake3::Hash::from_bytes(*hash)) {
            let text = "the bytes that came do not have the hash that was announced; try again";
            return Err(Refusal::new(0, ErrorCode::NotVerified, text));
        }
        self.file.sync().map_err(|error| refusal_of(&error))?;
        Ok(Staged { name: self.name, samples: tally.count, hash: found.to_string() })
    }
}

impl<D: Disk> Staged<D> {
    /// Its temporary name.
    pub fn name(&self) -> &str {
        &self.name.name
    }

    /// It is not ours to remove any more.
    pub(super) fn keep(&mut self) {
        self.name.name.clear();
    }
}

fn bad_samples(fault: &super::samples::Fault) -> Refusal {
    Refusal::new(0, ErrorCode::BadSamples, fault.to_string())
}

/// What the disk says, for a device.
pub fn refusal_of(error: &io::Error) -> Refusal {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let (code, text) = match error.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => {
            let text = format!("the server's data folder has no room ({error}); nothing was done");
            (ErrorCode::NoSpace, text)
        }
        ReadOnlyFilesystem => {
            let text = format!("the server's data folder cannot be written to ({error})");
            (ErrorCode::ReadOnly, text)
        }
        _ => (ErrorCode::SystemError, format!("the server's data folder fails: {error}")),
    };
    Refusal::new(0, code, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_disk_lacks_is_told_by_name() {
        use io::ErrorKind::{Other, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        for (kind, code) in [
            (StorageFull, ErrorCode::NoSpace),
            (QuotaExceeded, ErrorCode::NoSpace),
            (ReadOnlyFilesystem, ErrorCode::ReadOnly),
            (Other, ErrorCode::SystemError),
        ] {
            assert_eq!(refusal_of(&kind.into()).code, code, "{kind}");
        }
    }
}
