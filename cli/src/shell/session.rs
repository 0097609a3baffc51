//! One connection to one volume, and what it prints.

use std::time::Duration;

use quire_engine::{Error, ErrorKind, VolumeName};
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, ErrorCode};

use super::render::{Format, Printer};
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::output::{Output, to_terminal, word};
use crate::sqlite;
use crate::stop::{Before, Outcome, Stop};

/// How long a statement waits for another writer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a volume.
pub(crate) struct Session {
    pub(crate) name: VolumeName,
    pub(crate) connection: Connection,
    pub(crate) output: Output,
    /// Whether it goes on after an error.
    pub(crate) goes_on: bool,
    /// How the user calls it, if it is a snapshot of the past.
    past: Option<String>,
    /// Whether a statement was done that the user has not been answered yet.
    has_run: bool,
    printer: Printer,
}

impl Session {
    /// Connects to the volume.
    pub(crate) fn open(ctx: &Context, text: &str) -> Outcome<Session> {
        // Opened first: a misspelt name must not become a new volume.
        let (volume, (name, at)) = ctx.opened(text).map_err(|e| or_create(e, text))?;
        let connection = sqlite::connect(ctx.engine()?, &name, at)?;
        let name = volume.name();
        let format = match ctx.output.json {
            true => Format::Json,
            false if to_terminal() => Format::Table,
            false => Format::Tabs,
        };
        let session = Session {
            name,
            connection,
            output: ctx.output,
            goes_on: false,
            past: at.map(|_| text.to_owned()),
            has_run: false,
            printer: Printer::new(format, ctx.output),
        };
        session.connection.busy_timeout(PATIENCE).map_err(|e| session.explain(e))?;
        Ok(session)
    }

    /// Runs statements and prints their rows. Ctrl-C interrupts the running one.
    pub(crate) fn run(&mut self, sql: &str) -> Outcome {
        let running = self.connection.get_interrupt_handle();
        let interrupted = Checkpoints::and(move || running.interrupt());
        let mut statements = Batch::new(&self.connection, sql);
        // What was typed on a terminal before has been answered.
        self.has_run &= !self.goes_on;
        loop {
            interrupted.check()?;
            let was_open = !self.connection.is_autocommit();
            let failed = |e| {
                let before = before(&self.connection, was_open, self.has_run, self.goes_on);
                explain(&self.name, self.past.as_deref(), e, before)
            };
            let Some(mut statement) = statements.next().map_err(failed)? else { return Ok(()) };
            self.printer.statement(&mut statement, &failed)?;
            self.has_run = true;
        }
    }

    /// Ends the output, as its format wants it.
    pub(crate) fn finish(&mut self) -> Outcome {
        self.printer.finish()
    }

    /// What an error of SQLite on this volume means.
    pub(crate) fn explain(&self, error: rusqlite::Error) -> Stop {
        explain(&self.name, self.past.as_deref(), error, self.before())
    }

    /// An error of what is no statement.
    pub(crate) fn failed(&self, error: Error) -> Stop {
        Stop::Sql(error, self.before())
    }

    fn before(&self) -> Before {
        before(&self.connection, !self.connection.is_autocommit(), self.has_run, self.goes_on)
    }
}

/// A name that nobody has may be meant for a new volume: SQL is what fills one.
fn or_create(error: Error, text: &str) -> Error {
    match (error.kind(), error.remedy()) {
        (ErrorKind::NotFound, Some(remedy)) if !text.contains('@') => {
            let remedy = format!("{remedy} To make a new one: quire create {}", word(text));
            error.with_remedy(remedy)
        }
        _ => error,
    }
}

/// What becomes of what was done, now that something has failed. SQLite rolls back by itself after some errors.
fn before(connection: &Connection, was_open: bool, has_run: bool, goes_on: bool) -> Before {
    match connection.is_autocommit() {
        false if goes_on => Before::Open,
        false => Before::RolledBack,
        true if was_open => Before::RolledBack,
        true if has_run => Before::Done,
        true => Before::Nothing,
    }
}

fn explain(name: &VolumeName, past: Option<&str>, error: rusqlite::Error, before: Before) -> Stop {
    let code = error.sqlite_error_code();
    let told = sqlite::volume_error(name, "SQL on", error);
    // Whether a commit with `sync=commit` is in the store may not be known: the error says what is.
    let before = if told.kind() == ErrorKind::Unavailable { Before::Nothing } else { before };
    match (code, past) {
        (Some(ErrorCode::OperationInterrupted), _) => Stop::Interrupted,
        (Some(ErrorCode::ReadOnly), Some(past)) => {
            let past = word(past);
            let remedy = format!("The past cannot be written to. To go on from there: quire fork {past} NEW");
            Stop::Sql(told.with_remedy(remedy), before)
        }
        _ => Stop::Sql(told, before),
    }
}
