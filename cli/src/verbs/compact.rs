//! `compact`: a volume's newest snapshot from fewer places in the store.

use quire_maintenance::compact::{Compacted, Options, compact as bring_together};
use serde::Serialize;

use crate::context::Context;
use crate::output::{count, size};
use crate::progress::TrafficMeter;
use crate::stop::Outcome;

#[derive(Serialize)]
struct Done {
    name: String,
    lsn: u64,
    /// Of the checkpoint that counts now.
    generation: u32,
    /// How many checkpoints were written; 0 if nothing was to be done.
    steps: u32,
    pages_rewritten: u64,
    bytes_written: u64,
    /// Segments and commits that hold the snapshot's pages.
    objects_before: u64,
    objects_after: u64,
    bytes_before: u64,
    bytes_after: u64,
}

/// Rewrites what is scattered of the newest snapshot in the store.
pub(crate) fn compact(ctx: &Context, name: &str) -> Outcome {
    let name = ctx.plain_name(name)?;
    let engine = ctx.engine()?;
    let compacted = {
        let _meter = TrafficMeter::new(format!("compacting {name}"), engine);
        match quire_settings::open_server(&ctx.settings)? {
            Some(server) => engine.maintain(&name, |_, volume| async move { server.compact(volume).await })?,
            None => {
                let pages = quire_settings::open_upkeep(&ctx.settings)?.pages;
                engine.maintain(&name, |reader, volume| bring_together(reader, pages, volume, Options::default()))?
            }
        }
    };
    let Compacted { lsn, generation, steps, pages, bytes_written, before, after, .. } = compacted;
    let done = Done {
        name: name.to_string(),
        lsn: lsn.get(),
        generation,
        steps,
        pages_rewritten: pages,
        bytes_written,
        objects_before: before.objects,
        objects_after: after.objects,
        bytes_before: before.bytes,
        bytes_after: after.bytes,
    };
    ctx.output.result(&done, |done| match done.steps {
        0 => format!("LSN {} of {name} lies together already, {}", done.lsn, size(done.bytes_after)),
        _ => format!(
            "LSN {} of {name} is compact: {} rewritten; {} from {} now, {} from {} before",
            done.lsn,
            count(done.pages_rewritten, "page"),
            size(done.bytes_after),
            count(done.objects_after, "object"),
            size(done.bytes_before),
            count(done.objects_before, "object"),
        ),
    })
}
