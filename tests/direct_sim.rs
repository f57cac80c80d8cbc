//! Two clients and more on the direct path, on a virtual clock, over a network that loses, doubles,
//! reorders and swallows what one seed tells it to. Whatever happens, the bytes that arrive are
//! those that were said, and everything ends within a stated time.

#[path = "sim/rng.rs"]
mod rng;
#[path = "direct/world.rs"]
mod world;

use std::time::Duration;

use sixfour::direct::Ended;
use world::{Link, World};

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn is_over(world: &World) -> bool {
    world.ends.iter().flat_map(|end| &end.talks).all(|talk| talk.closed.is_some())
}

/// Each end says so much; both hear all of it.
fn converse(world: &mut World, first_says: u64, second_says: u64, limit: Duration) {
    world.introduce(0, 1, 9);
    world.ends[0].talks[0].to_say = first_says;
    world.ends[1].talks[0].to_say = second_says;
    world.run_until(limit, is_over);
    for (end, heard) in [(0, second_says), (1, first_says)] {
        let talk = &world.ends[end].talks[0];
        assert_eq!(talk.heard, heard);
        assert_eq!(talk.closed.as_ref().map(|it| &it.1), Some(&Ended::Done), "{talk:?}");
    }
    world.run_until(10 * SECOND, |world| world.ends.iter().all(|end| end.endpoint.is_idle()));
}

#[test]
fn what_is_said_is_heard_on_a_good_line() {
    let mut world = World::pair(1, Link::GOOD);
    converse(&mut world, 3_000_000, 10_000, 5 * SECOND);
    for end in &world.ends {
        let (after, remote) = end.talks[0].opened.expect("it was opened");
        assert!(remote.is_ipv6(), "{remote}");
        assert!(after <= ms(60), "{after:?}");
    }
}
