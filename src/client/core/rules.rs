//! Whose offers are taken without a question: what `--accept` says.

use crate::{
    transfer::sink::Existing,
    wire::{Name, name::NAME_RULE},
};

/// The rules, in order; the first one that names the sender counts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rules {
    rules: Vec<Rule>,
    /// Whoever is not named is refused, even where somebody could be asked.
    refuses: bool,
    /// What becomes of a file that has the name already.
    existing: Existing,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    /// `None`: everybody.
    from: Option<Name>,
    size_max: Option<u64>,
}

/// What the rules say of an offer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Take it.
    Take,
    /// Ask the user; where there is nobody to be asked, refuse it with this reason.
    Ask(String),
    /// Refuse it with this reason.
    Refuse(String),
}

impl Rules {
    /// `ask`, `none`, or names with commas between them, each perhaps with a size: `all`,
    /// `alice,bob`, `alice:5M,all:100k`. A size is a number of bytes with k, M or G.
    ///
    /// # Errors
    /// What is wrong, for the user.
    pub fn parse(text: &str) -> Result<Rules, String> {
        match text {
            "ask" => return Ok(Rules::default()),
            "none" => return Ok(Rules { refuses: true, ..Rules::default() }),
            _ => {}
        }
        let rule = |part: &str| {
            let (name, size) = match part.split_once(':') {
                Some((name, size)) => (name, Some(parse_size(size)?)),
                None => (part, None),
            };
            let from = match name {
                "all" => None,
                _ => Some(Name::parse(name).ok_or_else(|| {
                    let name = crate::wire::escape::escape(name);
                    format!("{name:?} is no user, nor all, none or ask; {NAME_RULE}")
                })?),
            };
            Ok(Rule { from, size_max: size })
        };
        let rules = text.split(',').map(rule).collect::<Result<_, String>>()?;
        Ok(Rules { rules, ..Rules::default() })
    }

    /// The same with this for files that are there already.
    #[must_use]
    pub fn treating(self, existing: Existing) -> Rules {
        Rules { existing, ..self }
    }

    /// What becomes of a file that has the name already.
    pub fn existing(&self) -> Existing {
        self.existing
    }

    /// Whether they take anything from anybody.
    pub fn take_something(&self) -> bool {
        !self.rules.is_empty()
    }

    /// What they say of so many bytes from this user; `None` where the sender does not know how
    /// many.
    pub fn verdict(&self, from: Name, size: Option<u64>) -> Verdict {
        let is_named = |rule: &&Rule| rule.from.is_none_or(|name| name == from);
        match self.rules.iter().find(is_named) {
            Some(Rule { size_max: Some(most), .. }) if size.is_none_or(|size| size > *most) => {
                Verdict::Ask(format!("more than {most} bytes are not taken"))
            }
            Some(_) => Verdict::Take,
            None if self.refuses => Verdict::Refuse("nothing is taken".to_owned()),
            None if self.rules.is_empty() => Verdict::Ask("nobody is there to say yes".to_owned()),
            None => Verdict::Ask(format!("nothing is taken from {from}")),
        }
    }
}

/// `500k`, `5M`, `1.5G`: powers of 1000; a number alone is bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let rule = || "a size is a number of bytes with k, M or G, as in 500k or 1.5M".to_owned();
    let cut = text.find(|char: char| char.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(cut);
    let number: f64 = number.parse().map_err(|_| rule())?;
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return Err(rule()),
    };
    let bytes = number * factor;
    match (0.0..=1e18).contains(&bytes) {
        true => Ok(bytes as u64),
        false => Err(rule()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::parse(text).expect("a name")
    }

    fn takes(rules: &str, from: &str, size: Option<u64>) -> bool {
        Rules::parse(rules).expect(rules).verdict(name(from), size) == Verdict::Take
    }

    #[test]
    fn the_first_rule_that_names_the_sender_counts() {
        for (rules, from, size, taken) in [
            ("all", "bob", Some(u64::MAX), true),
            ("all", "bob", None, true),
            ("none", "bob", Some(0), false),
            ("ask", "bob", Some(0), false),
            ("alice,bob", "bob", Some(5), true),
            ("alice,bob", "carol", Some(5), false),
            ("bob:1k", "bob", Some(1000), true),
            ("bob:1k", "bob", Some(1001), false),
            ("bob:1k", "bob", None, false),
            ("bob:1.5k,all:10", "bob", Some(1500), true),
            ("bob:0,all", "bob", Some(1), false),
            ("bob:0,all", "carol", Some(1), true),
            ("Bob", "bob", Some(1), false),
        ] {
            assert_eq!(takes(rules, from, size), taken, "{rules} {from} {size:?}");
        }
    }

    #[test]
    fn only_none_refuses_where_somebody_could_be_asked() {
        let verdict = |rules: &str| Rules::parse(rules).expect(rules).verdict(name("bob"), Some(7));
        assert!(matches!(verdict("none"), Verdict::Refuse(_)));
        for rules in ["ask", "alice", "bob:5"] {
            assert!(matches!(verdict(rules), Verdict::Ask(_)), "{rules}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (rules, part) in [
            ("", "is no user"),
            ("alice,", "is no user"),
            ("a b", "is no user"),
            ("alice:", "a size is"),
            ("alice:5x", "a size is"),
            ("alice:-1", "a size is"),
            ("alice:NaN", "a size is"),
        ] {
            let error = Rules::parse(rules).expect_err(rules);
            assert!(error.contains(part), "{rules}: {error}");
        }
    }
}
