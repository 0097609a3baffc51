//! Which commit was the newest at a moment. Only the store's clock counts: it
//! stamps each commit as it arrives (a collected one keeps its stamp), so the stamps ascend with the LSNs, and a
//! search by halves finds the place.

use quire_bucket::Bucket;
use quire_proto::{Lsn, Result, VolumeName};

use crate::log;

/// The newest commit that the store had at `time_ms`.
pub(crate) async fn at_time(bucket: &Bucket, volume: &VolumeName, time_ms: u64) -> Result<Option<Lsn>> {
    let Some(head) = log::newest(bucket, volume).await? else { return Ok(None) };
    let (mut there, mut later) = (0, log::after(head)?.get());
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
