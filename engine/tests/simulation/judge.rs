//! What must hold of a run, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga::core::invariant::{Event, Violation, check_all, check_any_order, order as in_order, progress};
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::{Id, Position};
use conga::core::partition::{ProducerId, Session};
use conga::core::shape::Order;
use conga::core::term::{Campaign, Reign, Role as Seat, Term};
use conga::core::time::Micros;

use crate::history::{Happened, History, Noted, Rest, Who};
use crate::plan::Plan;

mod account;
mod claim;
mod control;
mod head;
mod keep;
mod merged;
mod order;
mod output;
mod parted;
mod send;
mod strikes;

use control::Asked;
pub(crate) use keep::records_gone;
use strikes::Blame;

/// When all is healed, the head moves at least so often, in microseconds, while there is work. A lease or a lock of
/// somebody who is gone takes a second of it.
pub(crate) const PROGRESS_US: u64 = 1_500_000;

/// What it says where a step left what it should have delivered. The next renewal heals it.
pub(crate) const LEFT: &str = "left behind";

/// All that is wrong with a run.
pub(crate) fn judge(seed: u64, history: &History) -> Vec<String> {
    let plan = Plan::new(seed);
    if plan.merging.is_some() {
        return merged::judge(plan, history);
    }
    if plan.parted.is_some() {
        return parted::judge(&plan, history);
    }
    let mut judge = Judge::new(plan);
    for noted in &history.happened {
        judge.meet(noted);
    }
    judge.finish(history.rest.first())
}

impl Judge {
    fn new(plan: Plan) -> Self {
        let mut judge = Self {
            plan,
            partition: None,
            events: Vec::new(),
            moves: Vec::new(),
            found: Vec::new(),
            accepted: Vec::new(),
            leases: BTreeMap::new(),
            alive: BTreeMap::new(),
            head: Position::FIRST,
            done: BTreeSet::new(),
            over: BTreeSet::new(),
            leaders: BTreeMap::new(),
            locked: BTreeMap::new(),
            running: BTreeSet::new(),
            begun: BTreeSet::new(),
            acknowledged: None,
            active: None,
            numbered: BTreeMap::new(),
            left_out: BTreeMap::new(),
            sessions: BTreeMap::new(),
            written: BTreeMap::new(),
            results: BTreeMap::new(),
            queue: Vec::new(),
            taken: 0,
            asked: Asked::default(),
            died: BTreeSet::new(),
            taken_away: BTreeSet::new(),
            halted: BTreeSet::new(),
            passed_by: BTreeMap::new(),
            blame: BTreeMap::new(),
            given_up: BTreeMap::new(),
            owners: BTreeMap::new(),
            killed: BTreeSet::new(),
            is_settled: false,
            ended: Micros(0),
        };
        judge.events.push(Event::Window {
            size: judge.plan.window,
        });
        judge.moves.push(Event::Fault { at: Micros(0) });
        judge
    }

    /// For a partition of several, of the store `site`.
    fn of_partition(plan: Plan, site: usize) -> Self {
        Self {
            partition: u32::try_from(site - 1).ok(),
            ..Self::new(plan)
        }
    }

    fn meet(&mut self, noted: &Noted) {
        self.ended = noted.at;
        match (&noted.what, noted.who) {
            (Happened::Claimed { owner, .. }, Some(who)) => _ = self.owners.insert(owner.clone(), who),
            (Happened::Kills { .. }, Some(who)) => _ = self.killed.insert(who),
            _ => {}
        }
        self.see(noted.at, &noted.what);
        if let Some(who) = noted.who {
            self.watch_the_lock(noted.at, who, &noted.what);
        }
    }

    fn finish(mut self, rest: Option<&Rest>) -> Vec<String> {
        match rest {
            Some(rest) => self.account(rest),
            None => self.wrong("the run did not come to its end".to_owned()),
        }
        self.moves.push(Event::Ended { at: self.ended });
        // A partition of several waits for the others.
        let stalls = match self.plan.merging {
            None => progress::check(&self.moves, PROGRESS_US),
            Some(_) => Vec::new(),
        };
        let found = [self.laws(), stalls].concat();
        self.found.extend(found.iter().map(Violation::to_string));
        self.found
    }

