//! `cargo xtask test`: the workspace's own tests, then the client suite and
//! the commit matrix; and `cargo xtask bench`.

use std::process::Command;

use anyhow::Result;
use quire_testkit::{BUILT_VARIABLE, S3Server, SHARED_S3_VARIABLE};

use crate::paths::{self, Profile};
use crate::{clients, matrix, process, sqlite};

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
    } else {
        parts.cargo(&["test", "--workspace", "--no-fail-fast"], &[])?;
    }
    clients::run_built()?;
    matrix::run_built()?;
    sqlite::run_built()
}

/// The benchmarks, with what users would run: release builds and the loadable extension.
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    cargo(&["build", "--release", "--package", "quire-sqlite", "--package", "quire-benches"])?;
    let mut benches = Command::new(paths::program(Profile::Release, "quire-benches"));
    process::run(benches.arg("--extension").arg(paths::extension(Profile::Release)).args(options))
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
