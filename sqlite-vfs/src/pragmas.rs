//! Pragmas: those of SQLite's that Quire has to answer or to know about, and
//! its own. SQLite runs the hook when a statement is *prepared*, also under
//! EXPLAIN, so only what may happen twice exists as a pragma.

use quire_engine::{Error, Result};

use crate::database::{Database, Synchronous};
use crate::error::guarded;
use crate::functions;
use crate::volumes::OpenVolume;

/// What a pragma's hook says to SQLite.
pub(crate) enum Answer {
    /// SQLite goes on with it.
    NotMine,
    /// The pragma's one row.
    Row(String),
    /// The pragma fails.
    Failed(Error),
}

type Action = fn(&OpenVolume) -> Result<String>;

/// Actions that also exist as pragmas.
const ACTIONS: [(&str, Action); 7] = [
    ("quire_push", functions::push),
    ("quire_pull", functions::pull),
    ("quire_sync", functions::sync),
    ("quire_fetch", functions::fetch),
    ("quire_hydrate", functions::hydrate),
    ("quire_checkpoint", functions::checkpoint),
    ("quire_verify", functions::verify),
];

/// Runs the hook for `PRAGMA name` or `PRAGMA name = argument`.
pub(crate) fn run(database: &mut Database, name: &str, argument: Option<&str>) -> Answer {
    let name = name.to_ascii_lowercase();
    match (name.as_str(), argument) {
        ("journal_mode", Some(mode)) => journal_mode(database, mode),
        ("synchronous", Some(level)) => {
            note_synchronous(database, level);
            Answer::NotMine
        }
        ("quire_version", None) => Answer::Row(functions::version(&database.instance.api)),
        (name, None) if name.starts_with("quire_") => match ACTIONS.iter().find(|(action, _)| *action == name) {
            Some((_, act)) => {
                let done = guarded(|| database.check_process().and_then(|()| act(&database.open)));
                done.map_or_else(Answer::Failed, Answer::Row)
            }
            None => Answer::Failed(no_such(name)),
        },
        (name, Some(_)) if name.starts_with("quire_") => Answer::Failed(
            Error::invalid(format!("PRAGMA {name} takes no value"))
                .with_remedy(format!("For another schema: PRAGMA schema.{name}.")),
        ),
        _ => Answer::NotMine,
    }
}

fn no_such(name: &str) -> Error {
    let names: Vec<_> = ACTIONS.iter().map(|(name, _)| *name).collect();
    Error::invalid(format!("there is no PRAGMA {name}"))
        .with_remedy(format!("There are {} and quire_version; other actions are functions.", names.join(", ")))
}

/// WAL would commit to a file that is not the volume, and OFF could not undo a
/// failed statement. Both get the answer that SQLite gives where a mode is not
/// possible: the mode that stays.
fn journal_mode(database: &mut Database, mode: &str) -> Answer {
    const MODES: [&str; 4] = ["delete", "persist", "truncate", "memory"];
    if let Some(mode) = MODES.into_iter().find(|name| name.eq_ignore_ascii_case(mode)) {
        database.journal_mode = mode;
        return Answer::NotMine;
    }
    if ["wal", "off"].iter().any(|name| name.eq_ignore_ascii_case(mode)) {
        return Answer::Row(database.journal_mode.to_owned());
    }
    Answer::NotMine
}

/// SQLite refuses to change the level inside a transaction, so then it stays.
fn note_synchronous(database: &mut Database, level: &str) {
    if database.connection.is_null() {
        return;
    }
    // SAFETY: SQLite keeps its connection there as long as the file is open, and is using it now.
    let in_transaction = unsafe { (database.instance.api.get_autocommit)(*database.connection) == 0 };
    if !in_transaction {
        database.synchronous = synchronous(level);
    }
}

/// The level that SQLite takes a word or number for.
fn synchronous(level: &str) -> Synchronous {
    if level.starts_with(|c: char| c.is_ascii_digit()) {
        let digits = level.bytes().take_while(u8::is_ascii_digit);
        let number = digits.fold(0u32, |n, digit| n.wrapping_mul(10).wrapping_add((digit - b'0').into()));
        // SQLite keeps one more than the number in three bits, and takes 0 for 1.
        return match (number as u8).wrapping_add(1) & 7 {
            0 | 1 => Synchronous::Off,
            2 => Synchronous::Normal,
            _ => Synchronous::Full,
        };
    }
    match level.to_ascii_lowercase().as_str() {
        "off" | "no" | "false" => Synchronous::Off,
        "full" | "extra" => Synchronous::Full,
        _ => Synchronous::Normal,
    }
}

/// An error as text for a user: what happened, and what to do.
pub(crate) fn message(error: &Error) -> String {
    match error.remedy() {
        // A store's own words may end with a full stop.
        Some(remedy) => format!("{}. {remedy}", error.to_string().trim_end_matches('.')),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronous_is_read_as_sqlite_reads_it() {
        for (level, synced) in [
            ("OFF", Synchronous::Off),
            ("0", Synchronous::Off),
            ("no", Synchronous::Off),
            ("7", Synchronous::Off),
            ("normal", Synchronous::Normal),
            ("1", Synchronous::Normal),
            ("on", Synchronous::Normal),
            ("anything else", Synchronous::Normal),
            ("FULL", Synchronous::Full),
            ("2", Synchronous::Full),
            ("extra", Synchronous::Full),
            ("3", Synchronous::Full),
        ] {
            assert_eq!(synchronous(level), synced, "{level}");
        }
    }
}
