//! What is special about this store. That it keeps the laws, the contract suite shows.

use std::path::PathBuf;
use std::time::Duration;

use conga_core::lease::{Attempt, Held};
use conga_core::message::{Body, Entry, Id, Payload, Position, Record};
use conga_core::partition::{Limits, OnDead, Processed, Ready};
use conga_core::term::{Role, Term};
use conga_core::time::Micros;
use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::store::StoreError;
use crate::wake::Topic;

mod open;

struct Rig {
    directory: TempDir,
    clock: ManualClock,
}

impl Rig {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: ManualClock::new(Micros(1_000_000)),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("conga.db")
    }

    fn options(&self) -> SqliteOptions {
        SqliteOptions {
            clock: Clock::Manual(self.clock.clone()),
            busy_limit: Duration::from_millis(100),
            owner_slack_percent: 0,
            ..SqliteOptions::default()
        }
    }

    async fn open(&self) -> SqliteStore {
        self.open_line("orders", self.options()).await.unwrap()
    }

    async fn open_line(&self, line: &str, options: SqliteOptions) -> Result<SqliteStore> {
        SqliteStore::open(&self.path(), &line.parse().unwrap(), options).await
    }

    fn count(&self, sql: &str) -> i64 {
        let connection = Connection::open(self.path()).unwrap();
        connection.query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn owner(name: &str) -> OwnerId {
    OwnerId::new(name)
}

fn claims(name: &str, max: usize) -> ClaimRequest {
    ClaimRequest {
        owner: owner(name),
        max,
        lease_us: 1_000_000,
        window: 1_000,
        below: None,
        limits: Limits::default(),
    }
}

fn record(claim: &Claim, id: &str) -> Record {
    Record {
        position: claim.position,
        id: Id::given(id),
        sequence: None,
        key: None,
        body: Body::Result(Payload::string("done")),
        attempts: claim.attempt,
        created: Micros(7),
        processing: claim.claimed,
    }
}

async fn deliver(store: &dyn Store) -> Emitted {
    let request = CampaignRequest {
        owner: owner("leader"),
        role: Role::Leader,
        lock_us: 1_000_000,
    };
    let Campaign::Leader { term } = store.campaign(&request).await.unwrap() else {
        panic!("somebody else leads");
    };
    let followed = store.follow(Cursor::default(), 100).await.unwrap();
    emit_dense(store, term, &followed).await
}

async fn emit_dense(store: &dyn Store, term: Term, followed: &Followed) -> Emitted {
    let mut entries: Vec<Processed> = followed.entries.clone();
    entries.sort_by_key(|processed| processed.position);
    let head = followed.head;
    let entries = (0..)
        .zip(entries)
        .take_while(|(index, processed)| processed.position == head.plus(*index))
        .map(|(_, processed)| Ready {
            processed,
            sequencing: followed.now,
        })
        .collect();
    store.emit(&EmitRequest { term, head, entries }).await.unwrap()
}

#[tokio::test]
async fn two_stores_on_one_file_see_and_wake_each_other() {
    let rig = Rig::new();
    let (one, two) = (rig.open().await, rig.open().await);
    let mut input = two.wakes().listen(&[Topic::Input]);
    let mut lock = two.wakes().listen(&[Topic::Lock]);
    one.send(&[Bytes::from_static(b"a")], None).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(20), input.hinted()).await;
    assert!(heard.is_ok(), "nobody woke us");
    assert_eq!(two.claim(&claims("b", 10)).await.unwrap().len(), 1);
    assert_eq!(one.claim(&claims("a", 10)).await.unwrap(), []);
    let heard = tokio::time::timeout(Duration::from_millis(50), lock.hinted()).await;
    assert!(heard.is_err(), "that was about something else");
}

