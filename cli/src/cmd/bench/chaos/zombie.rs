//! Somebody who should be gone: it emits or merges under an earlier term, and completes under a lease that was given to
//! another. None of that may ever count (laws 2 and 3). It also keeps what can be seen of the terms and the head.

use std::time::Duration;

use conga::core::invariant::{Event, Violation, fence};
use conga::core::lease::{Attempt, OwnerId};
use conga::core::message::{Body, Format, Payload, Position, Record, parse};
use conga::core::partition::{
    Claim, ClaimRequest, Completed, Completion, Cursor, EmitRequest, Emitted, Limits, Ready, RenewRequest, Status,
};
use conga::core::term::Term;
use conga::store::{Result, SharedStore};
use serde::Serialize;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

mod merge;

/// How long one visit may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it looks for something that waits at the head, to emit it under an earlier term.
const LOOKS: usize = 20;
/// How often it asks for a message to take, one after the other.
const CLAIMS: usize = 200;

/// How often it was tried, and how often it counted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Tries {
    pub(super) sent: u64,
    pub(super) accepted: u64,
}

impl Tries {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            accepted: self.accepted + other.accepted,
        }
    }
}

/// All that zombies try.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllTries {
    pub(super) emits: Tries,
    pub(super) completes: Tries,
    pub(super) merges: Tries,
}

#[derive(Debug)]
pub(super) struct Zombie {
    store: SharedStore,
    window: u64,
    pub(super) emits: Tries,
    pub(super) completes: Tries,
    pub(super) merges: Tries,
    /// It is at the base of a merged line: there is nothing but merges.
    at_a_base: bool,
    term: Term,
    head: Position,
    history: Vec<Event>,
    /// What else was wrong.
    strange: Vec<String>,
}

impl Zombie {
    pub(super) fn new(store: SharedStore, window: u64) -> Self {
        Self {
            store,
            window,
            emits: Tries::default(),
            completes: Tries::default(),
            merges: Tries::default(),
            at_a_base: false,
            term: Term::default(),
            head: Position::FIRST,
            history: Vec::new(),
            strange: Vec::new(),
        }
    }

    /// One at the base of a merged line.
    pub(super) fn at_a_base(store: SharedStore) -> Self {
        Self {
            at_a_base: true,
            ..Self::new(store, 0)
        }
    }

