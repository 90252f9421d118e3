//! Random histories: three processors, two leaders, two consumers and two producers that number, none of whom can be
//! trusted to be up to date.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga::core::invariant::{Event, Violation, check_all, check_any_order, loss, order};
use conga::core::lease::OwnerId;
use conga::core::message::{Id, Position};
use conga::core::partition::{
    Claim, ClaimRequest, Completed, ControlRequest, Cursor, EmitRequest, Emitted, Flow, Judged, Keep, Limit, Numbered,
    Processed, ProducerId, Rate, Ready, SET_BACK_US, Sent, Session, Shelf, Verdict,
};
use conga::core::sequencer::{Action, Event as News, Sequencer};
use conga::core::shape::{Order, Shape};
use conga::core::term::{Campaign, Reign, Term};

use conga::store::Delivery;

use crate::Fixture;
use crate::in_place::keyed;
use crate::pair::{LEASE_US, Pair, ask, dead, done, halt, leave, place, retry, stay, trim};

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

/// `SplitMix64`: G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators", 2014.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// A sequencer process: it believes what it was last told.
struct Leader {
    name: &'static str,
    sequencer: Sequencer<Processed>,
    cursor: Cursor,
    wish: Option<EmitRequest>,
}

impl Leader {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            sequencer: Sequencer::new(16, 4),
            cursor: Cursor::default(),
            wish: None,
        }
    }

    fn hear(&mut self, now: conga::core::time::Micros, news: News<Processed>) {
        match self.sequencer.step(news) {
            Action::Wait => {}
            Action::Follow => self.cursor = Cursor::default(),
            Action::Emit { term, head, count } => {
                let ready = self.sequencer.ready(count).cloned().map(|processed| Ready {
                    processed,
                    sequencing: now,
                });
                let entries = ready.collect();
                self.wish = Some(EmitRequest { term, head, entries });
            }
        }
    }
}

/// The key of an id, in three of four.
fn key_of(id: &str) -> Option<&'static str> {
    let number: usize = id[1..].parse().unwrap_or(0);
    [None, Some("a"), Some("b"), Some("b")][number / 2 % 4]
}

