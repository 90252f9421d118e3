//! All ends well: what is there comes out, and is judged.

use conga::core::invariant::{Event, Violation, check_all, check_any_order, loss, order};
use conga::core::partition::{ControlRequest, Flow, Judged, Verdict};
use conga::core::shape::Order;

use super::{Driver, leaders::Leader, producers::key_of};
use crate::pair::LEASE_US;

impl Driver {
    /// Everybody from before is gone. Who comes now finds all there is and brings it out.
    pub(super) async fn heal_and_drain(&mut self) {
        self.pair.control(&ControlRequest::Flow(Flow::Running)).await;
        self.pair.control(&ControlRequest::Rate(None)).await;
        self.pair.advance(10 * LEASE_US);
        self.owners.push(("healer", Vec::new()));
        self.leaders.push(Leader::new("heir"));
        let (owner, leader) = (self.owners.len() - 1, self.leaders.len() - 1);
        for _ in 0..=2 * self.sent.len() {
            self.claim(owner, 100, false).await;
            let claims = std::mem::take(&mut self.owners[owner].1);
            for position in self.halted().await {
                let verdict = [Verdict::Mark, Verdict::Skip][usize::from(position.is_multiple_of(2))];
                assert_eq!(self.pair.dead(verdict, &[position]).await, [Judged::Done]);
            }
            self.pair.finish_work("healer", &claims).await;
            self.look_at_head().await;
            self.campaign(leader, LEASE_US).await;
            self.follow(leader).await;
            while self.leaders[leader].wish.is_some() {
                self.emit(leader, false).await;
            }
            if self.pair.status().await.head.0 > self.sent.len() as u64 {
                break;
            }
        }
        self.pair.stand("c0", LEASE_US).await;
        self.consumers = [(); 2].map(|()| ("c0", self.pair.active.lock().expect("no panic").clone()));
        self.receive(usize::MAX, false).await;
        let head = self.pair.status().await.head.0;
        assert_eq!(head, self.sent.len() as u64 + 1, "all of them came out");
    }

    /// Compares what is left with the reference, and judges the whole history.
    pub(super) async fn judge(mut self, seed: u64) {
        self.look_at_shelves().await;
        let records = std::mem::take(&mut self.records).into_iter();
        let recorded = |(id, position)| Event::Recorded { id, position };
        self.history.extend(records.map(recorded));
        let dead = std::mem::take(&mut self.dead).into_iter();
        self.history.extend(dead.map(|id| Event::DeadLetter { id }));
        let found = match self.order {
            Order::Total => check_all(&self.history),
            Order::Key { .. } => {
                let by_key = order::check_by(&self.history, |_, id| key_of(id.as_str()));
                [check_any_order(&self.history), by_key].concat()
            }
            Order::None => check_any_order(&self.history),
        };
        let found: Vec<_> = found.iter().map(Violation::to_string).collect();
        assert!(found.is_empty(), "seed {seed}: {found:#?}");
        let ids: std::collections::HashSet<_> = self.sent.iter().collect();
        let count = loss::count(&self.history);
        assert_eq!((count.sent, count.lost), (ids.len() as u64, 0), "seed {seed}");
        self.pair.finish().await;
    }
}
