//! Each flaw breaks one rule, and is found by the property that the rule is there for.

use super::{Flaw, Line};
use crate::found;
use conga_core::partition::OnDead;

/// No way to a flaw is longer.
const LONGEST: usize = 60;

fn must_find(flaw: Flaw, property: &str, line: Line) {
    let line = Line {
        flaw: Some(flaw),
        ..line
    };
    found::must_find(line, flaw, property, LONGEST);
}

#[test]
fn a_store_that_forgets_crashes_is_found() {
    must_find(Flaw::ForgetsCrashes, "progress", Line::of(2, &[1]));
}

#[test]
fn a_store_that_hands_out_others_beside_what_is_to_be_alone_is_found() {
    must_find(Flaw::NeverIsolates, "alone", Line::of(2, &[1]));
}

/// Beside a poison that has an innocent blamed three times already.
#[test]
fn a_store_that_takes_who_leaves_for_dead_is_found() {
    let line = Line {
        leaves: 1,
        ..Line::of(2, &[1])
    };
    must_find(Flaw::LeavingIsDeath, "innocent", line);
}

#[test]
fn who_gives_up_what_is_only_to_be_alone_is_found() {
    must_find(Flaw::GivesUpEarly, "innocent", Line::of(2, &[1]));
}

#[test]
fn a_store_that_leaves_messages_with_the_dead_is_found() {
    must_find(Flaw::NeverFrees, "progress", Line::of(2, &[1]));
}

#[test]
fn a_line_that_goes_on_past_a_poison_is_found() {
    let line = Line {
        on_dead: OnDead::Halt,
        ..Line::of(2, &[1])
    };
    must_find(Flaw::GoesOn, "halt", line);
}
