//! Files of samples at the device: written, looked through and read by threads.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use super::{JobNews, Look, OpenError};
use crate::{
    client::post::{News, Post},
    edge::samples::{self, Scanner},
    limits::{CHUNK_MAX_BYTES, SAMPLES_MAX_BYTES},
    sys::{clock, partfile::PartFile},
    transfer::{
        Entry, EntryKind, Fault, MODE_UNKNOWN, Sink as _,
        sink::{Asked, Existing, FolderSink, Naming},
    },
    wire::{ErrorCode, Tag},
};

/// `O_NONBLOCK` (open(2)).
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits() as i32;

/// Bytes read at a time where a file is looked through.
const LOOK_BYTES: usize = 256 * 1024;

/// Writes a file of random samples; its name is there once it is whole.
pub fn generate(path: PathBuf, amount: u64, seed: u64, post: Post) {
    let failed = post.clone();
    let spawned = thread::Builder::new().name("samples".into()).spawn(move || {
        let written = PartFile::create(&path).and_then(|mut file| {
            samples::generate(amount, seed, |block| file.write_all(block))?;
            file.finish(None, false)
        });
        let written = written.map_err(|error| format!("the file cannot be written: {error}"));
        post.send(News::Device(JobNews::Generated(written)))
    });
    if let Err(error) = spawned {
        failed.send(News::Device(JobNews::Generated(Err(no_thread(&error)))));
    }
}

fn no_thread(error: &io::Error) -> String {
    format!("no thread can be had for the file: {error}")
}

/// Looks through a file of samples, and then reads a block of it for every question that is sent
/// through what is returned.
pub fn open(number: u64, path: PathBuf, samples: bool, post: Post) -> mpsc::Sender<()> {
    let (go, asked) = mpsc::channel();
    let failed = post.clone();
    let spawned = thread::Builder::new().name("samples".into()).spawn(move || {
        let (mut file, opened) = match look_through(&path, samples) {
            Ok((file, look)) => (Some(file), Ok(look)),
            Err(error) => (None, Err(error)),
        };
        if !post.send(News::Device(JobNews::Opened(number, opened))) {
            return;
        }
        for () in asked {
            let Some(file) = &mut file else { return };
            let block = read_block(file).map_err(|error| format!("cannot read {path:?}: {error}"));
            let is_over = block.as_ref().map_or(true, Vec::is_empty);
            if !post.send(News::Device(JobNews::Block(number, block))) || is_over {
                return;
            }
        }
    });
    if let Err(error) = spawned {
        let opened = Err(OpenError::Bad(no_thread(&error)));
        failed.send(News::Device(JobNews::Opened(number, opened)));
    }
    go
}

/// A file and what it is; with `samples` it holds samples and nothing else.
fn look_through(path: &Path, samples: bool) -> Result<(File, Look), OpenError> {
    let bad = |error: io::Error| OpenError::Bad(format!("cannot read {path:?}: {error}"));
    // Whoever writes to a FIFO is not waited for.
    let opened = File::options().read(true).custom_flags(NONBLOCK).open(path);
    let mut file = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing),
        opened => opened.map_err(bad)?,
    };
    let metadata = file.metadata().map_err(bad)?;
    if !metadata.is_file() {
        return Err(OpenError::Bad(format!("{path:?} is no regular file")));
    }
    if samples && metadata.len() > SAMPLES_MAX_BYTES {
        let text = format!("{path:?} has more than {SAMPLES_MAX_BYTES} bytes; upload it in parts");
        return Err(OpenError::Bad(text));
    }
    let (mut scanner, mut hasher) = (Scanner::default(), blake3::Hasher::new());
    let (mut buffer, mut size) = (vec![0; LOOK_BYTES], 0);
    let damaged = |fault: samples::Fault| OpenError::Bad(format!("{path:?}: {fault}"));
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                if samples {
                    scanner.feed(&buffer[..count]).map_err(damaged)?;
                }
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(bad(error)),
        }
    }
    if samples {
        scanner.finish().map_err(damaged)?;
    }
    file.rewind().map_err(bad)?;
    let hash = *hasher.finalize().as_bytes();
    Ok((file, Look { hash, size, modified: metadata.mtime() }))
}

fn read_block(file: &mut File) -> io::Result<Vec<u8>> {
    let mut block = vec![0; CHUNK_MAX_BYTES];
    loop {
        match file.read(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => {
                block.truncate(read?);
                return Ok(block);
            }
        }
    }
}

