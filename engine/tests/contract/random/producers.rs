//! Who sends: anybody, and two that number what they send.

use bytes::Bytes;
use conga::core::invariant::Event;
use conga::core::message::Id;
use conga::core::partition::{Numbered, Sent, Session};
use conga::core::shape::Order;

use super::Driver;
use crate::in_place::keyed;

/// The key of an id, in three of four.
pub(super) fn key_of(id: &str) -> Option<&'static str> {
    let number: usize = id[1..].parse().unwrap_or(0);
    [None, Some("a"), Some("b"), Some("b")][number / 2 % 4]
}

fn entry_of(order: Order, id: &str) -> Bytes {
    match order {
        Order::Total => crate::pair::entry(id),
        _ => keyed(id, key_of(id).unwrap_or_default()),
    }
}

impl Driver {
    /// Ids that begin with `m` may be sent again; those with `d` may die.
    pub(super) async fn send(&mut self) {
        let mut entries = Vec::new();
        for _ in 0..=self.random.below(4) {
            let number = self.sent.len();
            let mut id = format!("{}{number}", if number % 4 == 3 { 'd' } else { 'm' });
            if number > 0 && self.random.chance(15) {
                let earlier = &self.sent[number - 1 - self.random.index(number.min(10))];
                if earlier.starts_with('m') {
                    id.clone_from(earlier);
                }
            }
            entries.push(entry_of(self.order, &id));
            self.history.push(Event::Sent {
                id: Id::given(id.as_str()),
                at: self.pair.now(),
            });
            self.sent.push(id);
        }
        self.pair.send(&entries).await;
    }

    /// Sends on, and before that some of what was sent already, as one does who had no answer; or leaves one out. Sometimes
    /// it does so in a new session, or in an earlier one: late.
    pub(super) async fn send_numbered(&mut self) {
        let (again, fresh) = (self.random.below(4), self.random.below(4));
        let leaves_out = self.random.chance(15);
        let which = self.random.index(2);
        let (session, is_late) = self.session(which);
        let (producer, before) = &mut self.producers[which];
        let known = before.len();
        let from = known - usize::try_from(again).unwrap_or(0).min(known);
        for _ in 0..fresh {
            let number = self.sent.len() + before.len() - known;
            before.push(format!("{}{number}", if number % 4 == 3 { 'd' } else { 'm' }));
        }
        let skipped = usize::from(leaves_out && from == known);
        let first = 1 + from + skipped;
        let ids = before.get(from + skipped..).unwrap_or_default();
        let entries: Vec<_> = ids.iter().map(|id| entry_of(self.order, id)).collect();
        let numbered = Numbered {
            producer: producer.clone(),
            session,
            first: first as u64,
            mark: before.len() as u64,
            max_waiting: (again == 3).then_some(2 + 2 * fresh),
        };
        let news = before[known..].to_vec();
        let answer = self.pair.send_as(Some(&numbered), &entries).await;
        let (producer, before) = &mut self.producers[which];
        let is_refused = is_late || skipped > 0 || entries.is_empty();
        let is_full = matches!(answer, Sent::Full { .. });
        let there = if is_refused || is_full { known } else { before.len() };
        match answer {
            Sent::Accepted { last, .. } => assert_eq!(last, there as u64, "{producer}: {answer:?}"),
            Sent::Missing { from } => assert_eq!(from, there as u64 + 1, "{producer}: {answer:?}"),
            Sent::Full { last, .. } => assert_eq!(last, known as u64, "{producer}: {answer:?}"),
            Sent::Replaced { session } => assert_eq!(Some(&session), self.sessions[which].last(), "{producer}"),
        }
        let is_replaced = matches!(answer, Sent::Replaced { .. });
        assert_eq!(
            is_replaced, is_late,
            "{producer}: {numbered:?} after {:?}",
            self.sessions[which]
        );
        before.truncate(there);
        for id in news.into_iter().take(there - known) {
            self.history.push(Event::Sent {
                id: Id::given(id.as_str()),
                at: self.pair.now(),
            });
            self.sent.push(id);
        }
    }

    /// The session in which a producer sends, and whether it is late: another is the latest.
    pub(super) fn session(&mut self, which: usize) -> (Session, bool) {
        let sessions = &mut self.sessions[which];
        let latest = sessions.last().copied();
        let process = self.random.below(3);
        let (number, earlier) = latest.map_or((0, None), |latest| {
            let same_number = Session { process, ..latest };
            let drawn = [same_number, sessions[self.random.index(sessions.len())]][self.random.index(2)];
            (latest.number, Some(drawn).filter(|drawn| *drawn != latest))
        });
        match (latest, earlier) {
            (_, Some(earlier)) if self.random.chance(30) => return (earlier, true),
            (Some(latest), _) if self.random.chance(75) => return (latest, false),
            _ => {}
        }
        let number = number + 1 + self.random.below(2);
        sessions.push(Session { number, process });
        (Session { number, process }, false)
    }
}
