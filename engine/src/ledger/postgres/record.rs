//! Record: a batch in one statement. Without a transaction around it, so that no broken connection leaves one open.

use conga_core::message::{Body, Payload, Record};
use tokio_postgres::types::ToSql;

use super::browse::look;
use super::connect::{Failed, Pool, patiently};
use super::failure::Why;
use super::result::{Form, bytes_of, form_of};
use super::row::{datetime, written};
use crate::ledger::{Kept, LedgerError, Result};

/// Nearly always all is new, and then this takes a fifth less of the server's time than the other.
const ALL_NEW: &str = include_str!("insert.sql");
const SOME_NEW: &str = concat!(include_str!("insert.sql"), "ON CONFLICT (line, id) DO NOTHING");
/// So often what is there is looked for before giving up for now. It is there, unless somebody removes rows meanwhile.
const LOOKS: usize = 3;

/// Writes what is new, and says what is there.
pub(super) async fn record(pool: &Pool, line: &str, results: &[Record]) -> Result<Vec<Kept>> {
    for _ in 0..LOOKS {
        if insert(pool, line, results).await? == results.len() as u64 {
            return Ok(vec![Kept::Given; results.len()]);
        }
        // Some were there: by another, or by this same call, whose answer was lost. The statement's own view does not see
        // what was committed after it began, so it is asked anew.
        let ids: Vec<_> = results.iter().map(|result| result.id.clone()).collect();
        let held: Option<Vec<Record>> = look(pool, line, &ids).await?.into_iter().collect();
        if let Some(held) = held {
            return Ok(held
                .into_iter()
                .zip(results)
                .map(|(held, given)| kept(held, given))
                .collect());
        }
    }
    Err(LedgerError::Unknown(
        "rows are removed from conga_record as fast as they are written".to_owned(),
    ))
}

fn kept(held: Record, given: &Record) -> Kept {
    if held == *given { Kept::Given } else { Kept::Other(held) }
}

/// How many rows are new.
async fn insert(pool: &Pool, line: &str, results: &[Record]) -> Result<u64> {
    // In one order, so that no two batches wait for each other.
    let mut sorted: Vec<&Record> = results.iter().collect();
    sorted.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let columns = Columns::of(&sorted, form_of)?;
    let mut inserted = columns.insert(pool, line, ALL_NEW).await;
    if inserted.as_ref().is_err_and(|failed| failed.why == Why::Conflict) {
        inserted = columns.insert(pool, line, SOME_NEW).await;
    }
    match inserted {
        Err(failed) if failed.why == Why::Data => {
            tracing::warn!(error = %failed.error, "PostgreSQL does not take some results as jsonb; kept as text");
            let plain = |payload: &Payload| match form_of(payload) {
                Form::Bytes => Form::Bytes,
                _ => Form::Text,
            };
            Ok(Columns::of(&sorted, plain)?.insert(pool, line, SOME_NEW).await?)
        }
        done => Ok(done?),
    }
}

/// A batch as the statement takes it: an array for each column.
#[derive(Default)]
struct Columns<'a> {
    ids: Vec<String>,
    positions: Vec<i64>,
    attempts: Vec<i32>,
    sequences: Vec<Option<String>>,
    keys: Vec<Option<String>>,
    forms: Vec<i16>,
    texts: Vec<Option<&'a str>>,
    bytes: Vec<Option<Vec<u8>>>,
    created: Vec<std::time::SystemTime>,
    processing: Vec<std::time::SystemTime>,
}

impl<'a> Columns<'a> {
    fn of(results: &[&'a Record], form: impl Fn(&Payload) -> Form) -> Result<Self> {
        let mut columns = Self::default();
        for result in results {
            let Body::Result(payload) = &result.body else {
                return Err(LedgerError::Broken("a dead letter is nothing to record".to_owned()));
            };
            let form = form(payload);
            columns.ids.push(written(result.id.as_str()));
            columns
                .positions
                .push(i64::try_from(result.position.0).unwrap_or(i64::MAX));
            columns
                .attempts
                .push(i32::try_from(result.attempts.0).unwrap_or(i32::MAX));
            columns
                .sequences
                .push(result.sequence.map(|sequence| sequence.to_string()));
            columns.keys.push(result.key.as_deref().map(written));
            columns.forms.push(form as i16);
            columns.texts.push((form != Form::Bytes).then(|| payload.text()));
            columns.bytes.push((form == Form::Bytes).then(|| bytes_of(payload)));
            columns.created.push(datetime(result.created));
            columns.processing.push(datetime(result.processing));
        }
        Ok(columns)
    }

    async fn insert(&self, pool: &Pool, line: &str, sql: &str) -> std::result::Result<u64, Failed> {
        let mut connection = pool.take().await.map_err(Failed::before)?;
        let client = connection.client();
        let parameters: [&(dyn ToSql + Sync); 11] = [
            &line,
            &self.ids,
            &self.positions,
            &self.attempts,
            &self.sequences,
            &self.keys,
            &self.forms,
            &self.texts,
            &self.bytes,
            &self.created,
            &self.processing,
        ];
        let asking = async {
            let statement = client.prepare_cached(sql).await?;
            client.execute(&statement, &parameters).await
        };
        let answer = patiently(asking).await;
        connection.settle(pool, answer)
    }
}

/// Removes all rows of a line.
pub(super) async fn erase(pool: &Pool, line: &str) -> Result<()> {
    let mut connection = pool.take().await?;
    let parameters: [&(dyn ToSql + Sync); 1] = [&line];
    let asking = connection
        .client()
        .execute("DELETE FROM conga_record WHERE line = $1", &parameters);
    let answer = patiently(asking).await;
    Ok(connection.settle(pool, answer).map(drop)?)
}
