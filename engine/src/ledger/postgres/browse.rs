//! Look and browse: reading the record.

use std::collections::HashMap;

use conga_core::message::{Id, Record, write_open};
use conga_core::partition::{Page, Row, finish_processed};

use super::connect::{Pool, patiently};
use super::row::{held, written};
use crate::ledger::Result;

const LOOK: &str = include_str!("look.sql");
const BROWSE: &str = include_str!("browse.sql");
/// So many rows a page.
const PAGE: i64 = 1_000;

/// What is held for each of these ids.
pub(super) async fn look(pool: &Pool, line: &str, ids: &[Id]) -> Result<Vec<Option<Record>>> {
    let columns: Vec<String> = ids.iter().map(|id| written(id.as_str())).collect();
    let mut connection = pool.take().await?;
    let client = connection.client();
    let asking = async {
        let statement = client.prepare_cached(LOOK).await?;
        client.query(&statement, &[&line, &columns]).await
    };
    let answer = patiently(asking).await;
    let rows = connection.settle(pool, answer)?;
    let mut found: HashMap<Id, Record> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let record = held(row)?.record;
        found.insert(record.id.clone(), record);
    }
    Ok(ids.iter().map(|id| found.get(id).cloned()).collect())
}

/// A page of all, by id.
pub(super) async fn browse(pool: &Pool, line: &str, from: Option<&str>) -> Result<Page> {
    let mut connection = pool.take().await?;
    let client = connection.client();
    let from = from.unwrap_or_default();
    let asking = async {
        let statement = client.prepare_cached(BROWSE).await?;
        client.query(&statement, &[&line, &from, &PAGE]).await
    };
    let answer = patiently(asking).await;
    let found = connection.settle(pool, answer)?;
    let is_last = i64::try_from(found.len()).is_ok_and(|count| count < PAGE);
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let held = held(row)?;
        let mut text = write_open(&held.record);
        finish_processed(&mut text, held.processed);
        rows.push(Row {
            id: held.record.id,
            json: text.into(),
        });
    }
    let next = rows.last().filter(|_| !is_last).map(|row| written(row.id.as_str()));
    Ok(Page { rows, next })
}
