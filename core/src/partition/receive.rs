//! Receive: read the output in its order, and take off what was written down. For the active consumer only.

use bytes::Bytes;

use super::Partition;
use crate::message::Position;
use crate::term::{Reign, Term};

/// Where outputs do not ascend, what is acknowledged is looked for among so many of the oldest.
pub const ACKNOWLEDGE_WITHIN: usize = 10_000;

/// Reads the output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiveRequest {
    /// As whom. Nobody else's than the latest reign of an active consumer counts, and none only as long as there was none.
    pub reign: Option<Reign>,
    /// Everything up to and with the output at this position is written down and is taken off the output first. Said again,
    /// it changes nothing. Where not all messages keep their order it has to be one of the oldest [`ACKNOWLEDGE_WITHIN`].
    pub acknowledge: Option<Position>,
    /// So many of the oldest that are left then are passed over: who asks has them in hand.
    pub skip: usize,
    /// How many outputs at most. They stay in the output until they are acknowledged.
    pub max: usize,
}

/// The answer to a receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The oldest outputs, in the order of the line, after the acknowledged ones are gone.
    Outputs(Vec<Bytes>),
    /// Another reign is the latest: nothing was taken off, and nothing is handed out.
    Fenced {
        /// Its term.
        term: Term,
    },
}

impl Received {
    /// What was handed out: nothing to who was fenced off.
    pub fn outputs(self) -> Vec<Bytes> {
        match self {
            Self::Outputs(outputs) => outputs,
            Self::Fenced { .. } => Vec::new(),
        }
    }
}

impl Partition {
    /// Hands out the oldest outputs after taking off the acknowledged ones, if the caller's is the latest reign.
    pub fn receive(&mut self, request: &ReceiveRequest) -> Received {
        if request.reign != self.consumer.reign() {
            return Received::Fenced {
                term: self.consumer.term,
            };
        }
        if let Some(written) = request.acknowledge {
            let count = if self.is_total() {
                self.outputs.partition_point(|(position, ..)| *position <= written)
            } else {
                let mut oldest = self.outputs.iter().take(ACKNOWLEDGE_WITHIN);
                oldest
                    .position(|(position, ..)| *position == written)
                    .map_or(0, |nth| nth + 1)
            };
            self.outputs.drain(..count);
        }
        let oldest = self.outputs.iter().skip(request.skip).take(request.max);
        Received::Outputs(oldest.map(|(.., output)| output.clone()).collect())
    }
}
