//! `cargo xtask test`: the workspace's own tests, then the client suite and
//! the commit matrix; and `cargo xtask bench`.

use std::process::Command;

use anyhow::Result;
use quire_testkit::{BUILT_VARIABLE, S3Server, SHARED_S3_VARIABLE};

use crate::paths::{self, Profile};
use crate::{clients, matrix, process, sqlite};

/// Tests of the engine that run once more with a server between engine and store; those of SQLite's faces all do. The
/// others look at the store's requests, refuse calls of the system that a connection needs too, or take long.
const SERVED: [&str; 7] = ["stores", "race", "past", "faults", "local", "kill", "cut_short"];

fn through_a_server() -> [(&'static str, String); 1] {
    [("QUIRE_TEST_SERVED", "1".to_owned())]
}

/// What the tests share: one build, and one S3 server, which each test program would start for itself otherwise.
pub(crate) struct Parts {
    server: S3Server,
}

impl Parts {
    /// One build with all targets: the tests, the extension and the client programs share it.
    pub(crate) fn start() -> Result<Parts> {
        cargo(&["build", "--workspace", "--all-targets"])?;
        Ok(Parts { server: S3Server::start() })
    }

    /// Runs cargo for tests that use the parts.
    pub(crate) fn cargo(&self, words: &[&str], more: &[(&str, String)]) -> Result<()> {
        let parts = [
            (SHARED_S3_VARIABLE, self.server.port().to_string()),
            (BUILT_VARIABLE, paths::folder(Profile::Debug).display().to_string()),
        ];
        cargo_with(words, &[&parts, more].concat())
    }
}

/// Everything that has to hold before a change lands.
pub(crate) fn run() -> Result<()> {
    let parts = Parts::start()?;
    if process::output(cargo_command().args(["nextest", "--version"])).is_ok() {
        parts.cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &[])?;
        parts.cargo(&["test", "--workspace", "--doc"], &[])?;
        let tests = SERVED.map(|name| format!("binary({name})")).join(" or ");
        let served = format!("(package(quire-engine) and ({tests})) or package(quire-sqlite)");
        parts.cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "-E", &served], &through_a_server())?;
    } else {
        parts.cargo(&["test", "--workspace", "--no-fail-fast"], &[])?;
        let tests = SERVED.map(|name| format!("--test={name}"));
        let words =
            ["test", "--no-fail-fast", "--package=quire-engine"].into_iter().chain(tests.iter().map(String::as_str));
        parts.cargo(&words.collect::<Vec<_>>(), &through_a_server())?;
        parts.cargo(&["test", "--no-fail-fast", "--package=quire-sqlite", "--tests"], &through_a_server())?;
    }
    clients::run_built()?;
    matrix::run_built()?;
    sqlite::run_built()
}

/// The benchmarks, with what users would run: release builds and the loadable extension.
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    let packages = ["--package=quire-sqlite", "--package=quire-cli", "--package=quire-benches"];
    cargo(&[&["build", "--release"], &packages[..]].concat())?;
    let mut benches = Command::new(paths::program(Profile::Release, "quire-benches"));
    benches.arg("--extension").arg(paths::extension(Profile::Release));
    process::run(benches.arg("--program").arg(paths::program(Profile::Release, "quire")).args(options))
}

/// Runs cargo with these arguments, showing them.
pub(crate) fn cargo(words: &[&str]) -> Result<()> {
    cargo_with(words, &[])
}

fn cargo_with(words: &[&str], variables: &[(&str, String)]) -> Result<()> {
    println!("\n== cargo {}", words.join(" "));
    process::run(cargo_command().args(words).envs(variables.iter().map(|(name, value)| (name, value))))
}

fn cargo_command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::root());
    command
}
