//! Files of samples at the device: written, looked through and read by threads.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use super::{JobNews, OpenError};
use crate::{
    client::post::{News, Post},
    edge::samples::{self, Scanner},
    limits::{CHUNK_MAX_BYTES, SAMPLES_MAX_BYTES},
    sys::partfile::PartFile,
};

/// Bytes read at a time where a file is looked through.
const LOOK_BYTES: usize = 256 * 1024;

/// Writes a file of random samples; its name is there once it is whole.
pub fn generate(path: PathBuf, amount: u64, seed: u64, post: Post) {
    thread::spawn(move || {
        let written = PartFile::create(&path).and_then(|mut file| {
            samples::generate(amount, seed, |block| file.write_all(block))?;
            file.finish(None, false)
        });
        let written = written.map_err(|error| format!("the file cannot be written: {error}"));
        post.send(News::Device(JobNews::Generated(written)))
    });
}

/// Looks through a file of samples, and then reads a block of it for every question that is sent
/// through what is returned.
pub fn open(number: u64, path: PathBuf, post: Post) -> mpsc::Sender<()> {
    let (go, asked) = mpsc::channel();
    thread::spawn(move || {
        let opened = look_through(&path);
        let (mut file, opened) = match opened {
            Ok((file, hash)) => (Some(file), Ok(hash)),
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
    go
}

/// A file that holds samples and nothing else, and its hash.
fn look_through(path: &Path) -> Result<(File, [u8; 32]), OpenError> {
    let bad = |error: io::Error| OpenError::Bad(format!("cannot read {path:?}: {error}"));
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(OpenError::Missing),
        opened => opened.map_err(bad)?,
    };
    let metadata = file.metadata().map_err(bad)?;
    if !metadata.is_file() {
        return Err(OpenError::Bad(format!("{path:?} is no regular file")));
    }
    if metadata.len() > SAMPLES_MAX_BYTES {
        let text = format!("{path:?} has more than {SAMPLES_MAX_BYTES} bytes; upload it in parts");
        return Err(OpenError::Bad(text));
    }
    let (mut scanner, mut hasher) = (Scanner::default(), blake3::Hasher::new());
    let mut buffer = vec![0; LOOK_BYTES];
    let damaged = |fault: samples::Fault| OpenError::Bad(format!("{path:?}: {fault}"));
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                scanner.feed(&buffer[..count]).map_err(damaged)?;
                hasher.update(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(bad(error)),
        }
    }
    scanner.finish().map_err(damaged)?;
    file.rewind().map_err(bad)?;
    Ok((file, *hasher.finalize().as_bytes()))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn look(content: &[u8]) -> Result<[u8; 32], OpenError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("watch-1.txt");
        std::fs::write(&path, content).expect("a file");
        look_through(&path).map(|(_, hash)| hash)
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
        let missing = look_through(&folder.path().join("x"));
        assert!(matches!(missing, Err(OpenError::Missing)));
        assert!(matches!(look_through(folder.path()), Err(OpenError::Bad(_))));
    }
}
