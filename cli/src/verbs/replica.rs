//! `clone`, `reset`, `wait`, `hydrate`: what happens to one replica.

use quire_engine::{Error, Lsn};
use serde::Serialize;

use crate::context::{Context, new_name};
use crate::output::{count, size, word};
use crate::progress::{Progress, TrafficMeter};
use crate::stop::Outcome;

#[derive(Serialize)]
struct Cloned {
    name: String,
    from: String,
    lsn: Option<u64>,
    pages: u32,
}

/// Makes a replica of a volume in the store, perhaps under another name.
pub(crate) fn clone(ctx: &Context, name: &str, local_name: Option<&str>) -> Outcome {
    let remote = ctx.one_volume(name, |volume| {
        format!("quire clone {} fetches what is newest; of a snapshot: quire fork {} NEW", word(volume), word(name))
    })?;
    let local = new_name(local_name.unwrap_or(name))?;
    let engine = ctx.engine()?;
    let volume = {
        let _meter = TrafficMeter::new(format!("cloning {remote}"), engine);
        engine.clone_volume(&remote, &local)?
    };
    let snapshot = volume.snapshot();
    let cloned = Cloned {
        name: local.to_string(),
        from: remote.to_string(),
        lsn: snapshot.base_lsn().map(Lsn::get),
        pages: snapshot.page_count().get(),
    };
    ctx.output.result(&cloned, |cloned| {
        let pages = count(cloned.pages.into(), "page");
        format!("{local} is here, {pages}; they are fetched when they are read")
    })
}

#[derive(Serialize)]
struct WasReset {
    name: String,
    lsn: Option<u64>,
    kept_as: Option<String>,
}

/// Goes to the store's newest commit.
pub(crate) fn reset(ctx: &Context, name: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let volume = ctx.replica(&name)?;
    let reset = {
        let _meter = TrafficMeter::new(format!("resetting {name}"), ctx.engine()?);
        volume.reset()?
    };
    let kept_as = reset.kept_as.map(|kept| kept.to_string());
    let was_reset = WasReset { name: name.to_string(), lsn: reset.lsn.map(Lsn::get), kept_as };
    ctx.output.result(&was_reset, |reset| {
        let place = reset.lsn.map_or("without a commit".to_owned(), |lsn| format!("at LSN {lsn}"));
        match &reset.kept_as {
            Some(kept) => format!("{name} is {place}; its unpushed commits are kept as {kept}"),
            None => format!("{name} is {place}"),
        }
    })
}

#[derive(Serialize)]
struct Durable {
    name: String,
    lsn: u64,
}

/// Waits until a commit is in the store.
pub(crate) fn wait(ctx: &Context, name: &str, lsn: u64, timeout: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let lsn = Lsn::try_new(lsn)?;
    let timeout = quire_settings::parse_duration(timeout).ok_or_else(|| {
        Error::invalid(format!("--timeout {timeout:?} is not a duration"))
            .with_remedy("Allowed: 500ms, 30s, 5min, 1h, 1d.")
    })?;
    ctx.engine()?.existing(&name)?.wait(lsn, timeout)?;
    let durable = Durable { name: name.to_string(), lsn: lsn.get() };
    ctx.output.result(&durable, |_| format!("LSN {lsn} of {name} is in the store"))
}

#[derive(Serialize)]
struct Written {
    name: String,
    lsn: u64,
    /// 0 if it was there already.
    bytes: u64,
}

/// Writes a checkpoint of the commit that the replica stands on.
pub(crate) fn checkpoint(ctx: &Context, name: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let volume = ctx.engine()?.existing(&name)?;
    let made = {
        let _meter = TrafficMeter::new(format!("indexing {name}"), ctx.engine()?);
        volume.checkpoint()?
    };
    let written = Written { name: name.to_string(), lsn: made.lsn.get(), bytes: made.bytes };
    ctx.output.result(&written, |written| match written.bytes {
        0 => format!("LSN {} of {name} has a checkpoint already", written.lsn),
        bytes => format!("LSN {} of {name} has a checkpoint, of {}", written.lsn, size(bytes)),
    })
}

#[derive(Serialize)]
struct Hydrated {
    name: String,
    pages_fetched: u64,
    pages: u32,
}

/// Fetches every page that is missing here.
pub(crate) fn hydrate(ctx: &Context, name: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let volume = ctx.engine()?.existing(&name)?;
    let mut progress = Progress::new(format!("hydrating {name}"));
    let fetched = volume.hydrate(&mut |done, total| progress.pages(done, total))?;
    drop(progress);
    let pages = volume.snapshot().page_count().get();
    let hydrated = Hydrated { name: name.to_string(), pages_fetched: fetched, pages };
    ctx.output
        .result(&hydrated, |_| format!("{name} is complete here: {} fetched, {pages} in all", count(fetched, "page")))
}
