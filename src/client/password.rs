//! Where the client gets its password, and to whom it may give it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use zeroize::Zeroizing;

use super::arguments::{Plan, Protection};
use crate::{
    limits::PASSWORD_MAX_BYTES,
    sys::{password::PASSWORD_VARIABLE, transport::Transport},
    wire::Secret,
};

/// Read permission of others than the owner and the group (inode(7)).
const EVERYBODY_READS: u32 = 0o004;

/// A password, and what the user should know about the place where it was found.
pub type Found = (Option<Secret<'static>>, Option<String>);

/// The password in the first line of `file`, or else in the environment variable
/// [`PASSWORD_VARIABLE`], whose value is `variable`.
///
/// # Errors
/// One line for the user: the file cannot be read, or what it holds is no password.
pub fn find(file: Option<&Path>, variable: Option<OsString>) -> Result<Found, String> {
    if let Some(path) = file {
        let (password, everybody_reads) =
            read(path).map_err(|error| format!("--password-file {}: {error}", path.display()))?;
        let warning = everybody_reads.then(|| {
            format!("every account of this machine may read {}; chmod go-r it", path.display())
        });
        return Ok((Some(password), warning));
    }
    let Some(value) = variable.filter(|value| !value.is_empty()) else { return Ok((None, None)) };
    let text = value.into_string().map_err(|_| format!("{PASSWORD_VARIABLE} is no UTF-8"))?;
    let password = Secret::from(text);
    check(&password).map_err(|error| format!("{PASSWORD_VARIABLE}: {error}"))?;
    Ok((Some(password), None))
}

fn read(path: &Path) -> io::Result<(Secret<'static>, bool)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let everybody_reads = metadata.is_file() && metadata.mode() & EVERYBODY_READS != 0;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(PASSWORD_MAX_BYTES as u64 + 2).read_to_end(&mut bytes)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line);
    let text = text.map_err(|_| io::Error::other("its first line is no UTF-8"))?;
    let password = Secret::from(text).into_owned();
    check(&password).map_err(io::Error::other)?;
    Ok((password, everybody_reads))
}

fn check(password: &Secret<'_>) -> Result<(), String> {
    match password.reveal().len() {
        0 => Err("there is no password in its first line".to_owned()),
        1..=PASSWORD_MAX_BYTES => Ok(()),
        _ => Err(format!("a password has at most {PASSWORD_MAX_BYTES} bytes")),
    }
}

/// Whether a password may be sent on this connection: encrypted, within this machine, or where the
/// user does without encryption.
///
/// # Errors
/// Why not, and what to do.
pub fn check_connection(plan: &Plan, transport: &Transport) -> Result<(), String> {
    if transport.is_secured() || plan.protection == Protection::Plaintext {
        return Ok(());
    }
    let peer = transport.stream().peer_addr().map(|peer| peer.ip().to_canonical());
    match peer {
        Ok(peer) if peer.is_loopback() => Ok(()),
        Ok(peer) => Err(format!(
            "the connection to {peer} is not encrypted, so no password was sent; --plaintext \
             sends it all the same, where you trust everybody on the way"
        )),
        Err(error) => Err(format!("nobody knows where the connection leads: {error}")),
    }
}

/// Whether all on the way can read what goes through this connection.
pub fn is_exposed(transport: &Transport) -> bool {
    let peer = transport.stream().peer_addr().map(|peer| peer.ip().to_canonical());
    !transport.is_secured() && !peer.is_ok_and(|peer| peer.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(file: Option<&Path>, variable: Option<&str>) -> Result<Option<String>, String> {
        let (password, _) = find(file, variable.map(OsString::from))?;
        Ok(password.map(|password| password.reveal().to_owned()))
    }

    #[test]
    fn the_first_line_of_the_file_counts_before_the_variable() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for (content, password) in [
            ("two words \nmore\n", "two words "),
            ("crlf\r\n", "crlf"),
            ("no end", "no end"),
            (&"x".repeat(1024), &*"x".repeat(1024)),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(found(Some(&path), Some("other")), Ok(Some(password.to_owned())));
        }
        assert_eq!(found(None, Some("from it")), Ok(Some("from it".to_owned())));
        assert_eq!(found(None, Some("")), Ok(None));
        assert_eq!(found(None, None), Ok(None));
    }

    #[test]
    fn what_is_no_password_is_named_by_its_place_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        for content in [&b""[..], b"\nS3cr3t", b"\r\n", b"S3cr3t\xff\n", &[b'S'; 1025]] {
            std::fs::write(&path, content).unwrap();
            let told = found(Some(&path), None).unwrap_err();
            assert!(told.contains("--password-file") && !told.contains("S3"), "{told}");
        }
        assert!(found(Some(folder.path()), None).is_err());
        assert!(found(Some(&folder.path().join("none")), None).is_err());
        let told = found(None, Some(&"S3".repeat(1000))).unwrap_err();
        assert!(told.contains("SIXFOUR_PASSWORD") && !told.contains("S3"), "{told}");
    }

    #[test]
    fn a_file_that_everybody_may_read_is_worth_a_word() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "x").unwrap();
        for (mode, is_told) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(find(Some(&path), None).unwrap().1.is_some(), is_told, "{mode:o}");
        }
    }
}
