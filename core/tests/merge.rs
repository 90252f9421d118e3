//! The merge over real partitions: whoever dies between any two steps, whatever answer is lost, each number comes out once, in
//! its order, and none is given up that had come in time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::merge::{Action, Event, Found, Merge, Room};
use conga_core::message::{Body, Format, Output, Payload, Position, Record, parse, write_open};
use conga_core::partition::{
    CampaignRequest, ClaimRequest, Completion, GiveUp, Late, Limits, MergeRequest, Merged, Partition, Piece,
    ReceiveRequest, Received, Shelf,
};
use conga_core::shape::Shape;
use conga_core::term::{Campaign, Reign, Role, Term};
use conga_core::time::Micros;
use proptest::prelude::*;

const LOCK_US: u64 = 20_000;
const TIMEOUT_US: u64 = 2_000;
const WINDOW: usize = 12;
/// How much is kept of a partition, and of how many the place is known.
const ROOM: Room = Room { count: 5, bytes: 9 };
const PLACES: usize = 20;
const PARTITIONS: usize = 3;

/// What one step of a merge became.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    /// It was done, and nobody heard of it.
    Unheard,
    Dropped,
}

#[derive(Debug, Clone)]
enum Op {
    Send(usize),
    Process(usize),
    Campaign(usize),
    Read(usize, usize, usize),
    Merge(usize, Fate),
    Prove(usize),
    Crash(usize),
    Pass(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let merger = 0..2_usize;
    let partition = 0..PARTITIONS;
    prop_oneof![
        3 => (1..3_usize).prop_map(Op::Send),
        4 => partition.clone().prop_map(Op::Process),
        3 => merger.clone().prop_map(Op::Campaign),
        6 => (merger.clone(), partition, 1..5_usize).prop_map(|(who, partition, max)| Op::Read(who, partition, max)),
        6 => (merger.clone(), prop_oneof![5 => Just(Fate::Answered), 2 => Just(Fate::Unheard), 1 => Just(Fate::Dropped)])
            .prop_map(|(who, fate)| Op::Merge(who, fate)),
        3 => merger.clone().prop_map(Op::Prove),
        1 => merger.prop_map(Op::Crash),
        4 => (0..1_500_u64).prop_map(Op::Pass),
    ]
}

struct Merger {
    owner: OwnerId,
    machine: Merge<Bytes>,
    /// The merge to be done next.
    wish: Option<Action>,
    reigns: Vec<Option<Reign>>,
    /// So many that come after what is in hand were looked through for which head.
    glimpsed: Vec<(Position, usize)>,
    /// Since when the base says that which head is missing.
    missing: Option<(Position, Micros)>,
    /// When the head was missing for long enough: which, and what had come to each partition by then.
    ends: Option<(Position, Vec<Position>)>,
}

impl Merger {
    fn new(name: String) -> Self {
        Self {
            owner: OwnerId::new(name),
            machine: Merge::new(PARTITIONS, 4),
            wish: None,
            reigns: vec![None; PARTITIONS],
            glimpsed: vec![(Position::FIRST, 0); PARTITIONS],
            missing: None,
            ends: None,
        }
    }

    fn step(&mut self, event: Event<Bytes>) {
        match event {
            Event::Read {
                partition, ref outputs, ..
            } => {
                let (_, count) = &mut self.glimpsed[partition];
                *count = count.saturating_sub(outputs.len());
            }
            Event::Lost { partition } => self.glimpsed[partition].1 = 0,
            _ => {}
        }
        if let wish @ Action::Merge { .. } = self.machine.step(event) {
            // Under a new term what was asked for before is dropped.
            self.wish = Some(wish);
        }
    }
}

struct World {
    now: Micros,
    parts: Vec<Partition>,
    base: Partition,
    mergers: Vec<Merger>,
    born: usize,
    /// What is to be sent, and which of it fails.
    script: Vec<(u64, bool)>,
    sent: usize,
    came: BTreeMap<u64, Micros>,
    failed: BTreeSet<u64>,
    deliver_dead: bool,
    gives_up: bool,
    given_up: BTreeSet<u64>,
}

impl World {
    fn new(script: Vec<(u64, bool)>, gives_up: bool, deliver_dead: bool) -> Self {
        let mut base = Partition::default();
        base.shape(Some("total/3".parse::<Shape>().expect("a shape")));
        Self {
            now: Micros(1_000_000),
            parts: vec![Partition::default(); PARTITIONS],
            base,
            mergers: vec![Merger::new("m0".to_owned()), Merger::new("m1".to_owned())],
            born: 2,
            script,
            sent: 0,
            came: BTreeMap::new(),
            failed: BTreeSet::new(),
            deliver_dead,
            gives_up,
            given_up: BTreeSet::new(),
        }
    }

