//! Handlers that are children: what they can do wrong, and that none stays.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use conga::core::lease::Attempt;
use conga::core::message::{Id, Payload, Position};
use conga::core::time::Micros;
use conga::process::exec::{Exec, ExecOptions};
use conga::process::{Handler as _, HandlerError, Message};

fn message(position: u64) -> Message {
    Message {
        position: Position(position),
        id: Id::given(format!("id-{position}")),
        sequence: None,
        key: None,
        payload: Payload::string(&format!("p{position}")),
        attempt: Attempt(1),
        created: Micros(1),
        processing: Micros(2),
    }
}

fn exec(command: &str) -> Exec {
    Exec::new(ExecOptions::new(command))
}

async fn ask(exec: &Exec, position: u64) -> Result<String, HandlerError> {
    let answer = exec.clone().handle(message(position));
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await;
    answer
        .expect("an answer or a failure")
        .map(|payload| payload.text().to_owned())
}

/// Why it failed; that has to be passing.
async fn failure(exec: &Exec, position: u64) -> String {
    let error = ask(exec, position).await.unwrap_err();
    assert!(!error.permanent, "{error}");
    error.reason
}

/// The processes of a group, zombies of this process too. Those of others, their own parents have to look after.
fn members(group: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let stats = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        // After the name: the state, the parent, the group.
        let after = stat.rsplit_once(") ")?.1;
        let mut fields = after.split(' ');
        let (state, parent, of) = (fields.next()?, fields.next()?, fields.next()?);
        (of == group && (state != "Z" || parent == own)).then_some(stat)
    });
    stats.collect()
}

