//! Runs operations against a partition, as actors that keep what they once learnt, and checks every step.

use bytes::Bytes;
use conga_core::invariant::{Event, bound, duplicate, fence, order};
use conga_core::lease::{Held, OwnerId};
use conga_core::lifecycle::State;
use conga_core::message::{Id, Position};
use conga_core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Cursor, DeadRequest, EmitRequest, Emitted, Judged, Limits,
    Partition, ReceiveRequest, RenewRequest, Shelf, Verdict,
};
use conga_core::sequencer::Event as News;
use conga_core::term::{Campaign, Role, Term};
use conga_core::time::Micros;

use crate::ending::{Ending, completion};
use crate::leader::{Leader, best_emit};
use crate::op::Op;

const LEASE_US: u64 = 500_000;
const WINDOW: u64 = 8;

pub(crate) struct Driver {
    partition: Partition,
    now: Micros,
    /// The latest time that it ever was: the clock may have been set back since, and nobody has noticed yet.
    latest: Micros,
    history: Vec<Event>,
    /// Everything ever sent, in order: the entry at index i has the position i + 1.
    sent: Vec<Id>,
    fresh: u64,
    owners: Vec<(OwnerId, Vec<Claim>)>,
    leaders: Vec<Leader>,
    /// Which of the owners have the store deliver.
    deliver: Vec<bool>,
    term: Term,
    outputs: Vec<(Position, Bytes)>,
    states: Vec<State>,
}

impl Default for Driver {
    fn default() -> Self {
        Self {
            partition: Partition::default(),
            now: Micros(1_000_000_000_000),
            latest: Micros::default(),
            history: Vec::new(),
            sent: Vec::new(),
            fresh: 0,
            owners: ["p0", "p1", "p2"].map(|name| (OwnerId::new(name), Vec::new())).into(),
            leaders: ["s0", "s1"].map(Leader::new).into(),
            deliver: vec![false; 3],
            term: Term::default(),
            outputs: Vec::new(),
            states: Vec::new(),
        }
    }
}

impl Driver {
    pub(crate) fn new(deliver: Vec<bool>) -> Self {
        Self {
            deliver,
            ..Self::default()
        }
    }

    pub(crate) fn run(&mut self, op: &Op) {
        match op {
            Op::Send { count, again } => self.send(*count, *again),
            Op::Claim { owner, max, window } => {
                self.claim(usize::from(*owner), usize::from(*max), u64::from(*window));
            }
            Op::Complete {
                owner,
                pick,
                ending,
                forget,
            } => self.complete(usize::from(*owner), usize::from(*pick), ending, *forget),
            Op::Judge { verdict, pick } => self.judge(*verdict, usize::from(*pick)),
            Op::Renew { owner, compare } => self.renew(usize::from(*owner), *compare),
            Op::Leave { owner } => {
                let request = RenewRequest {
                    keep: None,
                    owner: self.owners[usize::from(*owner)].0.clone(),
                    lease_us: 0,
                    held: None,
                    limits: Limits::default(),
                };
                self.partition.renew(self.now, &request);
            }
            Op::Campaign { leader } => self.campaign(usize::from(*leader), LEASE_US),
            Op::Resign { leader } => self.campaign(usize::from(*leader), 0),
            Op::Follow { leader } => self.follow(usize::from(*leader)),
            Op::Emit { leader, lost } => self.emit(usize::from(*leader), *lost),
            Op::Receive { max, acknowledge } => self.receive(usize::from(*max), *acknowledge),
            Op::Advance { us } => self.now = self.now + u64::from(*us),
            Op::SetBack { us } => {
                self.latest = self.latest.max(self.now);
                self.now = Micros(self.now.0 - u64::from(*us));
            }
        }
        self.check(matches!(op, Op::Claim { .. }));
        if let Op::Complete { owner, .. } | Op::Renew { owner, .. } | Op::Leave { owner } = op
            && self.deliver[usize::from(*owner)]
        {
            self.deliver();
            self.check(false);
        }
    }

