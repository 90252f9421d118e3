//! Dead letters: what a person does about messages that failed for good.

use conga_core::lease::Attempt;
use conga_core::message::{Id, Position};
use conga_core::partition::{DeadRequest, Judged, Row, Shelf, Verdict};
use conga_core::time::Micros;

use crate::persist::persist;
use crate::random::Random;
use crate::record::Rows;
use crate::store::{Result, SharedStore};

/// So many go together in one step, so that no other step waits for long.
const TOGETHER: usize = 100;

/// The dead letters of a line. Clones are the same.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    store: SharedStore,
}

/// What is known of one, without its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where it stood in the order.
    pub position: Position,
    /// The message's id.
    pub id: Id,
    /// Why it failed for good.
    pub reason: String,
    /// How often it was tried.
    pub attempts: Attempt,
    /// When it was given up.
    pub died: Micros,
    /// The line is halted at it.
    pub is_halted: bool,
}

impl DeadLetter {
    /// Reads what [`conga_core::partition::write_dead_letter`] wrote; nothing, where it is something else.
    pub fn read(row: &Row) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Written {
            position: u64,
            reason: String,
            attempts: u32,
            died: String,
            #[serde(default)]
            halted: bool,
        }
        let written: Written = serde_json::from_slice(&row.json).ok()?;
        Some(Self {
            position: Position(written.position),
            id: row.id.clone(),
            reason: written.reason,
            attempts: Attempt(written.attempts),
            died: Micros::parse(&written.died).ok()?,
            is_halted: written.halted,
        })
    }
}

impl DeadLetters {
    /// Those of the line that `store` was opened for.
    pub fn new(store: SharedStore) -> Self {
        Self { store }
    }

    /// All of them, page by page, with their entries.
    pub fn rows(&self) -> Rows {
        Rows::new(self.store.clone(), Shelf::Dead)
    }

    /// All of them without their entries, in the order in which they died. Takes memory for each, some hundred bytes.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn list(&self) -> Result<Vec<DeadLetter>> {
        let mut rows = self.rows();
        let mut letters = Vec::new();
        while let Some(page) = rows.next().await? {
            letters.extend(page.iter().filter_map(DeadLetter::read));
        }
        letters.sort_by_key(|letter| (letter.died, letter.position));
        letters.dedup_by_key(|letter| letter.position);
        Ok(letters)
    }

    /// The one of a position, with its entry, as [`conga_core::partition::write_dead_letter`] writes it.
    ///
    /// # Errors
    /// Only what no repetition can help.
    pub async fn find(&self, position: Position) -> Result<Option<Row>> {
        let mut rows = self.rows();
        while let Some(page) = rows.next().await? {
            let is_it = |row: &Row| DeadLetter::read(row).is_some_and(|letter| letter.position == position);
            if let Some(row) = page.into_iter().find(is_it) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    /// Sends the messages of these dead letters again, in this order: each becomes a new message at the end of the input,
    /// with its entry as it was, and its dead letter goes in the same step. So it keeps the id that it was given; one
    /// without has its new position for an id. One at which the line is halted is tried again in its own place, as often as
    /// if it were new. One answer for each position.
    ///
    /// Repeated until the store answers. What an earlier call has done, whose reply was lost, is [`Judged::Missing`] then.
    ///
    /// # Errors
    /// Only what no repetition can help.
    ///
    /// # Cancellation
    /// May be dropped at any time; then some of them, the first ones, may have been sent.
    pub async fn retry(&self, positions: &[Position]) -> Result<Vec<Judged>> {
        self.judge(Verdict::Retry, positions).await
    }

    /// Has the line that is halted at these go on, with nothing in their place in the output, or with their tombstones if they
    /// are to be `marked`. They stay as dead letters. Otherwise as [`DeadLetters::retry`]; what an earlier call has done is
    /// [`Judged::Passed`] then.
    ///
    /// In a partition of a merged line they have to be marked: who merges waits for each number.
    ///
    /// # Errors
    /// Only what no repetition can help.
    ///
    /// # Cancellation
    /// May be dropped at any time; then the line may go on past some of them, the first ones.
    pub async fn skip(&self, positions: &[Position], marked: bool) -> Result<Vec<Judged>> {
        let verdict = if marked { Verdict::Mark } else { Verdict::Skip };
        self.judge(verdict, positions).await
    }

    /// Deletes these dead letters. Otherwise as [`DeadLetters::retry`].
    ///
    /// # Errors
    /// Only what no repetition can help.
    ///
    /// # Cancellation
    /// May be dropped at any time; then some of them, the first ones, may have gone.
    pub async fn purge(&self, positions: &[Position]) -> Result<Vec<Judged>> {
        self.judge(Verdict::Purge, positions).await
    }

    async fn judge(&self, verdict: Verdict, positions: &[Position]) -> Result<Vec<Judged>> {
        let mut answers = Vec::with_capacity(positions.len());
        for some in positions.chunks(TOGETHER) {
            let positions = some.to_vec();
            let request = DeadRequest { verdict, positions };
            let ask = || self.store.dead(&request);
            answers.extend(persist("dead", &Random::System, ask, |_| ()).await?);
        }
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use conga_core::partition::write_dead_letter;

    use super::*;

    #[test]
    fn what_a_store_wrote_is_read_again() {
        let (id, died) = (Id::given("a\"b"), Micros(1_767_323_045_123_456));
        for entry in [&b"plain"[..], b"{\"payload\":1}", b"\xff"] {
            let json = write_dead_letter(
                Position(7),
                &id,
                "no \"way\"\n",
                Attempt(5),
                died,
                entry,
                entry == b"\xff",
            );
            let row = Row {
                id: id.clone(),
                json: json.into(),
            };
            let letter = DeadLetter::read(&row).expect("a letter");
            assert_eq!((letter.position, letter.attempts), (Position(7), Attempt(5)));
            assert_eq!((letter.reason.as_str(), letter.died), ("no \"way\"\n", died));
            assert_eq!(letter.is_halted, entry == b"\xff");
        }
        let json = Bytes::from("{}");
        assert_eq!(DeadLetter::read(&Row { id, json }), None);
    }
}
