//! The way to the store, and what can happen on it. A call that is on its way is not bound to its caller any more: it
//! arrives even if nobody waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use conga::core::lease::{Held, OwnerId};
use conga::core::message::{Body, Position};
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, ControlRequest, Cursor, DeadRequest, EmitRequest,
    Emitted, Followed, Judged, MergeRequest, Merged, Numbered, Page, ReceiveRequest, Received, RenewRequest, Renewed,
    Sent, Shelf, Status,
};
use conga::core::shape::{Order, Shape};
use conga::core::term::Campaign;
use conga::store::{Result, SharedStore, Store, StoreError};
use conga::wake::Wakes;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::history::{DIED, Ending, Happened, Moved, Trouble, Who};
use crate::plan::Dice;
use crate::process::Control;
use crate::world::World;

/// A caller waits no longer than this; then nobody knows.
const PATIENCE: Duration = Duration::from_secs(3);

/// One process's connection to the store.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) world: Arc<World>,
    /// To which store.
    pub(crate) site: usize,
    /// In which place the process runs.
    pub(crate) place: usize,
    /// Whether its process has the store deliver.
    pub(crate) delivers: bool,
    pub(crate) who: Who,
    pub(crate) control: Control,
    pub(crate) wakes: Wakes,
}

/// What happens to a call, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// The store does it.
    Do,
    /// The caller hears what the store said last.
    Answer,
    /// The caller hears that it was not done, and it is not.
    Refuse,
    /// The caller hears that nobody knows.
    Lose,
}

type Course = Vec<(Instant, Act)>;

impl Connection {
    async fn call<T, F>(
        &self,
        verb: &'static str,
        may_repeat: bool,
        step: impl Fn(Reached) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send,
    {
        let course = self.course(verb, may_repeat);
        let (tell, told) = oneshot::channel();
        let (world, reached) = (self.world.clone(), self.reach(verb));
        tokio::spawn(async move {
            let (mut tell, mut answer) = (Some(tell), None);
            for (at, act) in course {
                sleep_until(at).await;
                let said = match act {
                    Act::Do => {
                        answer = Some(step(reached.clone()).await);
                        world.pass_on_hints();
                        continue;
                    }
                    Act::Answer => answer.take(),
                    Act::Refuse => Some(Err(StoreError::Unavailable("refused".to_owned()))),
                    Act::Lose => Some(Err(StoreError::Unknown("lost".to_owned()))),
                };
                // Where nobody waits any more there is nobody to tell.
                if let (Some(tell), Some(said)) = (tell.take(), said) {
                    let _ = tell.send(said);
                }
            }
        });
        told.await.unwrap_or_else(|_| {
            self.world
                .wrong(format!("{verb} got no answer at all: the store has panicked"));
            Err(StoreError::Closed)
        })
    }

    /// Draws what happens to a call that begins now.
    fn course(&self, verb: &'static str, may_repeat: bool) -> Course {
        let world = &self.world;
        let mut dice = world.dice.lock().unwrap();
        let dice = &mut *dice;
        let now = Instant::now();
        if now >= world.heal {
            let arrives = now + dice.millis(0, 2);
            return vec![(arrives, Act::Do), (arrives + dice.millis(0, 2), Act::Answer)];
        }
        let weather = &world.plan.weather;
        let met = |trouble| world.note_at(self.site, Some(self.who), Happened::Met { verb, trouble });
        let gives_up = now + PATIENCE;
        // An emit that comes late is the one thing that only the term keeps out; a send that does, only the session.
        let late = weather.late
            * match verb {
                "emit" | "merge" => 3,
                "send" => 6,
                _ => 1,
            };
        let mut course = Vec::new();
        let arrives = now + self.delay(dice, verb);
        let told = arrives + self.delay(dice, verb);
        if let Some((until, refused)) = world.cut_off(self.place, self.site, now) {
            met(Trouble::CutOff);
            if refused {
                course.push((now + dice.millis(0, 5), Act::Refuse));
            } else {
                course.push((until.min(gives_up), Act::Lose));
                if dice.chance(300) {
                    // What was sent comes through when the way is free again.
                    course.push((until + dice.millis(0, 50), Act::Do));
                }
            }
        } else if let Some((until, _)) = world.cut_off(self.place, self.site, arrives) {
            met(Trouble::CutOff);
            course.push((until.min(gives_up), Act::Lose));
        } else if dice.chance(weather.refused) {
            met(Trouble::Refused);
            course.push((arrives, Act::Refuse));
        } else if dice.chance(late) {
            met(Trouble::Late);
            let heard = now + dice.millis(0, 1_500);
            course.push((heard, Act::Lose));
            course.push((heard + dice.millis(0, 5_000), Act::Do));
        } else {
            course.push((arrives, Act::Do));
            if let Some((until, _)) = world.cut_off(self.place, self.site, told) {
                met(Trouble::CutOff);
                course.push((until.min(gives_up), Act::Lose));
            } else if dice.chance(weather.lost) || told > gives_up {
                met(Trouble::Lost);
                course.push((told.min(gives_up), Act::Lose));
            } else {
                course.push((told, Act::Answer));
            }
            if may_repeat && dice.chance(weather.repeated) {
                met(Trouble::Repeated);
                course.push((arrives + dice.millis(0, 1_000), Act::Do));
            }
        }
        // When all is healed, what is still on its way arrives soon.
        let last = world.heal + dice.millis(0, World::AFTERMATH_MS);
        for (at, _) in &mut course {
            *at = (*at).min(last);
        }
        course.sort_by_key(|(at, _)| *at);
        course
    }

    /// Which way into the store a call takes. A store that delivers by itself may leave what would be too much.
    fn reach(&self, verb: &'static str) -> Reached {
        let world = self.world.clone();
        // In place it always does.
        let in_place = world.plan.order != Order::Total;
        let delivers =
            matches!(verb, "complete" | "renew" | "dead") && (in_place || (self.delivers && !self.cuts_short(verb)));
        let site = &world.sites[self.site];
        let store = if delivers && self.delivers {
            &site.delivering
        } else {
            &site.store
        };
        Reached {
            store: store.clone(),
            who: self.who,
            site: self.site,
            world,
            delivers,
        }
    }

    /// A store may deliver only the first of what it could.
    fn cuts_short(&self, verb: &'static str) -> bool {
        if self.world.is_healed() {
            return false;
        }
        let rate = self.world.plan.weather.cut_short;
        let is_cut = self.world.dice.lock().unwrap().chance(rate);
        if is_cut {
            let trouble = Trouble::CutShort;
            self.world
                .note_at(self.site, Some(self.who), Happened::Met { verb, trouble });
        }
        is_cut
    }

    fn delay(&self, dice: &mut Dice, verb: &'static str) -> Duration {
        let weather = &self.world.plan.weather;
        if dice.chance(weather.crawling) {
            let trouble = Trouble::Crawling;
            self.world
                .note_at(self.site, Some(self.who), Happened::Met { verb, trouble });
            return dice.millis(900, 4_000);
        }
        if dice.chance(weather.slow) {
            return dice.millis(0, 500);
        }
        dice.millis(0, 3)
    }
}

fn held(claims: &[Claim]) -> Vec<Held> {
    claims
        .iter()
        .map(|claim| Held {
            position: claim.position,
            attempt: claim.attempt,
        })
        .collect()
}

/// The store, where a call has reached it.
#[derive(Clone)]
struct Reached {
    store: SharedStore,
    world: Arc<World>,
    who: Who,
    site: usize,
    /// Whether the store is to deliver in the same step.
    delivers: bool,
}

impl Reached {
    fn note(&self, what: Happened) {
        self.world.note_at(self.site, Some(self.who), what);
    }

