//! Receive: read the output in its order, and take off what was written down. For the active consumer only.

use bytes::Bytes;

use super::Partition;
use crate::message::Position;
use crate::term::{Reign, Term};

/// Reads the output.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceiveRequest {
    /// As whom. Nobody else's than the latest reign of an active consumer counts, and none only as long as there was none.
    pub reign: Option<Reign>,
    /// Everything up to and with this position is written down and is taken off the output first. Said again, it
    /// changes nothing.
    pub acknowledge: Option<Position>,
    /// How many outputs at most. They stay in the output until they are acknowledged.
    pub max: usize,
}

/// The answer to a receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// The oldest outputs, in ascending position, after the acknowledged ones are gone.
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
            while self.outputs.front().is_some_and(|(position, ..)| *position <= written) {
                self.outputs.pop_front();
            }
        }
        let oldest = self.outputs.iter().take(request.max);
        Received::Outputs(oldest.map(|(.., output)| output.clone()).collect())
    }
}
