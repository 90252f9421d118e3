//! Send: a plain LPUSH, as any producer does it, and a hint; of those who number their messages, the call of `send.lua`.
//! Where replicas are waited for, that too.

use bytes::Bytes;
use conga_core::partition::{FORGOTTEN_AT_ONCE, KEPT_US, Numbered, Sent, Session};

use super::reply::Items;
use super::{RedisStore, script, whole};
use crate::store::{Result, StoreError};
use crate::wake::Topic;

impl RedisStore {
    pub(super) async fn push_entries(&self, entries: &[Bytes]) -> Result<Sent> {
        if entries.is_empty() {
            return Ok(Sent::UNNUMBERED);
        }
        if self.lacks_replicas() {
            // What is sent again and again while replicas are missing would be there again and again.
            let node = self.connection.current().await?;
            let there = self.settle(Some(node)).await;
            there.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        }
        // One command for all of them: all or none.
        let mut push = ::redis::cmd("LPUSH");
        push.arg(&self.keys.input);
        for entry in entries {
            push.arg(&entry[..]);
        }
        let mut hint = ::redis::cmd(self.hints.channels().publish());
        hint.arg(self.keys.wake(Topic::Input)).arg("");
        // Both go at once. What becomes of the hint is not what became of the messages.
        let (pushed, _) = tokio::join!(self.ask_traced(&push), self.ask(&hint));
        self.settle(pushed?.1).await?;
        Ok(Sent::UNNUMBERED)
    }

    pub(super) async fn push_numbered(&self, numbered: &Numbered, entries: &[Bytes]) -> Result<Sent> {
        let keys = &self.keys;
        let mut call = script::SEND.call(&[
            &keys.input,
            &keys.producers,
            &keys.heard,
            keys.wake(Topic::Input),
            &keys.meta,
        ]);
        call.arg(self.time())
            .arg(numbered.producer.as_str())
            .arg(whole(numbered.session.number))
            .arg(numbered.session.process)
            .arg(whole(numbered.first))
            .arg(numbered.mark)
            .arg(KEPT_US)
            .arg(FORGOTTEN_AT_ONCE)
            .arg(numbered.max_waiting.map_or_else(String::new, |most| most.to_string()));
        for entry in entries {
            call.arg(&entry[..]);
        }
        let (reply, node) = self.run_traced(&script::SEND, &call).await?;
        // Even if nothing is new: an earlier one, whose answer was lost, may have appended it.
        self.settle(node).await?;
        let mut reply = Items::of(reply)?;
        Ok(match reply.text()?.as_str() {
            "accepted" => Sent::Accepted {
                last: reply.number()?,
                mark: reply.number()?,
            },
            "full" => Sent::Full {
                waiting: reply.number()?,
                last: reply.number()?,
            },
            "missing" => Sent::Missing { from: reply.number()? },
            _ => Sent::Replaced {
                session: Session {
                    number: reply.number()?,
                    process: reply.number()?,
                },
            },
        })
    }
}
