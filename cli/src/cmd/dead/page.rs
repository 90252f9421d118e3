//! Dead letters as they are printed: for programs, in a table, on a page.

use conga::dead::DeadLetter;
use serde_json::{Value, json};

use crate::text;

/// A dead letter, and of which partition.
pub(super) type Listed = (Option<usize>, DeadLetter);

/// An object a line.
pub(super) fn lines(letters: &[Listed]) -> String {
    let line = |(partition, letter): &Listed| {
        let mut object = json!({
            "position": letter.position.0,
            "id": letter.id.as_str(),
            "reason": letter.reason,
            "attempts": letter.attempts.0,
            "died": letter.died.to_string(),
            "halted": letter.is_halted,
        });
        if let Some(partition) = partition {
            object["partition"] = (*partition).into();
        }
        format!("{object}\n")
    };
    letters.iter().map(line).collect()
}

/// A line each; on a terminal no wider than that. With a column that says of which partition they are, if they are of any.
pub(super) fn table(letters: &[Listed]) -> String {
    if letters.is_empty() {
        return "no dead letters\n".to_owned();
    }
    let ids: Vec<_> = letters.iter().map(|(_, letter)| one_line(letter.id.as_str())).collect();
    let wide = ids.iter().map(|id| id.chars().count()).max().unwrap_or(0).clamp(2, 40);
    let parted = letters.iter().any(|(partition, _)| partition.is_some());
    let width = text::width();
    let row = |[partition, position, id, attempts, died, reason]: [&str; 6]| {
        let partition = if parted {
            format!("{partition:>9}  ")
        } else {
            String::new()
        };
        let line = format!("{partition}{position:>10}  {id:wide$}  {attempts:>8}  {died:27}  {reason}");
        cut(line.trim_end(), width) + "\n"
    };
    let mut table = row(["partition", "position", "id", "attempts", "died", "reason"]);
    for ((partition, letter), id) in letters.iter().zip(&ids) {
        let partition = partition.map_or_else(|| "-".to_owned(), |partition| partition.to_string());
        let (position, attempts) = (letter.position.to_string(), letter.attempts.to_string());
        let halted = if letter.is_halted { "HALTED: " } else { "" };
        let reason = format!("{halted}{}", one_line(&letter.reason));
        let (id, died) = (cut(id, 40), letter.died.to_string());
        table += &row([&partition, &position, &id, &attempts, &died, &reason]);
    }
    table
}

/// Without anything that a terminal would do something at.
pub(in crate::cmd) fn one_line(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    let mut short: String = line.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Everything about one of them, for people.
pub(super) fn page(json: &str) -> anyhow::Result<String> {
    let letter: Value = serde_json::from_str(json)?;
    let text = |field: &str| letter[field].as_str().unwrap_or_default();
    let entry = match letter["entry"].as_str() {
        None => format!("in base64, for it is no text:\n{}", text("entry_base64")),
        Some(entry) => match serde_json::from_str::<Value>(entry) {
            Ok(value) => format!("as it came in:\n{}", serde_json::to_string_pretty(&value)?),
            Err(_) => format!("as it came in:\n{entry}"),
        },
    };
    let halted = if letter["halted"] == true {
        "halted   the line waits here: conga dead retry, or conga dead skip\n"
    } else {
        ""
    };
    Ok(format!(
        "position {}\nid       {}\nattempts {}\ndied     {}\nreason   {}\n{halted}message  {entry}",
        letter["position"],
        text("id"),
        letter["attempts"],
        text("died"),
        text("reason"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_its_characters() {
        assert_eq!(cut("äöü", 3), "äöü");
        assert_eq!(cut("äöüß", 3), "äö…");
        assert_eq!(one_line("a\u{1b}[31m\nb"), "a [31m b");
    }

    #[test]
    fn a_page_has_the_message_as_a_person_reads_it() {
        let page = |entry: &str| {
            let json =
                format!("{{\"position\":2,\"id\":\"b\",\"reason\":\"no\",\"attempts\":5,\"died\":\"t\",{entry}}}");
            super::page(&json).expect("a page")
        };
        assert!(page(r#""entry":"{\"id\":1}""#).ends_with("as it came in:\n{\n  \"id\": 1\n}"));
        assert!(page(r#""entry":"plain""#).ends_with("as it came in:\nplain"));
        assert!(page(r#""entry_base64":"/w==""#).ends_with("no text:\n/w=="));
    }
}
