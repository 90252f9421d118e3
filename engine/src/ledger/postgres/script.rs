//! A script: a handler's SQL as text. Its statements, and where the message goes into them.

use super::row::written;
use crate::process::Message;

/// What a script can name, as in `:id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Id,
    Position,
    Sequence,
    Key,
    Payload,
}

const KNOWN: &str = ":id, :position, :sequence, :key and :payload";

impl Parameter {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "position" => Self::Position,
            "sequence" => Self::Sequence,
            "key" => Self::Key,
            "payload" => Self::Payload,
            _ => return None,
        })
    }

    /// What it is to the server. Each goes there as text, so that it is of this type wherever it stands.
    fn cast(self) -> &'static str {
        match self {
            Self::Id | Self::Key => "",
            Self::Position => "::bigint",
            Self::Sequence => "::numeric",
            Self::Payload => "::jsonb",
        }
    }

    /// Its value for a message, as text.
    pub(super) fn value(self, message: &Message) -> Option<String> {
        match self {
            Self::Id => Some(written(message.id.as_str())),
            Self::Position => Some(message.position.0.to_string()),
            Self::Sequence => message.sequence.map(|sequence| sequence.to_string()),
            Self::Key => message.key.as_deref().map(written),
            Self::Payload => Some(message.payload.text().to_owned()),
        }
    }
}

/// One statement of a script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// As the server takes it, with `$1` and so on.
    pub(super) sql: String,
    pub(super) parameters: Vec<Parameter>,
    /// Where it begins in the script; the first line is 1.
    pub(super) line: usize,
    /// Its first word, in capitals.
    verb: String,
    /// Where, after `WITH …`, the statement itself begins.
    main: Option<usize>,
}

/// What can stand in a `WITH`, and so have its rows told as JSON.
const ROWS: [&str; 7] = ["SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "VALUES", "TABLE"];
/// What would end the transaction.
const ENDS: [&str; 6] = ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT"];

impl Statement {
    /// The same, answering each row as JSON text: the value itself, where there is only one column.
    pub(super) fn as_json(&self, columns: usize) -> Option<String> {
        let (name, value) = if columns == 1 {
            ("conga_result (value)", "value")
        } else {
            ("conga_result", "conga_result")
        };
        let end = format!("\n) SELECT to_json({value})::text FROM conga_result");
        match self.main {
            Some(main) => {
                let (with, statement) = self.sql.split_at(main);
                Some(format!("{with}, {name} AS ({statement}{end}"))
            }
            None if ROWS.contains(&self.verb.as_str()) || self.verb.is_empty() => {
                Some(format!("WITH {name} AS ({}{end}", self.sql))
            }
            None => None,
        }
    }
}

/// Reads a script. What it says against it names the line.
pub(super) fn statements(script: &str) -> Result<Vec<Statement>, String> {
    let mut scan = Scan {
        rest: script,
        line: 1,
        before: ' ',
        depth: 0,
        statement: Statement::begin(),
        statements: Vec::new(),
    };
    while scan.step()? {}
    scan.end()?;
    if scan.statements.is_empty() {
        return Err("there is no statement in it".to_owned());
    }
    Ok(scan.statements)
}

impl Statement {
    fn begin() -> Self {
        Self {
            sql: String::new(),
            parameters: Vec::new(),
            line: 0,
            verb: String::new(),
            main: None,
        }
    }
}

struct Scan<'a> {
    rest: &'a str,
    line: usize,
    /// The letter before.
    before: char,
    /// How many parentheses are open.
    depth: usize,
    statement: Statement,
    statements: Vec<Statement>,
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_' || letter == '$'
}

impl<'a> Scan<'a> {
    /// Takes the next piece; false at the end.
    fn step(&mut self) -> Result<bool, String> {
        let Some(letter) = self.rest.chars().next() else {
            return Ok(false);
        };
        if self.rest.starts_with("--") {
            let length = self.rest.find('\n').unwrap_or(self.rest.len());
            self.copy(length);
        } else if self.rest.starts_with("/*") {
            let length = comment(self.rest).ok_or_else(|| self.bad("a comment is not closed"))?;
            self.copy(length);
        } else if letter.is_whitespace() {
            self.copy(letter.len_utf8());
        } else if letter == ';' {
            self.rest = &self.rest[1..];
            self.before = ';';
            self.end()?;
        } else {
            if self.statement.line == 0 {
                self.statement.line = self.line;
            }
            self.code(letter)?;
        }
        Ok(true)
    }

