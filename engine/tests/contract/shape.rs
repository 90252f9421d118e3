//! What a line is: told once, before anything depends on it.

use conga::core::shape::{Order, Shape};

use crate::Fixture;
use crate::pair::Pair;

const NONE: Shape = Shape::of(Order::None);
const SERIAL: Shape = Shape::of(Order::Key { serial: true });

fn four() -> Shape {
    "key/4".parse().expect("a shape")
}

pub(crate) async fn who_wishes_first_is_heard<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.shape(None).await, None, "nobody has said");
    assert_eq!(pair.shape(Some(SERIAL)).await, Some(SERIAL));
    assert_eq!(pair.shape(Some(NONE)).await, Some(SERIAL), "and nobody after it");
    assert_eq!(pair.shape(None).await, Some(SERIAL));
    pair.finish().await;
}

pub(crate) async fn what_waits_has_no_order_yet<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(3).await;
    assert_eq!(pair.shape(None).await, None);
    assert_eq!(pair.shape(Some(NONE)).await, Some(NONE));
    pair.finish().await;
}

pub(crate) async fn what_waits_is_in_its_partition<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    pair.send_many(1).await;
    assert_eq!(pair.shape(Some(four())).await, Some(Shape::TOTAL));
    assert_eq!(pair.shape(Some(NONE)).await, Some(Shape::TOTAL), "and so it stays");
    pair.finish().await;
}

pub(crate) async fn partitions_are_kept<F: Fixture>() {
    let pair = Pair::open::<F>().await;
    assert_eq!(pair.shape(Some(four())).await, Some(four()));
    pair.send_many(1).await;
    assert_eq!(pair.shape(None).await, Some(four()));
    pair.finish().await;
}

pub(crate) async fn a_line_that_was_worked_at_is_total<F: Fixture>() {
    let mut pair = Pair::open::<F>().await;
    pair.send_many(2).await;
    pair.take("p", 1).await;
    assert_eq!(pair.shape(None).await, Some(Shape::TOTAL));
    pair.drain("p", "s").await;
    assert_eq!(pair.shape(Some(NONE)).await, Some(Shape::TOTAL));
    pair.finish().await;
}
