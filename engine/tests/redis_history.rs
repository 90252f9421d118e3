//! Random histories: the Redis store answers like the memory store, step by step, under one manual clock.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/redis_server.rs"]
mod redis_server;

use std::collections::BTreeMap;

use bytes::Bytes;
use conga::clock::{Clock, ManualClock};
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::{Body, Id, Payload, Position, Record};
use conga::core::partition::{
    CampaignRequest, ClaimRequest, Completion, Cursor, EmitRequest, Limits, Processed, Ready, ReceiveRequest,
    RenewRequest, Shelf,
};
use conga::core::term::Term;
use conga::core::time::Micros;
use conga::line::Line;
use conga::store::Store;
use conga::store::memory::MemoryStore;
use conga::store::redis::{RedisOptions, RedisStore};
use redis_server::RedisServer;

/// `splitmix64`: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % sides
    }
}

struct Pair {
    dice: Dice,
    clock: ManualClock,
    memory: MemoryStore,
    redis: RedisStore,
    /// Leases that were once given out.
    held: Vec<(OwnerId, Held, Micros)>,
    sent: u64,
}

/// The cursors are each store's own, so they are replaced by their rank.
fn ranks(entries: &[Processed]) -> Vec<(Position, conga::core::partition::Turn)> {
    entries
        .iter()
        .map(|entry| (entry.position, entry.turn.clone()))
        .collect()
}

impl Pair {
    fn owner(&mut self) -> OwnerId {
        OwnerId::new(["p1", "p2", "p|3"][usize::try_from(self.dice.roll(3)).unwrap()])
    }

    fn limits(&mut self) -> Limits {
        Limits {
            entry_bytes: [3, 50, 1 << 20][usize::try_from(self.dice.roll(3)).unwrap()],
            total_bytes: [0, 1, 40, 1_000, 1 << 20][usize::try_from(self.dice.roll(5)).unwrap()],
        }
    }

    async fn step(&mut self) {
        match self.dice.roll(20) {
            0..=2 => {
                let mut entries = Vec::new();
                for _ in 0..self.dice.roll(20) {
                    self.sent += 1;
                    let width = usize::try_from(self.dice.roll(60)).unwrap();
                    entries.push(Bytes::from(format!("{:>width$}\u{0}\u{FF}", self.sent)));
                }
                self.memory.send(&entries).await.unwrap();
                self.redis.send(&entries).await.unwrap();
            }
            3..=6 => self.claim().await,
            7..=10 => self.complete().await,
            11 => self.renew().await,
            12 => {
                let request = CampaignRequest {
                    owner: self.owner(),
                    lock_us: self.dice.roll(4) * 5_000,
                };
                let (one, two) = (
                    self.memory.campaign(&request).await,
                    self.redis.campaign(&request).await,
                );
                assert_eq!(one, two, "{request:?}");
            }
            13..=16 => self.emit().await,
            17 => {
                let request = ReceiveRequest {
                    acknowledge: (self.dice.roll(3) > 0).then(|| Position(self.dice.roll(self.sent + 2))),
                    max: usize::try_from(self.dice.roll(30)).unwrap(),
                };
                let (one, two) = (self.memory.receive(&request).await, self.redis.receive(&request).await);
                assert_eq!(one, two, "{request:?}");
            }
            18 => {
                for shelf in [Shelf::Record, Shelf::Dead] {
                    let mut one = self.memory.browse(shelf, None).await.unwrap().rows;
                    let mut two = Vec::new();
                    let mut from = None;
                    loop {
                        let page = self.redis.browse(shelf, from.as_deref()).await.unwrap();
                        two.extend(page.rows);
                        from = page.next;
                        if from.is_none() {
                            break;
                        }
                    }
                    one.sort_by(|a, b| (&a.id, &a.json).cmp(&(&b.id, &b.json)));
                    two.sort_by(|a, b| (&a.id, &a.json).cmp(&(&b.id, &b.json)));
                    two.dedup();
                    assert_eq!(one, two);
                }
            }
            _ => self.clock.advance(self.dice.roll(7_000)),
        }
        assert_eq!(self.memory.status().await, self.redis.status().await);
    }

    async fn claim(&mut self) {
        let request = ClaimRequest {
            owner: self.owner(),
            max: usize::try_from(self.dice.roll(25)).unwrap(),
            lease_us: self.dice.roll(4) * 6_000,
            window: self.dice.roll(60),
            limits: self.limits(),
        };
        let (one, two) = (self.memory.claim(&request).await, self.redis.claim(&request).await);
        assert_eq!(one, two, "{request:?}");
        for claim in one.unwrap() {
            let held = Held {
                position: claim.position,
                attempt: claim.attempt,
            };
            self.held.push((request.owner.clone(), held, claim.claimed));
        }
    }