    /// What is neither between statements nor a comment.
    fn code(&mut self, letter: char) -> Result<(), String> {
        match letter {
            '\'' | '"' => {
                let length = quoted(self.rest, letter, false).ok_or_else(|| self.bad("a quote is not closed"))?;
                self.copy(length);
            }
            '$' if !is_word(self.before) => match dollar(self.rest) {
                Dollar::Quote(length) => self.copy(length),
                Dollar::Open => return Err(self.bad("a dollar quote is not closed")),
                Dollar::Number => return Err(self.bad(&format!("a script has no $1: it has {KNOWN}"))),
                Dollar::Else => self.copy(1),
            },
            ':' if self.rest.starts_with("::") || self.rest.starts_with(":=") => self.copy(2),
            ':' => {
                let name: &str = word(&self.rest[1..]);
                if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
                    self.copy(1);
                } else {
                    self.parameter(name)?;
                }
            }
            _ if is_word(letter) => self.word(),
            _ => {
                match letter {
                    '(' => self.depth += 1,
                    ')' => self.depth = self.depth.saturating_sub(1),
                    _ => {}
                }
                self.copy(letter.len_utf8());
            }
        }
        Ok(())
    }

    fn parameter(&mut self, name: &'a str) -> Result<(), String> {
        let Some(parameter) = Parameter::named(name) else {
            return Err(self.bad(&format!(
                ":{name} is nothing that a message has, which is {KNOWN}. (In a slice, put a space after the colon)"
            )));
        };
        let parameters = &mut self.statement.parameters;
        let index = parameters
            .iter()
            .position(|known| *known == parameter)
            .unwrap_or_else(|| {
                parameters.push(parameter);
                parameters.len() - 1
            });
        let text = format!("(${}::text{})", index + 1, parameter.cast());
        self.statement.sql.push_str(&text);
        self.rest = &self.rest[1 + name.len()..];
        self.before = ')';
        Ok(())
    }

    fn word(&mut self) {
        let found = word(self.rest);
        // E'…' has escapes.
        let quote = self.rest[found.len()..].starts_with('\'') && found.eq_ignore_ascii_case("e");
        if quote && let Some(length) = quoted(&self.rest[found.len()..], '\'', true) {
            self.copy(found.len() + length);
            return;
        }
        let capitals = found.to_ascii_uppercase();
        if self.statement.main.is_none() && self.depth == 0 {
            if self.statement.verb == "WITH" && ROWS.contains(&capitals.as_str()) {
                self.statement.main = Some(self.statement.sql.len());
            } else if self.statement.verb.is_empty() && self.statement.sql.is_empty() {
                self.statement.verb = capitals;
            }
        }
        self.copy(found.len());
    }

    /// Takes so many bytes as they are.
    fn copy(&mut self, length: usize) {
        let (piece, rest) = self.rest.split_at(length);
        self.line += piece.matches('\n').count();
        self.before = piece.chars().next_back().unwrap_or(self.before);
        // What stands before a statement is none of it.
        if self.statement.line > 0 {
            self.statement.sql.push_str(piece);
        }
        self.rest = rest;
    }

    fn end(&mut self) -> Result<(), String> {
        let statement = std::mem::replace(&mut self.statement, Statement::begin());
        self.depth = 0;
        if statement.line == 0 {
            return Ok(());
        }
        if ENDS.contains(&statement.verb.as_str()) {
            return Err(format!(
                "line {}: {} is not the script's to say: all of it runs in one transaction, which also records the result",
                statement.line, statement.verb
            ));
        }
        self.statements.push(statement);
        Ok(())
    }

    fn bad(&self, why: &str) -> String {
        format!("line {}: {why}", self.line)
    }
}

/// The word at the beginning of a text; empty, if there is none.
fn word(text: &str) -> &str {
    &text[..text.find(|letter| !is_word(letter)).unwrap_or(text.len())]
}

/// How long a comment is; comments nest.
fn comment(text: &str) -> Option<usize> {
    let (mut at, mut depth) = (2, 1);
    while depth > 0 {
        let next = at + text[at..].find(['/', '*'])?;
        if text[next..].starts_with("/*") {
            depth += 1;
            at = next + 2;
        } else if text[next..].starts_with("*/") {
            depth -= 1;
            at = next + 2;
        } else {
            at = next + 1;
        }
    }
    Some(at)
}

