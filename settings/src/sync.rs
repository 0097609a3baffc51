//! When commits travel to the store.

use std::time::Duration;

use quire_engine::SyncMode;
use quire_proto::Result;

use crate::Key;
use crate::source::{Source, wrong};

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads `manual`, `commit`, or a duration; `source` is named in the error.
pub fn parse_sync(value: &str, source: &Source) -> Result<SyncMode> {
    match value {
        "manual" => Ok(SyncMode::Manual),
        "commit" => Ok(SyncMode::Commit),
        _ => match parse_duration(value) {
            Some(every) if (SHORTEST..=LONGEST).contains(&every) => Ok(SyncMode::Every(every)),
            Some(_) => Err(wrong(Key::Sync, source, format!("{value:?} is too short or too long"))),
            None => Err(wrong(Key::Sync, source, format!("{value:?} is neither a mode nor a duration"))),
        },
    }
}

/// Reads a whole number and its unit (ms, s, min, h, d, w), such as `500ms`; a minute is also read as `m`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_ms: u64 = match unit.trim_start() {
        "ms" => 1,
        "s" => 1_000,
        "min" | "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 604_800_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit_ms).map(Duration::from_millis)
}

/// As it is written in settings.
pub(crate) fn show_sync(mode: SyncMode) -> String {
    match mode {
        SyncMode::Manual => "manual".into(),
        SyncMode::Commit => "commit".into(),
        SyncMode::Every(every) if every.subsec_millis() == 0 => format!("{}s", every.as_secs()),
        SyncMode::Every(every) => format!("{}ms", every.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_durations_are_read() {
        let every = |ms| SyncMode::Every(Duration::from_millis(ms));
        for (text, mode) in [
            ("manual", SyncMode::Manual),
            ("commit", SyncMode::Commit),
            ("5s", every(5_000)),
            ("500ms", every(500)),
            ("2 m", every(120_000)),
            ("2min", every(120_000)),
            ("24h", every(86_400_000)),
            ("1d", every(86_400_000)),
        ] {
            assert_eq!(parse_sync(text, &Source::Default).unwrap(), mode, "{text}");
        }
    }

    #[test]
    fn every_unit_is_read() {
        let seconds = |text| parse_duration(text).map(|duration| duration.as_secs());
        for (text, wanted) in
            [("90s", 90), ("7m", 420), ("7min", 420), ("2h", 7_200), ("1d", 86_400), ("2w", 1_209_600)]
        {
            assert_eq!(seconds(text), Some(wanted), "{text}");
        }
        for text in ["7", "7y", "7mins", "99999999999999999w"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn shown_modes_are_read_back() {
        for text in ["manual", "commit", "5s", "1500ms"] {
            assert_eq!(show_sync(parse_sync(text, &Source::Default).unwrap()), text);
        }
    }

    #[test]
    fn anything_else_is_an_error_with_what_is_allowed() {
        for text in ["", "5", "s", "-5s", "0s", "9ms", "25h", "1.5s", "5 weeks", "99999999999999999999s", "MANUAL"] {
            let error = parse_sync(text, &Source::Uri("sync")).unwrap_err();
            assert!(error.message().starts_with("setting sync (URI parameter sync)"), "{text}: {error}");
            assert!(error.remedy().is_some_and(|remedy| remedy.contains("manual, commit")), "{text}: {error:?}");
        }
    }
}
