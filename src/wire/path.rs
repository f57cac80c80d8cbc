//! A path below the shared root that has been checked.

use std::{fmt, path::Path};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Blob, check};
use crate::limits::{PATH_MAX_BYTES, PATH_PART_MAX_BYTES};

/// A relative path of plain parts: no `..`, no `.`, no empty part, no NUL; bytes, not text.
///
/// It says only that the form is good. That the way stays below the root is the kernel's to
/// check, when the path is opened (`openat2`).
#[derive(Clone, Eq, PartialEq)]
pub struct SharePath(Vec<u8>);

/// Why bytes are no path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PathFault {
    /// Nothing there, or an empty part as in `a//b` and `a/`.
    Empty,
    /// It begins with `/`.
    Absolute,
    /// A part is `.` or `..`.
    Dots,
    /// It holds a NUL byte.
    Nul,
    /// Longer than Linux takes, as a whole or in one part.
    TooLong,
}

impl SharePath {
    /// Checks the form of a path that a peer has named.
    pub fn parse(bytes: &[u8]) -> Result<SharePath, PathFault> {
        if bytes.first() == Some(&b'/') {
            return Err(PathFault::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathFault::Nul);
        }
        if bytes.len() > PATH_MAX_BYTES {
            return Err(PathFault::TooLong);
        }
        for part in bytes.split(|byte| *byte == b'/') {
            match part {
                b"" => return Err(PathFault::Empty),
                b"." | b".." => return Err(PathFault::Dots),
                _ if part.len() > PATH_PART_MAX_BYTES => return Err(PathFault::TooLong),
                _ => {}
            }
        }
        Ok(SharePath(bytes.to_vec()))
    }

    /// The path as bytes, never empty.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as the standard library has it.
    pub fn as_path(&self) -> &Path {
        use std::os::unix::ffi::OsStrExt;
        Path::new(std::ffi::OsStr::from_bytes(&self.0))
    }

    /// The last part: the name of the file or folder itself.
    pub fn file_name(&self) -> &[u8] {
        self.0.rsplit(|byte| *byte == b'/').next().expect("a path has a last part")
    }
}

impl fmt::Debug for SharePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(&self.0), formatter)
    }
}

impl fmt::Display for PathFault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            PathFault::Empty => "the path is empty or has an empty part",
            PathFault::Absolute => "the path begins with /, but paths are relative to the root",
            PathFault::Dots => "the path has a part . or ..",
            PathFault::Nul => "the path holds a NUL byte",
            PathFault::TooLong => "the path is longer than 4095 bytes or a part longer than 255",
        })
    }
}

impl Serialize for SharePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Blob::borrowed(&self.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SharePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharePath, D::Error> {
        check::path(&Blob::deserialize(deserializer)?.0).map_err(check::carried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_parts_are_a_path() {
        for good in [&b"a"[..], b"a/b.txt", b".hidden", b"...", b"C:x", b"..\\x", b"\xff\n", b"a b"]
        {
            assert_eq!(SharePath::parse(good).expect("good").as_bytes(), good);
        }
        assert_eq!(SharePath::parse(b"a/b/c").expect("good").file_name(), b"c");
    }

    #[test]
    fn what_could_leave_the_root_is_none() {
        use PathFault::*;
        let long = [b'a'; 256];
        let longer = b"a/".repeat(2048);
        for (bad, fault) in [
            (&b""[..], Empty),
            (b"a/", Empty),
            (b"a//b", Empty),
            (b".", Dots),
            (b"../x", Dots),
            (b"a/../../b", Dots),
            (b"a/.", Dots),
            (b"/etc/passwd", Absolute),
            (b"a\0b", Nul),
            (&long, TooLong),
            (&longer, TooLong),
        ] {
            assert_eq!(SharePath::parse(bad), Err(fault), "{:?}", String::from_utf8_lossy(bad));
        }
    }
}