async fn until_gone(group: &str) {
    let began = Instant::now();
    while !members(group).is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "still there: {:?}",
            members(group)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn pids(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A handler that first writes its process id, which is that of its group.
fn noted(folder: &tempfile::TempDir, rest: &str) -> (PathBuf, String) {
    let file = folder.path().join("pids");
    let command = format!("echo $$ >> '{}'; {rest}", file.display());
    (file, command)
}

#[tokio::test]
async fn a_message_that_comes_back_is_its_own_result() {
    let exec = exec("cat");
    for position in 1..=100 {
        assert_eq!(ask(&exec, position).await.unwrap(), format!("\"p{position}\""));
    }
    exec.close().await;
    assert_eq!(failure(&exec, 101).await, "the processor ends");
}

#[tokio::test]
async fn the_simplest_child_names_no_message() {
    let exec = exec("while read line; do echo '{\"payload\":[1,2]}'; done");
    assert_eq!(ask(&exec, 1).await.unwrap(), "[1,2]");
    assert_eq!(ask(&exec, 2).await.unwrap(), "[1,2]");
}

#[tokio::test]
async fn an_error_is_told_as_the_child_says_it() {
    let exec = exec(
        "read line; echo '{\"error\":\"not now\"}'; read line; echo '{\"error\":\"never\",\"permanent\":true}'; read line",
    );
    assert_eq!(failure(&exec, 1).await, "not now");
    assert_eq!(ask(&exec, 2).await, Err(HandlerError::permanent("never")));
}

#[tokio::test]
async fn several_at_once_are_answered_in_any_order() {
    let options = ExecOptions {
        at_once: 3,
        ..ExecOptions::new("while read a && read b && read c; do echo \"$c\"; echo \"$a\"; echo \"$b\"; done")
    };
    let exec = Exec::new(options);
    let (a, b, c) = tokio::join!(ask(&exec, 1), ask(&exec, 2), ask(&exec, 3));
    assert_eq!([a.unwrap(), b.unwrap(), c.unwrap()], ["\"p1\"", "\"p2\"", "\"p3\""]);
}

#[tokio::test]
async fn of_several_at_once_each_has_to_be_named() {
    let options = ExecOptions {
        at_once: 2,
        ..ExecOptions::new("while read line; do echo '{\"payload\":1}'; done")
    };
    let why = failure(&Exec::new(options), 1).await;
    assert!(why.contains("it has to name `position` or `id`"), "{why}");
}

#[tokio::test]
async fn two_attempts_at_one_message_are_told_apart_or_get_the_same() {
    let options = ExecOptions {
        at_once: 2,
        ..ExecOptions::new("read a; read b; echo \"$b\"; echo \"$a\"; read c")
    };
    let exec = Exec::new(options);
    let again = Message {
        attempt: Attempt(2),
        ..message(1)
    };
    let (first, second) = tokio::join!(exec.clone().handle(message(1)), exec.clone().handle(again));
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn what_is_no_answer_fails_and_the_child_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(
        &folder,
        "read line; echo 'hello there'; read line; echo '{\"payload\":2}'; sleep 60",
    );
    let exec = exec(&command);
    let why = failure(&exec, 1).await;
    assert!(why.contains("no answer") && why.contains("`hello there`"), "{why}");
    // The same child would now answer with what may have been meant for the first.
    let why = failure(&exec, 2).await;
    assert!(why.contains("`hello there`"), "{why}");
    assert_eq!(pids(&file).len(), 2);
}

#[tokio::test]
async fn an_answer_to_a_message_that_it_does_not_have_is_none() {
    let why = failure(&exec("read line; echo '{\"position\":9,\"payload\":1}'; sleep 60"), 1).await;
    assert!(why.contains("it has no such message"), "{why}");
}

#[tokio::test]
async fn a_line_without_end_is_not_read_for_ever() {
    let why = failure(&exec("read line; tr '\\0' x < /dev/zero"), 1).await;
    assert!(why.contains("a line of more than") && why.len() < 300, "{why}");
}

#[tokio::test]
async fn who_exits_amidst_a_message_fails_it_with_its_status_and_is_replaced() {
    let exec =
        exec("read line; case $line in *p1*) printf '{\"payl'; exit 7;; esac; echo '{\"payload\":2}'; read line");
    let why = failure(&exec, 1).await;
    assert!(why.contains("exit status: 7"), "{why}");
    assert_eq!(ask(&exec, 2).await.unwrap(), "2");
}

#[tokio::test]
async fn what_was_answered_before_the_end_counts() {
    let options = ExecOptions {
        at_once: 2,
        ..ExecOptions::new("read a; read b; echo \"$a\"; kill -9 $$")
    };
    let exec = Exec::new(options);
    let (first, second) = tokio::join!(ask(&exec, 1), failure(&exec, 2));
    assert_eq!(first.unwrap(), "\"p1\"");
    assert!(second.contains("signal: 9"), "{second}");
}

#[tokio::test]
async fn who_exits_without_reading_is_started_again_more_and_more_slowly() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "exit 3");
    let exec = exec(&command);
    let began = Instant::now();
    for position in 1..=4 {
        let why = failure(&exec, position).await;
        assert!(why.contains("exit status: 3"), "{why}");
    }
    // 0, 0, 100 and 200 ms.
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(pids(&file).len(), 4);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_told() {
    let why = failure(&exec("/nowhere/at-all"), 1).await;
    assert!(why.contains("exit status: 127"), "{why}");
}

#[tokio::test]
async fn who_closes_its_standard_input_fails_what_it_has() {
    let options = ExecOptions {
        grace: Duration::from_millis(200),
        ..ExecOptions::new("exec <&-; sleep 60")
    };
    let exec = Exec::new(options);
    // More than a pipe holds: sooner or later writing fails, whenever the shell gets to close it.
    let large = Message {
        payload: Payload::string(&"x".repeat(1 << 20)),
        ..message(1)
    };
    let error = exec.clone().handle(large).await.unwrap_err();
    assert!(error.reason.contains("closed its standard input"), "{error}");
}

#[tokio::test]
async fn who_closes_its_standard_output_fails_what_it_has() {
    let options = ExecOptions {
        grace: Duration::from_millis(200),
        ..ExecOptions::new("read line; exec >&-; sleep 60")
    };
    let why = failure(&Exec::new(options), 1).await;
    assert!(why.contains("closed its standard output"), "{why}");
}

#[tokio::test]
async fn who_is_late_is_killed_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    // It does not hear SIGTERM, nor does what it has started.
    let (file, command) = noted(
        &folder,
        "trap '' TERM; sleep 600 & while read a; do case $a in *p1*) ;; *) echo \"$a\";; esac; done; sleep 600",
    );
    let options = ExecOptions {
        at_once: 2,
        timeout: Some(Duration::from_millis(300)),
        grace: Duration::from_millis(100),
        ..ExecOptions::new(command)
    };
    let exec = Exec::new(options);
    assert_eq!(failure(&exec, 1).await, "no result within 300ms");
    assert_eq!(ask(&exec, 2).await.unwrap(), "\"p2\"");
    until_gone(&pids(&file)[0]).await;
}

#[tokio::test]
async fn only_the_late_message_is_late_and_its_neighbours_fail_too() {
    let options = ExecOptions {
        at_once: 2,
        timeout: Some(Duration::from_millis(500)),
        ..ExecOptions::new("exec sleep 600")
    };
    let exec = Exec::new(options);
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        failure(&exec, 2).await
    };
    let (first, second) = tokio::join!(failure(&exec, 1), second);
    assert_eq!(first, "no result within 500ms");
    assert!(second.contains("late with another message"), "{second}");
}

#[tokio::test]
async fn what_is_given_up_ends_its_child() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "echo ready >&2; exec sleep 600");
    let exec = exec(&command);
    // A tower layer is the other way to have a limit.
    let limited = tower::timeout::Timeout::new(exec.clone(), Duration::from_millis(300));
    let error = limited.handle(message(1)).await.unwrap_err();
    assert!(!error.permanent && error.reason.contains("timed out"), "{error}");
    until_gone(&pids(&file)[0]).await;
}

#[tokio::test]
async fn nothing_is_left_of_children_whose_handler_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "trap '' TERM; sleep 600 & read a; echo \"$a\"; sleep 600");
    let exec = exec(&command);
    ask(&exec, 1).await.unwrap();
    assert!(members(&pids(&file)[0]).len() >= 2);
    drop(exec);
    until_gone(&pids(&file)[0]).await;
}

