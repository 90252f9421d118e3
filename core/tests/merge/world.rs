//! The partitions, what merges them, and all who come and go.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga_core::lease::OwnerId;
use conga_core::message::{Body, Format, Payload, Record, parse};
use conga_core::partition::{ClaimRequest, Completion, Limits, Partition};
use conga_core::shape::Shape;
use conga_core::time::Micros;

use crate::merger::Merger;
use crate::op::{Fate, Op};
use crate::{LOCK_US, PARTITIONS};

mod judgement;
mod merging;

pub(crate) struct World {
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
    pub(crate) fn new(script: Vec<(u64, bool)>, gives_up: bool, deliver_dead: bool) -> Self {
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

    pub(crate) fn act(&mut self, op: &Op) {
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

    /// One that lives brings out all there is.
    pub(crate) fn heal(&mut self) {
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
}
