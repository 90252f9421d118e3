//! A merged line: each of its partitions is judged as a line of its own, and here what makes one line of them. Each number comes
//! out once and in its order; what was acknowledged in a partition had left before; and none was given up that had come in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use conga::core::invariant::Event;
use conga::core::message::{Body, Id, Output, Position};
use conga::core::partition::Merged;
use conga::shards::OnGap;

use super::Judge;
use crate::history::{Happened, History, Moved, Noted};
use crate::plan::{Merging, Plan, number_of};
use crate::world::BASE;

/// When all is healed, something moves at least so often, beside what is waited for before a number is given up.
const PROGRESS: Duration = Duration::from_millis(1_500);

pub(super) fn judge(plan: Plan, history: &History) -> Vec<String> {
    let Some(merging) = plan.merging else {
        return Vec::new();
    };
    let seed = plan.seed;
    let mut found = Vec::new();
    for site in 1..=merging.partitions {
        let wrong = of_partition(Plan::new(seed).of_partition(site), site, history);
        found.extend(wrong.into_iter().map(|what| format!("partition {site}: {what}")));
    }
    let mut line = Merge::new(plan, merging);
    for noted in &history.happened {
        line.meet(noted);
    }
    found.extend(line.finish(history));
    found
}

/// Its consumers are those who merge: what they have acknowledged they have written down.
fn of_partition(plan: Plan, site: usize, history: &History) -> Vec<String> {
    let mut judge = Judge::of_partition(plan, site);
    let mut read = BTreeMap::new();
    for noted in &history.happened {
        if noted.site != site {
            judge.hear_of(noted.at, noted);
            continue;
        }
        if let Happened::Received {
            acknowledged: Some(until),
            ..
        } = &noted.what
        {
            let rest = read.split_off(&until.next());
            let outputs = std::mem::replace(&mut read, rest).into_values().collect();
            let wrote = Happened::Wrote { outputs };
            judge.see(noted.at, &wrote);
        }
        if let Happened::Received { outputs, .. } = &noted.what {
            read.extend(
                outputs
                    .iter()
                    .filter_map(|output| Some((position_in(output)?, output.clone()))),
            );
        }
        judge.meet(noted);
    }
    judge.finish(history.rest.get(site))
}

fn position_in(output: &[u8]) -> Option<Position> {
    conga::deliver::position_of(output)
}

/// What came out of a partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    number: u64,
    is_dead: bool,
}

/// The base, and what it has to do with its partitions.
struct Merge {
    /// Judges its consumers and its leaders.
    base: Judge,
    merging: Merging,
    /// When each number first came to its partition.
    came: BTreeMap<u64, Duration>,
    /// What was read of each partition.
    read: BTreeMap<(usize, Position), Place>,
    head: Position,
    /// Since when, by the base's clock, the head is missing, and when that was said first.
    missing: Option<(conga::core::time::Micros, Duration)>,
    given_up: BTreeSet<u64>,
    is_settled: bool,
    /// Since when something is due.
    since: Option<Duration>,
}

impl Merge {
    fn new(plan: Plan, merging: Merging) -> Self {
        Self {
            base: Judge::new(plan),
            merging,
            came: BTreeMap::new(),
            read: BTreeMap::new(),
            head: Position::FIRST,
            missing: None,
            given_up: BTreeSet::new(),
            is_settled: false,
            since: None,
        }
    }

