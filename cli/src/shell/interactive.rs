//! The shell on a terminal.

use std::path::Path;

use quire_engine::{Error, ErrorKind};
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{CompletionType, Editor};

use super::complete::Words;
use super::dot::{self, Next};
use super::session::Session;
use crate::stop::{Outcome, Stop};

/// Reads statements and dot commands until the user leaves. An error is told,
/// and the shell goes on.
pub(crate) fn shell(session: &mut Session, history: &Path) -> Outcome {
    session.goes_on = true;
    let mut editor = Editor::<Words, DefaultHistory>::new().map_err(terminal_failed)?;
    editor.set_completion_type(CompletionType::List);
    editor.set_helper(Some(Words::new()));
    editor.set_auto_add_history(true);
    // The first shell has no history, and a shell without one is still a shell.
    let _ = editor.load_history(history);
    session.output.text(&format!(
        "{} with SQLite {}; .help helps, Ctrl-D leaves",
        session.name,
        rusqlite::version()
    ))?;

    let result = converse(session, &mut editor);
    let _ = editor.append_history(history);
    result
}

fn converse(session: &mut Session, editor: &mut Editor<Words, DefaultHistory>) -> Outcome {
    loop {
        if let Some(words) = editor.helper_mut() {
            words.refresh(&session.connection);
        }
        let in_transaction = if session.connection.is_autocommit() { "" } else { "*" };
        let line = match editor.readline(&format!("{}{in_transaction}> ", session.name)) {
            Ok(line) => line,
            // Ctrl-C drops the line, as shells do.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(terminal_failed(e)),
        };
        let done = match line.starts_with('.') {
            true => dot::run(session, &line),
            false => session.run(&line).map(|()| Next::Prompt),
        };
        match done {
            Ok(Next::Quit) => return Ok(()),
            Ok(Next::Prompt) => {}
            Err(Stop::OutputClosed) => return Err(Stop::OutputClosed),
            Err(stop) => drop(stop.report(false)),
        }
    }
}

fn terminal_failed(error: ReadlineError) -> Stop {
    Error::new(ErrorKind::Io, "reading from the terminal").with_source(error).into()
}
