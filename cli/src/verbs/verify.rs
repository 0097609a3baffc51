//! `verify`: is every byte what was written?

use quire_engine::{Error, VolumeName};
use serde::Serialize;

use crate::context::{Context, plain_name};
use crate::output::{count, size};
use crate::progress::Progress;
use crate::sqlite;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Checked {
    name: String,
    pages: u64,
    bytes: u64,
    /// Whether SQLite's own check ran.
    integrity_check: bool,
}

/// Checks the visible snapshot, and with `deep` what SQLite says of its structure.
pub(crate) fn verify(ctx: &Context, name: &str, deep: bool) -> Outcome {
    let name = plain_name(name)?;
    let volume = ctx.engine()?.existing(&name)?;
    let mut progress = Progress::new(format!("verifying {name}"));
    let verified = volume.verify(&mut |done, total| progress.pages(done, total))?;
    drop(progress);
    let deep = deep && volume.attribute("content").as_deref() != Some("file");
    if deep {
        check_structure(ctx, &name)?;
    }
    let checked =
        Checked { name: name.to_string(), pages: verified.pages, bytes: verified.bytes, integrity_check: deep };
    ctx.output.result(&checked, |checked| {
        let structure = if deep { "; integrity_check is ok" } else { "" };
        format!("{name} is sound: {}, {}{structure}", count(checked.pages, "page"), size(checked.bytes))
    })
}

fn check_structure(ctx: &Context, name: &VolumeName) -> Outcome {
    let connection = sqlite::connect(ctx.engine()?, name)?;
    let check = || -> rusqlite::Result<Vec<String>> {
        connection.prepare("PRAGMA integrity_check(10)")?.query_map([], |row| row.get(0))?.collect()
    };
    let findings = check().map_err(|e| sqlite::volume_error(name, "checking", e))?;
    if findings == ["ok"] {
        return Ok(());
    }
    Err(Error::corrupt(format!("volume {name}: integrity_check says: {}", findings.join("; ")))
        .with_remedy("The pages are as they were written: the program that wrote them left them like this.")
        .into())
}
