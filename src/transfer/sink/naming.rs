//! Which name a thing gets that comes from somebody else.

use std::collections::HashMap;

use crate::{
    sys::stage_name::{beginning, is_stage_name},
    transfer::{Entry, EntryKind, Fault, glob, walk::DEPTH_MAX},
    wire::{ErrorCode, SharePath},
};

/// Names of different files that one transfer may put side by side at its top.
const TOPS_MAX: usize = 100_000;

/// The longest name of a file, in bytes.
const NAME_MAX_BYTES: usize = 255;

/// The longest ending of a name that stays with it where it is shortened or numbered, in bytes.
const ENDING_MAX_BYTES: usize = 16;

/// Which name a thing gets.
#[derive(Clone, Debug)]
pub enum Naming {
    /// As the sender calls it, within this folder below the root (empty: the root itself). Its
    /// first part may not begin with a dot, nor any part of the folder.
    Within(Vec<u8>),
    /// Only what was asked for, as it is called here.
    Asked(Vec<Asked>),
    /// As the sender calls it, with this user and `_` in front.
    From(Vec<u8>),
}

/// One thing that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The last part of its path, perhaps a pattern.
    pub pattern: Vec<u8>,
    /// What stands before the names that a pattern stands for.
    pub prefix: Vec<u8>,
    /// The name itself, where it is not to be the prefix and the pattern.
    pub rename: Option<Vec<u8>>,
}

impl Naming {
    /// The user that all comes from, if it has one.
    pub(super) fn sender(&self) -> Option<&[u8]> {
        match self {
            Naming::From(user) => Some(user),
            Naming::Within(_) | Naming::Asked(_) => None,
        }
    }
}

impl Asked {
    fn allows(&self, top: &[u8]) -> bool {
        top == self.pattern || glob::is_pattern(&self.pattern) && glob::matches(&self.pattern, top)
    }

    fn name(&self, top: &[u8]) -> Vec<u8> {
        match &self.rename {
            Some(name) => name.clone(),
            None => fitting([&self.prefix, top].concat()),
        }
    }
}

/// The names of one transfer.
#[derive(Debug)]
pub(super) struct GivenNames {
    pub naming: Naming,
    /// The names at the top so far, as hashes, and the item that each belongs to.
    tops: HashMap<[u8; 16], u32>,
}

impl GivenNames {
    pub fn new(naming: Naming) -> GivenNames {
        GivenNames { naming, tops: HashMap::new() }
    }

    /// Where a new entry goes, below the root.
    pub fn admit(&mut self, entry: &Entry) -> Result<Vec<u8>, Fault> {
        let bad = |text: &str| Fault::new(ErrorCode::BadPath, text);
        let path = &entry.path;
        if let Err(fault) = SharePath::parse(path) {
            return Err(bad(&fault.to_string()));
        }
        if path.split(|byte| *byte == b'/').any(is_stage_name) {
            return Err(bad("this is how unfinished files are called; it is not taken"));
        }
        let (top, rest) = split_top(path);
        match &self.naming {
            Naming::Within(folder) => {
                if folder.split(|byte| *byte == b'/').any(|part| part.starts_with(b".")) {
                    return Err(bad("nothing is put into a folder whose name begins with a dot"));
                }
                if top.starts_with(b".") {
                    let text = "a name that begins with a dot is taken only in a folder that \
                                comes with it";
                    return Err(bad(text));
                }
            }
            Naming::Asked(asked) => {
                if !asked.get(entry.item as usize).is_some_and(|one| one.allows(top)) {
                    let text = "nobody asked for a file of this name";
                    return Err(Fault::new(ErrorCode::Protocol, text));
                }
            }
            Naming::From(_) => {}
        }
        let place = self.path_of(entry);
        let above = place.iter().filter(|byte| **byte == b'/').count();
        if above + usize::from(entry.kind == EntryKind::Folder) > DEPTH_MAX {
            return Err(bad(&format!("more than {DEPTH_MAX} folders within each other")));
        }
        self.claim(entry.item, &self.top_name(entry.item, top), rest.is_empty())?;
        Ok(place)
    }

