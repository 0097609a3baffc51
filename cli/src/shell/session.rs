//! One connection to one volume, and what it prints.

use std::time::Duration;

use quire_engine::VolumeName;
use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::{Batch, Connection, ErrorCode};

use super::render::{Format, Printer};
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::output::{Output, to_terminal};
use crate::sqlite;
use crate::stop::{Outcome, Stop};

/// How long a statement waits for another writer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection to a volume.
pub(crate) struct Session {
    pub(crate) name: VolumeName,
    pub(crate) connection: Connection,
    pub(crate) output: Output,
    printer: Printer,
}

impl Session {
    /// Connects to the volume.
    pub(crate) fn open(ctx: &Context, text: &str) -> Outcome<Session> {
        // Opened first: a misspelt name must not become a new volume.
        let (volume, (name, at)) = ctx.opened(text)?;
        let connection = sqlite::connect(ctx.engine()?, &name, at)?;
        let name = volume.name();
        let format = match ctx.output.json {
            true => Format::Json,
            false if to_terminal() => Format::Table,
            false => Format::Tabs,
        };
        let session = Session { name, connection, output: ctx.output, printer: Printer::new(format, ctx.output) };
        session.connection.busy_timeout(PATIENCE).map_err(|e| session.explain(e))?;
        Ok(session)
    }

    /// Runs statements and prints their rows. Ctrl-C interrupts the running one.
    pub(crate) fn run(&mut self, sql: &str) -> Outcome {
        let running = self.connection.get_interrupt_handle();
        let interrupted = Checkpoints::and(move || running.interrupt());
        let mut statements = Batch::new(&self.connection, sql);
        loop {
            interrupted.check()?;
            let statement = statements.next().map_err(|e| explain(&self.name, e))?;
            let Some(mut statement) = statement else { return Ok(()) };
            self.printer.statement(&mut statement, &|e| explain(&self.name, e))?;
        }
    }

    /// Ends the output, as its format wants it.
    pub(crate) fn finish(&mut self) -> Outcome {
        self.printer.finish()
    }

    /// What an error of SQLite on this volume means.
    pub(crate) fn explain(&self, error: rusqlite::Error) -> Stop {
        explain(&self.name, error)
    }
}

fn explain(name: &VolumeName, error: rusqlite::Error) -> Stop {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted) => Stop::Interrupted,
        _ => Stop::Sql(sqlite::volume_error(name, "SQL on", error)),
    }
}
