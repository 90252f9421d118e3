//! Receive: read the output in its order, and take off what was written down.

use bytes::Bytes;

use super::Partition;
use crate::message::Position;

/// Reads the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReceiveRequest {
    /// Everything up to and with this position is written down and is taken off the output first. Said again, it
    /// changes nothing.
    pub acknowledge: Option<Position>,
    /// How many outputs at most. They stay in the output until they are acknowledged.
    pub max: usize,
}

impl Partition {
    /// The oldest outputs, in ascending position, after the acknowledged ones are gone.
    pub fn receive(&mut self, request: &ReceiveRequest) -> Vec<Bytes> {
        if let Some(written) = request.acknowledge {
            while self.outputs.front().is_some_and(|(position, ..)| *position <= written) {
                self.outputs.pop_front();
            }
        }
        self.outputs
            .iter()
            .take(request.max)
            .map(|(.., output)| output.clone())
            .collect()
    }
}