    fn meet(&mut self, noted: &Noted) {
        let Noted { at, elapsed, site, .. } = *noted;
        match &noted.what {
            Happened::Sent { entries, .. } => {
                for number in entries
                    .iter()
                    .filter_map(|entry| number_of(&String::from_utf8_lossy(entry)))
                {
                    if let std::collections::btree_map::Entry::Vacant(slot) = self.came.entry(number) {
                        slot.insert(elapsed);
                        let id = Id::given(number.to_string());
                        self.base.events.push(Event::Sent { id, at });
                    }
                }
                self.look(elapsed);
            }
            Happened::Merged { .. } => {
                self.merged(noted);
                self.base.watch_the_lock(at, noted.who.unwrap(), &noted.what);
            }
            Happened::Received {
                acknowledged, outputs, ..
            } if site != BASE => {
                self.acknowledged(site, *acknowledged);
                // A new leader first lets go of what has left before.
                if acknowledged.is_some() {
                    self.moves(elapsed);
                }
                for output in outputs {
                    self.reads(site, output);
                }
            }
            Happened::Completed { delivered, .. } | Happened::Renewed { delivered, .. }
                if delivered.is_some_and(|moved| moved.from < moved.to) =>
            {
                self.moves(elapsed);
            }
            Happened::Settled => {
                self.is_settled = true;
                self.since = None;
                self.look(elapsed);
                self.base.meet(noted);
            }
            // A death, and what a person does, begin it anew.
            Happened::Kills { .. } | Happened::Judged { .. } => {
                self.since = None;
                self.look(elapsed);
            }
            _ if site == BASE => self.base.meet(noted),
            _ => {}
        }
    }

    /// Whether something has to move now, without anybody who sends something.
    fn is_due(&self) -> bool {
        let head = self.head.0;
        let is_later = self.came.last_key_value().is_some_and(|(last, _)| *last > head);
        self.came.contains_key(&head) || (is_later && self.merging.on_gap == OnGap::GiveUp)
    }

    fn look(&mut self, elapsed: Duration) {
        if !self.is_settled || !self.is_due() {
            self.since = None;
        } else if self.since.is_none() {
            self.since = Some(elapsed);
        }
    }

    /// A head has moved.
    fn moves(&mut self, elapsed: Duration) {
        let most = if self.came.contains_key(&self.head.0) {
            PROGRESS
        } else {
            PROGRESS + self.merging.gap_timeout
        };
        if let Some(since) = self.since.take() {
            let stall = elapsed.saturating_sub(since);
            let head = self.head;
            self.base.expect(stall <= most, || {
                format!("nothing moved for {stall:?} at {elapsed:?}, with the base's head at {head}")
            });
        }
        self.look(elapsed);
    }

    /// Law 3: only under the latest term and at the right head.
    fn merged(&mut self, noted: &Noted) {
        let Happened::Merged {
            term,
            from,
            gives_up,
            moved,
            answer,
            ..
        } = &noted.what
        else {
            return;
        };
        let (stands, Moved { from: was, to }) = (self.head, *moved);
        self.base.expect(stands == was, || {
            format!("the base's head is at {was} before a merge, and was at {stands}")
        });
        let Merged::Advanced { head, missing, .. } = answer else {
            return self.base.expect(was == to, || {
                format!("{:?} does not count, and has moved the head to {to}", noted.what)
            });
        };
        self.base.events.push(Event::Emitted {
            term: *term,
            from: *from,
            to,
            accepted: true,
        });
        self.base.expect(*head == to && *from == was, || {
            format!("{:?} counts from another head", noted.what)
        });
        if *gives_up {
            let numbers: Vec<_> = (was.0..to.0).collect();
            let said = self.missing.map(|(_, said)| said);
            for number in numbers {
                let came = self.came.get(&number).copied();
                let overdue = said.map(|said| said + self.merging.gap_timeout);
                let is_right =
                    overdue.is_some_and(|overdue| noted.elapsed >= overdue && came.is_none_or(|came| came >= overdue));
                self.base.expect(is_right, || {
                    format!(
                        "{number} is given up at {:?}: missing since {said:?}, came at {came:?}",
                        noted.elapsed
                    )
                });
                self.given_up.insert(number);
            }
        } else {
            for number in was.0..to.0 {
                let came = self.read.values().any(|place| place.number == number);
                self.base
                    .expect(came, || format!("{number} has left, and came out of no partition"));
            }
        }
        if was < to {
            self.moves(noted.elapsed);
            self.head = to;
            self.since = None;
            self.look(noted.elapsed);
        }
        if self.missing.map(|(since, _)| since) != *missing {
            self.missing = missing.map(|since| (since, noted.elapsed));
        }
    }

