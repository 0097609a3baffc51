//! `cargo xtask deps`: whether every dependency is used, may be used, and comes
//! from where it should (`deny.toml`).

use std::process::Command;

use anyhow::Result;

use crate::{paths, process, tools};

/// Runs cargo-machete and cargo-deny, which are installed if they are missing.
pub(crate) fn run() -> Result<()> {
    let machete = tools::cargo_tool("cargo-machete")?;
    let deny = tools::cargo_tool("cargo-deny")?;
    process::run(Command::new(machete).current_dir(paths::root()))?;
    // Offline: what is to be checked was downloaded to be built.
    let words = ["--offline", "check", "bans", "licenses", "sources"];
    process::run(Command::new(deny).args(words).current_dir(paths::root()))
}
