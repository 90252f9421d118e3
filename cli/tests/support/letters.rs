//! Outputs in which messages have failed for good, to be compared byte for byte.

/// The datetimes of an output, normalised.
pub(crate) const DATETIMES: &str = r#""created":"T","processing":"T","processed":"T","sequencing":"T","sequenced":"T""#;

/// Every datetime as `T`: the rest is the same in every run.
pub(crate) fn normalised(outputs: &[u8]) -> String {
    let text = std::str::from_utf8(outputs).expect("text");
    let mut normal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(":\"20") {
        let (before, from) = rest.split_at(at + 2);
        normal += before;
        if from.get(26..28) == Some("Z\"") {
            normal += "T";
            rest = &from[27..];
        } else {
            rest = from;
        }
    }
    normal + rest
}

pub(crate) fn assert_same(is: &str, should: &str, what: &str) {
    for (is, should) in is.lines().zip(should.lines()) {
        assert_eq!(is, should, "{what}");
    }
    assert_eq!(is.len(), should.len(), "{what}");
}
