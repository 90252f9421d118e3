//! At the base of a merged line: a leader that was deposed, and one whose idea of the head is old.

use conga::core::invariant::Event;
use conga::core::lease::Attempt;
use conga::core::message::{Body, Id, Payload, Position, Record, write_open};
use conga::core::partition::{MergeRequest, Merged, Piece};
use conga::core::term::Term;
use conga::core::time::Micros;
use conga::store::Result;

use super::{LOOKS, Zombie};

impl Zombie {
    /// Merges at the head under the term before the current one; and under the current one at a head that is past, as a
    /// leader does that sends again what has no answer.
    pub(super) async fn merge(&mut self) -> Result<()> {
        for _ in 0..LOOKS {
            let status = self.store.status().await?;
            self.saw(&status);
            if status.term.0 == 0 {
                return Ok(());
            }
            let (deposed, head) = (Term(status.term.0 - 1), status.head);
            let merged = self.store.merge(&forged(deposed, head, status.now)).await?;
            let accepted = self.count(&merged, "under an earlier term");
            self.history.push(Event::Emitted {
                term: deposed,
                from: head,
                to: head.next(),
                accepted,
            });
            // Only where the head had moved nothing was shown about the term.
            if !matches!(merged, Merged::Moved { .. }) {
                break;
            }
        }
        let status = self.store.status().await?;
        if status.head > Position::FIRST {
            let past = Position(status.head.0 - 1);
            let merged = self.store.merge(&forged(status.term, past, status.now)).await?;
            self.count(&merged, "at a head that is past");
        }
        Ok(())
    }

    fn count(&mut self, merged: &Merged, how: &str) -> bool {
        let accepted = matches!(merged, Merged::Advanced { .. });
        self.merges.sent += 1;
        self.merges.accepted += u64::from(accepted);
        if accepted {
            self.strange.push(format!("a merge {how} counted"));
        }
        accepted
    }
}

/// What nobody sent: should it count, it is recognised.
fn forged(term: Term, head: Position, now: Micros) -> MergeRequest {
    let open = write_open(&Record {
        position: head,
        id: Id::given(head.to_string()),
        sequence: Some(head.0),
        key: None,
        body: Body::Result(Payload::string("from a zombie")),
        attempts: Attempt(1),
        created: now,
        processing: now,
    });
    MergeRequest {
        term,
        head,
        late: Vec::new(),
        pieces: vec![Piece::Result(format!("{open},\"processed\":\"{now}\""))],
        is_missing: false,
        give_up: None,
    }
}