    /// Things that were asked for apart must not meet under one name.
    fn claim(&mut self, item: u32, name: &[u8], is_top: bool) -> Result<(), Fault> {
        let hash = *blake3::hash(name).as_bytes();
        let key = *hash.first_chunk().expect("a hash has 32 bytes");
        match self.tops.get(&key) {
            Some(owner) if is_top || *owner != item => Err(same_name()),
            Some(_) => Ok(()),
            None if !is_top && matches!(self.naming, Naming::Asked(_)) => {
                let text = "a file in a folder that was not announced";
                Err(Fault::new(ErrorCode::Protocol, text))
            }
            None if self.tops.len() >= TOPS_MAX => {
                Err(Fault::new(ErrorCode::TooMany, format!("more than {TOPS_MAX} names at once")))
            }
            None => {
                self.tops.insert(key, item);
                Ok(())
            }
        }
    }

    /// Where an entry goes that was admitted.
    pub fn path_of(&self, entry: &Entry) -> Vec<u8> {
        let (top, rest) = split_top(&entry.path);
        let name = self.top_name(entry.item, top);
        match &self.naming {
            Naming::Within(folder) if !folder.is_empty() => {
                [folder, &b"/"[..], &entry.path].concat()
            }
            Naming::Within(_) => entry.path.clone(),
            Naming::Asked(_) | Naming::From(_) => [&name, rest].concat(),
        }
    }

    fn top_name(&self, item: u32, top: &[u8]) -> Vec<u8> {
        match &self.naming {
            Naming::Within(_) => top.to_vec(),
            Naming::Asked(asked) => match asked.get(item as usize) {
                Some(one) => one.name(top),
                None => top.to_vec(),
            },
            Naming::From(user) => name_from(user, top),
        }
    }

    /// Whether the root is a folder of the user of this machine, and not a share of a server.
    pub fn is_local(&self) -> bool {
        !matches!(self.naming, Naming::Within(_))
    }

    /// Whether names have a prefix that tells where the file is from.
    pub fn chose_the_prefix(&self) -> bool {
        match &self.naming {
            Naming::Asked(asked) => asked.iter().all(|one| one.rename.is_none()),
            Naming::Within(_) | Naming::From(_) => false,
        }
    }

    /// How much of a path below the root the user of this machine has chosen: links in that part
    /// are followed.
    pub fn chosen<'a>(&self, path: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let cut = match &self.naming {
            Naming::Within(folder) => folder.len().min(path.len()),
            Naming::Asked(_) | Naming::From(_) => split_top(path).0.len(),
        };
        let (head, rest) = path.split_at(cut);
        (head, rest.strip_prefix(b"/").unwrap_or(rest))
    }
}

/// How something is called here that this user sends.
pub fn name_from(user: &[u8], top: &[u8]) -> Vec<u8> {
    fitting([user, &b"_"[..], &printable(top)].concat())
}

pub(super) fn same_name() -> Fault {
    let text = "another file of this transfer is saved under the same name; send one of them alone";
    Fault::new(ErrorCode::BadPath, text)
}

/// The first part of a path, and the rest with its `/`.
fn split_top(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(path.iter().position(|byte| *byte == b'/').unwrap_or(path.len()))
}

/// What a stranger's name must not do to the terminal of whoever lists the folder: its control
/// characters are written as `%` and two digits. What is within a folder is as it was.
fn printable(name: &[u8]) -> Vec<u8> {
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte);
    if name.iter().all(is_plain) {
        return name.to_vec();
    }
    let mut shown = Vec::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for letter in chunk.valid().chars() {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                match letter.is_control() {
                    true => shown.extend(format!("%{byte:02X}").bytes()),
                    false => shown.push(byte),
                }
            }
        }
        shown.extend_from_slice(chunk.invalid());
    }
    shown
}

