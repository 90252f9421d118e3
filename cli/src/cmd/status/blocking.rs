//! What blocks a line, for programs and for people; and what these can do about it.

use conga::core::message::Position;
use conga::core::partition::{Blocker, Status};
use conga::core::time::Micros;
use serde_json::{Value, json};

use super::millis;
use crate::cmd::dead::one_line;

/// What blocks the line, and where.
#[derive(Debug)]
pub(crate) struct Blocking<'a> {
    /// Of a line of several.
    partition: Option<usize>,
    /// There.
    position: Position,
    blocker: &'a Blocker,
}

impl<'a> Blocking<'a> {
    /// What stands at the head of a line, or of this partition of it.
    pub(crate) fn of(status: &'a Status, partition: Option<usize>) -> Option<Self> {
        Some(Self {
            partition,
            position: status.head,
            blocker: status.blocker.as_ref()?,
        })
    }

    pub(super) fn to_json(&self, now: Micros) -> Value {
        let mut value = match self.blocker {
            Blocker::Leased { owner, attempt, since } => json!({
                "state": "leased",
                "owner": owner.to_string(),
                "attempt": attempt.0,
                "since": since.to_string(),
                "age_ms": millis(now.since(*since)),
            }),
            Blocker::Free => json!({ "state": "free" }),
            Blocker::Delayed { due } => json!({ "state": "delayed", "due": due.to_string() }),
            Blocker::Halted { id, reason, died } => json!({
                "state": "halted",
                "id": id.as_str(),
                "reason": reason,
                "since": died.to_string(),
                "age_ms": millis(now.since(*died)),
            }),
        };
        value["position"] = self.position.0.into();
        if let Some(partition) = self.partition {
            value["partition"] = partition.into();
        }
        value
    }

    pub(crate) fn to_text(&self, now: Micros) -> String {
        let text = match self.blocker {
            Blocker::Leased { owner, attempt, since } => format!(
                "being processed by {owner} for {:.1} ms, attempt {attempt}",
                millis(now.since(*since))
            ),
            Blocker::Free => "free to be claimed again".to_owned(),
            Blocker::Delayed { due } => format!("failed, to be tried again in {:.1} ms", millis(due.since(now))),
            Blocker::Halted { id, reason, died } => format!(
                "HALTED for {:.1} s: `{}` failed for good: {}",
                millis(now.since(*died)) / 1e3,
                one_line(id.as_str()),
                one_line(reason)
            ),
        };
        match self.partition {
            Some(partition) => format!("{text} (partition {partition}, position {})", self.position),
            None => text,
        }
    }

    /// What a person can type, where the line is halted.
    pub(crate) fn advice(&self) -> Option<String> {
        if !matches!(self.blocker, Blocker::Halted { .. }) {
            return None;
        }
        let (which, position) = (self.partition, self.position);
        let which = which.map(|which| format!(" --partition {which}")).unwrap_or_default();
        Some(format!(
            "try again, conga dead retry {position}{which}; or go on, conga dead skip {position}{which} --mark"
        ))
    }
}
