//! Control: what is asked of all processors of a partition at once. It lives with the partition, and every claim reads it
//! in its own step, so that nothing is handed out after it was answered.
//!
//! # The rate
//! A token bucket, as the "continuous-state leaky bucket" of ITU-T I.371, annex A (the generic cell rate algorithm), in
//! integers: credit in nanoseconds, of which a message that is handed out for the first time takes one interval. It fills
//! with the store's time and holds one interval and [`BURST_US`]. So in any time t at most 1 + rate × (t + burst) messages
//! are handed out for the first time. What is handed out again takes nothing and waits for nothing but what stands before it:
//! what stands behind it waits for it.
//!
//! What was passed over for an earlier one of its key is handed out for the first time when its turn has come, and counts
//! then. It stands before all that is new, so where nothing is left of the rate it is waited for.

use super::Partition;
use crate::time::Micros;

/// So much of the time in which nobody claimed can be made up for. A processor that found nothing looks again after 100 ms
/// at the latest; with twice as much no part of the rate is lost.
pub const BURST_US: u64 = 200_000;

const NS_PER_US: u64 = 1_000;
const NS_PER_SECOND: u64 = 1_000_000_000;

/// What a claim hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Flow {
    /// All there is.
    #[default]
    Running,
    /// Only what was claimed before.
    Draining,
    /// Nothing.
    Paused,
}

impl Flow {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Running, Self::Draining, Self::Paused];

    /// As it is written and stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Paused => "paused",
        }
    }

    /// The one of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flow| flow.name() == name)
    }
}

/// How many messages are handed out for the first time in a second: one in each interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    interval_ns: u64,
}

impl Rate {
    /// The longest interval: a day.
    pub const SLOWEST_NS: u64 = 86_400 * NS_PER_SECOND;

    /// One message in so many nanoseconds, from 1 to [`Rate::SLOWEST_NS`].
    pub fn every_ns(interval_ns: u64) -> Option<Self> {
        (1..=Self::SLOWEST_NS)
            .contains(&interval_ns)
            .then_some(Self { interval_ns })
    }

    /// So many messages per second: at most a thousand million, at least one a day.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    pub fn per_second(rate: f64) -> Option<Self> {
        let interval_ns = (1e9 / rate).round();
        (1.0..=86_400e9)
            .contains(&interval_ns)
            .then(|| Self::every_ns(interval_ns as u64))
            .flatten()
    }

    /// The part of it that each of `parts` has, so that all together have no more than the whole. For a line of several
    /// partitions; 0 counts as 1.
    #[must_use]
    pub fn divided(self, parts: u64) -> Self {
        let interval_ns = self.interval_ns.saturating_mul(parts.max(1)).min(Self::SLOWEST_NS);
        Self { interval_ns }
    }

    /// The time from one message to the next, in nanoseconds.
    pub fn interval_ns(self) -> u64 {
        self.interval_ns
    }

    /// Messages per second.
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    pub fn messages_per_second(self) -> f64 {
        1e9 / self.interval_ns as f64
    }

    /// How much credit there can be, in nanoseconds.
    fn most_ns(self) -> u64 {
        self.interval_ns + BURST_US * NS_PER_US
    }
}

/// How the processors of a partition are controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Control {
    /// What a claim hands out.
    pub flow: Flow,
    /// Since when; zero, if that was never asked for.
    pub since: Micros,
    /// How fast.
    pub rate: Option<Rate>,
}

/// Asks for another control. Asked for again, it changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ControlRequest {
    /// From now on claims hand out all there is, nothing, or only what was claimed before.
    Flow(Flow),
    /// Pauses a partition that drains, if all that was claimed is delivered; else nothing.
    Settle,
    /// Limits the rate, or lets it go.
    Rate(Option<Rate>),
}

/// What may be handed out of a rate: credit, and at what time that was so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Bucket {
    /// In nanoseconds.
    pub credit_ns: u64,
    /// When.
    pub at: Micros,
}

impl Bucket {
    /// That of a rate that begins: one message at once.
    pub fn new(rate: Rate, now: Micros) -> Self {
        Self {
            credit_ns: rate.interval_ns,
            at: now,
        }
    }

    /// With what came in since.
    fn filled(self, rate: Rate, now: Micros) -> Self {
        let most = rate.most_ns();
        // Where the clock wavers, nothing came in, and what is to come is not counted twice.
        let came_in = now.since(self.at).min(most / NS_PER_US + 1) * NS_PER_US;
        Self {
            credit_ns: (self.credit_ns + came_in).min(most),
            at: self.at.max(now),
        }
    }

    /// How many messages may be handed out for the first time at this rate.
    pub fn allows(self, rate: Option<Rate>, now: Micros) -> u64 {
        rate.map_or(u64::MAX, |rate| self.filled(rate, now).credit_ns / rate.interval_ns)
    }

