//! The credentials file: who has which password, and what each may do.
//!
//! ```text
//!   # a comment
//!   alice plain-password
//!   bob   $argon2id$v=19$m=19456,t=2,p=1$...   message,files,run
//! ```
//!
//! A line is `name password [rights]`, parted by spaces or tabs. Errors name the line and never
//! quote it: what stands there may be a password.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    ops::Range,
    path::Path,
};

use crate::{
    hub::rights::{Right, Rights},
    limits::PASSWORD_MAX_BYTES,
    sys::{
        held_place::HeldPlace,
        password::{Comparison, Hash, PHC_PREFIX},
        trusted_file::{self, Trusted},
    },
    wire::{Name, Secret, name::NAME_RULE},
};

/// The file that is looked for in the working folder.
pub const DEFAULT_PATH: &str = "credentials.txt";

/// Most bytes of the file, and most lines: a hundred bytes for each of ten thousand users.
pub const FILE_MAX_BYTES: usize = 1024 * 1024;
/// See [`FILE_MAX_BYTES`].
const LINES_MAX: usize = 10_000;

/// The byte order mark of UTF-8, with which some editors begin a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One user of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who.
    pub name: Name,
    /// What is compared with.
    pub password: Stored,
    /// What the line says of rights, if anything.
    pub rights: Option<Rights>,
    /// Where the line lies in the file, without its end.
    pub place: Range<usize>,
}

/// A password at rest.
#[derive(Clone, PartialEq)]
pub enum Stored {
    /// As it is typed.
    Plain(Secret<'static>),
    /// As `server passwd` writes it.
    Hashed(Hash),
}

impl fmt::Debug for Stored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Stored::Plain(_) => "Plain(..)",
            Stored::Hashed(_) => "Hashed(..)",
        })
    }
}

/// A line that is none of the file.
#[derive(Debug, Eq, PartialEq)]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and how it should be.
    pub text: String,
}

