//! `mv` and `rm`: names come and go.

use quire_engine::{Error, ErrorKind, Result, VolumeName};
use serde::Serialize;

use crate::context::{Context, new_name};
use crate::output::word;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Renamed {
    name: String,
    new: String,
}

/// Renames a volume, here and in the store.
pub(crate) fn rename(ctx: &Context, name: &str, new: &str) -> Outcome {
    let (old, new) = (ctx.plain_name(name)?, new_name(new)?);
    ctx.engine()?.rename(&old, &new)?;
    let renamed = Renamed { name: old.to_string(), new: new.to_string() };
    ctx.output.result(&renamed, |_| format!("{old} is called {new} now"))
}

#[derive(Serialize)]
struct Removed {
    name: String,
    here: bool,
    in_store: bool,
    /// The commit that says so; `--store` only.
    lsn: Option<u64>,
}

/// Removes what this machine keeps of a volume.
pub(crate) fn remove_replica(ctx: &Context, name: &str, force: bool) -> Outcome {
    let name = to_remove(ctx, name)?;
    ctx.check_is_here(&name)?;
    ctx.engine()?.remove_replica(&name, force).map_err(|e| unpushed(e, &name))?;
    let removed = Removed { name: name.to_string(), here: true, in_store: false, lsn: None };
    ctx.output.result(&removed, |_| format!("removed the replica of {name}; the store was not touched"))
}

/// Who names a snapshot is not led to remove the volume, all of it.
fn to_remove(ctx: &Context, text: &str) -> Result<VolumeName> {
    ctx.one_volume(text, |name| {
        format!("Snapshots are not removed one by one: `quire keep {}` says what is kept of its history.", word(name))
    })
}

/// Without `--force` a refusal is the ordinary case, so it says both ways on. What no push can save the engine knows.
fn unpushed(error: Error, name: &VolumeName) -> Error {
    let is_pushed = error.remedy().is_some_and(|remedy| remedy.contains("quire push"));
    match error.kind() {
        ErrorKind::Conflict if is_pushed => {
            let name = word(name);
            error.with_remedy(format!("Push them: quire push {name}. Or lose them: quire rm --force {name}"))
        }
        _ => error,
    }
}

/// Deletes a volume in the store, for everybody.
pub(crate) fn delete_in_store(ctx: &Context, name: &str) -> Outcome {
    let name = to_remove(ctx, name)?;
    let lsn = ctx.engine()?.delete_in_store(&name)?;
    let removed = Removed { name: name.to_string(), here: false, in_store: true, lsn: Some(lsn.get()) };
    ctx.output.result(&removed, |_| format!("deleted {name} in the store, by LSN {lsn}; a replica here stays"))
}
