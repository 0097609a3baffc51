//! Completion, and when a statement is complete.

use std::collections::BTreeSet;
use std::ffi::CString;

use rusqlite::{Connection, ffi};
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};

use super::dot;

/// Whether SQL ends with a whole statement. An empty text is one; SQLite knows
/// comments, strings and the inside of triggers.
pub(crate) fn is_complete(sql: &str) -> bool {
    if sql.trim().is_empty() {
        return true;
    }
    // A comment at the end of the text counts as ended only by its newline.
    // A NUL is left to SQLite, which says what is wrong with it.
    let Ok(sql) = CString::new(format!("{sql}\n")) else { return true };
    // SAFETY: the pointer is a NUL-terminated string that lives through the call.
    unsafe { ffi::sqlite3_complete(sql.as_ptr()) != 0 }
}

/// What the line editor knows of the database.
#[derive(Default)]
pub(crate) struct Words {
    keywords: BTreeSet<String>,
    names: BTreeSet<String>,
    schema_version: Option<i64>,
}

impl Words {
    /// The keywords of the SQLite in this binary; no names yet.
    pub(crate) fn new() -> Words {
        Words { keywords: keywords(), ..Words::default() }
    }

    /// Reads the names of tables, columns and functions, if the schema has
    /// changed. On an error the old ones stay: the statement itself will tell.
    pub(crate) fn refresh(&mut self, connection: &Connection) {
        let version = connection.query_row("PRAGMA schema_version", [], |row| row.get(0)).ok();
        if version.is_none() || version == self.schema_version {
            return;
        }
        if let Ok(names) = names(connection) {
            self.names = names;
            self.schema_version = version;
        }
    }

    /// The words that begin with `start`, whatever their case. Keywords follow
    /// the case of what was typed.
    fn matching(&self, start: &str) -> Vec<String> {
        if start.is_empty() {
            return Vec::new();
        }
        let fits = |word: &&String| word.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
        let lower = start.chars().all(|c| !c.is_uppercase());
        let keywords =
            self.keywords.iter().filter(fits).map(|word| if lower { word.to_lowercase() } else { word.clone() });
        self.names.iter().filter(fits).cloned().chain(keywords).collect()
    }
}

fn keywords() -> BTreeSet<String> {
    // SAFETY: takes nothing, reads a constant.
    let count = unsafe { ffi::sqlite3_keyword_count() };
    (0..count).filter_map(keyword).collect()
}

fn keyword(index: std::ffi::c_int) -> Option<String> {
    let (mut word, mut len) = (std::ptr::null(), 0);
    // SAFETY: both pointers are to locals that live through the call.
    if unsafe { ffi::sqlite3_keyword_name(index, &mut word, &mut len) } != ffi::SQLITE_OK || word.is_null() {
        return None;
    }
    // SAFETY: SQLite gave a pointer to `len` bytes of a constant.
    let bytes = unsafe { std::slice::from_raw_parts(word.cast::<u8>(), usize::try_from(len).ok()?) };
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

fn names(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    connection
        .prepare(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view')
             UNION SELECT c.name FROM sqlite_schema s JOIN pragma_table_info(s.name) c WHERE s.type IN ('table', 'view')
             UNION SELECT name FROM pragma_function_list
             UNION SELECT name FROM pragma_module_list WHERE name LIKE 'quire@_%' ESCAPE '@'",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let before = &line[..pos];
        if before.starts_with('.') && !before.contains(' ') {
            let commands = dot::COMMANDS.iter().filter(|command| command.starts_with(before));
            return Ok((0, commands.map(|command| (*command).to_owned()).collect()));
        }
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |at| at + before[at..].chars().next().map_or(0, char::len_utf8));
        Ok((start, self.matching(&before[start..])))
    }
}

impl Validator for Words {
    fn validate(&self, ctx: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = ctx.input();
        Ok(match input.starts_with('.') || is_complete(input) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {}

impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_complete_at_its_semicolon() {
        for sql in ["", "  \n", "SELECT 1;", "SELECT ';';", "-- nothing\nSELECT 1; -- done"] {
            assert!(is_complete(sql), "{sql}");
        }
        for sql in ["SELECT 1", "SELECT ';", "/* ; */ SELECT", "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1;"] {
            assert!(!is_complete(sql), "{sql}");
        }
    }

    #[test]
    fn tables_columns_functions_and_keywords_complete() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE orders (order_id INTEGER, Übergabe TEXT)").unwrap();
        let mut words = Words::new();
        words.refresh(&connection);
        assert_eq!(words.matching("ord"), ["order_id", "orders", "order"]);
        assert_eq!(words.matching("SELE"), ["SELECT"]);
        assert_eq!(words.matching("Ü"), ["Übergabe"]);
        assert!(words.matching("group_c").contains(&"group_concat".to_owned()));

        connection.execute_batch("CREATE TABLE ordinals (n)").unwrap();
        words.refresh(&connection);
        assert!(words.matching("ordi").contains(&"ordinals".to_owned()));
    }
}