/// What the writer of a file that comes is told.
pub enum Coming {
    /// These bytes come next.
    Bytes(Vec<u8>),
    /// All are there, and hash to this if the sender has said so.
    End(Option<[u8; 32]>),
}

/// Writes a file that comes from another device. Dropped before its end, nothing is left of it.
pub fn receive(tag: Tag, path: PathBuf, size: u64, post: Post) -> mpsc::Sender<Coming> {
    let (sender, coming) = mpsc::channel();
    let failed = post.clone();
    let spawned = thread::Builder::new().name("file".into()).spawn(move || {
        let kept = match write_coming(tag, &path, size, &coming, &post) {
            Ok(Some(name)) => Ok(name),
            Ok(None) => return,
            Err(error) => Err(format!("it cannot be saved: {error}")),
        };
        post.send(News::Device(JobNews::Kept(tag, kept)));
    });
    if let Err(error) = spawned {
        failed.send(News::Device(JobNews::Kept(tag, Err(no_thread(&error)))));
    }
    sender
}

/// The name that it got; none where it is not wanted any more. What has its own name already
/// stays: what comes gets the next free one.
fn write_coming(
    tag: Tag,
    path: &Path,
    size: u64,
    coming: &mpsc::Receiver<Coming>,
    post: &Post,
) -> Result<Option<Vec<u8>>, Fault> {
    let (mut sink, entry) = sink_for(path, size)?;
    sink.find(&entry)?;
    let mut place = sink.begin(&entry, None, 0)?;
    let (mut hasher, mut received) = (blake3::Hasher::new(), 0);
    for news in coming {
        let failed = match news {
            Coming::Bytes(bytes) => {
                received += bytes.len() as u64;
                hasher.update(&bytes);
                let written = match received > size {
                    true => Err(wrong("more comes than was announced")),
                    false => sink.write(&mut place, &bytes),
                };
                post.send(News::Device(JobNews::Taken(tag, bytes.len() as u32)));
                written.err()
            }
            Coming::End(hash) => {
                let own = hasher.finalize();
                let is_good = hash.is_none_or(|hash| own == blake3::Hash::from_bytes(hash));
                if received == size && is_good {
                    sink.finish(0, place, &entry);
                    sink.settle().pop().map_or(Ok(()), |(_, stored)| stored)?;
                    return Ok(Some(sink.placed_as(0).unwrap_or(entry.path)));
                }
                Some(wrong("the bytes that came are not those sent"))
            }
        };
        if let Some(fault) = failed {
            sink.discard(place);
            return Err(fault);
        }
    }
    sink.discard(place);
    Ok(None)
}

fn sink_for(path: &Path, size: u64) -> Result<(FolderSink, Entry), Fault> {
    let name = path.file_name().ok_or_else(|| wrong("it has no name"))?.as_bytes().to_vec();
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let folder = File::open(parent.unwrap_or(Path::new(".")))?;
    let asked = Asked { pattern: name.clone(), prefix: Vec::new(), rename: Some(name.clone()) };
    let naming = Naming::Asked(vec![asked]);
    let sink = FolderSink::new(folder.into(), naming, false).treating(Existing::Keep);
    let entry = Entry {
        item: 0,
        kind: EntryKind::File,
        mode: MODE_UNKNOWN,
        size,
        modified: (clock::wall_clock(), 0),
        path: name,
        target: Vec::new(),
    };
    Ok((sink, entry))
}

fn wrong(text: &str) -> Fault {
    Fault::new(ErrorCode::SystemError, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(content: &[u8]) -> Result<[u8; 32], OpenError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watch-1.txt");
        std::fs::write(&path, content).expect("a file");
        look_through(&path, true).map(|(_, look)| look.hash)
    }

    #[test]
    fn a_file_is_looked_through_before_it_is_sent() {
        let hash = look(b"1\n2\n").expect("samples");
        assert_eq!(hash, *blake3::hash(b"1\n2\n").as_bytes());
        let bad = look(b"1\nx\n");
        assert!(
            matches!(bad, Err(OpenError::Bad(why)) if why.contains("line 2 is not an integer"))
        );
        assert!(matches!(look(b""), Err(OpenError::Bad(why)) if why.contains("no samples")));
        let folder = tempfile::tempdir().expect("a folder");
        let missing = look_through(&folder.path().join("x"), true);
        assert!(matches!(missing, Err(OpenError::Missing)));
        assert!(matches!(look_through(folder.path(), false), Err(OpenError::Bad(_))));
    }
}
