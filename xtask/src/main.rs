//! The project's chores, as one command: `cargo xtask test`,
//! `cargo xtask demo`, `cargo xtask bench`. CI runs what a person runs.

mod clients;
mod demo;
mod deps;
mod dump;
mod fuzz;
mod matrix;
mod paths;
mod process;
mod reader;
mod sanitize;
mod soak;
mod social;
mod sqlite;
mod suite;
mod tools;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
usage: cargo xtask <chore>

  test            everything: unit, integration and doc tests, the client suite, the commit matrix, a subset of SQLite's scripts
  test clients    only the client suite: real programs on Quire volumes (see clients/README.md)
  test matrix     only the commit matrix: every call of a commit fails or is the last (see e2e/matrix/README.md)
  sqlite [...]    SQLite's own test scripts, speedtest1, CPython's tests: a subset; `--all`, or names (docs/sqlite-compatibility.md)
  soak [name...]  the random searches of the tests, for hours; `soak help` lists them
  fuzz [...]      each fuzz target for 10 s; `--seconds N`, and the targets' names
  sanitize [...]  the engine's and the VFS's tests under the address and the thread sanitizer, or one of them
  deps            whether every dependency is used, and may be: cargo-machete, cargo-deny
  demo            the whole story on a realistic database of more than 100 MiB
  bench [...]     Quire beside plain SQLite, with targets; `bench --help` lists the options
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["test"] => suite::run(),
        ["test", "clients"] => clients::run(),
        ["test", "matrix"] => matrix::run(),
        ["soak", names @ ..] => soak::run(names),
        ["deps"] => deps::run(),
        ["sanitize", names @ ..] => sanitize::run(names),
        ["fuzz", options @ ..] => fuzz::run(options),
        ["demo"] => demo::run(),
        ["sqlite", options @ ..] => sqlite::run(options),
        ["bench", options @ ..] => suite::bench(options),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(())
        }
        _ => bail!("unknown chore: {}\n\n{USAGE}", words.join(" ")),
    }
}
