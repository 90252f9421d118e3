//! Deliver: what is ready goes out, where that is the store's to do.

use super::database::{Commit, Database};
use super::outlet::Outlet;
use super::sql::sql;

/// Delivers what stands at the head without a gap, in as many steps as it takes. The verb that does so has had its own
/// step before; so what fails here fails nobody: it is left to the next one.
pub(super) fn deliver_ready(database: &mut Database) {
    if !database.delivers() {
        return;
    }
    loop {
        match deliver_some(database) {
            Ok(true) => database.wake_of_head(),
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(%error, "what is ready is left to the next step");
                return;
            }
        }
    }
}

/// One step; whether there was anything to deliver. It takes the lock for writing only if there is.
fn deliver_some(database: &mut Database) -> crate::store::Result<bool> {
    let ready: bool = database.read(|step| {
        step.prepare(sql!("emit.sql", "is_ready"))?
            .query_row([step.line], |row| row.get(0))
    })?;
    if !ready {
        return Ok(false);
    }
    // Written is enough, as with an emit: before anybody receives it, it is synced.
    database.write(Commit::Written, |step| {
        let mut outlet = Outlet::open(step)?;
        outlet.drain()?;
        let delivered = outlet.has_delivered();
        if delivered {
            outlet.close()?;
        }
        Ok(delivered)
    })
}
