//! Listings under way: a few entries at hand, and workers that find out more when those are said.
//!
//! Their memory is shared out: who has many at once has small windows, and a folder that does not
//! fit into its window is looked through more often.

use std::{
    collections::VecDeque, ffi::OsString, io, ops::ControlFlow, os::unix::ffi::OsStringExt as _,
    sync::Arc,
};

use super::{
    budget::{Budget, Holder},
    transfers::{Done, Produced},
};
use crate::{
    hub::{ENTRIES_MAX, OperationId, SessionId},
    limits::{
        LISTING_MAX_ENTRIES, LISTING_WINDOW_LEAST_BYTES, LISTING_WINDOW_MAX_BYTES,
        LISTINGS_OF_ONE_MAX_BYTES, LISTINGS_TOTAL_MAX_BYTES,
    },
    sys::{
        files::{self, FileError, Listed, Lister, Share},
        workers::Cancelled,
    },
    wire::{
        ErrorCode, Outcome, Refusal,
        event::{Entry, EntryKind},
    },
};

/// Entries that a worker finds out in one go.
const PART_ENTRIES: usize = 128;

/// What the listings of all sessions hold.
pub struct Listings {
    windows: Budget,
    /// Of one listing, [`LISTING_MAX_ENTRIES`] in earnest.
    entries_max: usize,
}

/// One folder on its way.
pub struct Listing {
    holder: Holder,
    window_bytes: usize,
    /// `None` while a worker has it, and when there is nothing more to be found.
    lister: Option<Box<Lister>>,
    left: VecDeque<Entry>,
    /// Those that are being said.
    some: Vec<Entry>,
    count: usize,
    count_max: usize,
    /// All that is to come is in `left`.
    is_all: bool,
    truncated: bool,
    cancelled: Cancelled,
}

/// What a worker has found out.
pub struct Part {
    lister: Box<Lister>,
    entries: Vec<Entry>,
    is_all: bool,
}

impl Default for Listings {
    fn default() -> Listings {
        let windows = Budget::new(LISTINGS_OF_ONE_MAX_BYTES, LISTINGS_TOTAL_MAX_BYTES);
        Listings { windows, entries_max: LISTING_MAX_ENTRIES }
    }
}

impl Listings {
    /// A listing that is about to begin.
    pub fn begin(&mut self, holder: impl Into<Holder>) -> Listing {
        let holder = holder.into();
        let has_room = self.windows.room(holder) >= LISTING_WINDOW_MAX_BYTES;
        let bytes = if has_room { LISTING_WINDOW_MAX_BYTES } else { LISTING_WINDOW_LEAST_BYTES };
        let mut window_bytes = 0;
        self.windows.change(holder, &mut window_bytes, bytes);
        Listing {
            holder,
            window_bytes,
            lister: None,
            left: VecDeque::new(),
            some: Vec::new(),
            count: 0,
            count_max: self.entries_max,
            is_all: false,
            truncated: false,
            cancelled: Cancelled::default(),
        }
    }

    /// It is over.
    pub fn end(&mut self, listing: &mut Listing) {
        self.windows.change(listing.holder, &mut listing.window_bytes, 0);
    }
}

impl Listing {
    /// On whose behalf it is.
    pub fn session(&self) -> SessionId {
        self.holder.session
    }

    /// What a worker is to do first, in slices.
    pub fn first_job(
        &self,
        share: Arc<Share>,
        name: OsString,
        id: OperationId,
    ) -> impl Job + use<> {
        let task = Task::Open { share, name, window_bytes: self.window_bytes };
        job(id, task, self.cancelled.clone())
    }

    /// What a worker is to do while others of the entries are said, if there is anything.
    pub fn next_job(&mut self, id: OperationId) -> Option<impl Job + use<>> {
        if self.left.len() >= PART_ENTRIES {
            return None;
        }
        let task = Task::GoOn(self.lister.take()?);
        Some(job(id, task, self.cancelled.clone()))
    }

