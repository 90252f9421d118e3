//! The suite itself is tested: a store that breaks a law must not get through.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use conga::clock::{Clock, ManualClock};
use conga::core::lease::OwnerId;
use conga::core::partition::{
    CampaignRequest, Claim, ClaimRequest, Completed, Completion, Control, ControlRequest, Cursor, DeadRequest,
    EmitRequest, Emitted, Flow, Followed, Judged, Keep, MergeRequest, Merged, Numbered, OnDead, Page, ReceiveRequest,
    Received, RenewRequest, Renewed, Sent, Session, Shelf, Status, Verdict,
};
use conga::core::shape::{Order, Shape};
use conga::core::term::{Campaign, Reign, Role};
use conga::store::memory::MemoryStore;
use conga::store::{Delivery, Result, Store};
use conga::wake::Wakes;
use futures_util::FutureExt;

use crate::pair::Pair;
use crate::{Fixture, Opened, random};

/// Which law is broken.
const ACCEPTS_STALE: u8 = 0;
const IGNORES_THE_TERM: u8 = 1;
const IGNORES_THE_WINDOW: u8 = 2;
const KEEPS_WHO_LEAVES: u8 = 3;
const DELIVERS_AGAIN: u8 = 4;
const FORGETS_A_MESSAGE: u8 = 5;
const APPENDS_AGAIN: u8 = 6;
const IGNORES_THE_REIGN: u8 = 7;
const ACCEPTS_AN_OLDER_SESSION: u8 = 8;
const IGNORES_A_FULL_LINE: u8 = 24;
const IGNORES_A_BOUND: u8 = 25;
const TRIMS_ONE_TOO_MANY: u8 = 9;
const TRIMS_WHAT_WAITS: u8 = 10;
const NEVER_TRIMS: u8 = 11;
const IGNORES_KEYS: u8 = 12;
const HANDS_OUT_TWO_OF_A_KEY: u8 = 13;
const KEEPS_AN_ORDER: u8 = 14;
const IGNORES_A_PAUSE: u8 = 15;
const HANDS_OUT_NEW_WHILE_DRAINING: u8 = 16;
const IGNORES_THE_RATE: u8 = 17;
const PURGES_WHAT_IS_RETRIED: u8 = 18;
const CALLS_MISSING_DONE: u8 = 19;
const NEVER_HALTS: u8 = 20;
const MARKS_WHAT_IS_SKIPPED: u8 = 21;
const BEGINS_NOT_ANEW: u8 = 22;
const BLAMES_NOBODY: u8 = 23;
const MERGES_UNDER_ANY_TERM: u8 = 30;
const MERGES_AGAIN: u8 = 31;
const GIVES_UP_AT_ONCE: u8 = 32;

/// A memory store with one flaw, and the latest reign of a consumer.
#[derive(Debug)]
struct Broken<const FLAW: u8>(MemoryStore, Arc<Mutex<Option<Reign>>>);

struct BrokenFixture<const FLAW: u8>;

#[async_trait]
impl<const FLAW: u8> Fixture for BrokenFixture<FLAW> {
    async fn open(clock: ManualClock) -> Opened {
        let led = MemoryStore::new(Clock::Manual(clock)).delivering(Delivery::Leader);
        let latest: Arc<Mutex<Option<Reign>>> = Arc::default();
        Opened {
            delivering: Arc::new(Broken::<FLAW>(led.delivering(Delivery::Store), latest.clone())),
            led: Arc::new(Broken::<FLAW>(led, latest)),
            keep: Box::new(()),
        }
    }
}

