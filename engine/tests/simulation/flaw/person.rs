//! What a store does wrong with what people say: what order a line keeps, how it is controlled, what becomes of the dead.

use conga::core::partition::{Control, ControlRequest, DeadRequest, Flow, Judged, Verdict};
use conga::core::shape::{Order, Shape};
use conga::store::{Result, Store as _};

use super::{Flaw, Flawed};

impl Flawed {
    pub(super) async fn shape_wrongly(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        let order = match wanted.map(|wanted| wanted.order) {
            Some(Order::Key { .. }) if self.has(Flaw::ForgetsTheKeys) => Some(Order::None),
            Some(Order::Key { .. }) if self.has(Flaw::HandsOutAKeyAtOnce) => Some(Order::Key { serial: false }),
            order => order,
        };
        self.inner.shape(order.map(Shape::of)).await
    }

    /// Says that it did, and does not.
    pub(super) async fn control_wrongly(&self, request: &ControlRequest) -> Result<Control> {
        let ignores = match *request {
            ControlRequest::Flow(Flow::Paused) => self.has(Flaw::IgnoresThePause),
            ControlRequest::Flow(Flow::Draining) => self.has(Flaw::IgnoresTheDrain),
            ControlRequest::Rate(rate) => self.has(Flaw::IgnoresTheRate) && rate.is_some(),
            _ => false,
        };
        if !ignores {
            return self.inner.control(request).await;
        }
        let mut control = self.inner.status().await?.control;
        match *request {
            ControlRequest::Flow(flow) => control.flow = flow,
            ControlRequest::Rate(rate) => control.rate = rate,
            ControlRequest::Settle => {}
        }
        Ok(control)
    }

    pub(super) async fn judge_wrongly(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let mut request = request.clone();
        if self.has(Flaw::LosesARetry) {
            request.verdict = Verdict::Purge;
        }
        if self.has(Flaw::RetriesWhatIsPurged) {
            request.verdict = Verdict::Retry;
        }
        let mut answers = self.inner.dead(&request).await?;
        for answer in answers.iter_mut().filter(|answer| **answer == Judged::Missing) {
            if self.has(Flaw::CallsMissingDone) {
                *answer = Judged::Done;
            }
        }
        Ok(answers)
    }
}
