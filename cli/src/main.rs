//! `quire`: the command line.
//!
//! It reads words and settings, opens an engine, calls it, and says what
//! happened: to people as text, to programs as JSON (`docs/cli.md` lists the
//! fields). It must not know how volumes are stored or replicated; all of that
//! is the engine's.

mod args;
mod context;
mod interrupt;
mod logging;
mod output;
mod progress;
mod shell;
mod sqlite;
mod stop;
mod verbs;

use std::process::ExitCode;

use crate::args::Cli;
use crate::stop::{Stop, USAGE, complain};

fn main() -> ExitCode {
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => return answer_of_clap(&answer),
    };
    let json = cli.global.json;
    match interrupt::install(json).and_then(|()| verbs::run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(json).into(),
    }
}

/// Help, the version, or what is wrong with the words.
fn answer_of_clap(answer: &clap::Error) -> ExitCode {
    let json = std::env::args_os().any(|word| word == "--json");
    if json && answer.use_stderr() {
        let text = answer.render().to_string();
        let message = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        complain("usage", message, Some("See quire --help."), USAGE, json);
        return USAGE.into();
    }
    match answer.print() {
        Ok(()) if answer.use_stderr() => USAGE.into(),
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => Stop::from_output(e).report(json).into(),
    }
}