#[async_trait]
impl<const FLAW: u8> Store for Broken<FLAW> {
    async fn send(&self, entries: &[Bytes], numbered: Option<&Numbered>) -> Result<Sent> {
        if numbered.is_some() && FLAW == APPENDS_AGAIN {
            let before = self.0.status().await?.waiting;
            let sent = self.0.send(entries, numbered).await?;
            if self.0.status().await?.waiting == before {
                self.0.send(entries, None).await?;
            }
            return Ok(sent);
        }
        if let (Some(numbered), ACCEPTS_AN_OLDER_SESSION) = (numbered, FLAW) {
            // All of them are one to it.
            let session = Session { number: 1, process: 1 };
            let numbered = Numbered {
                session,
                ..numbered.clone()
            };
            return self.0.send(entries, Some(&numbered)).await;
        }
        if let (Some(numbered), IGNORES_A_FULL_LINE) = (numbered, FLAW) {
            let numbered = Numbered {
                max_waiting: None,
                ..numbered.clone()
            };
            return self.0.send(entries, Some(&numbered)).await;
        }
        match entries {
            [first, _, ..] if FLAW == FORGETS_A_MESSAGE => self.0.send(std::slice::from_ref(first), numbered).await,
            _ => self.0.send(entries, numbered).await,
        }
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        let mut request = request.clone();
        if FLAW == IGNORES_THE_WINDOW {
            request.window = u64::MAX;
        }
        if FLAW == IGNORES_A_BOUND {
            request.below = None;
        }
        let before = self.0.status().await?.control;
        let lets_through = match FLAW {
            IGNORES_A_PAUSE => before.flow == Flow::Paused,
            HANDS_OUT_NEW_WHILE_DRAINING => before.flow == Flow::Draining,
            _ => false,
        };
        if FLAW == IGNORES_THE_RATE {
            self.0.control(&ControlRequest::Rate(None)).await?;
        }
        if lets_through {
            self.0.control(&ControlRequest::Flow(Flow::Running)).await?;
        }
        let mut claims = self.0.claim(&request).await;
        for claim in claims.iter_mut().flatten() {
            match FLAW {
                BEGINS_NOT_ANEW => claim.tries = claim.attempt,
                BLAMES_NOBODY => claim.crashes = 0,
                _ => {}
            }
        }
        if FLAW == IGNORES_THE_RATE {
            self.0.control(&ControlRequest::Rate(before.rate)).await?;
        }
        if lets_through {
            self.0.control(&ControlRequest::Flow(before.flow)).await?;
        }
        claims
    }

    async fn complete(&self, owner: &OwnerId, completions: &[Completion]) -> Result<Vec<Completed>> {
        let mut completions = completions.to_vec();
        for completion in &mut completions {
            if let Completion::Dead { on_dead, .. } = completion
                && (FLAW, *on_dead) == (NEVER_HALTS, OnDead::Halt)
            {
                *on_dead = OnDead::Mark;
            }
        }
        let answers = self.0.complete(owner, &completions).await;
        if FLAW == ACCEPTS_STALE {
            return answers.map(|answers| vec![Completed::Accepted; answers.len()]);
        }
        answers
    }

    async fn renew(&self, request: &RenewRequest) -> Result<Renewed> {
        let mut request = request.clone();
        if FLAW == KEEPS_WHO_LEAVES && request.lease_us == 0 {
            request.lease_us = 1;
        }
        if let Some(keep) = &mut request.keep {
            let count = &mut keep.records.count;
            match FLAW {
                TRIMS_ONE_TOO_MANY => *count = count.map(|count| count.saturating_sub(1)),
                NEVER_TRIMS => *keep = Keep::ALL,
                _ => {}
            }
        }
        self.0.renew(&request).await
    }

    async fn campaign(&self, request: &CampaignRequest) -> Result<Campaign> {
        let campaign = self.0.campaign(request).await?;
        if let (Campaign::Leader { term }, Role::Consumer) = (&campaign, request.role) {
            let (owner, term) = (request.owner.clone(), *term);
            *self.1.lock().expect("no panic") = Some(Reign { owner, term });
        }
        Ok(campaign)
    }

    async fn follow(&self, cursor: Cursor, max: usize) -> Result<Followed> {
        self.0.follow(cursor, max).await
    }

    async fn emit(&self, request: &EmitRequest) -> Result<Emitted> {
        let mut request = request.clone();
        if FLAW == IGNORES_THE_TERM {
            request.term = self.0.status().await?.term;
        }
        self.0.emit(&request).await
    }

    async fn merge(&self, request: &MergeRequest) -> Result<Merged> {
        let mut request = request.clone();
        let status = self.0.status().await?;
        match FLAW {
            MERGES_UNDER_ANY_TERM => request.term = status.term,
            MERGES_AGAIN => request.head = status.head,
            GIVES_UP_AT_ONCE => request.give_up.iter_mut().for_each(|give_up| give_up.after_us = 0),
            _ => {}
        }
        self.0.merge(&request).await
    }