#[tokio::test]
async fn who_ends_with_its_input_ends_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(
        &folder,
        &format!("cat; echo ended >> '{}/end'", folder.path().display()),
    );
    let exec = exec(&command);
    ask(&exec, 1).await.unwrap();
    exec.close().await;
    assert_eq!(std::fs::read_to_string(folder.path().join("end")).unwrap(), "ended\n");
    assert!(members(&pids(&file)[0]).is_empty());
}

#[tokio::test]
async fn a_flood_on_standard_error_holds_nothing_up() {
    let exec = exec("head -c 3000000 /dev/zero | tr '\\0' x >&2; seq 20000 >&2; cat");
    assert_eq!(ask(&exec, 1).await.unwrap(), "\"p1\"");
}

#[tokio::test]
async fn children_are_as_many_as_are_needed_and_no_more_than_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "while read a; do sleep 0.05; echo \"$a\"; done");
    let options = ExecOptions {
        workers: 4,
        ..ExecOptions::new(command)
    };
    let exec = Exec::new(options);
    for position in 1..=3 {
        ask(&exec, position).await.unwrap();
    }
    assert_eq!(pids(&file).len(), 1);
    let all = (4..=23).map(|position| ask(&exec, position));
    for (index, answer) in futures_util::future::join_all(all).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), format!("\"p{}\"", index + 4));
    }
    assert_eq!(pids(&file).len(), 4);
}

/// Children that say when they are ready, and have so long for it.
fn readied(command: String, ready: Duration) -> ExecOptions {
    ExecOptions {
        ready: Some(ready),
        ..ExecOptions::new(command)
    }
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn children_that_are_started_ahead_get_the_messages_once_they_are_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(
        &folder,
        &format!(
            "sleep 0.1; echo $$ >> '{}/ready'; echo '{{\"ready\":true}}'; while read a; do sleep 0.05; echo \"$a\"; done",
            folder.path().display()
        ),
    );
    let exec = Exec::new(ExecOptions {
        workers: 3,
        ..readied(command, LONG)
    });
    exec.start().await;
    assert_eq!(pids(&folder.path().join("ready")).len(), 3, "all are waited for");
    let all = (1..=9).map(|position| ask(&exec, position));
    for (answer, position) in futures_util::future::join_all(all).await.into_iter().zip(1..) {
        assert_eq!(answer.unwrap(), format!("\"p{position}\""));
    }
    exec.start().await;
    assert_eq!(pids(&file).len(), 3, "and no other is started");
    exec.close().await;
}

#[tokio::test]
async fn the_time_of_a_message_does_not_count_before_its_child_is_ready() {
    let exec = Exec::new(ExecOptions {
        timeout: Some(Duration::from_millis(400)),
        ..readied("sleep 1; echo '{\"ready\":true}'; cat".to_owned(), LONG)
    });
    assert_eq!(ask(&exec, 1).await.unwrap(), "\"p1\"");
}

#[tokio::test]
async fn a_child_that_does_not_get_ready_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "exec sleep 600");
    let exec = Exec::new(readied(command, Duration::from_millis(300)));
    exec.start().await;
    let why = failure(&exec, 1).await;
    assert_eq!(why, "the handler was not ready within 300ms");
    let started = pids(&file);
    assert_eq!(started.len(), 2);
    for group in started {
        until_gone(&group).await;
    }
}

#[tokio::test]
async fn a_child_that_ends_before_it_is_ready_holds_nobody_up() {
    let exec = Exec::new(readied("exit 4".to_owned(), LONG));
    exec.start().await;
    let why = failure(&exec, 1).await;
    assert!(why.contains("exit status: 4"), "{why}");
}

#[tokio::test]
async fn who_should_say_that_it_is_ready_must_not_say_anything_else() {
    let command = "echo '{\"ready\":false}'; sleep 600";
    let why = failure(&Exec::new(readied(command.to_owned(), LONG)), 1).await;
    assert!(why.contains("no answer") && why.contains("ready"), "{why}");
    // Its number may be the right one, but it can't have read it.
    let command = "echo '{\"position\":1,\"payload\":0}'; sleep 600";
    let why = failure(&Exec::new(readied(command.to_owned(), LONG)), 1).await;
    assert!(why.contains("it has no such message"), "{why}");
}

#[tokio::test]
async fn who_says_that_it_is_ready_without_being_asked_is_not_wrong() {
    let exec = exec("echo '{\"ready\":true}'; cat");
    assert_eq!(ask(&exec, 1).await.unwrap(), "\"p1\"");
    assert_eq!(ask(&exec, 2).await.unwrap(), "\"p2\"");
}

#[tokio::test]
async fn a_message_that_is_given_up_before_its_child_is_ready_leaves_the_child_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (file, command) = noted(&folder, "sleep 1; echo '{\"ready\":true}'; cat");
    let exec = Exec::new(readied(command, LONG));
    let limited = tower::timeout::Timeout::new(exec.clone(), Duration::from_millis(300));
    limited.handle(message(1)).await.unwrap_err();
    assert_eq!(ask(&exec, 2).await.unwrap(), "\"p2\"");
    assert_eq!(pids(&file).len(), 1);
}
