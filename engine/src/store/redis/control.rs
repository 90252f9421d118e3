//! Control: the call of `control.lua`.

use conga_core::partition::{Control, ControlRequest, Flow, Rate};
use conga_core::time::Micros;

use super::reply::Items;
use super::{RedisStore, script};
use crate::store::Result;
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn set_control(&self, request: &ControlRequest) -> Result<Control> {
        let keys = &self.keys;
        let mut call = script::CONTROL.call(&[
            &keys.meta,
            &keys.flight,
            &keys.owners,
            &keys.delayed,
            &keys.lock,
            keys.wake(Topic::Input),
        ]);
        let (what, value) = match request {
            ControlRequest::Flow(flow) => ("flow", flow.name().to_owned()),
            ControlRequest::Settle => ("settle", String::new()),
            ControlRequest::Rate(None) => ("rate", String::new()),
            ControlRequest::Rate(Some(rate)) => ("rate", rate.interval_ns().to_string()),
        };
        call.arg(self.time()).arg(what).arg(value);
        let (reply, node) = self.run_traced(&script::CONTROL, &call).await?;
        self.settle(node).await?;
        read(&mut Items::of(reply)?)
    }
}

/// The flow, since when, and the interval of the rate or nothing.
pub(super) fn read(reply: &mut Items) -> Result<Control> {
    Ok(Control {
        // What a later version may have written here stops this one, which is the safe side.
        flow: Flow::of_name(&reply.text()?).unwrap_or(Flow::Paused),
        since: Micros(reply.number()?),
        rate: (reply.optional_text()?)
            .and_then(|interval| interval.parse().ok())
            .and_then(Rate::every_ns),
    })
}
