//! Each rule of the merge by itself.

use super::*;

const TERM: Term = Term(1);

/// Of two partitions, that leads and knows where the base is.
fn leader() -> Merge<u64> {
    let mut merge = Merge::new(2, 10);
    assert_eq!(merge.step(Event::Elected { term: TERM }), asks(1, 0, false));
    assert_eq!(merge.step(Event::Merged { head: Position(1) }), Action::Wait);
    merge
}

fn asks(head: u64, count: usize, is_missing: bool) -> Action {
    Action::Merge {
        term: TERM,
        head: Position(head),
        count,
        late: 0,
        is_missing,
        give_up: 0,
    }
}

fn gives_up(head: u64, give_up: usize) -> Action {
    Action::Merge {
        term: TERM,
        head: Position(head),
        count: 0,
        late: 0,
        is_missing: true,
        give_up,
    }
}

/// Outputs, by position and sequence.
fn found(outputs: &[(u64, u64)]) -> Vec<Found<u64>> {
    let found = outputs.iter().map(|(position, place)| Found {
        position: Position(*position),
        place: Some(Position(*place)),
        is_dead: false,
        bytes: 10,
        ticket: *place,
    });
    found.collect()
}

/// A partition's next outputs.
fn read(partition: usize, outputs: &[(u64, u64)]) -> Event<u64> {
    read_into(Room::ALL, partition, outputs)
}

fn read_into(room: Room, partition: usize, outputs: &[(u64, u64)]) -> Event<u64> {
    Event::Read {
        partition,
        outputs: found(outputs),
        room,
    }
}

fn glimpsed(room: Room, outputs: &[(u64, u64)]) -> Event<u64> {
    Event::Glimpsed {
        partition: 1,
        outputs: found(outputs),
        room,
    }
}

fn merged(head: u64) -> Event<u64> {
    Event::Merged { head: Position(head) }
}

fn proved(partition: usize, head: u64) -> Event<u64> {
    let head = Position(head);
    Event::Proved { partition, head }
}

#[test]
fn what_comes_in_any_order_leaves_in_order_and_is_acknowledged_then() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3), (2, 1)])), asks(1, 1, true));
    assert_eq!(merge.step(merged(2)), Action::Wait);
    assert_eq!(merge.acknowledge(1), None, "what was read together goes together");
    assert_eq!(merge.step(read(0, &[(1, 2)])), asks(2, 2, false));
    assert_eq!(merge.acknowledge(0), None, "not before it is merged");
    assert_eq!(merge.step(merged(4)), Action::Wait);
    assert_eq!(merge.acknowledge(0), Some((Position(1), 1)));
    assert_eq!(merge.acknowledge(1), Some((Position(2), 2)));
}

#[test]
fn what_was_given_up_without_an_answer_and_came_then_is_told_of() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
    assert_eq!(merge.step(merged(1)), Action::Wait);
    assert_eq!(merge.doubts(), [0, 1]);
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1), "2 is another partition's");
    assert_eq!(merge.step(Event::Unknown), asks(1, 0, false), "where is it?");
    merge.step(read(1, &[(2, 1)]));
    let told = Action::Merge {
        term: TERM,
        head: Position(2),
        count: 0,
        late: 1,
        is_missing: true,
        give_up: 0,
    };
    assert_eq!(merge.step(Event::Moved { head: Position(2) }), told);
    assert_eq!(merge.late().collect::<Vec<_>>(), [(Position(1), &1)]);
}

#[test]
fn a_base_that_may_not_have_heard_that_a_number_is_missing_is_told_again() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
    assert_eq!(merge.step(Event::Unknown), asks(1, 0, false));
    assert_eq!(merge.step(merged(1)), asks(1, 0, true));
}

