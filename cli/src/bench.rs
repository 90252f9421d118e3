//! What measures: processes, load, collection, judgement, figures and pictures.

pub(crate) mod account;
pub(crate) mod broken;
pub(crate) mod collect;
pub(crate) mod fleet;
pub(crate) mod ground;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod network;
pub(crate) mod page;
pub(crate) mod part;
pub(crate) mod picture;
pub(crate) mod place;
pub(crate) mod plot;
pub(crate) mod proxy;
pub(crate) mod redis_ask;
pub(crate) mod redis_cluster;
pub(crate) mod redis_sentinel;
pub(crate) mod redis_server;
pub(crate) mod sheet;
pub(crate) mod stages;
pub(crate) mod trial;
pub(crate) mod usage;
pub(crate) mod witness;
pub(crate) mod yardstick;
