//! Campaign (law 6): take, renew or give up the leadership, or the place of the active consumer.

use conga_core::lease::OwnerId;
use conga_core::partition::CampaignRequest;
use conga_core::term::{Campaign, Role, Term};
use conga_core::time::Micros;
use rusqlite::params;

use super::convert::int;
use super::database::{Commit, Database};
use super::sql::sql;
use super::step::LineRow;
use crate::store::Result;
use crate::wake::Topic;

/// What a campaign comes to, and what it takes.
enum Outcome {
    /// Nothing is to be written.
    Known(Campaign),
    /// The lock is to be written, under this term.
    Take(Term),
    /// The lock is to be given up.
    GiveUp,
}

pub(super) fn campaign(database: &mut Database, request: &CampaignRequest) -> Result<Campaign> {
    if request.lock_us > 0 {
        database.show_alive(&request.owner);
    } else {
        // Whether it has the seat or stands by: it ends.
        database.show_gone(&request.owner);
    }
    // A standby asks all the time, and must not write for that.
    let (line, now) = database.read(|step| Ok((step.load()?, step.now)))?;
    let holder = line.seat(request.role).0.map(|lock| lock.owner.clone());
    let gone = holder.filter(|holder| *holder != request.owner && database.is_gone(holder));
    let outlook = decide(&line, now, request, gone.as_ref());
    match outlook {
        Outcome::Known(campaign) if line.set_back(now).is_none() => return Ok(campaign),
        _ => {}
    }
    let (campaign, gave_up) = database.write(Commit::Written, |step| {
        step.notice_set_back()?;
        match decide(&step.load()?, step.now, request, gone.as_ref()) {
            Outcome::Known(campaign) => Ok((campaign, false)),
            Outcome::Take(term) => {
                step.tell_time()?;
                let (owner, deadline) = (request.owner.as_str(), int((step.now + request.lock_us).0));
                match request.role {
                    Role::Leader => step.prepare(sql!("campaign.sql", "take"))?.execute(params![
                        step.line,
                        int(term.0),
                        owner,
                        deadline
                    ])?,
                    Role::Consumer => step.prepare(sql!("campaign.sql", "take_consumer"))?.execute(params![
                        step.line,
                        int(term.0),
                        owner,
                        deadline,
                        int(step.now.0)
                    ])?,
                };
                Ok((Campaign::Leader { term }, false))
            }
            Outcome::GiveUp => {
                let give_up = match request.role {
                    Role::Leader => sql!("campaign.sql", "give_up"),
                    Role::Consumer => sql!("campaign.sql", "give_up_consumer"),
                };
                step.prepare(give_up)?.execute([step.line])?;
                Ok((Campaign::Standby { leader: None }, true))
            }
        }
    })?;
    if gave_up {
        database.wake(Topic::Lock);
    }
    Ok(campaign)
}

fn decide(line: &LineRow, now: Micros, request: &CampaignRequest, gone: Option<&OwnerId>) -> Outcome {
    let (stands, term) = line.seat(request.role);
    let lock = stands.filter(|lock| lock.holds(now) && Some(&lock.owner) != gone);
    match lock {
        Some(lock) if lock.owner != request.owner => Outcome::Known(Campaign::Standby {
            leader: Some(lock.owner.clone()),
        }),
        Some(_) if request.lock_us == 0 => Outcome::GiveUp,
        // One that has run out goes too: were the clock set back it would hold again.
        None if request.lock_us == 0 && stands.is_some() => Outcome::GiveUp,
        None if request.lock_us == 0 => Outcome::Known(Campaign::Standby { leader: None }),
        Some(_) => Outcome::Take(term),
        None => Outcome::Take(term.next()),
    }
}
