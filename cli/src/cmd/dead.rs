//! `conga dead`: what failed for good, and what is to become of it.

use conga::core::message::Position;
use conga::core::partition::Judged;
use conga::dead::{DeadLetter, DeadLetters};
use serde_json::{Value, json};

use crate::args::{Dead, Purge, Retry, Skip};
use crate::settings::{Settings, wrong};
use crate::text::{self, count};

pub(crate) async fn run(settings: &Settings, partition: Option<usize>, dead: Dead) -> anyhow::Result<bool> {
    let shards = settings.open_shards().await?;
    let parts = shards.partitions();
    let of_the_base = partition.is_none() && shards.are_merged();
    if of_the_base && matches!(dead, Dead::Retry(_)) {
        return Err(wrong(
            "what came too late has no place in the order any more: look at it and `conga dead purge` it, or say which partition's \
             dead letters by --partition P",
        ));
    }
    let store = match partition {
        None if of_the_base => shards.base(),
        None if shards.are_several() => {
            return Err(wrong(format!(
                "this line has {} partitions, each with positions of its own: say which by --partition P, from 0 on",
                parts.len()
            )));
        }
        which => parts.get(which.unwrap_or(0)).ok_or_else(|| {
            wrong(format!(
                "there is no such partition: this line has {}, from 0 on",
                parts.len()
            ))
        })?,
    };
    let letters = DeadLetters::new(store.clone());
    match dead {
        Dead::List { limit } => {
            let mut listed = letters.list().await?;
            listed.truncate(limit.unwrap_or(usize::MAX));
            print!("{}", if settings.json { lines(&listed) } else { table(&listed) });
            Ok(true)
        }
        Dead::Show { position } => {
            let Some(row) = letters.find(Position(position)).await? else {
                eprintln!("{}", missing(position));
                return Ok(false);
            };
            let json = String::from_utf8_lossy(&row.json);
            println!("{}", if settings.json { json.into_owned() } else { page(&json)? });
            Ok(true)
        }
        Dead::Retry(Retry { positions, all }) => {
            let chosen = Chosen::of(positions, all.then_some(letters.list().await?));
            let answers = letters.retry(&chosen.positions).await?;
            Ok(chosen.tell(&answers, "retried", settings.json))
        }
        Dead::Skip(Skip { positions, mark }) => {
            let chosen = Chosen::of(positions, None);
            let answers = letters.skip(&chosen.positions, mark).await?;
            Ok(chosen.tell(&answers, if mark { "marked" } else { "skipped" }, settings.json))
        }
        Dead::Purge(Purge { positions, all, older }) => {
            let mut among = None;
            if all || older.is_some() {
                let now = store.status().await?.now;
                let least = older.map_or(0, |age| u64::try_from(age.as_micros()).unwrap_or(u64::MAX));
                let mut listed = letters.list().await?;
                listed.retain(|letter| all || now.since(letter.died) > least);
                among = Some(listed);
            }
            let chosen = Chosen::of(positions, among);
            let answers = letters.purge(&chosen.positions).await?;
            Ok(chosen.tell(&answers, "purged", settings.json))
        }
    }
}

/// Which of them it is about.
struct Chosen {
    positions: Vec<Position>,
    /// Each by its position: then each has to be done. Of those that were listed, some may have gone since, and some have to
    /// wait for their turn.
    is_named: bool,
}

impl Chosen {
    fn of(named: Vec<u64>, listed: Option<Vec<DeadLetter>>) -> Self {
        match listed {
            None => Self {
                positions: named.into_iter().map(Position).collect(),
                is_named: true,
            },
            Some(listed) => Self {
                positions: listed.iter().map(|letter| letter.position).collect(),
                is_named: false,
            },
        }
    }

