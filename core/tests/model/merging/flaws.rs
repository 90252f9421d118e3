//! Each flaw breaks one rule, and is found by the property that the rule is there for.

use stateright::{Checker, HasDiscoveries, Model};

use super::{Flaw, Line};

fn must_find(flaw: Flaw, property: &str, line: Line) {
    let line = Line {
        flaw: Some(flaw),
        ..line
    };
    for depth in 2..=16 {
        let checker = line
            .clone()
            .checker()
            .target_max_depth(depth)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let found = checker.discoveries();
        let failed = line
            .properties()
            .into_iter()
            .filter(|property| property.expectation.discovery_is_failure() && found.contains_key(property.name));
        let failed: Vec<_> = failed.map(|property| property.name).collect();
        if !failed.is_empty() {
            assert!(failed.contains(&property), "{flaw:?} broke {failed:?}");
            println!(
                "{flaw:?}: {property}, in {} steps",
                found[property].clone().into_actions().len()
            );
            return;
        }
    }
    panic!("{flaw:?} is not found");
}

fn waits() -> Line {
    Line {
        crashes: 1,
        ..Line::of(2)
    }
}

fn gives_up() -> Line {
    Line {
        gives_up: true,
        mergers: 1,
        ..Line::of(2)
    }
}

#[test]
fn a_base_that_takes_any_term_is_found() {
    must_find(Flaw::NoFence, "fence", waits());
}

#[test]
fn a_base_that_takes_any_head_is_found() {
    let line = Line {
        mergers: 1,
        losses: 1,
        ..Line::of(2)
    };
    must_find(Flaw::NoHeadCheck, "order", line);
}

#[test]
fn a_merger_that_acknowledges_what_has_not_left_is_found() {
    must_find(Flaw::AcknowledgesAtOnce, "loss", waits());
}

#[test]
fn a_base_that_forgets_what_it_has_passed_is_found() {
    must_find(Flaw::ForgetsThePassed, "loss", gives_up());
}

#[test]
fn a_number_that_is_given_up_unsought_is_found() {
    must_find(Flaw::Unproved, "gap", gives_up());
}
