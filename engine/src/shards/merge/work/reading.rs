//! Reading the partitions: one question at a time to each, and what the answers are.

use bytes::Bytes;
use conga_core::merge::Event;
use tokio::time::Instant;

use super::Work;
use crate::shards::merge::hand::Hand;
use crate::shards::merge::lane::{Heard, Lane};
use crate::shards::merge::text;
use crate::store::Result;

impl Work {
    /// Reads a partition's next outputs, as far as there is room for them, and acknowledges what is merged.
    pub(super) fn read(&mut self, partition: usize, mut lane: Lane) {
        let question = loop {
            let (hand, portions) = (&mut self.hands[partition], &lane.portions);
            match hand.ask(&self.machine, partition, portions, &self.options) {
                Some(question) => break question,
                None => self.lost(partition),
            }
        };
        if question.max == 0 && question.acknowledge.is_none() {
            return self.wait(partition, lane);
        }
        let stop = self.reign.clone();
        self.calls.push(Box::pin(async move {
            let heard = lane.read(question, &stop).await;
            (partition, lane, heard)
        }));
    }

    fn wait(&mut self, partition: usize, mut lane: Lane) {
        let stop = self.reign.clone();
        self.calls.push(Box::pin(async move {
            let heard = lane.wait(&stop).await;
            (partition, lane, Ok(heard))
        }));
    }

    pub(super) fn heard(&mut self, partition: usize, lane: Lane, heard: Heard) -> Result<()> {
        match heard {
            Heard::Hint => self.read(partition, lane),
            // Only a reign that ends stops it, and then nobody listens any more.
            Heard::Stopped => {}
            Heard::Lost => {
                self.lost(partition);
                self.read(partition, lane);
            }
            Heard::Outputs { outputs, asked } => self.take(partition, lane, outputs, asked)?,
        }
        Ok(())
    }

    /// Takes the answer of a partition that was asked then.
    fn take(&mut self, partition: usize, lane: Lane, outputs: Vec<Bytes>, asked: Instant) -> Result<()> {
        let question = self.hands[partition].question;
        if question.held != self.machine.held(partition) {
            // What comes after what was in hand then.
            self.lost(partition);
            self.read(partition, lane);
            return Ok(());
        }
        let before = if question.glimpses {
            self.hands[partition].last(&self.machine, partition)
        } else {
            self.machine.last(partition)
        };
        if let Some(position) = question.acknowledge {
            self.step(Event::Acknowledged { partition, position });
        }
        let (count, router) = (outputs.len(), self.shards.router());
        let outputs: Vec<_> = outputs
            .into_iter()
            .map(|output| text::found(router, partition, output))
            .collect::<Result<_>>()?;
        let positions = before.into_iter().chain(outputs.iter().map(|found| found.position));
        if !positions.is_sorted_by(|a, b| a < b) {
            tracing::warn!(
                partition,
                "a partition has come back older than it was; reading it anew"
            );
            self.lost(partition);
            self.read(partition, lane);
            return Ok(());
        }
        let last = outputs.last().map(|found| found.position);
        self.hands[partition].came(count, last);
        let room = Hand::room(&self.options);
        self.step(if question.glimpses {
            Event::Glimpsed {
                partition,
                outputs,
                room,
            }
        } else {
            Event::Read {
                partition,
                outputs,
                room,
            }
        });
        self.was_read(partition, (count < question.max).then_some(asked));
        let again = self.machine.again() == Some(partition);
        if again || (count > 0 && count == question.max) {
            self.read(partition, lane);
        } else {
            self.wait(partition, lane);
        }
        Ok(())
    }

    /// A partition was read, maybe to its end by a call that began then.
    pub(super) fn was_read(&mut self, partition: usize, ended: Option<Instant>) {
        if let Some(asked) = ended {
            self.gap.was_read(partition, asked);
        }
        if let Some(last) = self.hands[partition].last(&self.machine, partition) {
            self.gap.was_read_to(partition, last);
        }
        // A proof that was lost with what was in hand is begun anew.
        self.prove();
    }

    fn lost(&mut self, partition: usize) {
        self.hands[partition].lose();
        self.gap.lost(partition);
        self.step(Event::Lost { partition });
    }
}
