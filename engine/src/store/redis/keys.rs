//! The keyspace: every key and channel of one partition, all behind one hash tag.

use super::subscription::Channels;
use crate::line::Line;
use crate::wake::Topic;

/// The names of one partition, `{orders}:…` for the line `orders`. Behind one tag they are in one slot of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// list: the input. Producers LPUSH, so the oldest entry is at the right end. An entry stays until it is
    /// delivered: that of position p is at index -(p - head + 1).
    pub(super) input: String,
    /// hash: the producers that number their messages, by name: the last number accepted, the mark that came with it, and
    /// the number of the latest session and the process that has it.
    pub(super) producers: String,
    /// sorted set: the same by when they were last heard of, in microseconds.
    pub(super) heard: String,
    /// hash: `head`, `next`, `term`, `processed`: how many wait for their turn, `looked`: when a claim last looked who is
    /// alive, `told`: when a deadline was last set, `ring`: how many slots `flight` has, and `numbered`: the last number
    /// of an owner; `full`: a claim has found the window full; and of the consumers `consumer_term`, `consumer_since`: when
    /// the latest became the active one, and `consumer`: its lock, `deadline_us|channel|owner`, the channel as in `alive`.
    /// What is not there has its initial value: 1, 1, 0. And of what stays, as `trim.lua` has it: `noted`, `gone`, `cut`,
    /// `safe`, `below`, `until`, `keep`, `trimmed`. `shape`: what the line is, where that was set;
    /// `in_place`: how many are delivered beyond the head, and `stopped`: hashes of keys of which more is ready, as
    /// `in_place.lua` has it.
    /// And of the control `flow` (not there: running), `flow_since`, `rate`: the
    /// interval between two messages in nanoseconds, and `bucket`: its credit in nanoseconds, and when that was so. `missing`: of
    /// the base of a merged line, since when the message at the head is missing.
    pub(super) meta: String,
    /// string: what is claimed and not yet delivered, a ring of slots of 16 bytes by position, as `prelude.lua` has it.
    pub(super) flight: String,
    /// hash: owners by the numbers that stand for them in `flight`.
    pub(super) numbers: String,
    /// sorted set: the positions that are free to be claimed again, by themselves.
    pub(super) free: String,
    /// sorted set: the positions that are delayed, by when they are due, in microseconds.
    pub(super) delayed: String,
    /// hash: of what is claimed and not done, by position, core's `partition/strikes.rs`: how many attempts do not count, and
    /// how often it was blamed for the death of its owner. Mostly empty.
    pub(super) strikes: String,
    /// hash: the tombstones of the dead letters at which the line is halted, as far as they are written, by position.
    pub(super) halted: String,
    /// sorted set, where order is by key: what is claimed and not delivered, by the hash of its key and its position.
    pub(super) keys: String,
    /// hash: the same, the hash of the key by the position.
    pub(super) keyed: String,
    /// sorted set: owners by their deadline, in microseconds.
    pub(super) owners: String,
    /// hash: owners by the channel that their process listens to as long as it lives.
    pub(super) alive: String,
    /// hash: the system of record, id → JSON. Before delivery it ends with `processed`, after it is the output.
    pub(super) record: String,
    /// list: notes of which records came out, the oldest first: packed by `cmsgpack`, the time of their delivery, the last
    /// position, and their ids.
    pub(super) kept: String,
    /// stream: what waits for its turn. `position`, and then `ids`: a JSON array of those of the positions from there on,
    /// whose results the record has, '' for one that was delivered before; or `open` and `died` (a tombstone), or nothing more (nothing comes out).
    pub(super) processed: String,
    /// list: the output. Consumers RPOP, so the oldest is at the right end.
    pub(super) output: String,
    /// stream: the dead letters. `position`, `id`, `reason`, `attempts`, `died`, `entry`.
    pub(super) dead: String,
    /// sorted set: of the base of a merged line, the places that it has passed without a result, by themselves.
    pub(super) passed: String,
    /// string: the leader's lock, `owner|deadline_us|channel`, the channel as in `alive`.
    pub(super) lock: String,
    /// string: what is written for replicas to have it, the time.
    pub(super) synced: String,
    /// channels: the hints, by [`Topic`].
    wake: [String; Topic::ALL.len()],
}

impl Keys {
    pub(super) fn of(line: &Line) -> Self {
        let tag = line.tag();
        let key = |name: &str| format!("{{{tag}}}:{name}");
        Self {
            input: key("in"),
            producers: key("producers"),
            heard: key("heard"),
            meta: key("meta"),
            flight: key("flight"),
            numbers: key("numbers"),
            free: key("free"),
            delayed: key("delayed"),
            strikes: key("strikes"),
            halted: key("halted"),
            keys: key("keys"),
            keyed: key("keyed"),
            owners: key("owners"),
            alive: key("alive"),
            record: key("record"),
            kept: key("kept"),
            processed: key("processed"),
            output: key("out"),
            dead: key("dead"),
            passed: key("passed"),
            lock: key("lock"),
            synced: key("synced"),
            wake: Topic::ALL.map(|topic| key(&format!("wake:{}", topic.name()))),
        }
    }

    /// The channel that one process listens to as long as it lives, and the server does. `prelude.lua` reads the
    /// server's name from it: what one server knows says nothing about who listens at another. And it reads by which
    /// question to ask, which the versions before sharded channels can not: to them such a name is of another server.
    pub(super) fn life(&self, channels: Channels, server: &str, process: &str) -> String {
        match channels {
            Channels::Plain => format!("{}:{server}:{process}", self.alive),
            Channels::Sharded => format!("{}:sharded/{server}/{process}", self.alive),
        }
    }

    /// The channel of a topic.
    pub(super) fn wake(&self, topic: Topic) -> &str {
        &self.wake[topic as usize]
    }

    /// Every key with its type as the command TYPE names it.
    pub(super) fn types(&self) -> [(&str, &'static str); 22] {
        [
            (&self.input, "list"),
            (&self.producers, "hash"),
            (&self.heard, "zset"),
            (&self.meta, "hash"),
            (&self.flight, "string"),
            (&self.numbers, "hash"),
            (&self.free, "zset"),
            (&self.delayed, "zset"),
            (&self.strikes, "hash"),
            (&self.halted, "hash"),
            (&self.keys, "zset"),
            (&self.keyed, "hash"),
            (&self.owners, "zset"),
            (&self.alive, "hash"),
            (&self.record, "hash"),
            (&self.kept, "list"),
            (&self.processed, "stream"),
            (&self.output, "list"),
            (&self.dead, "stream"),
            (&self.passed, "zset"),
            (&self.lock, "string"),
            (&self.synced, "string"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_the_partitions_tag() {
        let line: Line = "orders".parse().expect("a name");
        let keys = Keys::of(&line.partition(3));
        assert_eq!(keys.input, "{orders.3}:in");
        assert_eq!(keys.wake(Topic::Output), "{orders.3}:wake:out");
        assert!(keys.types().iter().all(|(key, _)| key.starts_with("{orders.3}:")));
    }

    /// How the versions before sharded channels read of which server a name is: they ask of none of theirs, and so take
    /// nobody for dead to whose sharded channel nobody listens in their way.
    #[test]
    fn earlier_versions_take_a_sharded_channel_for_one_of_another_server() {
        let keys = Keys::of(&"orders".parse().expect("a name"));
        let life = |channels| keys.life(channels, "abc", "p");
        assert!(life(Channels::Plain).contains(":abc:"));
        assert!(!life(Channels::Sharded).contains(":abc:"));
        assert!(life(Channels::Sharded).contains("/abc/"));
    }
}
