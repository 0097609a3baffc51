//! What `verify` found in the store, for people and for programs.

use std::fmt::Write as _;

use quire_engine::{Engine, Lsn, Moment, Result, VolumeName};
use quire_maintenance::verify::{Damage, Depth, Note, Notes, Report, owners, verify};
use quire_sqlite_format::Share;
use serde::Serialize;

use crate::context::Context;
use crate::output::{count, size, table, time};
use crate::progress::TrafficMeter;

/// People are shown so many damaged objects, and so many stretches of pages of each.
const MOST_SHOWN: usize = 20;
/// Where the newest snapshot cannot be opened, so many are tried from it downwards for whose the damaged pages are.
const SNAPSHOTS_TRIED: u64 = 8;

#[derive(Serialize)]
pub(crate) struct InStore {
    /// `plain` or `deep`.
    depth: &'static str,
    /// The newest LSN.
    lsn: u64,
    commits: u64,
    /// How many of them are collected.
    collected: u64,
    segments: u64,
    checkpoints: u64,
    /// How many bytes of them were read.
    bytes: u64,
    /// The last verification from here that found nothing wrong, this one included.
    last_verified: Option<Verified>,
    /// The last one of them that read every byte.
    last_verified_deep: Option<Verified>,
    damage: Vec<Damaged>,
    /// How much is not listed.
    more_damage: u64,
    /// First and last LSN of each stretch of snapshots that cannot be read entirely.
    touched: Vec<(u64, u64)>,
    /// First and last page of each stretch that cannot be read of the newest snapshot; null if nothing of it can.
    lost: Option<Vec<(u32, u32)>>,
    /// Of a SQLite database: whose the damaged pages are.
    owners: Option<Vec<Owner>>,
    /// The newest snapshot that can be read entirely.
    readable_lsn: Option<u64>,
    /// Whether `quire restore` can go back to it.
    restorable: bool,
}

#[derive(PartialEq, Serialize)]
pub(crate) struct Verified {
    lsn: u64,
    time: String,
    depth: &'static str,
}

#[derive(Serialize)]
struct Damaged {
    /// Whose object it is: this volume's, or that of one which it was forked from.
    volume: String,
    /// `commit`, `segment` or `checkpoint`.
    kind: &'static str,
    object: String,
    lsn: u64,
    problem: String,
    /// First and last page of each stretch.
    pages: Vec<(u32, u32)>,
    /// Of a SQLite database: whose they are.
    owners: Option<Vec<Owner>>,
}

#[derive(Serialize)]
struct Owner {
    kind: &'static str,
    name: Option<String>,
    table: Option<String>,
    pages: u64,
}

/// Verifies what the store keeps of a volume, and remembers if it is sound.
pub(crate) fn report_of_store(ctx: &Context, name: &VolumeName, depth: Depth) -> Result<Report> {
    let engine = ctx.engine()?;
    let server = quire_settings::open_server(&ctx.settings)?;
    let _meter = TrafficMeter::new(format!("verifying {name} in the store"), engine);
    let place = format!("verifying volume {name} in {}", engine.store_url());
    let report = engine.maintain(name, |reader, volume| async move {
        match server {
            Some(server) => server.verify(volume, depth).await,
            None => verify(reader, volume, depth).await,
        }
    });
    let report = report.map_err(|e| e.context(place))?;
    if report.is_sound() {
        let time_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        let note = Note { lsn: report.lsn.get(), time_ms, deep: depth == Depth::Deep };
        notes(engine, &report.volume).add(engine.data_dir(), &report.volume, note)?;
    }
    Ok(report)
}

fn notes(engine: &Engine, remote: &VolumeName) -> Notes {
    Notes::read(engine.data_dir(), engine.store_url(), remote)
}

/// The last verifications of a volume from here: the last one, and the last that read every byte.
pub(crate) fn last_verified(engine: &Engine, name: &VolumeName) -> (Option<Verified>, Option<Verified>) {
    let notes = notes(engine, &engine.remote_of(name));
    (notes.last.map(Verified::from), notes.last_deep.map(Verified::from))
}

impl From<Note> for Verified {
    fn from(note: Note) -> Verified {
        let depth = if note.deep { "deep" } else { "plain" };
        Verified { lsn: note.lsn, time: time(note.time_ms), depth }
    }
}

impl Verified {
    pub(crate) fn in_words(&self) -> String {
        format!("LSN {} at {}, {}", self.lsn, self.time, self.depth)
    }
}

impl Damaged {
    fn new(damage: &Damage, owners: Option<Vec<Owner>>) -> Damaged {
        Damaged {
            volume: damage.volume.to_string(),
            kind: damage.object.kind(),
            object: damage.object.to_string(),
            lsn: damage.object.lsn().get(),
            problem: damage.problem.clone(),
            pages: damage.pages.ranges().collect(),
            owners,
        }
    }
}

impl InStore {
    pub(crate) fn new(engine: &Engine, name: &VolumeName, report: &Report) -> Result<InStore> {
        let (last_verified, last_verified_deep) = last_verified(engine, name);
        let (owners, of_each) = match owners_of(engine, name, report)? {
            Some(Owners { all, of_each }) => (Some(all), of_each.into_iter().map(Some).collect()),
            None => (None, Vec::new()),
        };
        let of_each = of_each.into_iter().chain(std::iter::repeat_with(|| None));
        Ok(InStore {
            depth: if report.depth == Depth::Deep { "deep" } else { "plain" },
            lsn: report.lsn.get(),
            commits: report.commits,
            collected: report.collected,
            segments: report.segments,
            checkpoints: report.checkpoints,
            bytes: report.bytes,
            last_verified,
            last_verified_deep,
            damage: report.damage.iter().zip(of_each).map(|(damage, owners)| Damaged::new(damage, owners)).collect(),
            more_damage: report.more_damage,
            touched: report.touched.iter().map(|(first, last)| (first.get(), last.get())).collect(),
            lost: report.lost.as_ref().map(|pages| pages.ranges().collect()),
            owners,
            readable_lsn: report.readable.map(|lsn| lsn.get()),
            restorable: report.restorable,
        })
    }

