//! Markers: what relies on a snapshot says so beside it, for the collector.

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use quire_bucket::{Bucket, keys};
use quire_proto::{Error, ErrorKind, Lsn, Marked, Marker, MarkerTarget, Result, SegmentId, VolumeName};
use ulid::Ulid;

use crate::{log, statements};

/// How many markers are read at the same time.
const MARKERS_AT_ONCE: usize = 32;

/// The name of a marker: a replica's own, so that saying it again changes nothing and taking it back finds it.
fn name(marker: &Marker) -> Option<Ulid> {
    match &marker.target {
        MarkerTarget::Replica { id, .. } => Some(Ulid::from(u128::from(*id))),
        MarkerTarget::Commit(..) | MarkerTarget::Checkpoint(_) | MarkerTarget::Reader { .. } => None,
    }
}

/// Writes a marker, under a fresh name or its replica's, and looks whether what it is on is still kept. In this order: a
/// collector publishes its statement first and looks for markers then, so one of the two sees the other.
pub(crate) async fn mark(bucket: &Bucket, marker: &Marker) -> Result<()> {
    let (volume, lsn, _) = &marker.base;
    let (own, fresh) = (name(marker), SegmentId::random(*lsn)?.ulid);
    bucket.create(&keys::marker(volume, *lsn, own.unwrap_or(fresh)), marker.encode().into()).await?;
    if statements::newest(bucket, volume).await?.keeps(*lsn) {
        return Ok(());
    }
    if own.is_none() {
        // It came too late and holds nothing; nobody else could take it back. Where that fails it goes with time.
        let _ = remove(bucket, volume, *lsn, fresh).await;
    }
    Err(log::gone(volume, *lsn))
}

/// All markers on snapshots of a volume.
pub(crate) fn all(bucket: &Bucket, volume: &VolumeName) -> BoxStream<'static, Result<Marked>> {
    let bucket = bucket.clone();
    let listed = bucket.list(&keys::markers_prefix(volume));
    let read = move |meta: quire_bucket::Meta| {
        let bucket = bucket.clone();
        async move {
            let Some((lsn, ulid)) = keys::marker_of(&meta.key) else { return Ok(None) };
            let object = match bucket.get(&meta.key).await {
                Ok(object) => object,
                // Another collector was here.
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
                Err(e) => return Err(e.context(format_args!("marker {}", meta.key))),
            };
            let marker = Marker::decode(&object.bytes).map_err(|e| e.context(format_args!("marker {}", meta.key)));
            let marker = marker.and_then(|marker| match marker.base.1 == lsn {
                true => Ok(marker),
                false => Err(Error::corrupt(format!("marker {} says that it is on LSN {}", meta.key, marker.base.1))),
            });
            Ok(Some(Marked { lsn, ulid, stored_ms: object.last_modified_ms, marker }))
        }
    };
    listed.map_ok(read).try_buffered(MARKERS_AT_ONCE).try_filter_map(|marked| async { Ok(marked) }).boxed()
}

/// Takes back a replica's marker.
pub(crate) async fn unmark(bucket: &Bucket, marker: &Marker) -> Result<()> {
    let (volume, lsn, _) = &marker.base;
    let name = name(marker).ok_or_else(|| {
        Error::invalid(format!("the marker on LSN {lsn} of volume {volume} is not its author's to take back"))
    })?;
    remove(bucket, volume, *lsn, name).await
}

/// Removes a marker.
pub(crate) async fn remove(bucket: &Bucket, volume: &VolumeName, lsn: Lsn, ulid: Ulid) -> Result<()> {
    bucket.delete(&keys::marker(volume, lsn, ulid)).await
}