/// Its tombstone is in the output then, and nothing else says that it came.
#[test]
fn what_comes_while_it_is_given_up_is_told_of() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
    assert_eq!(merge.step(merged(1)), Action::Wait);
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
    assert_eq!(merge.step(read(1, &[(2, 1)])), Action::Wait);
    let Action::Merge { late, .. } = merge.step(merged(2)) else {
        panic!("it has to be told of");
    };
    assert_eq!(late, 1);
    assert_eq!(merge.late().map(|(place, _)| place.0).collect::<Vec<_>>(), [1]);
    assert_eq!(merge.acknowledge(1), None, "before it is told of");
}

/// Else the base never hears that the next is missing, and nobody ever looks for it.
#[test]
fn a_merge_whose_partition_was_lost_meanwhile_gives_up_nothing() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 1)])), asks(1, 1, false));
    assert_eq!(merge.step(Event::Lost { partition: 1 }), Action::Wait);
    assert_eq!(merge.step(merged(2)), Action::Wait);
    assert_eq!(merge.step(read(1, &[(2, 3)])), asks(2, 0, true));
}

#[test]
fn a_proof_is_for_what_is_missing_then_and_not_for_what_is_missing_later() {
    let mut merge = leader();
    merge.step(read(1, &[(1, 5)]));
    merge.step(merged(1));
    assert_eq!(merge.step(proved(1, 2)), Action::Wait, "of another head");
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
    assert_eq!(merge.step(merged(2)), Action::Wait);
    assert_eq!(merge.step(read(0, &[(1, 2)])), asks(2, 1, true));
    assert_eq!(merge.step(merged(3)), Action::Wait, "3 is missing since now");
}

#[test]
fn a_number_far_away_gives_up_nothing() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3 + FAR)])), asks(1, 0, true));
    merge.step(merged(1));
    assert!(merge.doubts().is_empty());
    assert_eq!(merge.step(proved(1, 1)), Action::Wait);
}

/// Else a number that comes when more than can be kept came before it would never be found.
#[test]
fn what_is_missing_is_found_behind_more_than_is_kept() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
    assert_eq!(merge.step(merged(1)), Action::Wait);
    assert!(merge.is_sought_in(1) && !merge.is_sought_in(0));
    let full = |outputs: &[(u64, u64)]| read_into(Room { count: 2, ..Room::ALL }, 1, outputs);
    assert_eq!(merge.step(full(&[(2, 5), (3, 7)])), Action::Wait);
    assert_eq!((merge.held(1), merge.again()), (3, None));
    assert_eq!(merge.step(full(&[(4, 1)])), asks(1, 1, true));
    merge.step(read(0, &[(1, 2), (2, 4)]));
    assert_eq!(merge.step(merged(2)), asks(2, 3, false), "5 is not missing");
    assert_eq!(merge.step(merged(5)), Action::Wait);
    assert_eq!((merge.again(), merge.missing()), (Some(1), None));
    merge.step(Event::Lost { partition: 1 });
    let told = Action::Merge {
        term: TERM,
        head: Position(5),
        count: 1,
        late: 1,
        is_missing: true,
        give_up: 0,
    };
    assert_eq!(
        merge.step(read(1, &[(2, 5), (3, 7), (4, 1)])),
        told,
        "1 is there, which the base knows"
    );
}

#[test]
fn a_base_that_comes_back_older_is_merged_anew() {
    let mut merge = leader();
    merge.step(read(1, &[(1, 1)]));
    merge.step(merged(2));
    assert_eq!(merge.step(Event::Moved { head: Position(1) }), Action::Wait);
    assert_eq!((merge.held(1), merge.acknowledge(1)), (0, None));
    assert_eq!(merge.step(read(1, &[(1, 1)])), asks(1, 1, false));
}

