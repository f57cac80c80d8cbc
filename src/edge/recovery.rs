//! Opening a data folder: what was decided is done, whatever was under way when the machine
//! stopped.

use std::io;

use super::{
    disk::{Disk, DiskFile},
    folder::Journal,
    journal::{self, Contents, Deed, JOURNAL, NEW_JOURNAL, Record, STAGE_PREFIX},
    log::{DELETION_LOG, DEVICE_LOG, UPLOAD_LOG, time_of},
    memory::Memory,
};
use crate::wire::escape::escape_bytes;

/// A journal longer than this is not ours: it is read as a whole.
const JOURNAL_MAX_BYTES: u64 = 1 << 30;

/// So much of a log's end is looked at for a line that was not written to its end.
const TAIL_BYTES: u64 = 4096;

/// The journal as it goes on, and what is remembered.
pub(super) fn recover<D: Disk>(
    disk: &D,
    warnings: &mut Vec<String>,
) -> Result<(Journal<D>, Memory), String> {
    let failed = |error: io::Error| format!("the disk says: {error}");
    let (file, contents) = open_journal(disk, warnings)?;
    let last = contents.records.last().map_or(0, |record| record.batch);
    let undone = contents.records.iter().filter(|it| it.batch > contents.done && it.batch == last);
    let undone: Vec<_> = undone.collect();
    if !undone.is_empty() {
        let count = undone.len();
        warnings.push(format!("{count} acts that an earlier server had decided are finished now"));
        finish(disk, &undone).map_err(failed)?;
    }
    for log in [UPLOAD_LOG, DELETION_LOG] {
        repair_tail(disk, log, warnings).map_err(failed)?;
    }
    clear_devices(disk).map_err(failed)?;
    remove_leftovers(disk).map_err(failed)?;
    disk.sync().map_err(failed)?;
    let batch = last.max(contents.done);
    let mut mark = Vec::new();
    if !undone.is_empty() {
        journal::write_done(batch, &mut mark);
        file.write_all_at(&mark, contents.good_bytes as u64).map_err(failed)?;
        file.sync().map_err(failed)?;
    }
    let length = (contents.good_bytes + mark.len()) as u64;
    let mut memory = Memory::default();
    contents.records.into_iter().for_each(|record| memory.note(record));
    Ok((Journal { file, length, batch, compact_at: super::folder::COMPACT_MIN_BYTES }, memory))
}

fn open_journal<D: Disk>(
    disk: &D,
    warnings: &mut Vec<String>,
) -> Result<(D::File, Contents), String> {
    let failed = |error: io::Error| format!("the journal {JOURNAL} cannot be read: {error}");
    let file = disk.open_to_write(JOURNAL).map_err(failed)?;
    let length = file.length().map_err(failed)?;
    if length > JOURNAL_MAX_BYTES {
        return Err(format!("the journal {JOURNAL} has {length} bytes; it is none of ours"));
    }
    let bytes = read_to_end(&file).map_err(failed)?;
    let contents = journal::read(&bytes).map_err(|damaged| {
        format!(
            "the journal {JOURNAL} is damaged at byte {}; restore it from a copy, or move it away \
             to go on without: then requests that are repeated are done again",
            damaged.offset
        )
    })?;
    if contents.good_bytes < bytes.len() {
        let lost = bytes.len() - contents.good_bytes;
        warnings.push(format!("the last {lost} bytes of {JOURNAL} were not written to their end"));
        file.set_len(contents.good_bytes as u64).map_err(failed)?;
        file.sync().map_err(failed)?;
    }
    Ok((file, contents))
}

