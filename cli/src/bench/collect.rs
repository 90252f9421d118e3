//! Taking what comes out, with the time at which it came.

use std::time::Duration;

use bytes::Bytes;
use conga::core::message::Output;
use conga::deliver::Consumer;
use conga::store::SharedStore;
use tokio::time::{Instant, timeout};

/// All that came out, in the order in which it did.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) lines: Vec<Bytes>,
    pub(crate) outputs: Vec<Output>,
    /// When each batch came.
    pub(crate) arrivals: Vec<Instant>,
}

impl Collected {
    /// When the last one came.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.arrivals.last().copied()
    }

    /// The longest time without a delivery, once there was one.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.arrivals
            .windows(2)
            .map(|pair| pair[1] - pair[0])
            .max()
            .unwrap_or_default()
    }

    /// The longest time without a delivery of those that touch the time from `from` to `to`.
    pub(crate) fn stall(&self, from: Instant, to: Instant) -> Duration {
        let gaps = self.arrivals.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
        gaps.map(|pair| pair[1] - pair[0].max(from)).max().unwrap_or_default()
    }
}

/// Collects until `expected` outputs came, or none for `patience`: then the rest is missing, and the judge says so.
pub(crate) async fn collect(
    store: SharedStore,
    mut expected: tokio::sync::watch::Receiver<Option<u64>>,
    patience: Duration,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Collected> {
    let mut consumer = Consumer::new(store);
    let mut collected = Collected::default();
    loop {
        let enough = expected
            .borrow_and_update()
            .is_some_and(|count| collected.lines.len() as u64 >= count);
        if enough {
            break;
        }
        let batch = tokio::select! {
            batch = timeout(patience, consumer.next(1_000)) => batch,
            Ok(()) = expected.changed() => continue,
        };
        let Ok(batch) = batch else { break };
        let batch = batch?;
        consumer.acknowledge(&batch);
        collected.arrivals.push(Instant::now());
        progress(batch.outputs.len() as u64);
        collected.lines.extend(batch.outputs);
    }
    consumer.finish().await?;
    // Only now: reading them takes time that would count for the line's.
    collected.outputs = collected.lines.iter().map(Output::parse).collect::<Result<_, _>>()?;
    Ok(collected)
}
