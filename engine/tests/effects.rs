//! Effects on SQLite: a bank whose sum must not change. Nothing in its tables keeps a transfer from being made twice.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::{Body, Format, Id, Output, Payload, Record, parse};
use conga::core::partition::{ClaimRequest, Completed, Completion, Limits, RenewRequest};
use conga::core::retry::Backoff;
use conga::deliver::Consumer;
use conga::process::{Fail, Handler as _, HandlerError, Message, Processing, Processor, ProcessorOptions};
use conga::store::sqlite::{
    EffectError, EffectOptions, SqliteOptions, SqliteStore, Transaction, Transactional, rusqlite,
};
use conga::store::{Store as _, StoreError};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const ACCOUNTS: u64 = 10;
const OPENING: i64 = 1_000_000;

struct Bank {
    folder: TempDir,
    store: Arc<SqliteStore>,
    begun: Arc<AtomicU64>,
    sent: u64,
    consumer: Consumer,
}

struct Clerk {
    stop: CancellationToken,
    running: JoinHandle<Processing>,
}

impl Clerk {
    async fn end(self) -> Processing {
        self.stop.cancel();
        self.running.await.unwrap()
    }
}

impl Bank {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Self::store(&folder.path().join("bank.db")).await);
        let bank = Self {
            consumer: Consumer::new(store.clone()),
            folder,
            store,
            begun: Arc::default(),
            sent: 0,
        };
        let sql = format!(
            "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL CHECK (balance >= 0)); \
             CREATE TABLE move (transfer TEXT NOT NULL, account INTEGER NOT NULL REFERENCES account DEFERRABLE INITIALLY DEFERRED, \
                 amount INTEGER NOT NULL); \
             WITH RECURSIVE n (id) AS (SELECT 0 UNION ALL SELECT id + 1 FROM n WHERE id < {ACCOUNTS} - 1) \
             INSERT INTO account SELECT id, {OPENING} FROM n"
        );
        bank.connect().execute_batch(&sql).unwrap();
        bank
    }

    async fn store(path: &std::path::Path) -> SqliteStore {
        let options = SqliteOptions {
            busy_limit: Duration::from_millis(200),
            ..SqliteOptions::default()
        };
        SqliteStore::open(path, &"orders".parse().unwrap(), options)
            .await
            .unwrap()
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("bank.db")
    }

    fn connect(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn ask(&self, sql: &str) -> i64 {
        self.connect().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    async fn send(&mut self, count: u64) {
        let entries: Vec<Bytes> = (self.sent + 1..=self.sent + count).map(entry).collect();
        self.store.send(&entries, None).await.unwrap();
        self.sent += count;
    }

    fn teller(&self, store: &SqliteStore) -> Transactional {
        let begun = self.begun.clone();
        store.transactional(EffectOptions::default(), move |transaction, message| {
            begun.fetch_add(1, Ordering::SeqCst);
            transfer(transaction, message)
        })
    }

    fn clerk(store: Arc<SqliteStore>, handler: Transactional) -> Clerk {
        let options = ProcessorOptions {
            backoff: Backoff {
                base_us: 1_000,
                max_us: 10_000,
                max_attempts: 3,
            },
            ..ProcessorOptions::default()
        };
        let stop = CancellationToken::new();
        let run = Processor::new(store, handler, options).run(stop.clone());
        Clerk {
            stop,
            running: tokio::spawn(async move { run.await.unwrap() }),
        }
    }

    async fn outputs(&mut self, count: usize) -> Vec<Record> {
        let mut outputs = Vec::new();
        while outputs.len() < count {
            let batch = self.consumer.next(1_000).await.unwrap();
            self.consumer.acknowledge(&batch);
            outputs.extend(batch.outputs.iter().map(|output| Output::parse(output).unwrap().record));
        }
        outputs
    }

    /// Money was neither made nor lost, and what came out was made once, and nothing else.
    fn is_right(&self, outputs: &[Record]) {
        assert_eq!(self.ask("SELECT sum(balance) FROM account"), 10 * OPENING, "the sum");
        let wrong = format!(
            "SELECT count(*) FROM account WHERE balance <> {OPENING} + coalesce((SELECT sum(amount) FROM move WHERE account = id), 0)"
        );
        assert_eq!(self.ask(&wrong), 0, "balances that are not the sum of their moves");
        let connection = self.connect();
        let moves: BTreeMap<String, i64> = connection
            .prepare("SELECT transfer, count(*) FROM move GROUP BY transfer")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect();
        let mut done = 0;
        for (output, position) in outputs.iter().zip(1..) {
            assert_eq!(output.position.0, position);
            let is_done = matches!(output.body, Body::Result(_));
            done += usize::from(is_done);
            assert_eq!(moves.get(output.id.as_str()), is_done.then_some(&2), "{output:?}");
        }
        assert_eq!(moves.len(), done);
        assert_eq!(
            self.ask("SELECT count(*) FROM record WHERE dead IS NULL"),
            i64::try_from(done).unwrap()
        );
    }
}

fn entry(number: u64) -> Bytes {
    let (from, amount) = (number * 7 % ACCOUNTS, number % 97 + 1);
    let to = (from + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
    let payload = format!("{{\"from\":{from},\"to\":{to},\"amount\":{amount}}}");
    Bytes::from(format!("{{\"id\":\"t{number}\",\"payload\":{payload}}}"))
}

fn transfer(transaction: &Transaction<'_>, message: &Message) -> Result<Payload, EffectError> {
    let wish: serde_json::Value = serde_json::from_str(message.payload.text()).map_err(HandlerError::permanent)?;
    let number = |name: &str| wish[name].as_i64().unwrap_or(-1);
    let (from, to, amount) = (number("from"), number("to"), number("amount"));
    let change = "UPDATE account SET balance = balance + ?2 WHERE id = ?1 RETURNING balance";
    let left: i64 = transaction.query_one(change, (from, -amount), |row| row.get(0))?;
    let _: i64 = transaction.query_one(change, (to, amount), |row| row.get(0))?;
    let note = "INSERT INTO move VALUES (?1, ?2, -?4), (?1, ?3, ?4)";
    transaction.execute(note, (message.id.as_str(), from, to, amount))?;
    Ok(Payload::string(&format!("{left} left")))
}

fn number_of(id: &Id) -> u64 {
    id.as_str()[1..].parse().unwrap()
}

/// What effects do wrong after they have moved the money, each so that the good ones around it have to stand.
fn mischief(kind: u64, transaction: &Transaction<'_>) -> Result<(), EffectError> {
    match kind {
        0 => return Err(HandlerError::passing("no").into()),
        1 => return Err(HandlerError::permanent("never").into()),
        2 => panic!("an effect panics"),
        3 => transaction.execute("COMMIT", [])?,
        4 => transaction.execute("ROLLBACK", [])?,
        5 => transaction.execute("RELEASE conga_effect", [])?,
        6 => transaction.execute("UPDATE account SET balance = -1 WHERE id = 1", [])?,
        // These take the whole transaction with them.
        7 => transaction.execute("INSERT OR ROLLBACK INTO account VALUES (1, 1)", [])?,
        8 => transaction.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) INSERT INTO move SELECT 'x', 1, i FROM n",
            [],
        )?,
        // Checked at the commit.
        9 => transaction.execute("INSERT INTO move VALUES ('x', 77, 0)", [])?,
        10 => transaction.execute("UPDATE record SET payload = 'x'", [])?,
        11 => transaction.execute("PRAGMA foreign_keys = OFF", [])?,
        12 => transaction.execute("ATTACH ':memory:' AS other", [])?,
        13 => transaction.execute("DROP TABLE account", [])?,
        14 => transaction.query_one("SELECT conga_refuse('no such account')", [], |_| Ok(0))?,
        // Its own failure is caught, and the transaction is gone all the same.
        15 => transaction
            .execute("INSERT OR ROLLBACK INTO account VALUES (1, 1)", [])
            .unwrap_or_default(),
        16 => transaction.query_one(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
            [],
            |_| Ok(0),
        )?,
        _ => 0,
    };
    Ok(())
}
const KINDS: u64 = 17;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn effects_that_fail_leave_those_beside_them_alone() {
    const COUNT: u64 = 300;
    let mut bank = Bank::open().await;
    bank.send(COUNT).await;
    let options = EffectOptions {
        limit: Duration::from_millis(20),
    };
    let is_bad = |number: u64| number.is_multiple_of(10);
    let mut clerks = Vec::new();
    for _ in 0..2 {
        let store = Arc::new(Bank::store(&bank.path()).await);
        let handler = store.transactional(options, move |transaction, message| {
            let result = transfer(transaction, message)?;
            let number = number_of(&message.id);
            if is_bad(number) {
                mischief(number / 10 % KINDS, transaction)?;
            }
            Ok(result)
        });
        clerks.push(Bank::clerk(store, handler));
    }
    let outputs = bank.outputs(usize::try_from(COUNT).unwrap()).await;
    bank.is_right(&outputs);
    let mut said = BTreeMap::new();
    for output in &outputs {
        let number = number_of(&output.id);
        match &output.body {
            Body::Dead { reason } => {
                assert!(is_bad(number), "{output:?}");
                said.insert(number / 10 % KINDS, (output.attempts, reason.clone()));
            }
            Body::Result(_) => assert!(!is_bad(number), "{output:?}"),
        }
    }
    let (mut dead, mut done, mut retried) = (0, 0, 0);
    for clerk in clerks {
        let did = clerk.end().await;
        (dead, done, retried) = (dead + did.dead, done + did.done, retried + did.retried);
    }
    assert_eq!((dead, done), (30, 270), "{said:#?}");
    assert!(retried > 0);
    let of = |kind: u64| said[&kind].clone();
    assert_eq!(of(14), (Attempt(1), "no such account".to_owned()));
    for kind in [3, 4, 5, 10, 11, 12, 13] {
        assert_eq!(of(kind).0, Attempt(1), "{said:#?}");
        assert!(of(kind).1.contains("and nothing else"), "{said:#?}");
    }
    for kind in [8, 16] {
        assert_eq!(of(kind), (Attempt(3), "the effect did not end in 20ms".to_owned()));
    }
    assert!(of(6).1.contains("CHECK"), "{said:#?}");
    assert!(of(9).1.contains("FOREIGN KEY"), "{said:#?}");
}

