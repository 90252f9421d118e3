//! Shape: what the line is, told once.

use super::Partition;
use crate::message::Position;
use crate::shape::Shape;

impl Partition {
    /// What this is of which a partition. A wish counts where nothing else was set before, and nothing depends on it yet.
    pub fn shape(&mut self, wanted: Option<Shape>) -> Option<Shape> {
        let has_claimed = self.next > Position::FIRST;
        let shape = Shape::settle(self.shape, wanted, has_claimed, !self.entries.is_empty());
        if wanted.is_some() {
            self.shape = shape;
        }
        shape
    }
}
