//! What is to be sent, looked at before it is offered: how many files and how many bytes.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use crate::{
    client::{
        core::order::Local,
        screen::{Shown, passing::Passing},
    },
    transfer::{
        EntryKind, Fault, SIZE_UNKNOWN, Source, Upcoming,
        sink::{Existing, name_from, numbered},
        source::{DiskSource, Hashes, Item},
    },
    wire::{ErrorCode, escape::escape_bytes},
};

/// Numbered names that are looked for before the user is asked.
const NUMBERS_MAX: u32 = 100;

/// What an offer says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Weight {
    /// The name of the first thing.
    pub name: Vec<u8>,
    /// Bytes in all; `None` for standard input.
    pub size: Option<u64>,
    /// Files in all.
    pub files: u64,
    /// It is one folder.
    pub folder: bool,
    /// Seconds since 1970, of one file.
    pub modified: Option<i64>,
}

/// Looks at all of it. Blocks on the disk. What cannot be read within a folder is passed over: it
/// is told of when it cannot be sent.
///
/// # Errors
/// Something that was named is not there or cannot be sent, or nothing is left to be sent.
pub fn weigh(paths: &[Local]) -> Result<Weight, Fault> {
    let mut items = Vec::new();
    for path in paths {
        items.push(match path {
            Local::Path(path) => Item::local(path).map_err(|error| {
                let Fault { code, text } = Fault::of_io(&error);
                Fault::new(code, format!("{}: {text}", path.display()))
            })?,
            Local::Input(name) => Item::pipe(name.clone())?,
        });
    }
    let mut source = DiskSource::new(items, Hashes::default());
    let mut weight = None;
    let mut failed = None;
    loop {
        let mut budget = usize::MAX;
        let entry = match source.next(&mut budget) {
            Upcoming::Entry(entry, _) => entry,
            Upcoming::Later => continue,
            Upcoming::End => break,
            Upcoming::Missing(name, fault) => {
                let name = escape_bytes(&name).into_owned();
                let text = format!("{name}: {}", fault.text);
                if !name.contains('/') {
                    return Err(Fault::new(fault.code, text));
                }
                failed.get_or_insert(Fault::new(fault.code, text));
                continue;
            }
        };
        let is_file = entry.kind == EntryKind::File;
        let weight = weight.get_or_insert_with(|| Weight {
            name: entry.path.clone(),
            size: Some(0),
            files: 0,
            folder: entry.kind == EntryKind::Folder && paths.len() == 1,
            modified: None,
        });
        if is_file {
            weight.files += 1;
            weight.modified = (weight.files == 1).then_some(entry.modified.0);
            weight.size = weight.size.filter(|_| entry.size != SIZE_UNKNOWN);
            weight.size = weight.size.and_then(|size| size.checked_add(entry.size));
        }
    }
    let nothing = || Fault::new(ErrorCode::NoSuchFile, "there is nothing to be sent");
    weight.ok_or_else(|| failed.unwrap_or_else(nothing))
}