    async fn receive(&self, request: &ReceiveRequest) -> Result<Received> {
        let mut request = request.clone();
        if FLAW == IGNORES_THE_REIGN {
            request.reign.clone_from(&self.1.lock().expect("no panic"));
        }
        if FLAW == DELIVERS_AGAIN {
            request.acknowledge = None;
        }
        self.0.receive(&request).await
    }

    async fn control(&self, request: &ControlRequest) -> Result<Control> {
        self.0.control(request).await
    }

    async fn status(&self) -> Result<Status> {
        self.0.status().await
    }

    async fn browse(&self, what: Shelf, from: Option<&str>) -> Result<Page> {
        let mut page = self.0.browse(what, from).await?;
        let keep = self.0.status().await?.keep;
        if FLAW == TRIMS_WHAT_WAITS && what == Shelf::Record && keep.is_some_and(|keep| keep.records.is_set()) {
            page.rows
                .retain(|row| row.json.windows(11).any(|part| part == b"\"sequenced\""));
        }
        Ok(page)
    }

    async fn shape(&self, wanted: Option<Shape>) -> Result<Option<Shape>> {
        let flawed = match FLAW {
            IGNORES_KEYS => Some(Shape::of(Order::None)),
            HANDS_OUT_TWO_OF_A_KEY => Some(Shape::of(Order::Key { serial: false })),
            KEEPS_AN_ORDER => Some(Shape::TOTAL),
            _ => return self.0.shape(wanted).await,
        };
        if wanted.is_some() {
            self.0.shape(flawed).await?;
        }
        Ok(wanted)
    }

    async fn dead(&self, request: &DeadRequest) -> Result<Vec<Judged>> {
        let mut request = request.clone();
        if FLAW == PURGES_WHAT_IS_RETRIED {
            request.verdict = Verdict::Purge;
        }
        if (FLAW, request.verdict) == (MARKS_WHAT_IS_SKIPPED, Verdict::Skip) {
            request.verdict = Verdict::Mark;
        }
        let answers = self.0.dead(&request).await?;
        if FLAW == CALLS_MISSING_DONE {
            return Ok(vec![Judged::Done; answers.len()]);
        }
        Ok(answers)
    }

    fn wakes(&self) -> &Wakes {
        self.0.wakes()
    }
}

/// How many of fifteen random histories find the flaw.
async fn found<F: Fixture>() -> usize {
    found_in::<F>(Order::Total).await
}

async fn found_in<F: Fixture>(order: Order) -> usize {
    let mut found = 0;
    for seed in 1..=15 {
        let history = random::history(Pair::open::<F>().await, seed, order);
        found += usize::from(AssertUnwindSafe(history).catch_unwind().await.is_err());
    }
    found
}

