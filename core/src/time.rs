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
        if let Some(micros) = read_plain(text.as_bytes()) {
            return Ok(micros);
        }
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
        f.write_str(Plain::of(*self).as_str())
    }
}

/// The one form in which Conga writes a datetime. Each message has five of them, so this is done without the machinery
/// that reads and writes any form; the tests compare the two.
pub(crate) struct Plain([u8; PLAIN.len()]);

const PLAIN: &[u8] = b"0000-00-00T00:00:00.000000Z";
/// 9999-12-30T22:00:00Z, the last that the library takes. Later ones are written as this.
const LAST: u64 = 253_402_207_200_000_000;
const DAY_S: u64 = 86_400;

impl Plain {
    /// The date by Howard Hinnant's `civil_from_days`, <https://howardhinnant.github.io/date_algorithms.html>.
    pub(crate) fn of(micros: Micros) -> Self {
        let micros = micros.0.min(LAST);
        let seconds = micros / 1_000_000;
        let (days, of_day) = (seconds / DAY_S + 719_468, seconds % DAY_S);
        let (era, doe) = (days / 146_097, days % 146_097);
        let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let shifted = (5 * doy + 2) / 153;
        let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
        let mut text = [0; PLAIN.len()];
        text.copy_from_slice(PLAIN);
        let mut put = |at: usize, width: usize, mut value: u64| {
            for digit in text[at..at + width].iter_mut().rev() {
                // A digit: it fits.
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        put(0, 4, yoe + era * 400 + u64::from(month <= 2));
        put(5, 2, month);
        put(8, 2, doy - (153 * shifted + 2) / 5 + 1);
        put(11, 2, of_day / 3_600);
        put(14, 2, of_day / 60 % 60);
        put(17, 2, of_day % 60);
        put(20, 6, micros % 1_000_000);
        Self(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Reads what [`Plain`] writes; nothing, where it is anything else, or needs a closer look.
/// The days by Howard Hinnant's `days_from_civil`, as above.
fn read_plain(text: &[u8]) -> Option<Micros> {
    let fits = |(is, should): (&u8, &u8)| match should {
        b'0' => is.is_ascii_digit(),
        other => is == other,
    };
    if text.len() != PLAIN.len() || !text.iter().zip(PLAIN).all(fits) {
        return None;
    }
    let number = |at: usize, width: usize| {
        let digits = text[at..at + width].iter();
        digits.fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    // The last days of months are left to the other way.
    if year < 1970 || !(1..=12).contains(&month) || !(1..=28).contains(&day) || hour > 23 || minute > 59 || second > 59
    {
        return None;
    }
    let year = year - u64::from(month <= 2);
    let (era, yoe) = (year / 400, year % 400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let doy = (153 * shifted + 2) / 5 + day - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    let days = (era * 146_097 + doe).checked_sub(719_468)?;
    let seconds = days * DAY_S + hour * 3_600 + minute * 60 + second;
    Some(Micros(seconds * 1_000_000 + number(20, 6)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn writes_and_reads_as_the_library_does(micros in prop_oneof![0..LAST, Just(LAST), LAST..u64::MAX]) {
            let written = micros.min(LAST);
            let signed = i64::try_from(written).expect("fits");
            let stamp = jiff::Timestamp::from_microsecond(signed).expect("a date");
            let text = Micros(micros).to_string();
            prop_assert_eq!(&text, &format!("{stamp:.6}"));
            prop_assert_eq!(Micros::parse(&text), Ok(Micros(written)));
        }

        #[test]
        fn what_is_no_date_is_none(month in 0..15_u32, day in 0..35_u32, hour in 0..26_u32, second in 0..62_u32) {
            let text = format!("2024-{month:02}-{day:02}T{hour:02}:59:{second:02}.000001Z");
            if let Some(read) = read_plain(text.as_bytes()) {
                let stamp: jiff::Timestamp = text.parse().expect("a date");
                prop_assert_eq!(i64::try_from(read.0).ok(), Some(stamp.as_microsecond()));
            }
        }
    }

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
