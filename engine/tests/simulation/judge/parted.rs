//! A line of several partitions that nothing merges: each is judged as a line of its own, by the same laws. Over all of them, what
//! has to stay together is in one, and each message comes out once.

use std::collections::{BTreeMap, BTreeSet};

use conga::core::message::{Body, Entry, Format, Id, Output, Position, key_of, parse};
use conga::core::shape::Order;
use conga::core::time::Micros;

use super::Judge;
use crate::history::{Happened, History, Noted};
use crate::plan::Plan;

pub(super) fn judge(plan: &Plan, history: &History) -> Vec<String> {
    let mut found = stays_together(plan, history);
    found.extend(comes_out_once(history));
    for site in plan.sites() {
        let wrong = of_partition(Plan::new(plan.seed).of_partition(site), site, history);
        found.extend(wrong.into_iter().map(|what| format!("partition {site}: {what}")));
    }
    let wrong = history.happened.iter().filter_map(|noted| match &noted.what {
        Happened::Wrong { what } => Some(what.clone()),
        _ => None,
    });
    found.extend(wrong);
    found
}

fn of_partition(plan: Plan, site: usize, history: &History) -> Vec<String> {
    let mut judge = Judge::of_partition(plan, site);
    // By how much its clock is ahead of the run's.
    let mut ahead = 0;
    for noted in &history.happened {
        let elapsed = u64::try_from(noted.elapsed.as_micros()).unwrap();
        if noted.site == site {
            ahead = noted.at.0 - elapsed;
            judge.meet(noted);
        } else {
            judge.hear_of(Micros(elapsed + ahead), noted);
        }
    }
    judge.finish(history.rest.get(site))
}

impl Judge {
    /// Something happens in another partition, or to the whole line.
    pub(super) fn hear_of(&mut self, at: Micros, noted: &Noted) {
        match &noted.what {
            Happened::Settled => self.see(at, &noted.what),
            Happened::Kills { .. } => {
                self.killed.extend(noted.who);
                self.begin_anew(at);
            }
            _ => {}
        }
    }
}

/// All messages of a key are in one partition, and so are all of an identity: else neither order nor that it comes out once would
/// hold. Said without the router.
fn stays_together(plan: &Plan, history: &History) -> Vec<String> {
    let mut places: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
    let mut found = Vec::new();
    for noted in &history.happened {
        let Happened::Sent { entries, .. } = &noted.what else {
            continue;
        };
        for entry in entries {
            let nowhere = Position(0);
            let input = parse(&Entry::Whole(entry.clone()), nowhere, Format::Any, u64::MAX);
            let id = input.ok().map(|input| input.id).filter(|id| !id.is_of_position());
            let id = id.map(|id| [b"id ", id.as_str().as_bytes()].concat());
            let key = key_of(entry).filter(|_| plan.order != Order::None);
            for what in key.map(|key| [b"key ", key.as_slice()].concat()).into_iter().chain(id) {
                let at = *places.entry(what).or_insert(noted.site);
                if at != noted.site {
                    found.push(format!(
                        "{entry:?} is in partition {}, and belongs into {at}",
                        noted.site
                    ));
                }
            }
        }
    }
    found
}

/// No identity has a result in two places.
fn comes_out_once(history: &History) -> Vec<String> {
    let mut results: BTreeMap<Id, BTreeSet<(usize, Position)>> = BTreeMap::new();
    for noted in &history.happened {
        let Happened::Wrote { outputs } = &noted.what else {
            continue;
        };
        for Output { record, .. } in outputs.iter().filter_map(|output| Output::parse(output).ok()) {
            if matches!(record.body, Body::Result(_)) {
                let places = results.entry(record.id).or_default();
                places.insert((noted.site, record.position));
            }
        }
    }
    let twice = results.into_iter().filter(|(_, places)| places.len() > 1);
    twice
        .map(|(id, places)| format!("{id} came out at {places:?}"))
        .collect()
}
