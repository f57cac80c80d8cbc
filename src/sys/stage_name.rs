//! The names of unfinished files: made so that no file of anybody else has one by accident.
//!
//! ```text
//!   .<beginning of the name>.<16 digits: which file><8 digits: check>.sixfour-part
//! ```
//!
//! The check is a hash of all that stands before it, so a name tells by itself that this program
//! has made it. That works on every file system, also where there are no extended attributes.
//! Whose the file is, its owner tells.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, Stat};

/// The longest name of a file that Linux file systems take, in bytes (`NAME_MAX`).
pub(super) const NAME_MAX_BYTES: usize = 255;

/// What the names of unfinished files end with.
const ENDING: &[u8] = b".sixfour-part";

/// Digits that tell one file from another.
const WHICH_DIGITS: usize = 16;

/// Digits of the check.
const CHECK_DIGITS: usize = 8;

/// The name of the unfinished `target`, always the same.
#[must_use]
pub fn stable(target: &OsStr) -> OsString {
    name_with(target, number_of(target.as_bytes()))
}

/// A name for the unfinished `target` that nobody can guess.
pub(super) fn random(target: &OsStr) -> OsString {
    // Each state has keys from the system's random source, which makes its hash of nothing a
    // number that others cannot guess.
    name_with(target, RandomState::new().build_hasher().finish())
}

/// Whether this program makes such names, for any file and any account.
#[must_use]
pub fn is_stage_name(name: &[u8]) -> bool {
    let Some(made) = name.strip_suffix(ENDING) else { return false };
    let Some(cut) = made.len().checked_sub(CHECK_DIGITS) else { return false };
    let (checked, check) = made.split_at(cut);
    checked.starts_with(b".") && check == check_of(checked)
}

/// Whether that is an unfinished file of this account, as listings and transfers leave it out.
/// For all other names it costs no system call.
#[must_use]
pub fn is_own_stage(folder: impl AsFd, name: &[u8]) -> bool {
    is_stage_name(name)
        && rustix::fs::statat(folder, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| is_ours(&stat))
}

/// Whether a file under such a name can only be ours: another account can neither have made it nor
/// have linked it there.
pub(super) fn is_ours(stat: &Stat) -> bool {
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    is_file && stat.st_nlink == 1 && stat.st_uid == rustix::process::geteuid().as_raw()
}

fn name_with(target: &OsStr, number: u64) -> OsString {
    let which = format!(".{number:0WHICH_DIGITS$x}");
    let room = NAME_MAX_BYTES - 1 - which.len() - CHECK_DIGITS - ENDING.len();
    let mut name = Vec::with_capacity(NAME_MAX_BYTES);
    name.push(b'.');
    name.extend_from_slice(beginning(target.as_bytes(), room));
    name.extend_from_slice(which.as_bytes());
    let check = check_of(&name);
    name.extend_from_slice(&check);
    name.extend_from_slice(ENDING);
    OsString::from_vec(name)
}

/// The first bytes of a name, not cut into the middle of a character where it is UTF-8.
pub fn beginning(name: &[u8], room: usize) -> &[u8] {
    let mut cut = name.len().min(room);
    while cut > 0 && cut < name.len() && cut + 3 > room && name[cut] & 0xc0 == 0x80 {
        cut -= 1;
    }
    &name[..cut]
}

fn check_of(bytes: &[u8]) -> [u8; CHECK_DIGITS] {
    let mut check = [0; CHECK_DIGITS];
    let number = number_of(bytes);
    for (at, digit) in check.iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(number >> (4 * at) & 0xf) as usize];
    }
    check
}

fn number_of(bytes: &[u8]) -> u64 {
    let hash = *blake3::hash(bytes).as_bytes();
    u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn names_are_known_again_and_those_of_others_are_not() {
        let long = "ü".repeat(127);
        for target in ["a", "", "numbers.csv", ".hidden", &long] {
            for name in [stable(OsStr::new(target)), random(OsStr::new(target))] {
                assert!(is_stage_name(name.as_bytes()), "{name:?}");
                assert!(name.len() <= NAME_MAX_BYTES && name.to_str().is_some(), "{name:?}");
            }
        }
        let others = [
            ".part-numbers.csv",
            ".part-a-0123456789abcdef",
            ".sixfour-part",
            "a.sixfour-part",
            ".a.0123456789abcdef01234567.sixfour-part",
            ".a.sixfour-part",
        ];
        for name in others {
            assert!(!is_stage_name(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn the_longest_names_have_a_stage_of_their_own() {
        let (one, other) = ("n".repeat(255), format!("{}m", "n".repeat(254)));
        assert_ne!(stable(OsStr::new(&one)), stable(OsStr::new(&other)));
        assert_eq!(stable(OsStr::new(&one)), stable(OsStr::new(&one)));
        assert_ne!(random(OsStr::new(&one)), random(OsStr::new(&one)));
        let bytes = [0x80; 255];
        assert!(stable(OsStr::from_bytes(&bytes)).len() <= NAME_MAX_BYTES);
    }

    #[test]
    fn a_file_of_such_a_name_that_is_linked_elsewhere_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let opened = File::open(folder.path()).expect("a folder");
        let name = stable(OsStr::new("a"));
        let path = folder.path().join(&name);
        assert!(!is_own_stage(&opened, name.as_bytes()), "there is none");
        fs::write(&path, b"x").expect("a file");
        assert!(is_own_stage(&opened, name.as_bytes()));
        fs::hard_link(&path, folder.path().join("other")).expect("a link");
        assert!(!is_own_stage(&opened, name.as_bytes()));
        fs::remove_file(&path).expect("it is there");
        std::os::unix::fs::symlink("other", &path).expect("a link");
        assert!(!is_own_stage(&opened, name.as_bytes()));
        assert!(!is_own_stage(&opened, b"other"));
    }
}
