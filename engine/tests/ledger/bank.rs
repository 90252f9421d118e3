//! A bank in PostgreSQL: accounts whose sum must not change, and a row for each side of a transfer. Nothing in its tables keeps
//! a transfer from being made twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use conga::core::message::{Body, Output, Payload, Record};
use conga::core::partition::{Limits, RenewRequest};
use conga::deliver::Consumer;
use conga::ledger::postgres::tokio_postgres::{Client, NoTls};
use conga::ledger::postgres::{
    Effect, EffectError, PostgresLedger, Transaction, TransactionOptions, Transactional, tokio_postgres,
};
use conga::process::{HandlerError, Message, Processing, Processor, ProcessorOptions};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, SharedStore, Store as _};
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::postgres_server::PostgresServer;

/// So many accounts, with so much on each.
pub(crate) const ACCOUNTS: u64 = 10;
pub(crate) const OPENING: i64 = 1_000_000;
const SUM: i64 = 10 * OPENING;
/// How long nothing may come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Bank {
    pub(crate) server: PostgresServer,
    pub(crate) store: Arc<MemoryStore>,
    /// How often a transfer was begun with.
    pub(crate) begun: Arc<AtomicU64>,
    sent: u64,
    consumer: Consumer,
}

/// A processor on its way.
pub(crate) struct Clerk {
    pub(crate) owner: conga::core::lease::OwnerId,
    stop: CancellationToken,
    running: JoinHandle<Processing>,
}

impl Clerk {
    pub(crate) async fn end(self) -> Processing {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.running).await;
        ended.expect("a clerk goes home when told to").unwrap()
    }
}

pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Bank {
    pub(crate) async fn open() -> Self {
        // Two transfers in each other's way are told apart soon.
        let server = block_in_place(|| PostgresServer::start(&["fsync=off", "deadlock_timeout=20ms"])).unwrap();
        let client = connect(&server.url()).await;
        let schema = format!(
            "CREATE TABLE account (id bigint PRIMARY KEY, balance bigint NOT NULL); \
             CREATE TABLE move (transfer text NOT NULL, account bigint NOT NULL, amount bigint NOT NULL); \
             INSERT INTO account SELECT id, {OPENING} FROM generate_series(0, {ACCOUNTS} - 1) AS id"
        );
        client.batch_execute(&schema).await.unwrap();
        let store = Arc::new(MemoryStore::default().delivering(Delivery::Store));
        Self {
            server,
            consumer: Consumer::new(store.clone()),
            store,
            begun: Arc::default(),
            sent: 0,
        }
    }

    pub(crate) async fn ledger_at(url: &str) -> Arc<PostgresLedger> {
        Arc::new(PostgresLedger::open(url, &"orders".parse().unwrap()).await.unwrap())
    }

    pub(crate) async fn ledger(&self) -> Arc<PostgresLedger> {
        Self::ledger_at(&self.server.url()).await
    }

    /// Sends so many transfers, from all accounts to all.
    pub(crate) async fn send(&mut self, count: u64) {
        let entries: Vec<Bytes> = (self.sent + 1..=self.sent + count)
            .map(|number| {
                let (from, to) = (number * 7 % ACCOUNTS, number * 3 % ACCOUNTS);
                let to = if from == to { (to + 1) % ACCOUNTS } else { to };
                let amount = number % 97 + 1;
                let text =
                    format!("{{\"id\":\"t{number}\",\"payload\":{{\"from\":{from},\"to\":{to},\"amount\":{amount}}}}}");
                Bytes::from(text)
            })
            .collect();
        self.store.send(&entries, None).await.unwrap();
        self.sent += count;
    }

    pub(crate) fn clerk<E: Effect>(&self, handler: Transactional<E>, concurrency: usize) -> Clerk {
        let options = ProcessorOptions {
            concurrency,
            ..ProcessorOptions::default()
        };
        let store: SharedStore = self.store.clone();
        let processor = Processor::new(store, handler, options);
        let (owner, stop) = (processor.owner().clone(), CancellationToken::new());
        let run = processor.run(stop.clone());
        Clerk {
            owner,
            stop,
            running: tokio::spawn(async move { run.await.unwrap() }),
        }
    }

    /// A clerk who only makes transfers.
    pub(crate) async fn teller(&self, options: TransactionOptions, concurrency: usize) -> Clerk {
        let begun = self.begun.clone();
        let handler = self.ledger().await.transactional(options, move |transaction, message| {
            let begun = begun.clone();
            Box::pin(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                transfer(transaction, message).await
            })
        });
        self.clerk(handler.unwrap(), concurrency)
    }

    /// The store takes a process for gone.
    pub(crate) async fn give_up(&self, clerk: &Clerk) {
        let leave = RenewRequest {
            owner: clerk.owner.clone(),
            lease_us: 0,
            held: None,
            keep: None,
            limits: Limits::default(),
        };
        self.store.renew(&leave).await.unwrap();
    }

    /// The next so many outputs.
    pub(crate) async fn outputs(&mut self, count: usize) -> Vec<Record> {
        let mut outputs = Vec::new();
        while outputs.len() < count {
            let Ok(batch) = timeout(PATIENCE, self.consumer.next(count - outputs.len())).await else {
                panic!(
                    "{} of {count} outputs, then none for {PATIENCE:?}. {}",
                    outputs.len(),
                    self.state().await
                );
            };
            let batch = batch.unwrap();
            self.consumer.acknowledge(&batch);
            outputs.extend(batch.outputs.iter().map(|output| Output::parse(output).unwrap().record));
        }
        outputs
    }

    /// What is known where nothing comes any more.
    async fn state(&self) -> String {
        let line = self.store.status().await;
        let sql = "SELECT string_agg(format('%s %s %s %s %s', pid, state, wait_event_type, wait_event, query), E'\\n') \
                   FROM pg_stat_activity WHERE backend_type = 'client backend'";
        let asked = timeout(PATIENCE, async {
            let (client, connection) = tokio_postgres::connect(&self.server.url(), NoTls).await?;
            tokio::spawn(connection);
            client
                .query_one(sql, &[])
                .await
                .map(|row| row.get::<_, Option<String>>(0))
        });
        format!(
            "begun {:?}; the line: {line:?}; the server: {:?}",
            self.begun,
            asked.await
        )
    }

    /// Money was neither made nor lost; each transfer that came out was made once, and no other; and what came out is what the
    /// table holds.
    pub(crate) async fn is_right(&self, outputs: &[Record]) {
        let client = connect(&self.server.url()).await;
        let row = client
            .query_one("SELECT sum(balance)::bigint FROM account", &[])
            .await
            .unwrap();
        assert_eq!(row.get::<_, i64>(0), SUM, "the sum");
        let wrong = client
            .query(
                "SELECT a.id FROM account a LEFT JOIN move m ON m.account = a.id GROUP BY a.id \
                 HAVING a.balance <> $1::bigint + coalesce(sum(m.amount), 0)",
                &[&OPENING],
            )
            .await
            .unwrap();
        assert!(wrong.is_empty(), "balances that are not the sum of their moves");
        let moves: BTreeMap<String, i64> = client
            .query("SELECT transfer, count(*) FROM move GROUP BY transfer", &[])
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let rows: BTreeMap<String, String> = client
            .query("SELECT id, coalesce(result_text, result::text) FROM conga_record", &[])
            .await
            .unwrap()
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect();
        let mut done = 0;
        for (output, position) in outputs.iter().zip(1..) {
            assert_eq!(output.position.0, position);
            let id = output.id.as_str();
            match &output.body {
                Body::Result(payload) => {
                    done += 1;
                    assert_eq!(moves.get(id), Some(&2), "moves of {id}");
                    assert_eq!(rows.get(id).map(String::as_str), Some(payload.text()), "{id}");
                }
                Body::Dead { .. } => {
                    assert_eq!(moves.get(id), None, "moves of {id}");
                    assert_eq!(rows.get(id), None, "{id}");
                }
            }
        }
        assert_eq!((moves.len(), rows.len()), (done, done));
    }
}

/// Moves the money. The result is what is left on the account that it came from.
pub(crate) async fn transfer(transaction: &mut Transaction<'_>, message: &Message) -> Result<Payload, EffectError> {
    let wish: serde_json::Value = serde_json::from_str(message.payload.text()).map_err(HandlerError::permanent)?;
    let number = |name: &str| wish[name].as_i64().unwrap_or(-1);
    let (from, to, amount) = (number("from"), number("to"), number("amount"));
    let change = transaction
        .prepare_cached("UPDATE account SET balance = balance + $2 WHERE id = $1 RETURNING balance")
        .await?;
    let left: i64 = transaction.query_one(&change, &[&from, &-amount]).await?.get(0);
    transaction.query_one(&change, &[&to, &amount]).await?;
    let note = transaction
        .prepare_cached("INSERT INTO move VALUES ($1, $2, -$4::bigint), ($1, $3, $4)")
        .await?;
    transaction
        .execute(&note, &[&message.id.as_str(), &from, &to, &amount])
        .await?;
    Ok(Payload::string(&format!("{left} left")))
}