    /// After so many were, of those that it allows.
    #[must_use]
    pub fn spent(self, rate: Rate, now: Micros, count: u64) -> Self {
        let filled = self.filled(rate, now);
        let credit_ns = filled.credit_ns.saturating_sub(count.saturating_mul(rate.interval_ns));
        Self { credit_ns, ..filled }
    }

    /// The clock was set back by so much.
    pub(super) fn set_back(&mut self, back: u64) {
        self.at.0 = self.at.0.saturating_sub(back);
    }
}

impl Partition {
    /// Changes the control, and answers what it is then.
    pub fn control(&mut self, now: Micros, request: &ControlRequest) -> Control {
        self.tell_time(now);
        match *request {
            ControlRequest::Flow(flow) => self.set_flow(now, flow),
            ControlRequest::Settle => {
                if self.control.flow == Flow::Draining && self.head == self.next {
                    self.set_flow(now, Flow::Paused);
                }
            }
            ControlRequest::Rate(rate) if rate != self.control.rate => {
                self.control.rate = rate;
                self.bucket = rate.map_or_else(Bucket::default, |rate| Bucket::new(rate, now));
            }
            ControlRequest::Rate(_) => {}
        }
        self.control
    }

    fn set_flow(&mut self, now: Micros, flow: Flow) {
        if self.control.flow != flow {
            self.control.flow = flow;
            self.control.since = now;
        }
    }

    /// How many messages a claim may hand out for the first time, as far as the rate says.
    pub(super) fn allowance(&self, now: Micros) -> u64 {
        self.bucket.allows(self.control.rate, now)
    }

    /// So many were.
    pub(super) fn spend(&mut self, now: Micros, count: u64) {
        if let Some(rate) = self.control.rate.filter(|_| count > 0) {
            self.bucket = self.bucket.spent(rate, now, count);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::lease::OwnerId;
    use crate::partition::{ClaimRequest, Limits, SET_BACK_US};

    fn partition(rate: f64) -> Partition {
        let mut partition = Partition::default();
        partition.send(&vec![Bytes::from_static(b"1"); 10_000]);
        let rate = Rate::per_second(rate).expect("a rate");
        partition.control(START, &ControlRequest::Rate(Some(rate)));
        partition
    }

    const START: Micros = Micros(1_767_323_045_123_456);

    fn claim(partition: &mut Partition, now: Micros) -> u64 {
        let request = ClaimRequest {
            owner: OwnerId::new("p"),
            max: 1_000,
            lease_us: u64::MAX / 4,
            window: 100_000,
            below: None,
            limits: Limits::default(),
        };
        partition.claim(now, &request).len() as u64
    }

    /// Whoever looks every 100 ms gets what the rate says to the message, be it slow or fast.
    #[test]
    fn a_rate_is_kept_exactly_by_those_who_look_every_100_ms() {
        for (rate, in_20_seconds) in [(0.5, 11), (1.0, 21), (3.0, 61), (8.0, 161), (100.0, 2_001)] {
            let mut partition = partition(rate);
            let taken: u64 = (0..=200)
                .map(|tick| claim(&mut partition, START + tick * 100_000))
                .sum();
            assert_eq!(taken, in_20_seconds, "{rate}/s");
        }
    }

    #[test]
    fn after_a_rest_no_more_than_the_burst() {
        let mut partition = partition(100.0);
        assert_eq!(claim(&mut partition, START + 60_000_000), 21);
        assert_eq!(claim(&mut partition, START + 60_000_000), 0);
    }

    #[test]
    fn a_clock_set_back_neither_stops_it_nor_adds() {
        let mut partition = partition(10.0);
        assert_eq!(claim(&mut partition, START), 1);
        let back = Micros(START.0 - 3_600 * SET_BACK_US);
        assert_eq!(claim(&mut partition, back), 0);
        assert_eq!(claim(&mut partition, back + 100_000), 1);
        // By less it only wavers, and what was counted is not counted again.
        assert_eq!(claim(&mut partition, back), 0);
        assert_eq!(claim(&mut partition, back + 100_000), 0);
        assert_eq!(claim(&mut partition, back + 200_000), 1);
    }

    #[test]
    fn asked_for_again_a_rate_gives_nothing_more() {
        let mut partition = partition(1.0);
        assert_eq!(claim(&mut partition, START), 1);
        let rate = Rate::per_second(1.0);
        partition.control(START, &ControlRequest::Rate(rate));
        assert_eq!(claim(&mut partition, START), 0);
    }

    #[test]
    fn what_is_no_rate() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e10, 1e-9] {
            assert_eq!(Rate::per_second(rate), None, "{rate}");
        }
        let whole = Rate::per_second(10.0).expect("a rate");
        assert_eq!(whole.divided(4).interval_ns(), 400_000_000);
        assert_eq!(whole.divided(0), whole);
    }
}
