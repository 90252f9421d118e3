//! Redis as it is run in production: restarts, failovers, slots that move, and all that a server may refuse for a while,
//! under load and with the real services. Nothing may be lost, doubled or out of place, and the line has to go on soon
//! after. How soon is printed; the figures are in docs/adr/0009.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../cli/src/bench/redis_ask.rs"]
mod redis_ask;
#[path = "../../../cli/src/bench/redis_cluster.rs"]
mod redis_cluster;
#[path = "../../../cli/src/bench/redis_sentinel.rs"]
mod redis_sentinel;
#[path = "../../../cli/src/bench/redis_server.rs"]
mod redis_server;

mod back;
mod cluster;
mod cost;
mod flow;
mod hints;
mod sentinel;
mod server;
