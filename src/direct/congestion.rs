//! Congestion control: CUBIC (RFC 9438) that looks at what got through before it slows down.
//!
//! CUBIC takes each loss for a full queue, so over radio and other poor lines it creeps. Here, as
//! in Westwood+ (Mascolo et al., 2001; `tcp_westwood` in Linux), the window goes down to what the
//! measured rate fills at the least round trip. Where the queue was full that empties it; where a
//! datagram was lost though there was no queue, it is nearly the window itself.
//!
//! Measured in the simulation against CUBIC of `quinn-proto`, round trip of 20 ms, no other limit:
//! with 1 % of loss 4.1 and 0.86 MB/s, with 5 % 0.87 and 0.39, with 20 % the same. On a queue of
//! a round trip it shares the line with CUBIC evenly, and loses a tenth of the datagrams.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use quinn_proto::{
    RttEstimator,
    congestion::{Controller, ControllerFactory},
};

/// The least that a loss leaves of the window: as much as CUBIC leaves (RFC 9438, section 4.6).
const KEPT_LEAST: f64 = 0.7;
/// The most that it leaves where there was a queue, so that others have a chance to take a share.
const KEPT_MOST: f64 = 0.85;
/// How fast CUBIC grows, in segments and seconds (RFC 9438, section 5.1).
const C: f64 = 0.4;
/// Segments in a round trip that the window grows by at least, as that of Reno does.
const GROWTH_LEAST: f64 = 1.0;
/// Segments at the start, and the fewest at any time: enough to notice a loss by what follows it.
const SEGMENTS_FIRST: f64 = 10.0;
const SEGMENTS_LEAST: f64 = 4.0;
/// Rates are measured over a round trip, and over this if that is shorter.
const RATE_PERIOD_MIN: Duration = Duration::from_millis(20);
/// How many of them are remembered; the highest one counts.
const RATES: usize = 4;
/// Delay that is no queue yet: a fiftieth of the least round trip, and this.
const NO_QUEUE_MAX: Duration = Duration::from_micros(500);
/// By so much the round trips of a round must grow to end the slow start, within these bounds an
/// eighth (RFC 9406, section 4.2), and so many of them have to be known.
const SLOW_START_DELAY: [Duration; 2] = [Duration::from_millis(4), Duration::from_millis(16)];
const SLOW_START_SAMPLES: u32 = 8;

/// Lets a farewell pass, however much is under way. `quinn-proto` 0.11.19 holds it back else, and
/// as nothing is acknowledged any more, for good (quinn #2785).
#[derive(Clone, Debug, Default)]
pub(super) struct Gate(Arc<AtomicBool>);

impl Gate {
    pub(super) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes one for each path of one connection.
#[derive(Debug)]
pub(super) struct Factory(pub(super) Gate);

impl ControllerFactory for Factory {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Congestion::new(now, current_mtu, self.0.clone()))
    }
}

/// Windows in bytes, as fractions so that small growth adds up.
#[derive(Clone, Debug)]
struct Congestion {
    gate: Gate,
    segment: f64,
    window: f64,
    /// Below it the window doubles in each round trip.
    slow_start_until: f64,
    /// What was sent before that was lost for the reason that we know already.
    reduced_at: Option<Instant>,
    curve: Option<Curve>,
    /// The window before the last loss.
    window_before: f64,
    rates: Rates,
    rounds: Rounds,
    rtt_least: Duration,
}

/// The growth since the last loss.
#[derive(Clone, Debug)]
struct Curve {
    begin: Instant,
    /// Where the curve is flat: the window that was too much last time, and when, in seconds.
    plateau: f64,
    plateau_after: f64,
    /// What steady growth would have made of the window.
    steady: f64,
}

/// Bytes that got through in a second, of late.
#[derive(Clone, Debug)]
struct Rates {
    begin: Instant,
    bytes: f64,
    last: [f64; RATES],
}

/// The least round trip of this round and of the one before.
#[derive(Clone, Debug)]
struct Rounds {
    until: Instant,
    least: Duration,
    samples: u32,
    least_before: Duration,
}

impl Rates {
    fn add(&mut self, bytes: f64, rtt: Duration, now: Instant) {
        self.bytes += bytes;
        let elapsed = now - self.begin;
        if elapsed >= rtt.max(RATE_PERIOD_MIN) {
            self.last.rotate_right(1);
            self.last[0] = self.bytes / elapsed.as_secs_f64();
            (self.begin, self.bytes) = (now, 0.0);
        }
    }