    fn laws(&self) -> Vec<Violation> {
        match self.plan.order {
            Order::Total => check_all(&self.events),
            Order::Key { .. } => {
                let keys = |position: Position, _: &Id| self.accepted_at(position)?.key.clone();
                [in_order::check_by(&self.events, keys), check_any_order(&self.events)].concat()
            }
            Order::None => check_any_order(&self.events),
        }
    }
}

/// One message's claims so far.
#[derive(Debug)]
struct Lease {
    attempt: Attempt,
    owner: OwnerId,
    free: bool,
}

/// One message as it was accepted.
#[derive(Debug)]
struct Accepted {
    entry: Bytes,
    id: Id,
    /// The key by which the store puts it in order.
    key: Option<Vec<u8>>,
    /// Whether it can be read.
    readable: bool,
}

struct Judge {
    plan: Plan,
    /// Which it is, from 0 on, of a line that has several.
    partition: Option<u32>,
    events: Vec<Event>,
    /// Each position sent, and passed by the head: a duplicate moves the line on too, and nothing comes out.
    moves: Vec<Event>,
    found: Vec<String>,
    /// The message at index i has the position i + 1.
    accepted: Vec<Accepted>,
    leases: BTreeMap<Position, Lease>,
    /// Until when each processor is taken to be alive.
    alive: BTreeMap<OwnerId, Micros>,
    head: Position,
    /// Results that counted.
    done: BTreeSet<Held>,
    /// What waits for nothing but its turn, or has had it.
    over: BTreeSet<Position>,
    leaders: BTreeMap<Term, OwnerId>,
    /// Until when the lock is each process's.
    locked: BTreeMap<Who, Micros>,
    running: BTreeSet<Held>,
    /// What a handler was ever begun with.
    begun: BTreeSet<Held>,
    acknowledged: Option<Position>,
    /// The latest reign of a consumer.
    active: Option<Reign>,
    /// What was accepted from each producer that numbers.
    numbered: BTreeMap<ProducerId, Vec<Bytes>>,
    /// What each of them was refused and has left out, by the places in what it had to send.
    left_out: BTreeMap<usize, BTreeSet<usize>>,
    /// The latest session of each of them.
    sessions: BTreeMap<ProducerId, Session>,
    /// What consumers have written down.
    written: BTreeMap<Position, Bytes>,
    /// The results that were handed out, and whose they are.
    results: BTreeMap<Position, (Id, Bytes)>,
    /// Where not all keep their order: the outputs in the order in which they were handed out, and how many of them were
    /// acknowledged.
    queue: Vec<Position>,
    taken: usize,
    asked: Asked,
    /// What failed for good, and of that what a person has sent again or deleted.
    died: BTreeSet<Position>,
    taken_away: BTreeSet<Position>,
    /// Where the line is halted; and where a person had it go on, with a tombstone or without.
    halted: BTreeSet<Position>,
    passed_by: BTreeMap<Position, bool>,
    blame: BTreeMap<Position, Blame>,
    /// What was given up for its crashes.
    given_up: BTreeMap<Position, Blame>,
    /// Which process each owner is, and which of them were ended by a message.
    owners: BTreeMap<OwnerId, Who>,
    killed: BTreeSet<Who>,
    /// Nothing goes wrong any more but by poison.
    is_settled: bool,
    /// When the last thing happened.
    ended: Micros,
}

impl Judge {
    fn accepted_at(&self, position: Position) -> Option<&Accepted> {
        self.accepted.get(usize::try_from(position.0.checked_sub(1)?).ok()?)
    }

