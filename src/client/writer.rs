//! The writer of one download: a thread that hashes, writes, verifies and renames.

use std::{sync::mpsc, thread};

use indicatif::ProgressBar;

use super::{
    blocks::Chunk,
    brain::{After, Opening},
    order::Target,
    post::{News, Post},
};
use crate::{
    sys::{
        partfile::PartFile,
        terminal::{self, StdoutError},
    },
    wire::Tag,
};

enum Work {
    Chunk(Chunk),
    Close([u8; 32]),
}

/// The near end of a writer. Dropped before [`DownloadWriter::close`], it leaves nothing behind.
pub struct DownloadWriter(mpsc::Sender<Work>);

impl DownloadWriter {
    /// Starts the thread, which reports to `post` under `tag`.
    pub fn start(tag: Tag, opening: Opening, bar: ProgressBar, post: Post) -> DownloadWriter {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let result =
                Writer::open(tag, opening).and_then(|writer| writer.run(&receiver, &bar, &post));
            bar.finish_and_clear();
            match result {
                Ok(Some(())) => post.send(News::Saved(tag)),
                Ok(None) => true,
                Err(why) => post.send(News::Unsaved(tag, why)),
            };
        });
        DownloadWriter(sender)
    }

    /// The next bytes. The output window bounds how many wait.
    pub fn chunk(&self, chunk: Chunk) {
        // A writer that has failed says so itself.
        let _ = self.0.send(Work::Chunk(chunk));
    }

    /// All bytes are there; this is their hash.
    pub fn close(&self, hash: [u8; 32]) {
        let _ = self.0.send(Work::Close(hash));
    }
}

enum Place {
    File(PartFile),
    Stdout,
}

struct Writer {
    tag: Tag,
    place: Place,
    opening: Opening,
    hasher: blake3::Hasher,
    written: u64,
    unreported: u32,
}

impl Writer {
    fn open(tag: Tag, opening: Opening) -> Result<Writer, String> {
        let place = match &opening.target {
            Target::Stdout => Place::Stdout,
            Target::File(path) => {
                let part = PartFile::create(path).map_err(|error| error.to_string())?;
                part.preallocate(opening.size)
                    .map_err(|error| format!("no room for {} bytes: {error}", opening.size))?;
                Place::File(part)
            }
        };
        let hasher = blake3::Hasher::new();
        Ok(Writer { tag, place, opening, hasher, written: 0, unreported: 0 })
    }

    /// `None` where the download is not wanted any more.
    fn run(
        mut self,
        receiver: &mpsc::Receiver<Work>,
        bar: &ProgressBar,
        post: &Post,
    ) -> Result<Option<()>, String> {
        for work in receiver {
            match work {
                Work::Chunk(chunk) => {
                    chunk.slices().try_for_each(|bytes| self.write(bytes))?;
                    let count = chunk.length();
                    bar.inc(count as u64);
                    self.unreported += count as u32;
                    if self.unreported >= self.opening.credit_step_bytes {
                        let bytes = std::mem::take(&mut self.unreported);
                        post.send(News::After(After::Consumed(self.tag, bytes)));
                    }
                }
                Work::Close(hash) => return self.close(hash).map(Some),
            }
        }
        Ok(None)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.written += bytes.len() as u64;
        if self.written > self.opening.size {
            return Err(format!(
                "the server sent more than the {} bytes that it had announced",
                self.opening.size
            ));
        }
        self.hasher.update(bytes);
        match &mut self.place {
            Place::File(part) => part.write_all(bytes).map_err(|error| error.to_string()),
            Place::Stdout => terminal::write_stdout(bytes).map_err(|error| match error {
                StdoutError::Closed => "standard output was closed".to_owned(),
                StdoutError::Failed(error) => error.to_string(),
            }),
        }
    }

    fn close(self, hash: [u8; 32]) -> Result<(), String> {
        if self.written != self.opening.size {
            let (written, size) = (self.written, self.opening.size);
            return Err(format!("{written} bytes came instead of {size}; try again"));
        }
        if self.hasher.finalize() != blake3::Hash::from_bytes(hash) {
            return Err("the bytes that came are not those that were sent; try again".to_owned());
        }
        match self.place {
            Place::Stdout => Ok(()),
            Place::File(part) => part
                .finish(Some((self.opening.modified, 0)), false)
                .map_err(|error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use mio::{Poll, Token, Waker};

    use super::*;

    /// Runs a writer over these chunks and gives back its last word.
    fn written(target: &Path, size: u64, chunks: &[&[u8]], hash: blake3::Hash) -> News {
        let poll = Poll::new().expect("a poll");
        let waker = Waker::new(poll.registry(), Token(0)).expect("a waker");
        let (post, news) = Post::new(waker);
        let opening = Opening {
            path: b"x".to_vec(),
            target: Target::File(target.into()),
            size,
            modified: 1_000_000_000,
            credit_step_bytes: u32::MAX,
        };
        let writer = DownloadWriter::start(7, opening, ProgressBar::hidden(), post);
        chunks.iter().for_each(|bytes| writer.chunk(Chunk::Own(bytes.to_vec())));
        writer.close(*hash.as_bytes());
        news.recv().expect("an answer")
    }

    fn folder_is_empty(folder: &Path) -> bool {
        fs::read_dir(folder).expect("a folder").next().is_none()
    }

    #[test]
    fn what_is_verified_gets_its_name_and_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("client_x");
        let news = written(&target, 5, &[b"he", b"llo"], blake3::hash(b"hello"));
        assert!(matches!(news, News::Saved(7)), "{news:?}");
        assert_eq!(fs::read(&target).expect("the file"), b"hello");
        let modified = fs::metadata(&target).and_then(|data| data.modified()).expect("a time");
        let seconds = modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        assert_eq!(seconds, 1_000_000_000);
    }

    #[test]
    fn what_differs_in_content_or_length_never_gets_the_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("client_x");
        let good = blake3::hash(b"hello");
        for (size, chunks, hash) in [
            (5, &[&b"hellO"[..]][..], good),
            (6, &[b"hello"], good),
            (4, &[b"hello"], good),
            (0, &[b"h"], good),
            (0, &[], good),
        ] {
            let news = written(&target, size, chunks, hash);
            assert!(matches!(news, News::Unsaved(7, _)), "{news:?}");
            assert!(folder_is_empty(folder.path()));
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let target = folder.path().join("none/client_x");
        let news = written(&target, 0, &[], blake3::hash(b""));
        assert!(matches!(news, News::Unsaved(7, why) if why.contains("none")));
    }
}