/// Where something is offered whose name is taken in `folder`, tells in the question what will
/// happen: the user knows before any byte comes. One look at the disk for each such name.
pub fn note_what_is_here(shown: &mut Shown, folder: &Path) {
    let Shown::Passing(Passing::Offer { from, what, existing, here, .. }) = shown else { return };
    let name = name_from(from.as_bytes(), &what.name);
    let is_here = |name: &[u8]| folder.join(OsStr::from_bytes(name)).symlink_metadata().is_ok();
    // A name that leads elsewhere is refused when it comes.
    if name.contains(&b'/') || !is_here(&name) {
        return;
    }
    let shown_name = escape_bytes(&name).into_owned();
    let free = || (2..NUMBERS_MAX).map(|number| numbered(&name, number)).find(|it| !is_here(it));
    *here = Some(match existing {
        _ if what.folder => {
            format!("{shown_name}/ is here: what is in it stays, what is new is added")
        }
        Existing::Overwrite => {
            format!("{shown_name} is here: it is replaced if {from} has sent it, else it stays")
        }
        Existing::Backup => {
            format!("{shown_name} is here: it is renamed if {from} has sent it, else it stays")
        }
        Existing::Keep | Existing::Replace => match free() {
            Some(free) => {
                let free = escape_bytes(&free).into_owned();
                format!("{shown_name} is here and stays: if this is another, it becomes {free}")
            }
            None => format!("{shown_name} is here and stays"),
        },
    });
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{client::screen::passing::What, wire::Name};

    #[test]
    fn the_question_tells_what_becomes_of_a_file_that_is_here() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("bob_plan.txt"), b"mine").expect("a file");
        fs::write(folder.path().join("bob_plan-2.txt"), b"as well").expect("a file");
        fs::create_dir(folder.path().join("bob_docs")).expect("a folder");
        let told = |name: &str, is_folder, existing| {
            let from = Name::parse("bob").expect("a name");
            let (size, files) = (Some(3), 1);
            let what = What { name: name.into(), size, files, folder: is_folder };
            let (number, here) = (1, None);
            let mut shown = Shown::Passing(Passing::Offer { number, from, what, existing, here });
            note_what_is_here(&mut shown, folder.path());
            match shown {
                Shown::Passing(Passing::Offer { here, .. }) => here,
                _ => None,
            }
        };
        for (name, is_folder, existing, part) in [
            ("plan.txt", false, Existing::Keep, Some("it becomes bob_plan-3.txt")),
            ("plan.txt", false, Existing::Overwrite, Some("it is replaced if bob has sent it")),
            ("plan.txt", false, Existing::Backup, Some("it is renamed if bob has sent it")),
            ("docs", true, Existing::Keep, Some("bob_docs/ is here")),
            ("other", false, Existing::Keep, None),
            ("../bob_plan.txt", false, Existing::Keep, None),
        ] {
            let here = told(name, is_folder, existing);
            assert_eq!(here.is_some(), part.is_some(), "{name}: {here:?}");
            let has_it = |(here, part): (String, &str)| here.contains(part);
            assert!(here.clone().zip(part).is_none_or(has_it), "{name}: {here:?}");
        }
    }

    #[test]
    fn files_and_bytes_are_counted_through_all_folders() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("docs/deep/empty")).expect("folders");
        for (name, size) in [("a", 3), ("docs/b", 40), ("docs/deep/c", 500)] {
            fs::write(path(name), vec![0; size]).expect("a file");
        }
        let weighed = |names: &[&str]| {
            let paths: Vec<_> = names.iter().map(|name| Local::Path(path(name))).collect();
            weigh(&paths)
        };
        let one = weighed(&["a"]).expect("it is there");
        assert_eq!(
            (&one.name[..], one.size, one.files, one.folder),
            (&b"a"[..], Some(3), 1, false)
        );
        assert!(one.modified.is_some_and(|seconds| seconds > 1_600_000_000));
        let tree = weighed(&["docs"]).expect("it is there");
        let expected = (&b"docs"[..], Some(540), 2, true);
        assert_eq!((&tree.name[..], tree.size, tree.files, tree.folder), expected);
        let both = weighed(&["a", "docs"]).expect("they are there");
        let expected = (&b"a"[..], Some(543), 3, false);
        assert_eq!((&both.name[..], both.size, both.files, both.folder), expected);
        let empty = weighed(&["docs/deep/empty"]).expect("it is there");
        assert_eq!((empty.size, empty.files, empty.folder), (Some(0), 0, true));
        let missing = weighed(&["a", "none"]).expect_err("it is not there");
        assert_eq!(missing.code, ErrorCode::NoSuchFile);
        assert!(missing.text.contains("none"), "{missing:?}");
    }

    #[test]
    fn standard_input_has_no_size() {
        let pipe = weigh(&[Local::Input(b"log".to_vec())]).expect("it needs no file");
        assert_eq!((&pipe.name[..], pipe.size, pipe.files), (&b"log"[..], None, 1));
    }
}
