//! Rows as a table, as tab-separated values, or as JSON.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use rusqlite::Statement;
use rusqlite::types::ValueRef;
use serde_json::{Map, Value};

use crate::output::Output;
use crate::stop::{Outcome, Stop};

/// A table has to know its rows before it can print them; a longer result is
/// printed as several tables, so that memory stays bounded.
const ROWS_A_TABLE: usize = 1_000;
/// A terminal shows this much of a blob.
const BLOB_SHOWN_BYTES: usize = 32;

/// How rows are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Tabs,
    Json,
}

/// Prints the rows of statements, one after the other.
pub(crate) struct Printer {
    format: Format,
    output: Output,
    rows: u64,
}

impl Printer {
    pub(crate) fn new(format: Format, output: Output) -> Printer {
        Printer { format, output, rows: 0 }
    }

    /// Runs a statement and prints what it returns.
    pub(crate) fn statement(
        &mut self,
        statement: &mut Statement<'_>,
        explain: &dyn Fn(rusqlite::Error) -> Stop,
    ) -> Outcome {
        let columns = distinct(statement.column_names().map(str::to_owned).collect());
        let mut block = Vec::new();
        let mut rows = statement.query([]).map_err(explain)?;
        while let Some(row) = rows.next().map_err(explain)? {
            let mut values = Vec::with_capacity(columns.len());
            for index in 0..columns.len() {
                values.push(row.get_ref(index).map_err(explain)?);
            }
            match self.format {
                Format::Json => self.json_row(&columns, &values)?,
                Format::Tabs => self.output.text(&(tabs_row(&values) + "\n"))?,
                Format::Table => block.push(table_row(&values)),
            }
            self.rows += 1;
            if block.len() == ROWS_A_TABLE {
                self.output.text(&table(&columns, std::mem::take(&mut block)))?;
            }
        }
        if block.is_empty() { Ok(()) } else { self.output.text(&table(&columns, block)) }
    }

    fn json_row(&self, columns: &[String], values: &[ValueRef<'_>]) -> Outcome {
        let row: Map<String, Value> = columns.iter().cloned().zip(values.iter().map(json_value)).collect();
        let before = if self.rows == 0 { '[' } else { ',' };
        self.output.text(&format!("{before}{}\n", Value::Object(row)))
    }

    /// Closes the array of JSON; the other formats have no end.
    pub(crate) fn finish(&self) -> Outcome {
        match (self.format, self.rows) {
            (Format::Json, 0) => self.output.text("[]"),
            (Format::Json, _) => self.output.text("]"),
            _ => Ok(()),
        }
    }
}

/// Columns of one name would be one field of JSON: the second becomes `name:1`.
fn distinct(names: Vec<String>) -> Vec<String> {
    let mut distinct: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let free = |candidate: &String| !distinct.contains(candidate);
        let numbered = (1..).map(|n| format!("{name}:{n}"));
        distinct.extend(std::iter::once(name.clone()).chain(numbered).find(free));
    }
    distinct
}

fn json_value(value: &ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => (*number).into(),
        ValueRef::Real(number) => (*number).into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => hex(bytes).into(),
    }
}

fn tabs_row(values: &[ValueRef<'_>]) -> String {
    let fields: Vec<String> = values
        .iter()
        .map(|value| match value {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => real(*number),
            ValueRef::Text(text) => String::from_utf8_lossy(text)
                .replace('\\', "\\\\")
                .replace('\t', "\\t")
                .replace('\n', "\\n")
                .replace('\r', "\\r"),
            ValueRef::Blob(bytes) => format!("x'{}'", hex(bytes)),
        })
        .collect();
    fields.join("\t")
}

/// A cell, and whether it is a number.
type Cell = (String, bool);

fn table_row(values: &[ValueRef<'_>]) -> Vec<Cell> {
    values
        .iter()
        .map(|value| match value {
            ValueRef::Null => ("NULL".to_owned(), false),
            ValueRef::Integer(number) => (number.to_string(), true),
            ValueRef::Real(number) => (real(*number), true),
            ValueRef::Text(text) => (harmless(&String::from_utf8_lossy(text)), false),
            ValueRef::Blob(bytes) if bytes.len() > BLOB_SHOWN_BYTES => {
                (format!("x'{}…' ({} bytes)", hex(&bytes[..BLOB_SHOWN_BYTES]), bytes.len()), false)
            }
            ValueRef::Blob(bytes) => (format!("x'{}'", hex(bytes)), false),
        })
        .collect()
}

fn table(columns: &[String], rows: Vec<Vec<Cell>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|name| harmless(name)));
    for row in rows {
        table.add_row(row.into_iter().map(|(text, number)| {
            let alignment = if number { CellAlignment::Right } else { CellAlignment::Left };
            comfy_table::Cell::new(text).set_alignment(alignment)
        }));
    }
    format!("{table}\n")
}

/// What is stored must not command the terminal.
fn harmless(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match c {
            '\n' => out.push(c),
            '\t' => out.push_str("    "),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
        out
    })
}

/// As SQLite shows it: a whole number keeps its point.
fn real(number: f64) -> String {
    format!("{number:?}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_one_name_become_distinct() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(distinct(names(&["id", "id", "id:1", "id"])), names(&["id", "id:1", "id:1:1", "id:2"]));
    }

    #[test]
    fn fields_can_not_break_a_line_or_command_the_terminal() {
        let values = [ValueRef::Text(b"a\tb\nc\\"), ValueRef::Null, ValueRef::Real(2.0), ValueRef::Blob(b"\x00\xff")];
        assert_eq!(tabs_row(&values), "a\\tb\\nc\\\\\t\t2.0\tx'00ff'");
        assert_eq!(harmless("\u{1b}[2J ok"), "\\u{1b}[2J ok");
    }
}
