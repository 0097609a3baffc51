//! `keep`, `gc`: what is kept of the history in the store, and what goes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use quire_engine::{Error, Lsn, Moment, Result, VolumeName};
use quire_maintenance::Server;
use quire_maintenance::collect::{
    Amount, Collected, Hold, Holder, Options, Retention, Span, Stores, collect, give_up, keep as retain,
};
use quire_settings::parse_duration;
use serde::Serialize;

use crate::context::Context;
use crate::output::{count, size, span as span_in_words, word};
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

/// People are shown so many of those who hold something.
const MOST_SHOWN: usize = 20;

#[derive(Serialize)]
struct Kept {
    name: String,
    /// `all`, a time, or `last N`.
    span: String,
    /// Snapshots that are kept however old they are.
    snapshots: Vec<u64>,
    /// Of what is older than this LSN a collector has let go already, but for the snapshots.
    from: u64,
}

/// What to keep. What is kept less does not come back, so that nothing is taken that people write for months.
fn span_of(text: &str) -> Result<Span> {
    let span = Span::parse(text)?;
    match text.trim().strip_suffix('m').and_then(|n| n.parse::<u64>().ok()) {
        Some(n) => Err(Error::invalid(format!("`{text}` may be minutes, or months"))
            .with_remedy(format!("Say `{n}min` for minutes, or `{}d` for months.", n.saturating_mul(30)))),
        None => Ok(span),
    }
}

/// Says what to keep of a volume's history, or shows it.
pub(crate) fn keep(ctx: &Context, name: &str, what: &[String], no_longer: bool) -> Outcome {
    let (name, moment) = ctx.named(name)?.parts();
    let span = match what {
        [] => None,
        words if moment.is_none() => Some(span_of(&words.join(" "))?),
        _ => {
            return Err(Error::invalid("a snapshot is kept, or a span of time: not both in one word")
                .with_remedy(format!(
                    "Say `quire keep {0}@LSN`, and `quire keep {0} {1}`.",
                    word(&name),
                    what.join(" ")
                ))
                .into());
        }
    };
    if no_longer && moment.is_none() {
        return Err(Error::invalid("--no-longer is about one snapshot")
            .with_remedy(format!("Name it: quire keep {}@LSN --no-longer", word(&name)))
            .into());
    }
    let engine = ctx.engine()?;
    let snapshot = match moment {
        None => None,
        // One that is not there any more can still be taken off the list.
        Some(Moment::Lsn(lsn)) if no_longer => Some(lsn),
        Some(moment) => Some(engine.info_at(&name, moment)?.lsn),
    };
    let stores = stores(ctx)?;
    let (retention, statement) = engine.maintain(&name, |_, volume| async move {
        let change = |retention: &mut Retention| {
            if let Some(span) = span {
                retention.span = span;
            }
            match snapshot {
                Some(lsn) if no_longer => drop(retention.named.remove(&lsn)),
                Some(lsn) => drop(retention.named.insert(lsn)),
                None => {}
            }
        };
        let kept = retain(&stores, &volume, change).await?;
        if let Some(lsn) = snapshot.filter(|_| no_longer) {
            give_up(&stores, &volume, lsn).await?;
        }
        Ok(kept)
    })?;
    let kept = Kept {
        name: name.to_string(),
        span: retention.span.to_string(),
        snapshots: retention.named.iter().map(|lsn| lsn.get()).collect(),
        from: statement.horizon.get(),
    };
    ctx.output.result(&kept, |kept| {
        let span = match retention.span {
            Span::All => "all of its history".to_owned(),
            Span::Last(n) => format!("its last {}", count(n, "snapshot")),
            Span::Time(_) => format!("what it was at any time in the last {}", kept.span),
        };
        let snapshots: Vec<String> = kept.snapshots.iter().map(u64::to_string).collect();
        let besides = match snapshots.is_empty() {
            true => String::new(),
            false => format!(", and LSN {} however old", snapshots.join(", ")),
        };
        let gone = match kept.from {
            1 => String::new(),
            from => format!("; what was before LSN {from} is let go already"),
        };
        let rest = match retention.span {
            Span::All => String::new(),
            _ => {
                let grace = span_in_words(Options::default().grace_ms.div_ceil(1000));
                format!("; two runs of `quire gc`, {grace} apart, let go the rest")
            }
        };
        format!("of {name} is kept: {span}{besides}{rest}{gone}")
    })
}

