//! `log` and `watch`: the commits of a volume in the store.

use quire_engine::{LogEntry, Lsn};
use serde::Serialize;

use crate::context::Context;
use crate::output::{count, facts, or_dash, size, table, time};
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

/// One commit, as JSON shows it.
#[derive(Serialize)]
pub(crate) struct Entry {
    lsn: u64,
    kind: &'static str,
    /// By the store's clock; `None`: history does not keep the commit.
    time: Option<String>,
    author_time: String,
    /// `None`: so scattered that only the commit's body lists them.
    pages_changed: Option<u64>,
    page_count: u32,
    page_size: usize,
    bytes: u64,
    commit_id: String,
    author: String,
    hash: String,
}

impl From<&LogEntry> for Entry {
    fn from(entry: &LogEntry) -> Entry {
        Entry {
            lsn: entry.lsn.get(),
            kind: entry.kind,
            time: entry.stored_ms.map(time),
            author_time: time(entry.author_ms),
            pages_changed: entry.pages_changed,
            page_count: entry.page_count.get(),
            page_size: entry.page_size.bytes(),
            bytes: entry.bytes,
            commit_id: entry.commit_id.to_string(),
            author: entry.author.clone(),
            hash: entry.hash.to_string(),
        }
    }
}

impl Entry {
    /// The time to show; where only that of the author's clock is known, that in brackets.
    fn shown_time(&self) -> String {
        self.time.clone().unwrap_or_else(|| format!("({})", self.author_time))
    }
}

/// One commit's facts, one a line.
pub(crate) fn entry_facts(entry: &Entry) -> String {
    facts([
        ("lsn", Some(entry.lsn.to_string())),
        ("kind", Some(entry.kind.to_owned())),
        ("time", Some(entry.shown_time())),
        ("author", Some(entry.author.clone())),
        ("pages changed", entry.pages_changed.map(|pages| pages.to_string())),
        ("pages", Some(entry.page_count.to_string())),
        ("page size", Some(entry.page_size.to_string())),
        ("bytes", Some(entry.bytes.to_string())),
        ("commit id", Some(entry.commit_id.clone())),
        ("hash", Some(entry.hash.clone())),
    ])
}

/// Shows the commits in the store, the newest first.
pub(crate) fn log(ctx: &Context, name: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let engine = ctx.engine()?;
    let log = {
        let _meter = TrafficMeter::new(format!("reading the log of {name}"), engine);
        engine.existing(&name)?.log()?
    };
    let entries: Vec<Entry> = log.iter().map(Entry::from).collect();
    ctx.output.result(&entries, |entries| {
        table(
            ["LSN", "TIME", "KIND", "CHANGED", "PAGES", "BYTES", "AUTHOR", "COMMIT"],
            entries.iter().map(|entry| {
                [
                    entry.lsn.to_string(),
                    entry.shown_time(),
                    entry.kind.to_owned(),
                    or_dash(entry.pages_changed),
                    entry.page_count.to_string(),
                    size(entry.bytes),
                    entry.author.clone(),
                    entry.commit_id.clone(),
                ]
            }),
        )
    })
}

/// Prints each commit as it reaches the store, until Ctrl-C or until nobody reads.
pub(crate) fn watch(ctx: &Context, name: &str, after: Option<u64>) -> Outcome {
    let name = ctx.plain_name(name)?;
    let volume = ctx.engine()?.existing(&name)?;
    let after = match after {
        Some(lsn) => Lsn::new(lsn),
        None => volume.fetch()?,
    };
    let (output, mut printed) = (ctx.output, Ok(()));
    volume.watch(after, &mut |entry| {
        printed = output.event(&Entry::from(&entry), |entry| {
            let changed = entry.pages_changed.map_or("many pages".to_owned(), |pages| count(pages, "page"));
            format!("{}  {}  {changed} changed  {}", entry.lsn, entry.shown_time(), entry.author)
        });
        printed.is_ok()
    })?;
    printed
}
