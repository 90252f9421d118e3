//! Reading replies. Whatever a server sends, nothing panics.

use std::str::FromStr;

use ::redis::Value;
use bytes::Bytes;

use crate::store::{Result, StoreError};

/// The items of an array reply, taken one by one.
#[derive(Debug)]
pub(super) struct Items(std::vec::IntoIter<Value>);

impl Items {
    /// An array; nothing at all counts as an empty one.
    pub(super) fn of(value: Value) -> Result<Self> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            Value::Nil => Ok(Self(Vec::new().into_iter())),
            other => Err(unexpected("an array", &other)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The next item.
    pub(super) fn value(&mut self) -> Result<Value> {
        self.0
            .next()
            .ok_or_else(|| StoreError::Broken("Redis's reply is shorter than it should be".to_owned()))
    }

    /// The rest of them, the last one first.
    pub(super) fn oldest_first(self) -> impl Iterator<Item = Value> {
        self.0.rev()
    }

    pub(super) fn items(&mut self) -> Result<Self> {
        Self::of(self.value()?)
    }

    pub(super) fn number<T: FromStr + TryFrom<i64>>(&mut self) -> Result<T> {
        number(&self.value()?)
    }

    pub(super) fn text(&mut self) -> Result<String> {
        text(self.value()?)
    }

    /// Text, or nothing.
    pub(super) fn optional_text(&mut self) -> Result<Option<String>> {
        match self.value()? {
            Value::Nil => Ok(None),
            value => text(value).map(Some),
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes> {
        bytes(self.value()?)
    }
}

/// A number, as such or in digits.
pub(super) fn number<T: FromStr + TryFrom<i64>>(value: &Value) -> Result<T> {
    let read = match value {
        Value::Int(number) => T::try_from(*number).ok(),
        Value::BulkString(digits) => std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()),
        Value::SimpleString(digits) => digits.parse().ok(),
        _ => None,
    };
    read.ok_or_else(|| unexpected("a number", value))
}

pub(super) fn text(value: Value) -> Result<String> {
    match value {
        Value::BulkString(bytes) => {
            String::from_utf8(bytes).map_err(|error| unexpected("text", &Value::BulkString(error.into_bytes())))
        }
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        other => Err(unexpected("text", &other)),
    }
}

pub(super) fn bytes(value: Value) -> Result<Bytes> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        other => Err(unexpected("bytes", &other)),
    }
}

/// Says what came in place of what was expected, in brief.
pub(super) fn unexpected(wanted: &str, value: &Value) -> StoreError {
    let mut shown = format!("{value:?}");
    if let Some((end, _)) = shown.char_indices().nth(100) {
        shown.truncate(end);
        shown.push('…');
    }
    StoreError::Broken(format!(
        "Redis's reply is not what it should be: {wanted} was expected, {shown} came"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_expected_is_an_error_and_no_panic() {
        assert!(Items::of(Value::Okay).is_err());
        let mut items = Items::of(Value::Array(vec![Value::Int(-1), Value::Nil])).expect("an array");
        assert!(items.number::<u64>().is_err());
        assert_eq!(items.optional_text(), Ok(None));
        assert!(items.value().is_err());
    }

    #[test]
    fn a_number_may_come_in_digits() {
        assert_eq!(
            number::<u64>(&Value::BulkString(b"18446744073709551615".to_vec())),
            Ok(u64::MAX)
        );
    }
}
