//! A witness of a line where not all messages keep their order.

use conga::core::shape::Order;

use super::super::load::{Load, Until};
use super::{Verdict, Witness};

/// What a witness of four messages says; odd and even numbers are two keys.
fn says(order: Order, numbers: &[u64]) -> Verdict {
    let load = Load::new(Until::Count(4), None, 40).keyed((2, 0));
    let mut witness = Witness::new(load, 4).by(order);
    for number in numbers {
        let load = &witness.load;
        let key = load.key(*number).expect("a key");
        let line = format!(
            "{{\"position\":{number},\"id\":\"{}\",\"key\":\"{key}\",\"payload\":{},\"attempts\":1}}",
            load.id(*number),
            load.payload_of(*number).text(),
        );
        witness.output(line.as_bytes());
    }
    witness.end().verdict
}

/// The numbers of one key, and one of the other.
fn keys() -> (Vec<u64>, Vec<u64>) {
    let load = Load::new(Until::Count(4), None, 40).keyed((2, 0));
    (1..=4).partition(|number| load.key(*number) == load.key(1))
}

#[test]
fn each_order_is_judged_by_itself() {
    let (one, other) = keys();
    assert!(one.len() >= 2 && !other.is_empty(), "{one:?} {other:?}");
    let key = Order::Key { serial: false };
    let between = [other.clone(), one.clone()].concat();
    let within: Vec<u64> = one.iter().rev().chain(&other).copied().collect();
    assert!(says(key, &between).passed());
    assert_eq!(says(key, &within).reordered, one.len() as u64 - 1);
    assert!(says(Order::None, &within).passed());
}

#[test]
fn what_is_lost_doubled_or_another_is_found_in_any_order() {
    let doubled = says(Order::None, &[4, 1, 1, 2, 3]);
    assert_eq!((doubled.duplicated, doubled.lost), (1, 0));
    assert_eq!(says(Order::None, &[4, 2, 3]).lost, 1);
    let load = Load::new(Until::Count(1), None, 40);
    let mut witness = Witness::new(load, 1).by(Order::None);
    witness.output(b"{\"position\":1,\"id\":\"x-1\",\"payload\":1}");
    assert_eq!(witness.end().verdict.differing, 1);
}
