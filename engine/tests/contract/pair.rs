//! A store under test next to the reference: every verb goes to both, and their answers must be the same.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use conga::clock::{Clock, ManualClock};
use conga::core::lease::{Held, OwnerId};
use conga::core::message::{Body, Format, Payload, Position, Record, parse};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Followed, Judged, Keep, Limits, MergeRequest, Merged, Numbered, OnDead, Processed, Ready,
    ReceiveRequest, Received, RenewRequest, Renewed, Row, Sent, Shelf, Status, Verdict,
};
use conga::core::shape::{Order, Shape};
use conga::core::term::{Campaign, Reign, Role, Term};
use conga::core::time::Micros;
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore, Store};

use crate::{Fixture, Opened};

/// When every case begins: a time that has all its digits.
pub(crate) const START: Micros = Micros(1_767_323_045_123_456);
/// How long a lease or a lock lasts where a case does not say.
pub(crate) const LEASE_US: u64 = 1_000_000;

/// The two of them. Cursors are the reference's outside, and each store's own inside.
pub(crate) struct Pair {
    store: SharedStore,
    reference: MemoryStore,
    /// The same two, seen by somebody who has them deliver.
    delivering: (SharedStore, MemoryStore),
    /// Who delivers what is completed from now on.
    pub(crate) delivery: Delivery,
    clock: ManualClock,
    cursors: HashMap<Cursor, Cursor>,
    /// The latest reign of a consumer, under which everything is received where a case does not say.
    pub(crate) active: Mutex<Option<Reign>>,
    /// What every failure says first.
    pub(crate) context: String,
    _keep: Box<dyn Any + Send + Sync>,
}

impl Pair {
    pub(crate) async fn open<F: Fixture>() -> Self {
        let clock = ManualClock::new(START);
        let Opened { led, delivering, keep } = F::open(clock.clone()).await;
        let reference = MemoryStore::new(Clock::Manual(clock.clone())).delivering(Delivery::Leader);
        Self {
            store: led,
            delivering: (delivering, reference.delivering(Delivery::Store)),
            delivery: Delivery::Leader,
            reference,
            clock,
            cursors: HashMap::new(),
            active: Mutex::default(),
            context: String::new(),
            _keep: keep,
        }
    }

    pub(crate) fn now(&self) -> Micros {
        self.clock.now()
    }

    pub(crate) fn advance(&self, us: u64) {
        self.clock.advance(us);
    }

    pub(crate) fn set_back(&self, us: u64) {
        self.clock.set_back(us);
    }

    fn completing(&self) -> (&SharedStore, &MemoryStore) {
        match self.delivery {
            Delivery::Leader => (&self.store, &self.reference),
            Delivery::Store => (&self.delivering.0, &self.delivering.1),
        }
    }

    // The verbs.

    pub(crate) async fn send(&self, entries: &[Bytes]) {
        self.send_as(None, entries).await;
    }

