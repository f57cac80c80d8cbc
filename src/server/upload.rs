//! One file whose bytes come as they are, for dialects that have no conversation of transfers.
//!
//! All of its bytes are taken whatever happens: what follows them is a request again.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use crate::{
    sys::{clock, files::Hidden},
    transfer::{
        Entry, EntryKind, Fault, MODE_UNKNOWN, Sink as _,
        sink::{FolderSink, Naming, Place},
    },
    wire::{ErrorCode, Refusal, SharePath, escape::escape_bytes},
};

/// See the head of this file.
pub struct Upload {
    root: Arc<OwnedFd>,
    hidden: Arc<Hidden>,
    entry: Entry,
    left: u64,
    state: State,
    answer: Option<String>,
    over: Option<Result<(), Fault>>,
}

enum State {
    /// Nothing is opened yet.
    Asked,
    Writing(Box<FolderSink>, Place),
    /// What still comes is thrown away.
    Failed(Fault),
}

impl Upload {
    /// A file of `size` bytes for that place below `root`, unless that is hidden.
    pub fn new(
        root: Arc<OwnedFd>,
        hidden: Arc<Hidden>,
        path: Result<SharePath, Refusal>,
        size: u64,
    ) -> Upload {
        let (path, state) = match path {
            Ok(path) if has_dot_name(path.as_bytes()) => {
                let text = "names that begin with a dot are not taken";
                (Vec::new(), State::Failed(Fault::new(ErrorCode::BadPath, text)))
            }
            Ok(path) => (path.as_bytes().to_vec(), State::Asked),
            Err(refusal) => {
                let fault = Fault::new(refusal.code, refusal.text.into_owned());
                (Vec::new(), State::Failed(fault))
            }
        };
        let (item, kind, mode, target) = (0, EntryKind::File, MODE_UNKNOWN, Vec::new());
        let modified = (clock::wall_clock(), 0);
        let entry = Entry { item, kind, mode, size, modified, path, target };
        Upload { root, hidden, entry, left: size, state, answer: None, over: None }
    }

    /// Takes in bytes of the file, and that no more come. Blocks on the disk.
    pub fn handle(&mut self, bytes: &[u8], ended: bool) {
        if let State::Asked = self.state {
            self.state = match self.begin() {
                Ok((sink, place)) => State::Writing(Box::new(sink), place),
                Err(fault) => State::Failed(fault),
            };
        }
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if let State::Writing(sink, place) = &mut self.state
            && let Err(fault) = sink.write(place, bytes)
        {
            let failed = std::mem::replace(&mut self.state, State::Failed(fault));
            if let State::Writing(mut sink, place) = failed {
                sink.discard(place);
            }
        }
        if self.left == 0 || ended {
            self.finish();
        }
    }

    fn begin(&self) -> Result<(FolderSink, Place), Fault> {
        let root = self.root.as_fd().try_clone_to_owned()?;
        let sink = FolderSink::new(root, Naming::Within(Vec::new()), true);
        // What is there of it cannot be told to anybody, nor gone on with.
        let mut sink = sink.hiding(self.hidden.clone()).in_one_go();
        sink.find(&self.entry)?;
        let place = sink.begin(&self.entry, None, 0)?;
        Ok((sink, place))
    }

    fn finish(&mut self) {
        if self.over.is_some() {
            return;
        }
        let none = Fault::new(ErrorCode::SystemError, "nothing was begun");
        let outcome = match std::mem::replace(&mut self.state, State::Failed(none)) {
            State::Writing(mut sink, place) if self.left > 0 => {
                sink.discard(place);
                let text = format!("the input ended {} bytes too early", self.left);
                Err(Fault::new(ErrorCode::Cancelled, text))
            }
            State::Writing(mut sink, place) => {
                sink.finish(0, place, &self.entry);
                let stored = sink.settle().into_iter().try_for_each(|(_, result)| result);
                sink.close();
                stored
            }
            State::Asked => unreachable!("it was begun before"),
            State::Failed(fault) => Err(fault),
        };
        if outcome.is_ok() {
            self.answer = Some(format!("stored {}", escape_bytes(&self.entry.path)));
        }
        self.over = Some(outcome);
    }

    /// The line that says where it is, once.
    pub fn take_answer(&mut self) -> Option<String> {
        self.answer.take()
    }

    /// How it ended, once it has.
    pub fn outcome(&self) -> Option<&Result<(), Fault>> {
        self.over.as_ref()
    }
}

/// Here no folder comes with the file, in which such names are to be expected.
fn has_dot_name(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part.starts_with(b"."))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn upload(root: &std::path::Path, size: usize) -> Upload {
        let root = Arc::new(File::open(root).expect("a folder").into());
        let path = Ok(SharePath::parse(b"name").expect("a path"));
        Upload::new(root, Arc::default(), path, size as u64)
    }

    #[test]
    fn of_several_at_once_for_one_name_all_are_stored_and_the_last_one_stays() {
        let root = tempfile::tempdir().expect("a folder");
        let contents = [vec![b'1'; 200_000], vec![b'2'; 300_000], vec![b'3'; 10]];
        let mut uploads: Vec<_> = contents.iter().map(|it| upload(root.path(), it.len())).collect();
        for (upload, content) in uploads.iter_mut().zip(&contents) {
            upload.handle(&content[..content.len() / 2], false);
            assert!(upload.outcome().is_none());
        }
        for last in [1, 2, 0] {
            let content = &contents[last];
            uploads[last].handle(&content[content.len() / 2..], false);
            assert_eq!(uploads[last].outcome(), Some(&Ok(())));
            assert_eq!(uploads[last].take_answer().as_deref(), Some("stored name"));
            assert_eq!(&fs::read(root.path().join("name")).expect("a file"), content);
        }
    }

    #[test]
    fn one_that_is_broken_off_leaves_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let mut broken = upload(root.path(), 200_000);
        broken.handle(&[b'x'; 100_000], false);
        assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1);
        broken.handle(&[], true);
        assert!(matches!(broken.outcome(), Some(Err(fault)) if fault.code == ErrorCode::Cancelled));
        drop(broken);
        drop({
            let mut dropped = upload(root.path(), 200_000);
            dropped.handle(&[b'x'; 100_000], false);
            dropped
        });
        assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 0);
    }
}