    /// Takes in what a worker has found out.
    pub fn take_in(&mut self, part: Part) {
        let Part { lister, entries, is_all } = part;
        let room = self.count_max - self.count;
        self.truncated = entries.len() > room || entries.len() == room && !is_all;
        self.count += entries.len().min(room);
        self.left.extend(entries.into_iter().take(room));
        self.is_all = is_all || self.truncated;
        self.lister = Some(lister).filter(|_| !self.is_all);
    }

    /// What is to be said next; without room only the end.
    pub fn produce(&mut self, room: usize) -> Produced<'_> {
        if self.left.is_empty() {
            return match self.is_all {
                true => Produced::Over(self.outcome()),
                false => Produced::Nothing,
            };
        }
        if room == 0 {
            return Produced::Nothing;
        }
        self.some.clear();
        self.some.extend(self.left.drain(..ENTRIES_MAX.min(self.left.len())));
        Produced::Entries(&self.some)
    }

    fn outcome(&self) -> Outcome {
        if !self.truncated {
            return Outcome::Counted { count: self.count as u64, noun: "entries" };
        }
        let most = self.count_max;
        let text = format!("the folder has more than {most} entries; only the first are listed");
        Outcome::Failed(Refusal::new(0, ErrorCode::TooMany, text))
    }

    /// Nobody wants it any more.
    pub fn cancel(&self) {
        self.cancelled.set();
    }
}

/// What a worker is called for, again and again until it breaks off.
pub trait Job: FnMut() -> ControlFlow<Done> + Send + 'static {}

impl<F: FnMut() -> ControlFlow<Done> + Send + 'static> Job for F {}

enum Task {
    Open { share: Arc<Share>, name: OsString, window_bytes: usize },
    GoOn(Box<Lister>),
}

fn job(id: OperationId, task: Task, cancelled: Cancelled) -> impl Job {
    let mut task = Some(task);
    move || {
        let done = |result| ControlFlow::Break(Done::Listed(id, result));
        if cancelled.is_set() {
            return done(Err(FileError::Io(io::ErrorKind::Interrupted.into())));
        }
        let opened = match task.take() {
            Some(Task::Open { share, name, window_bytes }) => {
                Lister::open(share, &name, window_bytes).map(Box::new)
            }
            Some(Task::GoOn(lister)) => Ok(lister),
            None => unreachable!("a job is over when it breaks off"),
        };
        let mut lister = match opened {
            Ok(lister) => lister,
            Err(error) => return done(Err(error)),
        };
        let entries = match lister.go_on(PART_ENTRIES) {
            Err(error) => return done(Err(error)),
            Ok(Listed::NotYet) => {
                task = Some(Task::GoOn(lister));
                return ControlFlow::Continue(());
            }
            Ok(Listed::Entries(entries)) => entries,
            Ok(Listed::All) => Vec::new(),
        };
        let is_all = lister.is_over();
        let entries = entries.into_iter().map(entry_of).collect();
        done(Ok(Box::new(Part { lister, entries, is_all })))
    }
}