    async fn head(&self) -> Result<Position> {
        Ok(self.store.follow(Cursor::default(), 0).await?.head)
    }

    /// Where the head has moved since it was at `from`, if the store was to deliver.
    async fn moved(&self, from: Position) -> Result<Option<Moved>> {
        let to = self.head().await?;
        Ok(self.delivers.then_some(Moved { from, to }))
    }
}

/// Calls a verb of the store by name, and notes what came of it.
macro_rules! carry {
    ($self:ident, $verb:ident, $repeat:expr, [$($given:ident),*], |$answer:ident, $moved:pat_param| $seen:expr) => {{
        $(let $given = ToOwned::to_owned($given);)*
        $self
            .call(stringify!($verb), $repeat, move |reached| {
                $(let $given = $given.clone();)*
                async move {
                    // On one thread, nothing comes in between.
                    let from = reached.head().await?;
                    let $answer = reached.store.$verb($(&$given),*).await?;
                    let $moved = reached.moved(from).await?;
                    reached.note($seen);
                    Ok($answer)
                }
            })
            .await
    }};
}

#[async_trait]
impl Store for Connection {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        // Only what has an identity or a number may be sent twice; and not what is refused, once that was said.
        let may_repeat = match numbered {
            Some(numbered) => numbered.max_waiting.is_none(),
            None => entries
                .iter()
                .all(|entry| entry.starts_with(b"{\"id\":") || entry.starts_with(b"{\"sequence\":")),
        };
        let (entries, numbered) = (entries.to_owned(), numbered.cloned());
        self.call("send", may_repeat, move |reached| {
            let (entries, numbered) = (entries.clone(), numbered.clone());
            async move {
                let before = reached.store.status().await?.waiting;
                let sent = reached.store.send(&entries, numbered.as_ref()).await?;
                if let (Some(numbered), Sent::Replaced { session: latest }) = (&numbered, sent) {
                    reached.note(Happened::Replaced {
                        producer: numbered.producer.clone(),
                        session: numbered.session,
                        messages: entries.len(),
                        latest,
                    });
                    return Ok(sent);
                }
                if matches!(sent, Sent::Full { .. }) {
                    reached.note(Happened::Full);
                }
                let waiting = reached.store.status().await?.waiting;
                let count = waiting - before;
                let there = match &numbered {
                    // Only the last ones may be new.
                    Some(_) => entries.len() - usize::try_from(count).unwrap_or(0).min(entries.len()),
                    None => 0,
                };
                let entries = entries[there..].to_vec();
                reached.note(Happened::Sent {
                    producer: numbered.map(|numbered| (numbered.producer, numbered.session)),
                    entries,
                    waiting,
                });
                Ok(sent)
            }
        })
        .await
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        carry!(self, claim, false, [request], |claims, _| Happened::Claimed {
            owner: request.owner.clone(),
            lease_us: request.lease_us,
            claims: held(&claims),
            blamed: (claims.iter().filter(|claim| claim.crashes > 0))
                .map(|claim| (claim.position, claim.crashes))
                .collect(),
        })
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        carry!(self, complete, true, [owner, completions], |answers, delivered| {
            let ends = completions.iter().zip(&answers).map(|(completion, answer)| {
                let ending = match completion {
                    Completion::Done(_) => Ending::Done,
                    Completion::Dead { tombstone, on_dead } => Ending::Dead {
                        on_dead: *on_dead,
                        by_crashes: matches!(&tombstone.body, Body::Dead { reason } if reason.starts_with(DIED)),
                    },
                    Completion::Retry { delay_us: 0, .. } => Ending::GivenBack,
                    Completion::Retry { .. } => Ending::Retry,
                };
                (completion.held(), ending, *answer)
            });
            Happened::Completed {
                owner: owner.clone(),
                ends: ends.collect(),
                delivered,
            }
        })
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        carry!(self, renew, true, [request], |renewed, delivered| Happened::Renewed {
            owner: request.owner.clone(),
            lease_us: request.lease_us,
            known: renewed.known,
            found: held(&renewed.found),
            delivered,
        })
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        // What renews a consumer's lock beside its other work stands still with it.
        while let Some(until) = self.control.stands_until() {
            sleep_until(until).await;
        }
        carry!(self, campaign, true, [request], |campaign, _| Happened::Campaigned {
            role: request.role,
            owner: request.owner.clone(),
            lock_us: request.lock_us,
            answer: campaign.clone(),
        })
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.call("follow", true, move |reached| async move {
            let followed = reached.store.follow(cursor, max).await?;
            let (head, count) = (followed.head, followed.entries.len());
            reached.note(Happened::Followed { head, count });
            Ok(followed)
        })
        .await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let term = request.term;
        self.world.note_at(self.site, Some(self.who), Happened::Emits { term });
        let mut request = request.clone();
        if self.cuts_short("emit") {
            request.entries.truncate(request.entries.len().div_ceil(2));
        }
        let request = &request;
        carry!(self, emit, true, [request], |emitted, _| Happened::Emitted {
            term: request.term,
            from: request.head,
            answer: emitted,
        })
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        let term = request.term;
        self.world.note_at(self.site, Some(self.who), Happened::Emits { term });
        let request = request.clone();
        self.call("merge", true, move |reached| {
            let request = request.clone();
            async move {
                let from = reached.head().await?;
                let answer = reached.store.merge(&request).await?;
                let to = reached.head().await?;
                reached.note(Happened::Merged {
                    term: request.term,
                    from: request.head,
                    late: request.late.iter().map(|late| late.position).collect(),
                    gives_up: request.give_up.is_some(),
                    moved: Moved { from, to },
                    answer,
                });
                Ok(answer)
            }
        })
        .await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        carry!(self, receive, true, [request], |received, _| match &received {
            Received::Outputs(outputs) => Happened::Received {
                reign: request.reign.clone(),
                acknowledged: request.acknowledge,
                outputs: outputs.clone(),
            },
            Received::Fenced { term } => Happened::Refused {
                reign: request.reign.clone(),
                term: *term,
            },
        })
    }

    async fn control(&self, request: &ControlRequest) -> Result<conga::core::partition::Control> {
        carry!(self, control, true, [request], |control, _| Happened::Controlled {
            request,
            control,
        })
    }

    async fn status(&self) -> Result<Status> {
        if self.world.plan.merging.is_none() {
            return self.world.sites[self.site].store.status().await;
        }
        // What it says proves something there.
        self.call("status", true, |reached| async move { reached.store.status().await })
            .await
    }

    async fn browse(&self, shelf: Shelf, from: Option<&str>) -> Result<Page> {
        self.world.sites[self.site].store.browse(shelf, from).await
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        self.world.sites[self.site].store.shape(wanted).await
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        carry!(self, dead, true, [request], |answers, delivered| Happened::Judged {
            request: request.clone(),
            answers: answers.clone(),
            delivered,
        })
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}
