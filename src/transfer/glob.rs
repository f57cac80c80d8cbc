//! Names with `*`, `?` and `[...]`, as shells know them (glob(7)); within one part of a path.

/// Whether the name is a pattern.
pub fn is_pattern(name: &[u8]) -> bool {
    name.iter().any(|byte| b"*?[".contains(byte))
}

/// The pattern that stands for this path alone.
pub fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(path.len());
    for (at, part) in path.split(|byte| *byte == b'/').enumerate() {
        if at > 0 {
            escaped.push(b'/');
        }
        // In a part that is no pattern a backslash stands for itself.
        let is_pattern = is_pattern(part);
        for byte in part {
            if is_pattern && b"*?[\\".contains(byte) {
                escaped.push(b'\\');
            }
            escaped.push(*byte);
        }
    }
    escaped
}

/// Whether `name` is one of those that `pattern` stands for. A leading dot must be written.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    matches_counted(pattern, name, &mut 0)
}

/// The same, which adds the steps that it took. Those are at most one for each byte of the name
/// and each of the pattern, whatever the pattern, and for a class its length more; a plain end is
/// looked at first.
pub fn matches_counted(pattern: &[u8], name: &[u8], steps: &mut usize) -> bool {
    let plain = pattern.iter().rev().take_while(|byte| !b"*?[]\\".contains(byte)).count();
    // What stands before a plain end may be a class, an escape or anything; it is compared below.
    let is_escaped = pattern[..pattern.len() - plain].ends_with(b"\\");
    if !is_escaped && !name.ends_with(&pattern[pattern.len() - plain..]) {
        return false;
    }
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    // Where the last star stands, and what it has swallowed so far ends.
    let mut star: Option<(usize, usize)> = None;
    loop {
        // The end of a class has to be found.
        *steps += if pattern.get(p) == Some(&b'[') { pattern.len() - p } else { 1 };
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            None if n == name.len() => return true,
            None => None,
            Some(_) => name.get(n).and_then(|byte| one(&pattern[p..], *byte)),
        };
        match (step, star) {
            (Some(length), _) => (p, n) = (p + length, n + 1),
            (None, Some((at, taken))) if taken < name.len() => {
                star = Some((at, taken + 1));
                (p, n) = (at + 1, taken + 1);
            }
            (None, _) => return false,
        }
    }
}

/// The length of the first element of the pattern, if it stands for this byte.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern[0] {
        b'?' => Some(1),
        b'[' => match class(&pattern[1..]) {
            Some((is_not, members, length)) => {
                (contains(members, byte) != is_not).then_some(length + 1)
            }
            // A bracket that nothing closes stands for itself.
            None => (byte == b'[').then_some(1),
        },
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        plain => (plain == byte).then_some(1),
    }
}

/// The class after a `[`: whether it is turned round, its members, its length with the `]`.
fn class(pattern: &[u8]) -> Option<(bool, &[u8], usize)> {
    let is_not = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(is_not);
    // A `]` in the first place is a member.
    let end = (start + 1..pattern.len()).find(|at| pattern[*at] == b']')?;
    Some((is_not, &pattern[start..end], end + 1))
}

fn contains(mut members: &[u8], byte: u8) -> bool {
    while let [first, rest @ ..] = members {
        if let [b'-', last, rest @ ..] = rest {
            if (*first..=*last).contains(&byte) {
                return true;
            }
            members = rest;
        } else if *first == byte {
            return true;
        } else {
            members = rest;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, name, yes) in [
            ("*", "a", true),
            ("*", "", true),
            ("*", ".a", false),
            (".*", ".a", true),
            ("*.txt", "a.txt", true),
            ("*.txt", "a.txt.gz", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?", "a", true),
            ("?", "", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[!a-c]x", "dx", true),
            ("[]]", "]", true),
            ("[ab", "[ab", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("a", "a", true),
            ("a", "b", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), yes, "{pattern} {name}");
        }
        assert!(is_pattern(b"*.c") && !is_pattern(b"plain"));
    }

    #[test]
    fn an_escaped_path_stands_for_itself_alone() {
        for path in ["photo[1].jpg", "a*b", r"a\b", r"d[1]/a\b", r"a\*", "plain", "?"] {
            let escaped = escape(path.as_bytes());
            let parts = escaped.split(|byte| *byte == b'/').zip(path.split('/'));
            for (pattern, part) in parts {
                let stands = !is_pattern(pattern) && pattern == part.as_bytes()
                    || matches(pattern, part.as_bytes());
                assert!(stands, "{path}");
            }
            for other in ["photo1.jpg", "axb", "ab", "x"] {
                let is_like = is_pattern(&escaped) && matches(&escaped, other.as_bytes());
                assert!(!is_like, "{path} {other}");
            }
        }
    }

    #[test]
    fn the_steps_of_a_pattern_of_many_stars_are_bounded() {
        for (pattern, name, most) in [
            (b"*a".repeat(120), vec![b'b'; 250], 3 * 250),
            ([&b"*a".repeat(120)[..], b"[b]"].concat(), vec![b'a'; 250], 251 * 251),
            (b"*[a]a".repeat(50), vec![b'a'; 250], 251 * 251),
            ([&b"*".repeat(250)[..], b"?b?"].concat(), vec![b'a'; 250], 4 * 251),
        ] {
            let mut steps = 0;
            matches_counted(&pattern, &name, &mut steps);
            assert!(steps <= most, "{steps} for {}", pattern.escape_ascii());
        }
    }
}
