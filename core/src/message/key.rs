//! The key of an entry, as a store reads it when it hands the entry out.

/// What messages have in common that keep their order among them, where this entry says so: the text of `key` in a JSON
/// object.
///
/// This only looks as far as it has to: whatever [`super::parse`] takes for a key, this finds, and where that finds none
/// or refuses the entry, this may find one. So an order may be kept that nobody asked for, but none is lost. A store that
/// has no such parser scans in the same way (`key.lua`).
pub fn key_of(entry: &[u8]) -> Option<Vec<u8>> {
    let start = entry.iter().position(|byte| !is_space(*byte))?;
    if entry[start] != b'{' {
        return None;
    }
    let mut at = start + 1;
    let mut depth = 1_u64;
    loop {
        at += entry.get(at..)?.iter().position(|byte| b"\"{}[]".contains(byte))?;
        match entry[at] {
            b'"' => {
                let name = string_at(entry, at)?;
                at += name.len();
                let colon = after_space(entry, at);
                if depth == 1 && entry.get(colon) == Some(&b':') {
                    let value = after_space(entry, colon + 1);
                    if text_of(name) == b"key" && entry.get(value) == Some(&b'"') {
                        return string_at(entry, value).map(text_of);
                    }
                    at = colon + 1;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            _ if depth == 1 => return None,
            _ => depth -= 1,
        }
        at += 1;
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn after_space(entry: &[u8], from: usize) -> usize {
    let rest = entry.get(from..).unwrap_or_default();
    from + rest.iter().position(|byte| !is_space(*byte)).unwrap_or(rest.len())
}

/// The string that begins at a quote, with both of its quotes.
fn string_at(entry: &[u8], start: usize) -> Option<&[u8]> {
    let mut at = start + 1;
    loop {
        at += entry.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if entry[at] == b'"' {
            return Some(&entry[start..=at]);
        }
        at += 2;
    }
}

/// What a string says; as it is written, where it says nothing.
fn text_of(string: &[u8]) -> Vec<u8> {
    let written = &string[1..string.len() - 1];
    let read = || serde_json::from_slice::<String>(string).ok();
    match written.contains(&b'\\').then(read).flatten() {
        Some(text) => text.into_bytes(),
        None => written.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::{Entry, Format, Position, parse};
    use super::*;

    #[test]
    fn a_key_is_found_where_it_is() {
        for (entry, key) in [
            (r#"{"key":"a","payload":1}"#, Some("a")),
            (" {\n\"payload\" : {\"key\":\"no\"} , \"key\" :\t\"b\" }", Some("b")),
            (r#"{"payload":"\"key\":\"no\"","key":"c"}"#, Some("c")),
            (r#"{"k\u0065y":"d\u0020\"e","payload":1}"#, Some("d \"e")),
            (r#"{"x":"key","payload":"key"}"#, None),
            (r#"{"payload":[[{"key":"no"}]]}"#, None),
            (r#"{"key":null,"payload":1}"#, None),
            (r#"{"key":7,"key":"f","payload":1}"#, Some("f")),
            (r#"{"key":"","payload":1}"#, Some("")),
            (r#"{"payload":1,"key":"g""#, Some("g")),
            (r#"["key","no"]"#, None),
            ("plain", None),
            ("", None),
            ("{\"", None),
            (r#"{"key":"\"#, None),
        ] {
            assert_eq!(
                key_of(entry.as_bytes()),
                key.map(|key| key.as_bytes().to_vec()),
                "{entry}"
            );
        }
        let deep = format!(
            "{{\"payload\":{}{},\"key\":\"h\"}}",
            "[".repeat(5_000),
            "]".repeat(5_000)
        );
        assert_eq!(key_of(deep.as_bytes()), Some(b"h".to_vec()));
        assert_eq!(key_of(b"{\"key\":\"\xff\"}"), Some(b"\xff".to_vec()));
    }

    proptest! {
        #[test]
        fn whatever_is_parsed_as_a_key_is_found(
            key in ".*", first in any::<bool>(), payload in ".*", name in "[a-z\"\\\\{}]*", escaped in any::<bool>(),
        ) {
            let quote = |text: &str| serde_json::Value::from(text).to_string();
            let member = if escaped { "\"k\\u0065y\"" } else { "\"key\"" };
            let key_part = format!("{member} : {}", quote(&key));
            let rest = format!("\"payload\":{{{}:[{}]}}", quote(&name), quote(&payload));
            let text = if first { format!("{{{key_part},{rest}}}") } else { format!("{{{rest},{key_part}}}") };
            let entry = Entry::Whole(Bytes::from(text.clone()));
            let parsed = parse(&entry, Position(1), Format::Any, u64::MAX).unwrap().key;
            prop_assert_eq!(parsed.map(String::into_bytes), key_of(text.as_bytes()));
        }

        #[test]
        fn any_bytes_are_read_to_their_end(bytes in prop::collection::vec(prop::sample::select(&b"{}[]\"\\:k,e y"[..]), 0..60)) {
            key_of(&bytes);
        }
    }
}