    fn completion(&mut self, held: Held, processing: Micros) -> Completion {
        let id = match self.dice.roll(4) {
            0 => Id::given(format!("same \"{}\"", self.dice.roll(5))),
            _ => Id::of_position(held.position),
        };
        let mut record = Record {
            position: held.position,
            id,
            sequence: (self.dice.roll(2) == 0).then_some(u64::MAX),
            key: None,
            body: Body::Result(Payload::string(&format!("r{}", self.dice.roll(1_000)))),
            attempts: held.attempt,
            created: Micros(self.dice.roll(1 << 52)),
            processing,
        };
        match self.dice.roll(6) {
            0 => {
                record.body = Body::Dead {
                    reason: "no \"way\"".to_owned(),
                };
                Completion::Dead {
                    tombstone: record,
                    deliver: self.dice.roll(2) == 0,
                }
            }
            1 => Completion::Retry {
                held,
                delay_us: self.dice.roll(3) * 2_000,
            },
            _ => Completion::Done(record),
        }
    }

    async fn complete(&mut self) {
        let owner = self.owner();
        let mut completions = Vec::new();
        for _ in 0..self.dice.roll(15) {
            if self.held.is_empty() {
                break;
            }
            let nth = usize::try_from(self.dice.roll(self.held.len() as u64)).unwrap();
            let (_, mut held, claimed) = match self.dice.roll(3) {
                0 => self.held[nth].clone(),
                _ => self.held.swap_remove(nth),
            };
            if self.dice.roll(20) == 0 {
                held.attempt = Attempt(held.attempt.0 + 1);
            }
            completions.push(self.completion(held, claimed));
        }
        let (one, two) = (
            self.memory.complete(&owner, &completions).await,
            self.redis.complete(&owner, &completions).await,
        );
        assert_eq!(one, two, "{owner:?} {completions:?}");
    }

    async fn renew(&mut self) {
        let owner = self.owner();
        let mut believed = Vec::new();
        for nth in 0..self.held.len() {
            if self.held[nth].0 == owner && self.dice.roll(3) > 0 {
                believed.push(self.held[nth].1);
            }
        }
        let request = RenewRequest {
            owner,
            lease_us: self.dice.roll(4) * 6_000,
            held: (self.dice.roll(3) > 0).then_some(believed),
            limits: self.limits(),
        };
        let (one, two) = (self.memory.renew(&request).await, self.redis.renew(&request).await);
        assert_eq!(one, two, "{request:?}");
    }

    async fn emit(&mut self) {
        let one = self.memory.follow(Cursor::default(), usize::MAX).await.unwrap();
        let two = self.redis.follow(Cursor::default(), usize::MAX).await.unwrap();
        assert_eq!((one.now, one.head), (two.now, two.head));
        assert_eq!(ranks(&one.entries), ranks(&two.entries));
        if let Some(middle) = one.entries.len().checked_div(2).filter(|middle| *middle > 0) {
            let after = two.entries[middle - 1].cursor;
            let some = self.redis.follow(after, 3).await.unwrap();
            let wanted: Vec<_> = two.entries[middle..].iter().take(3).cloned().collect();
            assert_eq!(some.entries, wanted);
        }
        let term = self.memory.status().await.unwrap().term;
        let term = if self.dice.roll(10) == 0 {
            Term(term.0 + 1)
        } else {
            term
        };
        let head = if self.dice.roll(10) == 0 {
            one.head.next()
        } else {
            one.head
        };
        let sequencing = self.clock.now();
        let spoil = self.dice.roll(30);
        let count = usize::try_from(self.dice.roll(20)).unwrap();
        let request = |entries: Vec<Processed>| {
            let mut by_position: BTreeMap<_, _> = entries.into_iter().map(|entry| (entry.position, entry)).collect();
            let mut entries = Vec::new();
            let mut at = one.head;
            while let Some(processed) = by_position.remove(&at).filter(|_| entries.len() < count) {
                at = at.next();
                entries.push(Ready { processed, sequencing });
            }
            if spoil == 0 && entries.len() > 2 {
                let turn = entries[1].processed.turn.clone();
                entries[2].processed.turn = turn;
            }
            if spoil == 1 && entries.len() > 2 {
                entries.remove(1);
            }
            if spoil == 2 && entries.len() > 2 {
                entries[2].processed.cursor.1 += 1_000;
            }
            EmitRequest { term, head, entries }
        };
        let (ours, theirs) = (request(one.entries.clone()), request(two.entries.clone()));
        for _ in 0..2 {
            let (one, two) = (self.memory.emit(&ours).await, self.redis.emit(&theirs).await);
            assert_eq!(one, two, "{ours:?}");
        }
    }
}

#[tokio::test]
async fn redis_answers_like_the_reference() {
    let server = RedisServer::start();
    let seeds: u64 = std::env::var("SEEDS").map_or(20, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let clock = ManualClock::new(Micros(1_709_164_799_990_000 + seed));
        let line: Line = format!("history-{seed}").parse().unwrap();
        let options = RedisOptions {
            clock: Clock::Manual(clock.clone()),
            ..RedisOptions::default()
        };
        let mut pair = Pair {
            dice: Dice(seed),
            memory: MemoryStore::new(Clock::Manual(clock.clone())),
            redis: RedisStore::connect(&server.url(), &line, options).await.unwrap(),
            clock,
            held: Vec::new(),
            sent: 0,
        };
        println!("seed {seed}");
        for _ in 0..300 {
            pair.step().await;
        }
    }
}
