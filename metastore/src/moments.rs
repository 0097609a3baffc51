//! Which commit was the newest at a moment, and when each came. Only the store's clock counts: it
//! stamps each commit as it arrives (a collected one keeps its stamp), so the stamps ascend with the LSNs, and a
//! search by halves finds the place.

use std::collections::BTreeMap;

use futures::TryStreamExt;
use quire_bucket::{Bucket, keys};
use quire_proto::{Error, Lsn, Result, VolumeName};

use crate::{log, statements};

/// The newest commit that the store had at `time_ms`.
pub(crate) async fn at_time(bucket: &Bucket, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>> {
    let Some(head) = log::newest(bucket, volume).await? else { return Ok(None) };
    let (mut there, mut later) = (0, head.next().get());
    // Most look for what was a little while ago: first in steps that double, from the head down.
    let mut step = 1;
    while let Some(lsn) = Lsn::new(later.saturating_sub(step)) {
        if stamp(bucket, volume, lsn).await? <= time_ms {
            there = lsn.get();
            break;
        }
        (later, step) = (lsn.get(), step * 2);
    }
    while later - there > 1 {
        let Some(middle) = Lsn::new(there + (later - there) / 2) else { break };
        match stamp(bucket, volume, middle).await? <= time_ms {
            true => there = middle.get(),
            false => later = middle.get(),
        }
    }
    Ok(Lsn::new(there))
}

/// When the store got a commit.
async fn stamp(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<u64> {
    log::read_front(bucket, volume, lsn).await.map(|front| front.stored_ms)
}

/// When the store got the commits `first ..= last`. A stub's object is younger than its commit, so of several commits
/// those are left out that history does not keep; it is asked after listing them, as it may only keep less.
pub(crate) async fn stored_times(
    bucket: &Bucket,
    volume: &VolumeName,
    first: Lsn,
    last: Lsn,
) -> Result<BTreeMap<Lsn, u64>> {
    if first == last {
        return Ok(BTreeMap::from([(first, stamp(bucket, volume, first).await?)]));
    }
    let place = |e: Error| e.context(format_args!("listing the commits of volume {volume}"));
    let mut times = BTreeMap::new();
    let mut listed = bucket.list(&keys::commits_prefix(volume));
    while let Some(meta) = listed.try_next().await.map_err(place)? {
        let Some(lsn) = keys::lsn_of_commit(&meta.key).filter(|lsn| *lsn <= last) else { continue };
        if lsn < first {
            break;
        }
        times.insert(lsn, bucket.read_time_ms(meta.last_modified_ms));
    }
    let statement = statements::newest(bucket, volume).await?;
    times.retain(|lsn, _| statement.keeps(*lsn));
    Ok(times)
}