    /// Says what came of it. Whether all was done that had to be.
    fn tell(&self, answers: &[Judged], what: &'static str, json: bool) -> bool {
        let those = |wanted: Judged| -> Vec<u64> {
            let judged = self.positions.iter().zip(answers);
            judged
                .filter_map(|(position, answer)| (*answer == wanted).then_some(position.0))
                .collect()
        };
        let (done, gone) = (those(Judged::Done), those(Judged::Missing));
        let (early, passed) = (those(Judged::Early), those(Judged::Passed));
        if json {
            println!(
                "{}",
                json!({ what: done, "missing": gone, "early": early, "not_halted": passed })
            );
        } else {
            println!("{what} {}", count(done.len() as u64, "dead letter"));
            for position in &gone {
                eprintln!("{}", missing(*position));
            }
            for position in &early {
                eprintln!(
                    "conga: {position} waits for its turn: do it again once the head is past it (conga status); where the line \
                     is halted at it, conga dead retry or conga dead skip"
                );
            }
            for position in &passed {
                eprintln!(
                    "conga: the line is not halted at {position}, so there is nothing to skip (conga dead list): it was skipped \
                     before, or failed under another --on-dead than halt"
                );
            }
        }
        !self.is_named || gone.is_empty() && early.is_empty() && passed.is_empty()
    }
}

fn missing(position: u64) -> String {
    format!("conga: no dead letter at {position}: it was retried or purged before, or never was one (conga dead list)")
}

fn lines(letters: &[DeadLetter]) -> String {
    let line = |letter: &DeadLetter| {
        let object = json!({
            "position": letter.position.0,
            "id": letter.id.as_str(),
            "reason": letter.reason,
            "attempts": letter.attempts.0,
            "died": letter.died.to_string(),
            "halted": letter.is_halted,
        });
        format!("{object}\n")
    };
    letters.iter().map(line).collect()
}

/// A line each; on a terminal no wider than that.
fn table(letters: &[DeadLetter]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let ids: Vec<_> = letters.iter().map(|letter| one_line(letter.id.as_str())).collect();
    let wide = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0).clamp(2, 40);
    let width = text::width();
    let row = |position: &str, id: &str, attempts: &str, died: &str, reason: &str| {
        let line = format!("{position:>10}  {id:wide$}  {attempts:>8}  {died:27}  {reason}");
        cut(line.trim_end(), width) + "\n"
    };
    let mut table = row("position", "id", "attempts", "died", "reason");
    for (letter, id) in letters.iter().zip(&ids) {
        let (position, attempts) = (letter.position.to_string(), letter.attempts.to_string());
        let halted = if letter.is_halted { "HALTED: " } else { "" };
        let reason = format!("{halted}{}", one_line(&letter.reason));
        table += &row(&position, &cut(id, 40), &attempts, &letter.died.to_string(), &reason);
    }
    table
}

/// Without anything that a terminal would do something at.
pub(super) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Everything about one of them, for people.
fn page(json: &str) -> anyhow::Result<String> {
    let letter: Value = serde_json::from_str(json)?;
    let text = |field: &str| letter[field].as_str().unwrap_or_default();
    let entry = match letter["entry"].as_str() {
        None => format!("in base64, for it is no text:\n{}", text("entry_base64")),
        Some(entry) => match serde_json::from_str::<Value>(entry) {
            Ok(value) => format!("as it came in:\n{}", serde_json::to_string_pretty(&value)?),
            Err(_) => format!("as it came in:\n{entry}"),
        },
    };
    let halted = if letter["halted"] == true {
        "halted   the line waits here: conga dead retry, or conga dead skip\n"
    } else {
        ""
    };
    Ok(format!(
        "position {}\nid       {}\nattempts {}\ndied     {}\nreason   {}\n{halted}message  {entry}",
        letter["position"],
        text("id"),
        letter["attempts"],
        text("died"),
        text("reason"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_its_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(one_line("a\u{1b}[31m\nb"), "a [31m b");
    }

    #[test]
    fn a_page_has_the_message_as_a_person_reads_it() {
        let page = |entry: &str| {
            let json =
                format!("{{\"position\":2,\"id\":\"b\",\"reason\":\"no\",\"attempts\":5,\"died\":\"t\",{entry}}}");
            super::page(&json).expect("a page")
        };
        assert!(page(r#""entry":"{\"id\":1}""#).ends_with("as it came in:\n{\n  \"id\": 1\n}"));
        assert!(page(r#""entry":"plain""#).ends_with("as it came in:\nplain"));
        assert!(page(r#""entry_base64":"/w==""#).ends_with("no text:\n/w=="));
    }
}
