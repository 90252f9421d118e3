//! The rules of Conga, without I/O, clock, async or randomness.
//!
//! Everything that decides where a message may stand, who may move it and what comes out in which order is
//! here and only here. The memory store runs [`partition::Partition`] directly; the SQL of the `SQLite` store and
//! the Lua of the Redis store are held to it by the contract suite.

pub mod invariant;
pub mod lease;
pub mod lifecycle;
pub mod merge;
pub mod message;
pub mod partition;
pub mod retry;
pub mod route;
pub mod sequencer;
pub mod shape;
pub mod term;
pub mod time;