    /// Ids that begin with `m` may be sent again; those with `d` may die.
    fn send(&mut self, count: u8, again: bool) {
        for _ in 0..count {
            self.fresh += 1;
            let kind = if self.fresh.is_multiple_of(4) { 'd' } else { 'm' };
            let mut id = Id::given(format!("{kind}{}", self.fresh));
            if again
                && let Some(earlier) = self.sent.iter().rev().nth(usize::from(count))
                && earlier.as_str().starts_with('m')
            {
                id = earlier.clone();
            }
            self.partition
                .send(&[format!("{{\"id\":\"{id}\",\"payload\":{}}}", self.fresh).into()]);
            self.history.push(Event::Sent {
                id: id.clone(),
                at: self.now,
            });
            self.sent.push(id);
        }
    }

    fn claim(&mut self, owner: usize, max: usize, window: u64) {
        let before = self.partition.status(self.now);
        let request = ClaimRequest {
            owner: self.owners[owner].0.clone(),
            max,
            lease_us: LEASE_US,
            window,
            below: None,
            limits: Limits::default(),
        };
        let claims = self.partition.claim(self.now, &request);
        assert!(claims.len() <= max);
        assert!(
            claims.is_sorted_by(|a, b| a.position < b.position),
            "claims ascend: {claims:?}"
        );
        self.history.push(Event::Window { size: window });
        for claim in &claims {
            let is_new = claim.position >= before.next;
            assert_eq!(is_new, claim.attempt.0 == 1, "{claim:?}");
            assert!(!is_new || claim.position.past(before.head) < window, "{claim:?}");
            self.history.push(Event::Claimed {
                position: claim.position,
                attempt: claim.attempt,
                owner: request.owner.clone(),
                at: self.now,
            });
        }
        // What was with many that died waits for somebody who holds nothing, or little.
        let takes_new = claims.iter().any(|claim| claim.position >= before.next);
        let gets_nothing = claims.is_empty() && max > 0 && self.held_by(&request.owner) == 0;
        if takes_new || gets_nothing {
            let passed_over = (before.head.0..before.next.0)
                .find(|position| self.partition.state(Position(*position)) == Some(State::Waiting));
            assert_eq!(passed_over, None, "what is free goes before what is new");
        }
        self.owners[owner].1.extend(claims);
    }

    /// How many leases an owner has.
    fn held_by(&self, owner: &OwnerId) -> usize {
        let request = RenewRequest {
            keep: None,
            owner: owner.clone(),
            lease_us: LEASE_US,
            held: Some(Vec::new()),
            limits: Limits::default(),
        };
        self.partition.clone().renew(self.now, &request).found.len()
    }

    fn complete(&mut self, owner: usize, pick: usize, ending: &Ending, forget: bool) {
        let (name, known) = &mut self.owners[owner];
        if known.is_empty() {
            return;
        }
        let index = pick % known.len();
        let claim = known[index].clone();
        if forget {
            known.remove(index);
        }
        let completion = completion(&claim, ending);
        let answers = self.partition.complete(self.now, name, &[completion]);
        self.history.push(Event::Completed {
            position: claim.position,
            attempt: claim.attempt,
            owner: name.clone(),
            accepted: answers == [Completed::Accepted],
        });
    }

    /// The positions at which the line is halted.
    fn halted(&self) -> Vec<Position> {
        let positions = (1..=self.sent.len() as u64).map(Position);
        positions
            .filter(|position| self.partition.state(*position) == Some(State::Halted))
            .collect()
    }

    fn judge(&mut self, verdict: Verdict, pick: usize) {
        let halted = self.halted();
        let position = match halted.len() {
            0 => Position(pick as u64 % (self.sent.len() as u64 + 1)),
            count => halted[pick % count],
        };
        if halted.is_empty() && verdict == Verdict::Retry {
            // It would be a new message.
            return;
        }
        let request = DeadRequest {
            verdict,
            positions: vec![position],
        };
        let before = self.partition.clone();
        let answers = self.partition.dead(self.now, &request);
        match (verdict, halted.is_empty()) {
            (Verdict::Purge, false) => assert_eq!(answers, [Judged::Early]),
            (_, false) => {
                assert_eq!(answers, [Judged::Done]);
                let once = self.partition.clone();
                let again = self.partition.dead(self.now, &request);
                assert_eq!(
                    again,
                    [if verdict == Verdict::Retry {
                        Judged::Missing
                    } else {
                        Judged::Passed
                    }]
                );
                assert_eq!(self.partition, once, "said again it changes nothing");
            }
            (Verdict::Purge, true) => {
                // What it takes away is asked for at the end.
                self.partition = before;
            }
            (_, true) => {
                assert!(matches!(answers[..], [Judged::Missing | Judged::Passed]), "{answers:?}");
                assert_eq!(self.partition, before);
            }
        }
    }