    fn act(&mut self, op: &Op) {
        match *op {
            Op::Send(count) => {
                for _ in 0..count {
                    let Some((number, fails)) = self.script.get(self.sent).copied() else {
                        return;
                    };
                    self.sent += 1;
                    self.came.entry(number).or_insert(self.now);
                    if fails {
                        self.failed.insert(number);
                    }
                    let home = usize::try_from(number).expect("small") % PARTITIONS;
                    self.parts[home].send(&[Bytes::from(format!("{{\"sequence\":{number},\"payload\":{fails}}}"))]);
                }
            }
            Op::Process(partition) => self.process(partition),
            Op::Campaign(who) => self.campaign(who),
            Op::Read(who, partition, max) => {
                self.read(who, partition, max);
            }
            Op::Merge(who, fate) => self.merge(who, fate),
            Op::Prove(who) => self.prove(who),
            Op::Crash(who) => {
                self.mergers[who] = Merger::new(format!("m{}", self.born));
                self.born += 1;
            }
            Op::Pass(us) => self.now = self.now + us,
        }
    }

    fn process(&mut self, partition: usize) {
        let owner = OwnerId::new("p");
        let request = ClaimRequest {
            owner: owner.clone(),
            max: 3,
            lease_us: 1_000_000_000,
            window: 100,
            below: None,
            limits: Limits::default(),
        };
        let part = &mut self.parts[partition];
        let completions: Vec<_> = part
            .claim(self.now, &request)
            .into_iter()
            .map(|claim| {
                let input = parse(&claim.entry, claim.position, Format::Any, 1_000).expect("an envelope");
                let fails = input.payload.text() == "true";
                let body = if fails {
                    let reason = "no".to_owned();
                    Body::Dead { reason }
                } else {
                    Body::Result(Payload::string("done"))
                };
                let record = Record {
                    position: claim.position,
                    id: input.id,
                    sequence: input.sequence,
                    key: None,
                    body,
                    attempts: claim.attempt,
                    created: claim.claimed,
                    processing: claim.claimed,
                };
                if fails {
                    Completion::Dead {
                        tombstone: record,
                        on_dead: conga_core::partition::OnDead::Mark,
                    }
                } else {
                    Completion::Done(record)
                }
            })
            .collect();
        part.complete(self.now, &owner, &completions);
        part.deliver_ready(self.now);
    }

    fn campaign(&mut self, who: usize) {
        let merger = &mut self.mergers[who];
        let request = CampaignRequest {
            owner: merger.owner.clone(),
            role: Role::Leader,
            lock_us: LOCK_US,
        };
        match self.base.campaign(self.now, &request) {
            Campaign::Leader { term } => merger.step(Event::Elected { term }),
            Campaign::Standby { .. } => {
                merger.step(Event::Deposed);
                merger.wish = None;
            }
        }
    }

    /// Whether all that there is was read.
    fn read(&mut self, who: usize, partition: usize, max: usize) -> bool {
        let (merger, part) = (&mut self.mergers[who], &mut self.parts[partition]);
        let request = CampaignRequest {
            owner: merger.owner.clone(),
            role: Role::Consumer,
            lock_us: LOCK_US,
        };
        match part.campaign(self.now, &request) {
            Campaign::Leader { term } => {
                let reign = Reign {
                    owner: merger.owner.clone(),
                    term,
                };
                if merger.reigns[partition].as_ref() != Some(&reign) {
                    merger.reigns[partition] = Some(reign);
                    merger.step(Event::Lost { partition });
                }
            }
            // It may believe that it still is: then it is fenced.
            Campaign::Standby { .. } => {}
        }
        let done = merger.machine.acknowledge(partition);
        let acknowledged = done.map_or(0, |(_, count)| count);
        let (held, head) = (merger.machine.held(partition), merger.machine.head());
        let is_sought = merger.machine.is_sought_in(partition);
        let max = if is_sought {
            max
        } else {
            max.min(WINDOW.saturating_sub(held))
        };
        let glimpses = is_sought && held >= PLACES;
        if merger.glimpsed[partition].0 != head || held == 0 {
            merger.glimpsed[partition] = (head, 0);
        }
        let beyond = if glimpses { merger.glimpsed[partition].1 } else { 0 };
        let request = ReceiveRequest {
            reign: merger.reigns[partition].clone(),
            acknowledge: done.map(|(position, _)| position),
            skip: held - acknowledged + beyond,
            max,
        };
        let Received::Outputs(outputs) = part.receive(&request) else {
            merger.step(Event::Lost { partition });
            return false;
        };
        if let Some((position, _)) = done {
            merger.step(Event::Acknowledged { partition, position });
        }
        let all = outputs.len() < max;
        let outputs: Vec<_> = outputs.into_iter().map(found).collect();
        let room = ROOM;
        if glimpses {
            merger.glimpsed[partition].1 += outputs.len();
            merger.step(Event::Glimpsed {
                partition,
                outputs,
                room,
            });
        } else {
            merger.step(Event::Read {
                partition,
                outputs,
                room,
            });
        }
        assert!(merger.machine.bytes(partition) <= ROOM.bytes + PLACES, "it is bounded");
        if let Some(partition) = merger.machine.again() {
            merger.step(Event::Lost { partition });
        }
        all
    }

