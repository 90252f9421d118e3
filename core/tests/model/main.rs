//! Proof in the small: every order in which a few messages, processes, crashes and lost replies can meet.
//!
//! The states are the core's own: [`conga_core::partition::Partition`] is the store, and each sequencer is a
//! [`conga_core::sequencer::Sequencer`]. What happens to them is called by a model of the processes and of their
//! connections, in every order. `properties` tells what must hold; each of the `flaws` breaks one rule on purpose, and
//! has to be found.
//!
//! The larger lines take minutes, and so are run by hand:
//! `cargo test --release -p conga-core --test model -- --ignored --nocapture --test-threads 1`

use std::fmt;
use std::hash::Hash;
use std::time::Instant;

use conga_core::partition::OnDead;
use conga_core::shape::Order;
use conga_core::time::Micros;
use stateright::{Checker, Model};

mod action;
mod call;
mod delivering;
mod flaws;
mod found;
mod line;
mod merging;
mod properties;
mod sequencing;
mod shared;
mod state;
mod step;
mod striking;
mod ways;
mod witness;

use line::{Delivery, Ending, Line};

/// The store's time.
const NOW: Micros = Micros(1_000_000_000);
/// How long leases and the lock last: less than what would be a clock that was set back.
const LEASE_US: u64 = 500_000;
/// How long a message that failed for now is delayed.
const DELAY_US: u64 = 1_000;

/// Visits every state of a line. All that must hold holds in each, and all that must be met with is met with.
///
/// It goes into the depth first, which takes far less memory: so the depth is that of the longest way that it went.
fn check<M>(line: M)
where
    M: Model<
            State: Clone + fmt::Debug + Hash + PartialEq + Send + Sync,
            Action: Clone + fmt::Debug + PartialEq + Send + Sync,
        > + fmt::Display
        + Send
        + Sync
        + 'static,
{
    let title = line.to_string();
    let begun = Instant::now();
    let checker = line.checker().threads(2).spawn_dfs().join();
    println!(
        "{title}: {} states, {} of them different, depth {}, {:.1} s",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed().as_secs_f64(),
    );
    checker.assert_properties();
}

/// Two messages under one id, and another.
const TWINS: [(&str, Ending); 3] = [("a", Ending::Done), ("b", Ending::Done), ("a", Ending::Done)];
/// One of each way to fail.
const FAILING: [(&str, Ending); 3] = [
    ("a", Ending::Dead { on_dead: OnDead::Mark }),
    ("b", Ending::Retried),
    ("c", Ending::Dead { on_dead: OnDead::Skip }),
];
/// One at which the line halts, before another.
const HALTING: [(&str, Ending); 2] = [("b", Ending::Halted), ("c", Ending::Done)];
/// Three under one id, of which one fails for good and another for now.
const FAILING_TWINS: [(&str, Ending); 3] = [
    ("a", Ending::Dead { on_dead: OnDead::Mark }),
    ("a", Ending::Done),
    ("a", Ending::Retried),
];

#[test]
fn three_messages_through_a_window_of_two_and_a_crash() {
    check(Line {
        window: 2,
        crashes: 1,
        ..Line::of(3)
    });
}

#[test]
fn a_crash_and_a_lost_reply() {
    check(Line {
        crashes: 1,
        losses: 1,
        ..Line::of(1)
    });
}

#[test]
fn a_crash_and_a_pause() {
    check(Line {
        crashes: 1,
        pauses: 1,
        ..Line::of(1)
    });
}

#[test]
fn a_crash_among_messages_under_one_id() {
    check(Line {
        crashes: 1,
        ..Line::new(&TWINS[1..])
    });
    check(Line {
        crashes: 1,
        ..Line::new(&FAILING_TWINS[..2])
    });
}

#[test]
fn a_crash_among_messages_that_fail() {
    check(Line {
        crashes: 1,
        ..Line::new(&FAILING[..2])
    });
}

#[test]
fn the_store_delivers_and_there_is_no_sequencer() {
    let lines = [
        Line {
            window: 2,
            crashes: 1,
            losses: 1,
            ..Line::of(3)
        },
        Line {
            crashes: 2,
            pauses: 1,
            ..Line::of(2)
        },
        Line {
            hands: 2,
            crashes: 1,
            ..Line::of(3)
        },
    ];
    for line in lines {
        check(line.delivered(Delivery::Store, 0));
    }
}

#[test]
fn the_store_delivers_what_fails_or_comes_twice() {
    for messages in [TWINS, FAILING, FAILING_TWINS] {
        let line = Line {
            crashes: 1,
            ..Line::new(&messages)
        };
        check(line.delivered(Delivery::Store, 0));
    }
}