#[tokio::test]
async fn lines_in_one_file_are_apart_and_each_is_dense() {
    let rig = Rig::new();
    let orders = rig.open().await;
    let again = rig.open().await;
    let others = rig.open_line("others", rig.options()).await.unwrap();
    for store in [&orders, &others, &again, &orders] {
        store
            .send(&[Bytes::from_static(b"1"), Bytes::from_static(b"2")], None)
            .await
            .unwrap();
    }
    let positions = |claims: Vec<Claim>| claims.iter().map(|claim| claim.position.0).collect::<Vec<_>>();
    assert_eq!(
        positions(orders.claim(&claims("a", 10)).await.unwrap()),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(positions(others.claim(&claims("a", 10)).await.unwrap()), [1, 2]);
}

#[tokio::test]
async fn an_idle_claim_writes_only_when_the_deadline_moves_by_more_than_the_slack() {
    let rig = Rig::new();
    let options = SqliteOptions {
        owner_slack_percent: 25,
        ..rig.options()
    };
    let store = rig.open_line("orders", options).await.unwrap();
    let deadline = || rig.count("SELECT max(deadline) FROM owner");
    store.claim(&claims("a", 1)).await.unwrap();
    assert_eq!(deadline(), 2_000_000);
    rig.clock.advance(250_000);
    store.claim(&claims("a", 1)).await.unwrap();
    assert_eq!(deadline(), 2_000_000, "a quarter is spared");
    rig.clock.advance(1);
    store.claim(&claims("a", 1)).await.unwrap();
    assert_eq!(deadline(), 2_250_001);
    let shorter = ClaimRequest {
        lease_us: 100,
        ..claims("a", 1)
    };
    store.claim(&shorter).await.unwrap();
    assert_eq!(deadline(), 1_250_101, "never later than it was asked for");
}

#[tokio::test]
async fn what_finds_nothing_to_do_leaves_the_log_alone() {
    let rig = Rig::new();
    let store = rig.open().await;
    store.claim(&claims("a", 1)).await.unwrap();
    let log = rig.directory.path().join("conga.db-wal");
    let size = || std::fs::metadata(&log).unwrap().len();
    let before = size();
    for _ in 0..10 {
        store.claim(&claims("a", 1)).await.unwrap();
        store
            .receive(&ReceiveRequest {
                acknowledge: Some(Position(9)),
                max: 9,
                ..ReceiveRequest::default()
            })
            .await
            .unwrap();
        store
            .campaign(&CampaignRequest {
                owner: owner("a"),
                role: Role::Leader,
                lock_us: 0,
            })
            .await
            .unwrap();
    }
    assert_eq!(size(), before);
}

#[tokio::test]
async fn everything_is_there_after_opening_again() {
    let rig = Rig::new();
    let store = rig.open().await;
    let entries = ["a", "b", "c", "d", "e"].map(Bytes::from);
    store.send(&entries, None).await.unwrap();
    let taken = store.claim(&claims("p", 4)).await.unwrap();
    let ends = [
        Completion::Done(record(&taken[0], "a")),
        Completion::Done(record(&taken[2], "c")),
        Completion::Retry {
            held: Held {
                position: Position(4),
                attempt: Attempt(1),
            },
            delay_us: 5,
        },
    ];
    store.complete(&owner("p"), &ends).await.unwrap();
    assert_eq!(deliver(&store).await, Emitted::Advanced { head: Position(2) });
    let before = (
        store.status().await.unwrap(),
        store.follow(Cursor::default(), 9).await.unwrap(),
    );
    drop(store);
    let store = rig.open().await;
    assert_eq!(
        before,
        (
            store.status().await.unwrap(),
            store.follow(Cursor::default(), 9).await.unwrap()
        )
    );
    assert_eq!(before.0.waiting, 1);
    assert_eq!(before.0.in_flight, 2);
    assert_eq!(before.0.processed, 1);
    assert_eq!(
        store
            .receive(&ReceiveRequest {
                acknowledge: None,
                max: 9,
                ..ReceiveRequest::default()
            })
            .await
            .unwrap()
            .outputs()
            .len(),
        1
    );
    let again = store.complete(&owner("p"), &ends).await.unwrap();
    assert_eq!(again, [Completed::Stale; 3]);
}

#[tokio::test]
async fn the_largest_sequence_and_bytes_that_are_no_text_come_back() {
    let rig = Rig::new();
    let store = rig.open().await;
    store
        .send(&[Bytes::from_static(b"a"), Bytes::from_static(b"b")], None)
        .await
        .unwrap();
    let taken = store.claim(&claims("p", 2)).await.unwrap();
    let largest = Record {
        sequence: Some(u64::MAX),
        key: Some("k".to_owned()),
        body: Body::Result(Payload::bytes(b"\xff\x00")),
        ..record(&taken[0], "a")
    };
    let small = Record {
        sequence: Some(5),
        body: Body::Result(Payload::json(&Bytes::from_static(b"{\"a\": 1.0}")).unwrap()),
        ..record(&taken[1], "b")
    };
    let ends = [Completion::Done(largest), Completion::Done(small)];
    store.complete(&owner("p"), &ends).await.unwrap();
    deliver(&store).await;
    let outputs = store
        .receive(&ReceiveRequest {
            acknowledge: None,
            max: 9,
            ..ReceiveRequest::default()
        })
        .await
        .unwrap()
        .outputs();
    let texts: Vec<_> = outputs.iter().map(|output| String::from_utf8_lossy(output)).collect();
    assert!(texts[0].contains("\"sequence\":18446744073709551615,\"key\":\"k\",\"payload_base64\":\"/wA=\""));
    assert!(texts[1].contains("\"sequence\":5,\"payload\":{\"a\": 1.0},"));
    let page = store.browse(Shelf::Record, None).await.unwrap();
    assert_eq!(
        page.rows.iter().map(|row| row.json.clone()).collect::<Vec<_>>(),
        outputs
    );
    assert_eq!(
        rig.count("SELECT count(*) FROM records WHERE sequenced = '1970-01-01T00:00:01.000000Z'"),
        2
    );
}

#[tokio::test]
async fn an_entry_over_the_limit_is_not_read_but_kept_whole_when_it_dies() {
    let rig = Rig::new();
    let store = rig.open().await;
    let large = Bytes::from(vec![b'x'; 5 << 20]);
    store.send(std::slice::from_ref(&large), None).await.unwrap();
    let taken = store.claim(&claims("p", 1)).await.unwrap();
    assert_eq!(taken[0].entry, Entry::Oversize { bytes: 5 << 20 });
    let tombstone = Record {
        body: Body::Dead {
            reason: "too large".to_owned(),
        },
        ..record(&taken[0], "x")
    };
    let dead = Completion::Dead {
        tombstone,
        on_dead: OnDead::Mark,
    };
    store.complete(&owner("p"), &[dead]).await.unwrap();
    deliver(&store).await;
    assert_eq!(rig.count("SELECT count(*) FROM input"), 0);
    let page = store.browse(Shelf::Dead, None).await.unwrap();
    let letter: serde_json::Value = serde_json::from_slice(&page.rows[0].json).unwrap();
    assert_eq!(letter["entry"].as_str().unwrap().len(), large.len());
}

#[tokio::test]
async fn pages_hold_every_record_once() {
    let rig = Rig::new();
    let store = rig.open().await;
    store.send(&vec![Bytes::from_static(b"a"); 2_500], None).await.unwrap();
    let all = ClaimRequest {
        window: 10_000,
        ..claims("p", 10_000)
    };
    let taken = store.claim(&all).await.unwrap();
    let ends: Vec<_> = taken
        .iter()
        .map(|claim| Completion::Done(record(claim, &claim.position.to_string())))
        .collect();
    store.complete(&owner("p"), &ends).await.unwrap();
    let (mut from, mut ids, mut pages) = (None, std::collections::HashSet::new(), 0);
    loop {
        let page = store.browse(Shelf::Record, from.as_deref()).await.unwrap();
        pages += 1;
        for row in page.rows {
            assert!(ids.insert(row.id));
        }
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    assert_eq!((pages, ids.len()), (3, 2_500));
}

#[tokio::test]
async fn no_hot_statement_scans_a_table() {
    let rig = Rig::new();
    drop(rig.open().await);
    let connection = Connection::open(rig.path()).unwrap();
    for file in [
        include_str!("send.sql"),
        include_str!("claim.sql"),
        include_str!("renew.sql"),
        include_str!("complete.sql"),
        include_str!("follow.sql"),
        include_str!("emit.sql"),
        include_str!("receive.sql"),
        include_str!("status.sql"),
        include_str!("browse.sql"),
    ] {
        for statement in file.split("-- name: ").skip(1) {
            let (_, sql) = statement.split_once('\n').unwrap();
            let sql = format!("EXPLAIN QUERY PLAN {}", sql.split(';').next().unwrap());
            let mut plan = connection.prepare(&sql).unwrap();
            let nulls = vec![rusqlite::types::Null; plan.parameter_count()];
            let steps: Vec<String> = plan
                .query_map(rusqlite::params_from_iter(nulls), |row| row.get(3))
                .unwrap()
                .map(|step| step.unwrap())
                .collect();
            for step in steps {
                assert!(
                    !step.starts_with("SCAN") || step.starts_with("SCAN CONSTANT"),
                    "{sql}: {step}"
                );
                assert!(!step.contains("TEMP B-TREE"), "{sql}: {step}");
            }
        }
    }
}

#[tokio::test]
async fn an_acknowledgement_that_is_repeated_waits_for_the_disk_again() {
    let rig = Rig::new();
    let store = rig.open().await;
    let request = ReceiveRequest {
        acknowledge: Some(Position(1)),
        max: 0,
        ..ReceiveRequest::default()
    };
    let waits = store.worker.call(move |database| {
        receive::receive(database, &request)?;
        Ok(database.take_unsynced())
    });
    assert!(waits.await.unwrap(), "an earlier one may not be on the disk");
}

#[tokio::test]
async fn what_has_its_turn_goes_out_without_waiting() {
    let rig = Rig::new();
    let options = SqliteOptions {
        delivery: Delivery::Store,
        ..rig.options()
    };
    let store = rig.open_line("orders", options).await.unwrap();
    let entries = ["a", "b", "c", "d"].map(Bytes::from);
    store.send(&entries, None).await.unwrap();
    let taken = store.claim(&claims("p", 4)).await.unwrap();
    let done = |index: usize| Completion::Done(record(&taken[index], &index.to_string()));
    // The head is not the first of its batch, and one waits for another.
    let batch = [done(3), done(1), done(0)];
    store.complete(&owner("p"), &batch).await.unwrap();
    let rows = |table: &str| rig.count(&format!("SELECT count(*) FROM {table}"));
    assert_eq!((rows("input"), rows("processed"), rows("output")), (2, 1, 2));
    assert_eq!(rig.count("SELECT cursor FROM processed"), 1, "the first of its batch");
    assert_eq!(rig.count("SELECT count(*) FROM record WHERE sequenced IS NULL"), 1);
    let mut output = store.wakes().listen(&[Topic::Output]);
    store.complete(&owner("p"), &[done(2)]).await.unwrap();
    output.hinted().await;
    let tables = ["input", "flight", "processed", "output", "record"];
    assert_eq!(tables.map(rows), [0, 0, 0, 4, 4]);
    assert_eq!(
        rig.count("SELECT min(processed = sequencing AND sequencing = sequenced) FROM record"),
        1
    );
}

/// Else a process with one consumer after the other would run out of descriptors.
#[tokio::test]
async fn who_gives_a_seat_up_leaves_no_file() {
    let rig = Rig::new();
    let options = SqliteOptions {
        clock: Clock::Store,
        ..rig.options()
    };
    let store = rig.open_line("orders", options).await.unwrap();
    let files = || {
        std::fs::read_dir(rig.directory.path().join("conga.db-alive"))
            .unwrap()
            .count()
    };
    let ask = async |name: &str, lock_us| {
        let request = CampaignRequest {
            owner: owner(name),
            role: Role::Consumer,
            lock_us,
        };
        store.campaign(&request).await.unwrap()
    };
    assert_eq!(ask("active", 60_000_000).await, Campaign::Leader { term: Term(1) });
    let active = Some(owner("active"));
    assert_eq!(ask("standby", 60_000_000).await, Campaign::Standby { leader: active });
    assert_eq!(files(), 2);
    ask("standby", 0).await;
    assert_eq!(files(), 1);
    ask("active", 0).await;
    assert_eq!(files(), 0);
}