    fn reads(&mut self, site: usize, output: &bytes::Bytes) {
        match Output::parse(output) {
            Ok(Output { record, .. }) => {
                let place = Place {
                    number: record.sequence.unwrap_or_default(),
                    is_dead: matches!(record.body, Body::Dead { .. }),
                };
                self.read.insert((site, record.position), place);
            }
            Err(error) => self.base.wrong(error.to_string()),
        }
    }

    /// What a partition lets go of has left.
    fn acknowledged(&mut self, site: usize, until: Option<Position>) {
        let Some(until) = until else { return };
        let head = self.head;
        let places = self.read.range((site, Position(0))..=(site, until));
        let waits: Vec<_> = places.filter(|(_, place)| place.number >= head.0).collect();
        if !waits.is_empty() {
            let what = format!(
                "{until} is acknowledged in partition {site}, the head is at {head}, and there waits {waits:?}"
            );
            self.base.wrong(what);
        }
    }

    /// Each number is exactly one of: a result, a tombstone, or left out as a dead letter.
    fn finish(mut self, history: &History) -> Vec<String> {
        let end = Position(self.merging.last + 1);
        let head = self.head;
        self.base
            .expect(head == end, || format!("the line ends at {head}, and not at {end}"));
        let Some(rest) = history.rest.get(BASE) else {
            self.base.wrong("the run did not come to its end".to_owned());
            return self.base.found;
        };
        let mut late = BTreeMap::new();
        for row in &rest.dead {
            *late.entry(row.id.as_str().to_owned()).or_insert(0) += 1;
            self.base.events.push(Event::DeadLetter { id: row.id.clone() });
        }
        for number in 1..end.0 {
            let times = late.remove(&number.to_string()).unwrap_or(0);
            self.account_for_number(number, times);
        }
        self.base.expect(late.is_empty(), || {
            format!("dead letters of numbers that nobody sent: {late:?}")
        });
        let laws = self.base.laws();
        self.base.found.extend(laws.iter().map(ToString::to_string));
        self.base.found
    }

    fn account_for_number(&mut self, number: u64, late: u64) {
        let mut came_out = self.read.values().filter(|place| place.number == number);
        let has_result = came_out.clone().any(|place| !place.is_dead);
        // What was sent more than once may have ended in either way each time: the first of them counts.
        let is_dead = came_out.next().is_some_and(|first| first.is_dead);
        let written = self.base.written.get(&Position(number)).cloned();
        let record = written.as_ref().and_then(|output| Output::parse(output).ok());
        let is_given_up = self.given_up.contains(&number);
        let is_right = match record.as_ref().map(|output| (&output.record, &output.record.body)) {
            Some((record, Body::Result(payload))) => {
                let is_its_own = payload.text().starts_with(&format!("\"m{number} by "));
                has_result && !is_given_up && !is_dead && is_its_own && record.sequence == Some(number)
            }
            Some((record, Body::Dead { .. })) => {
                let is_called_for = (is_dead || is_given_up) && self.merging.mark_dead;
                is_called_for && record.sequence == Some(number)
            }
            None => (is_dead || is_given_up) && !self.merging.mark_dead,
        };
        // What was sent once more may have a result when the tombstone stands there.
        let should = u64::from((is_given_up || is_dead) && has_result);
        self.base.expect(is_right && late == should, || {
            format!(
                "{number} (given up {is_given_up}, result {has_result}, dead {is_dead}): {late} dead letters, and the \
                 output {written:?}"
            )
        });
        if is_dead && !self.merging.mark_dead {
            let id = Id::given(number.to_string());
            self.base.events.push(Event::DeadLetter { id });
        }
    }
}
