//! Computing over a file that lies still: whatever is uploaded or deleted meanwhile, an open file
//! is the old content or the new one as a whole.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{
    data_name,
    disk::{Disk, DiskFile, Identity},
    samples::{Scanner, Tally},
    stage::refusal_of,
};
use crate::wire::{
    EdgeAnswer, ErrorCode, Name, Refusal,
    edge::{NO_SUCH_DATA, Statistic},
};

/// Bytes read at a time; all the memory that it takes.
const BLOCK_BYTES: usize = 256 * 1024;

/// A file and how many samples are in it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counted {
    /// As long as it is this, the count holds.
    pub identity: Identity,
    /// Samples.
    pub samples: u64,
}

/// Computes over a file of a device.
///
/// # Errors
/// There is none, it holds something else than samples, it holds nothing, or the disk fails;
/// `Cancelled` once `cancelled` is true.
pub fn compute<D: Disk>(
    disk: &D,
    device: &Name,
    file_id: u32,
    operation: Statistic,
    cancelled: &AtomicBool,
) -> Result<EdgeAnswer, Refusal> {
    let file = open(disk, device, file_id)?;
    let tally = tally(&file, cancelled)?;
    let result = match operation {
        Statistic::Sum => tally.sum.to_string(),
        Statistic::Average => tally.average().expect("a file without samples is a fault"),
        Statistic::Max => tally.max.to_string(),
        Statistic::Min => tally.min.to_string(),
    };
    Ok(EdgeAnswer::Computed { file_id, operation, result, samples: tally.count })
}

/// Counts the samples of a file, for the log of what is deleted. A file that somebody has damaged
/// can be deleted too: what stands in it are lines.
///
/// # Errors
/// As [`compute`].
pub fn count<D: Disk>(
    disk: &D,
    device: &Name,
    file_id: u32,
    cancelled: &AtomicBool,
) -> Result<Counted, Refusal> {
    let file = open(disk, device, file_id)?;
    let identity = file.identity().map_err(|error| refusal_of(&error))?;
    let (mut lines, mut last) = (0, b'\n');
    for_each_block(&file, cancelled, |block| {
        lines += memchr::memchr_iter(b'\n', block).count() as u64;
        last = *block.last().expect("blocks hold bytes");
        Ok(())
    })?;
    Ok(Counted { identity, samples: lines + u64::from(last != b'\n') })
}

fn open<D: Disk>(disk: &D, device: &Name, file_id: u32) -> Result<D::File, Refusal> {
    disk.open(&data_name(device, file_id)).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Refusal::new(0, ErrorCode::NoSuchData, NO_SUCH_DATA),
        _ => refusal_of(&error),
    })
}

/// What the samples of an open file are.
///
/// # Errors
/// As [`compute`].
pub fn tally(file: &impl DiskFile, cancelled: &AtomicBool) -> Result<Tally, Refusal> {
    let mut scanner = Scanner::default();
    let damaged = |fault| {
        let text = format!("the file at the server is damaged: {fault}");
        Refusal::new(0, ErrorCode::BadSamples, text)
    };
    for_each_block(file, cancelled, |block| scanner.feed(block).map_err(damaged))?;
    scanner.finish().map_err(damaged)
}

fn for_each_block(
    file: &impl DiskFile,
    cancelled: &AtomicBool,
    mut take: impl FnMut(&[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut offset = 0;
    loop {
        if cancelled.load(Ordering::Relaxed) {
            return Err(Refusal::new(0, ErrorCode::Cancelled, "cancelled by the client"));
        }
        let count = file.fill_at(&mut buffer, offset).map_err(|error| refusal_of(&error))?;
        if count == 0 {
            return Ok(());
        }
        take(&buffer[..count])?;
        offset += count as u64;
    }
}
