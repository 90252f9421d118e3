//! The settings file: what it says of a service counts.

mod support;

use support::{Place, parse, wait_for};

fn with(text: &str) -> Place {
    let place = Place::sqlite();
    std::fs::write(place.path().join("conga.toml"), text).expect("written");
    place
}

#[test]
fn the_file_says_what_becomes_of_failures() {
    let place = with("on-dead = \"halt\"\nmax-attempts = 2\nhandler = \"exec:exec sh fails.sh\"\n");
    let fails = "while IFS= read -r line; do printf '{\"error\":\"no\"}\\n'; done\n";
    std::fs::write(place.path().join("fails.sh"), fails).expect("written");
    let service = place.service(&["run"]);
    place.fed(&["send"], b"x\n");
    wait_for("the line to halt", || place.status()["halted"] == 1);
    assert_eq!(service.end()["retried"], 1);
    let letter = parse(&place.done(&["dead", "list", "--json"]));
    assert_eq!((&letter["attempts"], &letter["halted"]), (&2.into(), &true.into()));
}

#[test]
fn the_file_says_what_the_line_is_and_how_long_a_number_may_be_missing() {
    let place = with("order = \"total\"\npartitions = 3\ngap-timeout = \"100ms\"\non-gap = \"tombstone\"\n");
    let _service = place.service(&["run"]);
    place.fed(
        &["send"],
        b"{\"sequence\":1,\"payload\":\"a\"}\n{\"sequence\":3,\"payload\":\"c\"}\n",
    );
    wait_for("all to be out", || place.status()["head"] == 4);
    let out = String::from_utf8(place.done(&["receive"])).expect("text");
    assert!(out.contains("sequence 2 did not come within 100ms"), "{out}");
    assert_eq!(place.status()["order"], "total/3");
}

#[test]
fn what_the_file_says_is_refused_as_if_it_was_typed() {
    for (text, told) in [
        ("max-crashes = 3\n", "at least 4"),
        ("max-attempts = 0\n", "at least 1"),
        ("partitions = 2\n", "--partitions needs --order"),
        ("order = \"none\"\non-dead = \"halt\"\n", "mark or skip"),
    ] {
        let refused = with(text).run(&["process"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{text}{said}");
    }
}
