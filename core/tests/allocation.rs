//! The sequencer's step allocates nothing per message: its buffer grows to the window, and that is all.

use allocation_counter::measure;
use conga_core::message::Position;
use conga_core::sequencer::{Action, Event, Sequencer};
use conga_core::term::Term;

const WINDOW: u64 = 1_000;

/// Processes and emits `count` positions from `first` on, each run of `stride` of them backwards.
fn run(sequencer: &mut Sequencer<u64>, first: u64, count: u64, stride: u64) -> u64 {
    let mut emitted = 0;
    for run in 0..count / stride {
        for offset in (0..stride).rev() {
            let position = Position(first + run * stride + offset);
            let mut action = sequencer.step(Event::Processed {
                position,
                ticket: position.0,
            });
            while let Action::Emit { head, count, .. } = action {
                emitted += sequencer.ready(count).count() as u64;
                let head = Position(head.0 + count as u64);
                action = sequencer.step(Event::Emitted { head });
            }
        }
    }
    emitted
}

#[test]
fn a_step_allocates_nothing() {
    let mut sequencer = Sequencer::new(1_000, 100);
    sequencer.step(Event::Elected { term: Term(1) });
    // Once as far as the window goes: the buffer has its size then.
    assert_eq!(run(&mut sequencer, 1, WINDOW, WINDOW), WINDOW);
    let mut emitted = 0;
    let allocated = measure(|| {
        emitted += run(&mut sequencer, WINDOW + 1, 50 * WINDOW, 1);
        emitted += run(&mut sequencer, 51 * WINDOW + 1, 50 * WINDOW, WINDOW);
    });
    assert_eq!(emitted, 100 * WINDOW);
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}

#[test]
fn an_allocation_is_seen() {
    let allocated = measure(|| drop(std::hint::black_box(vec![1, 2, 3])));
    assert_eq!(allocated.count_total, 1);
}
