//! `conga dead`: what failed for good, and what is to become of it.

use conga::core::message::Position;
use conga::core::partition::Judged;
use conga::dead::{DeadLetter, DeadLetters};
use conga::shards::Shards;
use conga::store::SharedStore;
use serde_json::json;

use self::page::{Listed, lines, page, table};

use crate::args::{Dead, Purge, Retry, Skip};
use crate::settings::{Settings, wrong};
use crate::text::count;

mod page;

pub(super) use page::one_line;

pub(crate) async fn run(settings: &Settings, partition: Option<usize>, dead: Dead) -> anyhow::Result<bool> {
    let shards = settings.open_shards().await?;
    let letters = || {
        let store = place(&shards, partition)?;
        anyhow::Ok(DeadLetters::new(store.clone()))
    };
    match dead {
        Dead::List { limit } => {
            let mut listed = listed(&shards, partition).await?;
            listed.truncate(limit.unwrap_or(usize::MAX));
            print!("{}", if settings.json { lines(&listed) } else { table(&listed) });
            Ok(true)
        }
        Dead::Show { position } => {
            let Some(row) = letters()?.find(Position(position)).await? else {
                eprintln!("{}", missing(position));
                return Ok(false);
            };
            let json = String::from_utf8_lossy(&row.json);
            println!("{}", if settings.json { json.into_owned() } else { page(&json)? });
            Ok(true)
        }
        Dead::Retry(_) if partition.is_none() && shards.are_merged() => Err(wrong(
            "what came too late has no place in the order any more: look at it and `conga dead purge` it, or say which partition's \
             dead letters by --partition P",
        )),
        Dead::Retry(Retry { positions, all }) => {
            let letters = letters()?;
            let chosen = Chosen::of(positions, all.then_some(letters.list().await?));
            let answers = letters.retry(&chosen.positions).await?;
            Ok(chosen.tell(&answers, "retried", settings.json))
        }
        Dead::Skip(Skip { mark, .. }) if shards.are_merged() && (partition.is_none() || !mark) => Err(wrong(
            "this line's partitions are merged, and who merges waits for each number: say --partition P (conga status tells where \
             the line is halted) and --mark, so that a tombstone stands in its place; `--on-dead skip` of the sequencer keeps those \
             out of the line's output",
        )),
        Dead::Skip(Skip { positions, mark }) => {
            let chosen = Chosen::of(positions, None);
            let answers = letters()?.skip(&chosen.positions, mark).await?;
            Ok(chosen.tell(&answers, if mark { "marked" } else { "skipped" }, settings.json))
        }
        Dead::Purge(Purge { positions, all, older }) => {
            let letters = letters()?;
            let mut among = None;
            if all || older.is_some() {
                let now = place(&shards, partition)?.status().await?.now;
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

/// Where the dead letters are that are meant: of a merged line, without a partition, those that came too late.
fn place(shards: &Shards, partition: Option<usize>) -> anyhow::Result<&SharedStore> {
    let parts = shards.partitions();
    match partition {
        None if shards.are_merged() => Ok(shards.base()),
        None if shards.are_several() => Err(wrong(format!(
            "this line has {} partitions, each with positions of its own: say which by --partition P, from 0 on",
            parts.len()
        ))),
        which => parts.get(which.unwrap_or(0)).ok_or_else(|| {
            wrong(format!(
                "there is no such partition: this line has {}, from 0 on",
                parts.len()
            ))
        }),
    }
}

/// Those of a partition, or of all and of what merges them; the oldest first.
async fn listed(shards: &Shards, partition: Option<usize>) -> anyhow::Result<Vec<Listed>> {
    let mut places = Vec::new();
    if partition.is_some() || !shards.are_several() || shards.are_merged() {
        places.push((partition, place(shards, partition)?));
    }
    if partition.is_none() && shards.are_several() {
        let parts = shards.partitions().iter().enumerate();
        places.extend(parts.map(|(partition, store)| (Some(partition), store)));
    }
    let mut listed = Vec::new();
    for (partition, store) in places {
        let letters = DeadLetters::new(store.clone()).list().await?;
        listed.extend(letters.into_iter().map(|letter| (partition, letter)));
    }
    listed.sort_by_key(|(_, letter)| letter.died);
    Ok(listed)
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
