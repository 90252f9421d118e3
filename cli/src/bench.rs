//! What measures: processes, load, collection, judgement, figures and pictures.

pub(crate) mod collect;
pub(crate) mod fleet;
pub(crate) mod judge;
pub(crate) mod load;
pub(crate) mod page;
pub(crate) mod picture;
pub(crate) mod place;
pub(crate) mod stages;
