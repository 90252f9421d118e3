//! What came of a campaign.

use std::collections::HashSet;
use std::time::Duration;

use conga::core::partition::Status;
use serde::Serialize;

use super::super::verdict_text;
use super::log::{Kind, Line};
use super::poison::Poison;
use super::zombie::Tries;
use crate::bench::judge::Verdict;
use crate::text;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) bench: &'static str,
    pub(super) store: String,
    pub(super) record: String,
    /// The order that the line keeps, and in how many partitions.
    pub(super) order: String,
    pub(super) seed: u64,
    pub(super) messages: u64,
    pub(super) elapsed_ms: f64,
    pub(super) longest_gap_ms: f64,
    /// From the end of the last fault until all was delivered.
    pub(super) healed_ms: f64,
    /// What was done, and the stalls that followed.
    pub(super) faults: Vec<Kind>,
    /// Terms at the end: one more than changes of leader.
    pub(super) terms: u64,
    /// Messages that were delivered after more than one attempt.
    pub(super) processed_again: usize,
    /// Emits under an earlier term, and completes under a lease that another had by then.
    pub(super) stale_emits: Tries,
    pub(super) stale_completes: Tries,
    /// Merges under an earlier term, and at a head that is past.
    pub(super) stale_merges: Tries,
    /// What became of messages that kill their processor, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) poison: Option<Poison>,
    pub(super) verdict: Verdict,
    /// What else must not be, in words.
    pub(super) violations: Vec<String>,
    pub(super) passed: bool,
    /// All that was done, in its order.
    pub(super) log: Vec<Line>,
}

/// Everything besides what the judge of every benchmark looks at.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<String>);

impl Findings {
    pub(super) fn add(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    /// After the faults were healed, nothing came for `patience`.
    pub(super) fn no_progress(&mut self, missing: u64, patience: Duration) {
        self.add(format!(
            "no progress: {} did not come out, and none at all for {} s after all was healed",
            text::count(missing, "message"),
            patience.as_secs_f64()
        ));
    }

    /// Nothing that was acknowledged may come again.
    pub(super) fn repeated(&mut self, count: usize) {
        if count > 0 {
            let outputs = text::count(count as u64, "output");
            self.add(format!("{outputs} handed out again after it was acknowledged"));
        }
    }

    /// Nothing may be left on its way.
    pub(super) fn left_over(&mut self, status: &Status) {
        for (count, place) in [
            (status.waiting, "waiting"),
            (status.in_flight, "in flight"),
            (status.processed, "processed and not delivered"),
            (status.output, "in the output"),
        ] {
            if count > 0 {
                self.add(format!("left over: {} {place}", text::count(count, "message")));
            }
        }
    }

    /// There is one record for each id that was sent, but for those that are dead.
    pub(super) fn records(&mut self, verdict: &Verdict, ids: &[String], dead: u64) {
        let sent = ids.iter().collect::<HashSet<_>>().len() as u64;
        let records = verdict.records.unwrap_or(0);
        if records + dead != sent {
            self.add(format!("{records} records for {sent} ids"));
        }
    }

    /// There are as many dead letters as there have to be.
    pub(super) fn dead(&mut self, count: u64, expected: u64) {
        if count != expected {
            self.add(format!("{} instead of {expected}", text::count(count, "dead letter")));
        }
    }

    /// What came out of a partition, and then out of nothing.
    pub(super) fn not_merged(&mut self, ids: &[String]) {
        if let Some(first) = ids.first() {
            let outputs = text::count(ids.len() as u64, "output");
            self.add(format!(
                "{outputs} of partitions acknowledged and not merged, first sequence {first}"
            ));
        }
    }

    pub(super) fn tries(&mut self, what: &str, tries: Tries) {
        if tries.accepted > 0 {
            self.add(format!("{} of {} {what} counted", tries.accepted, tries.sent));
        }
    }

    /// A fault that was asked for and never came has shown nothing.
    pub(super) fn never(&mut self, faults: &[Kind]) {
        for kind in faults.iter().filter(|kind| kind.injected == 0) {
            self.add(format!("{} never came: let it run longer", kind.fault));
        }
    }

    pub(super) fn list(self) -> Vec<String> {
        self.0
    }
}

impl Report {
    pub(super) fn to_text(&self) -> String {
        let mut text = format!(
            "  store       {}\n  record      {}\n  order       {}\n  seed        {}\n  elapsed     {:.1} ms, at most {:.1} ms without a delivery; all out \
             {:.1} ms after the last fault\n  terms       {}\n  again       {} processed more than once\n  \
             stale       {} emits, {} completes and {} merges sent; {}, {} and {} of them counted\n{}  {:<18}{:>9}{:>9}{:>15}{:>15}{:>11}\n",
            self.store,
            self.record,
            self.order,
            self.seed,
            self.elapsed_ms,
            self.longest_gap_ms,
            self.healed_ms,
            self.terms,
            self.processed_again,
            self.stale_emits.sent,
            self.stale_completes.sent,
            self.stale_merges.sent,
            self.stale_emits.accepted,
            self.stale_completes.accepted,
            self.stale_merges.accepted,
            self.poison.as_ref().map(Poison::to_text).unwrap_or_default(),
            "fault",
            "injected",
            "measured",
            "stall p50, ms",
            "stall max, ms",
            "bound, ms",
        );
        for kind in &self.faults {
            text.push_str(&format!(
                "  {:<18}{:>9}{:>9}{:>15.1}{:>15.1}{:>11.0}\n",
                kind.fault, kind.injected, kind.measured, kind.stall_p50_ms, kind.stall_max_ms, kind.bound_ms
            ));
        }
        text.push_str(&verdict_text(&self.verdict));
        for violation in &self.violations {
            text.push_str(&format!("    {violation}\n"));
        }
        if !self.passed {
            text.push_str("  FAILED; what was done:\n");
            for line in &self.log {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text
    }
}
