//! Record: reading the system of record and the dead letters.

use conga_core::partition::{Row, Shelf};

use crate::ledger::SharedLedger;
use crate::persist::persist;
use crate::random::Random;
use crate::store::{Result, SharedStore};

/// Reads a shelf to its end, a page at a time.
#[derive(Debug)]
pub struct Rows {
    store: SharedStore,
    shelf: Shelf,
    from: Option<String>,
    ended: bool,
}

impl Rows {
    /// All rows of `shelf` in the line that `store` was opened for.
    pub fn new(store: SharedStore, shelf: Shelf) -> Self {
        Self {
            store,
            shelf,
            from: None,
            ended: false,
        }
    }

    /// Some more rows; `None` at the end. While the line runs a row may come twice.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>> {
        if self.ended {
            return Ok(None);
        }
        let ask = || self.store.browse(self.shelf, self.from.as_deref());
        let page = persist("browse", &Random::System, ask, |_| ()).await?;
        self.ended = page.next.is_none();
        self.from = page.next;
        Ok(Some(page.rows))
    }
}

/// Reads a ledger to its end, a page at a time.
#[derive(Debug)]
pub struct LedgerRows {
    ledger: SharedLedger,
    from: Option<String>,
    ended: bool,
}

impl LedgerRows {
    /// All rows of the line that `ledger` was opened for.
    pub fn new(ledger: SharedLedger) -> Self {
        Self {
            ledger,
            from: None,
            ended: false,
        }
    }

    /// Some more rows; `None` at the end. While the line runs a row may come twice.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn next(&mut self) -> crate::ledger::Result<Option<Vec<Row>>> {
        if self.ended {
            return Ok(None);
        }
        let ask = || self.ledger.browse(self.from.as_deref());
        let page = persist("browse", &Random::System, ask, |_| ()).await?;
        self.ended = page.next.is_none();
        self.from = page.next;
        Ok(Some(page.rows))
    }
}
