//! What can be wrong with a store, or with who works at several.

use conga::core::partition::OnDead;

use crate::plan::Plan;

/// What is done wrong, mostly by a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The last entry of a batch is not kept.
    LosesAnEntry,
    /// The last message of an answer to a claim is not in the answer.
    LosesAClaim,
    /// What one has another gets too.
    LeasesTwice,
    IgnoresTheWindow,
    /// Owners are taken for dead long before their time.
    FreesEarly,
    /// Owners that are dead are taken to be alive.
    NeverFrees,
    /// Says of what is stale that it counts.
    CallsStaleAccepted,
    /// Lets count what is stale.
    CountsStale,
    ForgetsARecord,
    ForgetsADeadLetter,
    /// Several lead, under the same term.
    LeadsTwice,
    /// A leader that is gone leads on.
    NeverUnlocks,
    IgnoresTheTerm,
    IgnoresTermAndHead,
    /// An output is not handed out.
    HidesAnOutput,
    SwapsOutputs,
    /// What is acknowledged is handed out again.
    KeepsTheAcknowledged,
    /// Delivers a result at once, though what stands before it is not done.
    DeliversPastAGap,
    /// Delivers a result, though its lease is another's by now.
    DeliversStale,
    /// Delivers a result again when its complete is said again.
    DeliversTwice,
    /// Of three completes one delivers nothing: the step is not atomic.
    LosesDeliveries,
    /// Delivers neither with a complete nor with a renewal.
    NeverDelivers,
    RenewsWithoutDelivering,
    /// What has a number and is sent again is appended again.
    AppendsAgain,
    /// Appends what is too much.
    IgnoresTheRoom,
    /// Appends what is too much, and says that it does not.
    AppendsWhatItRefuses,
    /// What a producer's process had on its way counts, though another has begun.
    AcceptsAnOlderSession,
    /// Whoever asks is handed out what there is, and may acknowledge it.
    IgnoresTheReign,
    /// Lets go of a record that is not delivered yet.
    TrimsWhatWaits,
    TrimsOneTooMany,
    /// Takes a line by key for one without order.
    ForgetsTheKeys,
    /// Hands out a message though the one before it of its key is not done.
    HandsOutAKeyAtOnce,
    IgnoresThePause,
    IgnoresTheDrain,
    IgnoresTheRate,
    /// Deletes a dead letter that was to be sent again.
    LosesARetry,
    /// Sends a dead letter again that was to be deleted.
    RetriesWhatIsPurged,
    /// Says of a dead letter that is not there that it was dealt with.
    CallsMissingDone,
    /// Lets a line that is halted go on by itself.
    GoesOnWhenHalted,
    /// What is skipped has its tombstone in its place all the same.
    MarksWhatIsSkipped,
    /// And what is to be marked has none.
    SkipsWhatIsMarked,
    /// Says of what has killed its processors that it has killed none.
    ForgetsCrashes,
    /// Blames all that an owner held for its death.
    BlamesAll,
    /// Blames a message for an owner that has given it back.
    CallsLeavingACrash,
    /// A message stays suspect though its handler has answered.
    KeepsTheSuspicion,
    /// Hands out others beside what is to be alone.
    NeverIsolates,
    MergesUnderAnyTerm,
    /// Takes a merge from any head, and says that it counts.
    MergesAtAnyHead,
    /// What is merged once more comes out once more.
    MergesTwice,
    /// A result whose number was given up comes out when it comes.
    DeliversTheLate,
    /// Keeps no dead letter of it.
    ForgetsThePassed,
    GivesUpAtOnce,
    /// A partition lets go of what has not left.
    AcknowledgesBeyond,
    /// A producer sends each message into the partition of its identity, in a line by key.
    ForgetsWhereKeysGo,
    /// A producer that is started again goes by another order of the partitions.
    SendsAgainElsewhere,
    /// A consumer does not know of the last partition.
    ReceivesFromTooFew,
    /// What is to be alone is so in its own partition, and its process works at others.
    IsolatesInOnePartition,
}

/// What kinds of lines there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ground {
    One,
    /// Several partitions, by key or without order.
    Parted,
    Merged,
}

