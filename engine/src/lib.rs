//! Conga: messages processed in parallel across processes, delivered in total order, each exactly once.
//!
//! The modules stand in the order in which data flows: [`send`] → [`claim`] → [`process`] → [`record`] →
//! [`sequence`] → [`deliver`]. A line lives in a [`store::Store`]; the services ask it for one atomic step at a time.

pub use conga_core as core;

pub mod send;

pub mod claim;
pub mod process;

pub mod record;

pub mod lead;
pub mod sequence;

pub mod deliver;

pub mod clock;
pub mod line;
pub mod store;
pub mod wake;

mod pace;
mod persist;
