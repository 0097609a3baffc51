//! Random statements on an ordinary file and on Quire, which
//! `sqlite-vfs/scripts/queries.py` makes and compares.

use std::process::Command;

use anyhow::Result;

use super::bench::{Bench, scripts_folder};
use super::script::{self, Outcome};
use crate::tools;

/// Runs `QUIRE_STEPS` statements (4,000 if it is not said), those of `QUIRE_SEED` if that is said.
pub(super) fn run(bench: &Bench, name: &str) -> Result<Outcome> {
    let mut command = Command::new(tools::python()?);
    command.arg("-B").arg(scripts_folder().join("queries.py"));
    Ok(script::outcome(bench.run(&mut command, &bench.home(name)?, name)?))
}
