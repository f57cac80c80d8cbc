//! Hostile peers at the hub, by chance from seeds. The fuzz target `hub` does the same with the
//! bytes of a fuzzer for dice. `RIOT_RUNS=100000` tries more seeds.

#[path = "hub/riot.rs"]
mod riot;
#[path = "direct/rng.rs"]
mod rng;
#[path = "hub/words.rs"]
mod words;

use std::collections::BTreeMap;

use riot::Riot;
use rng::Rng;
use words::Dice;

impl Dice for Rng {
    fn below(&mut self, count: usize) -> usize {
        self.range(0, count - 1)
    }
}

struct PrintSeed(u64);

impl Drop for PrintSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {}", self.0);
        }
    }
}

#[test]
fn hostile_peers_end_nobody_but_themselves() {
    let runs = std::env::var("RIOT_RUNS").map_or(40, |runs| runs.parse().expect("a number"));
    let mut seen = BTreeMap::<String, u64>::new();
    for seed in 0..runs {
        let _on_panic = PrintSeed(seed);
        let mut riot = Riot::new(Rng(seed));
        for _ in 0..1000 {
            if !riot.step() {
                break;
            }
        }
        riot.seen.into_iter().for_each(|(what, count)| *seen.entry(what).or_default() += count);
    }
    let wanted = "full, said Frame, said Line, said Json, stop, time went back, other rights, \
         Right, Wrong, Unchecked, input done, honest echo, honest message, honest file, \
         start download, start fetch, start store, start upload, start run, \
         start list, start edge, start question, start program, \
         close PeerLeft, close PeerGone, close Protocol, close NotServed, close NotAdmitted, \
         close NotLoggedIn, close Replaced, close Stalled, \
         close ShuttingDown";
    let missing: Vec<_> = wanted.split(", ").filter(|what| !seen.contains_key(*what)).collect();
    assert!(missing.is_empty(), "{missing:?} did not occur among {seen:#?}");
}
