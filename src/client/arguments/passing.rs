//! The verbs about other users and files from or for them: `who`, `send` and `receive`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use clap::Args;

use super::parse_rate;
use crate::{
    client::core::order::{Local, Order, refuse_same_names},
    transfer::sink::Existing,
    wire::{Name, escape::escape, name::NAME_RULE},
};

#[derive(Debug, Args)]
pub(super) struct Send {
    /// At most so many bytes a second, as in 500k, 5M or 1G.
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    limit: Option<u64>,
    /// The name of what comes from standard input.
    #[arg(long, value_name = "NAME")]
    name: Option<OsString>,
    /// The files and folders, then the user who is to get them; - is standard input, with --name.
    #[arg(required = true, value_name = "FILE... USER")]
    words: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(super) struct Receive {
    /// Leave after so many files or folders; each counts, whether it has arrived or failed.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Who {
    /// Also where each of them takes files straight from others: the UDP port, or -.
    #[arg(short, long)]
    pub(super) long: bool,
}

/// What becomes of a file that is there already.
#[derive(Debug, Args)]
pub(super) struct Replacing {
    /// A file that the same user has sent before is replaced by what that user sends now [default:
    /// it stays, and what comes gets the next free name, as in SENDER_NAME-2].
    #[arg(long, global = true)]
    overwrite: bool,
    /// As --overwrite, but the file that was there is kept as NAME.~1~, NAME.~2~ and so on.
    #[arg(long, global = true, conflicts_with = "overwrite")]
    backup: bool,
}

impl Replacing {
    pub(super) fn existing(&self) -> Existing {
        match (self.overwrite, self.backup) {
            (true, _) => Existing::Overwrite,
            (false, true) => Existing::Backup,
            (false, false) => Existing::Keep,
        }
    }
}

/// The order of a `send`.
pub(super) fn send(send: Send, again: &str) -> Result<Order, String> {
    let mut words = send.words;
    let to = words.pop().filter(|_| !words.is_empty());
    let to = to.ok_or("FILE... USER: the files come first, and then the user who gets them")?;
    let to = to.to_str().and_then(Name::parse).ok_or_else(|| {
        let to = escape(&to.to_string_lossy()).into_owned();
        format!("USER is {to:?}, the last word; {NAME_RULE}")
    })?;
    let paths = match (words.iter().any(|word| word == "-"), send.name) {
        (true, _) if words.len() > 1 => return Err("standard input goes alone".to_owned()),
        (true, None) => {
            return Err("standard input needs a name: send - USER --name NAME".to_owned());
        }
        (true, Some(name)) => vec![Local::Input(name.into_vec())],
        (false, Some(_)) => return Err("--name goes with standard input alone".to_owned()),
        (false, None) => words.into_iter().map(|word| Local::Path(word.into())).collect(),
    };
    refuse_same_names(&paths)?;
    Ok(Order::Send { paths, to, limit: send.limit, again: again.to_owned() })
}

/// The order of a `receive`.
pub(super) fn receive(receive: Receive, has_rules: bool) -> Result<Order, String> {
    match has_rules {
        true => Ok(Order::Receive { count: receive.count }),
        false => Err("receive needs --accept, since there is nobody to be asked: \
                      --accept all, or names as in --accept alice,bob:5M"
            .to_owned()),
    }
}

/// The number that makes the passing name of who sends: the same for the same line, so that what
/// the receiver has of it is found again.
pub(super) fn stable_number(orders: Option<&[Order]>) -> Option<u64> {
    let Some([Order::Send { again, .. }]) = orders else { return None };
    let hash = blake3::hash(again.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    Some(u64::from_le_bytes(*first))
}

/// A name that is not meant to be written to, and that no second verb of this user has.
pub(super) fn passing_name(login_name: Option<&str>, random: u64) -> Name {
    let base = login_name.and_then(Name::parse);
    let base = base.as_ref().map_or("client", Name::as_str);
    let name = format!("{}-{:06x}", &base[..base.len().min(25)], random & 0xff_ffff);
    Name::parse(&name).expect("a name cut to 25 and 7 good characters are a name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::arguments::{Plan, Told, parse};

    fn parsed(line: &str) -> Result<Plan, Told> {
        let words = ["client"].into_iter().chain(line.split_whitespace());
        parse(words.map(OsString::from), Some("alice"), 7)
    }

    fn order(line: &str) -> Order {
        let mut orders = parsed(line).expect(line).orders.expect("a verb");
        assert_eq!(orders.len(), 1);
        orders.remove(0)
    }

    #[test]
    fn the_last_word_is_the_user() {
        let to = Name::parse("bob").expect("a name");
        let got = |line: &str, paths: Vec<Local>, limit| {
            let again = format!("client {line}");
            assert_eq!(order(line), Order::Send { paths, to, limit, again });
        };
        let path = |path: &str| Local::Path(path.into());
        got("send a ../b bob", vec![path("a"), path("../b")], None);
        got("send a bob --limit 5M", vec![path("a")], Some(5_000_000));
        got("send a --limit 5M bob", vec![path("a")], Some(5_000_000));
        got("send - --name log bob", vec![Local::Input(b"log".to_vec())], None);
        got("send - bob --name log", vec![Local::Input(b"log".to_vec())], None);
        assert_eq!(order("receive --accept all"), Order::Receive { count: None });
        assert_eq!(order("--accept bob receive --count 2"), Order::Receive { count: Some(2) });
    }

    #[test]
    fn what_is_there_stays_unless_it_is_said() {
        let existing = |line: &str| parsed(line).expect(line).accept.existing();
        assert_eq!(existing("--accept all receive"), Existing::Keep);
        assert_eq!(existing("receive --accept all --overwrite"), Existing::Overwrite);
        assert_eq!(existing("--backup"), Existing::Backup);
        assert!(parsed("--backup --overwrite receive --accept all").is_err());
    }

    #[test]
    fn who_sends_the_same_again_has_the_same_passing_name() {
        let user = |line: &str| parsed(line).expect(line).user;
        assert_eq!(user("send a bob"), user("send a bob"));
        assert_ne!(user("send a bob"), user("send b bob"));
        assert!(user("send a bob").as_str().starts_with("alice-"));
        assert_eq!(user("--user eve send a bob").as_str(), "eve");
        assert_eq!(user("who").as_str(), "alice-000007");
    }

    #[test]
    fn mistakes_are_told_in_one_line_that_names_the_argument() {
        for (line, part) in [
            ("send", "FILE... USER"),
            ("send a", "FILE... USER"),
            ("send a b|b", "USER"),
            ("send - bob", "--name"),
            ("send - a bob --name x", "alone"),
            ("send a bob --name x", "--name"),
            ("send a bob --limit x", "--limit"),
            ("receive", "--accept"),
            ("receive --accept all --count 0", "--count"),
            ("--accept a|b", "--accept"),
            ("--accept bob:5x", "--accept"),
        ] {
            let Err(Told::Wrong(complaint)) = parsed(line) else { panic!("{line}") };
            assert!(complaint.contains(part), "{line}: {complaint}");
            assert!(!complaint.contains('\n'), "{complaint}");
        }
    }
}
