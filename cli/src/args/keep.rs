//! How much stays, as it is typed: `1000000`, `7d`, both as in `1000000,7d`, or `all`.

use std::fmt;
use std::time::Duration;

use conga::core::partition::Limit;

use super::duration;

const DAY_S: u64 = 86_400;

/// How much of one kind stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stays(pub(crate) Limit);

impl std::str::FromStr for Stays {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limit = Limit::NONE;
        if text == "all" {
            return Ok(Self(limit));
        }
        for word in text.split(',') {
            let refuse = |_| format!("`{word}` is neither a number nor a time: write 1000000, 7d, 1000000,7d or all");
            let before = if word.bytes().all(|byte| byte.is_ascii_digit()) {
                limit.count.replace(word.parse().map_err(|_| refuse(String::new()))?)
            } else {
                limit.age_us.replace(micros(age(word).map_err(refuse)?))
            };
            if before.is_some() {
                return Err("one number and one time at most, as in 1000000,7d".to_owned());
            }
        }
        Ok(Self(limit))
    }
}

/// A time with its unit, days too.
pub(super) fn age(word: &str) -> Result<Duration, String> {
    let days = word.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    match days.map(|days| days.checked_mul(DAY_S)) {
        Some(Some(seconds)) => Ok(Duration::from_secs(seconds)),
        Some(None) => Err(String::new()),
        None => duration(word),
    }
}

fn micros(age: Duration) -> u64 {
    u64::try_from(age.as_micros()).unwrap_or(u64::MAX)
}

/// As it could be typed.
impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { count, age_us } = self.0;
        match (count, age_us.map(Duration::from_micros)) {
            (None, None) => f.write_str("all"),
            (Some(count), None) => write!(f, "{count}"),
            (count, Some(age)) => {
                if let Some(count) = count {
                    write!(f, "{count},")?;
                }
                let seconds = age.as_secs();
                if age.subsec_nanos() == 0 && seconds > 0 && seconds.is_multiple_of(DAY_S) {
                    write!(f, "{}d", seconds / DAY_S)
                } else {
                    write!(f, "{age:?}")
                }
            }
        }
    }
}

impl<'de> serde::Deserialize<'de> for Stays {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Self(Limit::last(count))),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_read_and_written() {
        let read = |text: &str| text.parse::<Stays>().map(|stays| (stays.0.count, stays.0.age_us));
        assert_eq!(read("all"), Ok((None, None)));
        assert_eq!(read("1000000"), Ok((Some(1_000_000), None)));
        assert_eq!(read("7d"), Ok((None, Some(604_800_000_000))));
        assert_eq!(read("0,90s"), Ok((Some(0), Some(90_000_000))));
        assert_eq!(read("500ms,9"), Ok((Some(9), Some(500_000))));
        for text in ["all", "1000000", "7d", "3,90s", "500ms"] {
            assert_eq!(
                text.parse::<Stays>().map(|stays| stays.to_string()),
                Ok(text.to_owned())
            );
        }
        for bad in [
            "x",
            "1,2",
            "1d,2d",
            "7x",
            "-5",
            "99999999999999999999",
            "99999999999999999d",
            ",",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
