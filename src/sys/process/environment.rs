//! What a program finds in its environment.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::programs::USUAL_PATH;
use crate::sys::password::PASSWORD_VARIABLE;

/// What every command gets of our own environment: who it runs as, where programs are, and how to
/// write words and times. Beside these there are the `LC_*`.
const KEPT: &[&str] = &["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SHELL", "TZ", "USER"];

/// Variables, each as `NAME=value`.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    entries: Vec<CString>,
}

impl Environment {
    /// What `sshd` would give to a command, from our own environment: account, language, time
    /// zone, `PATH`, and those that are named in `further`. What else whoever started us has in
    /// its environment (keys, sockets, tokens, ends of descriptors) is no business of our peers.
    #[must_use]
    pub fn of_commands(further: &[String]) -> Self {
        let account = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = rustix::process::geteuid().as_raw();
        Self::choose(std::env::vars_os(), further, &account, user)
    }

    /// All of ours but the password, for programs that our own user has us start.
    #[must_use]
    pub fn inherited() -> Self {
        Self::of(std::env::vars_os().filter(|(name, _)| name != PASSWORD_VARIABLE))
    }

    /// These variables; what no environment can hold is left out.
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let entry = |(mut name, value): (OsString, OsString)| {
            name.push("=");
            name.push(value);
            CString::new(name.as_bytes()).ok()
        };
        Self { entries: variables.into_iter().filter_map(entry).collect() }
    }

    fn choose(
        own: impl IntoIterator<Item = (OsString, OsString)>,
        further: &[String],
        accounts: &str,
        user: u32,
    ) -> Self {
        let is_named = |name: &OsStr| {
            KEPT.iter().any(|kept| name == *kept)
                || name.as_bytes().starts_with(b"LC_")
                || further.iter().any(|further| name == OsStr::new(further))
        };
        // The password is for a client that is started in the same place, and for nobody else.
        let is_kept = |name: &OsStr| name != PASSWORD_VARIABLE && is_named(name);
        let own = own.into_iter().filter(|(name, _)| is_kept(name));
        let mut chosen: Vec<(OsString, OsString)> = own.collect();
        let account = account_variables(accounts, user);
        for (name, value) in account.into_iter().chain([("PATH", USUAL_PATH)]) {
            if !chosen.iter().any(|(known, _)| known == name) {
                chosen.push((name.into(), value.into()));
            }
        }
        Self::of(chosen)
    }

    /// As `execve(2)` wants them.
    pub(super) fn entries(&self) -> &[CString] {
        &self.entries
    }
}

/// What a login of this user begins with, from passwd(5).
fn account_variables(accounts: &str, user: u32) -> Vec<(&'static str, &str)> {
    for line in accounts.lines() {
        let fields: Vec<_> = line.split(':').collect();
        let [name, _, number, _, _, home, shell] = fields[..] else { continue };
        if number.parse() == Ok(user) {
            let shell = if shell.is_empty() { "/bin/sh" } else { shell };
            return vec![("HOME", home), ("LOGNAME", name), ("SHELL", shell), ("USER", name)];
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNTS: &str = "root:x:0:0:root:/r:/bin/bash\nbroken:line\nann:x:1000:1000::/h/ann:\n";

    fn chosen(own: &[(&str, &str)], further: &[&str], user: u32) -> Vec<String> {
        let own = own.iter().map(|(name, value)| (name.into(), value.into()));
        let further: Vec<_> = further.iter().map(|name| (*name).to_owned()).collect();
        let environment = Environment::choose(own, &further, ACCOUNTS, user);
        let text = |entry: &CString| entry.to_str().unwrap().to_owned();
        let mut entries: Vec<_> = environment.entries.iter().map(text).collect();
        entries.sort();
        entries
    }

    #[test]
    fn commands_get_account_language_and_path_and_nothing_that_was_not_named() {
        let own = [
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("HOME", "/elsewhere"),
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C"),
            ("LD_PRELOAD", "x.so"),
            ("LISTEN_FDS", "3"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("PATH", "/opt/bin:/bin"),
            ("SIXFOUR_PASSWORD", "secret"),
            ("SSH_AUTH_SOCK", "/tmp/agent"),
            ("TZ", "Asia/Tokyo"),
        ];
        let mut expected = vec![
            "HOME=/elsewhere",
            "LANG=de_DE.UTF-8",
            "LC_ALL=C",
            "LOGNAME=ann",
            "PATH=/opt/bin:/bin",
            "SHELL=/bin/sh",
            "TZ=Asia/Tokyo",
            "USER=ann",
        ];
        assert_eq!(chosen(&own, &[], 1000), expected);
        expected.insert(6, "SSH_AUTH_SOCK=/tmp/agent");
        let further = ["SSH_AUTH_SOCK", "NOT_THERE", PASSWORD_VARIABLE];
        assert_eq!(chosen(&own, &further, 1000), expected);
    }

    #[test]
    fn what_is_missing_comes_from_the_account() {
        let path = format!("PATH={USUAL_PATH}");
        let expected = ["HOME=/r", "LOGNAME=root", &path, "SHELL=/bin/bash", "USER=root"];
        assert_eq!(chosen(&[], &[], 0), expected);
        assert_eq!(chosen(&[], &[], 77), [path]);
    }
}
