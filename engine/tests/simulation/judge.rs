//! What must hold of a run, whatever went wrong in it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga::core::invariant::{Event, Violation, check_all, check_any_order, order as in_order, progress};
use conga::core::lease::{Attempt, Held, OwnerId};
use conga::core::message::{Entry, Format, Id, Position, identify, key_of, parse};
use conga::core::partition::{Completed, Emitted, OnDead, ProducerId, Session};
use conga::core::shape::Order;
use conga::core::term::{Campaign, Reign, Role as Seat, Term};
use conga::core::time::Micros;

use crate::history::{Ending, Happened, History, Moved, Noted, Rest, Who};
use crate::plan::{Plan, name_of};

mod account;
mod control;
mod keep;
mod merged;
mod order;
mod output;
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
            is_settled: false,
            ended: Micros(0),
        };
        judge.events.push(Event::Window {
            size: judge.plan.window,
        });
        judge.moves.push(Event::Fault { at: Micros(0) });
        judge
    }

    fn meet(&mut self, noted: &Noted) {
        self.ended = noted.at;
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

    fn emitted(&mut self, at: Micros, term: Term, from: Position, answer: Emitted) {
        let (to, accepted) = match answer {
            Emitted::Advanced { head } => {
                self.pass(at, from, head);
                (head, true)
            }
            Emitted::Fenced { .. } | Emitted::Moved { .. } => (from, false),
        };
        self.events.push(Event::Emitted {
            term,
            from,
            to,
            accepted,
        });
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

    /// Law 4: nothing counts in a session that is not the latest.
    fn sent(&mut self, at: Micros, producer: Option<&(ProducerId, Session)>, entries: &[Bytes], waiting: u64) {
        if let Some((producer, session)) = producer {
            let before = self.sessions.insert(producer.clone(), *session);
            let is_right = before.is_none_or(|before| *session == before || session.number > before.number);
            self.expect(is_right, || {
                format!("{producer} has sent in {session:?} after {before:?}")
            });
            let numbered = self.numbered.entry(producer.clone()).or_default();
            numbered.extend(entries.iter().cloned());
            let limits = self.plan.limits.iter().enumerate();
            let its_own = limits.filter(|(number, _)| name_of(*number) == *producer);
            let most = its_own.filter_map(|(_, limit)| *limit).map(|(most, _)| most).next();
            let is_within = entries.is_empty() || most.is_none_or(|most| waiting <= most);
            self.expect(is_within, || {
                format!("{producer} has sent so that {waiting} wait, and no more than {most:?} may")
            });
        }
        entries.iter().for_each(|entry| self.accept(at, entry));
    }

    /// And nothing is refused in the latest.
    fn replaced(&mut self, what: &Happened) {
        if let Happened::Replaced {
            producer,
            session,
            latest,
            ..
        } = what
        {
            let known = self.sessions.get(producer).copied();
            self.expect(known == Some(*latest) && !session.counts_after(*latest), || {
                format!("{producer} is refused in {session:?} after {known:?}, for {latest:?}")
            });
        }
    }

    fn accept(&mut self, at: Micros, bytes: &Bytes) {
        let position = Position(self.accepted.len() as u64 + 1);
        let limit = self.plan.entry_bytes;
        let entry = match bytes.len() as u64 {
            bytes if bytes > limit => Entry::Oversize { bytes },
            _ => Entry::Whole(bytes.clone()),
        };
        let input = parse(&entry, position, Format::Any, limit);
        let accepted = Accepted {
            entry: bytes.clone(),
            readable: input.is_ok(),
            key: key_of(bytes),
            id: input.map_or_else(|_| identify(&entry, position), |input| input.id),
        };
        self.events.push(Event::Sent {
            id: accepted.id.clone(),
            at,
        });
        self.moves.push(Event::Sent {
            id: Id::of_position(position),
            at,
        });
        self.accepted.push(accepted);
    }

    /// Where the store delivers by itself, it delivers all that stands at the head without a gap, in the same step.
    fn delivered(&mut self, at: Micros, moved: Option<Moved>) {
        let Some(Moved { from, to }) = moved else { return };
        self.pass(at, from, to);
        self.events.push(Event::Head { position: to });
        let head = self.head;
        let is_left = self.over.contains(&head);
        self.expect(!is_left, || {
            format!("{LEFT} at {at:?}: position {head}, though it was its turn")
        });
    }

    /// The head moves on, from where it is, past what is done and nothing else.
    fn pass(&mut self, at: Micros, from: Position, head: Position) {
        let stands = self.head;
        self.expect(from == stands, || {
            format!("delivered from {from} on when the head was at {stands}")
        });
        while self.head < head {
            let passed = self.head;
            let is_over = self.over.contains(&passed);
            self.expect(is_over, || {
                format!("position {passed} is passed over, and it is not done")
            });
            self.moves.push(Event::Delivered {
                position: self.head,
                id: Id::of_position(self.head),
                at,
                dead: false,
            });
            self.head = self.head.next();
        }
    }

    fn gone(&mut self, owner: &OwnerId) {
        self.alive.remove(owner);
        for lease in self.leases.values_mut().filter(|lease| lease.owner == *owner) {
            lease.free = true;
        }
    }

    /// Law 1 and G4: what is free before what is new, and nothing is taken from a living owner.
    fn claimed(&mut self, at: Micros, owner: &OwnerId, lease_us: u64, claims: &[Held], blamed: &[(Position, u32)]) {
        self.alive.insert(owner.clone(), at + lease_us);
        let dead: Vec<_> = self
            .alive
            .iter()
            .filter(|(_, until)| **until <= at)
            .map(|(owner, _)| owner.clone())
            .collect();
        for owner in &dead {
            self.blame(owner);
            self.gone(owner);
        }
        self.claimed_under_control(at, claims);
        self.expect(claims.is_sorted(), || {
            format!("{owner} claims out of order: {claims:?}")
        });
        for held in claims {
            let head = self.head;
            self.expect(held.position >= head, || {
                format!("{held:?} is claimed after its delivery")
            });
            let said = blamed.iter().find(|(position, _)| *position == held.position);
            self.claimed_with_blame(owner, held.position, said.map_or(0, |(_, times)| *times));
            let lease = Lease {
                attempt: held.attempt,
                owner: owner.clone(),
                free: false,
            };
            let newest = self.leases.len() as u64;
            let before = self.leases.insert(held.position, lease);
            if !self.is_total() {
                self.claimed_in_place(*held, before.is_none());
            }
            // What stands behind another one of its key may be passed over.
            let may_skip = self.plan.order == (Order::Key { serial: true });
            match before {
                None => self.expect(
                    (may_skip || held.position == Position(newest + 1)) && held.attempt == Attempt(1),
                    || format!("{held:?} is claimed after position {newest}"),
                ),
                Some(before) => self.expect(before.free && before.attempt.next() == held.attempt, || {
                    format!("{owner} claims {held:?} from {before:?}")
                }),
            }
            self.events.push(Event::Claimed {
                position: held.position,
                attempt: held.attempt,
                owner: owner.clone(),
                at,
            });
        }
    }

    fn completed(&mut self, owner: &OwnerId, held: Held, ending: Ending, answer: Completed) {
        let accepted = answer == Completed::Accepted;
        if accepted {
            self.ended(held, ending);
        }
        self.events.push(Event::Completed {
            position: held.position,
            attempt: held.attempt,
            owner: owner.clone(),
            accepted,
        });
    }
    /// A lease has ended, and that counted.
    fn ended(&mut self, held: Held, ending: Ending) {
        let position = held.position;
        let is_free = matches!(ending, Ending::Retry | Ending::GivenBack);
        if let Some(lease) = self.leases.get_mut(&position) {
            lease.free = is_free;
        }
        match ending {
            Ending::Done => _ = self.done.insert(held),
            Ending::Dead { on_dead, by_crashes } => {
                self.died.insert(position);
                if by_crashes {
                    self.give_up(position);
                }
                // Where its id has a result that stands.
                if on_dead == OnDead::Halt && !self.has_result(position) {
                    self.halted.insert(position);
                }
            }
            Ending::Retry | Ending::GivenBack => {}
        }
        if ending != Ending::GivenBack {
            self.absolve(position);
        }
        if !is_free && !self.halted.contains(&position) {
            self.over.insert(position);
        }
    }
}
