//! Whether a campaign finds what it is there to find: short ones in which one law after the other is broken on purpose.

use std::time::Duration;

use serde::Serialize;

use super::Campaign;
use super::report::Report;
use crate::args::{Chaos, Fault};
use crate::bench::broken::Break;
use crate::settings::Settings;

#[derive(Debug, Serialize)]
struct Outcome {
    /// None: nothing was broken.
    broken: Option<Break>,
    /// Whether the campaign came to what it had to.
    right: bool,
    /// What it said.
    found: Vec<String>,
}

/// True if each break was found, by what is there to find it, and nothing was where there was none.
pub(super) async fn run(settings: &Settings, chaos: &Chaos) -> anyhow::Result<bool> {
    let mut outcomes = Vec::new();
    let breaks = Break::of(chaos.partitions.get() > 1);
    for broken in std::iter::once(None).chain(breaks.into_iter().map(Some)) {
        let campaign = Campaign {
            broken,
            patience: Duration::from_secs(3),
            ..Campaign::of(settings, &short(chaos, broken))?
        };
        let report = campaign.run(settings).await?;
        let right = broken.map_or(report.passed, |broken| !report.passed && finds(broken, &report));
        let found = report.violations.iter().chain(&report.verdict.violations).cloned();
        let outcome = Outcome {
            broken,
            right,
            found: found.collect(),
        };
        if !settings.json {
            print!("{}", outcome.to_text());
        }
        outcomes.push(outcome);
    }
    let passed = outcomes.iter().all(|outcome| outcome.right);
    if settings.json {
        let report = serde_json::json!({ "bench": "chaos", "self_test": outcomes, "passed": passed });
        println!("{report}");
    }
    Ok(passed)
}

fn short(chaos: &Chaos, broken: Option<Break>) -> Chaos {
    let is_merged = chaos.partitions.get() > 1;
    let time = match broken {
        // It shows only when another leader has come.
        Some(Break::AcknowledgeFirst) => 4_000,
        // The zombies come to one partition after the other, and there is less to claim in each.
        Some(Break::StaleComplete) if is_merged => 4_000,
        _ => 1_200,
    };
    Chaos {
        messages: None,
        duration: Some(Duration::from_millis(time)),
        // More than the processors can carry, so that there is something to claim and something that waits.
        rate: Some(400.0),
        handler: "sleep:50ms..100ms".to_owned(),
        faults: vec![Fault::KillLeader],
        ..chaos.clone()
    }
}

/// Whether the right thing was found: a campaign that fails for another reason has shown nothing.
fn finds(broken: Break, report: &Report) -> bool {
    let verdict = &report.verdict;
    let says = |words: &str| report.violations.iter().any(|violation| violation.contains(words));
    match broken {
        Break::LoseOutput => verdict.lost == 1 && says("no progress"),
        Break::DoubleOutput => verdict.duplicated > 0,
        Break::RepeatOutput => says("handed out again"),
        Break::SwapOutputs => verdict.reordered > 0 && verdict.lost == 0,
        Break::AlterOutput => verdict.differing == 1,
        Break::AlterBoth => verdict.differing == 0 && says("is not what was sent"),
        Break::ForgetRecord => says("records for"),
        Break::StaleEmit => report.stale_emits.accepted > 0 && says("emits counted"),
        Break::StaleComplete => report.stale_completes.accepted > 0 && says("completes counted"),
        Break::Stall => verdict.lost > 0 && says("no progress"),
        Break::LeaveOver => says("left over"),
        Break::StaleMerge => report.stale_merges.accepted > 0 && says("under an earlier term counted"),
        Break::UncheckedHead => report.stale_merges.accepted > 0 && says("at a head that is past counted"),
        Break::AcknowledgeFirst => verdict.lost > 0 && says("acknowledged and not merged"),
    }
}

impl Outcome {
    fn to_text(&self) -> String {
        let what = self
            .broken
            .map_or("nothing broken".to_owned(), |broken| format!("{broken:?}"));
        let word = match (self.broken, self.right) {
            (None, true) => "passed",
            (Some(_), true) => "caught",
            (None, false) => "FAILED",
            (Some(_), false) => "NOT CAUGHT",
        };
        let found = self.found.first().map_or("", String::as_str);
        format!("  {what:<18}{word:<12}{found}\n")
    }
}