impl Flaw {
    pub(crate) const ALL: [Self; 57] = [
        Self::LosesAnEntry,
        Self::LosesAClaim,
        Self::LeasesTwice,
        Self::IgnoresTheWindow,
        Self::FreesEarly,
        Self::NeverFrees,
        Self::CallsStaleAccepted,
        Self::CountsStale,
        Self::ForgetsARecord,
        Self::ForgetsADeadLetter,
        Self::LeadsTwice,
        Self::NeverUnlocks,
        Self::IgnoresTheTerm,
        Self::IgnoresTermAndHead,
        Self::HidesAnOutput,
        Self::SwapsOutputs,
        Self::KeepsTheAcknowledged,
        Self::DeliversPastAGap,
        Self::DeliversStale,
        Self::DeliversTwice,
        Self::LosesDeliveries,
        Self::NeverDelivers,
        Self::RenewsWithoutDelivering,
        Self::AppendsAgain,
        Self::IgnoresTheRoom,
        Self::AppendsWhatItRefuses,
        Self::AcceptsAnOlderSession,
        Self::IgnoresTheReign,
        Self::TrimsWhatWaits,
        Self::TrimsOneTooMany,
        Self::ForgetsTheKeys,
        Self::HandsOutAKeyAtOnce,
        Self::IgnoresThePause,
        Self::IgnoresTheDrain,
        Self::IgnoresTheRate,
        Self::LosesARetry,
        Self::RetriesWhatIsPurged,
        Self::CallsMissingDone,
        Self::GoesOnWhenHalted,
        Self::MarksWhatIsSkipped,
        Self::SkipsWhatIsMarked,
        Self::ForgetsCrashes,
        Self::BlamesAll,
        Self::CallsLeavingACrash,
        Self::KeepsTheSuspicion,
        Self::NeverIsolates,
        Self::MergesUnderAnyTerm,
        Self::MergesAtAnyHead,
        Self::MergesTwice,
        Self::DeliversTheLate,
        Self::ForgetsThePassed,
        Self::GivesUpAtOnce,
        Self::AcknowledgesBeyond,
        Self::ForgetsWhereKeysGo,
        Self::SendsAgainElsewhere,
        Self::ReceivesFromTooFew,
        Self::IsolatesInOnePartition,
    ];
}

impl Flaw {
    /// Where it can do something, and has to be found in each: in the partitions of a line some of those that one line can have.
    pub(crate) fn grounds(self) -> &'static [Ground] {
        use Ground::{Merged, One, Parted};
        match self {
            Self::AcknowledgesBeyond
            | Self::DeliversTheLate
            | Self::ForgetsThePassed
            | Self::GivesUpAtOnce
            | Self::MergesAtAnyHead
            | Self::MergesTwice
            | Self::MergesUnderAnyTerm => &[Merged],
            Self::ForgetsWhereKeysGo
            | Self::SendsAgainElsewhere
            | Self::ReceivesFromTooFew
            | Self::IsolatesInOnePartition => &[Parted],
            Self::AcceptsAnOlderSession
            | Self::AppendsAgain
            | Self::ForgetsTheKeys
            | Self::HandsOutAKeyAtOnce
            | Self::IgnoresTheReign
            | Self::KeepsTheAcknowledged
            | Self::LosesARetry => &[One, Parted],
            Self::GoesOnWhenHalted | Self::SkipsWhatIsMarked => &[One, Merged],
            Self::BlamesAll
            | Self::CallsLeavingACrash
            | Self::CountsStale
            | Self::ForgetsCrashes
            | Self::ForgetsADeadLetter
            | Self::IgnoresThePause
            | Self::LeasesTwice
            | Self::LosesAnEntry
            | Self::NeverIsolates => &[One, Parted, Merged],
            _ => &[One],
        }
    }

    /// Whether it can do something on such a line at all.
    pub(crate) fn has_work(self, plan: &Plan) -> bool {
        let poison = &plan.poison;
        match self {
            Self::IsolatesInOnePartition => poison.numbers.len() > 1 && poison.max_crashes < 7,
            Self::BlamesAll | Self::ForgetsCrashes | Self::KeepsTheSuspicion | Self::NeverIsolates => {
                !poison.numbers.is_empty()
            }
            Self::GoesOnWhenHalted | Self::SkipsWhatIsMarked => poison.on_dead == OnDead::Halt,
            Self::LosesARetry => !plan.commands.is_empty(),
            _ => true,
        }
    }
}