    fn merge(&mut self, who: usize, fate: Fate) {
        let merger = &mut self.mergers[who];
        let Some(Action::Merge {
            term,
            head,
            count,
            is_missing,
            give_up,
            ..
        }) = merger.wish.take()
        else {
            return;
        };
        let tombstones = (0..give_up as u64).map(|nth| open(head.plus(nth)));
        let request = MergeRequest {
            term,
            head,
            late: merger
                .machine
                .late()
                .map(|(position, output)| Late {
                    position,
                    reason: "late".to_owned(),
                    output: String::from_utf8(output.to_vec()).expect("text"),
                })
                .collect(),
            pieces: merger
                .machine
                .ready(count)
                .map(|(position, is_dead, _)| match (is_dead, self.deliver_dead) {
                    (false, _) => Piece::Result(processed(position)),
                    (true, true) => Piece::Tombstone(processed(position)),
                    (true, false) => Piece::Nothing,
                })
                .collect(),
            is_missing,
            give_up: (give_up > 0).then(|| GiveUp {
                after_us: TIMEOUT_US,
                tombstones: tombstones.collect(),
            }),
        };
        if matches!(fate, Fate::Dropped) {
            return merger.step(Event::Unknown);
        }
        let answer = self.base.merge(self.now, &request);
        if give_up > 0
            && let Merged::Advanced {
                head: after, missing, ..
            } = answer
        {
            for number in head.0..after.0 {
                let overdue = missing.expect("it is missing") + TIMEOUT_US;
                let came = self.came.get(&number);
                assert!(
                    came.is_none_or(|came| *came >= overdue),
                    "{number} had come at {came:?}"
                );
                self.given_up.insert(number);
            }
        }
        let merger = &mut self.mergers[who];
        if let (Fate::Answered, Merged::Advanced { head, missing, .. }) = (fate, answer) {
            merger.missing = missing.map(|since| (head, since));
        }
        merger.step(match (fate, answer) {
            (Fate::Unheard | Fate::Dropped, _) => Event::Unknown,
            (_, Merged::Advanced { head, .. }) => Event::Merged { head },
            (_, Merged::Moved { head }) => Event::Moved { head },
            (_, Merged::Fenced { .. }) => Event::Deposed,
        });
        if matches!(answer, Merged::Fenced { .. }) {
            merger.wish = None;
        }
    }

    /// As a service does when a number is missing for long enough.
    fn prove(&mut self, who: usize) {
        let merger = &mut self.mergers[who];
        let missing = merger
            .missing
            .filter(|(head, since)| Some(*head) == merger.machine.missing() && self.now.since(*since) >= TIMEOUT_US);
        let Some((head, _)) = missing.filter(|_| self.gives_up) else {
            merger.ends = None;
            return;
        };
        let status: Vec<_> = self.parts.iter().map(|part| part.status(self.now)).collect();
        let ends = match merger.ends.take() {
            Some((of, ends)) if of == head => ends,
            _ => status.iter().map(|status| status.next.plus(status.waiting)).collect(),
        };
        for partition in merger.machine.doubts() {
            if status[partition].head >= ends[partition] && self.read(who, partition, 100) {
                self.mergers[who].step(Event::Proved { partition, head });
            }
        }
        self.mergers[who].ends = Some((head, ends));
    }

    /// One that lives brings out all there is.
    fn heal(&mut self) {
        self.act(&Op::Send(usize::MAX));
        self.now = self.now + 10 * LOCK_US;
        self.act(&Op::Crash(0));
        self.act(&Op::Crash(1));
        for _ in 0..40 + 8 * self.script.len() {
            self.now = self.now + LOCK_US / 2;
            self.campaign(0);
            for partition in 0..PARTITIONS {
                self.process(partition);
                self.read(0, partition, 5);
            }
            self.merge(0, Fate::Answered);
            self.prove(0);
        }
    }