/// Reads the content of the file.
///
/// # Errors
/// The first line that is none. None of the others counts then.
pub fn parse(bytes: &[u8]) -> Result<Vec<Entry>, Fault> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut lines_by_name = HashMap::new();
    let mut start = if bytes.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    for number in 1.. {
        let Some(rest) = bytes.get(start..).filter(|rest| !rest.is_empty()) else { break };
        let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
        let place = start..start + end;
        start = place.end + 1;
        let fault = |text: String| Fault { line: number, text };
        if number > LINES_MAX {
            return Err(fault(format!("the file may have {LINES_MAX} lines")));
        }
        let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
        let place = place.start..place.start + line.len();
        let Some(entry) = parse_line(line, place).map_err(fault)? else { continue };
        if let Some(first) = lines_by_name.insert(entry.name, number) {
            return Err(fault(format!("the name stands in line {first} already")));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// `None` for a line that says nothing.
fn parse_line(line: &[u8], place: Range<usize>) -> Result<Option<Entry>, String> {
    let line = std::str::from_utf8(line).map_err(|error| {
        format!("no UTF-8 at byte {}; the file is UTF-8 text", error.valid_up_to() + 1)
    })?;
    let mut parts = line.split([' ', '\t']).filter(|part| !part.is_empty());
    let Some(name) = parts.next().filter(|part| !part.starts_with('#')) else { return Ok(None) };
    if line.contains(|char: char| char.is_control() && char != '\t') {
        return Err("the line holds a control character".to_owned());
    }
    let name = Name::parse(name).ok_or_else(|| format!("the name is none; {NAME_RULE}"))?;
    let Some(password) = parts.next() else {
        return Err("there is no password behind the name".to_owned());
    };
    let password = stored(password)?;
    let rights = parts.next().map(|words| {
        let all = Right::ALL.map(Right::as_str).join(", ");
        let fault = format!(
            "the third part is no list of rights: words with commas between them and no spaces, \
             out of {all}"
        );
        Rights::parse(words).ok_or(fault)
    });
    let rights = rights.transpose()?;
    if parts.next().is_some() {
        return Err("a line has at most three parts: name, password, rights".to_owned());
    }
    Ok(Some(Entry { name, password, rights, place }))
}

fn stored(password: &str) -> Result<Stored, String> {
    if password.starts_with(PHC_PREFIX) {
        return match Hash::parse(password) {
            Ok(hash) => Ok(Stored::Hashed(hash)),
            Err(fault) => Err(fault.to_string()),
        };
    }
    if password.len() > PASSWORD_MAX_BYTES {
        return Err(format!("a password has at most {PASSWORD_MAX_BYTES} bytes"));
    }
    Ok(Stored::Plain(Secret::from(password).into_owned()))
}

/// Everybody who may log in.
#[derive(Debug)]
pub struct Credentials {
    entries: HashMap<Name, Entry>,
    comparison: Comparison,
    /// A hash that nobody's password has, where any is hashed: it is compared with where there is
    /// no other, so that all names take the same time.
    decoy: Option<Hash>,
    /// What the operator should know of the file.
    pub warnings: Vec<String>,
}

impl Credentials {
    /// Reads the file in this place.
    ///
    /// # Errors
    /// One sentence for the operator, with the file and, where it is at fault, the line.
    pub fn load(place: &HeldPlace) -> io::Result<Credentials> {
        let trusted = trusted_file::read_at(place, FILE_MAX_BYTES)?;
        let path = place.shown();
        let invalid = |fault: Fault| {
            let text = format!("{}:{}: {}", path.display(), fault.line, fault.text);
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let entries = parse(&trusted.bytes).map_err(invalid)?;
        Credentials::new(entries, path, &trusted)
    }

    fn new(entries: Vec<Entry>, path: &Path, trusted: &Trusted) -> io::Result<Credentials> {
        let hashes = entries.iter().filter_map(|entry| match &entry.password {
            Stored::Hashed(hash) => Some(hash),
            Stored::Plain(_) => None,
        });
        let costliest = hashes.clone().max_by_key(|hash| {
            let (memory, passes, lanes) = hash.cost();
            (u64::from(memory) * u64::from(passes), lanes)
        });
        let costs: HashSet<_> = hashes.clone().map(Hash::cost).collect();
        let path = path.display();
        let mut warnings = Vec::new();
        if trusted.everybody_reads && hashes.count() < entries.len() {
            warnings.push(format!(
                "{path} holds plain passwords, and every account of this machine may read it; \
                 change that: chmod go-r {path}, or write hashes with `server passwd`"
            ));
        }
        if costs.len() > 1 {
            warnings.push(format!(
                "the hashes in {path} differ in cost, so that the time of a failed login tells \
                 which names exist; write them anew with `server passwd`"
            ));
        }
        if entries.is_empty() {
            warnings.push(format!("{path} names nobody, so nobody can log in"));
        }
        Ok(Credentials {
            comparison: Comparison::new()?,
            decoy: costliest.map(Hash::decoy).transpose()?,
            warnings,
            entries: entries.into_iter().map(|entry| (entry.name, entry)).collect(),
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Everybody, with what they may do.
    pub fn accounts(&self) -> Vec<(Name, Rights)> {
        let rights = |entry: &Entry| entry.rights.unwrap_or(Rights::USUAL);
        self.entries.values().map(|entry| (entry.name, rights(entry))).collect()
    }

    /// Whether there is such a user.
    pub fn knows(&self, name: &Name) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the user has the same password as in `other`.
    pub fn agrees(&self, other: &Credentials, name: &Name) -> bool {
        let password = |it: &Credentials| it.entries.get(name).map(|it| it.password.clone());
        password(self) == password(other)
    }

    /// Those of `before` that have another password now.
    pub fn changed_since(&self, before: &Credentials) -> Vec<Name> {
        let names = before.entries.keys().copied();
        names.filter(|name| self.knows(name) && !self.agrees(before, name)).collect()
    }

    /// Whether that is the user's password. For a worker: where any password of the file is
    /// hashed, it takes as long for a name that has none, or that is not there.
    pub fn is_right(&self, name: &Name, password: &Secret<'_>) -> bool {
        let given = password.reveal().as_bytes();
        let stored = self.entries.get(name).map(|entry| &entry.password);
        let hash = match stored {
            Some(Stored::Hashed(hash)) => Some(hash),
            _ => self.decoy.as_ref(),
        };
        let is_hashed = hash.is_some_and(|hash| hash.is_of(given));
        let plain = match stored {
            Some(Stored::Plain(plain)) => plain.reveal(),
            _ => "nobody has it",
        };
        let is_plain = self.comparison.is_same(plain.as_bytes(), given);
        match stored {
            Some(Stored::Hashed(_)) => is_hashed,
            Some(Stored::Plain(_)) => is_plain,
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PHC: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ5OTk$\
                       RG0TxCbtFWXvKWEkAxfeHvKnQbSYtJGbyZ8Fzo8u3ZQ";

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn credentials(text: &str) -> Credentials {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, text).expect("a file");
        Credentials::load(&HeldPlace::of(&path).expect("a place")).expect(text)
    }

    fn plain(entry: &Entry) -> &str {
        match &entry.password {
            Stored::Plain(password) => password.reveal(),
            Stored::Hashed(hash) => hash.as_str(),
        }
    }

    #[test]
    fn lines_are_a_name_a_password_and_perhaps_rights() {
        let text = format!(
            "\u{feff}# old users\r\n\r\n  \t\r\nalice falcon*solo\r\n\tbob\t\t#x \t message,run \n\
             carol {PHC}\n#dave x\nerin \u{fc}\u{df} admin"
        );
        let entries = parse(text.as_bytes()).expect("a good file");
        let read: Vec<_> = entries
            .iter()
            .map(|entry| (entry.name.as_str(), plain(entry), entry.rights.map(|it| it.to_string())))
            .collect();
        assert_eq!(
            read,
            [
                ("alice", "falcon*solo", None),
                ("bob", "#x", Some("message,run".to_owned())),
                ("carol", PHC, None),
                ("erin", "\u{fc}\u{df}", Some("admin".to_owned())),
            ]
        );
        assert_eq!(&text[entries[0].place.clone()], "alice falcon*solo");
        assert_eq!(&text[entries[1].place.clone()], "\tbob\t\t#x \t message,run ");
        for nothing in ["", "\n\n", "# x", "\u{feff}"] {
            assert_eq!(parse(nothing.as_bytes()), Ok(vec![]), "{nothing:?}");
        }
    }

    #[test]
    fn a_line_that_is_none_is_named_by_its_number_and_never_quoted() {
        let long = "S3cr3t".repeat(200);
        for (line, part) in [
            ("S3cr3t", "no password"),
            ("alice ", "no password"),
            ("alice\t", "no password"),
            ("-rf S3cr3t", "begins with a letter or a digit"),
            ("\u{430}lice S3cr3t", "the name is none"),
            ("S3cr3t\u{200b} x", "the name is none"),
            ("alice S3 cr3t", "no list of rights"),
            ("alice x message,S3cr3t", "no list of rights"),
            ("alice x message, run", "no list of rights"),
            ("alice x run y", "three parts"),
            ("alice S3cr3t\u{7}", "control character"),
            ("alice S3\rcr3t", "control character"),
            (
                "alice $argon2id$v=19$m=4194304,t=2,p=1$S3cr3tS3cr3t$S3cr3tS3cr3tS3cr3tS3cr3t",
                "costs too much",
            ),
            (
                "alice $argon2i$v=19$m=8,t=1,p=1$S3cr3tS3cr3t$S3cr3tS3cr3tS3cr3tS3cr3t",
                "not argon2id",
            ),
            ("alice $argon2S3cr3t", "PHC"),
            ("alice $argon2id$S3cr3t", "not of version 19"),
            (&format!("alice {long}"), "1024 bytes"),
            ("bob S3cr3t", "line 2 already"),
        ] {
            let text = format!("# x\nbob x\n\n{line}\nerin x\n");
            let fault = parse(text.as_bytes()).expect_err(line);
            assert_eq!(fault.line, 4, "{line}");
            assert!(fault.text.contains(part), "{line}: {}", fault.text);
            assert!(!fault.text.contains("S3"), "{}", fault.text);
        }
        let fault = parse(b"alice x\nbob \xff\n").expect_err("no UTF-8");
        assert_eq!((fault.line, fault.text.contains("byte 5")), (2, true), "{}", fault.text);
        let many: String = (0..=LINES_MAX).map(|at| format!("u{at} x\n")).collect();
        assert_eq!(parse(many.as_bytes()).expect_err("too many").line, LINES_MAX + 1);
    }

    #[test]
    fn a_password_is_the_users_or_nobodys() {
        let hash = Hash::of(b"two words").expect("randomness");
        let all = credentials(&format!("alice secret\nbob {} run\n", hash.as_str()));
        let is_right = |who: &str, given: &str| all.is_right(&name(who), &Secret::from(given));
        assert!(is_right("alice", "secret") && is_right("bob", "two words"));
        for (who, given) in [
            ("alice", "Secret"),
            ("alice", "secret "),
            ("alice", ""),
            ("bob", "two"),
            ("bob", hash.as_str()),
            ("carol", "secret"),
            ("carol", "nobody has it"),
            ("Alice", "secret"),
        ] {
            assert!(!is_right(who, given), "{who} {given}");
        }
        assert!(all.decoy.is_some() && credentials("alice x\n").decoy.is_none());
        let mut accounts = all.accounts();
        accounts.sort_by_key(|(name, _)| *name);
        let run = Rights::NONE.with(Right::Run);
        assert_eq!(accounts, [(name("alice"), Rights::USUAL), (name("bob"), run)]);
    }

    #[test]
    fn what_has_changed_is_known_by_name() {
        let before = credentials("alice x\nbob y\ncarol z run\n");
        let after = credentials("alice x run\nbob z\ndave x\n");
        assert_eq!(after.changed_since(&before), [name("bob")]);
        assert!(!after.knows(&name("carol")) && after.agrees(&before, &name("alice")));
        assert!(!after.agrees(&before, &name("carol")));
    }

    #[test]
    fn the_operator_is_warned_of_what_is_allowed_but_not_wise() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let warnings = |text: &str, mode| {
            std::fs::write(&path, text).expect("a file");
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("our own file");
            Credentials::load(&HeldPlace::of(&path).expect("a place"))
                .expect(text)
                .warnings
                .join("; ")
        };
        assert_eq!(warnings("alice x\n", 0o600), "");
        assert!(warnings("alice x\n", 0o644).contains("chmod go-r"));
        assert_eq!(warnings(&format!("alice {PHC}\n"), 0o644), "");
        let other = PHC.replace("m=8", "m=16");
        assert!(warnings(&format!("a {PHC}\nb {other}\n"), 0o600).contains("differ in cost"));
        assert!(warnings("# nobody\n", 0o600).contains("nobody can log in"));
    }

    #[test]
    fn nothing_that_is_printed_for_debugging_holds_a_password() {
        let all = credentials(&format!("alice S3cr3t\nbob {PHC}\n"));
        let printed = format!("{all:?} {:#?}", parse(b"alice S3cr3t\n"));
        assert!(!printed.contains("S3cr3t") && !printed.contains("RG0TxC"), "{printed}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(entries) = parse(&bytes) {
                for entry in &entries {
                    prop_assert!(!plain(entry).is_empty());
                    prop_assert!(entry.place.end <= bytes.len());
                }
            }
        }

        #[test]
        fn lines_come_back(
            names in proptest::collection::btree_set("[A-Za-z0-9][A-Za-z0-9_.-]{0,31}", 0..20),
            passwords in proptest::collection::vec("[!-#%-~\u{a1}-\u{ff}]{1,40}", 20),
            crlf in any::<bool>(),
        ) {
            let end = if crlf { "\r\n" } else { "\n" };
            let pairs: Vec<_> = names.iter().zip(&passwords).collect();
            let text: String = pairs.iter().map(|(n, p)| format!("{n} {p}{end}")).collect();
            let entries = parse(text.as_bytes()).expect("a good file");
            let read: Vec<_> =
                entries.iter().map(|it| (it.name.to_string(), plain(it).to_owned())).collect();
            let wanted: Vec<_> =
                pairs.iter().map(|(n, p)| ((*n).clone(), (*p).clone())).collect();
            prop_assert_eq!(read, wanted);
        }
    }
}