/// The name itself, or where it is too long for a disk: its beginning, `~`, eight digits of its
/// hash, and its ending.
fn fitting(name: Vec<u8>) -> Vec<u8> {
    if name.len() <= NAME_MAX_BYTES {
        return name;
    }
    let hash = blake3::hash(&name).to_hex();
    let (stem, ending) = split_ending(&name);
    let room = NAME_MAX_BYTES - ending.len() - 9;
    [beginning(stem, room), b"~", &hash.as_bytes()[..8], ending].concat()
}

/// The `number`th name for different files that are all called so: `a.txt`, `a-2.txt`, `a-3.txt`.
pub fn numbered(name: &[u8], number: u32) -> Vec<u8> {
    let (stem, ending) = split_ending(name);
    let mark = format!("-{number}");
    let room = NAME_MAX_BYTES - ending.len() - mark.len();
    [beginning(stem, room), mark.as_bytes(), ending].concat()
}

/// The name of the `number`th backup, as `cp --backup=numbered` calls it.
pub(super) fn backup(name: &[u8], number: u32) -> Vec<u8> {
    let mark = format!(".~{number}~");
    [beginning(name, NAME_MAX_BYTES - mark.len()), mark.as_bytes()].concat()
}

/// Before and from the dot that begins the ending, as `.txt` or `.tar.gz`; empty where there is
/// none.
fn split_ending(name: &[u8]) -> (&[u8], &[u8]) {
    let dot_of = |name: &[u8]| name.iter().rposition(|byte| *byte == b'.').filter(|at| *at > 0);
    let Some(dot) = dot_of(name).filter(|dot| name.len() - dot <= ENDING_MAX_BYTES) else {
        return (name, b"");
    };
    match name[..dot].strip_suffix(b".tar") {
        Some(stem) if !stem.is_empty() => name.split_at(stem.len()),
        _ => name.split_at(dot),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_the_ending() {
        let of = |name: &str| String::from_utf8(numbered(name.as_bytes(), 2)).expect("text");
        assert_eq!(of("alice_report.txt"), "alice_report-2.txt");
        assert_eq!(of("alice_a.tar.gz"), "alice_a-2.tar.gz");
        assert_eq!(of("alice_plain"), "alice_plain-2");
        assert_eq!(of(".bashrc"), ".bashrc-2");
        assert_eq!(of("a.no_ending_is_so_long"), "a.no_ending_is_so_long-2");
        assert_eq!(backup(b"a.txt", 1), b"a.txt.~1~");
        for length in [240, 255] {
            let name = format!("{}.txt", "ü".repeat((length - 4) / 2));
            let (two, three) = (numbered(name.as_bytes(), 2), numbered(name.as_bytes(), 3));
            assert!(two != three && two.len() <= 255 && two.ends_with(b"-2.txt"));
            assert!(String::from_utf8(two).is_ok(), "no character is cut in two");
        }
    }

    #[test]
    fn a_name_that_is_too_long_keeps_its_beginning_and_ending() {
        let (one, other) = ("n".repeat(251), format!("{}m", "n".repeat(250)));
        let of = |name: &str| fitting(format!("client_{name}.txt").into_bytes());
        assert!(of(&one).len() == 255 && of(&one).ends_with(b".txt"));
        assert!(of(&one).starts_with(b"client_nnn"));
        assert_ne!(of(&one), of(&other));
        assert_eq!(fitting(b"short".to_vec()), b"short");
    }

    #[test]
    fn control_characters_of_strangers_are_escaped() {
        assert_eq!(printable(b"a\x1b[31m\nb"), b"a%1B[31m%0Ab");
        assert_eq!(printable("ü\u{9b}x".as_bytes()), "ü%C2%9Bx".as_bytes());
        assert_eq!(printable(b"\xff\x01"), b"\xff%01");
    }
}
