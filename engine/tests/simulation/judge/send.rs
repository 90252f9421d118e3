//! What is accepted from whom.

use bytes::Bytes;
use conga::core::invariant::Event;
use conga::core::message::{Entry, Format, Id, Position, identify, key_of, parse};
use conga::core::partition::{ProducerId, Session};
use conga::core::time::Micros;

use super::{Accepted, Judge};
use crate::history::Happened;
use crate::plan::name_of;

impl Judge {
    /// Law 4: nothing counts in a session that is not the latest.
    pub(super) fn sent(
        &mut self,
        at: Micros,
        producer: Option<&(ProducerId, Session)>,
        entries: &[Bytes],
        waiting: u64,
    ) {
        if let Some((producer, session)) = producer {
            let before = self.sessions.insert(producer.clone(), *session);
            let is_right = before.is_none_or(|before| *session == before || session.number > before.number);
            self.expect(is_right, || {
                format!("{producer} has sent in {session:?} after {before:?}")
            });
            let numbered = self.numbered.entry(producer.clone()).or_default();
            numbered.extend(entries.iter().cloned());
            let limits = self.plan.limits.iter().enumerate();
            let its_own = limits.filter(|(number, _)| name_of(*number) == *producer);
            let most = its_own.filter_map(|(_, limit)| *limit).map(|(most, _)| most).next();
            let is_within = entries.is_empty() || most.is_none_or(|most| waiting <= most);
            self.expect(is_within, || {
                format!("{producer} has sent so that {waiting} wait, and no more than {most:?} may")
            });
        }
        entries.iter().for_each(|entry| self.accept(at, entry));
    }

    /// And nothing is refused in the latest.
    pub(super) fn replaced(&mut self, what: &Happened) {
        if let Happened::Replaced {
            producer,
            session,
            latest,
            ..
        } = what
        {
            let known = self.sessions.get(producer).copied();
            self.expect(known == Some(*latest) && !session.counts_after(*latest), || {
                format!("{producer} is refused in {session:?} after {known:?}, for {latest:?}")
            });
        }
    }

    pub(super) fn accept(&mut self, at: Micros, bytes: &Bytes) {
        let position = Position(self.accepted.len() as u64 + 1);
        let limit = self.plan.entry_bytes;
        let entry = match bytes.len() as u64 {
            bytes if bytes > limit => Entry::Oversize { bytes },
            _ => Entry::Whole(bytes.clone()),
        };
        let input = parse(&entry, position, Format::Any, limit);
        let accepted = Accepted {
            entry: bytes.clone(),
            readable: input.is_ok(),
            key: key_of(bytes),
            id: self.name(
                input.map_or_else(|_| identify(&entry, position), |input| input.id),
                position,
            ),
        };
        self.events.push(Event::Sent {
            id: accepted.id.clone(),
            at,
        });
        self.moves.push(Event::Sent {
            id: Id::of_position(position),
            at,
        });
        self.accepted.push(accepted);
    }

    /// In a partition of several what has no identity is named by both.
    fn name(&self, id: Id, position: Position) -> Id {
        match self.partition.filter(|_| id.is_of_position()) {
            Some(partition) => Id::of_place(partition, position),
            None => id,
        }
    }
}