fn claim(owner: &OwnerId) -> ClaimRequest {
    ClaimRequest {
        owner: owner.clone(),
        max: 100,
        lease_us: 60_000_000,
        window: 1_000,
        below: None,
        limits: Limits::default(),
    }
}

/// What a processor would say of what it has claimed.
async fn claimed(store: &SqliteStore, owner: &OwnerId) -> Vec<Completion> {
    let claims = store.claim(&claim(owner)).await.unwrap();
    let done = claims.iter().map(|claim| {
        let input = parse(&claim.entry, claim.position, Format::default(), 1 << 20).unwrap();
        Completion::Done(Record {
            position: claim.position,
            id: input.id,
            sequence: input.sequence,
            key: input.key,
            body: Body::Result(input.payload),
            attempts: claim.attempt,
            created: claim.claimed,
            processing: claim.claimed,
        })
    });
    done.collect()
}

fn fail() -> Fail {
    Arc::new(|_, error| panic!("{error}"))
}

/// A process is taken for gone after it has begun, another has its messages, and then it comes back and completes.
#[tokio::test]
async fn a_zombie_does_nothing() {
    let mut bank = Bank::open().await;
    bank.send(5).await;
    let (zombie, successor) = (OwnerId::new("zombie"), OwnerId::new("successor"));
    let late = claimed(&bank.store, &zombie).await;
    assert_eq!(late.len(), 5);
    let leave = RenewRequest {
        owner: zombie.clone(),
        lease_us: 0,
        held: None,
        keep: None,
        limits: Limits::default(),
    };
    bank.store.renew(&leave).await.unwrap();
    let again = claimed(&bank.store, &successor).await;
    let effects = bank.teller(&bank.store).effects().unwrap();
    let stale = |told: Vec<(Completion, Completed)>| told.iter().all(|(_, answer)| *answer == Completed::Stale);
    assert!(stale(effects.complete(&zombie, &late, &fail()).await.unwrap()));
    assert_eq!(bank.begun.load(Ordering::SeqCst), 0, "before its successor");
    let told = effects.complete(&successor, &again, &fail()).await.unwrap();
    assert!(told.iter().all(|(_, answer)| *answer == Completed::Accepted));
    assert!(stale(effects.complete(&zombie, &late, &fail()).await.unwrap()));
    // Its answer was lost, and it says so again.
    assert!(stale(effects.complete(&successor, &again, &fail()).await.unwrap()));
    assert_eq!(bank.begun.load(Ordering::SeqCst), 5);
    let outputs = bank.outputs(5).await;
    assert!(outputs.iter().all(|output| output.attempts == Attempt(2)));
    bank.is_right(&outputs);
}

