//! What can go wrong with a ledger, told apart by what the caller can do.

use crate::persist::Trouble;
use crate::store::StoreError;

/// Why a verb has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// Nothing was changed. Try again, after a pause.
    #[error("the system of record is not available: {0}")]
    Unavailable(String),
    /// It may be recorded or not. Ask again.
    #[error("the system of record did not answer, so it is not known what is recorded: {0}")]
    Unknown(String),
    /// It can't work like this, however often it is tried. A person has to do something; the text says what.
    #[error("{0}")]
    Broken(String),
}

impl LedgerError {
    /// Whether trying again can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }
}

impl Trouble for LedgerError {
    const WHO: &'static str = "the system of record";

    fn is_passing(&self) -> bool {
        self.is_passing()
    }
}

/// What a service ends with has one type, whichever of the two it could not do without.
impl From<LedgerError> for StoreError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Unavailable(why) => Self::Unavailable(why),
            LedgerError::Unknown(why) => Self::Unknown(why),
            LedgerError::Broken(why) => Self::Broken(why),
        }
    }
}

impl From<StoreError> for LedgerError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(why) => Self::Unavailable(why),
            StoreError::Unknown(why) => Self::Unknown(why),
            StoreError::Broken(why) => Self::Broken(why),
            StoreError::Full { .. } | StoreError::Closed => Self::Broken(error.to_string()),
        }
    }
}
