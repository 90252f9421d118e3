//! Taking what comes out, with the time at which it came.

use std::time::Duration;

use bytes::Bytes;
use conga::core::message::Output;
use conga::shards::{Consumers, Shards};
use conga::store::SharedStore;
use tokio::sync::watch;
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
}

/// The longest time without a delivery between `from` and `to`, or until all has come. What lies before or after does
/// not count: something else may have caused it.
pub(crate) fn stall(arrivals: &[Instant], from: Instant, to: Instant) -> Duration {
    let to = arrivals.last().map_or(from, |last| to.min(*last));
    let within = arrivals.iter().filter(|at| (from..to).contains(at)).copied();
    let edges = std::iter::once(from).chain(within).chain(std::iter::once(to));
    edges
        .clone()
        .zip(edges.skip(1))
        .map(|(earlier, later)| later.saturating_duration_since(earlier))
        .max()
        .unwrap_or_default()
}

/// Collects until `expected` outputs came, or none for `patience`: then the rest is missing, and the judge says so.
pub(crate) async fn collect(
    store: SharedStore,
    expected: watch::Receiver<Option<u64>>,
    patience: Duration,
    mut progress: impl FnMut(u64),
) -> anyhow::Result<Collected> {
    let mut collected = Collected::default();
    let mut collector = Collector::new(&Shards::one(store));
    collector
        .collect(expected, patience, |_, lines| {
            collected.arrivals.push(Instant::now());
            progress(lines.len() as u64);
            collected.lines.extend(lines);
        })
        .await?;
    collector.finish().await?;
    // Only now: reading them takes time that would count for the line's.
    collected.outputs = collected.lines.iter().map(Output::parse).collect::<Result<_, _>>()?;
    Ok(collected)
}

/// Takes a line's output as it comes, from all of its partitions.
#[derive(Debug)]
pub(crate) struct Collector {
    consumers: Consumers,
    count: u64,
    /// What came although it had been acknowledged. The consumer leaves it out, a judge must not.
    pub(crate) repeated: usize,
}

impl Collector {
    pub(crate) fn new(shards: &Shards) -> Self {
        Self {
            consumers: Consumers::new(shards, 1_000),
            count: 0,
            repeated: 0,
        }
    }

    /// Hands `take` what comes, and from which partition, until `expected` outputs came in all (true) or none for `patience`. Cancel-safe.
    pub(crate) async fn collect(
        &mut self,
        mut expected: watch::Receiver<Option<u64>>,
        patience: Duration,
        mut take: impl FnMut(usize, Vec<Bytes>),
    ) -> anyhow::Result<bool> {
        // A sender that is gone says nothing new.
        let mut open = true;
        loop {
            if expected.borrow_and_update().is_some_and(|count| self.count >= count) {
                return Ok(true);
            }
            let portion = tokio::select! {
                portion = timeout(patience, self.consumers.next()) => portion,
                changed = expected.changed(), if open => {
                    open = changed.is_ok();
                    continue;
                }
            };
            let Ok(portion) = portion else { return Ok(false) };
            let portion = portion?;
            self.consumers.acknowledge(&portion);
            self.repeated += portion.batch.repeated;
            self.count += portion.batch.outputs.len() as u64;
            take(portion.partition, portion.batch.outputs);
        }
    }

    /// Takes off the output what came.
    pub(crate) async fn finish(self) -> anyhow::Result<()> {
        Ok(self.consumers.finish().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_what_lies_between() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let arrivals = [at(0), at(100), at(400), at(900)];
        let told = |from, to| stall(&arrivals, at(from), at(to)).as_millis();
        assert_eq!(told(0, 900), 500);
        assert_eq!(told(50, 410), 300);
        assert_eq!(told(300, 420), 100, "neither what was before nor what comes after");
        assert_eq!(told(500, 800), 300, "a stall that goes on is one");
        assert_eq!(told(850, 5_000), 50, "after the last there is nothing to wait for");
        assert_eq!(told(950, 5_000), 0);
    }
}
