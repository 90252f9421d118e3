//! A script as an effect: SQL as text, prepared at first, then run for each message.

use conga_core::message::Payload;
use rusqlite::types::{ToSql, Value, ValueRef};
use rusqlite::{Row, Statement};
use serde_json::{Map, Number, Value as Json};

use super::convert::sequence;
use super::database::Database;
use super::effect::{Effect, EffectError, EffectOptions};
use super::transaction::Transaction;
use crate::process::{HandlerError, Message};
use crate::store::{Result, StoreError};

const KNOWN: &str = ":id, :position, :sequence, :key and :payload";
/// A result's only column, if it has this name, is the result's JSON as text: SQLite has no type for that.
const JSON: &str = "json";

/// SQL that runs for each message, in the step that completes it. What it answers is the result.
#[derive(Debug)]
pub struct Script(Vec<Step>);

#[derive(Debug)]
struct Step {
    sql: String,
    /// In the order in which SQLite numbers them.
    parameters: Vec<String>,
    /// Its rows are the result.
    answers: bool,
}

impl Script {
    /// Reads a script and has SQLite look at each statement. Changes nothing.
    pub(super) fn prepare(database: &mut Database, text: &str) -> Result<Self> {
        let guard = database.guard()?;
        let connection = database.connection();
        let mut steps = Vec::new();
        let mut last = None;
        for (line, sql) in statements(text) {
            let bad = |why: String| StoreError::Broken(format!("line {line}: {why}"));
            let limit = EffectOptions::default().limit;
            let looked = guard.within(limit, || {
                let transaction = Transaction::on(connection);
                let statement = transaction.prepare(sql).map_err(|error| told(&error))?;
                Ok((parameters(&statement)?, statement.column_count()))
            });
            let (parameters, columns) = looked.map_err(bad)?;
            if columns > 0 {
                last = Some(steps.len());
            }
            steps.push(Step {
                sql: sql.to_owned(),
                parameters,
                answers: false,
            });
        }
        if steps.is_empty() {
            return Err(StoreError::Broken("there is no statement in it".to_owned()));
        }
        if let Some(last) = last {
            steps[last].answers = true;
        }
        Ok(Self(steps))
    }
}

fn parameters(statement: &Statement<'_>) -> std::result::Result<Vec<String>, String> {
    (1..=statement.parameter_count())
        .map(|index| match statement.parameter_name(index) {
            Some(name) if KNOWN.split([',', ' ']).any(|known| known == name) => Ok(name.to_owned()),
            Some(name) => Err(format!("{name} is nothing that a message has, which is {KNOWN}")),
            None => Err(format!("a script has no ?: it has {KNOWN}")),
        })
        .collect()
}

/// What SQLite says to a statement, without the statement.
fn told(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        rusqlite::Error::SqliteFailure(code, text)
            if code.code == rusqlite::ErrorCode::AuthorizationForStatementDenied =>
        {
            let text = text.as_deref().unwrap_or("not authorized");
            format!(
                "{text}: a script reads, and writes rows of tables that are not Conga's own; all of it runs in the transaction \
                 that also records the result"
            )
        }
        other => other.to_string(),
    }
}

impl Effect for Script {
    fn apply(&self, transaction: &Transaction<'_>, message: &Message) -> std::result::Result<Payload, EffectError> {
        let mut result = Json::Null.to_string();
        for step in &self.0 {
            let mut statement = transaction.prepare(&step.sql)?;
            for (index, name) in step.parameters.iter().enumerate() {
                statement.raw_bind_parameter(index + 1, value(name, message))?;
            }
            let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
            let mut rows = statement.raw_query();
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                if step.answers {
                    found.push(json(row, &names)?);
                }
            }
            if step.answers {
                result = match <[String; 1]>::try_from(found) {
                    Ok([one]) => one,
                    Err(none) if none.is_empty() => Json::Null.to_string(),
                    Err(several) => format!("[{}]", several.join(",")),
                };
            }
        }
        let result = Payload::json(&result.into());
        Ok(result.map_err(|error| HandlerError::permanent(format!("the script answered what is {error}")))?)
    }
}

fn value(name: &str, message: &Message) -> Box<dyn ToSql> {
    match name {
        ":id" => Box::new(message.id.as_str().to_owned()),
        ":position" => Box::new(i64::try_from(message.position.0).unwrap_or(i64::MAX)),
        ":sequence" => Box::new(sequence(message.sequence)),
        ":key" => Box::new(message.key.clone()),
        ":payload" => Box::new(message.payload.text().to_owned()),
        _ => Box::new(Value::Null),
    }
}

/// A row as JSON: the value itself, where there is only one column, else an object.
fn json(row: &Row<'_>, names: &[String]) -> std::result::Result<String, EffectError> {
    if let [name] = names {
        let one = row.get_ref(0)?;
        return Ok(match one {
            ValueRef::Text(text) if name.eq_ignore_ascii_case(JSON) => {
                let text: &serde_json::value::RawValue = serde_json::from_slice(text)
                    .map_err(|error| HandlerError::permanent(format!("the column `json` has no JSON: {error}")))?;
                text.get().to_owned()
            }
            one => column(one)?.to_string(),
        });
    }
    let mut object = Map::new();
    for (index, name) in names.iter().enumerate() {
        object.insert(name.clone(), column(row.get_ref(index)?)?);
    }
    Ok(Json::Object(object).to_string())
}

fn column(value: ValueRef<'_>) -> std::result::Result<Json, EffectError> {
    Ok(match value {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => Json::Number(
            Number::from_f64(number)
                .ok_or_else(|| HandlerError::permanent("the script answered a number that JSON does not have"))?,
        ),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => serde_json::from_str(Payload::bytes(bytes).text())
            .map_err(|error| HandlerError::permanent(format!("the script answered bytes: {error}")))?,
    })
}

/// The statements of a script, each with the line where it begins.
fn statements(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut at, mut begin) = (0, None);
    while let Some(letter) = text[at..].chars().next() {
        let rest = &text[at..];
        let (length, is_code) = match letter {
            ';' => {
                if let Some(begin) = begin.take() {
                    found.push((begin, &text[begin..at]));
                }
                (1, false)
            }
            '\'' | '"' | '`' => (until(rest, 1, &letter.to_string()), true),
            '[' => (until(rest, 1, "]"), true),
            '-' if rest.starts_with("--") => (until(rest, 2, "\n"), false),
            '/' if rest.starts_with("/*") => (until(rest, 2, "*/"), false),
            letter => (letter.len_utf8(), !letter.is_whitespace()),
        };
        if is_code {
            begin.get_or_insert(at);
        }
        at += length;
    }
    if let Some(begin) = begin {
        found.push((begin, &text[begin..]));
    }
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    found.into_iter().map(|(at, sql)| (line(at), sql)).collect()
}

/// How long a piece is that ends with `end`; what is not closed is told by SQLite. A doubled quote is two pieces side by side.
fn until(text: &str, from: usize, end: &str) -> usize {
    text[from..].find(end).map_or(text.len(), |at| from + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_and_know_their_lines() {
        let script =
            "-- first; \n\nUPDATE a SET b = ';''' ;\n;\n  /* and; */ SELECT [a;b], \"c;\" -- x;\n, 1;\n-- the end; '";
        assert_eq!(
            statements(script),
            [(3, "UPDATE a SET b = ';''' "), (5, "SELECT [a;b], \"c;\" -- x;\n, 1")]
        );
        assert_eq!(statements("SELECT 'open; "), [(1, "SELECT 'open; ")]);
    }
}
