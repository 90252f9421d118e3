//! What a store does wrong with what people say: what order a line keeps, how it is controlled, what becomes of the dead.

use conga::core::partition::{Completion, Control, ControlRequest, DeadRequest, Flow, Judged, OnDead, Verdict};
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
        let shape = wanted.zip(order).map(|(wanted, order)| Shape { order, ..wanted });
        self.inner.shape(shape).await
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

    pub(super) fn made_wrong(&self, completions: &[Completion]) -> Vec<Completion> {
        let mut completions = completions.to_vec();
        for completion in &mut completions {
            if let Completion::Dead { on_dead, .. } = completion
                && self.has(Flaw::GoesOnWhenHalted)
            {
                *on_dead = OnDead::Skip;
            }
        }
        completions
    }

    pub(super) async fn judge_wrongly(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let mut request = request.clone();
        if self.has(Flaw::LosesARetry) {
            request.verdict = Verdict::Purge;
        }
        if self.has(Flaw::RetriesWhatIsPurged) {
            request.verdict = Verdict::Retry;
        }
        if self.has(Flaw::MarksWhatIsSkipped) && request.verdict == Verdict::Skip {
            request.verdict = Verdict::Mark;
        }
        if self.has(Flaw::SkipsWhatIsMarked) && request.verdict == Verdict::Mark {
            request.verdict = Verdict::Skip;
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
