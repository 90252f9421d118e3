//! The yardstick of PostgreSQL as the record: one program that inserts the same rows into a table like Conga's, a batch a
//! statement, and does nothing else: no queue, no order, nobody else's row looked for.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use conga::clock::Clock;
use conga::ledger::postgres::PostgresLedger;
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::bench::judge::Verdict;
use crate::bench::load::{Load, Until};
use crate::bench::trial::Ran;
use crate::bench::usage::Moment;

/// So many rows a statement, where nothing else was said: as Conga has them under load.
pub(crate) const BATCH: usize = 1_000;
/// So many statements at once: as many as a processor has on their way.
pub(crate) const AT_ONCE: usize = 4;

const INSERT: &str = "\
INSERT INTO conga_limit (line, id, position, attempts, sequence, key, result, created, processing) \
SELECT $1::text, r.id, r.position, 1, NULL, NULL, r.result::jsonb, r.created, r.processing \
FROM unnest($2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[]) \
     AS r (id, position, result, created, processing)";

/// What is to be inserted.
#[derive(Debug, Clone)]
pub(crate) struct Bare {
    pub(crate) url: String,
    pub(crate) messages: u64,
    pub(crate) size: usize,
    pub(crate) batch: usize,
    /// How many statements are on their way.
    pub(crate) at_once: usize,
}

/// The rows of one statement.
#[derive(Default)]
struct Batch {
    ids: Vec<String>,
    positions: Vec<i64>,
    results: Vec<String>,
    times: Vec<SystemTime>,
}

impl Bare {
    pub(crate) async fn run(&self) -> anyhow::Result<Ran> {
        // Its table is the model.
        PostgresLedger::open(&self.url, &"limit".parse()?).await?;
        let admin = connect(&self.url).await?;
        let table = format!("conga_limit_{}", Uuid::new_v4().simple());
        admin
            .batch_execute(&format!(
                "CREATE TABLE {table} (LIKE conga_record INCLUDING ALL); \
                 ALTER TABLE {table} ALTER COLUMN processed SET DEFAULT now()"
            ))
            .await
            .context("can't make the yardstick's table beside conga_record")?;
        let ran = self.insert(&admin, &table).await;
        admin.batch_execute(&format!("DROP TABLE {table}")).await?;
        ran
    }

    async fn insert(&self, admin: &Client, table: &str) -> anyhow::Result<Ran> {
        let sql = INSERT.replace("conga_limit", table);
        let mut hands: Vec<Vec<Batch>> = Vec::new();
        hands.resize_with(self.at_once.max(1), Vec::new);
        for (index, batch) in self.batches().into_iter().enumerate() {
            let hand = index % hands.len();
            hands[hand].push(batch);
        }
        let mut ready = Vec::new();
        for batches in hands {
            let client = connect(&self.url).await?;
            let statement = client.prepare(&sql).await?;
            ready.push((client, statement, batches));
        }
        let began = Moment::now();
        let mut working = JoinSet::new();
        for (client, statement, batches) in ready {
            working.spawn(async move {
                for batch in batches {
                    let parameters: [&(dyn ToSql + Sync); 6] = [
                        &"limit",
                        &batch.ids,
                        &batch.positions,
                        &batch.results,
                        &batch.times,
                        &batch.times,
                    ];
                    client.execute(&statement, &parameters).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(done) = working.join_next().await {
            done??;
        }
        let elapsed: Duration = Moment::now().since(began);
        let rows: i64 = admin
            .query_one(&format!("SELECT count(*) FROM {table}"), &[])
            .await?
            .get(0);
        let rows = u64::try_from(rows)?;
        ensure!(
            rows == self.messages,
            "the yardstick has {rows} rows for {} messages",
            self.messages
        );
        let verdict = Verdict {
            sent: self.messages,
            delivered: rows,
            rows: Some(rows),
            ..Verdict::default()
        };
        Ok(Ran::new(self.messages, elapsed, Vec::new(), verdict))
    }

    /// The rows that Conga would write, made before the clock starts.
    fn batches(&self) -> Vec<Batch> {
        let load = Load::new(Until::Count(self.messages), None, self.size);
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(Clock::Store.now().0);
        let mut batches: Vec<Batch> = Vec::new();
        for number in 1..=self.messages {
            if batches.last().is_none_or(|batch| batch.ids.len() >= self.batch.max(1)) {
                batches.push(Batch::default());
            }
            if let Some(batch) = batches.last_mut() {
                batch.ids.push(load.id(number));
                batch.positions.push(i64::try_from(number).unwrap_or(i64::MAX));
                batch.results.push(load.payload_of(number).text().to_owned());
                batch.times.push(now);
            }
        }
        batches
    }
}

/// A connection without TLS, which ends with the client.
pub(crate) async fn connect(url: &str) -> anyhow::Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls)
        .await
        .context("the yardstick can't connect; it knows no TLS")?;
    tokio::spawn(connection);
    Ok(client)
}
