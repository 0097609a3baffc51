//! Moments, as people write them.

/// Reads an RFC 3339 time, such as `2026-01-31T12:00:00Z`: milliseconds since 1970 UTC.
pub fn parse_time(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Whether this is a moment of a volume's past, an LSN or a time, or whoever wrote it meant one.
pub fn looks_like_moment(text: &str) -> bool {
    let is_of_one = |char: char| char.is_ascii_digit() || "-:TZ.+".contains(char);
    let looks_so = text.chars().all(is_of_one) && text.contains(|char: char| char.is_ascii_digit());
    looks_so || parse_time(text).is_some()
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

    #[test]
    fn what_is_nearly_a_moment_looks_like_one() {
        for text in
            ["7", "0", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31t12:00:00z", "12:00", "99999999999999999999"]
        {
            assert!(looks_like_moment(text), "{text}");
        }
        for text in ["", "T", "v1.2", "home", "2026-11-28/db"] {
            assert!(!looks_like_moment(text), "{text}");
        }
    }
}
