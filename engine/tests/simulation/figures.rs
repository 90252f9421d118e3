//! Figures of a run: what really happened, and how long the line stood still.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use conga::core::lease::Attempt;
use conga::core::partition::{ALONE_FROM, Completed, ControlRequest, Emitted, Flow, Judged, Merged, OnDead, Verdict};
use conga::core::term::{Campaign, Role};

use crate::history::{Ending, Happened, History, Moved, Noted, Outcome};
use crate::world::BASE;

/// What has to happen at all in so many seeds as are usual, else it is not tested.
pub(crate) const KINDS: [&str; 75] = [
    "calls crawling",
    "calls cutoff",
    "calls cutshort",
    "calls late",
    "calls lost",
    "calls refused",
    "calls repeated",
    "changes of the active consumer",
    "changes of the leader",
    "clean ends",
    "clock jumps",
    "completions stale",
    "controls changed",
    "consumers fenced",
    "consumers standing by",
    "crashes",
    "crashes by poison",
    "dead letters called early",
    "dead letters called missing",
    "dead letters called passed",
    "dead letters deleted",
    "dead letters sent again",
    "deliveries with a complete",
    "deliveries with a renewal",
    "emits at the wrong head",
    "emits that counted",
    "emits fenced",
    "halted lines that went on with a tombstone",
    "halted lines that went on without it",
    "handlers dropped",
    "handlers failed",
    "handlers panicked",
    "handlers with a result",
    "hints lost",
    "late sends refused",
    "lines Leader",
    "lines Left",
    "lines Mixed",
    "lines Store",
    "lines in order key",
    "lines in order key serial",
    "lines in order none",
    "lines in order total",
    "lines in partitions, order key",
    "lines in partitions, order key serial",
    "lines in partitions, order none",
    "lines merged that GiveUp",
    "lines merged that Hold",
    "merges at the wrong head",
    "merges fenced",
    "merges that counted",
    "messages accepted",
    "messages accepted again",
    "messages refused and left out",
    "messages claimed again",
    "messages claimed that are to be alone",
    "messages dead",
    "messages dead by their crashes",
    "messages halted at",
    "lines paused",
    "lines that drained",
    "messages found that a lost reply held",
    "messages given back",
    "messages with a number",
    "openings refused",
    "numbers given up",
    "numbers told of as late",
    "outputs received",
    "outputs received again",
    "owners that were taken for dead",
    "pauses",
    "results that counted",
    "sends refused by a full line",
    "terms that delivered",
    "tombstones received",
];

/// The longest time, after all was healed, in which the head did not move though there was something before it: in
/// microseconds.
pub(crate) fn longest_stall(history: &History) -> u64 {
    // Of one partition: where several are merged it is judged, and not measured.
    if history.happened.iter().any(|noted| noted.site != BASE) {
        return 0;
    }
    let (mut head, mut end, mut since, mut longest) = (1, 1, None, 0);
    for Noted { at, what, .. } in &history.happened {
        let moved = match what {
            Happened::Emitted {
                answer: Emitted::Advanced { head },
                ..
            } => Some(*head),
            Happened::Completed { delivered, .. } | Happened::Renewed { delivered, .. } => {
                delivered.filter(|_| has_moved(*delivered)).map(|moved| moved.to)
            }
            _ => None,
        };
        if let Some(to) = moved {
            head = usize::try_from(to.0).unwrap_or(head);
            if let Some(since) = &mut since {
                longest = longest.max(at.since(*since));
                *since = *at;
            }
        }
        match what {
            Happened::Sent { entries, .. } => {
                if head == end {
                    since = since.map(|_| *at);
                }
                end += entries.len();
            }
            Happened::Healed => since = Some(*at),
            // A death, and what a person does, begin it anew.
            Happened::Kills { .. } | Happened::Judged { .. } => since = since.map(|_| *at),
            _ => {}
        }
    }
    longest
}

fn has_moved(delivered: Option<Moved>) -> bool {
    delivered.is_some_and(|moved| moved.from < moved.to)
}

fn named(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Result => "handlers with a result",
        Outcome::Failure => "handlers failed",
        Outcome::Panic => "handlers panicked",
        Outcome::Dropped => "handlers dropped",
    }
}

/// What people have asked for, and what came of it.
fn of_people(what: &Happened) -> Vec<&'static str> {
    match what {
        Happened::Controlled { request, control } => {
            let pauses = *request == ControlRequest::Flow(Flow::Paused);
            let drained = *request == ControlRequest::Settle && control.flow == Flow::Paused;
            let kinds = [
                pauses.then_some("lines paused"),
                drained.then_some("lines that drained"),
            ];
            kinds.into_iter().flatten().chain(["controls changed"]).collect()
        }
        Happened::Judged { request, answers, .. } => {
            let kind = |answer: &Judged| match (answer, request.verdict) {
                (Judged::Done, Verdict::Retry) => "dead letters sent again",
                (Judged::Done, Verdict::Skip) => "halted lines that went on without it",
                (Judged::Done, Verdict::Mark) => "halted lines that went on with a tombstone",
                (Judged::Done, Verdict::Purge) => "dead letters deleted",
                (Judged::Passed, _) => "dead letters called passed",
                (Judged::Early, _) => "dead letters called early",
                (Judged::Missing, _) => "dead letters called missing",
            };
            answers.iter().map(kind).collect()
        }
        _ => Vec::new(),
    }
}

