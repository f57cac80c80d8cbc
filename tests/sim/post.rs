//! What was written to whom, what has come of it, and whether that is right.

use std::collections::{BTreeMap, BTreeSet};

use crate::{parcels::Depot, rng::Rng};

/// All letters that peers have ever written.
#[derive(Default)]
pub struct Office {
    letters: Vec<Letter>,
    received: BTreeSet<(usize, usize)>,
    /// Letters without a receipt, by the life of the sender and the name of the recipient.
    pairs: BTreeMap<(u32, usize), Pair>,
    /// What goes from peer to peer besides.
    pub depot: Depot,
    /// Letters with a receipt, by the life of the sender and their tag.
    receipts: BTreeMap<(u32, u32), Receipt>,
    /// What peers have met that the world does not see.
    pub met: BTreeSet<&'static str>,
}

struct Letter {
    text: String,
    from: usize,
    life: u32,
    tag: u32,
    to: Vec<usize>,
}

/// What became of the letters from one session to one name.
#[derive(Debug, Default)]
struct Pair {
    sent: usize,
    /// Letters to everybody: nobody can say how many those were.
    perhaps: usize,
    received: usize,
    refused: usize,
}

#[derive(Debug, Default)]
struct Receipt {
    letter: usize,
    expected: Option<usize>,
    delivered: BTreeSet<usize>,
    refused: usize,
}

impl Office {
    /// Writes a letter from the name `from` to the names `to`; returns its text.
    pub fn write(
        &mut self,
        (from, life): (usize, u32),
        to: &[usize],
        tag: u32,
        names: usize,
        is_line: bool,
        is_long: bool,
    ) -> String {
        let id = self.letters.len();
        let mut rng = Rng(id as u64);
        let mut text = format!("m{id} ");
        let words = ["x", "yy|", "\x1b[2J", "\u{fc}", "\u{202e}", "\u{65e5}\u{672c}", " ", "\n"];
        for _ in 0..if is_long { rng.range(0, 300) } else { rng.range(0, 20) } {
            text.push_str(words[rng.range(0, words.len() - 1 - usize::from(is_line))]);
        }
        text.push('.');
        if tag != 0 {
            let expected = (!to.is_empty()).then_some(to.len());
            self.receipts
                .insert((life, tag), Receipt { letter: id, expected, ..Receipt::default() });
        } else if to.is_empty() {
            (0..names).for_each(|name| self.pair(life, name).perhaps += 1);
        } else {
            to.iter().for_each(|name| self.pair(life, *name).sent += 1);
        }
        self.letters.push(Letter { text: text.clone(), from, life, tag, to: to.to_vec() });
        text
    }

    fn pair(&mut self, life: u32, name: usize) -> &mut Pair {
        self.pairs.entry((life, name)).or_default()
    }

    /// Judges a letter that `name` has got; `last` is what it got before from each sender.
    pub fn receive(
        &mut self,
        (name, from): (usize, usize),
        text: &str,
        is_line: bool,
        last: &mut BTreeMap<usize, usize>,
    ) {
        let number = text.strip_prefix('m').and_then(|text| text.split(' ').next());
        let id: usize = number.and_then(|it| it.parse().ok()).expect("letters have numbers");
        let letter = &self.letters[id];
        let (life, tag) = (letter.life, letter.tag);
        assert_eq!(from, letter.from, "letter {id} names another sender");
        match is_line {
            true => assert_eq!(text, sixfour::wire::escape::escape(&letter.text)),
            false => assert_eq!(text, letter.text),
        }
        assert!(letter.to.is_empty() || letter.to.contains(&name), "letter {id} went astray");
        assert!(self.received.insert((id, name)), "letter {id} came twice");
        let before = last.insert(from, id);
        assert!(before.is_none_or(|before| before < id), "letter {id} came after {before:?}");
        if tag == 0 {
            self.pair(life, name).received += 1;
        }
    }

    /// The sender was told that `count` of its letters to `name` did not arrive.
    pub fn refuse(&mut self, life: u32, tag: u32, name: usize, count: usize) {
        if tag == 0 {
            let pair = self.pair(life, name);
            pair.refused += count;
        } else {
            assert_eq!(count, 1);
            self.receipts.get_mut(&(life, tag)).expect("errors answer letters").refused += 1;
        }
    }

    /// The sender was told that nobody gets this letter, which wanted a receipt.
    pub fn refuse_all(&mut self, life: u32, tag: u32) {
        let receipt = self.receipts.get_mut(&(life, tag)).expect("errors answer letters");
        receipt.refused = receipt.expected.unwrap_or_default();
    }

    /// The sender was told that its letter has arrived with `name`.
    pub fn deliver(&mut self, life: u32, tag: u32, name: usize) {
        let receipt = self.receipts.get_mut(&(life, tag)).expect("receipts were asked for");
        assert!(receipt.delivered.insert(name), "delivered twice to the same");
        let id = receipt.letter;
        let to = &self.letters[id].to;
        assert!(to.is_empty() || to.contains(&name), "delivered to somebody else");
    }

    /// A receipt must not be given for what never arrived.
    pub fn judge_receipts(&self) {
        for receipt in self.receipts.values() {
            for name in &receipt.delivered {
                let letter = receipt.letter;
                let arrived = self.received.contains(&(letter, *name));
                assert!(arrived, "letter {letter} was said to arrive with p{name}");
            }
        }
    }

    /// Judges what has come of the letters of a session that has lived to the end.
    pub fn judge(&self, life: u32) {
        for ((_, name), pair) in self.pairs.range((life, 0)..(life + 1, 0)) {
            let known = pair.received + pair.refused;
            let range = pair.sent..=pair.sent + pair.perhaps;
            assert!(range.contains(&known), "session {life} to p{name}: {pair:?}");
        }
        for ((_, tag), receipt) in self.receipts.range((life, 0)..(life + 1, 0)) {
            if let Some(expected) = receipt.expected {
                let answers = receipt.delivered.len() + receipt.refused;
                assert_eq!(answers, expected, "session {life}, message {tag}: {receipt:?}");
            }
        }
    }
}