fn entry_of(order: Order, id: &str) -> Bytes {
    match order {
        Order::Total => crate::pair::entry(id),
        _ => keyed(id, key_of(id).unwrap_or_default()),
    }
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

    /// Ids that begin with `m` may be sent again; those with `d` may die.
    async fn send(&mut self) {
        let mut entries = Vec::new();
        for _ in 0..=self.random.below(4) {
            let number = self.sent.len();
            let mut id = format!("{}{number}", if number % 4 == 3 { 'd' } else { 'm' });
            if number > 0 && self.random.chance(15) {
                let earlier = &self.sent[number - 1 - self.random.index(number.min(10))];
                if earlier.starts_with('m') {
                    id.clone_from(earlier);
                }
            }
            entries.push(entry_of(self.order, &id));
            self.history.push(Event::Sent {
                id: Id::given(id.as_str()),
                at: self.pair.now(),
            });
            self.sent.push(id);
        }
        self.pair.send(&entries).await;
    }

    /// Sends on, and before that some of what was sent already, as one does who had no answer; or leaves one out. Sometimes
    /// it does so in a new session, or in an earlier one: late.
    async fn send_numbered(&mut self) {
        let (again, fresh) = (self.random.below(4), self.random.below(4));
        let leaves_out = self.random.chance(15);
        let which = self.random.index(2);
        let (session, is_late) = self.session(which);
        let (producer, before) = &mut self.producers[which];
        let known = before.len();
        let from = known - usize::try_from(again).unwrap_or(0).min(known);
        for _ in 0..fresh {
            let number = self.sent.len() + before.len() - known;
            before.push(format!("{}{number}", if number % 4 == 3 { 'd' } else { 'm' }));
        }
        let skipped = usize::from(leaves_out && from == known);
        let first = 1 + from + skipped;
        let ids = before.get(from + skipped..).unwrap_or_default();
        let entries: Vec<_> = ids.iter().map(|id| entry_of(self.order, id)).collect();
        let numbered = Numbered {
            producer: producer.clone(),
            session,
            first: first as u64,
            mark: before.len() as u64,
            max_waiting: (again == 3).then_some(2 + 2 * fresh),
        };
        let news = before[known..].to_vec();
        let answer = self.pair.send_as(Some(&numbered), &entries).await;
        let (producer, before) = &mut self.producers[which];
        let is_refused = is_late || skipped > 0 || entries.is_empty();
        let is_full = matches!(answer, Sent::Full { .. });
        let there = if is_refused || is_full { known } else { before.len() };
        match answer {
            Sent::Accepted { last, .. } => assert_eq!(last, there as u64, "{producer}: {answer:?}"),
            Sent::Missing { from } => assert_eq!(from, there as u64 + 1, "{producer}: {answer:?}"),
            Sent::Full { last, .. } => assert_eq!(last, known as u64, "{producer}: {answer:?}"),
            Sent::Replaced { session } => assert_eq!(Some(&session), self.sessions[which].last(), "{producer}"),
        }
        let is_replaced = matches!(answer, Sent::Replaced { .. });
        assert_eq!(
            is_replaced, is_late,
            "{producer}: {numbered:?} after {:?}",
            self.sessions[which]
        );
        before.truncate(there);
        for id in news.into_iter().take(there - known) {
            self.history.push(Event::Sent {
                id: Id::given(id.as_str()),
                at: self.pair.now(),
            });
            self.sent.push(id);
        }
    }

    /// The session in which a producer sends, and whether it is late: another is the latest.
    fn session(&mut self, which: usize) -> (Session, bool) {
        let sessions = &mut self.sessions[which];
        let latest = sessions.last().copied();
        let process = self.random.below(3);
        let (number, earlier) = latest.map_or((0, None), |latest| {
            let same_number = Session { process, ..latest };
            let drawn = [same_number, sessions[self.random.index(sessions.len())]][self.random.index(2)];
            (latest.number, Some(drawn).filter(|drawn| *drawn != latest))
        });
        match (latest, earlier) {
            (_, Some(earlier)) if self.random.chance(30) => return (earlier, true),
            (Some(latest), _) if self.random.chance(75) => return (latest, false),
            _ => {}
        }
        let number = number + 1 + self.random.below(2);
        sessions.push(Session { number, process });
        (Session { number, process }, false)
    }

    /// With `forget` the reply is lost: the owner does not know what it holds.
    async fn claim(&mut self, owner: usize, max: usize, forget: bool) {
        // Near the end, or it would hold up all that comes.
        let end = self.sent.len() as u64 + 1;
        let below = (self.random.chance(10)).then(|| Position(end.saturating_sub(self.random.below(6)).max(1)));
        let request = ClaimRequest {
            window: WINDOW,
            below,
            ..ask(self.owners[owner].0, max)
        };
        let claims = self.pair.claim(&request).await;
        for claim in &claims {
            self.history.push(Event::Claimed {
                position: claim.position,
                attempt: claim.attempt,
                owner: request.owner.clone(),
                at: self.pair.now(),
            });
        }
        if !forget {
            self.owners[owner].1.extend(claims);
        }
    }

    /// Runs more often than not, so that histories get on.
    async fn control(&mut self) {
        let request = match self.random.below(8) {
            0 => ControlRequest::Flow(Flow::Paused),
            1 => ControlRequest::Flow(Flow::Draining),
            2 => ControlRequest::Settle,
            3 => ControlRequest::Rate(Rate::every_ns(1 + self.random.below(2_000_000_000))),
            4 => ControlRequest::Rate(None),
            _ => ControlRequest::Flow(Flow::Running),
        };
        self.pair.control(&request).await;
    }

    /// Ends one to three things that the owner has, or once had, and maybe says so twice.
    async fn complete(&mut self, owner: usize) {
        let mut claims = Vec::new();
        for _ in 0..=self.random.below(3) {
            let known = &mut self.owners[owner].1;
            if !known.is_empty() {
                let index = self.random.index(known.len());
                claims.push(known[index].clone());
                if self.random.chance(70) {
                    known.remove(index);
                }
            }
        }
        let mut completions = Vec::new();
        for claim in &claims {
            let may_die = crate::pair::record(claim).id.as_str().starts_with('d');
            completions.push(match self.random.below(10) {
                0 => retry(claim, 0),
                1 => retry(claim, 1 + self.random.below(LEASE_US)),
                2..4 if may_die => halt(claim),
                4..7 if may_die => dead(claim, self.random.chance(50)),
                _ => done(claim),
            });
        }
        let name = OwnerId::new(self.owners[owner].0);
        for _ in 0..=u64::from(self.random.chance(20)) {
            let answers = self.pair.complete(&name, &completions).await;
            for (claim, answer) in claims.iter().zip(answers) {
                self.history.push(Event::Completed {
                    position: claim.position,
                    attempt: claim.attempt,
                    owner: name.clone(),
                    accepted: answer == Completed::Accepted,
                });
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

    async fn renew(&mut self, owner: usize) {
        let (name, known) = &mut self.owners[owner];
        let compare = self.random.chance(70);
        let renewed = self.pair.renew(&stay(name, compare.then_some(known))).await;
        if self.random.chance(50) {
            known.retain(|claim| !renewed.lost.contains(&claim.position));
        }
        known.extend(renewed.found);
    }

    /// Of the records as many stay as it takes to know again what is sent again: an id is at most so far from its first.
    async fn trim(&mut self, owner: usize) {
        const RESENT: u64 = 16;
        let random = &mut self.random;
        let mut limit = |least: u64| Limit {
            count: random.chance(70).then(|| least + random.below(6)),
            age_us: (least == 0 && random.chance(50)).then(|| random.below(2 * LEASE_US)),
        };
        let keep = Keep {
            // Where they do not ascend, which of them goes first is a store's own.
            records: if self.order == Order::Total {
                limit(RESENT)
            } else {
                Limit::NONE
            },
            dead: limit(0),
            outputs: limit(0),
        };
        // What goes has to be seen before, and what the renewal would deliver.
        let name = self.owners[owner].0;
        self.pair.renew(&stay(name, None)).await;
        self.look_at_shelves().await;
        if keep.outputs.is_set() {
            let active = self.pair.active.lock().expect("no panic").clone();
            self.receive_under(active, usize::MAX, None).await;
        }
        self.pair.renew(&trim(name, keep)).await;
    }

    async fn look_at_shelves(&mut self) {
        for row in self.pair.browse(Shelf::Record).await {
            let (position, _) = place(&row.json);
            self.records.insert(row.id, Position(position));
        }
        for row in self.pair.browse(Shelf::Dead).await {
            self.dead.insert(row.id);
        }
    }

    /// The positions at which the line is halted.
    async fn halted(&self) -> Vec<u64> {
        let rows = self.pair.browse(Shelf::Dead).await;
        let is_halted = |json: &[u8]| json.windows(13).any(|part| part == b"\"halted\":true");
        let halted = rows.iter().filter(|row| is_halted(&row.json));
        halted.map(|row| place(&row.json).0).collect()
    }

    /// A person looks at the dead letters, and has some of them retried, skipped, marked or purged, whether their turn has come or not; and
    /// one that is none. Maybe twice.
    async fn judge_letters(&mut self) {
        self.look_at_shelves().await;
        let letters = self.pair.browse(Shelf::Dead).await;
        let mut places: Vec<_> = letters.iter().map(|row| place(&row.json)).collect();
        places.truncate(1 + self.random.index(3));
        places.push((1 + self.random.below(self.sent.len() as u64 + 2), String::new()));
        let positions: Vec<_> = places.iter().map(|(position, _)| *position).collect();
        let verdicts = [
            Verdict::Retry,
            Verdict::Retry,
            Verdict::Purge,
            Verdict::Skip,
            Verdict::Mark,
        ];
        let verdict = verdicts[self.random.index(verdicts.len())];
        let halted = self.halted().await;
        let ids: BTreeMap<_, _> = letters.iter().map(|row| place(&row.json)).collect();
        for _ in 0..=u64::from(self.random.chance(30)) {
            let answers = self.pair.dead(verdict, &positions).await;
            for (position, answer) in positions.iter().zip(answers) {
                if (verdict, answer) == (Verdict::Retry, Judged::Done) {
                    let id = ids[position].clone();
                    if halted.contains(position) {
                        // The same message again.
                        self.dead.remove(&Id::given(id.as_str()));
                        continue;
                    }
                    self.history.push(Event::Sent {
                        id: Id::given(id.as_str()),
                        at: self.pair.now(),
                    });
                    self.sent.push(id);
                }
            }
        }
    }

    async fn campaign(&mut self, leader: usize, lock_us: u64) {
        let name = self.leaders[leader].name;
        let mut answer = self.pair.lead(name, lock_us).await;
        if self.random.chance(10) {
            answer = self.pair.lead(name, lock_us).await;
        }
        let news = match answer {
            Campaign::Leader { term } => {
                if term != self.term {
                    self.term = term;
                    let owner = OwnerId::new(name);
                    self.history.push(Event::Elected { term, owner });
                }
                News::Elected { term }
            }
            // Some do not hear that they lead no longer.
            Campaign::Standby { .. } if self.random.chance(50) => return,
            Campaign::Standby { .. } => News::Deposed,
        };
        self.leaders[leader].hear(self.pair.now(), news);
    }

    async fn follow(&mut self, leader: usize) {
        let leader = &mut self.leaders[leader];
        let followed = self.pair.follow(leader.cursor, 5).await;
        leader.hear(followed.now, News::Head { head: followed.head });
        for ticket in followed.entries {
            leader.cursor = ticket.cursor;
            let position = ticket.position;
            leader.hear(followed.now, News::Processed { position, ticket });
        }
    }

    /// Carries out the leader's last wish; with `lost` the reply is lost and it asks again.
    async fn emit(&mut self, leader: usize, lost: bool) {
        let Some(wish) = self.leaders[leader].wish.take() else {
            return;
        };
        let mut answer = self.emit_once(&wish).await;
        if lost {
            let counted = matches!(answer, Emitted::Advanced { .. });
            answer = self.emit_once(&wish).await;
            assert!(
                !counted || matches!(answer, Emitted::Moved { .. }),
                "said again: {answer:?}"
            );
        }
        let now = self.pair.now();
        let leader = &mut self.leaders[leader];
        match answer {
            Emitted::Advanced { head } => leader.hear(now, News::Emitted { head }),
            Emitted::Fenced { .. } => leader.hear(now, News::Deposed),
            Emitted::Moved { head } => {
                leader.cursor = Cursor::default();
                leader.hear(now, News::Reload);
                leader.hear(now, News::Head { head });
            }
        }
    }

    async fn emit_once(&mut self, wish: &EmitRequest) -> Emitted {
        let answer = self.pair.emit(wish).await;
        self.history.push(Event::Emitted {
            term: wish.term,
            from: wish.head,
            to: wish.head.plus(wish.entries.len() as u64),
            accepted: matches!(answer, Emitted::Advanced { .. }),
        });
        answer
    }

    /// A consumer asks for its place, or gives it up. It may not hear that it has lost it.
    async fn stand(&mut self) {
        let index = self.random.index(2);
        let lock_us = if self.random.chance(25) { 0 } else { LEASE_US };
        let (name, believed) = &mut self.consumers[index];
        match self.pair.stand(name, lock_us).await {
            Campaign::Leader { term } => {
                let owner = OwnerId::new(*name);
                *believed = Some(Reign { owner, term });
            }
            Campaign::Standby { .. } if self.random.chance(50) => *believed = None,
            Campaign::Standby { .. } => {}
        }
    }

    async fn receive(&mut self, max: usize, acknowledge: bool) {
        let acknowledge = self
            .outputs
            .last()
            .filter(|_| acknowledge)
            .map(|(position, _)| *position);
        let believed = self.consumers[self.random.index(2)].1.clone();
        self.receive_under(believed, max, acknowledge).await;
    }

    async fn receive_under(&mut self, believed: Option<Reign>, max: usize, acknowledge: Option<u64>) {
        for output in self.pair.receive_as(believed, acknowledge, max).await.outputs() {
            let (position, id) = place(&output);
            if let Some((_, before)) = self.outputs.iter().find(|(at, _)| *at == position) {
                assert_eq!(*before, output, "an output never changes");
                continue;
            }
            self.history.push(Event::Delivered {
                position: Position(position),
                id: Id::given(id),
                at: self.pair.now(),
                dead: output.windows(7).any(|part| part == b"\"dead\":"),
            });
            self.outputs.push((position, output));
        }
    }

    /// Everybody from before is gone. Who comes now finds all there is and brings it out.
    async fn heal_and_drain(&mut self) {
        self.pair.control(&ControlRequest::Flow(Flow::Running)).await;
        self.pair.control(&ControlRequest::Rate(None)).await;
        self.pair.advance(10 * LEASE_US);
        self.owners.push(("healer", Vec::new()));
        self.leaders.push(Leader::new("heir"));
        let (owner, leader) = (self.owners.len() - 1, self.leaders.len() - 1);
        for _ in 0..=2 * self.sent.len() {
            self.claim(owner, 100, false).await;
            let claims = std::mem::take(&mut self.owners[owner].1);
            for position in self.halted().await {
                let verdict = [Verdict::Mark, Verdict::Skip][usize::from(position.is_multiple_of(2))];
                assert_eq!(self.pair.dead(verdict, &[position]).await, [Judged::Done]);
            }
            self.pair.finish_work("healer", &claims).await;
            self.look_at_head().await;
            self.campaign(leader, LEASE_US).await;
            self.follow(leader).await;
            while self.leaders[leader].wish.is_some() {
                self.emit(leader, false).await;
            }
            if self.pair.status().await.head.0 > self.sent.len() as u64 {
                break;
            }
        }
        self.pair.stand("c0", LEASE_US).await;
        self.consumers = [(); 2].map(|()| ("c0", self.pair.active.lock().expect("no panic").clone()));
        self.receive(usize::MAX, false).await;
        let head = self.pair.status().await.head.0;
        assert_eq!(head, self.sent.len() as u64 + 1, "all of them came out");
    }

    /// Compares what is left with the reference, and judges the whole history.
    async fn judge(mut self, seed: u64) {
        self.look_at_shelves().await;
        let records = std::mem::take(&mut self.records).into_iter();
        let recorded = |(id, position)| Event::Recorded { id, position };
        self.history.extend(records.map(recorded));
        let dead = std::mem::take(&mut self.dead).into_iter();
        self.history.extend(dead.map(|id| Event::DeadLetter { id }));
        let found = match self.order {
            Order::Total => check_all(&self.history),
            Order::Key { .. } => {
                let by_key = order::check_by(&self.history, |_, id| key_of(id.as_str()));
                [check_any_order(&self.history), by_key].concat()
            }
            Order::None => check_any_order(&self.history),
        };
        let found: Vec<_> = found.iter().map(Violation::to_string).collect();
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        let ids: std::collections::HashSet<_> = self.sent.iter().collect();
        let count = loss::count(&self.history);
        assert_eq!((count.sent, count.lost), (ids.len() as u64, 0), "seed {seed}");
        self.pair.finish().await;
    }
}