/// The same message in one batch twice, and an id that was sent twice.
#[tokio::test]
async fn an_id_counts_once() {
    let mut bank = Bank::open().await;
    let entries = [entry(1), entry(2), entry(1)];
    bank.store.send(&entries, None).await.unwrap();
    let owner = OwnerId::new("a");
    let mut batch = claimed(&bank.store, &owner).await;
    batch.push(batch[0].clone());
    let effects = bank.teller(&bank.store).effects().unwrap();
    let told = effects.complete(&owner, &batch, &fail()).await.unwrap();
    let answers: Vec<Completed> = told.iter().map(|(_, answer)| *answer).collect();
    assert_eq!(answers[..3], [Completed::Accepted; 3]);
    assert_eq!(answers[3], Completed::Stale);
    assert_eq!(bank.begun.load(Ordering::SeqCst), 2);
    let outputs = bank.outputs(2).await;
    bank.is_right(&outputs);
}

/// A locked file is nobody's fault: it is waited for.
#[tokio::test]
async fn a_locked_file_is_waited_for() {
    let mut bank = Bank::open().await;
    bank.send(3).await;
    let owner = OwnerId::new("a");
    let batch = claimed(&bank.store, &owner).await;
    let effects = bank.teller(&bank.store).effects().unwrap();
    let other = bank.connect();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = effects.complete(&owner, &batch, &fail()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    other.execute_batch("ROLLBACK").unwrap();
    let told = effects.complete(&owner, &batch, &fail()).await.unwrap();
    assert_eq!(told.len(), 3);
    let outputs = bank.outputs(3).await;
    bank.is_right(&outputs);
}

/// A disk that is full, or fails, in the midst of an effect is nobody's fault either: nothing counts, and it is not an attempt.
#[tokio::test]
async fn a_failing_disk_is_waited_for() {
    let mut bank = Bank::open().await;
    bank.send(3).await;
    let owner = OwnerId::new("a");
    let batch = claimed(&bank.store, &owner).await;
    let faults = [rusqlite::ffi::SQLITE_FULL, rusqlite::ffi::SQLITE_IOERR];
    let failing = Arc::new(AtomicI32::new(0));
    let (failure, begun) = (failing.clone(), bank.begun.clone());
    let handler = bank
        .store
        .transactional(EffectOptions::default(), move |transaction, message| {
            begun.fetch_add(1, Ordering::SeqCst);
            let result = transfer(transaction, message)?;
            match failure.load(Ordering::SeqCst) {
                code @ 1.. if number_of(&message.id) == 2 => {
                    Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None).into())
                }
                _ => Ok(result),
            }
        });
    let effects = handler.effects().unwrap();
    for fault in faults {
        failing.store(fault, Ordering::SeqCst);
        let refused = effects.complete(&owner, &batch, &fail()).await.unwrap_err();
        assert!(refused.is_passing(), "{fault}: {refused}");
        bank.is_right(&[]);
    }
    failing.store(0, Ordering::SeqCst);
    assert!(bank.begun.load(Ordering::SeqCst) >= 4);
    assert_eq!(effects.complete(&owner, &batch, &fail()).await.unwrap().len(), 3);
    let outputs = bank.outputs(3).await;
    bank.is_right(&outputs);
    assert!(outputs.iter().all(|output| output.attempts == Attempt(1)));
}

