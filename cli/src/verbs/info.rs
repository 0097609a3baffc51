//! `info`: one volume's facts.

use quire_engine::{LogEntry, Lsn, Moment, Status, VolumeName};
use serde::Serialize;

use super::import::noted_length;
use super::log::{Entry, entry_facts};
use super::verify_store::{Verified, last_verified};
use crate::context::{Context, Named};
use crate::output::{facts, size};
use crate::stop::Outcome;

#[derive(Serialize)]
struct Info {
    name: String,
    store_name: String,
    here: bool,
    content: Option<String>,
    bytes: u64,
    page_size: Option<usize>,
    pages: u32,
    cached_pages: u64,
    state: Option<&'static str>,
    lsn: Option<u64>,
    volume_id: Option<String>,
    store: String,
    /// The newest commit in the store, if the volume has no replica here.
    commit: Option<Entry>,
    /// The last verification from here that found nothing wrong in the store, and the last that read every byte.
    verified: Option<Verified>,
    verified_deep: Option<Verified>,
}

/// Shows a volume as it is here, or else as it is in the store, or one of its commits.
pub(crate) fn info(ctx: &Context, name: &str) -> Outcome {
    match ctx.named(name)? {
        Named::Now(name) => info_now(ctx, &name),
        Named::At(name, lsn) => info_at(ctx, &name, Moment::Lsn(lsn)),
        Named::AtTime(name, time_ms) => info_at(ctx, &name, Moment::Time(time_ms)),
    }
}

fn info_now(ctx: &Context, name: &VolumeName) -> Outcome {
    let engine = ctx.engine()?;
    let mut info = if engine.local_volumes()?.contains(name) {
        let volume = engine.volume(name)?;
        let status = volume.status();
        let length = noted_length(&volume).and_then(|length| length.parse().ok());
        of_replica(status, volume.attribute("content"), length)
    } else {
        of_store(name, engine.store_url(), &engine.store_info(name)?)
    };
    (info.verified, info.verified_deep) = last_verified(engine, name);
    ctx.output.result(&info, |info| {
        let verified = info.verified.as_ref().map_or_else(|| "never".to_owned(), Verified::in_words);
        let deep = info.verified_deep.as_ref().filter(|deep| info.verified.as_ref() != Some(deep));
        facts([
            ("name", Some(info.name.clone())),
            ("name in the store", (info.store_name != info.name).then(|| info.store_name.clone())),
            ("where", Some(if info.here { "here" } else { "in the store" }.to_owned())),
            ("state", info.state.map(str::to_owned)),
            ("lsn", info.lsn.map(|lsn| lsn.to_string())),
            ("content", info.content.clone()),
            ("size", Some(format!("{} ({} bytes)", size(info.bytes), info.bytes))),
            ("pages", Some(info.pages.to_string())),
            ("page size", info.page_size.map(|bytes| bytes.to_string())),
            ("cached pages", info.here.then(|| info.cached_pages.to_string())),
            ("volume id", info.volume_id.clone()),
            ("store", Some(info.store.clone())),
            ("verified", Some(verified)),
            ("verified deep", deep.map(Verified::in_words)),
        ])
    })
}

fn of_replica(status: Status, content: Option<String>, length: Option<u64>) -> Info {
    // Whatever is no file was written through SQLite.
    let content = content.or((status.pages.get() > 0).then(|| "sqlite".to_owned()));
    let paged = status.page_size.map_or(0, |page_size| status.pages.bytes(page_size));
    Info {
        name: status.name.to_string(),
        store_name: status.store_name.to_string(),
        here: true,
        content,
        bytes: length.unwrap_or(paged),
        page_size: status.page_size.map(|page_size| page_size.bytes()),
        pages: status.pages.get(),
        cached_pages: status.cached_pages,
        state: Some(status.state.as_str()),
        lsn: status.lsn.map(Lsn::get),
        volume_id: status.volume_id,
        store: status.store,
        commit: None,
        verified: None,
        verified_deep: None,
    }
}

fn of_store(name: &VolumeName, store: &str, head: &LogEntry) -> Info {
    Info {
        name: name.to_string(),
        store_name: name.to_string(),
        here: false,
        content: None,
        bytes: head.page_count.bytes(head.page_size),
        page_size: Some(head.page_size.bytes()),
        pages: head.page_count.get(),
        cached_pages: 0,
        state: None,
        lsn: Some(head.lsn.get()),
        volume_id: None,
        store: store.to_owned(),
        commit: Some(Entry::from(head)),
        verified: None,
        verified_deep: None,
    }
}

fn info_at(ctx: &Context, name: &VolumeName, moment: Moment) -> Outcome {
    let entry = ctx.engine()?.info_at(name, moment)?;
    ctx.output.result(&Entry::from(&entry), entry_facts)
}