    fn renew(&mut self, owner: usize, compare: bool) {
        let (name, known) = &mut self.owners[owner];
        let held = |claim: &Claim| Held {
            position: claim.position,
            attempt: claim.attempt,
        };
        let renewed = self.partition.renew(
            self.now,
            &RenewRequest {
                keep: None,
                owner: name.clone(),
                lease_us: LEASE_US,
                held: compare.then(|| known.iter().map(held).collect()),
                limits: Limits::default(),
            },
        );
        known.extend(renewed.found);
    }

    fn campaign(&mut self, leader: usize, lock_us: u64) {
        let owner = self.leaders[leader].name.clone();
        let answer = self.partition.campaign(
            self.now,
            &CampaignRequest {
                owner: owner.clone(),
                role: Role::Leader,
                lock_us,
            },
        );
        let news = match answer {
            Campaign::Leader { term } => {
                if term != self.term {
                    self.term = term;
                    self.history.push(Event::Elected { term, owner });
                }
                News::Elected { term }
            }
            Campaign::Standby { .. } => News::Deposed,
        };
        self.leaders[leader].hear(self.now, news);
    }

    fn follow(&mut self, leader: usize) {
        let leader = &mut self.leaders[leader];
        let followed = self.partition.follow(self.now, leader.cursor, 5);
        leader.hear(self.now, News::Head { head: followed.head });
        for processed in followed.entries {
            leader.cursor = processed.cursor;
            let position = processed.position;
            let ticket = processed;
            leader.hear(self.now, News::Processed { position, ticket });
        }
    }

