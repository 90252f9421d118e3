//! kill -9 of a processor: no child of its handler stays, whatever that does, and another processor does its work.

mod support;

use support::{Place, wait_for};

/// The processes of a group. What has ended and waits for init to hear of it does not count.
fn members(group: &str) -> Vec<String> {
    let stats = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        // After the name: the state, the parent, the group.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        (fields.get(2) == Some(&group) && fields[0] != "Z").then_some(stat)
    });
    stats.collect()
}

/// A processor whose children do `work` when they get their first message is killed in the midst of it.
fn story(work: &str) {
    let place = Place::sqlite();
    place.done(&["send", "--count", "4"]);
    let groups = || std::fs::read_to_string(place.path().join("groups")).unwrap_or_default();
    let handler = format!("exec:read line; echo $$ >> groups; {work}");
    let service = place.service(&["run", "--handler", &handler, "--workers", "2", "--concurrency", "2"]);
    wait_for("both children at work", || groups().lines().count() == 2);
    let groups: Vec<String> = groups().lines().map(str::to_owned).collect();
    assert!(groups.iter().all(|group| !members(group).is_empty()));
    // By kill -9.
    drop(service);
    for group in &groups {
        wait_for("the end of all that was started", || members(group).is_empty());
    }
    let service = place.service(&["run", "--handler", "exec:cat"]);
    place.done(&["receive", "--count", "4"]);
    let did = service.end();
    assert_eq!((&did["done"], &did["dead"]), (&4.into(), &0.into()));
}

#[test]
fn a_child_that_looks_at_its_input_ends() {
    story("cat > /dev/null");
}

#[test]
fn a_child_that_looks_at_nothing_is_killed_with_what_it_has_started() {
    story("trap '' TERM HUP; sleep 600 & sleep 600; sleep 600");
}