    /// Sends what is numbered, or what is not.
    pub(crate) async fn send_as(&self, numbered: Option<&Numbered>, entries: &[Bytes]) -> Sent {
        let is = self.store.send(entries, numbered).await;
        let should = self.reference.send(entries, numbered).await;
        assert_eq!(is, should, "{} send {numbered:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn claim(&self, request: &ClaimRequest) -> Vec<Claim> {
        let is = self.store.claim(request).await;
        let should = self.reference.claim(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Vec<Completed> {
        let (store, reference) = self.completing();
        let is = store.complete(owner, completions).await;
        let should = reference.complete(owner, completions).await;
        assert_eq!(is, should, "{} complete by {owner}: {completions:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn renew(&self, request: &RenewRequest) -> Renewed {
        let (store, reference) = self.completing();
        let is = store.renew(request).await;
        let should = reference.renew(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn campaign(&self, request: &CampaignRequest) -> Campaign {
        let is = self.store.campaign(request).await;
        let should = self.reference.campaign(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn follow(&mut self, cursor: Cursor, max: usize) -> Followed {
        let is = self.store.follow(self.translate(cursor), max).await;
        let should = self.reference.follow(cursor, max).await;
        let (is, should) = (is.expect("an answer"), should.expect("the reference answers"));
        let what = |followed: &Followed| -> Vec<_> {
            let entries = followed.entries.iter();
            entries.map(|entry| (entry.position, entry.turn.clone())).collect()
        };
        let context = format!("{} follow {cursor:?}, at most {max}", self.context);
        assert_eq!(what(&is), what(&should), "{context}");
        assert_eq!((is.now, is.head), (should.now, should.head), "{context}");
        assert!(
            is.entries.is_sorted_by(|a, b| a.cursor < b.cursor),
            "{context}: cursors grow: {is:?}"
        );
        let pairs = should.entries.iter().zip(&is.entries);
        self.cursors
            .extend(pairs.map(|(should, is)| (should.cursor, is.cursor)));
        should
    }

    pub(crate) async fn emit(&self, request: &EmitRequest) -> Emitted {
        let mut translated = request.clone();
        for ready in &mut translated.entries {
            ready.processed.cursor = self.translate(ready.processed.cursor);
        }
        let is = self.store.emit(&translated).await;
        let should = self.reference.emit(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn merge(&self, request: &MergeRequest) -> Merged {
        let is = self.store.merge(request).await;
        let should = self.reference.merge(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    /// What comes after the first `skip` of what is left.
    pub(crate) async fn receive_after(&self, skip: usize, acknowledge: Option<u64>, max: usize) -> Vec<Bytes> {
        let request = ReceiveRequest {
            reign: self.active.lock().expect("no panic").clone(),
            acknowledge: acknowledge.map(Position),
            skip,
            max,
        };
        let is = self.store.receive(&request).await;
        let should = self.reference.receive(&request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers").outputs()
    }

    pub(crate) async fn receive(&self, acknowledge: Option<u64>, max: usize) -> Vec<Bytes> {
        let reign = self.active.lock().expect("no panic").clone();
        match self.receive_as(reign, acknowledge, max).await {
            Received::Outputs(outputs) => outputs,
            Received::Fenced { term } => panic!("fenced off under term {term}"),
        }
    }

    pub(crate) async fn receive_as(&self, reign: Option<Reign>, acknowledge: Option<u64>, max: usize) -> Received {
        let request = ReceiveRequest {
            reign,
            acknowledge: acknowledge.map(Position),
            skip: 0,
            max,
        };
        let is = self.store.receive(&request).await;
        let should = self.reference.receive(&request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn shape(&self, wanted: Option<Shape>) -> Option<Shape> {
        let is = self.store.shape(wanted).await;
        let should = self.reference.shape(wanted).await;
        assert_eq!(is, should, "{} shape {wanted:?}", self.context);
        should.expect("the reference answers")
    }

    pub(crate) async fn control(&self, request: &ControlRequest) -> Control {
        let is = self.store.control(request).await;
        let should = self.reference.control(request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn dead(&self, verdict: Verdict, positions: &[u64]) -> Vec<Judged> {
        let positions = positions.iter().copied().map(Position).collect();
        let request = DeadRequest { verdict, positions };
        let (store, reference) = self.completing();
        let is = store.dead(&request).await;
        let should = reference.dead(&request).await;
        assert_eq!(is, should, "{} {request:?}", self.context);
        self.compare_status().await;
        should.expect("the reference answers")
    }

    pub(crate) async fn status(&self) -> Status {
        self.compare_status().await;
        self.reference.status().await.expect("the reference answers")
    }

    /// All rows of a shelf, by their ids.
    pub(crate) async fn browse(&self, what: Shelf) -> Vec<Row> {
        let is = all_rows(&*self.store, what).await;
        let should = all_rows(&self.reference, what).await;
        assert_eq!(is, should, "{} {what:?}", self.context);
        should
    }

    /// Compares everything that can be read and that a case may not have looked at.
    pub(crate) async fn finish(mut self) {
        self.status().await;
        self.browse(Shelf::Record).await;
        self.browse(Shelf::Dead).await;
        self.follow(Cursor::default(), usize::MAX).await;
        self.receive(None, usize::MAX).await;
    }

    async fn compare_status(&self) {
        let reference = self.reference.shape(None).await.expect("the reference answers");
        let is_total = reference.is_none_or(|shape| shape.order == Order::Total);
        let sorted = |mut status: Status| {
            status.processors.sort();
            // Which of the records that stay is the oldest is only told roughly where they do not ascend.
            if !is_total {
                status.oldest.record = None;
            }
            status
        };
        let is = self.store.status().await.map(sorted);
        let should = self.reference.status().await.map(sorted);
        assert_eq!(is, should, "{} status", self.context);
    }

    fn translate(&self, cursor: Cursor) -> Cursor {
        self.cursors.get(&cursor).copied().unwrap_or(cursor)
    }

    // What cases say often.

    pub(crate) async fn send_ids(&self, ids: &[&str]) {
        let entries: Vec<_> = ids.iter().map(|id| entry(id)).collect();
        self.send(&entries).await;
    }

    /// Sends so many messages `m1`, `m2` … .
    pub(crate) async fn send_many(&self, count: u64) {
        let entries: Vec<_> = (1..=count).map(|number| entry(&format!("m{number}"))).collect();
        self.send(&entries).await;
    }

    pub(crate) async fn take(&self, name: &str, max: usize) -> Vec<Claim> {
        self.claim(&ask(name, max)).await
    }

    /// Completes what `name` has with its results.
    pub(crate) async fn finish_work(&self, name: &str, claims: &[Claim]) -> Vec<Completed> {
        let completions: Vec<_> = claims.iter().map(done).collect();
        self.complete(&OwnerId::new(name), &completions).await
    }

    pub(crate) async fn lead(&self, name: &str, lock_us: u64) -> Campaign {
        let (owner, role) = (OwnerId::new(name), Role::Leader);
        self.campaign(&CampaignRequest { owner, role, lock_us }).await
    }

    /// Asks for the place of the active consumer.
    pub(crate) async fn stand(&self, name: &str, lock_us: u64) -> Campaign {
        let (owner, role) = (OwnerId::new(name), Role::Consumer);
        let request = CampaignRequest { owner, role, lock_us };
        let campaign = self.campaign(&request).await;
        if let Campaign::Leader { term } = campaign {
            let owner = request.owner;
            *self.active.lock().expect("no panic") = Some(Reign { owner, term });
        }
        campaign
    }

    /// Takes the leadership, which must be free or the caller's.
    pub(crate) async fn elect(&self, name: &str) -> Term {
        match self.lead(name, LEASE_US).await {
            Campaign::Leader { term } => term,
            Campaign::Standby { leader } => panic!("{leader:?} leads"),
        }
    }

    /// What waits from the head on without a gap.
    pub(crate) async fn ready(&mut self) -> (Position, Vec<Ready>) {
        let Followed { now, head, entries } = self.follow(Cursor::default(), usize::MAX).await;
        let mut by_position: HashMap<Position, Processed> =
            entries.into_iter().map(|entry| (entry.position, entry)).collect();
        let ready = (head.0..)
            .map_while(|position| by_position.remove(&Position(position)))
            .map(|processed| Ready {
                processed,
                sequencing: now,
            })
            .collect();
        (head, ready)
    }

    /// Delivers all that can be.
    pub(crate) async fn deliver(&mut self, term: Term) -> Emitted {
        let (head, entries) = self.ready().await;
        self.advance(7);
        self.emit(&EmitRequest { term, head, entries }).await
    }

    /// Claims all there is, completes it and delivers it.
    pub(crate) async fn drain(&mut self, name: &str, leader: &str) -> Emitted {
        let claims = self.take(name, usize::MAX).await;
        self.finish_work(name, &claims).await;
        let term = self.elect(leader).await;
        self.deliver(term).await
    }

    /// Position and id of all that is in the output.
    pub(crate) async fn outputs(&self) -> Vec<(u64, String)> {
        let outputs = self.receive(None, usize::MAX).await;
        outputs.iter().map(|output| place(output)).collect()
    }
}

async fn all_rows(store: &dyn Store, shelf: Shelf) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut from: Option<String> = None;
    for _ in 0..10_000 {
        let page = store.browse(shelf, from.as_deref()).await.expect("a page");
        rows.extend(page.rows);
        from = page.next;
        if from.is_none() {
            rows.sort_by(|a, b| (&a.id, &a.json).cmp(&(&b.id, &b.json)));
            // A row may come on two pages.
            rows.dedup();
            return rows;
        }
    }
    panic!("the pages of {shelf:?} have no end");
}

/// An entry that any producer could have sent.
pub(crate) fn entry(id: &str) -> Bytes {
    let id = serde_json::Value::from(id);
    format!("{{\"id\":{id},\"payload\":{{\"of\":{id}}}}}").into()
}

pub(crate) fn ask(name: &str, max: usize) -> ClaimRequest {
    ClaimRequest {
        owner: OwnerId::new(name),
        max,
        lease_us: LEASE_US,
        window: 1_000,
        below: None,
        limits: Limits::default(),
    }
}

pub(crate) fn stay(name: &str, held: Option<&[Claim]>) -> RenewRequest {
    RenewRequest {
        keep: None,
        owner: OwnerId::new(name),
        lease_us: LEASE_US,
        held: held.map(|claims| claims.iter().map(holding).collect()),
        limits: Limits::default(),
    }
}

/// A renewal that lets go of what is over.
pub(crate) fn trim(name: &str, keep: Keep) -> RenewRequest {
    RenewRequest {
        keep: Some(keep),
        ..stay(name, None)
    }
}

pub(crate) fn leave(name: &str) -> RenewRequest {
    RenewRequest {
        lease_us: 0,
        ..stay(name, None)
    }
}

pub(crate) fn holding(claim: &Claim) -> Held {
    Held {
        position: claim.position,
        attempt: claim.attempt,
    }
}

/// The record of a claim. From its payload can be told which attempt it was.
pub(crate) fn record(claim: &Claim) -> Record {
    let result = format!("done at {} in attempt {}", claim.position, claim.attempt);
    let mut record = claim.record(Body::Result(Payload::string(&result)));
    record.created = START;
    if let Ok(input) = parse(&claim.entry, claim.position, Format::Any, u64::MAX) {
        (record.id, record.sequence, record.key) = (input.id, input.sequence, input.key);
    }
    record
}

pub(crate) fn done(claim: &Claim) -> Completion {
    Completion::Done(record(claim))
}

pub(crate) fn dead(claim: &Claim, deliver: bool) -> Completion {
    let body = Body::Dead {
        reason: "it \"can't\"\nbe done: 100 % {é}".to_owned(),
    };
    let tombstone = Record { body, ..record(claim) };
    let on_dead = if deliver { OnDead::Mark } else { OnDead::Skip };
    Completion::Dead { tombstone, on_dead }
}

/// Failed for good, and the line halts at it.
pub(crate) fn halt(claim: &Claim) -> Completion {
    let Completion::Dead { tombstone, .. } = dead(claim, true) else {
        unreachable!("it is dead");
    };
    let on_dead = OnDead::Halt;
    Completion::Dead { tombstone, on_dead }
}

pub(crate) fn retry(claim: &Claim, delay_us: u64) -> Completion {
    let held = holding(claim);
    Completion::Retry { held, delay_us }
}

/// The positions of claims.
pub(crate) fn positions(claims: &[Claim]) -> Vec<u64> {
    claims.iter().map(|claim| claim.position.0).collect()
}

/// Position and attempt of claims.
pub(crate) fn attempts(claims: &[Claim]) -> Vec<(u64, u32)> {
    claims.iter().map(|claim| (claim.position.0, claim.attempt.0)).collect()
}

/// Position and id of an output. Its payload may be JSON that nobody's numbers can hold, so it is passed over.
pub(crate) fn place(output: &[u8]) -> (u64, String) {
    #[derive(serde::Deserialize)]
    struct Place {
        position: u64,
        id: String,
    }
    let Place { position, id } = serde_json::from_slice(output).expect("an output is JSON");
    (position, id)
}
