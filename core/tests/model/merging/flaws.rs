//! Each flaw breaks one rule, and is found by the property that the rule is there for.

use super::{Flaw, Line};
use crate::found;

/// No way to a flaw is longer.
const LONGEST: usize = 16;

fn must_find(flaw: Flaw, property: &str, line: Line) {
    let line = Line {
        flaw: Some(flaw),
        ..line
    };
    found::must_find(line, flaw, property, LONGEST);
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
