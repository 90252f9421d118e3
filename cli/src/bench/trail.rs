//! What came out of a line, kept as far as a judge needs it.

use std::time::Duration;

use bytes::Bytes;
use conga::core::message::{Body, Output};
use tokio::time::Instant;

use super::judge::{Came, Digest};
use super::load::Load;

/// What came out, as far as it has to be kept.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    pub(crate) digest: Digest,
    pub(crate) came: Vec<Came>,
    pub(crate) arrivals: Vec<Instant>,
    pub(crate) strange: Vec<String>,
    /// Why each dead letter is one.
    pub(crate) reasons: Vec<String>,
}

impl Trail {
    pub(crate) fn take(&mut self, partition: usize, lines: &[Bytes]) {
        self.arrivals.push(Instant::now());
        let partition = u32::try_from(partition).unwrap_or(u32::MAX);
        for line in lines {
            match self.digest.came(line) {
                Ok(came) => {
                    if came.dead {
                        self.reasons.extend(reason(line));
                    }
                    self.came.push(came.placed(partition));
                }
                Err(error) => self.strange.push(error.to_string()),
            }
        }
    }

    pub(crate) fn longest_gap(&self) -> Duration {
        let gaps = self.arrivals.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default()
    }

    /// The outputs that do not carry what was sent. A poison has none.
    pub(crate) fn altered(&self, load: &Load) -> impl Iterator<Item = &Came> {
        let dies = |came: &Came| came.dead && load.is_poison(came.id.as_str());
        self.came.iter().filter(move |came| !dies(came)).filter(|came| {
            load.payload(came.id.as_str())
                .is_none_or(|payload| !self.digest.is_payload(came, &payload))
        })
    }
}

fn reason(line: &Bytes) -> Option<String> {
    match Output::parse(line).ok()?.record.body {
        Body::Dead { reason } => Some(reason),
        Body::Result(_) => None,
    }
}