    fn emit(&mut self, leader: usize, lost: bool) {
        let Some(wish) = self.leaders[leader].wish.take() else {
            return;
        };
        let mut answer = self.emit_once(&wish);
        if lost {
            let counted = matches!(answer, Emitted::Advanced { .. });
            answer = self.emit_once(&wish);
            assert!(
                !counted || matches!(answer, Emitted::Moved { .. }),
                "said again: {answer:?}"
            );
        }
        let now = self.now;
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

    fn emit_once(&mut self, wish: &EmitRequest) -> Emitted {
        let answer = self.partition.emit(self.now, wish);
        self.history.push(Event::Emitted {
            term: wish.term,
            from: wish.head,
            to: wish.head.plus(wish.entries.len() as u64),
            accepted: matches!(answer, Emitted::Advanced { .. }),
        });
        answer
    }

    /// The store delivers: what the best of leaders would have delivered, who knows all there is.
    fn deliver(&mut self) {
        let before = self.partition.status(self.now);
        let waits = |at: &u64| {
            let state = self.partition.state(Position(*at));
            matches!(state, Some(State::Processed | State::Dead))
        };
        let ready = (before.head.0..before.next.0).take_while(waits).count();
        let mut twin = self.partition.clone();
        let request = best_emit(&twin, self.now);
        assert_eq!(
            request.entries.len(),
            ready,
            "what is ready is what stands without a gap"
        );
        let head = before.head.plus(ready as u64);
        assert_eq!(twin.emit(self.now, &request), Emitted::Advanced { head });
        assert_eq!(self.partition.deliver_ready(self.now), ready > 0);
        assert_eq!(self.partition, twin, "it does as an emit does");
        assert!(
            !self.partition.deliver_ready(self.now),
            "a second time there is nothing"
        );
        assert_eq!(self.partition, twin);
        if ready > 0 {
            self.history.push(Event::Emitted {
                term: before.term,
                from: before.head,
                to: head,
                accepted: true,
            });
        }
    }

    fn receive(&mut self, max: usize, acknowledge: bool) {
        let acknowledge = self
            .outputs
            .last()
            .filter(|_| acknowledge)
            .map(|(position, _)| *position);
        let request = ReceiveRequest {
            acknowledge,
            max,
            ..ReceiveRequest::default()
        };
        for output in self.partition.receive(&request).outputs() {
            let json: serde_json::Value = serde_json::from_slice(&output).expect("an output is JSON");
            let position = Position(json["position"].as_u64().expect("a position"));
            if let Some((_, before)) = self.outputs.iter().find(|(at, _)| *at == position) {
                assert_eq!(*before, output, "an output never changes");
                continue;
            }
            self.history.push(Event::Delivered {
                position,
                id: Id::given(json["id"].as_str().expect("an id")),
                at: self.now,
                dead: json.get("dead").is_some(),
            });
            self.outputs.push((position, output));
        }
    }

    /// What must hold after every step.
    fn check(&mut self, claimed: bool) {
        let status = self.partition.status(self.now);
        let now_in: Vec<_> = (1..=self.sent.len() as u64)
            .map(|position| {
                self.partition
                    .state(Position(position))
                    .expect("a message is somewhere")
            })
            .collect();
        let count = |wanted: &dyn Fn(&State) -> bool| now_in.iter().filter(|state| wanted(state)).count() as u64;
        assert_eq!(self.partition.state(Position(now_in.len() as u64 + 1)), None);
        assert_eq!(count(&|state| *state == State::Delivered), status.head.0 - 1);
        assert_eq!(
            count(&|state| matches!(state, State::Processed | State::Dead)),
            status.processed
        );
        assert_eq!(
            count(&|state| matches!(state, State::Waiting | State::Delayed | State::Leased | State::Halted)),
            status.waiting + status.in_flight
        );
        assert_eq!(status.next.past(status.head), status.in_flight + status.processed);
        assert!(status.next.past(status.head) <= WINDOW, "the bound");
        for (index, (was, is)) in self.states.iter().zip(&now_in).enumerate() {
            let through = |middle: State| was.may_become(middle) && middle.may_become(*is);
            assert!(
                was == is || was.may_become(*is) || (claimed && through(State::Waiting)),
                "position {}: {was:?} became {is:?}",
                index + 1
            );
        }
        self.states = now_in;
        for check in [order::check, duplicate::check, fence::check, bound::check] {
            assert_eq!(check(&self.history), []);
        }
    }

    /// Everybody from before is gone. Who comes now finds all there is and brings it out: with a leader, or without any.
    pub(crate) fn heal_and_drain(&mut self, by_the_store: bool) {
        self.now = self.latest.max(self.now) + 10_000_000;
        self.check(false);
        self.owners.push((OwnerId::new("healer"), Vec::new()));
        self.leaders.push(Leader::new("heir"));
        let (owner, leader) = (self.owners.len() - 1, self.leaders.len() - 1);
        for _ in 0..=2 * self.sent.len() {
            for position in self.halted() {
                let verdict = [Verdict::Retry, Verdict::Mark][usize::from(position.0.is_multiple_of(2))];
                let positions = vec![position];
                let answers = self.partition.dead(self.now, &DeadRequest { verdict, positions });
                assert_eq!(answers, [Judged::Done]);
            }
            self.check(false);
            self.claim(owner, 100, WINDOW);
            self.check(true);
            while !self.owners[owner].1.is_empty() {
                self.complete(owner, 0, &Ending::Done, true);
            }
            self.check(false);
            if by_the_store {
                self.deliver();
            } else {
                self.campaign(leader, LEASE_US);
                self.follow(leader);
            }
            while self.leaders[leader].wish.is_some() {
                self.emit(leader, false);
            }
            self.check(false);
        }
        self.receive(usize::MAX, false);
        assert_eq!(
            self.partition.status(self.now).head.0,
            self.sent.len() as u64 + 1,
            "all of them came out"
        );
    }

    /// The whole history, with what stands in the partition at its end.
    pub(crate) fn finish(&mut self) -> Vec<Event> {
        let mut history = std::mem::take(&mut self.history);
        for row in self.partition.browse(Shelf::Record).rows {
            let json: serde_json::Value = serde_json::from_slice(&row.json).expect("a row is JSON");
            let position = Position(json["position"].as_u64().expect("a position"));
            history.push(Event::Recorded { id: row.id, position });
        }
        let dead = self.partition.browse(Shelf::Dead).rows;
        history.extend(dead.into_iter().map(|row| Event::DeadLetter { id: row.id }));
        history.push(Event::Ended { at: self.now });
        history
    }

    /// How many different ids were sent.
    pub(crate) fn sent_ids(&self) -> u64 {
        self.sent.iter().collect::<std::collections::HashSet<_>>().len() as u64
    }
}
