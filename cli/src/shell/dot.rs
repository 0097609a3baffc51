//! The shell's own commands, which begin with a dot.

use super::session::Session;
use crate::stop::Outcome;

/// Whether the shell goes on.
#[derive(PartialEq, Eq)]
pub(crate) enum Next {
    Prompt,
    Quit,
}

/// The commands, for completion.
pub(crate) const COMMANDS: [&str; 5] = [".exit", ".help", ".quit", ".schema", ".tables"];

const HELP: &str = "\
.help            this text
.quit, .exit     leave; an open transaction is rolled back
.schema [NAME]   the SQL that made a table, or everything
.tables [WORD]   the tables and views whose names contain WORD

SQL ends with ';'. Of the volume itself:
SELECT * FROM quire_status;     how it and the store relate
SELECT * FROM quire_stats;      what was read, fetched and sent
SELECT quire_push();            bring its commits to the store
SELECT quire_pull();            go to the store's newest commit
";

/// Runs one dot command.
pub(crate) fn run(session: &Session, line: &str) -> Outcome<Next> {
    let mut words = line.split_whitespace();
    let (command, argument) = (words.next().unwrap_or_default(), words.next());
    match command {
        ".quit" | ".exit" => return Ok(Next::Quit),
        ".help" => session.output.text(HELP)?,
        ".tables" => list(
            session,
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite@_%' ESCAPE '@'
             AND instr(name, ?1) > 0 ORDER BY name",
            argument.unwrap_or_default(),
        )?,
        ".schema" => list(
            session,
            "SELECT sql || ';' FROM sqlite_schema WHERE sql IS NOT NULL AND (?1 = '' OR tbl_name = ?1 COLLATE NOCASE)
             ORDER BY tbl_name, type = 'table' DESC, name",
            argument.unwrap_or_default(),
        )?,
        other => {
            let problem = quire_engine::Error::invalid(format!("the shell has no command {other}"));
            return Err(session.failed(problem.with_remedy(".help lists the commands.")));
        }
    }
    Ok(Next::Prompt)
}

fn list(session: &Session, sql: &str, argument: &str) -> Outcome {
    let lines = || -> rusqlite::Result<Vec<String>> {
        session.connection.prepare_cached(sql)?.query_map([argument], |row| row.get(0))?.collect()
    };
    let lines = lines().map_err(|e| session.explain(e))?;
    session.output.text(&lines.join("\n"))
}