/// How long a quoted piece is. A doubled quote is read as two pieces side by side, which is the same.
fn quoted(text: &str, quote: char, escapes: bool) -> Option<usize> {
    let mut at = 1;
    loop {
        let next = at + text[at..].find([quote, '\\'])?;
        if text[next..].starts_with(quote) {
            return Some(next + 1);
        }
        at = next + 1;
        if escapes {
            at += text[at..].chars().next()?.len_utf8();
        }
    }
}

enum Dollar {
    Quote(usize),
    Open,
    Number,
    Else,
}

/// What begins with a dollar. Source: the manual, "Dollar-Quoted String Constants".
fn dollar(text: &str) -> Dollar {
    let after = &text[1..];
    if after.starts_with(|letter: char| letter.is_ascii_digit()) {
        return Dollar::Number;
    }
    let length = after.find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
    let Some(length) = length.filter(|length| after[*length..].starts_with('$')) else {
        return Dollar::Else;
    };
    let (tag, body) = text.split_at(length + 2);
    body.find(tag)
        .map_or(Dollar::Open, |end| Dollar::Quote(tag.len() + end + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(script: &str) -> Statement {
        let mut found = statements(script).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn what_a_message_has_is_put_in_with_its_type() {
        use Parameter::{Id, Key, Payload, Position, Sequence};
        let found = one("SELECT :payload->>'a', :id, :sequence, :key, :position, :id");
        assert_eq!(
            found.sql,
            "SELECT ($1::text::jsonb)->>'a', ($2::text), ($3::text::numeric), ($4::text), ($5::text::bigint), ($2::text)"
        );
        assert_eq!(found.parameters, [Payload, Id, Sequence, Key, Position]);
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for sql in [
            "SELECT ':id', 'it''s :id', E'\\':id', \":id\"",
            "SELECT $$ :id; $$, $x$ $$ :id $y$ ; $x$",
            "SELECT 1 /* :id /* ; */ :id */ -- :id; '",
            "SELECT '1'::text, a[1:2], x := 3, \"a\"\"b\", e'a\\\\', U&'\\0061', 'back\\'",
            "SELECT a$b$c, cost$",
        ] {
            let found = one(sql);
            assert_eq!(found.sql, sql);
            assert_eq!(found.parameters, []);
        }
    }

    #[test]
    fn statements_are_told_apart_and_know_their_lines() {
        let script = "-- first; :none\n\nUPDATE a SET b = ';' ;\n;\n  /* and */ SELECT (1);\n-- the end";
        let found = statements(script).unwrap();
        let seen: Vec<_> = found.iter().map(|found| (found.line, found.sql.trim())).collect();
        assert_eq!(seen, [(3, "UPDATE a SET b = ';'"), (5, "SELECT (1)")]);
    }

    #[test]
    fn rows_become_json() {
        assert_eq!(
            one("SELECT 1 -- one").as_json(1).unwrap(),
            "WITH conga_result (value) AS (SELECT 1 -- one\n) SELECT to_json(value)::text FROM conga_result"
        );
        let with = one(
            "with x as (select 1), y AS MATERIALIZED (DELETE FROM b RETURNING c) insert into a select * from x returning *",
        );
        assert_eq!(
            with.as_json(2).unwrap(),
            "with x as (select 1), y AS MATERIALIZED (DELETE FROM b RETURNING c) , conga_result AS (insert into a select * from x \
             returning *\n) SELECT to_json(conga_result)::text FROM conga_result"
        );
        assert_eq!(one("SHOW all").as_json(3), None);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (script, why) in [
            ("", "no statement"),
            ("-- nothing", "no statement"),
            ("SELECT 1;\nSELECT :amount", "line 2: :amount"),
            ("SELECT\n'a", "line 2: a quote"),
            ("SELECT $1", "line 1: a script has no $1"),
            ("SELECT $a$ x", "dollar quote"),
            ("/* x", "comment"),
            ("SELECT 1;\ncommit", "line 2: COMMIT"),
            ("Begin; SELECT 1", "line 1: BEGIN"),
        ] {
            let told = statements(script).unwrap_err();
            assert!(told.contains(why), "{script}: {told}");
        }
    }
}
