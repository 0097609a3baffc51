//! `cargo xtask deps`: whether every dependency is used, may be used, and comes
//! from where it should (`deny.toml`).

use std::process::Command;

use anyhow::Result;

use crate::{paths, process, suite, tools};

/// Runs cargo-machete and cargo-deny, which are installed if they are missing.
pub(crate) fn run() -> Result<()> {
    let machete = tools::cargo_tool("cargo-machete")?;
    let deny = tools::cargo_tool("cargo-deny")?;
    process::run(Command::new(machete).current_dir(paths::root()))?;
    // All that the lock file names, for systems too on which nothing is built here: the check itself goes nowhere.
    suite::cargo(&["fetch", "--locked"])?;
    let words = ["--offline", "check", "bans", "licenses", "sources"];
    process::run(Command::new(deny).args(words).current_dir(paths::root()))
}
