//! Random histories: three processors, two leaders, two consumers and two producers that number, none of whom can be
//! trusted to be up to date.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga::core::invariant::Event;
use conga::core::message::{Id, Position};
use conga::core::partition::{Claim, ProducerId, SET_BACK_US, Session, Shelf};
use conga::core::shape::{Order, Shape};
use conga::core::term::{Reign, Term};
use conga::store::Delivery;

use self::dice::Random;
use self::leaders::Leader;
use crate::Fixture;
use crate::pair::{LEASE_US, Pair, leave};

mod consumers;
mod dice;
mod ending;
mod leaders;
mod person;
mod processors;
mod producers;

/// How many histories, unless `CONGA_SEEDS` says another number.
const SEEDS: u64 = 20;
const STEPS: u64 = 300;
const WINDOW: u64 = 8;

fn seeds() -> u64 {
    let asked_for = std::env::var("CONGA_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    asked_for.unwrap_or(SEEDS)
}

pub(crate) async fn histories<F: Fixture>() {
    for seed in 1..=seeds() {
        history(Pair::open::<F>().await, seed, Order::Total).await;
    }
}

pub(crate) async fn histories_by_key<F: Fixture>() {
    many_in_place::<F>(Order::Key { serial: false }).await;
}

pub(crate) async fn serial_histories<F: Fixture>() {
    many_in_place::<F>(Order::Key { serial: true }).await;
}

pub(crate) async fn histories_without_order<F: Fixture>() {
    many_in_place::<F>(Order::None).await;
}

async fn many_in_place<F: Fixture>(order: Order) {
    for seed in 1..=seeds() {
        history(Pair::open::<F>().await, seed, order).await;
    }
}

/// One history, and what must hold of it. In one of three the leader delivers, in one the store, and in one as it comes.
pub(crate) async fn history(pair: Pair, seed: u64, order: Order) {
    let mut driver = Driver::new(pair, seed);
    driver.order = order;
    if order != Order::Total {
        driver.pair.shape(Some(Shape::of(order))).await;
    }
    for step in 0..STEPS {
        driver.pair.context = format!("seed {seed}, step {step}:");
        driver.pair.delivery = match seed % 3 {
            0 => Delivery::Leader,
            1 => Delivery::Store,
            _ => [Delivery::Leader, Delivery::Store][driver.random.index(2)],
        };
        driver.step().await;
        driver.look_at_head().await;
    }
    driver.pair.context = format!("seed {seed}, draining:");
    driver.heal_and_drain().await;
    driver.judge(seed).await;
}

struct Driver {
    pair: Pair,
    order: Order,
    random: Random,
    history: Vec<Event>,
    /// Everything ever sent, in order: the entry at index i has the position i + 1.
    sent: Vec<String>,
    /// Two producers that number, and all that each has sent, with the id of each.
    producers: [(ProducerId, Vec<String>); 2],
    /// The sessions of each, the latest last.
    sessions: [Vec<Session>; 2],
    owners: Vec<(&'static str, Vec<Claim>)>,
    leaders: Vec<Leader>,
    term: Term,
    /// Two consumers, each with the reign that it believes in.
    consumers: [(&'static str, Option<Reign>); 2],
    outputs: Vec<(u64, Bytes)>,
    /// What of the records and the dead letters has been seen: retention may have let go of them since.
    records: BTreeMap<Id, Position>,
    dead: BTreeSet<Id>,
}

impl Driver {
    fn new(pair: Pair, seed: u64) -> Self {
        Self {
            pair,
            order: Order::Total,
            random: Random(seed),
            history: vec![Event::Window { size: WINDOW }],
            sent: Vec::new(),
            producers: ["n0", "n1"].map(|name| (ProducerId::new(name), Vec::new())),
            sessions: Default::default(),
            owners: ["p0", "p1", "p2"].map(|name| (name, Vec::new())).into(),
            leaders: ["s0", "s1"].map(Leader::new).into(),
            term: Term::default(),
            consumers: [("c0", None), ("c1", None)],
            outputs: Vec::new(),
            records: BTreeMap::new(),
            dead: BTreeSet::new(),
        }
    }

    async fn step(&mut self) {
        let owner = self.random.index(self.owners.len());
        let leader = self.random.index(self.leaders.len());
        match self.random.below(100) {
            0..5 => self.send().await,
            5..8 => self.send_numbered().await,
            8..22 => {
                let max = 1 + self.random.index(5);
                let forget = self.random.chance(15);
                self.claim(owner, max, forget).await;
            }
            22..45 => self.complete(owner).await,
            45..50 => self.renew(owner).await,
            50..52 => self.trim(owner).await,
            52..54 => {
                self.pair.renew(&leave(self.owners[owner].0)).await;
            }
            54..63 => self.campaign(leader, LEASE_US).await,
            63..65 => self.campaign(leader, 0).await,
            65..75 => self.follow(leader).await,
            75..87 => {
                let lost = self.random.chance(25);
                self.emit(leader, lost).await;
            }
            87..89 => self.stand().await,
            89..91 => {
                let (max, acknowledge) = (self.random.index(9), self.random.chance(50));
                self.receive(max, acknowledge).await;
            }
            91..93 => self.control().await,
            93..94 => {
                self.pair.browse(Shelf::Record).await;
                self.pair.browse(Shelf::Dead).await;
            }
            94..96 => self.judge_letters().await,
            _ => {
                let us = match self.random.below(4) {
                    0 => 1,
                    1 => LEASE_US,
                    _ => self.random.below(LEASE_US / 2),
                };
                self.pair.advance(us);
                if self.random.chance(15) {
                    self.pair.set_back(self.random.below(4 * SET_BACK_US));
                }
            }
        }
    }

    /// Where the store delivers, the head moves without an emit.
    async fn look_at_head(&mut self) {
        let status = self.pair.status().await;
        let position = status.head;
        assert!(
            status.in_flight + status.processed <= WINDOW,
            "{}: {status:?}",
            self.pair.context
        );
        self.history.push(Event::Head { position });
    }
}