/// Elsewhere what is completed may have been delivered by others meanwhile: that is refused before anything runs.
#[tokio::test]
async fn a_line_of_another_order_is_refused() {
    let bank = Bank::open().await;
    for order in ["key", "none"] {
        let path = bank.folder.path().join(order);
        let store = Bank::store(&path).await;
        store.shape(Some(order.parse().unwrap())).await.unwrap();
        store.send(&[entry(1)], None).await.unwrap();
        let owner = OwnerId::new("a");
        let batch = claimed(&store, &owner).await;
        let effects = bank.teller(&store).effects().unwrap();
        let refused = effects.complete(&owner, &batch, &fail()).await.unwrap_err();
        assert!(refused.to_string().contains("--line NAME"), "{refused}");
    }
    assert_eq!(bank.begun.load(Ordering::SeqCst), 0);
    bank.is_right(&[]);
}

#[tokio::test]
async fn a_script_answers_json() {
    let mut bank = Bank::open().await;
    let entry = br#"{"id":"t1","sequence":7,"key":"k","payload":{"a":[1,{"b":"\u00e4"}]}}"#;
    let scripts = [
        ("SELECT :payload -> '$.a' AS json", r#"[1,{"b":"\u00e4"}]"#),
        ("SELECT :payload ->> '$.a[0]'", "1"),
        (
            "SELECT :id, :sequence AS sequence, :key AS k, 1.5 AS f, NULL AS n, :position AS p",
            r#"{":id":"t1","f":1.5,"k":"k","n":null,"p":6,"sequence":7}"#,
        ),
        ("SELECT 1 UNION SELECT 2", "[1,2]"),
        ("SELECT 1; UPDATE account SET balance = balance", "1"),
        ("SELECT 1 WHERE 0", "null"),
        ("UPDATE account SET balance = balance + 0", "null"),
        (
            "UPDATE account SET balance = balance + 0 WHERE id = 1 RETURNING 'done' AS \"how; so\"",
            "\"done\"",
        ),
        ("SELECT x'00ff'", "\"AP8=\""),
    ];
    for (index, (script, expected)) in scripts.into_iter().enumerate() {
        let handler = bank.store.script(EffectOptions::default(), script).await.unwrap();
        let text = String::from_utf8_lossy(entry).replace("t1", &format!("s{index}"));
        bank.store.send(&[Bytes::from(text)], None).await.unwrap();
        let clerk = Bank::clerk(bank.store.clone(), handler);
        let output = bank.outputs(1).await.remove(0);
        clerk.end().await;
        let expected = expected
            .replace("t1", &format!("s{index}"))
            .replace("\"p\":6", &format!("\"p\":{}", index + 1));
        let Body::Result(payload) = output.body else {
            panic!("{script}: {output:?}")
        };
        assert_eq!(payload.text(), expected, "{script}");
    }
}

#[tokio::test]
async fn a_script_that_is_wrong_is_refused_with_its_line() {
    let bank = Bank::open().await;
    for (script, why) in [
        ("", "no statement"),
        ("-- nothing;", "no statement"),
        ("SELECT 1;\nSELECT * FROM nowhere", "line 2: no such table: nowhere"),
        ("SELECT 1;\n\nSELECT :amount", "line 3: :amount"),
        ("SELECT ?", "line 1: a script has no ?"),
        ("SELECT 1;\ncommit", "line 2: not authorized"),
        ("DELETE FROM flight", "line 1: not authorized"),
        ("CREATE TABLE x (y)", "line 1: not authorized"),
        ("SELECT 'open", "line 1: unrecognized token"),
    ] {
        let refused = bank.store.script(EffectOptions::default(), script).await.unwrap_err();
        assert!(refused.to_string().contains(why), "{script}: {refused}");
    }
}

/// Effects a second. Run by hand: `cargo test --release --test effects -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn effects_a_second() {
    const COUNT: u64 = 20_000;
    let mut bank = Bank::open().await;
    bank.send(COUNT).await;
    let began = std::time::Instant::now();
    let clerk = Bank::clerk(bank.store.clone(), bank.teller(&bank.store));
    let outputs = bank.outputs(usize::try_from(COUNT).unwrap()).await;
    let took = began.elapsed();
    clerk.end().await;
    bank.is_right(&outputs);
    println!(
        "{:.0} effects/s",
        f64::from(u32::try_from(COUNT).unwrap()) / took.as_secs_f64()
    );
}