#[derive(Serialize)]
struct Swept {
    name: String,
    dry_run: bool,
    /// What is kept by the owner's word.
    span: String,
    lsn: u64,
    /// Every snapshot from here on is kept.
    horizon: u64,
    /// Older ones that are kept too.
    kept: Vec<u64>,
    held: Vec<Held>,
    /// Nothing up to here was touched, as somebody's outcome is open.
    blocked: Option<u64>,
    /// What goes when so many seconds have passed.
    waits_seconds: Option<u64>,
    commits: Counted,
    checkpoints: Counted,
    segments: Counted,
    segments_left: Counted,
    /// Old commits whose pages are still needed; a compaction moves them.
    commits_left: u64,
}

#[derive(Serialize)]
struct Held {
    lsn: u64,
    by: String,
}

#[derive(Serialize)]
struct Counted {
    objects: u64,
    bytes: u64,
}

/// Lets go what need not be kept.
pub(crate) fn gc(ctx: &Context, names: &[String], dry_run: bool, grace: &str) -> Outcome {
    let grace_ms = grace_ms(grace)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let options = Options { grace_ms, report_at_ms: dry_run.then_some(now_ms), ..Options::default() };
    let store = Store { stores: stores(ctx)?, server: quire_settings::open_server(&ctx.settings)? };
    let names = names.iter().map(|name| ctx.plain_name(name)).collect::<Result<Vec<_>>>()?;
    let (swept, failed) = sweep(ctx, &store, &names, &options)?;
    ctx.output.result(&swept, |swept| swept.iter().map(describe).collect())?;
    failed.map_or(Ok(()), |e| Err(e.into()))
}

fn grace_ms(text: &str) -> Result<u64> {
    let grace = match text.trim() {
        "0" => Some(Duration::ZERO),
        text => parse_duration(text),
    };
    grace.and_then(|grace| u64::try_from(grace.as_millis()).ok()).ok_or_else(|| {
        Error::invalid(format!("--grace {text:?} is not a time")).with_remedy("Allowed: 1d, 12h, 30min, 0s.")
    })
}

/// Where history is collected: by the server, if there is one.
struct Store {
    stores: Stores,
    server: Option<Server>,
}

impl Store {
    async fn collect(&self, volume: &VolumeName, options: &Options) -> Result<Option<Collected>> {
        match &self.server {
            Some(server) => server.collect(volume, options).await,
            None => collect(&self.stores, volume, options).await,
        }
    }
}

/// Collects one volume after the other. One that fails does not keep the others from it: the first error is told last.
fn sweep(ctx: &Context, store: &Store, names: &[VolumeName], options: &Options) -> Result<(Vec<Swept>, Option<Error>)> {
    let engine = ctx.engine()?;
    let (mut swept, mut failed) = (Vec::new(), None);
    let mut add = |name: VolumeName, collected: Result<Option<Collected>>| match collected {
        Ok(collected) => {
            swept.extend(collected.map(|collected| told(&name, &collected, options.report_at_ms.is_some())));
        }
        Err(e) => {
            failed.get_or_insert(e);
        }
    };
    if names.is_empty() {
        let root = VolumeName::parse("all")?;
        for volume in engine.maintain(&root, |_, _| store.stores.volumes())? {
            let _meter = TrafficMeter::new(format!("collecting {volume}"), engine);
            let collected = engine.maintain(&root, |_, _| store.collect(&volume, options));
            add(volume, collected);
        }
        return Ok((swept, failed));
    }
    for name in names {
        let _meter = TrafficMeter::new(format!("collecting {name}"), engine);
        let collected = engine.maintain(name, |_, volume| async move {
            let collected = store.collect(&volume, options).await?;
            collected.map(Some).ok_or_else(|| {
                Error::not_found(format!("the store has no volume {volume}"))
                    .with_remedy("`quire ls` lists what there is.")
            })
        });
        add(name.clone(), collected);
    }
    Ok((swept, failed))
}

fn stores(ctx: &Context) -> Result<Stores> {
    let upkeep = quire_settings::open_upkeep(&ctx.settings)?;
    Ok(Stores::new(upkeep.log, upkeep.pages))
}