fn entry_of(entry: files::Entry) -> Entry {
    let files::Entry { name, kind, size, modified } = entry;
    let kind = match kind {
        files::EntryKind::File => EntryKind::File,
        files::EntryKind::Directory => EntryKind::Folder,
        files::EntryKind::Other => EntryKind::Other,
    };
    Entry { name: name.into_vec(), kind, size, modified: modified.0 }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn session(number: u64) -> SessionId {
        SessionId::new(0, number)
    }

    #[test]
    fn who_lists_much_at_once_has_small_windows_and_leaves_room_to_others() {
        let mut listings = Listings::default();
        let windows = |listings: &mut Listings, own| -> Vec<Listing> {
            (0..64).map(|_| listings.begin(session(own))).collect()
        };
        let mine = windows(&mut listings, 1);
        let held: usize = mine.iter().map(|it| it.window_bytes).sum();
        assert!(held <= LISTINGS_OF_ONE_MAX_BYTES + 64 * LISTING_WINDOW_LEAST_BYTES);
        assert_eq!(listings.begin(session(2)).window_bytes, LISTING_WINDOW_MAX_BYTES);
        let mut all: Vec<_> = (3..19).flat_map(|own| windows(&mut listings, own)).collect();
        let held: usize = all.iter().chain(&mine).map(|it| it.window_bytes).sum();
        let least = 1200 * LISTING_WINDOW_LEAST_BYTES;
        assert!(held <= LISTINGS_TOTAL_MAX_BYTES + least, "{held}");
        assert_eq!(listings.begin(session(20)).window_bytes, LISTING_WINDOW_LEAST_BYTES);
        all.iter_mut().for_each(|it| listings.end(it));
        assert_eq!(listings.begin(session(20)).window_bytes, LISTING_WINDOW_MAX_BYTES);
    }

    /// Lists a folder to its end, one portion after the other: what was said, and the outcome.
    fn listed(root: &std::path::Path, mut listing: Listing) -> (Vec<Vec<u8>>, Outcome) {
        let share = Arc::new(Share::open(root).expect("a share"));
        let id = OperationId::new(0, 1);
        let mut said = Vec::new();
        let mut job: Box<dyn Job> = Box::new(listing.first_job(share, OsString::new(), id));
        loop {
            let done = loop {
                if let ControlFlow::Break(Done::Listed(_, listed)) = job() {
                    break listed.expect("it is listed");
                }
            };
            listing.take_in(*done);
            job = loop {
                assert!(listing.left.len() < 2 * PART_ENTRIES, "{}", listing.left.len());
                match listing.produce(1) {
                    Produced::Entries(some) => said.extend(some.iter().map(|it| it.name.clone())),
                    Produced::Over(outcome) => return (said, outcome),
                    _ => panic!("it says nothing, and does nothing"),
                }
                if let Some(next) = listing.next_job(id) {
                    break Box::new(next);
                }
            };
        }
    }

    fn folder_of(count: usize) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for name in 0..count {
            File::create(root.path().join(format!("{name:04}"))).expect("a file");
        }
        root
    }

    #[test]
    fn what_is_found_out_is_bounded_while_nobody_reads_it() {
        let root = folder_of(1000);
        let (said, outcome) = listed(root.path(), Listings::default().begin(session(1)));
        assert_eq!(outcome, Outcome::Counted { count: 1000, noun: "entries" });
        assert!(said.is_sorted() && said.len() == 1000);
    }

    #[test]
    fn a_folder_with_too_many_entries_says_so_after_the_first_of_them() {
        let root = folder_of(300);
        // Within a portion, at its end, and in a later one.
        for most in [1, PART_ENTRIES, 2 * PART_ENTRIES, 299, 300, 301] {
            let listings = Listings::default();
            let listing = Listings { entries_max: most, ..listings }.begin(session(1));
            let (said, outcome) = listed(root.path(), listing);
            assert_eq!(said.len(), most.min(300), "at most {most}");
            assert_eq!(said.first().map(Vec::as_slice), Some(&b"0000"[..]));
            match outcome {
                Outcome::Counted { count, .. } => assert!(most >= 300 && count == 300, "{most}"),
                Outcome::Failed(refusal) => {
                    assert!(most < 300 && refusal.code == ErrorCode::TooMany, "{refusal:?}");
                    assert!(refusal.text.contains(&format!("more than {most} ")), "{refusal:?}");
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_listing_that_nobody_wants_is_not_gone_on_with() {
        let root = tempfile::tempdir().expect("a folder");
        let share = Arc::new(Share::open(root.path()).expect("a share"));
        let listing = Listings::default().begin(session(1));
        let mut job = listing.first_job(share, OsString::new(), OperationId::new(0, 1));
        listing.cancel();
        assert!(matches!(job(), ControlFlow::Break(Done::Listed(_, Err(FileError::Io(_))))));
    }
}