#[tokio::test]
async fn random_histories_find_each_flaw() {
    // A history that is paused or drains for long does little.
    assert!(
        found::<BrokenFixture<ACCEPTS_STALE>>().await > 12,
        "accepts what is stale"
    );
    assert!(
        found::<BrokenFixture<IGNORES_THE_WINDOW>>().await > 12,
        "ignores the window"
    );
    // Not every history acknowledges something and then looks.
    assert!(found::<BrokenFixture<DELIVERS_AGAIN>>().await > 5, "takes nothing off");
    assert!(
        found::<BrokenFixture<FORGETS_A_MESSAGE>>().await > 12,
        "forgets a message"
    );
    // Not every history sends nothing but what is there.
    assert!(
        found::<BrokenFixture<APPENDS_AGAIN>>().await > 5,
        "appends again what has a number"
    );
    assert!(
        found::<BrokenFixture<ACCEPTS_AN_OLDER_SESSION>>().await > 5,
        "accepts an older session"
    );
    assert!(
        found::<BrokenFixture<IGNORES_A_FULL_LINE>>().await > 2,
        "appends to a full line"
    );
    // Not every claim says how far it goes, and then there is more.
    assert!(
        found::<BrokenFixture<IGNORES_A_BOUND>>().await > 2,
        "hands out more than the caller lets it"
    );
    assert!(
        found::<BrokenFixture<IGNORES_THE_REIGN>>().await > 5,
        "ignores whose turn it is to receive"
    );
    // Not every history controls, and then claims.
    assert!(found::<BrokenFixture<IGNORES_A_PAUSE>>().await > 5, "ignores a pause");
    assert!(
        found::<BrokenFixture<HANDS_OUT_NEW_WHILE_DRAINING>>().await > 2,
        "hands out new messages while draining"
    );
    assert!(found::<BrokenFixture<IGNORES_THE_RATE>>().await > 2, "ignores the rate");
    // Not every history has so many records that some go.
    assert!(
        found::<BrokenFixture<TRIMS_ONE_TOO_MANY>>().await > 5,
        "trims one too many"
    );
    assert!(found::<BrokenFixture<NEVER_TRIMS>>().await > 5, "never trims");
    assert!(
        found::<BrokenFixture<TRIMS_WHAT_WAITS>>().await > 5,
        "trims what is not delivered"
    );
    // Not every history has a dead letter that is delivered past, and retries it.
    assert!(
        found::<BrokenFixture<PURGES_WHAT_IS_RETRIED>>().await > 2,
        "purges what is to be retried"
    );
    assert!(
        found::<BrokenFixture<CALLS_MISSING_DONE>>().await > 2,
        "says that it did what it did not"
    );
    // Not every history has one that halts, and a person who looks.
    assert!(found::<BrokenFixture<NEVER_HALTS>>().await > 2, "never halts");
    assert!(
        found::<BrokenFixture<MARKS_WHAT_IS_SKIPPED>>().await > 2,
        "marks what is to be skipped"
    );
    assert!(
        found::<BrokenFixture<BEGINS_NOT_ANEW>>().await > 2,
        "counts attempts before a retry in place"
    );
    assert!(found::<BrokenFixture<BLAMES_NOBODY>>().await > 5, "blames nobody");
    assert_ne!(found::<BrokenFixture<IGNORES_THE_TERM>>().await, 0, "ignores the term");
    assert_ne!(found::<BrokenFixture<KEEPS_WHO_LEAVES>>().await, 0, "keeps who leaves");
    assert_eq!(
        found::<crate::MemoryFixture>().await,
        0,
        "and no flaw where there is none"
    );
}