fn told(name: &VolumeName, collected: &Collected, dry_run: bool) -> Swept {
    let counted = |amount: Amount| Counted { objects: amount.objects, bytes: amount.bytes };
    Swept {
        name: name.to_string(),
        dry_run,
        span: collected.retention.span.to_string(),
        lsn: collected.head.get(),
        horizon: collected.horizon.get(),
        kept: collected.kept.iter().map(|lsn| lsn.get()).collect(),
        held: collected.holds.iter().map(|hold| Held { lsn: hold.lsn.get(), by: holder(name, hold) }).collect(),
        blocked: collected.blocked.map(Lsn::get),
        waits_seconds: collected.waits_ms.map(|ms| ms.div_ceil(1000)),
        commits: counted(collected.commits),
        checkpoints: counted(collected.checkpoints),
        segments: counted(collected.segments),
        segments_left: counted(collected.segments_left),
        commits_left: collected.commits_left,
    }
}

fn holder(name: &VolumeName, hold: &Hold) -> String {
    let give_up = || format!("`quire keep {}@{} --no-longer` gives it up", word(name), hold.lsn);
    match &hold.holder {
        Holder::Commit(volume, lsn) => format!("LSN {lsn} of {volume} stands on it"),
        Holder::OpenCommit(volume, lsn) => format!("LSN {lsn} of {volume} is being made on it, or was given up"),
        Holder::OpenCheckpoint(place) => {
            format!("generation {} of its checkpoint is being written, or was given up", place.generation)
        }
        Holder::Replica(author) => {
            format!("work of {author} that is not in the store stands on it; {}", give_up())
        }
        Holder::Reader(author) => format!("{author} reads it; {}", give_up()),
        Holder::Unknown(problem) => format!("a marker that cannot be read: {problem}; {}", give_up()),
    }
}

fn describe(swept: &Swept) -> String {
    let would = if swept.dry_run { "would go" } else { "gone" };
    let bytes = swept.segments.bytes + swept.checkpoints.bytes + swept.commits.bytes;
    let mut text = format!(
        "{}: kept from LSN {} to {} ({}); {would}: {}, {}, the pages of {}, {} in all; left: {}, {}\n",
        swept.name,
        swept.horizon,
        swept.lsn,
        swept.span,
        count(swept.segments.objects, "segment"),
        count(swept.checkpoints.objects, "checkpoint"),
        count(swept.commits.objects, "commit"),
        size(bytes),
        count(swept.segments_left.objects, "segment"),
        size(swept.segments_left.bytes),
    );
    for lsn in &swept.kept {
        text += &format!("  LSN {lsn} is kept besides\n");
    }
    for held in swept.held.iter().take(MOST_SHOWN) {
        text += &format!("  LSN {}: {}\n", held.lsn, held.by);
    }
    if swept.held.len() > MOST_SHOWN {
        text += &format!("  and {} more\n", swept.held.len() - MOST_SHOWN);
    }
    if let Some(blocked) = swept.blocked {
        text += &format!("  nothing up to LSN {blocked} is touched before that is settled\n");
    }
    if let Some(seconds) = swept.waits_seconds {
        let what =
            if swept.dry_run { "it goes when gc is run, and once more" } else { "more goes when gc is run again" };
        text += &format!("  {what} after {}: readers may still be there\n", span_in_words(seconds));
    }
    if swept.commits_left > 0 {
        text += &still_needed(swept);
    }
    text
}

/// Why commits stay that are not kept. A compaction moves what the newest snapshot needs, and changes no older one.
fn still_needed(swept: &Swept) -> String {
    let (compact, left) = (format!("`quire compact {}`", word(&swept.name)), count(swept.commits_left, "old commit"));
    let hold = if swept.commits_left == 1 { "holds" } else { "hold" };
    let only_newest = swept.horizon == swept.lsn && swept.kept.is_empty();
    let what = if only_newest {
        format!("{compact} moves them")
    } else {
        format!("what older snapshots need stays while they are kept; {compact} moves what only the newest needs")
    };
    format!("  {left} {hold} pages that are still needed: {what}\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    #[test]
    fn the_grace_that_is_told_is_the_one_that_gc_gives() {
        let Verb::Gc { grace, .. } = Cli::try_parse_from(["quire", "gc"]).unwrap().verb else { panic!("not gc") };
        assert_eq!(grace_ms(&grace).unwrap(), Options::default().grace_ms);
    }

    #[test]
    fn a_grace_is_a_time_or_none() {
        for (text, ms) in [("0", 0), ("0s", 0), ("30m", 1_800_000), ("30min", 1_800_000), ("1w", 604_800_000)] {
            assert_eq!(grace_ms(text).unwrap(), ms, "{text}");
        }
        for text in ["soon", "", "7", "all", "last 3"] {
            assert!(grace_ms(text).is_err(), "{text}");
        }
    }
}
