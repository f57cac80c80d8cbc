//! What is to be sent, looked at before it is offered: how many files and how many bytes.

use crate::{
    client::order::Local,
    transfer::{
        EntryKind, Fault, SIZE_UNKNOWN, Source, Upcoming,
        source::{DiskSource, Hashes, Item},
    },
    wire::ErrorCode,
};

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
                let name = crate::wire::escape::escape_bytes(&name).into_owned();
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

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
