//! `ls`: the volumes here and in the store.

use std::collections::BTreeMap;

use quire_engine::{Engine, Error, ErrorKind, Result, VolumeName};
use quire_settings::{Key, Source};
use serde::Serialize;

use crate::context::Context;
use crate::output::{or_dash, table};
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Listed {
    name: String,
    store_name: String,
    here: bool,
    /// `None`: the store could not be asked.
    in_store: Option<bool>,
    state: Option<&'static str>,
    lsn: Option<u64>,
    unpushed: Option<u64>,
    pages: Option<u32>,
}

/// Lists names that begin with `prefix`. If the store cannot be asked, the
/// replicas here are listed all the same, and then the error is told.
pub(crate) fn list(ctx: &Context, prefix: &str) -> Outcome {
    let engine = ctx.engine()?;
    let in_store = {
        let _meter = TrafficMeter::new("listing", engine);
        match engine.store_volumes(prefix) {
            Err(e) if e.kind() == ErrorKind::NotFound && !store_was_chosen(ctx) => Ok(Vec::new()),
            answer => answer,
        }
    };
    let (listed, unread) = merge(engine, prefix, in_store.as_deref().ok())?;
    ctx.output.result(&listed, |listed| {
        table(
            ["NAME", "WHERE", "STATE", "LSN", "UNPUSHED", "PAGES"],
            listed.iter().map(|volume| {
                let place = match (volume.here, volume.in_store) {
                    (true, Some(true)) => "here, store",
                    (true, _) => "here",
                    (false, _) => "store",
                };
                // A clone may have another name here.
                let place = match volume.store_name == volume.name {
                    true => place.to_owned(),
                    false => format!("{place} ({})", volume.store_name),
                };
                [
                    volume.name.clone(),
                    place,
                    or_dash(volume.state),
                    or_dash(volume.lsn),
                    or_dash(volume.unpushed),
                    or_dash(volume.pages),
                ]
            }),
        )
    })?;
    in_store.map_err(|e| e.context("the store could not be listed"))?;
    unread.map_or(Ok(()), |e| Err(e.into()))
}

/// The default store is made by the first push; until then it is just empty.
fn store_was_chosen(ctx: &Context) -> bool {
    ctx.settings.explain().iter().any(|setting| setting.key == Key::Store && setting.source != Source::Default)
}

/// The volumes, and why the first of those could not be opened that cannot be.
fn merge(engine: &Engine, prefix: &str, in_store: Option<&[VolumeName]>) -> Result<(Vec<Listed>, Option<Error>)> {
    let mut listed = BTreeMap::new();
    let mut unread = None;
    for name in in_store.unwrap_or_default() {
        let volume = Listed {
            name: name.to_string(),
            store_name: name.to_string(),
            here: false,
            in_store: Some(true),
            state: None,
            lsn: None,
            unpushed: None,
            pages: None,
        };
        listed.insert((name.clone(), false), volume);
    }
    for name in engine.local_volumes()?.into_iter().filter(|name| name.as_str().starts_with(prefix)) {
        let status = engine.volume(&name).map(|volume| volume.status());
        let known = status.as_ref().ok();
        let remote = engine.remote_of(&name);
        let volume = Listed {
            name: name.to_string(),
            store_name: remote.to_string(),
            here: true,
            in_store: in_store.and_then(|names| is_in_store(engine, prefix, names, &remote)),
            state: Some(known.map_or("unreadable", |status| status.state.as_str())),
            lsn: known.and_then(|status| status.lsn).map(|lsn| lsn.get()),
            unpushed: known.map(|status| status.unpushed),
            pages: known.map(|status| status.pages.get()),
        };
        // The store may give its name to another volume: that one has a line of its own.
        let is_renamed = remote != name;
        listed.insert((name, is_renamed), volume);
        unread = unread.or(status.err());
    }
    Ok((listed.into_values().collect(), unread))
}

/// Whether the store has a volume. Of its names `listed` are those that begin with `prefix`.
fn is_in_store(engine: &Engine, prefix: &str, listed: &[VolumeName], remote: &VolumeName) -> Option<bool> {
    match remote.as_str().starts_with(prefix) {
        true => Some(listed.contains(remote)),
        false => engine.has_in_store(remote).ok(),
    }
}
