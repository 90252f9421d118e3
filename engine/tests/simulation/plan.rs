//! What a seed means: who works, what is sent, and what goes wrong when.

use std::time::Duration;

use bytes::Bytes;
use conga::core::message::Payload;
use conga::core::partition::{Keep, OnDead, ProducerId};
use conga::core::shape::Order;
use conga::random::SeededRandom;
use conga::send::{Outgoing, WhenFull};

mod command;
mod delivery;
mod keep;
mod merging;
mod order;
mod parting;
mod poison;
mod room;

pub(crate) use command::Command;
pub(crate) use delivery::Delivering;
pub(crate) use merging::Merging;
pub(crate) use poison::Poison;

/// Draws from a seed.
#[derive(Debug)]
pub(crate) struct Dice(SeededRandom);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    pub(crate) fn any(&mut self) -> u64 {
        self.0.draw()
    }

    /// From `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.any() % (most - least + 1)
    }

    pub(crate) fn size(&mut self, least: usize, most: usize) -> usize {
        usize::try_from(self.between(least as u64, most as u64)).unwrap()
    }

    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.between(least, most))
    }

    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.any() % 1_000 < per_mille
    }

    /// `most` per mille or less; quite often nothing at all, so that each fault also meets a world without the others.
    fn rate(&mut self, most: u64) -> u64 {
        if self.chance(400) { 0 } else { self.between(1, most) }
    }
}

/// How bad the way to the store is: how many of a thousand calls meet what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    /// Up to half a second each way.
    pub(crate) slow: u64,
    /// Longer than a lease or a lock.
    pub(crate) crawling: u64,
    /// The step is done, the reply is lost.
    pub(crate) lost: u64,
    /// The step is not done, and the caller is told.
    pub(crate) refused: u64,
    /// The step is done twice.
    pub(crate) repeated: u64,
    /// The caller hears that nobody knows, and the step is done later.
    pub(crate) late: u64,
    /// The hint does not come.
    pub(crate) unhinted: u64,
    /// The store delivers only the first of what it is given to deliver; or, where it delivers by itself, leaves it all to a
    /// later step.
    pub(crate) cut_short: u64,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Processor,
    Sequencer,
    Producer,
    Consumer,
    /// A person.
    Operator,
}

/// What happens to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is gone after so many more turns of its own; another one starts after the time given.
    Crash { turns: u64, away: Duration },
    /// It stands still, and time goes on.
    Pause { length: Duration },
    /// It is told to end, and another one starts after the time given.
    Stop { away: Duration },
}

/// From when to when a process can't reach the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    /// Whether it is told so at once, or hears nothing.
    pub(crate) refused: bool,
    /// Only that one, or none.
    pub(crate) site: Option<usize>,
}

impl Cut {
    pub(crate) fn is_of(&self, site: usize) -> bool {
        self.site.is_none_or(|only| only == site)
    }
}

/// A place in which a process runs, one after the other.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) role: Role,
    /// Which of its role it is.
    pub(crate) number: usize,
    /// Whether it has the store deliver.
    pub(crate) delivers: bool,
    /// In ascending order of the times.
    pub(crate) faults: Vec<(Duration, Fault)>,
    pub(crate) cuts: Vec<Cut>,
}

/// What a producer sends in one call.
#[derive(Debug, Clone)]
pub(crate) enum Parcel {
    /// Each message has an identity, so it is sent until it is there.
    Named(Vec<Outgoing>),
    /// Sent once, whatever becomes of it.
    Nameless(Vec<Vec<u8>>),
}

