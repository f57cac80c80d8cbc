//! Looking through folders before anything of them is sent, some names at a time.

use std::{collections::HashSet, io, os::fd::OwnedFd};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::{Fault, glob, source::Item};
use crate::{sys::stage_name::is_own_stage, wire::ErrorCode};

/// Folders within each other, at most: each is open while what is in it is sent.
pub(super) const DEPTH_MAX: usize = 128;

/// Names that one pattern may stand for.
const NAMES_MAX: usize = 100_000;

/// So many steps of a pattern count as one name that is looked at.
const STEPS_A_NAME: usize = 1024;

/// Folders of one tree that are known by their inodes, at most.
const FOLDERS_MAX: usize = 1_000_000;

/// Device and inode.
type FolderId = (u64, u64);

/// Finds the folders that a tree has now, so that none is sent that comes to be while it is: a
/// transfer into the very tree that it reads would never end.
#[derive(Debug)]
pub(super) struct FolderSurvey {
    stack: Vec<Dir>,
    found: HashSet<FolderId>,
}

/// The folders that a tree had.
#[derive(Debug, Default)]
pub(super) struct KnownFolders(HashSet<FolderId>);

impl FolderSurvey {
    /// Of all below this folder.
    ///
    /// # Errors
    /// What the system said.
    pub(super) fn of(folder: OwnedFd) -> Result<FolderSurvey, Fault> {
        let mut survey = FolderSurvey { stack: Vec::new(), found: HashSet::new() };
        survey.enter(folder)?;
        Ok(survey)
    }

    fn enter(&mut self, folder: OwnedFd) -> Result<(), Fault> {
        let stat = rustix::fs::fstat(&folder).map_err(io::Error::from)?;
        let is_new = self.found.insert((stat.st_dev, stat.st_ino));
        // What is deeper than that is not sent.
        if is_new && self.stack.len() <= DEPTH_MAX {
            self.stack.push(Dir::new(folder).map_err(io::Error::from)?);
        }
        if self.found.len() > FOLDERS_MAX {
            let text = format!("more than {FOLDERS_MAX} folders in one");
            return Err(Fault::new(ErrorCode::TooMany, text));
        }
        Ok(())
    }

    /// Looks at `budget` names at most, and takes them off; true once it has seen all.
    ///
    /// # Errors
    /// The tree has too many folders, or what the system said. What is not seen here would be left
    /// out without a word.
    pub(super) fn go_on(&mut self, budget: &mut usize) -> Result<bool, Fault> {
        while let Some(dir) = self.stack.last_mut() {
            if *budget == 0 {
                return Ok(false);
            }
            *budget -= 1;
            let entry = match dir.read() {
                Some(Ok(entry)) => entry,
                None => {
                    self.stack.pop();
                    continue;
                }
                Some(Err(errno)) => return Err(io::Error::from(errno).into()),
            };
            let name = entry.file_name();
            let may_be_folder =
                matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
            if !may_be_folder || matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let folder = dir.fd().map_err(io::Error::from)?;
            match rustix::fs::openat(folder, name, flags, Mode::empty()) {
                Ok(opened) => self.enter(opened)?,
                Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {}
                // What is in it cannot be sent; it is told of then.
                Err(Errno::ACCESS | Errno::PERM) => {
                    let looked = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW);
                    self.found.extend(looked.map(|stat| (stat.st_dev, stat.st_ino)));
                }
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
        Ok(true)
    }

    /// What it has found.
    pub(super) fn into_known(self) -> KnownFolders {
        KnownFolders(self.found)
    }
}

impl KnownFolders {
    pub(super) fn has(&self, device: u64, inode: u64) -> bool {
        self.0.contains(&(device, inode))
    }
}

/// Finds the paths that an item's patterns stand for.
#[derive(Debug)]
pub(super) struct Expansion {
    parts: Vec<Vec<u8>>,
    /// Beginnings of paths, and how many of the parts they have.
    open: Vec<(Vec<u8>, usize)>,
    /// The folder that is being read, and what stands before its names.
    reading: Option<(Dir, Vec<u8>, usize)>,
    found: Vec<Vec<u8>>,
}

impl Expansion {
    pub(super) fn of(path: &[u8]) -> Expansion {
        let parts = path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        let open = vec![(Vec::new(), 0)];
        Expansion { parts, open, reading: None, found: Vec::new() }
    }