    fn wrong(&mut self, what: String) {
        self.found.push(what);
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.found.push(what());
        }
    }

    fn see(&mut self, at: Micros, what: &Happened) {
        match what {
            Happened::Sent {
                producer,
                entries,
                waiting,
            } => self.sent(at, producer.as_ref(), entries, *waiting),
            Happened::LeftOut { producer, places } => {
                self.left_out.entry(*producer).or_default().extend(places.clone());
            }
            Happened::Replaced { .. } => self.replaced(what),
            Happened::Claimed {
                owner,
                lease_us,
                claims,
                blamed,
            } => self.claimed(at, owner, *lease_us, claims, blamed),
            Happened::Completed { owner, ends, delivered } => {
                ends.iter()
                    .for_each(|(held, ending, answer)| self.completed(owner, *held, *ending, *answer));
                self.delivered(at, *delivered);
            }
            Happened::Renewed {
                owner,
                lease_us,
                delivered,
                ..
            } => {
                if *lease_us == 0 {
                    self.gone(owner);
                } else {
                    self.alive.insert(owner.clone(), at + *lease_us);
                }
                self.delivered(at, *delivered);
            }
            Happened::Campaigned {
                role: Seat::Consumer,
                owner,
                answer: Campaign::Leader { term },
                ..
            } => self.activated(owner, *term),
            Happened::Campaigned {
                role: Seat::Leader,
                owner,
                answer: Campaign::Leader { term },
                ..
            } => match self.leaders.insert(*term, owner.clone()) {
                None => self.events.push(Event::Elected {
                    term: *term,
                    owner: owner.clone(),
                }),
                Some(before) => self.expect(before == *owner, || {
                    format!("{owner} leads under term {term}, and so does {before}")
                }),
            },
            Happened::Emitted { term, from, answer } => self.emitted(at, *term, *from, *answer),
            Happened::Received {
                reign,
                acknowledged,
                outputs,
            } => {
                let latest = self.active.clone();
                self.expect(*reign == latest, || {
                    format!("at {at:?} {reign:?} receives, and the latest is {latest:?}")
                });
                self.received(*acknowledged, outputs);
            }
            Happened::Refused { reign, term } => {
                let latest = self.active.clone();
                let is_right = *reign != latest && latest.as_ref().is_none_or(|latest| latest.term == *term);
                self.expect(is_right, || {
                    format!("{reign:?} is refused under term {term}, and the latest is {latest:?}")
                });
            }
            Happened::Controlled { request, control } => self.controlled(at, request, *control),
            Happened::Judged {
                request,
                answers,
                delivered,
            } => {
                self.judged(at, request, answers);
                self.delivered(at, *delivered);
                self.begin_anew(at);
            }
            Happened::Kills { .. } => self.begin_anew(at),
            Happened::Begins { held } => {
                self.begun.insert(*held);
                let first = self.running.insert(*held);
                self.expect(first, || format!("two handlers at once for {held:?}"));
            }
            Happened::Ends { held, .. } => {
                self.running.remove(held);
            }
            Happened::Wrote { outputs } => outputs.iter().for_each(|output| self.write(at, output)),
            Happened::Wrong { what } => self.wrong(what.clone()),
            Happened::Settled => {
                self.is_settled = true;
                self.begin_anew(at);
            }
            _ => {}
        }
    }

    /// The line has to move again within the bound from now on.
    fn begin_anew(&mut self, at: Micros) {
        if self.is_settled {
            self.moves.push(Event::FaultOver { at });
        }
    }

    /// Law 6: a leader that can't prove its lock does not even try, as long as the store's clock goes like its own.
    fn watch_the_lock(&mut self, at: Micros, who: Who, what: &Happened) {
        match what {
            Happened::Campaigned {
                lock_us,
                answer: Campaign::Leader { .. },
                ..
            } => {
                self.locked.insert(who, at + *lock_us);
            }
            Happened::Emits { term } if self.plan.jumps.is_empty() => {
                let until = self.locked.get(&who).copied();
                self.expect(until.is_some_and(|until| at < until), || {
                    format!("at {at:?} {who} delivers under term {term}, and its lock was over at {until:?}")
                });
            }
            _ => {}
        }
    }
}