/// All that a seed decides beforehand.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) weather: Weather,
    pub(crate) delivering: Delivering,
    /// What order the line keeps.
    pub(crate) order: Order,
    pub(crate) keep: Keep,
    /// What a person asks for, and after what time.
    pub(crate) commands: Vec<(Duration, Command)>,
    pub(crate) places: Vec<Place>,
    /// For each producer, what it sends and how long it waits before.
    pub(crate) parcels: Vec<Vec<(Duration, Parcel)>>,
    /// Which of the producers number what they send. They send each of their messages in turn, in batches of any size.
    pub(crate) numbering: Vec<bool>,
    /// How many may wait after a send of each of those, and what it does where more would.
    pub(crate) limits: Vec<Option<(u64, WhenFull)>>,
    /// How long things go wrong.
    pub(crate) trouble: Duration,
    /// When a store's clock jumps, how far, and which store's.
    pub(crate) jumps: Vec<(Duration, Duration, usize)>,
    /// Where there are several partitions, and one order over them.
    pub(crate) merging: Option<Merging>,
    /// Where there are several partitions, and nothing merges them.
    pub(crate) parted: Option<usize>,
    pub(crate) lease_us: u64,
    pub(crate) concurrency: usize,
    pub(crate) window: u64,
    pub(crate) buffer: usize,
    pub(crate) emit_batch: usize,
    pub(crate) poison: Poison,
    pub(crate) max_attempts: u32,
    /// How many of a thousand messages fail for good, fail at first, or make the handler panic.
    pub(crate) failing: u64,
    /// How long a handler takes at most, in milliseconds.
    pub(crate) handler_ms: u64,
    /// An entry with more bytes is too large.
    pub(crate) entry_bytes: u64,
    /// An answer ends with the entry by which it reaches this.
    pub(crate) answer_bytes: u64,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let dice = &mut dice;
        let trouble = if dice.chance(250) {
            dice.millis(2_000, 6_000)
        } else {
            dice.millis(500, 2_500)
        };
        let weather = Weather {
            slow: dice.rate(200),
            crawling: dice.rate(15),
            lost: dice.rate(60),
            refused: dice.rate(80),
            repeated: dice.rate(80),
            late: dice.rate(25),
            unhinted: dice.rate(1_000),
            cut_short: dice.rate(300),
        };
        let (crashes, pauses, stops, cut_off) = (dice.rate(1_000), dice.rate(700), dice.rate(500), dice.rate(600));
        let roles = [
            (Role::Processor, dice.size(1, 3)),
            (Role::Sequencer, dice.size(1, 3)),
            (Role::Producer, dice.size(1, 2)),
            (Role::Consumer, dice.size(1, 2)),
        ];
        let mut places = Vec::new();
        for (role, count) in roles {
            for number in 0..count {
                places.push(Place {
                    role,
                    number,
                    delivers: false,
                    faults: faults(dice, trouble, [crashes, pauses, stops]),
                    cuts: cuts(dice, trouble, cut_off),
                });
            }
        }
        together(dice, trouble, &mut places);
        let mut jumps = Vec::new();
        if dice.chance(150) {
            jumps.push((dice.millis(0, 2_000).min(trouble), dice.millis(1, 3_600_000), 0));
        }
        let delivering = Delivering::draw(seed, &mut places);
        let commands = command::draw(seed, trouble, &mut places);
        let (order, keys) = order::draw(seed);
        let parcels: Vec<_> = (0..roles[2].1)
            .map(|number| parcels(dice, number, trouble, |number| order::key_of(order, keys, number)))
            .collect();
        let numbering: Vec<_> = parcels.iter().map(|_| dice.chance(500)).collect();
        let (lease_us, concurrency) = (if dice.chance(300) { 200_000 } else { 1_000_000 }, dice.size(1, 8));
        let (window, buffer, emit_batch) = (dice.between(1, 24), dice.size(1, 24), dice.size(1, 8));
        let mark_dead = dice.chance(700);
        let poison = poison::draw(seed, order, mark_dead, &entries(&parcels));
        let plan = Self {
            seed,
            merging: None,
            parted: None,
            weather,
            delivering,
            order,
            // What has been let go of can be told by the order alone.
            keep: if order == Order::Total && poison.on_dead != OnDead::Halt {
                keep::draw(seed)
            } else {
                Keep::ALL
            },
            commands: command::halting(seed, &poison, commands),
            places,
            numbering,
            limits: room::draw(seed, parcels.len()),
            parcels,
            trouble,
            jumps,
            lease_us,
            concurrency,
            window,
            buffer,
            emit_batch,
            poison,
            max_attempts: u32::try_from(dice.between(1, 5)).unwrap(),
            failing: dice.rate(300),
            handler_ms: [20, 40, 500, 500, 1_500][dice.size(0, 4)],
            entry_bytes: 400,
            answer_bytes: if dice.chance(300) {
                dice.between(1, 100)
            } else {
                8 << 20
            },
        };
        match (merging::draw(seed), parting::draw(seed, order)) {
            (Some(merging), _) => plan.merged(merging),
            (None, Some(partitions)) => plan.parted(partitions),
            (None, None) => plan,
        }
    }
}

impl Plan {
    /// All that a producer sends, one by one.
    pub(crate) fn messages(&self, producer: usize) -> Vec<Bytes> {
        entries(&self.parcels[producer..=producer])
    }

    /// The fate of message `number`.
    pub(crate) fn fate(&self, number: u64) -> Fate {
        if self.poison.numbers.contains(&number) {
            return Fate::Kills;
        }
        fate(self.seed, number, self.failing)
    }
}

/// All that is sent, producer by producer.
fn entries(parcels: &[Vec<(Duration, Parcel)>]) -> Vec<Bytes> {
    let entries = parcels.iter().flatten().flat_map(|(_, parcel)| match parcel {
        Parcel::Named(batch) => batch.iter().map(Outgoing::to_entry).collect::<Vec<_>>(),
        Parcel::Nameless(entries) => entries.iter().cloned().map(Bytes::from).collect(),
    });
    entries.collect()
}

/// The name under which a producer numbers.
pub(crate) fn name_of(producer: usize) -> ProducerId {
    ProducerId::new(format!("producer {producer}"))
}

/// What happens to all at once: everybody dies, or nobody reaches the store.
fn together(dice: &mut Dice, trouble: Duration, places: &mut [Place]) {
    let whole = u64::try_from(trouble.as_millis()).unwrap();
    let all_crash = dice.chance(150).then(|| dice.millis(0, whole));
    let outages = if dice.chance(150) {
        cuts(dice, trouble, 1_000)
    } else {
        Vec::new()
    };
    for place in places {
        if let Some(at) = all_crash {
            let away = dice.millis(0, 1_000);
            place.faults.push((at, Fault::Crash { turns: 0, away }));
            place.faults.sort_by_key(|(at, _)| *at);
        }
        place.cuts.extend(&outages);
    }
}

