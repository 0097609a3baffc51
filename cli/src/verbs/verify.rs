//! `verify`: is every byte what was written?

use quire_engine::{Engine, Error, ErrorKind, Lsn, Moment, Volume, VolumeName};
use quire_maintenance::verify::{Depth, Report};
use serde::Serialize;

use super::verify_store::{InStore, report_of_store};
use crate::context::{Context, Named};
use crate::output::{count, size, word};
use crate::progress::Progress;
use crate::sqlite;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Checked {
    name: String,
    /// Of the snapshot here, or else of the newest one in the store.
    pages: u64,
    bytes: u64,
    /// Whether SQLite's own check ran.
    integrity_check: bool,
    /// None: of a snapshot of the past, or of a volume that was never pushed.
    in_store: Option<InStore>,
}

/// Checks the visible snapshot, what the store keeps of the volume, and with `deep` what SQLite says of its structure.
pub(crate) fn verify(ctx: &Context, name: &str, deep: bool) -> Outcome {
    match ctx.named(name)? {
        Named::Now(name) => verify_now(ctx, &name, deep),
        _ => verify_past(ctx, name, deep),
    }
}

fn verify_past(ctx: &Context, name: &str, deep: bool) -> Outcome {
    let (volume, (plain_name, at)) = ctx.opened(name)?;
    let name = volume.name();
    let (pages, bytes) = verify_pages(&volume)?;
    let integrity_check = deep && !is_file(&volume);
    if integrity_check {
        check_structure(ctx.engine()?, &plain_name, at)?;
    }
    let checked = Checked { name: name.to_string(), pages, bytes, integrity_check, in_store: None };
    ctx.output.result(&checked, sound)
}

fn verify_now(ctx: &Context, name: &VolumeName, deep: bool) -> Outcome {
    let engine = ctx.engine()?;
    let here = if engine.local_volumes()?.contains(name) { Some(engine.volume(name)?) } else { None };
    let mut checked = Checked { name: name.to_string(), pages: 0, bytes: 0, integrity_check: false, in_store: None };
    let mut wrong_here = None;
    match &here {
        Some(volume) => match verify_pages(volume) {
            Ok(verified) => (checked.pages, checked.bytes) = verified,
            // Pages that are not here come from the store, which says more of what is wrong there.
            Err(e) if matches!(e.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => wrong_here = Some(e),
            Err(e) => return Err(e.into()),
        },
        None => match engine.store_info(name) {
            Ok(head) => {
                (checked.pages, checked.bytes) = (head.page_count.get().into(), head.page_count.bytes(head.page_size));
            }
            Err(e) if e.kind() == ErrorKind::Corrupt => {}
            Err(e) => return Err(e.into()),
        },
    }
    let pushed = here.as_ref().is_none_or(|volume| volume.status().base_lsn.is_some());
    let mut damage = None;
    let mut newest = None;
    if pushed {
        let depth = if deep { Depth::Deep } else { Depth::Plain };
        let report = report_of_store(ctx, name, depth)?;
        newest = Some(report.lsn);
        damage = (!report.is_sound()).then(|| in_words(name, &report, here.is_some() && wrong_here.is_none()));
        checked.in_store = Some(InStore::new(engine, name, &report)?);
    }
    if let (None, Some(e)) = (&damage, wrong_here) {
        return Err(e.into());
    }
    if damage.is_none() && deep && checked.pages > 0 {
        let at = if here.is_some() { None } else { newest };
        let volume = match (here, at) {
            (Some(volume), _) => Some(volume),
            (None, Some(lsn)) => Some(engine.volume_at(name, Moment::Lsn(lsn))?),
            (None, None) => None,
        };
        if volume.is_some_and(|volume| !is_file(&volume)) {
            check_structure(engine, name, at)?;
            checked.integrity_check = true;
        }
    }
    match damage {
        None => ctx.output.result(&checked, sound),
        Some(error) => {
            ctx.output.result(&checked, |checked| match &checked.in_store {
                Some(in_store) => in_store.damage_in_words(&checked.name),
                None => String::new(),
            })?;
            Err(error.into())
        }
    }
}

/// Checks the pages of a snapshot; how many, and how many bytes.
fn verify_pages(volume: &Volume) -> quire_engine::Result<(u64, u64)> {
    let mut progress = Progress::new(format!("verifying {}", volume.name()));
    let verified = volume.verify(&mut |done, total| progress.pages(done, total))?;
    Ok((verified.pages, verified.bytes))
}

fn is_file(volume: &Volume) -> bool {
    volume.attribute("content").as_deref() == Some("file")
}

fn sound(checked: &Checked) -> String {
    let structure = if checked.integrity_check { "; integrity_check is ok" } else { "" };
    let pages = count(checked.pages, "page");
    let mut text = format!("{} is sound: {pages}, {}{structure}", checked.name, size(checked.bytes));
    if let Some(in_store) = &checked.in_store {
        text = text + "\n" + &in_store.sound_in_words();
    }
    text
}

/// What is wrong, and what goes on from there. `saved` is whether a replica here is sound.
fn in_words(name: &VolumeName, report: &Report, saved: bool) -> Error {
    let objects = count(report.damage.len() as u64 + report.more_damage, "object");
    let word = word(name);
    let is_whole = match report.depth {
        Depth::Plain => "of which nothing is missing",
        Depth::Deep => "that can be read entirely",
    };
    let mut remedy = match report.readable {
        Some(lsn) if report.restorable && lsn < report.lsn => format!(
            "LSN {lsn} is the newest snapshot {is_whole}. To go back to it: quire restore {word}@{lsn}; to save it: \
             quire export {word}@{lsn} FILE"
        ),
        Some(lsn) => {
            format!("LSN {lsn} is the newest snapshot {is_whole}. To save it: quire export {word}@{lsn} FILE")
        }
        None => {
            "There is no snapshot any more that can be read entirely. Restore the objects from the store's versions \
                 or a copy."
                .to_owned()
        }
    };
    if saved {
        remedy = format!("{remedy}\nThe replica here is sound. To save what it has: quire export {word} FILE");
    }
    Error::corrupt(format!("volume {name}: damage in the store, {objects}")).with_remedy(remedy)
}

fn check_structure(engine: &Engine, name: &VolumeName, at: Option<Lsn>) -> Outcome {
    let connection = sqlite::connect(engine, name, at)?;
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