    fn highest(&self) -> f64 {
        self.last.iter().copied().fold(0.0, f64::max)
    }
}

impl Rounds {
    fn add(&mut self, sample: Duration, rtt: Duration, now: Instant) {
        if now >= self.until {
            let least_before = self.least;
            let until = now + rtt;
            *self = Rounds { until, least: Duration::MAX, samples: 0, least_before };
        }
        self.least = self.least.min(sample);
        self.samples += 1;
    }

    /// Whether a queue grows, as seen from the slow start.
    fn is_slower(&self) -> bool {
        let [least, most] = SLOW_START_DELAY;
        self.samples >= SLOW_START_SAMPLES
            && self.least_before != Duration::MAX
            && self.least >= self.least_before + (self.least_before / 8).clamp(least, most)
    }
}

impl Congestion {
    fn new(now: Instant, mtu: u16, gate: Gate) -> Congestion {
        let segment = f64::from(mtu);
        Congestion {
            gate,
            segment,
            window: segment * SEGMENTS_FIRST,
            slow_start_until: f64::INFINITY,
            reduced_at: None,
            curve: None,
            window_before: 0.0,
            rates: Rates { begin: now, bytes: 0.0, last: [0.0; RATES] },
            rounds: Rounds {
                until: now,
                least: Duration::MAX,
                samples: 0,
                least_before: Duration::MAX,
            },
            rtt_least: Duration::MAX,
        }
    }

    fn is_old(&self, sent: Instant) -> bool {
        self.reduced_at.is_some_and(|since| sent <= since)
    }

    fn grow(&mut self, acknowledged: f64, rtt: Duration, now: Instant) {
        let (window, segment) = (self.window, self.segment);
        let curve = self.curve.get_or_insert_with(|| {
            let plateau = self.window_before.max(window);
            let plateau_after = ((plateau - window) / segment / C).cbrt();
            Curve { begin: now, plateau, plateau_after, steady: window }
        });
        curve.steady += GROWTH_LEAST * segment * acknowledged / window;
        let since = (now - curve.begin + rtt).as_secs_f64();
        let target = curve.plateau + C * (since - curve.plateau_after).powi(3) * segment;
        let target = target.clamp(window, 1.5 * window);
        self.window = (window + (target - window) * acknowledged / window).max(curve.steady);
    }

    /// What a loss leaves of the window.
    fn kept(&self, is_lost: bool) -> f64 {
        let seen = self.rounds.least.min(self.rounds.least_before);
        let no_queue = self.rtt_least.saturating_add(self.rtt_least / 50 + NO_QUEUE_MAX);
        let most = if !is_lost || seen > no_queue { KEPT_MOST } else { 1.0 };
        let filled = match is_lost && self.rtt_least != Duration::MAX {
            true => self.rates.highest() * self.rtt_least.as_secs_f64(),
            // Marked (ECN), not lost: certainly a queue.
            false => 0.0,
        };
        filled.clamp(self.window * KEPT_LEAST, self.window * most)
    }
}

impl Controller for Congestion {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        let acknowledged = bytes as f64;
        self.rtt_least = rtt.min();
        self.rates.add(acknowledged, rtt.get(), now);
        self.rounds.add(now - sent, rtt.get(), now);
        if app_limited || self.is_old(sent) {
            return;
        }
        if self.window >= self.slow_start_until {
            return self.grow(acknowledged, rtt.get(), now);
        }
        self.window += acknowledged;
        if self.rounds.is_slower() {
            self.slow_start_until = self.window;
        }
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        if self.is_old(sent) {
            return;
        }
        self.reduced_at = Some(now);
        self.curve = None;
        self.window_before = self.window;
        let least = SEGMENTS_LEAST * self.segment;
        let kept = self.kept(lost_bytes > 0).max(least);
        self.slow_start_until = kept;
        self.window = if is_persistent_congestion { least } else { kept };
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.segment = f64::from(new_mtu);
        self.window = self.window.max(SEGMENTS_LEAST * self.segment);
    }

    fn window(&self) -> u64 {
        if self.gate.0.load(Ordering::Relaxed) { u64::MAX } else { self.window as u64 }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        (self.segment * SEGMENTS_FIRST) as u64
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
