//! A consumer as a stream of batches.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::future::BoxFuture;
use tokio::sync::Mutex;

use super::{Batch, Consumer};
use crate::store::Result;

/// The batches of a line's output, as a [`Stream`] that ends with the first error. What is not acknowledged by
/// [`Batches::acknowledge`] before the next batch is asked for comes again.
///
/// Dropping a wait for the next batch loses nothing; dropping this is as dropping the consumer.
pub struct Batches {
    /// Nobody else has it for longer than a poll of `asking`.
    consumer: Arc<Mutex<Consumer>>,
    asking: Option<BoxFuture<'static, Result<Batch>>>,
    max: usize,
    is_over: bool,
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// The same as a stream of batches of at most `max` outputs.
    pub fn into_stream(self, max: usize) -> Batches {
        Batches {
            consumer: Arc::new(Mutex::new(self)),
            asking: None,
            max,
            is_over: false,
        }
    }
}

impl Batches {
    /// As [`Consumer::acknowledge`].
    pub fn acknowledge(&mut self, batch: &Batch) {
        // What is on its way may be of this batch. It is asked for again.
        self.asking = None;
        if let Ok(mut consumer) = self.consumer.try_lock() {
            consumer.acknowledge(batch);
        }
    }

    /// As [`Consumer::finish`].
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn finish(mut self) -> Result<()> {
        self.asking = None;
        match Arc::into_inner(self.consumer) {
            Some(consumer) => consumer.into_inner().finish().await,
            None => Ok(()),
        }
    }
}

impl Stream for Batches {
    type Item = Result<Batch>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let (consumer, max) = (self.consumer.clone(), self.max);
        let ask =
            || -> BoxFuture<'static, Result<Batch>> { Box::pin(async move { consumer.lock().await.next(max).await }) };
        let mut asking = self.asking.take().unwrap_or_else(ask);
        match asking.as_mut().poll(cx) {
            Poll::Pending => {
                self.asking = Some(asking);
                Poll::Pending
            }
            Poll::Ready(batch) => {
                self.is_over = batch.is_err();
                Poll::Ready(Some(batch))
            }
        }
    }
}
