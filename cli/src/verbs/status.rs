//! `status`: how replicas and store relate.

use std::fmt::Write as _;

use quire_engine::{Lsn, Status};
use serde::Serialize;

use crate::context::Context;
use crate::output::{facts, or_dash, table};
use crate::stop::Outcome;

#[derive(Serialize)]
struct Row {
    name: String,
    store_name: String,
    volume_id: Option<String>,
    lsn: Option<u64>,
    base_lsn: Option<u64>,
    store_lsn: Option<u64>,
    unpushed: u64,
    state: &'static str,
    last_error: Option<String>,
    remedy: Option<String>,
    writer: Option<String>,
    pages: u32,
    page_size: Option<usize>,
    cached_pages: u64,
    store: String,
}

impl From<Status> for Row {
    fn from(status: Status) -> Row {
        Row {
            name: status.name.to_string(),
            store_name: status.store_name.to_string(),
            volume_id: status.volume_id,
            lsn: status.lsn.map(Lsn::get),
            base_lsn: status.base_lsn.map(Lsn::get),
            store_lsn: status.store_lsn.map(Lsn::get),
            unpushed: status.unpushed,
            state: status.state.as_str(),
            last_error: status.last_error,
            remedy: status.remedy,
            writer: status.writer,
            pages: status.pages.get(),
            page_size: status.page_size.map(|size| size.bytes()),
            cached_pages: status.cached_pages,
            store: status.store,
        }
    }
}

impl Row {
    /// What the volume is called in the store, if that is another name.
    fn other_name(&self) -> Option<String> {
        (self.store_name != self.name).then(|| self.store_name.clone())
    }
}

/// Shows the volumes that were named, or all that have a replica here.
pub(crate) fn status(ctx: &Context, names: &[String]) -> Outcome {
    let mut rows = Vec::new();
    let mut unread = None;
    for name in ctx.named_or_all(names)? {
        match ctx.replica(&name) {
            Ok(volume) => rows.push(Row::from(volume.status())),
            // The others are shown all the same.
            Err(e) => unread = unread.or(Some(e)),
        }
    }
    if !rows.is_empty() || unread.is_none() {
        ctx.output.result(&rows, |rows| match rows.as_slice() {
            [row] if names.len() == 1 => one(row),
            rows => many(rows),
        })?;
    }
    unread.map_or(Ok(()), |e| Err(e.into()))
}

fn one(row: &Row) -> String {
    facts([
        ("name", Some(row.name.clone())),
        ("name in the store", row.other_name()),
        ("state", Some(row.state.to_owned())),
        ("lsn", Some(or_dash(row.lsn))),
        ("base lsn", Some(or_dash(row.base_lsn))),
        ("store lsn", Some(or_dash(row.store_lsn))),
        ("unpushed", Some(row.unpushed.to_string())),
        ("pages", Some(row.pages.to_string())),
        ("page size", row.page_size.map(|bytes| bytes.to_string())),
        ("cached pages", Some(row.cached_pages.to_string())),
        ("writer", row.writer.clone()),
        ("volume id", row.volume_id.clone()),
        ("store", Some(row.store.clone())),
        ("last error", row.last_error.clone()),
        ("remedy", row.remedy.clone()),
    ])
}

fn many(rows: &[Row]) -> String {
    let mut text = table(
        ["NAME", "STATE", "LSN", "BASE", "STORE", "UNPUSHED", "PAGES", "CACHED"],
        rows.iter().map(|row| {
            [
                row.name.clone(),
                row.state.to_owned(),
                or_dash(row.lsn),
                or_dash(row.base_lsn),
                or_dash(row.store_lsn),
                row.unpushed.to_string(),
                row.pages.to_string(),
                row.cached_pages.to_string(),
            ]
        }),
    );
    for row in rows {
        let notes = [
            ("name in the store", row.other_name()),
            ("last error", row.last_error.clone()),
            ("remedy", row.remedy.clone()),
        ];
        for (what, said) in notes {
            if let Some(said) = said {
                let _ = writeln!(text, "{}: {what}: {said}", row.name);
            }
        }
    }
    text
}