    /// Each number once and in order; what was given up is a dead letter if it came, and nothing else is.
    fn judge(&mut self) {
        let outputs = self.base.receive(&ReceiveRequest {
            max: usize::MAX,
            ..ReceiveRequest::default()
        });
        let outputs: Vec<_> = outputs.outputs();
        let positions: Vec<u64> = outputs
            .iter()
            .map(|output| Output::parse(output).expect("an output").record.position.0)
            .collect();
        assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
        let head = self.base.status(self.now).head.0;
        let last = self.came.keys().next_back().copied().unwrap_or(0);
        let first_gap = (1..=last + 1)
            .find(|number| !self.came.contains_key(number))
            .expect("one");
        let should = if self.gives_up { last + 1 } else { first_gap };
        assert_eq!(head, should, "all went out that could; {:?}", self.mergers[0].machine);
        for number in 1..head {
            let is_there = positions.binary_search(&number).is_ok();
            let may_be_left_out = !self.deliver_dead && self.failed.contains(&number);
            assert!(is_there || may_be_left_out, "{number} is not there");
        }
        let letters = self.base.browse(Shelf::Dead).rows;
        let dead: BTreeSet<u64> = letters
            .iter()
            .map(|row| row.id.as_str().parse().expect("a number"))
            .collect();
        assert_eq!(dead.len(), letters.len(), "each is buried once");
        for number in &self.given_up {
            let has_result = self.script.iter().any(|(sent, fails)| sent == number && !fails);
            assert_eq!(dead.contains(number), has_result, "{number} came late");
        }
        for number in &dead {
            assert!(
                self.given_up.contains(number) || self.failed.contains(number),
                "{number} is no dead letter"
            );
        }
        let left = self.parts.iter().map(|part| part.status(self.now).output).sum::<u64>();
        assert!(left == 0 || !self.gives_up, "{left} outputs are not acknowledged");
    }
}

fn found(output: Bytes) -> Found<Bytes> {
    let read = Output::parse(&output).expect("an output").record;
    Found {
        position: read.position,
        place: read.sequence.map(Position),
        is_dead: matches!(read.body, Body::Dead { .. }),
        bytes: 1,
        ticket: output,
    }
}

fn open(position: Position) -> String {
    let record = Record {
        position,
        id: conga_core::message::Id::given(position.to_string()),
        sequence: Some(position.0),
        key: None,
        body: Body::Result(Payload::string("x")),
        attempts: conga_core::lease::Attempt(1),
        created: Micros(1),
        processing: Micros(1),
    };
    write_open(&record)
}

fn processed(position: Position) -> String {
    let mut text = open(position);
    text.push_str(",\"processed\":\"1970-01-01T00:00:00.000001Z\"");
    text
}

/// Numbers about in order: some fail, some come twice, some late, and some never.
fn script() -> impl Strategy<Value = Vec<(u64, bool)>> {
    let message = (0..8_u64, 0..10_u8, any::<bool>());
    prop::collection::vec(message, 0..90).prop_map(|messages| {
        let mut script: Vec<(u64, u64, bool)> = Vec::new();
        for ((shift, kind, fails), number) in messages.into_iter().zip(1..) {
            match kind {
                0 => {}
                1 => {
                    script.push((number + shift, number, false));
                    script.push((number + 2 * shift, number, fails));
                }
                2 => script.push((number, number, true)),
                3 => script.push((number + 40 * shift, number, false)),
                _ => script.push((number + shift / 3, number, false)),
            }
        }
        script.sort_by_key(|(when, ..)| *when);
        script.into_iter().map(|(_, number, fails)| (number, fails)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_each_number_comes_out_once_and_in_order(
        script in script(),
        ops in prop::collection::vec(op(), 0..400),
        gives_up: bool,
        deliver_dead: bool,
    ) {
        let mut world = World::new(script, gives_up, deliver_dead);
        for op in &ops {
            world.act(op);
        }
        world.heal();
        world.judge();
    }
}

#[test]
fn a_merge_counts_only_at_the_base_of_a_merged_line() {
    let request = MergeRequest {
        term: Term(0),
        head: Position(1),
        late: Vec::new(),
        pieces: vec![Piece::Result(processed(Position(1)))],
        is_missing: false,
        give_up: None,
    };
    let mut partition = Partition::default();
    assert_eq!(
        partition.merge(Micros(1), &request),
        Merged::Moved { head: Position(1) }
    );
    partition.shape(Some("key/3".parse().expect("a shape")));
    assert_eq!(
        partition.merge(Micros(1), &request),
        Merged::Moved { head: Position(1) }
    );
    assert_eq!(partition.status(Micros(1)).output, 0);
}
