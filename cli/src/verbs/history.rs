//! `fork` and `restore`: what the past is good for.

use quire_engine::Error;
use serde::Serialize;

use crate::context::{Context, new_name};
use crate::output::word;
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Forked {
    name: String,
    /// The volume and LSN that it was forked from, if the store has it.
    from: Option<String>,
    from_lsn: Option<u64>,
    /// Its LSN in the store; none if it is only here as yet.
    lsn: Option<u64>,
    #[serde(skip)]
    not_pushed: Option<String>,
}

/// Makes a volume out of a snapshot of another one.
pub(crate) fn fork(ctx: &Context, name: &str, new: &str) -> Outcome {
    let (name, moment) = ctx.named(name)?.parts();
    let new = new_name(new)?;
    let engine = ctx.engine()?;
    let forked = {
        let _meter = TrafficMeter::new(format!("forking {name}"), engine);
        engine.fork(&name, moment, &new)?
    };
    let (from, from_lsn) = forked.base.unzip();
    let forked = Forked {
        name: new.to_string(),
        from: from.map(|from| from.to_string()),
        from_lsn: from_lsn.map(|lsn| lsn.get()),
        lsn: forked.lsn.map(|lsn| lsn.get()),
        not_pushed: forked.not_pushed.map(|why| why.to_string()),
    };
    ctx.output.result(&forked, |forked| {
        let origin = match (&forked.from, forked.from_lsn) {
            (Some(from), Some(lsn)) => format!("a fork of {from}@{lsn}"),
            _ => format!("a copy of what {name} has here"),
        };
        let push = format!("quire push {}", word(&new));
        match (forked.lsn, &forked.not_pushed) {
            (Some(lsn), _) => format!("{new} is {origin}, and in the store at LSN {lsn}"),
            (None, None) => format!("{new} is {origin}, here only: {push} brings it to the store"),
            (None, Some(why)) => {
                format!("{new} is {origin}, here only ({why}): {push} brings it to the store")
            }
        }
    })
}

#[derive(Serialize)]
struct Restored {
    name: String,
    from_lsn: u64,
    lsn: u64,
}

/// Makes an old snapshot a volume's content again.
pub(crate) fn restore(ctx: &Context, text: &str) -> Outcome {
    let (name, moment) = ctx.named(text)?.parts();
    let moment = moment.ok_or_else(|| {
        let word = word(&name);
        Error::invalid(format!("{text} does not say which snapshot of it to restore"))
            .with_remedy(format!("quire restore {word}@LSN, or {word}@TIME; quire log {word} shows both."))
    })?;
    let engine = ctx.engine()?;
    let restored = {
        let _meter = TrafficMeter::new(format!("restoring {name}"), engine);
        engine.restore(&name, moment)?
    };
    let restored = Restored { name: name.to_string(), from_lsn: restored.from.get(), lsn: restored.lsn.get() };
    ctx.output.result(&restored, |restored| {
        format!("{name} is again what it was at LSN {}, by LSN {}; nothing was lost", restored.from_lsn, restored.lsn)
    })
}
