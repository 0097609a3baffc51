//! Opening a volume: two listings at once say where its log and its newest
//! checkpoint end, and that is enough to ask for all the rest at once, since
//! the LSNs between have no gaps.

use futures::future;
use quire_proto::{
    CHECKPOINT_FRONT_BYTES, CheckpointPlace, FAR_COMMITS, Front, LogPart, Lsn, MOST_ALONG, Opened, Result, VolumeName,
};

use crate::{Embedded, checkpoints, headers, log};

pub(crate) async fn open(store: &Embedded, volume: &VolumeName, known: Option<Lsn>) -> Result<Opened> {
    let bucket = &store.bucket;
    let (newest, place) = future::join(log::newest(bucket, volume), checkpoints::newest(bucket, volume, None)).await;
    let newest = newest?;
    let known = known.filter(|known| newest.is_some_and(|newest| *known < newest));
    let is_near = known.zip(newest).is_some_and(|(known, newest)| newest.get() - known.get() <= FAR_COMMITS);
    // An error is met again when the checkpoint is needed.
    let place = place.ok().filter(|_| !is_near);
    let first = match place.flatten() {
        Some(place) => known.map_or(place.lsn, |known| place.lsn.max(known.next())),
        None => known.map_or(Lsn::FIRST, Lsn::next),
    };
    let front = async { front(store, volume, place?).await.ok() };
    let before = async {
        match newest.filter(|newest| *newest >= first && newest.get() - first.get() < MOST_ALONG) {
            Some(newest) => headers::find(bucket, volume, first, newest).await.ok(),
            None => None,
        }
    };
    let (state, front, before) = future::join3(store.state(volume, newest), front, before).await;
    let state = state?;
    let log = match (before, state.head()) {
        (Some(before), Some(head)) => before.linked(head.header()).await.unwrap_or_default(),
        _ => LogPart::default(),
    };
    Ok(Opened { state, front, log })
}

async fn front(store: &Embedded, volume: &VolumeName, place: Option<CheckpointPlace>) -> Result<Front> {
    let Some(place) = place else { return Ok(None) };
    let bytes = checkpoints::read(&store.bucket, volume, place, 0..CHECKPOINT_FRONT_BYTES as u64).await?;
    Ok(Some((place, bytes)))
}
