//! `conga verify` by each order: what is right passes, and a swap, a loss and a duplicate are found where they are one.

mod support;

use serde_json::Value;
use support::{Place, parse};

/// An output: its position, the end of its id, its key, and from when to when it was worked on, in seconds.
#[derive(Clone, Copy)]
struct Out<'a>(u64, &'a str, &'a str, (u64, u64));

impl Out<'_> {
    fn line(&self) -> String {
        let Self(position, id, key, (from, to)) = self;
        let time = |second: &u64| format!("2026-01-02T03:04:{second:02}.000000Z");
        let key = if key.is_empty() {
            String::new()
        } else {
            format!("\"key\":\"{key}\",")
        };
        format!(
            "{{\"position\":{position},\"id\":\"{id}\",{key}\"payload\":0,\"attempts\":1,\"created\":\"{}\",\"processing\":\"{}\",\
             \"processed\":\"{}\",\"sequencing\":\"{}\",\"sequenced\":\"{}\"}}\n",
            time(from),
            time(from),
            time(to),
            time(to),
            time(to)
        )
    }
}

struct Desk(Place);

impl Desk {
    /// Whether it passes, and how many are lost, doubled and out of order.
    fn says(&self, outputs: &[Out], args: &[&str]) -> (bool, [u64; 3]) {
        let text: String = outputs.iter().map(Out::line).collect();
        std::fs::write(self.0.path().join("out"), text).expect("written");
        let output = self.0.run(&[&["verify", "out", "--json"], args].concat());
        let verdict: Value = parse(&output.stdout);
        assert_eq!(output.status.success(), verdict["passed"] == true, "{verdict}");
        let count = |name: &str| verdict[name].as_u64().expect("a number");
        let counts = ["lost", "duplicated", "reordered"].map(count);
        (output.status.success(), counts)
    }
}

const TOTAL: &[&str] = &["--order", "total"];
const KEY: &[&str] = &["--order", "key"];
const SERIAL: &[&str] = &["--order", "key", "--per-key", "serial"];
const NONE: &[&str] = &["--order", "none"];

/// Two of one key, one of another and one without.
const LINE: [Out; 4] = [
    Out(1, "a", "k", (1, 5)),
    Out(2, "b", "l", (1, 5)),
    Out(3, "c", "k", (5, 6)),
    Out(4, "d", "", (1, 2)),
];

#[test]
fn each_order_finds_what_is_wrong_in_it_and_nothing_else() {
    let desk = Desk(Place::sqlite());
    let [a, b, c, d] = LINE;
    for (outputs, wrong) in [
        // lost, doubled, and out of order by total, by key and by none
        (&[a, b, c, d][..], [0, 0, 0, 0, 0]),
        (&[b, a, c, d], [0, 0, 1, 0, 0]),
        (&[a, b, d, c], [0, 0, 1, 0, 0]),
        (&[c, b, a, d], [0, 0, 2, 1, 0]),
        (&[a, c, d], [1, 0, 0, 0, 0]),
        (&[b, d], [2, 0, 0, 0, 0]),
        (&[a, b, c, d, a], [0, 1, 1, 1, 0]),
        (&[a, b, c, d, Out(5, "b", "l", (6, 7))], [0, 1, 0, 0, 0]),
        (&[a, b, c, d, Out(4, "e", "", (1, 2))], [0, 1, 1, 0, 0]),
    ] {
        let [lost, doubled, total, key, none] = wrong;
        for (args, reordered) in [(TOTAL, total), (KEY, key), (SERIAL, key), (NONE, none)] {
            let counts = [lost, doubled, reordered];
            let ids: String = outputs.iter().map(|out| out.1).collect();
            assert_eq!(
                desk.says(outputs, args),
                (counts == [0; 3], counts),
                "{ids} by {args:?}"
            );
        }
    }
}

#[test]
fn serial_is_one_after_the_other_within_a_key() {
    let desk = Desk(Place::sqlite());
    let [a, b, c, d] = LINE;
    let early = Out(3, "c", "k", (4, 6));
    assert_eq!(desk.says(&[a, b, early, d], SERIAL), (false, [0, 0, 1]));
    assert_eq!(desk.says(&[a, b, early, d], KEY), (true, [0, 0, 0]));
    // The other key's was worked on meanwhile, and may be.
    assert_eq!(desk.says(&[b, a, c, d], SERIAL), (true, [0, 0, 0]));
    let refused = desk.0.run(&["verify", "out", "--per-key", "serial"]);
    assert_eq!(refused.status.code(), Some(2));
}

/// Of several partitions each has positions of its own: the same number twice is no duplicate, a gap is one's own.
#[test]
fn partitions_are_told_apart_by_their_keys() {
    let desk = Desk(Place::sqlite());
    // CRC-32 of `k` is odd, that of `m` even.
    let [k1, k2, k3] = [(1, "a"), (2, "b"), (3, "c")].map(|(position, id)| Out(position, id, "k", (1, 2)));
    let [m1, m2] = [(1, "d"), (2, "e")].map(|(position, id)| Out(position, id, "m", (1, 2)));
    let key = ["--order", "key", "--partitions", "2"];
    assert_eq!(desk.says(&[k1, m1, k2, k3, m2], &key), (true, [0; 3]));
    assert_eq!(
        desk.says(&[m1, m2, k1, k2, k3], &key),
        (true, [0; 3]),
        "between partitions"
    );
    assert_eq!(
        desk.says(&[k1, k3, k2, m1, m2], &key),
        (false, [0, 0, 1]),
        "within a key"
    );
    assert_eq!(
        desk.says(&[k1, k3, m1, m2], &key),
        (false, [1, 0, 0]),
        "lost in one of them"
    );
    assert_eq!(
        desk.says(&[k1, m1, m2, k1, k2, k3], &key),
        (false, [0, 1, 1]),
        "doubled"
    );
    let another = Out(2, "f", "k", (1, 2));
    assert_eq!(desk.says(&[k1, m1, m2, k2, another, k3], &key), (false, [0, 1, 1]));
    let none = ["--order", "none", "--partitions", "2"];
    assert_eq!(desk.says(&[k1, m1, m2, k2, another, k3], &none).1[2], 0, "no order");
}
