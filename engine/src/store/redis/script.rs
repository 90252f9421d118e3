//! The scripts: one Lua file a verb, each behind the common prelude.

use std::sync::OnceLock;

use ::redis::{Cmd, Pipeline};

/// One verb's script.
#[derive(Debug)]
pub(super) struct Script {
    source: &'static str,
    sha: OnceLock<String>,
}

macro_rules! script {
    ($($file:literal),+) => {
        Script {
            source: concat!(include_str!("prelude.lua"), $(include_str!($file)),+),
            sha: OnceLock::new(),
        }
    };
}

pub(super) static SEND: Script = script!("send.lua");
pub(super) static CLAIM: Script = script!("key.lua", "claim.lua");
pub(super) static COMPLETE: Script = script!("in_place.lua", "complete.lua");
pub(super) static RENEW: Script = script!("renew.lua");
pub(super) static CAMPAIGN: Script = script!("campaign.lua");
pub(super) static EMIT: Script = script!("emit.lua");
pub(super) static MERGE: Script = script!("merge.lua");
pub(super) static RECEIVE: Script = script!("receive.lua");
pub(super) static TRIM: Script = script!("trim.lua");
pub(super) static CONTROL: Script = script!("control.lua");
pub(super) static DEAD: Script = script!("dead.lua");
pub(super) static STATUS: Script = script!("status.lua");
pub(super) static SHAPE: Script = script!("shape.lua");
pub(super) static SYNC: Script = script!("sync.lua");

/// All of them, to be loaded at once.
static ALL: [&Script; 14] = [
    &SEND, &CLAIM, &COMPLETE, &RENEW, &TRIM, &CAMPAIGN, &EMIT, &MERGE, &RECEIVE, &CONTROL, &DEAD, &STATUS, &SHAPE,
    &SYNC,
];

/// Makes all scripts known to the server.
pub(super) fn load_all() -> Pipeline {
    let mut loads = ::redis::pipe();
    for script in ALL {
        loads.add_command(script.load());
    }
    loads
}

impl Script {
    /// The beginning of a call with these keys. The script's arguments follow, the time first.
    pub(super) fn call(&self, keys: &[&str]) -> Cmd {
        let sha = self
            .sha
            .get_or_init(|| ::redis::Script::new(self.source).get_hash().to_owned());
        let mut call = ::redis::cmd("EVALSHA");
        call.arg(sha).arg(keys.len()).arg(keys);
        call
    }

    /// Makes the script known to the server. A server forgets it when it restarts, or on SCRIPT FLUSH.
    pub(super) fn load(&self) -> Cmd {
        let mut load = ::redis::cmd("SCRIPT");
        load.arg("LOAD").arg(self.source);
        load
    }
}
