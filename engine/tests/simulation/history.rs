//! What happened, in its order. Written as it happens, judged and put into words afterwards.

use std::fmt::{self, Write as _};
use std::time::Duration;

use bytes::Bytes;
use conga::core::lease::{Held, OwnerId};
use conga::core::message::Position;
use conga::core::partition::{
    Completed, Control, ControlRequest, DeadRequest, Emitted, Judged, Merged, OnDead, ProducerId, Row, Session, Status,
};
use conga::core::term::{Campaign, Reign, Role as Seat, Term};
use conga::core::time::Micros;

use crate::plan::Role;

/// A process: its role, which of that role, and the how manieth that runs in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(crate) role: Role,
    pub(crate) number: usize,
    pub(crate) life: u32,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { role, number, life } = self;
        write!(f, "{role:?}-{number}.{life}")
    }
}

/// How its reason begins, where a message is given up for its crashes.
pub(crate) const DIED: &str = "its processor died ";

/// How a lease was to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    Dead {
        on_dead: OnDead,
        /// For its crashes, and not for what its handler said.
        by_crashes: bool,
    },
    /// It has failed, and is to be tried again.
    Retry,
    GivenBack,
}

/// What a call met on its way, other than a smooth one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refused,
    Lost,
    Late,
    Repeated,
    Crawling,
    CutOff,
    CutShort,
}

/// Where the head was before a step and is after it, which is where it was if nothing was ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from: Position,
    pub(crate) to: Position,
}

/// What a handler came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Result,
    Failure,
    Panic,
    /// Its process was gone before it was done.
    Dropped,
}

/// One thing that happened. The steps are seen where they are done, at the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Happened {
    Sent {
        /// Who numbers them, in which session, if they are.
        producer: Option<(ProducerId, Session)>,
        entries: Vec<Bytes>,
        /// How many wait to be claimed then.
        waiting: u64,
    },
    /// A send was refused, for too many messages would wait.
    Full,
    /// A producer, by its number, was refused messages, and does not send them again: by their places in what it has to send.
    LeftOut {
        producer: usize,
        places: Vec<usize>,
    },
    /// A send of an earlier session was refused; of how many messages, and which is the latest.
    Replaced {
        producer: ProducerId,
        session: Session,
        messages: usize,
        latest: Session,
    },
    Claimed {
        owner: OwnerId,
        lease_us: u64,
        claims: Vec<Held>,
        /// How often those of them were blamed that were.
        blamed: Vec<(Position, u32)>,
    },
    Completed {
        owner: OwnerId,
        ends: Vec<(Held, Ending, Completed)>,
        /// What the store was to deliver in this step, if it was.
        delivered: Option<Moved>,
    },
    Renewed {
        owner: OwnerId,
        lease_us: u64,
        known: bool,
        found: Vec<Held>,
        /// As with a complete.
        delivered: Option<Moved>,
    },
    Campaigned {
        role: Seat,
        owner: OwnerId,
        lock_us: u64,
        answer: Campaign,
    },
    Followed {
        head: Position,
        count: usize,
    },
    /// A leader begins to deliver: the call leaves the process.
    Emits {
        term: Term,
    },
    Emitted {
        term: Term,
        from: Position,
        answer: Emitted,
    },
    Merged {
        term: Term,
        /// What the caller took for the head.
        from: Position,
        /// The places of what it told of as late.
        late: Vec<Position>,
        gives_up: bool,
        /// Where the head really was, and is.
        moved: Moved,
        answer: Merged,
    },
    Received {
        reign: Option<Reign>,
        acknowledged: Option<Position>,
        outputs: Vec<Bytes>,
    },
    /// A consumer was fenced off: another reign is the latest.
    Refused {
        reign: Option<Reign>,
        term: Term,
    },
    Controlled {
        request: ControlRequest,
        control: Control,
    },
    /// A person has judged dead letters.
    Judged {
        request: DeadRequest,
        answers: Vec<Judged>,
        /// As with a complete.
        delivered: Option<Moved>,
    },
    Met {
        verb: &'static str,
        trouble: Trouble,
    },
    HintLost,
    Started,
    Crashed,
    Paused {
        length: Duration,
    },
    ClockJumped,
    ToldToEnd,
    Ended,
    /// What must not be.
    Wrong {
        what: String,
    },
    Begins {
        held: Held,
    },
    Ends {
        held: Held,
        outcome: Outcome,
    },
    /// A message ends the process that handles it.
    Kills {
        held: Held,
    },
    /// A consumer has written these down.
    Wrote {
        outputs: Vec<Bytes>,
    },
    /// Nothing goes wrong any more.
    Healed,
    /// Nor is anything on its way any more from before.
    Settled,
}

/// What is in the line when all is over.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) record: Vec<Row>,
    pub(crate) dead: Vec<Row>,
    pub(crate) status: Status,
}

/// One thing that happened, and when.
#[derive(Debug, Clone)]
pub(crate) struct Noted {
    /// By the clock of the store where it happened.
    pub(crate) at: Micros,
    /// Since the beginning of the run.
    pub(crate) elapsed: Duration,
    /// In which store.
    pub(crate) site: usize,
    pub(crate) who: Option<Who>,
    pub(crate) what: Happened,
}

/// A whole run.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) happened: Vec<Noted>,
    /// Of each store, if the run came to its end.
    pub(crate) rest: Vec<Rest>,
}

impl History {
    /// A line each. The same run gives the same text, byte for byte.
    pub(crate) fn text(&self) -> String {
        self.last(usize::MAX)
    }

    /// The last `count` lines of it.
    pub(crate) fn last(&self, count: usize) -> String {
        let mut text = String::new();
        for noted in &self.happened[self.happened.len().saturating_sub(count)..] {
            let Noted {
                at,
                elapsed,
                site,
                who,
                what,
            } = noted;
            let who = who.map_or_else(|| "-".to_owned(), |who| who.to_string());
            writeln!(text, "{:>9} {site}@{:<9} {who:<14} {what:?}", elapsed.as_micros(), at.0).unwrap();
        }
        for rest in &self.rest {
            writeln!(text, "{rest:#?}").unwrap();
        }
        text
    }
}
