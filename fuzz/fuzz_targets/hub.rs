//! The hub among hostile peers: the bytes choose who says what, and what becomes of operations.
//! Two honest peers are served beside them, and the hub checks itself after every step.
#![no_main]

#[path = "../../tests/hub/riot.rs"]
mod riot;
#[path = "../../tests/hub/words.rs"]
mod words;

use libfuzzer_sys::fuzz_target;
use riot::Riot;
use words::Dice;

/// Each throw is one byte; a number that needs more takes two.
struct Bytes<'a>(&'a [u8]);

impl Dice for Bytes<'_> {
    fn below(&mut self, count: usize) -> usize {
        let mut number = 0;
        for _ in 0..if count > 256 { 2 } else { 1 } {
            let Some((first, rest)) = self.0.split_first() else { return 0 };
            (number, self.0) = (number << 8 | usize::from(*first), rest);
        }
        number % count
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut riot = Riot::new(Bytes(bytes));
    while riot.step() {}
});
