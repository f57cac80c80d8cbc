//! What can be typed at the prompt, which is a little more than what lines can say.

use crate::wire::verbs::{VERBS, Verb};

/// The text that answers `help`: the verbs of lines, in the form that they have here.
pub fn text() -> String {
    let rows: Vec<_> = VERBS.iter().filter_map(|entry| row(entry.verb, entry)).collect();
    let width = rows.iter().map(|(usage, _)| usage.len()).max().unwrap_or(0);
    let line = |(usage, about): &(&str, &str)| format!("{usage:width$}  {about}");
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn row(
    verb: Verb,
    entry: &'static crate::wire::verbs::Entry,
) -> Option<(&'static str, &'static str)> {
    Some(match verb {
        // Who one is was said before there was a prompt.
        Verb::User => return None,
        Verb::Download => ("download FILE...", "fetch files and folders of the server"),
        Verb::Upload => ("upload FILE... [--to DIR]", "put files and folders on the server"),
        Verb::Send => ("send FILE... USER", "offer files and folders to a user"),
        Verb::Accept => ("accept [NUMBER]", "take what a user offers, saved as USER_NAME"),
        Verb::Refuse => ("refuse [NUMBER [REASON]]", "do not take it"),
        _ => (entry.usage, entry.about),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::core::order;

    #[test]
    fn what_is_helped_with_can_be_typed() {
        let text = text();
        assert!(!text.contains("SIZE") && !text.contains("user NAME"), "{text}");
        for entry in VERBS.iter().filter(|entry| entry.verb != Verb::User) {
            let word = entry.usage.split([' ', '[', ':']).next().expect("a word");
            assert!(text.lines().any(|line| line.starts_with(word)), "{word}");
        }
        for typed in ["upload a b --to c", "send a b bob", "accept", "accept 1", "refuse 1 no"] {
            assert!(order::parse(typed).is_ok(), "{typed}");
        }
    }
}
