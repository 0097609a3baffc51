//! Standard output: text for people, JSON for programs.

use std::fmt::{Display, Write as _};
use std::io::{self, IsTerminal, Write};

use bytesize::ByteSize;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::stop::{Outcome, Stop};

/// How a verb speaks to its user.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    /// Whether JSON is asked for.
    pub(crate) json: bool,
}

impl Output {
    /// Prints the result of a verb: one JSON value, or what `text` makes of it.
    pub(crate) fn result<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json {
            let json = serde_json::to_string_pretty(value).map_err(|e| Stop::from_output(e.into()))?;
            self.text(&json)
        } else {
            self.text(&text(value))
        }
    }

    /// Prints one event of a stream: one JSON value a line, or a line of text.
    pub(crate) fn event<T: Serialize>(self, value: &T, text: impl FnOnce(&T) -> String) -> Outcome {
        if self.json {
            let json = serde_json::to_string(value).map_err(|e| Stop::from_output(e.into()))?;
            self.text(&json)
        } else {
            self.text(&text(value))
        }
    }

    /// Prints text as it is; nothing for the empty text.
    pub(crate) fn text(self, text: &str) -> Outcome {
        if text.is_empty() {
            return Ok(());
        }
        let mut stdout = io::stdout().lock();
        let newline = if text.ends_with('\n') { "" } else { "\n" };
        write!(stdout, "{text}{newline}").and_then(|()| stdout.flush()).map_err(Stop::from_output)
    }
}

/// A table with a head line and without borders, as wide as the terminal at most.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// Names and values, one a line; lines without a value are left out.
pub(crate) fn facts<'a>(facts: impl IntoIterator<Item = (&'a str, Option<String>)>) -> String {
    let facts: Vec<_> = facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    facts.iter().fold(String::new(), |mut text, (name, value)| {
        let _ = writeln!(text, "{name:width$}{value}");
        text
    })
}

/// A value that may be missing, in a table.
pub(crate) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A size for people, such as `1.5 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

/// `1 page`, `2 pages`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// A span of time, such as `1 day` or `2 hours 5 minutes`, rounded up: of hours the seconds do not matter.
pub(crate) fn span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)];
    let step = match seconds {
        0..3_600 => 1,
        3_600..86_400 => 60,
        _ => 3_600,
    };
    let mut left = seconds.div_ceil(step).saturating_mul(step);
    let mut parts = Vec::new();
    for (unit, length) in UNITS {
        if left >= length {
            parts.push(count(left / length, unit));
            left %= length;
        }
    }
    if parts.is_empty() { count(0, "second") } else { parts.join(" ") }
}

/// A word as a shell reads it: in quotes if it has anything in it that means something else there.
pub(crate) fn word(text: impl Display) -> String {
    let text = text.to_string();
    let is_plain = |char: char| char.is_alphanumeric() || "_-./@:+,%=".contains(char);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// A moment, in UTC.
pub(crate) fn time(unix_ms: u64) -> String {
    let moment = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    or_dash(moment)
}

/// Whether standard output is a terminal.
pub(crate) fn to_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_told_in_the_units_that_matter() {
        for (seconds, told) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (3_599, "59 minutes 59 seconds"),
            (3_661, "1 hour 2 minutes"),
            (86_399, "1 day"),
            (86_400, "1 day"),
            (90_001, "1 day 2 hours"),
            (604_800, "7 days"),
        ] {
            assert_eq!(span(seconds), told);
        }
        assert!(span(u64::MAX).contains("days"));
    }

    #[test]
    fn a_word_is_what_a_shell_reads_as_one() {
        assert_eq!(word("team/app.db@7"), "team/app.db@7");
        assert_eq!(word("café"), "café");
        assert_eq!(word("my app"), "'my app'");
        assert_eq!(word("ada's; rm"), r"'ada'\''s; rm'");
        assert_eq!(word(""), "''");
    }
}
