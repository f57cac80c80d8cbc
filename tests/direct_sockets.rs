//! The direct path on real UDP sockets: both families, much data, and a poor line in between.

#[path = "direct/proxy.rs"]
mod proxy;
#[path = "direct/rng.rs"]
mod rng;
#[path = "direct/sockets.rs"]
mod sockets;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proxy::Proxy;
use sixfour::direct::Ended;
use sockets::{Outcome, loopbacks, meet, said};

/// One at a time: each of them wants two cores.
static TURN: Mutex<()> = Mutex::new(());

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn judge(outcomes: &[Outcome; 2], says: [u64; 2]) {
    for (at, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.ended, Ended::Done, "{outcome:?}");
        assert_eq!(outcome.heard_bytes, says[1 - at]);
        assert_eq!(outcome.heard, said(1 - at as u64, says[1 - at]), "other bytes came");
        assert!(outcome.stayed < seconds(2), "it does not hear that the other knows: {outcome:?}");
    }
}

#[test]
fn a_hundred_megabytes_arrive_over_both_families() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for host in loopbacks() {
        let says = [100_000_000, 100_000];
        let outcomes = meet(says, |_, port| vec![(host, port).into()], seconds(60));
        judge(&outcomes, says);
        assert!(outcomes.iter().all(|it| it.path.is_some_and(|path| path.ip() == host)));
    }
}

#[test]
fn ends_that_say_nothing_or_one_of_them_are_done() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for host in loopbacks() {
        for says in [[0, 0], [0, 1], [1, 0]] {
            let outcomes = meet(says, |_, port| vec![(host, port).into()], seconds(20));
            judge(&outcomes, says);
        }
    }
}

#[test]
fn of_two_families_the_first_that_answers_is_taken() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let hosts = loopbacks();
    let places = |_, port| hosts.iter().map(|host| SocketAddr::from((*host, port))).collect();
    let outcomes = meet([1000, 1000], places, seconds(20));
    judge(&outcomes, [1000, 1000]);
    assert!(outcomes.iter().all(|it| it.path.map(|path| path.ip()) == Some(hosts[0])));
    assert_eq!(outcomes[0].path.is_some(), outcomes[1].path.is_some());
}

#[test]
fn places_where_nobody_is_do_not_keep_from_the_one_where_somebody_is() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let host = *loopbacks().last().expect("some family is there");
    // Without a route, and without a listener.
    let nowhere: Vec<SocketAddr> =
        ["[2001:db8:dead::1]:5000", "192.0.2.1:5000"].map(|it| it.parse().expect("it")).into();
    let silent = std::net::UdpSocket::bind((host, 0)).expect("a free port");
    let silent = silent.local_addr().expect("it is bound");
    let places = |_, port| {
        let all = nowhere.iter().copied().chain([silent, (host, port).into()]);
        all.collect()
    };
    let outcomes = meet([1000, 1000], places, seconds(20));
    judge(&outcomes, [1000, 1000]);
    // Three more dials at most go before, 100 ms apart; the machine may be busy.
    assert!(outcomes[0].opened_after < Some(seconds(2)), "{outcomes:?}");
}

#[test]
fn nobody_there_is_known_after_three_seconds() {
    let host = loopbacks()[0];
    let silent = std::net::UdpSocket::bind((host, 0)).expect("a free port");
    let place = silent.local_addr().expect("it is bound");
    let outcomes = meet([10, 10], |_, _| vec![place], seconds(20));
    for outcome in outcomes {
        assert_eq!(outcome.ended, Ended::NoPath);
        assert!(outcome.took >= seconds(3) && outcome.took < seconds(6), "{:?}", outcome.took);
    }
}

/// The chances are in a thousand, and so many bytes pass within the time.
#[test]
fn a_poor_line_in_between_changes_nothing_but_the_time() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for (lost, bytes, limit) in [(10, 5_000_000, 20), (50, 1_000_000, 20), (200, 100_000, 30)] {
        for host in loopbacks() {
            let says = [bytes, 10_000];
            let (outcomes, count) = meet_over_proxy(host, says, lost, seconds(limit));
            judge(&outcomes, says);
            assert!(count > 0, "nothing was lost");
        }
    }
}

fn meet_over_proxy(
    host: IpAddr,
    says: [u64; 2],
    lost: usize,
    limit: Duration,
) -> ([Outcome; 2], usize) {
    // The line is made when both ports are known: of the second end last.
    let sockets = Mutex::new(Some(Proxy::sockets(host)));
    let line: Mutex<Option<Proxy>> = Mutex::new(None);
    let ports = Mutex::new([0; 2]);
    let places = |of: usize, port: u16| {
        let mut ports = ports.lock().expect("nobody panics with it");
        ports[of] = port;
        let mut sockets = sockets.lock().expect("nobody panics with it");
        let own = sockets.as_ref().map(|it| it[1 - of].local_addr().expect("it is bound"));
        if ports.iter().all(|port| *port > 0) {
            let ends = ports.map(|port| (host, port).into());
            let sockets = sockets.take().expect("the line is made once");
            let proxy = Proxy::start(sockets, ends, lost, lost as u64);
            let place = proxy.places[1 - of];
            *line.lock().expect("nobody panics with it") = Some(proxy);
            return vec![place];
        }
        own.into_iter().collect()
    };
    let outcomes = meet(says, places, limit);
    let proxy = line.into_inner().expect("nobody panics with it").expect("it was made");
    (outcomes, proxy.lost())
}
