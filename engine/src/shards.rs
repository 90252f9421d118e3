//! Shards: a line of several partitions. Each is a store of its own, where all of its messages live, and nothing but the
//! producers' routing ([`conga_core::route`]) makes them one line: so it grows with the servers that they are spread over.
//!
//! With one partition all of this is what the plain services are.

use std::sync::Arc;

use conga_core::partition::Status;
use conga_core::route::{By, Router};
use conga_core::shape::{Order, Shape};
use futures_util::future::try_join_all;

use crate::line::Line;
use crate::store::{Delivery, OpenOptions, Result, SharedStore, StoreUrl, erase, open_with};

mod deliver;
mod merge;
mod process;
mod send;

pub use deliver::{Consumers, Portion};
pub use merge::{Merger, MergerOptions, OnGap};
pub use process::Processors;
pub use send::{AnotherInput, Lines, Producers, Refused};

/// The partitions of a line.
#[derive(Debug, Clone)]
pub struct Shards {
    /// The line by its own name: of several partitions it is none, but has what the line is.
    base: SharedStore,
    partitions: Arc<[SharedStore]>,
    router: Router,
}

impl Shards {
    /// Opens `line` with all partitions that it has, as its shape says, or becomes by [`OpenOptions::shape`].
    ///
    /// # Errors
    /// As [`crate::store::open_with`].
    ///
    /// # Cancellation
    /// As [`crate::store::open_with`].
    pub async fn open(url: &StoreUrl, line: &Line, options: &OpenOptions) -> Result<Self> {
        let base = open_with(url, line, options).await?;
        Self::beside(base, url, line, options).await
    }

    /// The same, where the line by its own name is open already.
    ///
    /// # Errors
    /// As [`crate::store::open_with`].
    ///
    /// # Cancellation
    /// As [`crate::store::open_with`].
    pub async fn beside(base: SharedStore, url: &StoreUrl, line: &Line, options: &OpenOptions) -> Result<Self> {
        let shape = base.shape(None).await?.unwrap_or_default();
        if shape.partitions.get() == 1 {
            return Ok(Self::one(base));
        }
        let router = router(shape);
        let options = OpenOptions {
            shape: Some(Shape::of(shape.order)),
            // Where there is a leader, it merges.
            delivery: if shape.is_merged() {
                Delivery::Store
            } else {
                options.delivery
            },
            ..options.clone()
        };
        let lines: Vec<Line> = parts(line, shape).collect();
        let partitions = try_join_all(lines.iter().map(|line| open_with(url, line, &options))).await?;
        Ok(Self::of(base, partitions, router.by()))
    }

    /// A line of one partition.
    pub fn one(store: SharedStore) -> Self {
        Self::of(store.clone(), vec![store], By::Key)
    }

    /// A line of these partitions, in their order. `base` is the line by its own name.
    pub fn of(base: SharedStore, partitions: Vec<SharedStore>, by: By) -> Self {
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        Self {
            base,
            partitions: partitions.into(),
            router: Router::new(by, count),
        }
    }

    /// The line by its own name: of one partition that one.
    pub fn base(&self) -> &SharedStore {
        &self.base
    }

    /// The partitions, in their order.
    pub fn partitions(&self) -> &[SharedStore] {
        &self.partitions
    }

    /// How each of them stands.
    ///
    /// # Errors
    /// As any verb of a store; of each partition or of none.
    pub async fn status(&self) -> Result<Vec<Status>> {
        try_join_all(self.partitions.iter().map(|store| store.status())).await
    }

    /// How messages come to them.
    pub fn router(&self) -> Router {
        self.router
    }

    /// Whether they are put in one order by a leader that merges them ([`Merger`]): then the outputs are those of the base.
    pub fn are_merged(&self) -> bool {
        self.are_several() && self.router.by() == By::Sequence
    }

    /// Where the outputs are: in the partitions, or merged in the base.
    pub fn outlets(&self) -> &[SharedStore] {
        if self.are_merged() {
            std::slice::from_ref(&self.base)
        } else {
            &self.partitions
        }
    }

    /// Whether there are several.
    pub fn are_several(&self) -> bool {
        self.partitions.len() > 1
    }
}

/// How messages come to the partitions of a line of this shape.
pub fn router(shape: Shape) -> Router {
    let by = match shape.order {
        Order::Key { .. } => By::Key,
        Order::None => By::Identity,
        Order::Total => By::Sequence,
    };
    Router::new(by, shape.partitions.get().into())
}

/// The partitions of a line that has several: lines of their own.
pub fn parts(line: &Line, shape: Shape) -> impl Iterator<Item = Line> {
    let partitions = match shape.partitions.get() {
        1 => 0,
        several => several,
    };
    (0..partitions).map(|partition| line.partition(partition.into()))
}

/// Removes a line with all its partitions from the store at `url`. Not for a line at which anybody works.
///
/// # Errors
/// As [`crate::store::open`].
///
/// # Cancellation
/// Some partitions are then gone, and the line is there still: do it again.
pub async fn erase_all(url: &StoreUrl, line: &Line) -> Result<()> {
    let base = open_with(url, line, &OpenOptions::default()).await?;
    let shape = base.shape(None).await?.unwrap_or_default();
    drop(base);
    for part in parts(line, shape) {
        erase(url, &part).await?;
    }
    // Last, for it is what knows of the others.
    erase(url, line).await
}
