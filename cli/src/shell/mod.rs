//! `sql`: SQL on a volume, by the SQLite in this binary.

mod complete;
mod dot;
mod interactive;
mod render;
mod session;

use std::io::{self, BufRead, IsTerminal};

use quire_engine::Error;

use self::dot::Next;
use self::session::Session;
use crate::context::Context;
use crate::stop::Outcome;

/// Runs `sql`; or without it what standard input says, in a shell if that is a terminal.
pub(crate) fn sql(ctx: &Context, name: &str, sql: Option<&str>) -> Outcome {
    let mut session = Session::open(ctx, name)?;
    let done = match sql {
        Some(sql) if sql.starts_with('.') => script(&mut session, sql.as_bytes()),
        Some(sql) => session.run(sql),
        None if io::stdin().is_terminal() && !ctx.output.json => {
            return interactive::shell(&mut session, &ctx.settings.data_dir.join("sql_history"));
        }
        None => script(&mut session, io::stdin().lock()),
    };
    // After an error too: the rows before it stay readable.
    session.finish().and(done)
}

/// Runs statements and dot commands as they are read, so that a script of any
/// length needs only the memory of its longest statement. The first error ends it.
fn script(session: &mut Session, input: impl BufRead) -> Outcome {
    let mut pending = String::new();
    for line in input.lines() {
        let line = line.map_err(|e| Error::from_io("reading SQL from standard input", e))?;
        if pending.trim().is_empty() && line.starts_with('.') {
            if dot::run(session, &line)? == Next::Quit {
                return Ok(());
            }
            continue;
        }
        pending.push_str(&line);
        pending.push('\n');
        if line.trim_end().ends_with(';') && complete::is_complete(&pending) {
            session.run(&std::mem::take(&mut pending))?;
        }
    }
    session.run(&pending)
}