/// Up to three faults in about every second; each kind as often as its rate says.
fn faults(dice: &mut Dice, trouble: Duration, [crashes, pauses, stops]: [u64; 3]) -> Vec<(Duration, Fault)> {
    let whole = u64::try_from(trouble.as_millis()).unwrap();
    let mut faults = Vec::new();
    for second in 0..whole.div_ceil(1_000) {
        let mut add = |dice: &mut Dice, fault| {
            faults.push((dice.millis(second * 1_000, second * 1_000 + 999).min(trouble), fault));
        };
        if dice.chance(crashes) {
            let turns = if dice.chance(300) { 0 } else { dice.between(1, 30) };
            let away = dice.millis(0, 1_500);
            add(dice, Fault::Crash { turns, away });
        }
        if dice.chance(pauses) {
            let length = dice.millis(1, if second % 2 == 0 { 2_500 } else { 400 });
            add(dice, Fault::Pause { length });
        }
        if dice.chance(stops) {
            let away = dice.millis(0, 500);
            add(dice, Fault::Stop { away });
        }
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn cuts(dice: &mut Dice, trouble: Duration, rate: u64) -> Vec<Cut> {
    let mut cuts = Vec::new();
    if dice.chance(rate) {
        let from = dice.millis(0, u64::try_from(trouble.as_millis()).unwrap());
        cuts.push(Cut {
            from,
            to: (from + dice.millis(200, 4_000)).min(trouble),
            refused: dice.chance(400),
            site: None,
        });
    }
    cuts
}

/// The text that is what a message is about; [`number_of`] reads it.
fn text(number: u64) -> String {
    format!("m{number}")
}

/// Which message a payload or a raw entry is about.
pub(crate) fn number_of(text: &str) -> Option<u64> {
    let digits = text.rsplit_once('m')?.1;
    let end = digits
        .find(|digit: char| !digit.is_ascii_digit())
        .unwrap_or(digits.len());
    digits[..end].parse().ok()
}

fn parcels(
    dice: &mut Dice,
    producer: usize,
    trouble: Duration,
    key: impl Fn(u64) -> Option<String>,
) -> Vec<(Duration, Parcel)> {
    // Numbers of different producers never meet.
    let mut next = 1 + 100_000 * producer as u64;
    let first = next;
    let pace = u64::try_from(trouble.as_millis()).unwrap() / 12;
    let mut parcels: Vec<(Duration, Parcel)> = Vec::new();
    for _ in 0..dice.size(1, 12) {
        let pause = dice.millis(0, 2 * pace);
        let parcel = if dice.chance(250) {
            Parcel::Nameless((0..dice.size(1, 4)).map(|_| nameless(dice, fresh(&mut next))).collect())
        } else {
            let mut batch = Vec::new();
            for _ in 0..dice.size(1, 8) {
                let number = if next > first && dice.chance(60) {
                    // Sent before, so sent twice.
                    dice.between(first, next - 1)
                } else {
                    fresh(&mut next)
                };
                batch.push(named(number, key(number)));
            }
            Parcel::Named(batch)
        };
        parcels.push((pause, parcel));
    }
    parcels
}

fn fresh(next: &mut u64) -> u64 {
    *next += 1;
    *next - 1
}

/// The same message each time that it is sent.
fn named(number: u64, key: Option<String>) -> Outgoing {
    let message = Outgoing {
        key,
        ..Outgoing::new(Payload::string(&text(number)))
    };
    if number.is_multiple_of(3) {
        Outgoing {
            sequence: Some(number),
            ..message
        }
    } else {
        Outgoing {
            id: Some(format!("id-{number}")),
            ..message
        }
    }
}

/// Raw bytes, an envelope without an identity, one that can't be read, or too many bytes.
fn nameless(dice: &mut Dice, number: u64) -> Vec<u8> {
    let text = text(number);
    match dice.between(0, 5) {
        0 => format!("{{\"payload\":\"{text}\",\"sequence\":-1}}").into_bytes(),
        1 => format!("{text} {}", "x".repeat(500)).into_bytes(),
        2 => format!("{{\"payload\":\"{text}\"}}").into_bytes(),
        _ => format!("raw {text}").into_bytes(),
    }
}

/// What a handler does with a message, however often it gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Succeeds,
    /// At its first attempts only.
    FailsAtFirst(u32),
    PanicsAtFirst,
    FailsForGood,
    /// It ends the process, each time.
    Kills,
}

fn fate(seed: u64, number: u64, failing: u64) -> Fate {
    let mut dice = Dice::new(seed ^ number.wrapping_mul(0x9e37_79b9));
    if !dice.chance(failing) {
        return Fate::Succeeds;
    }
    match dice.between(0, 3) {
        0 => Fate::FailsForGood,
        1 => Fate::PanicsAtFirst,
        _ => Fate::FailsAtFirst(u32::try_from(dice.between(1, 3)).unwrap()),
    }
}