    /// Looks at about `budget` names at most, and takes them off: all the paths, in the order of
    /// their bytes, once they are found.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn go_on(
        &mut self,
        item: &Item,
        budget: &mut usize,
    ) -> Result<Option<Vec<Vec<u8>>>, Fault> {
        while *budget > 0 {
            *budget -= 1;
            if self.reading.is_some() {
                self.read_name(budget);
            } else if let Some((path, depth)) = self.open.pop() {
                self.look_into(item, path, depth);
            } else {
                let mut found = std::mem::take(&mut self.found);
                found.sort_unstable();
                return Ok(Some(found));
            }
            if self.open.len() + self.found.len() > NAMES_MAX {
                let text = format!("more than {NAMES_MAX} names are like that");
                return Err(Fault::new(ErrorCode::TooMany, text));
            }
        }
        Ok(None)
    }

    fn look_into(&mut self, item: &Item, path: Vec<u8>, depth: usize) {
        match self.parts.get(depth) {
            None if item.open(&path, OFlags::PATH).is_ok() => self.found.push(path),
            None => {}
            Some(part) if !glob::is_pattern(part) => {
                let path = join(&path, part);
                self.open.push((path, depth + 1));
            }
            Some(_) => {
                let at = if path.is_empty() { &b"."[..] } else { &path };
                // What is no folder has nothing of such a name in it.
                let folder = item.open(at, OFlags::DIRECTORY).ok();
                let dir = folder.and_then(|folder| Dir::new(folder).ok());
                self.reading = dir.map(|dir| (dir, path, depth));
            }
        }
    }

    fn read_name(&mut self, budget: &mut usize) {
        let Some((dir, path, depth)) = &mut self.reading else { return };
        let Some(Ok(entry)) = dir.read() else {
            self.reading = None;
            return;
        };
        let name = entry.file_name().to_bytes();
        let is_hidden = |name| dir.fd().is_ok_and(|folder| is_own_stage(folder, name));
        let mut steps = 0;
        let is_like = !matches!(name, b"." | b"..")
            && glob::matches_counted(&self.parts[*depth], name, &mut steps);
        *budget = budget.saturating_sub(steps / STEPS_A_NAME);
        if is_like && !is_hidden(name) {
            self.open.push((join(path, name), *depth + 1));
        }
    }
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

/// Whether a link at `path`, whose first part is the thing that was asked for, leads to a place
/// within that thing, whatever other links are there. So it goes up only at its beginning, where
/// the folders are known to be no links.
pub fn link_stays_within(path: &[u8], target: &[u8]) -> bool {
    if target.first().is_none_or(|first| *first == b'/') || target.contains(&0) {
        return false;
    }
    let mut above = path.iter().filter(|byte| **byte == b'/').count();
    // The link itself is in the innermost folder; what was asked for is the outermost.
    if above == 0 {
        return false;
    }
    above -= 1;
    let mut goes_down = false;
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if goes_down || above == 0 => return false,
            b".." => above -= 1,
            _ => goes_down = true,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_takes_many_steps_gives_way_to_others() {
        let folder = tempfile::tempdir().expect("a folder");
        for number in 0..50 {
            let name = format!("{}{number}", "a".repeat(200));
            std::fs::write(folder.path().join(name), b"").expect("a file");
        }
        let root = std::sync::Arc::new(std::fs::File::open(folder.path()).expect("it").into());
        let turns_of = |pattern: &str| {
            let item = Item::below(std::sync::Arc::clone(&root), pattern.as_bytes());
            let mut expansion = Expansion::of(pattern.as_bytes());
            (1..).find_map(|turn| {
                let found = expansion.go_on(&item, &mut 100).expect("few names");
                found.map(|found| (turn, found.len()))
            })
        };
        assert_eq!(turns_of("b*"), Some((1, 0)));
        // Each place of a name is tried with most of the pattern behind the star.
        let hard = format!("*{}[b]", "a".repeat(100));
        let (turns, found) = turns_of(&hard).expect("it ends");
        assert!(turns > 5 && found == 0, "{turns} turns, {found} found");
    }

    #[test]
    fn links_that_might_lead_out_are_known() {
        for (path, target, yes) in [
            ("d/l", "f", true),
            ("d/l", "./e//f", true),
            ("d/l", "..", false),
            ("d/l", "../d/f", false),
            ("d/e/l", "../f", true),
            ("d/e/l", "..", true),
            ("d/e/l", "../../d", false),
            ("d/e/f/l", "../.././g", true),
            // `e` may be a link to somewhere higher.
            ("d/l", "e/..", false),
            ("d/l", "/d/f", false),
            ("d/l", "", false),
            ("d/l", "a\0b", false),
            ("l", "f", false),
        ] {
            assert_eq!(
                link_stays_within(path.as_bytes(), target.as_bytes()),
                yes,
                "{path} {target}"
            );
        }
    }
}
