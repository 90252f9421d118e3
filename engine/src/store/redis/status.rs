//! Status: the call of `status.lua`.

use conga_core::lease::{Attempt, OwnerId};
use conga_core::message::{Id, Position};
use conga_core::partition::{Blocker, Control, Keep, Oldest, Status};
use conga_core::term::Term;
use conga_core::time::Micros;

use super::reply::Items;
use super::{RedisStore, control, script};
use crate::store::Result;

impl RedisStore {
    pub(super) async fn count(&self) -> Result<Status> {
        let keys = &self.keys;
        let mut call = script::STATUS.call(&[
            &keys.input,
            &keys.meta,
            &keys.flight,
            &keys.numbers,
            &keys.output,
            &keys.record,
            &keys.dead,
            &keys.owners,
            &keys.lock,
            &keys.producers,
            &keys.kept,
            &keys.halted,
        ]);
        call.arg(self.time());
        let mut reply = Items::of(self.run(&script::STATUS, &call).await?)?;
        let now = Micros(reply.number()?);
        let entries: u64 = reply.number()?;
        let head = Position(reply.number()?);
        let next = Position(reply.number()?);
        let mut status = Status {
            now,
            waiting: entries.saturating_sub(next.past(head)),
            term: Term(reply.number()?),
            in_flight: 0,
            processed: reply.number()?,
            output: reply.number()?,
            recorded: reply.number()?,
            dead: reply.number()?,
            halted: 0,
            oldest: Oldest::default(),
            keep: None,
            control: Control::default(),
            head,
            next,
            blocker: blocker(reply.items()?, reply.text()?)?,
            leader: reply.optional_text()?.map(OwnerId::new),
            processors: Vec::new(),
            consumer: None,
            consumer_term: Term::default(),
            consumer_since: Micros::default(),
            producers: 0,
            missing: None,
        };
        let mut owners = reply.items()?;
        while !owners.is_empty() {
            status.processors.push(OwnerId::new(owners.text()?));
        }
        status.processors.sort();
        status.producers = reply.number()?;
        status.consumer = reply.optional_text()?.map(OwnerId::new);
        status.consumer_term = Term(reply.number()?);
        status.consumer_since = Micros(reply.number()?);
        status.keep = reply.optional_text()?.as_deref().and_then(Keep::of_text);
        let micros = |text: Option<String>| text.and_then(|text| text.parse().ok()).map(Micros);
        status.oldest = Oldest {
            record: micros(reply.optional_text()?),
            dead: micros(reply.optional_text()?),
            // Something else may have put something else there.
            output: reply.optional_text()?.and_then(|text| Micros::parse(&text).ok()),
        };
        let in_place: u64 = reply.number()?;
        status.in_flight = next.past(head).saturating_sub(status.processed + in_place);
        status.control = control::read(&mut reply)?;
        status.missing = micros(reply.optional_text()?);
        status.halted = reply.number()?;
        let mut letter = reply.items()?;
        if !letter.is_empty() {
            status.blocker = Some(Blocker::Halted {
                id: Id::given(letter.text()?),
                reason: letter.text()?,
                died: Micros(letter.number()?),
            });
        }
        Ok(status)
    }
}

/// What a slot at the head says.
fn blocker(mut slot: Items, owner: String) -> Result<Option<Blocker>> {
    if slot.is_empty() {
        return Ok(None);
    }
    let state = slot.text()?;
    let (_, attempt, time) = (slot.value()?, Attempt(slot.number()?), Micros(slot.number()?));
    Ok(match state.as_str() {
        "L" => Some(Blocker::Leased {
            owner: OwnerId::new(owner),
            attempt,
            since: time,
        }),
        "F" => Some(Blocker::Free),
        "D" => Some(Blocker::Delayed { due: time }),
        _ => None,
    })
}
