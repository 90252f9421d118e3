//! Generated messages, at once or at a rate.

use std::time::Duration;

use conga::clock::Clock;
use conga::core::message::Payload;
use conga::send::{Outgoing, Producer};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

/// At most so many messages in one step.
const BATCH: u64 = 1_000;

/// When a load ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    Count(u64),
    Elapsed(Duration),
}

/// A stream of messages with identities of their own: another run's are others.
#[derive(Debug)]
pub(crate) struct Load {
    until: Until,
    /// Messages per second.
    rate: Option<f64>,
    size: usize,
    run: String,
}

impl Load {
    pub(crate) fn new(until: Until, rate: Option<f64>, size: usize) -> Self {
        let mut run = Uuid::new_v4().simple().to_string();
        run.truncate(8);
        Self { until, rate, size, run }
    }

    /// Sends it all, and tells of each batch that was accepted by its ids.
    pub(crate) async fn run(&self, producer: &Producer, mut accepted: impl FnMut(&[String])) -> anyhow::Result<u64> {
        let started = Instant::now();
        let mut ticks = interval(Duration::from_millis(2));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut sent = 0;
        loop {
            let last = match self.until {
                Until::Count(count) => count,
                Until::Elapsed(limit) if started.elapsed() < limit => u64::MAX,
                Until::Elapsed(_) => sent,
            };
            if sent >= last {
                return Ok(sent);
            }
            let due = self.due(started.elapsed()).min(last);
            if due <= sent {
                ticks.tick().await;
                continue;
            }
            let batch: Vec<Outgoing> = (sent + 1..=due.min(sent + BATCH))
                .map(|number| self.message(number))
                .collect();
            producer.insist(&batch).await?;
            sent += batch.len() as u64;
            let ids: Vec<String> = batch.into_iter().filter_map(|message| message.id).collect();
            accepted(&ids);
        }
    }

    /// How many are to be sent after so much time.
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count that a rate and a time give"
    )]
    fn due(&self, elapsed: Duration) -> u64 {
        self.rate.map_or(u64::MAX, |rate| (rate * elapsed.as_secs_f64()) as u64)
    }

    fn message(&self, number: u64) -> Outgoing {
        let text = format!("message {number} ");
        let padding = noise(number, self.size.saturating_sub(text.len() + 2));
        Outgoing {
            id: Some(format!("{}-{number}", self.run)),
            created: Some(Clock::Store.now()),
            ..Outgoing::new(Payload::string(&(text + &padding)))
        }
    }
}

/// Letters without a pattern, others for each number: real payloads don't repeat themselves either.
fn noise(number: u64, size: usize) -> String {
    let mut random = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let letters = std::iter::repeat_with(|| {
        // Source: G. Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        char::from(b'a' + u8::try_from(random % 26).unwrap_or(0))
    });
    letters.take(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_size_asked_for() {
        let load = Load::new(Until::Count(1), None, 200);
        assert_eq!(load.message(17).payload.text().len(), 200);
    }

    #[test]
    fn a_rate_spreads_the_messages() {
        let load = Load::new(Until::Count(1), Some(100.0), 1);
        assert_eq!(load.due(Duration::from_millis(505)), 50);
    }
}
