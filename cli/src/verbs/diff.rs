//! `diff`: which pages changed between two snapshots, and whose they are.

use quire_engine::{Engine, Error, Lsn, Moment, PageSet, Result, Snapshot, VolumeName};
use quire_sqlite_format::{Depth, Owners, Shares, read_header, read_schema};
use serde::Serialize;

use crate::context::Context;
use crate::output::{count, table};
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Diff {
    name: String,
    from_lsn: u64,
    to_lsn: u64,
    pages_before: u32,
    pages_after: u32,
    pages_changed: u64,
    /// First and last page of each stretch.
    pages: Vec<(u32, u32)>,
    /// Of a SQLite database: who owns how many of them.
    owners: Option<Vec<Share>>,
}

#[derive(Serialize)]
struct Share {
    /// `table`, `index`, `schema`, `free`, or `other` where that cannot be told without reading every page.
    kind: &'static str,
    name: Option<String>,
    /// The table that an index belongs to.
    table: Option<String>,
    pages_changed: u64,
}

/// Shows what changed from one snapshot to another.
pub(crate) fn diff(ctx: &Context, name: &str, a: &str, b: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let (a, b) = (moment(a)?, moment(b)?);
    let engine = ctx.engine()?;
    let _meter = TrafficMeter::new(format!("comparing snapshots of {name}"), engine);
    let between = engine.changed_between(&name, a, b)?;
    let (before, after) = (between.from.lsn, between.to.lsn);
    let owners = owners(engine, &name, before, after, &between.pages)?;
    let diff = Diff {
        name: name.to_string(),
        from_lsn: before.get(),
        to_lsn: after.get(),
        pages_before: between.from.page_count.get(),
        pages_after: between.to.page_count.get(),
        pages_changed: between.pages.len(),
        pages: between.pages.ranges().collect(),
        owners,
    };
    ctx.output.result(&diff, |diff| {
        let (before, after) = (count(diff.pages_before.into(), "page"), count(diff.pages_after.into(), "page"));
        let changed = count(diff.pages_changed, "page");
        let line = format!(
            "{}: {changed} changed from LSN {} ({before}) to LSN {} ({after})\n",
            diff.name, diff.from_lsn, diff.to_lsn
        );
        match &diff.owners {
            Some(owners) if !owners.is_empty() => line + &shares(owners),
            _ => line,
        }
    })
}

fn shares(owners: &[Share]) -> String {
    table(
        ["PAGES", "KIND", "NAME", "OF TABLE"],
        owners.iter().map(|share| {
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            [share.pages_changed.to_string(), share.kind.to_owned(), text(&share.name), text(&share.table)]
        }),
    )
}

/// Reads an LSN or a time.
fn moment(text: &str) -> Result<Moment> {
    if let Some(lsn) = text.parse().ok().and_then(Lsn::new) {
        return Ok(Moment::Lsn(lsn));
    }
    quire_settings::parse_time(text).map(Moment::Time).ok_or_else(|| {
        Error::invalid(format!("{text:?} is neither an LSN nor a time"))
            .with_remedy("An LSN is a whole number from 1; a time is written as 2026-01-31T12:00:00Z.")
    })
}

/// Whose the changed pages are: in the newer snapshot, or in the older one if the newer has them no more.
fn owners(engine: &Engine, name: &VolumeName, from: Lsn, to: Lsn, changed: &PageSet) -> Result<Option<Vec<Share>>> {
    let mut tally = Shares::default();
    let after = engine.volume_at(name, Moment::Lsn(to))?.snapshot();
    let mut still = changed.clone();
    still.truncate(after.page_count());
    let mut gone = changed.clone();
    gone.subtract(&still);
    if !tally_owners(after, &still, &mut tally)? {
        return Ok(None);
    }
    if !gone.is_empty() {
        tally_owners(engine.volume_at(name, Moment::Lsn(from))?.snapshot(), &gone, &mut tally)?;
    }
    let share = |share: quire_sqlite_format::Share| Share {
        kind: share.kind,
        name: share.name,
        table: share.table,
        pages_changed: share.pages,
    };
    Ok(Some(tally.into_vec().into_iter().map(share).collect()))
}

/// Adds up whose these pages of a snapshot are. False: it is no SQLite database.
fn tally_owners(mut pages: Snapshot, among: &PageSet, tally: &mut Shares) -> Result<bool> {
    let Some(header) = read_header(&mut pages)? else { return Ok(false) };
    let schema = read_schema(&mut pages, &header)?;
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Trees)?;
    let unplaced = tally.add(&owners, &schema, among);
    tally.add_other(&unplaced);
    Ok(true)
}
