//! Points in time and their text form.

use std::fmt;
use std::ops::Add;

/// A point in time: microseconds since the Unix epoch, by the store's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

/// A date that RFC 3339 can't write, or text that is not RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 datetime after 1970: {0}")]
pub struct NotADatetime(pub String);

impl Micros {
    /// Reads an RFC 3339 datetime with any offset.
    ///
    /// # Errors
    /// [`NotADatetime`] when the text is none, or is before 1970.
    pub fn parse(text: &str) -> Result<Self, NotADatetime> {
        let refuse = || NotADatetime(text.to_owned());
        let stamp: jiff::Timestamp = text.parse().map_err(|_| refuse())?;
        u64::try_from(stamp.as_microsecond()).map(Self).map_err(|_| refuse())
    }

    /// The microseconds from `earlier` to here; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Micros {
    type Output = Self;

    fn add(self, micros: u64) -> Self {
        Self(self.0.saturating_add(micros))
    }
}

/// RFC 3339 in UTC with six decimals, as in `2026-01-02T03:04:05.000006Z`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stamp = i64::try_from(self.0)
            .ok()
            .and_then(|micros| jiff::Timestamp::from_microsecond(micros).ok())
            .unwrap_or(jiff::Timestamp::MAX);
        write!(f, "{stamp:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_six_decimals_in_utc_and_reads_them_back() {
        let stamp = Micros(1_767_323_045_000_006);
        assert_eq!(stamp.to_string(), "2026-01-02T03:04:05.000006Z");
        assert_eq!(Micros::parse("2026-01-02T03:04:05.000006Z"), Ok(stamp));
        assert_eq!(Micros::parse("2026-01-02T04:04:05.000006+01:00"), Ok(stamp));
    }

    #[test]
    fn refuses_what_is_no_datetime() {
        assert!(Micros::parse("yesterday").is_err());
        assert!(Micros::parse("1969-12-31T23:59:59Z").is_err());
    }
}