    pub(crate) fn sound_in_words(&self) -> String {
        let whole = count(self.commits - self.collected, "commit");
        let (segments, checkpoints) = (count(self.segments, "segment"), count(self.checkpoints, "checkpoint"));
        let read = match self.depth {
            "deep" => format!("every byte of {whole} and {segments}, {}", size(self.bytes)),
            _ => format!("{whole} read, {segments} there"),
        };
        let collected = match self.collected {
            0 => String::new(),
            collected => format!("; {} more: collected, only the header is left", count(collected, "commit")),
        };
        format!("the store is sound up to LSN {}: {read}, {checkpoints}{collected}", self.lsn)
    }

    pub(crate) fn damage_in_words(&self, name: &str) -> String {
        let mut text = format!("{name} is damaged in the store:\n");
        for damage in self.damage.iter().take(MOST_SHOWN) {
            let of = if damage.volume == name { String::new() } else { format!(" of {}", damage.volume) };
            let _ = writeln!(text, "  {}{of}: {}", damage.object, damage.problem);
            if !damage.pages.is_empty() {
                let of = damage.owners.as_deref().map_or_else(String::new, owners_in_words);
                let _ = writeln!(text, "    {}{of}", pages_in_words(&damage.pages));
            }
        }
        let more = self.damage.len().saturating_sub(MOST_SHOWN) as u64 + self.more_damage;
        if more > 0 {
            let _ = writeln!(text, "  and {more} more");
        }
        for (first, last) in &self.touched {
            let which = if first == last { format!("LSN {first}") } else { format!("LSN {first} to {last}") };
            let _ = writeln!(text, "{which} cannot be read entirely");
        }
        let _ = match &self.lost {
            None => writeln!(text, "nothing of the newest, LSN {}, can be read", self.lsn),
            Some(lost) if lost.is_empty() => writeln!(text, "nothing of the newest, LSN {}, is lost", self.lsn),
            Some(lost) => writeln!(text, "lost of the newest, LSN {}: {}", self.lsn, pages_in_words(lost)),
        };
        match &self.owners {
            Some(owners) if !owners.is_empty() => {
                text + &table(
                    ["DAMAGED PAGES", "KIND", "NAME", "OF TABLE"],
                    owners.iter().map(|owner| {
                        let text = |text: &Option<String>| text.clone().unwrap_or_default();
                        [owner.pages.to_string(), owner.kind.to_owned(), text(&owner.name), text(&owner.table)]
                    }),
                )
            }
            _ => text,
        }
    }
}

fn pages_in_words(pages: &[(u32, u32)]) -> String {
    let range = |&(first, last): &(u32, u32)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let shown: Vec<String> = pages.iter().take(MOST_SHOWN).map(range).collect();
    let total: u64 = pages.iter().map(|(first, last)| u64::from(last - first) + 1).sum();
    let more = if pages.len() > MOST_SHOWN { ", …" } else { "" };
    format!("{}: {}{more}", count(total, "page"), shown.join(", "))
}

/// ` of table orders, index by_what`.
fn owners_in_words(owners: &[Owner]) -> String {
    let shown = owners.iter().take(MOST_SHOWN).map(|owner| match &owner.name {
        Some(name) => format!("{} {name}", owner.kind),
        None => owner.kind.to_owned(),
    });
    let shown: Vec<String> = shown.collect();
    let more = if owners.len() > MOST_SHOWN { ", …" } else { "" };
    if shown.is_empty() { String::new() } else { format!(" of {}{more}", shown.join(", ")) }
}

/// Whose damaged pages are.
struct Owners {
    all: Vec<Owner>,
    /// Of each damaged object of the report, in its order.
    of_each: Vec<Vec<Owner>>,
}

/// Whose the damaged pages are, all together and of each damaged object, as far as snapshots that can be opened tell.
fn owners_of(engine: &Engine, name: &VolumeName, report: &Report) -> Result<Option<Owners>> {
    let mut all = report.lost.clone().unwrap_or_default();
    report.damage.iter().for_each(|damage| all.union_with(&damage.pages));
    if report.is_sound() || all.is_empty() {
        return Ok(None);
    }
    let mut among = vec![all];
    among.extend(report.damage.iter().map(|damage| damage.pages.clone()));
    let snapshot = |lsn| engine.volume_at(name, Moment::Lsn(lsn)).ok().filter(|volume| !is_file(volume));
    let newest = (0..SNAPSHOTS_TRIED).filter_map(|n| Lsn::new(report.lsn.get().checked_sub(n)?));
    let newest = newest.filter_map(snapshot).next().map(|volume| volume.snapshot());
    let older = report.readable.and_then(snapshot).map(|volume| volume.snapshot());
    let shares = match (newest, older) {
        (Some(newest), older) => owners(newest, older, &among)?,
        (None, Some(older)) => owners(older, None, &among)?,
        (None, None) => None,
    };
    let mut of_each = shares.into_iter().flatten().map(|shares| shares.into_iter().map(Owner::from).collect());
    Ok(of_each.next().map(|all| Owners { all, of_each: of_each.collect() }))
}

impl From<Share> for Owner {
    fn from(share: Share) -> Owner {
        Owner { kind: share.kind, name: share.name, table: share.table, pages: share.pages }
    }
}

fn is_file(volume: &quire_engine::Volume) -> bool {
    volume.attribute("content").as_deref() == Some("file")
}
