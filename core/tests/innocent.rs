//! Processors that are killed at random, and no message that kills any: none is given up for what it is not to blame for.
//!
//! What is random is drawn from a seed, and the time is the test's.

use std::collections::BTreeMap;

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, Payload};
use conga_core::partition::{ALONE_FROM, Claim, ClaimRequest, Completion, Limits, Partition, RenewRequest};
use conga_core::retry::MAX_CRASHES;
use conga_core::time::Micros;

const SECOND: u64 = 1_000_000;
const STEP: u64 = SECOND / 5;
const LEASE: u64 = SECOND;
const PROCESSORS: usize = 4;
const CONCURRENCY: usize = 16;
/// Small, for the reference looks through it at each claim.
const WINDOW: u64 = 500;
/// How long each history is.
const LENGTH: u64 = 300 * SECOND;

/// How often processors die, and how long their handlers take. In seconds.
#[derive(Debug, Clone, Copy)]
struct Rates {
    /// On average, by chance.
    between_kills: f64,
    /// So do most handlers, also by chance.
    handler: f64,
    /// One in a hundred takes just so long.
    slow: f64,
}

struct Random(u64);

impl Random {
    /// From 0 to 1.
    #[allow(clippy::cast_precision_loss, reason = "it is random")]
    fn part(&mut self) -> f64 {
        // As in `SplitMix64`, by G. L. Steele and others, 2014.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
    }

    /// A time in microseconds that is so many seconds on average, as times between chances are.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is random")]
    fn time(&mut self, mean: f64) -> u64 {
        (-self.part().max(1e-9).ln() * mean * 1e6) as u64
    }
}

struct Processor {
    owner: OwnerId,
    dies: u64,
    /// With when its handler is done.
    held: Vec<(Claim, u64)>,
}

/// How many messages had which highest count, and how many processors died.
#[derive(Debug, Default)]
struct Seen {
    highest: BTreeMap<u32, u64>,
    deaths: u64,
}

fn done(claim: &Claim) -> Completion {
    Completion::Done(claim.record(Body::Result(Payload::string(""))))
}

/// One history: there is always something to do.
fn live(seed: u64, rates: Rates, seen: &mut Seen) {
    let mut random = Random(seed);
    let mut partition = Partition::default();
    let mut takes: Vec<u64> = Vec::new();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some seconds")]
    let slow = (rates.slow * 1e6) as u64;
    let mut names = 0;
    let mut new = |random: &mut Random, now: u64| {
        names += 1;
        Processor {
            owner: OwnerId::new(format!("p{names}")),
            dies: now + random.time(rates.between_kills),
            held: Vec::new(),
        }
    };
    let mut live: Vec<Processor> = (0..PROCESSORS).map(|_| new(&mut random, 0)).collect();
    for now in (0..LENGTH).step_by(usize::try_from(STEP).expect("small")) {
        if partition.status(Micros(now)).waiting < WINDOW {
            partition.send(&vec![Bytes::from_static(b"{}"); 1_000]);
        }
        for processor in &mut live {
            if processor.dies <= now {
                // What it had expires, and another is started in its place.
                *processor = new(&mut random, now);
                seen.deaths += 1;
                continue;
            }
            let owner = &processor.owner;
            let (over, held): (Vec<_>, Vec<_>) = processor.held.drain(..).partition(|(_, until)| *until <= now);
            processor.held = held;
            partition.renew(
                Micros(now),
                &RenewRequest {
                    owner: owner.clone(),
                    lease_us: LEASE,
                    held: None,
                    limits: Limits::default(),
                    keep: None,
                },
            );
            let ends: Vec<_> = over.iter().map(|(claim, _)| done(claim)).collect();
            partition.complete(Micros(now), owner, &ends);
            for (claim, _) in &over {
                *seen.highest.entry(claim.crashes).or_default() += 1;
            }
            let request = ClaimRequest {
                below: None,
                owner: owner.clone(),
                max: CONCURRENCY - processor.held.len(),
                lease_us: LEASE,
                window: WINDOW,
                limits: Limits::default(),
            };
            for claim in partition.claim(Micros(now), &request) {
                // As long each time, whoever has it.
                let at = usize::try_from(claim.position.0).expect("small");
                while takes.len() <= at {
                    let is_slow = random.part() < 0.01;
                    takes.push(if is_slow { slow } else { random.time(rates.handler) });
                }
                if claim.crashes >= MAX_CRASHES {
                    *seen.highest.entry(claim.crashes).or_default() += 1;
                    partition.complete(Micros(now), owner, &[done(&claim)]);
                } else {
                    let until = now + takes[at];
                    processor.held.push((claim, until));
                }
            }
        }
        partition.deliver_ready(Micros(now));
    }
}

fn all(rates: Rates, seeds: std::ops::Range<u64>) -> Seen {
    let mut seen = Seen::default();
    for seed in seeds {
        live(seed, rates, &mut seen);
    }
    let count: u64 = seen.highest.values().sum();
    println!(
        "{rates:?}: {count} messages, {} deaths, by their highest count: {:?}",
        seen.deaths, seen.highest
    );
    assert!(seen.deaths > 100 && count > 5_000, "{seen:?}");
    seen
}

fn buried(seen: &Seen) -> u64 {
    seen.highest.range(MAX_CRASHES..).map(|(_, count)| count).sum()
}

/// Slow ones take a third of the time between two deaths of their processor.
#[test]
fn who_is_killed_at_random_buries_nothing() {
    for (rates, seeds) in [
        // A deployment that goes wrong every minute.
        (
            Rates {
                between_kills: 60.0,
                handler: 1.0,
                slow: 20.0,
            },
            0..10,
        ),
        // A machine without memory.
        (
            Rates {
                between_kills: 10.0,
                handler: 0.5,
                slow: 3.0,
            },
            10..14,
        ),
        (
            Rates {
                between_kills: 3.0,
                handler: 0.3,
                slow: 1.0,
            },
            20..22,
        ),
    ] {
        assert_eq!(buried(&all(rates, seeds)), 0, "{rates:?}");
    }
}

/// What `--max-crashes 0` is for: some handlers take longer than their processors live, and nothing tells them from poison.
#[test]
fn what_takes_longer_than_processors_live_is_given_up() {
    let seen = all(
        Rates {
            between_kills: 3.0,
            handler: 0.3,
            slow: 30.0,
        },
        30..32,
    );
    assert!(buried(&seen) > 0);
    assert!(seen.highest[&0] > 5_000, "and the others go on");
    assert!(seen.highest.range(ALONE_FROM..).count() > 3, "{seen:?}");
}
