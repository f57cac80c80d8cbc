//! `server passwd NAME`: adds a user to the credentials file, or gives one another password.

use std::{
    io::{self, BufRead as _, Write as _},
    path::Path,
    process::ExitCode,
};

use zeroize::Zeroizing;

use super::{
    arguments::Passwd,
    credentials::{self, Entry, FILE_MAX_BYTES},
};
use crate::{
    hub::rights::Rights,
    limits::PASSWORD_MAX_BYTES,
    sys::{
        ask,
        password::Hash,
        terminal::{self, Stream},
        trusted_file,
    },
    wire::Name,
};

/// Does it, and says what was done.
pub fn run(arguments: &Passwd) -> ExitCode {
    match change(arguments) {
        Ok(text) => {
            let _ = terminal::write_stdout(format!("{text}\n").as_bytes());
            ExitCode::SUCCESS
        }
        // Ctrl-C, as shells count it: nothing needs to be said.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => ExitCode::from(130),
        Err(error) => {
            let _ = writeln!(io::stderr(), "server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn change(arguments: &Passwd) -> io::Result<String> {
    let password = match terminal::is_terminal(Stream::Stdin) {
        true => ask_twice(&arguments.name)?,
        false => read_line(io::stdin().lock())?,
    };
    let hash = Hash::of(password.as_bytes())?;
    let path = &arguments.credentials;
    let mut done = String::new();
    trusted_file::replace(path, FILE_MAX_BYTES, |before| -> io::Result<_> {
        let before = before.map_or(&b""[..], |before| &before.bytes);
        let (after, rights, is_new) = edit(before, arguments, &hash, path)?;
        let what = if is_new { "added" } else { "changed" };
        done = format!(
            "{}: {what} {} with the rights {rights}; a running server reads the file again on \
             SIGHUP",
            path.display(),
            arguments.name
        );
        Ok(after)
    })?;
    Ok(done)
}

fn ask_twice(name: &Name) -> io::Result<Zeroizing<String>> {
    let once = ask::password(&format!("New password for {name}: "))?;
    check(&once)?;
    let again = ask::password("The same again: ")?;
    match once == again {
        true => Ok(once),
        false => Err(invalid("the two passwords differ; nothing was changed")),
    }
}

/// One line, as it is but for its end.
fn read_line(input: impl io::BufRead) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    // Room for one byte too many and the line end.
    input.take(PASSWORD_MAX_BYTES as u64 + 3).read_line(&mut line)?;
    let length = line.trim_end_matches('\n').trim_end_matches('\r').len();
    line.truncate(length);
    check(&line)?;
    Ok(line)
}

fn check(password: &str) -> io::Result<()> {
    match password.len() {
        0 => Err(invalid("the password is empty; nothing was changed")),
        1..=PASSWORD_MAX_BYTES => Ok(()),
        _ => Err(invalid(&format!("a password has at most {PASSWORD_MAX_BYTES} bytes"))),
    }
}

/// The file with the user's line changed or added, and all other bytes as they were; the user's
/// rights, and whether the user is new.
fn edit(
    before: &[u8],
    arguments: &Passwd,
    hash: &Hash,
    path: &Path,
) -> io::Result<(Zeroizing<Vec<u8>>, Rights, bool)> {
    let parse = |bytes: &[u8]| {
        credentials::parse(bytes)
            .map_err(|fault| invalid(&format!("{}:{}: {}", path.display(), fault.line, fault.text)))
    };
    let entries = parse(before)?;
    let entry = entries.iter().find(|entry| entry.name == arguments.name);
    let rights = arguments.rights.or(entry.and_then(|entry| entry.rights));
    let mut line = format!("{} {}", arguments.name, hash.as_str());
    if let Some(rights) = rights {
        line.push_str(&format!(" {rights}"));
    }
    let mut after = Zeroizing::new(Vec::with_capacity(before.len() + line.len() + 2));
    match entry {
        Some(Entry { place, .. }) => {
            after.extend_from_slice(&before[..place.start]);
            after.extend_from_slice(line.as_bytes());
            after.extend_from_slice(&before[place.end..]);
        }
        None => {
            let end: &[u8] = if before.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
            after.extend_from_slice(before);
            if !before.is_empty() && !before.ends_with(b"\n") {
                after.extend_from_slice(end);
            }
            after.extend_from_slice(line.as_bytes());
            after.extend_from_slice(end);
        }
    }
    if after.len() > FILE_MAX_BYTES {
        return Err(invalid(&format!("{} would have more than 1 MiB", path.display())));
    }
    // The server must be able to read what was made, its number of lines included.
    parse(&after)?;
    Ok((after, rights.unwrap_or(Rights::USUAL), entry.is_none()))
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHC: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ5OTk$\
                       RG0TxCbtFWXvKWEkAxfeHvKnQbSYtJGbyZ8Fzo8u3ZQ";

    fn edited(before: &str, name: &str, rights: Option<&str>) -> io::Result<String> {
        let arguments = Passwd {
            name: Name::parse(name).expect("a name"),
            rights: rights.map(|words| Rights::parse(words).expect("rights")),
            credentials: "c".into(),
        };
        let hash = Hash::parse(PHC).expect("a hash");
        let (after, ..) = edit(before.as_bytes(), &arguments, &hash, Path::new("c"))?;
        Ok(String::from_utf8(after.to_vec()).expect("text").replace(PHC, "HASH"))
    }

    #[test]
    fn one_line_changes_and_the_others_stay_as_they_are_to_the_byte() {
        let before = "\u{feff}# x\r\n\r\nalice  a\tmessage\r\n bob b \r\n#end";
        for (name, rights, after) in [
            ("alice", None, before.replace("alice  a\tmessage", "alice HASH message")),
            (
                "alice",
                Some("run,files"),
                before.replace("alice  a\tmessage", "alice HASH files,run"),
            ),
            ("bob", None, before.replace(" bob b ", "bob HASH")),
            ("carol", None, format!("{before}\ncarol HASH\n")),
        ] {
            assert_eq!(edited(before, name, rights).expect(name), after);
        }
        assert_eq!(edited("", "a", None).expect("new"), "a HASH\n");
        assert_eq!(edited("b x\r\n", "a", Some("run")).expect("new"), "b x\r\na HASH run\r\n");
        assert_eq!(edited("b x", "a", None).expect("new"), "b x\na HASH\n");
        assert_eq!(edited("a x", "a", None).expect("changed"), "a HASH");
    }

    #[test]
    fn a_file_that_is_not_good_is_not_touched() {
        let fault = edited("alice x\nbob\n", "carol", None).expect_err("a bad line");
        assert!(fault.to_string().starts_with("c:2: "), "{fault}");
        let full: String = (0..10_000).map(|at| format!("u{at} x\n")).collect();
        assert!(edited(&full, "carol", None).expect_err("full").to_string().contains("10000"));
        assert!(edited(&full, "u7", None).is_ok());
        let line = format!("carol {PHC}\n");
        for (size, is_good) in [(FILE_MAX_BYTES, true), (FILE_MAX_BYTES + 1, false)] {
            let before = format!("#{}\n", "-".repeat(size - line.len() - 2));
            assert_eq!(edited(&before, "carol", None).is_ok(), is_good, "{size} bytes");
        }
    }

    #[test]
    fn a_password_from_a_pipe_is_one_line_exactly() {
        let read = |text: &str| read_line(text.as_bytes()).map(|line| line.to_string());
        assert_eq!(read(" two words \nmore\n").expect("a line"), " two words ");
        assert_eq!(read("crlf\r\n").expect("a line"), "crlf");
        assert_eq!(read("no end").expect("a line"), "no end");
        let longest = "x".repeat(PASSWORD_MAX_BYTES);
        assert_eq!(read(&format!("{longest}\r\n")).expect("a line"), longest);
        for bad in ["", "\n", "\r\n", &format!("{longest}x\n"), &"x".repeat(9_000)] {
            assert!(read(bad).is_err(), "{} bytes", bad.len());
        }
    }
}