#[test]
fn a_line_halts_and_a_person_has_it_go_on() {
    for delivery in [Delivery::Store, Delivery::Leader] {
        let is_led = delivery == Delivery::Leader;
        let line = Line {
            crashes: 1,
            losses: u8::from(!is_led),
            ..Line::new(&HALTING)
        };
        check(line.delivered(delivery, usize::from(is_led)));
    }
}

#[test]
fn the_store_and_a_leader_deliver_side_by_side() {
    for messages in [1, 2] {
        let line = Line {
            crashes: 1,
            losses: u8::from(messages == 1),
            late: messages == 1,
            ..Line::of(messages)
        };
        check(line.delivered(Delivery::Mixed, 1));
    }
}

#[test]
fn one_leaves_it_to_the_other_and_there_is_no_sequencer() {
    let line = Line {
        window: 2,
        crashes: 1,
        ..Line::of(3)
    };
    check(line.delivered(Delivery::Mixed, 0));
}

const KEY: Order = Order::Key { serial: false };
const SERIAL: Order = Order::Key { serial: true };

#[test]
fn by_key_without_order_and_one_of_a_key_at_a_time() {
    let line = Line {
        window: 2,
        crashes: 1,
        losses: 1,
        ..Line::of(3)
    };
    check(line.clone().in_order(KEY, &["k", "l", "k"]));
    check(line.clone().in_order(SERIAL, &["k", "k", "-"]));
    check(line.in_order(Order::None, &[]));
}

#[test]
fn by_key_and_without_order_what_fails_or_comes_twice() {
    for messages in [TWINS, FAILING, FAILING_TWINS] {
        let line = Line {
            crashes: 1,
            ..Line::new(&messages)
        };
        check(line.clone().in_order(KEY, &["k", "-", "k"]));
        check(line.clone().in_order(SERIAL, &["k", "-", "k"]));
        check(line.in_order(Order::None, &[]));
    }
}

#[test]
fn a_line_that_is_paused_or_drains() {
    let line = Line {
        crashes: 1,
        controls: 2,
        ..Line::of(2)
    };
    check(line.clone().delivered(Delivery::Store, 0));
    check(line.clone().in_order(KEY, &["k", "k"]));
    check(line.clone().in_order(SERIAL, &["k", "k"]));
    check(line.in_order(Order::None, &[]));
}

#[test]
#[ignore = "large"]
fn four_messages_by_key_after_crashes_and_a_lost_reply() {
    let line = Line {
        crashes: 2,
        losses: 1,
        ..Line::of(4)
    };
    check(line.clone().in_order(KEY, &["k", "l", "k", "l"]));
    check(line.clone().in_order(SERIAL, &["k", "l", "k", "l"]));
    check(line.in_order(Order::None, &[]));
}

#[test]
#[ignore = "large"]
fn the_store_delivers_four_messages_after_crashes_and_a_lost_reply() {
    let line = Line {
        crashes: 2,
        losses: 1,
        ..Line::of(4)
    };
    check(line.delivered(Delivery::Store, 0));
}

#[test]
#[ignore = "large"]
fn the_store_and_two_leaders_deliver_side_by_side() {
    let line = Line {
        crashes: 1,
        losses: 1,
        ..Line::of(2)
    };
    check(line.delivered(Delivery::Mixed, 2));
}

#[test]
#[ignore = "large"]
fn three_messages_two_crashes_and_a_lost_reply() {
    check(Line {
        crashes: 2,
        losses: 1,
        ..Line::of(3)
    });
}

#[test]
#[ignore = "large"]
fn two_messages_two_crashes_and_a_pause() {
    check(Line {
        crashes: 2,
        pauses: 1,
        ..Line::of(2)
    });
}

#[test]
#[ignore = "large"]
fn four_messages_and_a_crash() {
    check(Line {
        crashes: 1,
        ..Line::of(4)
    });
}

#[test]
#[ignore = "large"]
fn everything_at_once_around_one_message() {
    check(Line {
        crashes: 1,
        pauses: 1,
        losses: 1,
        stops: 1,
        late: true,
        ..Line::of(1)
    });
}

#[test]
#[ignore = "large"]
fn late_answers_and_a_leader_that_stops() {
    check(Line {
        crashes: 1,
        stops: 1,
        late: true,
        ..Line::of(2)
    });
}

#[test]
#[ignore = "large"]
fn several_claims_at_once_and_a_sequencer_that_keeps_little() {
    check(Line {
        hands: 2,
        crashes: 1,
        ..Line::of(3)
    });
    check(Line {
        capacity: 1,
        crashes: 1,
        ..Line::of(3)
    });
}

#[test]
#[ignore = "large"]
fn three_messages_under_one_id_or_failing() {
    for messages in [TWINS, FAILING, FAILING_TWINS] {
        check(Line {
            crashes: 1,
            ..Line::new(&messages)
        });
    }
}
