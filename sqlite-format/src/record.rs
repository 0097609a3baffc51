//! Records: a header with the type of each value, then the values.

use crate::TextEncoding;
use crate::bytes::varint_at;

/// A value of a record, as far as the schema needs it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a [u8]),
    Integer(i64),
    /// Anything else.
    Other,
}

/// The first `N` values of a record, of which `bytes` is the beginning; `None`
/// if they are not all there.
pub(crate) fn first_values<const N: usize>(bytes: &[u8]) -> Option<[Value<'_>; N]> {
    let (header_bytes, mut header_at) = varint_at(bytes, 0)?;
    let mut value_at = usize::try_from(header_bytes).ok()?;
    let header = bytes.get(..value_at)?;
    let mut values = [const { Value::Other }; N];
    for value in &mut values {
        let (serial_type, next) = varint_at(header, header_at)?;
        let end = value_at.checked_add(usize::try_from(value_bytes(serial_type)).ok()?)?;
        *value = decode(serial_type, bytes.get(value_at..end)?);
        (header_at, value_at) = (next, end);
    }
    Some(values)
}

/// The first value of a whole record as it is stored: its type and its bytes.
pub(crate) fn first_value(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (header_bytes, header_at) = varint_at(bytes, 0)?;
    let (serial_type, _) = varint_at(bytes, header_at)?;
    let at = usize::try_from(header_bytes).ok()?;
    let end = at.checked_add(usize::try_from(value_bytes(serial_type)).ok()?)?;
    Some((serial_type, bytes.get(at..end)?))
}

/// The last value of a whole record, if it is an integer: in an index, the id of the row.
pub(crate) fn last_integer(bytes: &[u8]) -> Option<i64> {
    let (header_bytes, mut at) = varint_at(bytes, 0)?;
    let header = bytes.get(..usize::try_from(header_bytes).ok()?)?;
    let mut last = None;
    while at < header.len() {
        let (serial_type, next) = varint_at(header, at)?;
        (last, at) = (Some(serial_type), next);
    }
    let serial_type = last?;
    let value = bytes.len().checked_sub(usize::try_from(value_bytes(serial_type)).ok()?)?;
    match decode(serial_type, bytes.get(value..)?) {
        Value::Integer(number) => Some(number),
        _ => None,
    }
}

fn value_bytes(serial_type: u64) -> u64 {
    match serial_type {
        0 | 8..=11 => 0,
        1..=4 => serial_type,
        5 => 6,
        6 | 7 => 8,
        _ => (serial_type - 12) / 2,
    }
}

fn decode(serial_type: u64, bytes: &[u8]) -> Value<'_> {
    match serial_type {
        1..=6 => {
            let sign: i64 = if bytes.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
            Value::Integer(bytes.iter().fold(sign, |number, &byte| number << 8 | i64::from(byte)))
        }
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        13.. if serial_type % 2 == 1 => Value::Text(bytes),
        _ => Value::Other,
    }
}

/// Text as a string; what is no text becomes U+FFFD.
pub(crate) fn text(bytes: &[u8], encoding: TextEncoding) -> String {
    let units = |unit: fn([u8; 2]) -> u16| bytes.as_chunks().0.iter().map(move |bytes| unit(*bytes));
    let utf16 = |units: &mut dyn Iterator<Item = u16>| {
        char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
    };
    match encoding {
        TextEncoding::Utf8 => String::from_utf8_lossy(bytes).into_owned(),
        TextEncoding::Utf16Le => utf16(&mut units(u16::from_le_bytes)),
        TextEncoding::Utf16Be => utf16(&mut units(u16::from_be_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_their_header() {
        let record = [6, 17, 1, 2, 9, 0, b'a', b'b', 0x80, 0xff, 0xfe];
        let values = [Value::Text(b"ab"), Value::Integer(-128), Value::Integer(-2), Value::Integer(1), Value::Other];
        assert_eq!(first_values::<5>(&record), Some(values));
        assert_eq!(first_values::<6>(&record), None, "the header has five");
        assert_eq!(first_values::<3>(&record[..10]), None, "the third is cut off");
        assert_eq!(first_values::<2>(&record[..9]), Some([Value::Text(b"ab"), Value::Integer(-128)]));
    }

    #[test]
    fn the_last_integer_ends_the_record() {
        assert_eq!(last_integer(&[3, 15, 2, b'a', 1, 2]), Some(258));
        assert_eq!(last_integer(&[3, 15, 9, b'a']), Some(1));
        assert_eq!(last_integer(&[3, 1, 15, 7, b'a']), None, "it is text");
        assert_eq!(last_integer(&[1]), None);
        assert_eq!(last_integer(&[200, 1]), None);
        assert_eq!(last_integer(&[]), None);
    }

    #[test]
    fn the_first_value_is_told_by_its_type_and_bytes() {
        assert_eq!(first_value(&[3, 15, 2, b'a', 1, 2]), Some((15, &b"a"[..])));
        assert_eq!(first_value(&[3, 9, 1, 5]), Some((9, &[][..])));
        assert_eq!(first_value(&[3, 15, 2]), None);
    }

    #[test]
    fn lengths_that_cannot_be_are_no_values() {
        let mut record = [0xff; 32];
        assert_eq!(first_values::<1>(&record), None);
        record[0] = 20;
        assert_eq!(first_values::<1>(&record), None);
        assert_eq!(first_values::<1>(&[]), None);
    }

    #[test]
    fn text_is_read_in_each_encoding() {
        assert_eq!(text("é".as_bytes(), TextEncoding::Utf8), "é");
        assert_eq!(text(&[0xe9, 0, 0x3d, 0xd8, 0x00, 0xde], TextEncoding::Utf16Le), "é😀");
        assert_eq!(text(&[0, 0xe9, 0xd8, 0x3d], TextEncoding::Utf16Be), "é\u{fffd}");
    }
}
