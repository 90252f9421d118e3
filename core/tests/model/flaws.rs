//! The model finds it: each flaw breaks one rule, around the core's code or in a process, and is found by the property
//! that the rule is there for.

use conga_core::shape::Order;
use stateright::{Checker, HasDiscoveries, Model};

use crate::line::{Compare, Delivery, Flaw, Line};

/// No way to a flaw is longer.
const LONGEST: usize = 20;

/// What must hold in every state.
fn failures(line: &Line) -> Vec<&'static str> {
    let all = line.properties().into_iter();
    all.filter(|property| property.expectation.discovery_is_failure())
        .map(|property| property.name)
        .collect()
}

/// Goes one step further each time, until properties fail: these, and no others. So the way to it is a shortest one.
fn must_find(properties: &[&str], line: Line) {
    for depth in 2..=LONGEST {
        let finish = HasDiscoveries::AnyFailures;
        let checker = line
            .clone()
            .checker()
            .target_max_depth(depth)
            .finish_when(finish)
            .spawn_bfs()
            .join();
        let mut found = checker.discoveries();
        let failures = failures(&line);
        found.retain(|name, _| failures.contains(name));
        let Some(way) = properties.first().and_then(|name| found.remove(name)) else {
            assert!(
                found.is_empty(),
                "{:?} failed, which has nothing to do with it",
                found.keys()
            );
            continue;
        };
        println!("{line}: against {}", properties.join(", "));
        for (state, action) in way.into_vec() {
            if let Some(action) = action {
                println!("    {}", action.describe(&state));
            }
        }
        let mut others: Vec<_> = found.into_keys().collect();
        others.sort_unstable();
        assert_eq!(others, properties[1..]);
        return;
    }
    panic!("{line}: none of {properties:?} failed within {LONGEST} steps");
}

#[test]
fn without_the_fence_an_earlier_leader_still_delivers() {
    must_find(
        &["fence"],
        Line {
            crashes: 1,
            flaw: Some(Flaw::NoFence),
            ..Line::of(1)
        },
    );
}

#[test]
fn without_the_head_check_an_emit_counts_twice() {
    must_find(
        &["order", "duplicate", "fence"],
        Line {
            losses: 1,
            flaw: Some(Flaw::NoHeadCheck),
            ..Line::of(1)
        },
    );
}

#[test]
fn without_the_lease_check_a_late_result_counts() {
    must_find(
        &["lease"],
        Line {
            crashes: 1,
            flaw: Some(Flaw::NoLeaseCheck),
            ..Line::of(1)
        },
    );
}

#[test]
fn without_the_window_claims_run_ahead() {
    must_find(
        &["bound"],
        Line {
            window: 1,
            flaw: Some(Flaw::NoWindow),
            ..Line::of(2)
        },
    );
}

#[test]
fn without_a_new_term_two_lead_under_one() {
    must_find(
        &["fence"],
        Line {
            flaw: Some(Flaw::SameTerm),
            ..Line::of(1)
        },
    );
}

#[test]
fn without_a_reload_a_lost_answer_stops_the_line() {
    must_find(
        &["progress"],
        Line {
            losses: 1,
            flaw: Some(Flaw::NoReload),
            ..Line::of(1)
        },
    );
}

/// A claim that was given up for lost may arrive after its owner has compared what it holds. If that never compares
/// again it holds for good what it does not know of, for as long as it lives and renews.
#[test]
fn with_only_one_comparison_a_late_claim_stops_the_line() {
    must_find(
        &["progress"],
        Line {
            losses: 1,
            compare: Compare::Once,
            ..Line::of(1)
        },
    );
}

/// A line of `count` messages for which the store delivers, with this flaw and without any sequencer.
fn by_the_store(flaw: Flaw, count: usize) -> Line {
    Line {
        flaw: Some(flaw),
        ..Line::of(count)
    }
    .delivered(Delivery::Store, 0)
}

#[test]
fn a_store_that_delivers_past_a_gap_is_found() {
    must_find(&["order"], by_the_store(Flaw::PastAGap, 2));
}

#[test]
fn a_store_that_delivers_a_stale_result_is_found() {
    must_find(
        &["record", "order"],
        Line {
            crashes: 1,
            ..by_the_store(Flaw::DeliversStale, 1)
        },
    );
}

#[test]
fn a_store_that_keeps_what_it_has_delivered_is_found() {
    must_find(&["duplicate", "order"], by_the_store(Flaw::KeepsDelivered, 2));
}

/// The step is not atomic: it is found at once, and harmless all the same, since the next renewal delivers.
#[test]
fn a_complete_that_does_not_deliver_is_found_and_a_renewal_heals_it() {
    must_find(&["at once"], by_the_store(Flaw::HalfComplete, 2));
    let line = Line {
        crashes: 1,
        ..by_the_store(Flaw::HalfComplete, 2)
    };
    let checker = line.clone().checker().spawn_dfs().join();
    let found = checker.discoveries();
    let mut failures = failures(&line);
    failures.retain(|name| found.contains_key(name));
    assert_eq!(failures, ["at once"]);
}

#[test]
fn where_one_leaves_it_to_the_other_and_renewals_deliver_nothing_the_line_stops() {
    must_find(
        &["progress"],
        Line {
            flaw: Some(Flaw::HalfRenewal),
            ..Line::of(1)
        }
        .delivered(Delivery::Mixed, 0),
    );
}

/// Two messages of one key.
fn of_one_key(flaw: Flaw, serial: bool) -> Line {
    Line {
        flaw: Some(flaw),
        ..Line::of(2)
    }
    .in_order(Order::Key { serial }, &["k", "k"])
}

#[test]
fn a_store_that_forgets_the_keys_is_found() {
    must_find(&["order"], of_one_key(Flaw::NoKeys, false));
}

#[test]
fn a_store_that_hands_out_two_of_a_key_at_once_is_found() {
    must_find(&["serial"], of_one_key(Flaw::NotSerial, true));
}

#[test]
fn a_store_that_goes_on_when_it_is_paused_is_found() {
    let line = Line {
        controls: 1,
        flaw: Some(Flaw::NoPause),
        ..Line::of(1)
    };
    must_find(&["flow"], line.delivered(Delivery::Store, 0));
}