/// Does what is missing of the acts of a batch: they are about different files.
fn finish<D: Disk>(disk: &D, undone: &[&Record]) -> io::Result<()> {
    for name in [UPLOAD_LOG, DELETION_LOG] {
        let records: Vec<_> = undone.iter().filter(|record| record.log() == name).collect();
        if records.is_empty() {
            continue;
        }
        let log = disk.open_to_write(name)?;
        for record in records {
            ensure_line(&log, record.offset, record.line().as_bytes())?;
        }
        log.sync()?;
    }
    for record in undone {
        let done = match &record.deed {
            Deed::Upload { stage, .. } => disk.rename(stage, &record.data_name()),
            Deed::Delete => disk.remove(&record.data_name()),
        };
        match done {
            // It was done before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
    }
    Ok(())
}

/// Sees to it that the line stands at `offset`, where all or some of it may stand already.
fn ensure_line(log: &impl DiskFile, offset: u64, line: &[u8]) -> io::Result<()> {
    let length = log.length()?;
    let mut found = vec![0; line.len()];
    let count = log.fill_at(&mut found, offset)?;
    // Some file systems lose power so that a file has its length but not its bytes.
    let zeros = found[..count].iter().rev().take_while(|byte| **byte == 0).count();
    let known = count - zeros;
    if length >= offset && line.starts_with(&found[..known]) {
        // There, or the beginning of it, or nothing.
        return log.write_all_at(&line[known..], offset + known as u64);
    }
    // Somebody has put another log in its place.
    let tail = tail_of(log)?;
    match memchr::memmem::find(&tail, line) {
        Some(_) => Ok(()),
        // Its last line may have been left open; ours is a line of its own.
        None if tail.last().is_some_and(|last| *last != b'\n') => {
            log.write_all_at(&[b"\n", line].concat(), length)
        }
        None => log.write_all_at(line, length),
    }
}

/// A last line without its end is not ours: ours are finished above. A whole one gets its end, and
/// so does one that is longer than any of ours; anything else is cut off.
fn repair_tail<D: Disk>(disk: &D, name: &str, warnings: &mut Vec<String>) -> io::Result<()> {
    let file = match disk.open(name) {
        Ok(_) => disk.open_to_write(name)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let (tail, length) = (tail_of(&file)?, file.length()?);
    let rest = match memchr::memrchr(b'\n', &tail) {
        Some(end) => &tail[end + 1..],
        None => &tail[..],
    };
    if rest.is_empty() {
        return Ok(());
    }
    if rest.len() as u64 == TAIL_BYTES {
        warnings.push(format!("the last line of {name} is none of ours; it was left as it is"));
        file.write_all_at(b"\n", length)?;
    } else if std::str::from_utf8(rest).is_ok_and(|line| time_of(line).is_some()) {
        file.write_all_at(b"\n", length)?;
    } else {
        let shown = escape_bytes(&rest[..rest.len().min(200)]);
        warnings.push(format!("the last line of {name} is no whole line and was cut: {shown}"));
        file.set_len(length - rest.len() as u64)?;
    }
    file.sync()
}

/// Nobody is active when a server starts.
fn clear_devices<D: Disk>(disk: &D) -> io::Result<()> {
    match disk.open(DEVICE_LOG).and_then(|log| log.length()) {
        Ok(0) => Ok(()),
        Ok(_) => {
            let log = disk.open_to_write(DEVICE_LOG)?;
            log.set_len(0)?;
            log.sync()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.open_to_write(DEVICE_LOG).map(drop)
        }
        Err(error) => Err(error),
    }
}

/// Files that were being received when the last server ended.
fn remove_leftovers<D: Disk>(disk: &D) -> io::Result<()> {
    for name in disk.names(STAGE_PREFIX)? {
        disk.remove(&name)?;
    }
    match disk.remove(NEW_JOURNAL) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn tail_of(file: &impl DiskFile) -> io::Result<Vec<u8>> {
    let length = file.length()?;
    let mut tail = vec![0; length.min(TAIL_BYTES) as usize];
    let start = length - tail.len() as u64;
    let count = file.fill_at(&mut tail, start)?;
    tail.truncate(count);
    Ok(tail)
}

/// All bytes of a file.
pub(super) fn read_whole<D: Disk>(disk: &D, name: &str) -> io::Result<Vec<u8>> {
    read_to_end(&disk.open(name)?)
}

fn read_to_end(file: &impl DiskFile) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.length()? as usize];
    let count = file.fill_at(&mut bytes, 0)?;
    bytes.truncate(count);
    Ok(bytes)
}
