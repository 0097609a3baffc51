//! Moments, as people write them.

/// Reads an RFC 3339 time, such as `2026-01-31T12:00:00Z`: milliseconds since 1970 UTC.
pub fn parse_time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_zone() {
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z"), Some(1500));
        assert_eq!(parse_time("1970-01-01T01:00:00+01:00"), Some(0));
        for text in ["2026-01-31", "2026-01-31T12:00:00", "yesterday", "1969-01-01T00:00:00Z", ""] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