#[tokio::test]
async fn random_histories_find_another_order() {
    let (key, serial) = (Order::Key { serial: false }, Order::Key { serial: true });
    assert!(found_in::<BrokenFixture<IGNORES_KEYS>>(key).await > 10, "ignores keys");
    let two = found_in::<BrokenFixture<HANDS_OUT_TWO_OF_A_KEY>>(serial).await;
    assert!(two > 10, "hands out two of a key");
    let ordered = found_in::<BrokenFixture<KEEPS_AN_ORDER>>(Order::None).await;
    assert!(ordered > 10, "keeps an order that nobody wants");
    for order in [key, serial, Order::None] {
        assert_eq!(found_in::<crate::MemoryFixture>(order).await, 0, "no flaw in {order}");
    }
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_two_of_a_key_at_a_time() {
    crate::in_place::one_of_a_key_at_a_time::<BrokenFixture<HANDS_OUT_TWO_OF_A_KEY>>().await;
}

#[tokio::test]
#[should_panic(expected = "complete by p")]
async fn a_case_finds_stale_completions_that_count() {
    crate::complete::a_lease_that_another_took_is_stale::<BrokenFixture<ACCEPTS_STALE>>().await;
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_what_is_handed_out_while_paused() {
    crate::control::paused_nothing_is_handed_out::<BrokenFixture<IGNORES_A_PAUSE>>().await;
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_what_is_handed_out_while_draining() {
    crate::control::draining_only_what_was_claimed_is_handed_out::<BrokenFixture<HANDS_OUT_NEW_WHILE_DRAINING>>().await;
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_a_rate_that_is_not_kept() {
    crate::control::a_slow_rate_is_exact::<BrokenFixture<IGNORES_THE_RATE>>().await;
}

#[tokio::test]
#[should_panic(expected = "status")]
async fn a_case_finds_a_record_too_many_that_goes() {
    crate::keep::the_last_so_many_records_stay::<BrokenFixture<TRIMS_ONE_TOO_MANY>>().await;
}

#[tokio::test]
#[should_panic(expected = "Record")]
async fn a_case_finds_a_record_that_goes_before_its_turn() {
    crate::keep::what_is_not_delivered_stays::<BrokenFixture<TRIMS_WHAT_WAITS>>().await;
}

#[tokio::test]
#[should_panic(expected = "EmitRequest")]
async fn a_case_finds_a_leader_that_is_not_fenced() {
    crate::lead::an_old_term_is_fenced::<BrokenFixture<IGNORES_THE_TERM>>().await;
}

#[tokio::test]
#[should_panic(expected = "status")]
async fn a_case_finds_what_is_appended_twice() {
    crate::send::what_is_sent_again_is_there_once::<BrokenFixture<APPENDS_AGAIN>>().await;
}

#[tokio::test]
#[should_panic(expected = "send")]
async fn a_case_finds_a_late_send_that_counts() {
    crate::send::a_late_send_of_an_earlier_session_is_refused::<BrokenFixture<ACCEPTS_AN_OLDER_SESSION>>().await;
}

#[tokio::test]
#[should_panic(expected = "send")]
async fn a_case_finds_a_send_into_a_full_line() {
    crate::send::nothing_is_appended_where_too_many_would_wait::<BrokenFixture<IGNORES_A_FULL_LINE>>().await;
}

#[tokio::test]
#[should_panic(expected = "ReceiveRequest")]
async fn a_case_finds_an_acknowledgement_under_an_old_term() {
    crate::receive::an_old_reign_neither_acknowledges_nor_gets_anything::<BrokenFixture<IGNORES_THE_REIGN>>().await;
}

#[tokio::test]
#[should_panic(expected = "status")]
async fn a_case_finds_a_retried_letter_that_is_lost() {
    crate::dead::retried_it_comes_again_at_the_end::<BrokenFixture<PURGES_WHAT_IS_RETRIED>>().await;
}

#[tokio::test]
#[should_panic(expected = "DeadRequest")]
async fn a_case_finds_a_verdict_that_counts_twice() {
    crate::dead::said_twice_it_counts_once::<BrokenFixture<CALLS_MISSING_DONE>>().await;
}

#[tokio::test]
#[should_panic(expected = "status")]
async fn a_case_finds_a_line_that_does_not_halt() {
    crate::halt::retried_it_has_its_old_place::<BrokenFixture<NEVER_HALTS>>().await;
}

#[tokio::test]
#[should_panic(expected = "follow")]
async fn a_case_finds_a_tombstone_that_was_to_be_skipped() {
    crate::halt::skipped_or_marked_the_line_goes_on::<BrokenFixture<MARKS_WHAT_IS_SKIPPED>>().await;
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_attempts_that_count_still() {
    crate::halt::retried_it_has_its_old_place::<BrokenFixture<BEGINS_NOT_ANEW>>().await;
}

#[tokio::test]
#[should_panic(expected = "ClaimRequest")]
async fn a_case_finds_a_death_that_is_blamed_on_nobody() {
    crate::strikes::only_what_most_suspicion_is_on_is_blamed::<BrokenFixture<BLAMES_NOBODY>>().await;
}

#[tokio::test]
#[should_panic(expected = "MergeRequest")]
async fn a_case_finds_a_merging_leader_that_is_not_fenced() {
    crate::merge::an_old_term_is_fenced::<BrokenFixture<MERGES_UNDER_ANY_TERM>>().await;
}

#[tokio::test]
#[should_panic(expected = "MergeRequest")]
async fn a_case_finds_what_is_merged_again() {
    crate::merge::said_twice_it_counts_once::<BrokenFixture<MERGES_AGAIN>>().await;
}

#[tokio::test]
#[should_panic(expected = "MergeRequest")]
async fn a_case_finds_what_is_given_up_too_soon() {
    crate::merge::what_is_missing_is_given_up_when_it_is_time::<BrokenFixture<GIVES_UP_AT_ONCE>>().await;
}
