//! Finds statements in the files of SQL, while compiling.

/// The statement of a name in a file beside the caller's: a missing one does not compile.
macro_rules! sql {
    ($file:literal, $name:literal) => {
        const { $crate::store::sqlite::sql::named(include_str!($file), $name) }
    };
}
pub(super) use sql;

/// What stands between the line `-- name: {name}` and the next semicolon.
pub(super) const fn named(file: &'static str, name: &str) -> &'static str {
    let (bytes, name) = (file.as_bytes(), name.as_bytes());
    let mark = b"-- name: ";
    let mut at = 0;
    while at + mark.len() + name.len() < bytes.len() {
        let start = at + mark.len() + name.len();
        if bytes[start] == b'\n' && stands(bytes, at, mark) && stands(bytes, at + mark.len(), name) {
            let mut end = start;
            while bytes[end] != b';' {
                end += 1;
            }
            return file.split_at(end).0.split_at(start).1;
        }
        at += 1;
    }
    panic!("no statement of that name");
}

const fn stands(bytes: &[u8], at: usize, what: &[u8]) -> bool {
    let mut index = 0;
    while index < what.len() {
        if bytes[at + index] != what[index] {
            return false;
        }
        index += 1;
    }
    true
}
