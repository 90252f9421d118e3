//! What can go wrong with a store, told apart by what the caller can do.

/// Why a verb has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nothing was changed. Try again, after a pause.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// The step may have happened or not. Repeat it, or ask.
    #[error("the store did not answer, so it is not known whether the step was done: {0}")]
    Unknown(String),
    /// Nothing was sent, for more messages would wait than may. There is room when processors have taken some.
    #[error("the line is full: {waiting} messages wait to be processed, and no more than {most} may")]
    Full {
        /// How many wait.
        waiting: u64,
        /// How many may.
        most: u64,
    },
    /// It can't work like this, however often it is tried. A person has to do something; the text says what.
    #[error("{0}")]
    Broken(String),
    /// The store was closed by this process.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether trying again can help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Unknown(_))
    }
}
