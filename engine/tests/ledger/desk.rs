//! Where a ledger is at work: beside a store in memory, which is told what the ledger keeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::{Body, Id, Output, Payload, Position, Record};
use conga::core::partition::{ClaimRequest, Completion, Limits, ReceiveRequest, RenewRequest};
use conga::core::time::Micros;
use conga::ledger::postgres::PostgresLedger;
use conga::ledger::store::StoreLedger;
use conga::ledger::{Kept, SharedLedger};
use conga::line::Line;
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore};
use tokio::task::block_in_place;

use crate::postgres_server::PostgresServer;

/// One kind of ledger.
pub(crate) trait Desk: Sync {
    async fn new() -> Self;

    /// The ledger of a line that lives in `store`.
    async fn ledger(&self, line: &Line, store: &SharedStore) -> SharedLedger;
}

pub(crate) struct StoreDesk;

impl Desk for StoreDesk {
    async fn new() -> Self {
        Self
    }

    async fn ledger(&self, _line: &Line, store: &SharedStore) -> SharedLedger {
        Arc::new(StoreLedger::new(store.clone()))
    }
}

pub(crate) struct PostgresDesk(pub(crate) PostgresServer);

impl Desk for PostgresDesk {
    async fn new() -> Self {
        Self(block_in_place(|| PostgresServer::start(&["fsync=off"])).unwrap())
    }

    async fn ledger(&self, line: &Line, _store: &SharedStore) -> SharedLedger {
        Arc::new(PostgresLedger::open(&self.0.url(), line).await.unwrap())
    }
}

/// A line of its own, at which somebody works.
pub(crate) struct Work {
    pub(crate) store: SharedStore,
    pub(crate) ledger: SharedLedger,
    owner: OwnerId,
}

impl Work {
    /// With `messages` that are all claimed, at positions 1 and following.
    pub(crate) async fn at(desk: &impl Desk, messages: usize) -> Self {
        static LINES: AtomicU32 = AtomicU32::new(1);
        let line: Line = format!("line-{}", LINES.fetch_add(1, Ordering::SeqCst))
            .parse()
            .unwrap();
        let store: SharedStore = Arc::new(MemoryStore::default().delivering(Delivery::Store));
        let ledger = desk.ledger(&line, &store).await;
        let entries = vec![Bytes::from_static(b"x"); messages];
        store.send(&entries, None).await.unwrap();
        let mut work = Self {
            store,
            ledger,
            owner: OwnerId::new("one"),
        };
        assert_eq!(work.claim().await, messages);
        work
    }

    async fn claim(&mut self) -> usize {
        let request = ClaimRequest {
            owner: self.owner.clone(),
            max: 10_000,
            lease_us: 60_000_000,
            window: 100_000,
            below: None,
            limits: Limits::default(),
        };
        self.store.claim(&request).await.unwrap().len()
    }

    /// Who had all messages leaves without ending any, and another claims them.
    pub(crate) async fn pass_on(&mut self) -> usize {
        let leave = RenewRequest {
            keep: None,
            owner: self.owner.clone(),
            lease_us: 0,
            held: None,
            limits: Limits::default(),
        };
        self.store.renew(&leave).await.unwrap();
        self.owner = OwnerId::new("two");
        self.claim().await
    }

    /// Records, then completes with what is kept.
    pub(crate) async fn end(&self, results: &[Record]) -> Vec<Kept> {
        let kept = self.ledger.record(results).await.unwrap();
        let completions = kept.iter().zip(results).map(|(kept, given)| {
            Completion::Done(match kept {
                Kept::Given => given.clone(),
                Kept::Other(held) => Record {
                    position: given.position,
                    attempts: given.attempts,
                    processing: given.processing,
                    ..held.clone()
                },
            })
        });
        let completions: Vec<Completion> = completions.collect();
        self.store.complete(&self.owner, &completions).await.unwrap();
        kept
    }

    /// All that was delivered.
    pub(crate) async fn outputs(&self) -> Vec<Record> {
        let request = ReceiveRequest {
            reign: None,
            acknowledge: None,
            skip: 0,
            max: 100_000,
        };
        let outputs = self.store.receive(&request).await.unwrap();
        outputs
            .outputs()
            .iter()
            .map(|output| Output::parse(output).unwrap().record)
            .collect()
    }

    /// All that is recorded, by id.
    pub(crate) async fn rows(&self) -> Vec<Record> {
        let (mut rows, mut from) = (Vec::new(), None);
        loop {
            let page = self.ledger.browse(from.as_deref()).await.unwrap();
            for row in page.rows {
                let record = Output::parse(&row.json).unwrap().record;
                assert_eq!(record.id, row.id);
                rows.push(record);
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        rows.sort_by(|one, other| one.id.cmp(&other.id));
        rows
    }
}

/// A result of the message at this position, at its first attempt.
pub(crate) fn result(position: u64, id: &str, payload: Payload) -> Record {
    Record {
        position: Position(position),
        id: Id::given(id),
        sequence: None,
        key: None,
        body: Body::Result(payload),
        attempts: Attempt(1),
        created: Micros(1_767_323_045_000_006),
        processing: Micros(1_767_323_045_100_007),
    }
}

pub(crate) fn text(position: u64, id: &str, text: &str) -> Record {
    result(position, id, Payload::string(text))
}

pub(crate) fn ids(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.id.as_str()).collect()
}