/// Else all of a line that comes in reverse would be kept while the first is looked for.
#[test]
fn only_the_lowest_are_kept_by_their_number_and_by_their_bytes() {
    let rooms = [Room { count: 2, ..Room::ALL }, Room { bytes: 25, ..Room::ALL }];
    for room in rooms {
        let mut merge = leader();
        merge.step(read_into(room, 1, &[(1, 9), (2, 7), (3, 5), (4, 11), (5, 3)]));
        assert_eq!(merge.bytes(1), 20);
        merge.step(merged(1));
        merge.step(read(0, &[(1, 2), (2, 4), (3, 6)]));
        assert_eq!(merge.step(read_into(room, 1, &[(6, 1)])), asks(1, 4, false), "1 to 4");
        assert_eq!((merge.step(merged(5)), merge.bytes(1)), (Action::Wait, 0));
        assert_eq!((merge.again(), merge.missing()), (Some(1), None), "5 was not kept");
    }
    let mut merge = leader();
    let large = Room { bytes: 5, ..Room::ALL };
    assert_eq!(
        merge.step(read_into(large, 1, &[(1, 1)])),
        asks(1, 1, false),
        "one in any case"
    );
}

/// What comes behind more than can be in hand is merged all the same, and is not told of when it is read in its turn.
#[test]
fn what_was_glimpsed_is_merged_and_read_again() {
    let room = Room { count: 2, ..Room::ALL };
    let mut merge = leader();
    merge.step(read_into(room, 1, &[(1, 101), (2, 103)]));
    merge.step(merged(1));
    assert_eq!(merge.step(glimpsed(room, &[(7, 5), (8, 1)])), asks(1, 1, true));
    assert_eq!(
        (merge.held(1), merge.last(1)),
        (2, Some(Position(2))),
        "they are not in hand"
    );
    merge.step(merged(2));
    assert_eq!(merge.step(read(0, &[(1, 2), (2, 4)])), asks(2, 1, true));
    assert_eq!(merge.step(merged(3)), Action::Wait);
    assert_eq!(merge.step(glimpsed(room, &[(9, 3)])), asks(3, 3, true), "3 to 5");
    merge.step(merged(6));
    assert_eq!(merge.acknowledge(1), None, "101 waits");
    merge.step(read(1, &[(7, 5), (8, 1), (9, 3)]));
    let told: Vec<_> = merge.late().map(|(place, _)| place.0).collect();
    assert_eq!(told, [1, 3, 5], "the base knows that these were not passed");
    assert_eq!(
        merge.again(),
        None,
        "nothing of what was glimpsed is waited for any more"
    );
}

/// Read in its turn before it is merged it is the same, and not another of that number.
#[test]
fn what_was_glimpsed_and_is_read_before_its_turn_counts_once() {
    let mut merge = leader();
    merge.step(read(1, &[(1, 101)]));
    merge.step(merged(1));
    merge.step(glimpsed(Room::ALL, &[(2, 3), (3, 3)]));
    merge.step(read(1, &[(2, 3), (3, 3)]));
    assert_eq!(merge.bytes(1), 30, "the second 3 is another");
    merge.step(read(0, &[(1, 2)]));
    merge.step(read(1, &[(4, 1)]));
    let Action::Merge { late, .. } = merge.step(merged(4)) else {
        panic!("the second 3 is told of");
    };
    assert_eq!(late, 1);
}

#[test]
fn what_was_given_up_and_is_glimpsed_then_is_no_news() {
    let mut merge = leader();
    merge.step(read(1, &[(1, 3)]));
    merge.step(merged(1));
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
    assert_eq!(merge.step(glimpsed(Room::ALL, &[(2, 1)])), Action::Wait);
    let Action::Merge { late, .. } = merge.step(merged(2)) else {
        panic!("it has to be told of");
    };
    assert_eq!(late, 1);
}

/// Found by a review: a store may give the time of a number that is missing anew, for its clock was set back, and what came
/// meanwhile was given up by what had been proved before.
#[test]
fn what_is_given_up_too_early_has_to_be_proved_anew() {
    let mut merge = leader();
    assert_eq!(merge.step(read(1, &[(1, 3)])), asks(1, 0, true));
    merge.step(merged(1));
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
    assert_eq!(
        merge.step(merged(1)),
        Action::Wait,
        "the base says that it is not time yet"
    );
    assert_eq!((merge.missing(), merge.doubts()), (Some(Position(1)), vec![0, 1]));
    assert_eq!(merge.step(proved(1, 1)), gives_up(1, 1));
    assert_eq!(merge.step(merged(2)), Action::Wait);
}
