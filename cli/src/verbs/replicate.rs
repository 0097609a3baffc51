//! `push`, `pull`, `sync`, `fetch`: traffic between replicas and the store.

use quire_engine::{Lsn, Moved, Result, Volume, VolumeName};
use serde::Serialize;

use crate::context::Context;
use crate::output::table;
use crate::progress::TrafficMeter;
use crate::stop::{Outcome, Stop};

/// Which verb.
#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Push,
    Pull,
    Sync,
    Fetch,
}

impl Direction {
    fn verb(self) -> &'static str {
        match self {
            Direction::Push => "push",
            Direction::Pull => "pull",
            Direction::Sync => "sync",
            Direction::Fetch => "fetch",
        }
    }
}

#[derive(Serialize)]
struct Done {
    name: String,
    /// How the volume and the store relate now.
    state: &'static str,
    pushed_to_lsn: Option<u64>,
    commits_pushed: u64,
    pages_pushed: u64,
    bytes_pushed: u64,
    pulled_from_lsn: Option<u64>,
    pulled_to_lsn: Option<u64>,
    pages_changed: u64,
    /// The store's newest LSN; `fetch` only.
    store_lsn: Option<u64>,
    #[serde(skip)]
    line: String,
}

/// Does it for each volume. One that fails does not stop the others; the worst
/// exit status is the one that counts.
pub(crate) fn replicate(ctx: &Context, direction: Direction, names: &[String]) -> Outcome {
    let mut done = Vec::new();
    let mut worst = 0;
    for name in ctx.named_or_all(names)? {
        match replicate_one(ctx, direction, &name) {
            Ok(one) => done.push(one),
            Err(error) => {
                let error = error.context(format!("{} of {name}", direction.verb()));
                worst = worst.max(Stop::Failed(error).report(ctx.output.json));
            }
        }
    }
    ctx.output.result(&done, |done| match done.as_slice() {
        [one] if names.len() == 1 => one.line.clone(),
        [] if worst == 0 => "no replica here\n".to_owned(),
        [] => String::new(),
        _ => table(["NAME", "WHAT"], done.iter().map(|one| [one.name.clone(), one.line.clone()])),
    })?;
    if worst == 0 { Ok(()) } else { Err(Stop::Reported(worst)) }
}

fn replicate_one(ctx: &Context, direction: Direction, name: &VolumeName) -> Result<Done> {
    let volume = ctx.replica(name)?;
    let _meter = TrafficMeter::new(format!("{} {name}", direction.verb()), ctx.engine()?);
    let moved = match direction {
        Direction::Push => volume.push(),
        Direction::Pull => volume.pull(),
        Direction::Sync => volume.sync(),
        Direction::Fetch => {
            let newest = volume.fetch()?;
            if newest < volume.status().base_lsn {
                volume.check_store()?;
            }
            let done = done(&volume, &Moved::default());
            let line = match newest {
                Some(lsn) => format!("the store has LSN {lsn}; here the volume is {}", done.state),
                None => volume.status().last_error.unwrap_or_else(|| "the store does not have it".to_owned()),
            };
            return Ok(Done { store_lsn: newest.map(Lsn::get), line, ..done });
        }
    };
    let moved = volume.account(moved)?;
    Ok(done(&volume, &moved))
}

fn done(volume: &Volume, moved: &Moved) -> Done {
    let (pushed_to, commits) = moved.pushed.unzip();
    let (from, to) = moved.pulled.unzip();
    Done {
        name: volume.name().to_string(),
        state: volume.status().state.as_str(),
        pushed_to_lsn: pushed_to.map(Lsn::get),
        commits_pushed: commits.unwrap_or(0),
        pages_pushed: moved.pages_pushed,
        bytes_pushed: moved.bytes_pushed,
        pulled_from_lsn: from.flatten().map(Lsn::get),
        pulled_to_lsn: to.map(Lsn::get),
        pages_changed: moved.pages_changed,
        store_lsn: None,
        line: moved.to_string(),
    }
}
