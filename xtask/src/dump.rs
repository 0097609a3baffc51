//! The full dump of a database, hashed: two databases with equal hashes hold
//! the same schema and the same rows in the same order.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::tools;

/// BLAKE3 of the `sqlite3` shell's `.dump`, streamed, and its length in bytes.
pub(crate) fn hash(database: &Path) -> Result<(blake3::Hash, u64)> {
    let shell = tools::sqlite3_shell()?;
    let mut child = Command::new(&shell)
        .args(["-batch", "-init", "/dev/null", "-readonly"])
        .arg(database)
        .arg(".dump")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", shell.display()))?;
    let mut dump = child.stdout.take().context("the shell has no output")?;
    let mut hasher = blake3::Hasher::new();
    let bytes = std::io::copy(&mut dump, &mut hasher)?;
    let status = child.wait()?;
    ensure!(status.success(), "{} ended with {status}", shell.display());
    Ok((hasher.finalize(), bytes))
}
