//! A script as a handler: prepared against the database at first, then run for each message.

use bytes::Bytes;
use conga_core::message::Payload;
use deadpool_postgres::Transaction;
use futures_util::future::BoxFuture;
use tokio_postgres::types::ToSql;

use super::connect::{Pool, patiently};
use super::effect::{Effect, EffectError};
use super::failure;
use super::result::compact;
use super::script::{Parameter, Statement, statements};
use crate::ledger::{LedgerError, Result};
use crate::process::{HandlerError, Message};

/// SQL that runs for each message, in the transaction that records what it answers.
#[derive(Debug)]
pub struct Script(Vec<Step>);

#[derive(Debug)]
struct Step {
    sql: String,
    parameters: Vec<Parameter>,
    /// Its rows are the result.
    answers: bool,
}

impl Script {
    /// Reads a script and has the server look at each statement. Changes nothing.
    pub(super) async fn prepare(pool: &Pool, text: &str) -> Result<Self> {
        let statements = statements(text).map_err(LedgerError::Broken)?;
        let mut columns = Vec::with_capacity(statements.len());
        for statement in &statements {
            columns.push(look_at(pool, &statement.sql, statement).await?);
        }
        let answers = columns.iter().rposition(|columns| *columns > 0);
        let mut steps = Vec::with_capacity(statements.len());
        for (index, statement) in statements.into_iter().enumerate() {
            let answers = answers == Some(index);
            let sql = if answers {
                let Some(sql) = statement.as_json(columns[index]) else {
                    return Err(LedgerError::Broken(format!(
                        "line {}: what answers the result has to be a SELECT, or an INSERT, UPDATE or DELETE with RETURNING",
                        statement.line
                    )));
                };
                look_at(pool, &sql, &statement).await?;
                sql
            } else {
                statement.sql
            };
            steps.push(Step {
                sql,
                parameters: statement.parameters,
                answers,
            });
        }
        Ok(Self(steps))
    }
}

/// How many columns a statement answers with.
async fn look_at(pool: &Pool, sql: &str, statement: &Statement) -> Result<usize> {
    let mut connection = pool.take().await?;
    let client = connection.client();
    let asking = async {
        match client.prepare(sql).await {
            Ok(prepared) => Ok(Ok(prepared.columns().len())),
            // What the server says to the statement, not to us.
            Err(error) if matches!(failure::amidst(&error), failure::Amidst::Handler { .. }) => {
                Ok(Err(failure::told(&error)))
            }
            Err(error) => Err(error),
        }
    };
    let answer = patiently(asking).await;
    match connection.settle(pool, answer)? {
        Ok(columns) => Ok(columns),
        Err(told) => Err(LedgerError::Broken(format!(
            "the statement of line {}: {told}",
            statement.line
        ))),
    }
}

impl Effect for Script {
    fn apply<'a>(
        &'a self,
        transaction: &'a mut Transaction<'_>,
        message: &'a Message,
    ) -> BoxFuture<'a, std::result::Result<Payload, EffectError>> {
        Box::pin(async move {
            let mut result = "null".to_owned();
            for step in &self.0 {
                let statement = transaction.prepare_cached(&step.sql).await?;
                let values: Vec<Option<String>> = step.parameters.iter().map(|name| name.value(message)).collect();
                let values: Vec<&(dyn ToSql + Sync)> = values.iter().map(|value| value as _).collect();
                if !step.answers {
                    transaction.execute(&statement, &values).await?;
                    continue;
                }
                let rows = transaction.query(&statement, &values).await?;
                let rows = rows.iter().map(|row| row.try_get(0));
                result = told(rows.collect::<std::result::Result<_, _>>()?);
            }
            let result = Payload::json(&Bytes::from(result));
            Ok(result.map_err(|error| HandlerError::permanent(format!("the database answered what is {error}")))?)
        })
    }
}

/// Rows, each of them JSON: none, the one, or a list of them.
fn told(rows: Vec<Option<&str>>) -> String {
    let texts: Vec<String> = rows.into_iter().map(|row| compact(row.unwrap_or("null"))).collect();
    match <[String; 1]>::try_from(texts) {
        Ok([one]) => one,
        Err(none) if none.is_empty() => "null".to_owned(),
        Err(several) => format!("[{}]", several.join(",")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_as_one_value() {
        assert_eq!(told(vec![]), "null");
        assert_eq!(told(vec![None]), "null");
        assert_eq!(told(vec![Some("{\"a\": 1}")]), "{\"a\":1}");
        assert_eq!(told(vec![Some("1"), None, Some("\"x y\"")]), "[1,null,\"x y\"]");
    }
}
