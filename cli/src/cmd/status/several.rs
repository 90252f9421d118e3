//! A line of several partitions as one: what can be added up is.

use conga::core::message::Position;
use conga::core::partition::{Blocker, Keep, Oldest, Rate, Status};

/// All partitions in one; each of which there is at least one. What blocks it is said apart, for it is somewhere: [`blocked`].
pub(super) fn sum(each: &[Status]) -> Option<Status> {
    let (first, others) = each.split_first()?;
    Some(others.iter().fold(first.clone(), add))
}

/// Which of the partitions has what blocks the line, so that it says more than that of another: one that waits for a person does.
pub(super) fn blocked(each: &[Status]) -> Option<usize> {
    let halted = each.iter().position(is_halted);
    halted.or_else(|| each.iter().position(|status| status.blocker.is_some()))
}

/// Whether it waits for a person.
pub(super) fn is_halted(status: &Status) -> bool {
    matches!(status.blocker, Some(Blocker::Halted { .. }))
}

/// Out of which partition the message of this sequence comes, where the line goes by them.
pub(super) fn home(each: &[Status], sequence: Position) -> usize {
    // Less than their count.
    usize::try_from(sequence.0 % each.len().max(1) as u64).unwrap_or(0)
}

/// Whether it waits for a person because of this number.
fn is_halted_at(status: &Status, sequence: Position) -> bool {
    matches!(&status.blocker, Some(Blocker::Halted { id, .. }) if id.as_str() == sequence.to_string())
}

/// The line as a whole, where what comes out of the partitions is merged in the base: what waits there for its turn is processed.
/// It is blocked by the partition, if by any, out of which what is next has to come.
pub(super) fn merged(all: Status, base: Status, next: &Status) -> Status {
    Status {
        processed: all.processed + all.output,
        output: base.output,
        dead: all.dead + base.dead,
        head: base.head,
        // One that a person has to decide about has come.
        missing: base.missing.filter(|_| !is_halted_at(next, base.head)),
        term: base.term,
        leader: base.leader,
        consumer: base.consumer,
        consumer_term: base.consumer_term,
        consumer_since: base.consumer_since,
        oldest: Oldest {
            output: base.oldest.output,
            ..all.oldest
        },
        keep: all.keep.map(|keep| Keep {
            outputs: base.keep.map_or(keep.outputs, |base| base.outputs),
            ..keep
        }),
        ..all
    }
}

fn add(mut all: Status, one: &Status) -> Status {
    all.now = all.now.max(one.now);
    all.waiting += one.waiting;
    all.in_flight += one.in_flight;
    all.processed += one.processed;
    all.output += one.output;
    all.recorded += one.recorded;
    all.dead += one.dead;
    all.halted += one.halted;
    let earlier = |a: Option<_>, b: Option<_>| a.into_iter().chain(b).min();
    all.oldest = Oldest {
        record: earlier(all.oldest.record, one.oldest.record),
        dead: earlier(all.oldest.dead, one.oldest.dead),
        output: earlier(all.oldest.output, one.oldest.output),
    };
    // The heads say how many have gone past them, and so does their sum.
    all.head = all.head.plus(one.head.past(Position::FIRST));
    all.next = all.next.plus(one.next.past(Position::FIRST));
    // Each has its part of the line's.
    all.control.rate = (all.control.rate.zip(one.control.rate))
        .and_then(|(all, one)| Rate::per_second(all.messages_per_second() + one.messages_per_second()));
    all.leader = all.leader.or_else(|| one.leader.clone());
    all.consumer = all.consumer.or_else(|| one.consumer.clone());
    all.processors.extend(one.processors.iter().cloned());
    all.processors.sort();
    all.processors.dedup();
    all.producers = all.producers.max(one.producers);
    all
}

#[cfg(test)]
mod tests {
    use conga::core::lease::OwnerId;
    use conga::core::message::{Body, Payload};
    use conga::core::partition::{CampaignRequest, ClaimRequest, Completion, Limits, Partition};
    use conga::core::term::Role;
    use conga::core::time::Micros;

    use super::*;

    #[test]
    fn what_waits_anywhere_waits() {
        let status = |count: usize| {
            let mut partition = Partition::default();
            partition.send(&vec![bytes::Bytes::from_static(b"x"); count]);
            partition.status(Micros(1))
        };
        let all = sum(&[status(2), status(3)]).unwrap();
        assert_eq!((all.waiting, all.head, all.in_flight), (5, Position(1), 0));
        assert!(sum(&[]).is_none());
    }

    #[test]
    fn the_rates_of_all_are_the_lines() {
        let limited = Rate::per_second(90.0).map(|rate| rate.divided(3));
        let mut part = Partition::default().status(Micros(1));
        part.control.rate = limited;
        let all = sum(&[part.clone(), part.clone(), part]).unwrap();
        let rate = all.control.rate.unwrap().messages_per_second();
        assert!((rate - 90.0).abs() < 0.001, "{rate}");
    }

    #[test]
    fn what_is_in_any_partition_is_in_the_line() {
        let mut partition = Partition::default();
        partition.send(&vec![bytes::Bytes::from_static(b"x"); 3]);
        let mut claim = ClaimRequest {
            owner: OwnerId::new("p"),
            max: 2,
            lease_us: 1_000_000,
            window: 9,
            below: None,
            limits: Limits::default(),
        };
        let claims = partition.claim(Micros(1), &claim);
        let done = Completion::Done(claims[1].record(Body::Result(Payload::string("x"))));
        partition.complete(Micros(1), &claim.owner, &[done]);
        for (owner, role) in [("c", Role::Consumer), ("s", Role::Leader)] {
            let request = CampaignRequest {
                owner: OwnerId::new(owner),
                role,
                lock_us: 1_000_000,
            };
            partition.campaign(Micros(1), &request);
        }
        let mut other = Partition::default();
        claim.owner = OwnerId::new("q");
        other.claim(Micros(1), &claim);
        let all = sum(&[other.status(Micros(1)), partition.status(Micros(2))]).unwrap();
        assert_eq!(
            (all.waiting, all.in_flight, all.processed, all.now),
            (1, 1, 1, Micros(2))
        );
        assert_eq!(
            (all.leader, all.consumer),
            (Some(OwnerId::new("s")), Some(OwnerId::new("c")))
        );
        assert_eq!(all.processors, [OwnerId::new("p"), OwnerId::new("q")]);
    }
}