    /// Tries each once. A store that is away is no reason to stop.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub(super) async fn haunt(&mut self) -> Result<()> {
        let visit = async {
            if self.at_a_base {
                return self.merge().await;
            }
            self.emit().await?;
            self.complete().await
        };
        match timeout(PATIENCE, visit).await {
            Ok(Err(error)) if !error.is_passing() => Err(error),
            _ => Ok(()),
        }
    }

    /// What counted and should not have, and whatever else was seen.
    pub(super) fn violations(&self) -> Vec<String> {
        let told = fence::check(&self.history);
        told.iter()
            .map(Violation::to_string)
            .chain(self.strange.iter().cloned())
            .collect()
    }

    /// Where a failover may have come between visits: terms and the head may then be older than what was seen, since what a
    /// status showed was not waited for. What consumers got is the judge's to compare.
    pub(super) fn forget(&mut self) {
        self.strange
            .extend(fence::check(&self.history).iter().map(Violation::to_string));
        self.history.clear();
        self.term = Term::default();
        self.head = Position::FIRST;
    }

    fn saw(&mut self, status: &Status) {
        if status.term != self.term {
            self.term = status.term;
            self.history.push(Event::Elected {
                term: status.term,
                owner: status.leader.clone().unwrap_or_else(|| OwnerId::new("somebody")),
            });
        }
        if status.head < self.head {
            self.strange
                .push(format!("the head went back from {} to {}", self.head, status.head));
        }
        self.head = self.head.max(status.head);
    }

    /// Sends what waits at the head, under the term before the current one.
    async fn emit(&mut self) -> Result<()> {
        for look in 1..=LOOKS {
            let status = self.store.status().await?;
            self.saw(&status);
            if status.term.0 == 0 {
                return Ok(());
            }
            let (head, entries) = self.ready().await?;
            // Mostly the leader has been faster.
            if entries.is_empty() && look < LOOKS {
                sleep(Duration::from_millis(1)).await;
                continue;
            }
            let request = EmitRequest {
                term: Term(status.term.0 - 1),
                head,
                entries,
            };
            let emitted = self.store.emit(&request).await?;
            let accepted = matches!(emitted, Emitted::Advanced { .. });
            self.emits.sent += 1;
            self.emits.accepted += u64::from(accepted);
            self.history.push(Event::Emitted {
                term: request.term,
                from: request.head,
                to: request.head.plus(request.entries.len() as u64),
                accepted,
            });
            // Only where the head had moved nothing was shown about the term.
            if !matches!(emitted, Emitted::Moved { .. }) {
                break;
            }
        }
        Ok(())
    }

    /// The head, and what waits there without a gap.
    async fn ready(&self) -> Result<(Position, Vec<Ready>)> {
        let followed = self.store.follow(Cursor::default(), 1_000).await?;
        let ready = |processed| Ready {
            processed,
            sequencing: followed.now,
        };
        let mut entries: Vec<Ready> = followed.entries.into_iter().map(ready).collect();
        entries.sort_by_key(|entry| entry.processed.position);
        let dense = entries
            .iter()
            .zip(0..)
            .take_while(|(entry, nth)| entry.processed.position == followed.head.plus(*nth));
        entries.truncate(dense.count());
        Ok((followed.head, entries))
    }

    /// Takes a message for the shortest time, lets it be given to another, and then says that it is done.
    async fn complete(&mut self) -> Result<()> {
        let name = Uuid::new_v4().simple().to_string();
        let (first, second) = (
            OwnerId::new(format!("zombie-{name}")),
            OwnerId::new(format!("other-{name}")),
        );
        let mut taken = self.claim(&first, 1).await?;
        // Mostly the processors have been faster, for they are told when something comes.
        for _ in 0..CLAIMS {
            if !taken.is_empty() {
                break;
            }
            taken = self.claim(&first, 1).await?;
        }
        let mut accepted = false;
        if let Some(claim) = taken.first() {
            // Mostly it is given to the second one, and else to a processor: in any case the first one's lease, which
            // lasted a microsecond, ends with a claim.
            let mut given = self.claim(&second, 1_000_000).await?;
            if given.iter().all(|given| given.position != claim.position) {
                sleep(Duration::from_millis(2)).await;
                given.extend(self.claim(&second, 1_000_000).await?);
            }
            let late = Completion::Done(result(claim));
            let attempt = given
                .iter()
                .find(|given| given.position == claim.position)
                .map_or(claim.attempt.next(), |given| given.attempt);
            let answers = self.store.complete(&first, &[late]).await?;
            accepted = answers.first() == Some(&Completed::Accepted);
            self.completes.sent += 1;
            self.completes.accepted += u64::from(accepted);
            self.remember(claim, &first, attempt, &second, accepted);
        }
        for owner in [first, second] {
            self.store
                .renew(&RenewRequest {
                    keep: None,
                    owner,
                    lease_us: 0,
                    held: None,
                    limits: Limits::default(),
                })
                .await?;
        }
        if accepted {
            self.strange.push("a lease that was given to another ended".to_owned());
        }
        Ok(())
    }

    fn remember(&mut self, claim: &Claim, first: &OwnerId, next: Attempt, second: &OwnerId, accepted: bool) {
        let claimed = |attempt, owner: &OwnerId| Event::Claimed {
            position: claim.position,
            attempt,
            owner: owner.clone(),
            at: claim.claimed,
        };
        // Real processors claim it in between, unseen; only these two are compared.
        self.history.retain(
            |event| !matches!(event, Event::Claimed { position, .. } | Event::Completed { position, .. } if *position == claim.position),
        );
        self.history.push(claimed(claim.attempt, first));
        self.history.push(claimed(next, second));
        self.history.push(Event::Completed {
            position: claim.position,
            attempt: claim.attempt,
            owner: first.clone(),
            accepted,
        });
    }

    async fn claim(&self, owner: &OwnerId, lease_us: u64) -> Result<Vec<Claim>> {
        let request = ClaimRequest {
            owner: owner.clone(),
            max: 1,
            lease_us,
            window: self.window,
            below: None,
            limits: Limits::default(),
        };
        self.store.claim(&request).await
    }
}

/// What nobody sent, under the message's own id: should it count, it is recognised.
fn result(claim: &Claim) -> Record {
    let mut record = claim.record(Body::Result(Payload::string("from a zombie")));
    if let Ok(input) = parse(&claim.entry, claim.position, Format::Any, u64::MAX) {
        record.id = input.id;
        record.created = input.created.unwrap_or(claim.claimed);
    }
    record
}
