//! The handler of a process.

use std::sync::Arc;
use std::time::Duration;

use conga::core::lease::Held;
use conga::core::message::Payload;
use conga::core::route::By;
use conga::process::{Handler, HandlerError, Message};
use tokio::time::{Instant, sleep_until};

use crate::history::{Happened, Outcome, Who};
use crate::plan::{Fate, number_of};
use crate::process::{Control, Part};
use crate::world::{BASE, World};

/// The handler of one process.
#[derive(Debug, Clone)]
pub(super) struct Hand {
    pub(super) world: Arc<World>,
    pub(super) who: Who,
    pub(super) control: Control,
}

impl Handler for Hand {
    fn handle(self, message: Message) -> impl Future<Output = std::result::Result<Payload, HandlerError>> + Send {
        Part::new(self.control.clone(), self.work(message))
    }
}

impl Hand {
    /// In which store the message is.
    fn site_of(&self, message: &Message) -> usize {
        let Some(router) = self.world.plan.router() else {
            return BASE;
        };
        let (id, key) = (message.id.as_str(), message.key.as_deref());
        // What has no identity is named by its place.
        let place = id.strip_prefix('@').and_then(|place| place.split_once('.'));
        let partition = match (place, key) {
            (Some((partition, _)), None) => partition.parse().ok(),
            (Some((partition, _)), Some(_)) if router.by() != By::Key => partition.parse().ok(),
            _ => router.partition(key, Some(id), message.sequence, 0).ok(),
        };
        partition.map_or(BASE, |partition| partition as usize + 1)
    }

    async fn work(self, message: Message) -> std::result::Result<Payload, HandlerError> {
        let held = Held {
            position: message.position,
            attempt: message.attempt,
        };
        let site = self.site_of(&message);
        self.world.note_at(site, Some(self.who), Happened::Begins { held });
        let mut running = Running {
            hand: &self,
            site,
            held,
            outcome: Outcome::Dropped,
        };
        let world = &self.world;
        let at_most = if world.is_healed() { 20 } else { world.plan.handler_ms };
        let length = world.dice.lock().unwrap().millis(0, at_most);
        // When all is healed the handlers are quick: what then takes long is not their doing.
        let latest = Instant::now().max(world.heal) + Duration::from_millis(20);
        sleep_until((Instant::now() + length).min(latest)).await;
        let payload: String = serde_json::from_str(message.payload.text()).unwrap_or_default();
        let Some(number) = number_of(&payload) else {
            self.world.wrong(format!(
                "position {}: a payload that nobody sent: {payload}",
                message.position
            ));
            return Err(HandlerError::permanent("nobody sent this"));
        };
        let attempt = message.attempt.0;
        running.outcome = Outcome::Failure;
        match self.world.plan.fate(number) {
            Fate::Kills => {
                self.world.note_at(site, Some(self.who), Happened::Kills { held });
                self.control.kill();
                std::future::pending::<()>().await;
            }
            Fate::FailsForGood => return Err(HandlerError::permanent("never")),
            Fate::FailsAtFirst(times) if attempt <= times => return Err(HandlerError::passing("not yet")),
            Fate::PanicsAtFirst if attempt == 1 => {
                running.outcome = Outcome::Panic;
                drop(running);
                // As a panic is, but silent.
                std::panic::resume_unwind(Box::new("the handler"));
            }
            _ => {}
        }
        running.outcome = Outcome::Result;
        // Another attempt has another result: which one came out can be told.
        Ok(Payload::string(&format!("m{number} by {}#{attempt}", self.who)))
    }
}

/// Sees the end of a handler, however it comes.
struct Running<'a> {
    hand: &'a Hand,
    site: usize,
    held: Held,
    outcome: Outcome,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (held, outcome) = (self.held, self.outcome);
        let Hand { world, who, .. } = self.hand;
        world.note_at(self.site, Some(*who), Happened::Ends { held, outcome });
    }
}