/// What leaders that merge have done.
fn of_merges(what: &Happened) -> Vec<(&'static str, usize)> {
    let Happened::Merged {
        answer,
        gives_up,
        moved,
        late,
        ..
    } = what
    else {
        return Vec::new();
    };
    let by = usize::try_from(moved.to.past(moved.from)).unwrap_or(0);
    let kind = match answer {
        Merged::Advanced { .. } if *gives_up => ("numbers given up", by),
        Merged::Advanced { .. } => ("merges that counted", 1),
        Merged::Fenced { .. } => ("merges fenced", 1),
        Merged::Moved { .. } => ("merges at the wrong head", 1),
    };
    vec![kind, ("numbers told of as late", late.len())]
}

/// How leases have ended.
fn of_ends(what: &Happened) -> Vec<(&'static str, usize)> {
    let Happened::Completed { ends, .. } = what else {
        return Vec::new();
    };
    let kinds = ends.iter().flat_map(|(_, ending, answer)| match (answer, ending) {
        (Completed::Stale, _) => vec![("completions stale", 1)],
        (_, Ending::Done) => vec![("results that counted", 1)],
        (_, Ending::Dead { on_dead, by_crashes }) => vec![
            ("messages dead", 1),
            ("messages dead by their crashes", usize::from(*by_crashes)),
            ("messages halted at", usize::from(*on_dead == OnDead::Halt)),
        ],
        (_, Ending::Retry | Ending::GivenBack) => vec![("messages given back", 1)],
    });
    kinds.collect()
}

/// How often each kind of thing happened.
pub(crate) fn tally(history: &History) -> BTreeMap<String, u64> {
    let mut tally = BTreeMap::new();
    let mut count = |what: &str, times: usize| *tally.entry(what.to_owned()).or_insert(0) += times as u64;
    let (mut written, mut entries, mut delivering) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for Noted { what, .. } in &history.happened {
        of_people(what).into_iter().for_each(|kind| count(kind, 1));
        of_merges(what)
            .into_iter()
            .chain(of_ends(what))
            .for_each(|(kind, times)| count(kind, times));
        match what {
            Happened::Full => count("sends refused by a full line", 1),
            Happened::LeftOut { places, .. } => count("messages refused and left out", places.len()),
            Happened::Sent {
                producer, entries: new, ..
            } => {
                count("messages with a number", if producer.is_some() { new.len() } else { 0 });
                count("messages accepted", new.len());
                let again = new.iter().filter(|entry| !entries.insert((*entry).clone()));
                count("messages accepted again", again.count());
            }
            Happened::Replaced { messages: 0, .. } => count("openings refused", 1),
            Happened::Replaced { .. } => count("late sends refused", 1),
            Happened::Claimed { claims, blamed, .. } => {
                let alone = blamed.iter().filter(|(_, times)| *times >= ALONE_FROM);
                count("messages claimed that are to be alone", alone.count());
                let again = claims.iter().filter(|held| held.attempt > Attempt(1));
                count("messages claimed again", again.count());
            }
            Happened::Completed { delivered, .. } => {
                count("deliveries with a complete", usize::from(has_moved(*delivered)));
            }
            Happened::Renewed {
                found,
                known,
                lease_us,
                delivered,
                ..
            } => {
                count("deliveries with a renewal", usize::from(has_moved(*delivered)));
                count("messages found that a lost reply held", found.len());
                count("owners that were taken for dead", usize::from(!known && *lease_us > 0));
            }
            Happened::Emitted { term, answer, .. } => match answer {
                Emitted::Advanced { .. } => {
                    delivering.insert(*term);
                    count("emits that counted", 1);
                }
                Emitted::Fenced { .. } => count("emits fenced", 1),
                Emitted::Moved { .. } => count("emits at the wrong head", 1),
            },
            Happened::Refused { .. } => count("consumers fenced", 1),
            Happened::Campaigned {
                role: Role::Consumer,
                answer: Campaign::Standby { leader: Some(_) },
                ..
            } => count("consumers standing by", 1),
            Happened::Met { trouble, .. } => count(&format!("calls {trouble:?}").to_lowercase(), 1),
            Happened::ClockJumped => count("clock jumps", 1),
            Happened::HintLost => count("hints lost", 1),
            Happened::Crashed => count("crashes", 1),
            Happened::Kills { .. } => count("crashes by poison", 1),
            Happened::Paused { .. } => count("pauses", 1),
            Happened::ToldToEnd => count("clean ends", 1),
            Happened::Ends { outcome, .. } => count(named(*outcome), 1),
            Happened::Wrote { outputs } => {
                let is_dead = |output: &&Bytes| output.windows(8).any(|part| part == b"\"dead\":{");
                count("tombstones received", outputs.iter().filter(is_dead).count());
                let new = outputs
                    .iter()
                    .filter(|output| written.insert((*output).clone()))
                    .count();
                count("outputs received", new);
                count("outputs received again", outputs.len() - new);
            }
            _ => {}
        }
    }
    let terms = |wanted| {
        let terms = history.happened.iter().filter_map(move |noted| match &noted.what {
            Happened::Campaigned {
                role,
                answer: Campaign::Leader { term },
                ..
            } if *role == wanted => Some(*term),
            _ => None,
        });
        terms.collect::<BTreeSet<_>>().len()
    };
    count("terms that delivered", delivering.len());
    count("changes of the leader", terms(Role::Leader).saturating_sub(1));
    count(
        "changes of the active consumer",
        terms(Role::Consumer).saturating_sub(1),
    );
    tally
}
