//! Somebody who asks for one thing after the other, each once, as long as things go wrong.

use std::sync::Arc;

use conga::core::message::Position;
use conga::core::partition::{DeadRequest, Row, Shelf};
use conga::deliver::position_of;
use conga::store::{Result, SharedStore};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::plan::{Command, Dice};
use crate::world::World;

/// Of a line of several partitions all are controlled, and the dead letters are those of one.
pub(super) async fn operate(world: Arc<World>, stores: Vec<SharedStore>, stop: CancellationToken) -> Result<()> {
    loop {
        let next = *world.commanded.lock().unwrap();
        let Some((pause, command)) = world.plan.commands.get(next).copied() else {
            break;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
        if world.is_healed() {
            break;
        }
        *world.commanded.lock().unwrap() = next + 1;
        match command {
            Command::Control(request) => {
                for store in &stores {
                    pass_over(store.control(&request).await)?;
                }
            }
            Command::Dead(verdict) => {
                let verdict = world.plan.possible(verdict);
                let one = match stores.len() {
                    1 => 0,
                    several => world.dice.lock().unwrap().size(0, several - 1),
                };
                let rows = stores[one].browse(Shelf::Dead, None).await?.rows;
                let positions = some_of(&rows, &mut world.dice.lock().unwrap());
                pass_over(stores[one].dead(&DeadRequest { verdict, positions }).await)?;
            }
        }
    }
    stop.cancelled().await;
    Ok(())
}

/// What is not answered is not asked again.
fn pass_over<T>(answered: Result<T>) -> Result<()> {
    match answered {
        Err(error) if !error.is_passing() => Err(error),
        _ => Ok(()),
    }
}

/// Some dead letters, one that is none, mostly, and one twice.
fn some_of(rows: &[Row], dice: &mut Dice) -> Vec<Position> {
    let mut letters: Vec<_> = rows.iter().filter_map(|row| position_of(&row.json)).collect();
    letters.sort_unstable();
    letters.retain(|_| dice.chance(700));
    letters.push(Position(dice.between(1, 60)));
    letters.extend(letters.first().copied());
    letters
}
