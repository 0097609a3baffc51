//! Reading single commits of a volume's log, each checked against its place.

use bytes::Bytes;
use quire_bucket::{Bucket, Key, keys};
use quire_proto::{CommitHeader, Error, ErrorKind, Lsn, MAX_HEADER_BYTES, Result, SealedCommit, VolumeName};

/// The newest commit of a volume: one listing of one key, one read.
pub(crate) async fn newest(bucket: &Bucket, volume: &VolumeName) -> Result<Option<SealedCommit>> {
    let place = |e: Error| e.context(format_args!("looking for the newest commit of volume {volume}"));
    let found = bucket.list_first(&keys::commits_prefix(volume), 1).await.map_err(place)?;
    let Some(meta) = found.first() else { return Ok(None) };
    let lsn = keys::lsn_of_commit(&meta.key).ok_or_else(|| foreign(&meta.key))?;
    read(bucket, volume, lsn).await.map(Some)
}

/// The commit at `lsn`, whole.
pub(crate) async fn read(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
    let key = keys::commit(volume, lsn);
    let object = bucket.get(&key).await.map_err(|e| locate(e, volume, lsn, &key))?;
    let commit = SealedCommit::decode(object.bytes).map_err(|e| locate(e, volume, lsn, &key))?;
    check_lsn(commit.header(), lsn, &key)?;
    Ok(commit)
}

/// The header of the commit at `lsn` with its exact bytes, in one read of bounded size.
pub(crate) async fn read_header(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<(CommitHeader, Bytes)> {
    let key = keys::commit(volume, lsn);
    let front = bucket.get_start(&key, MAX_HEADER_BYTES as u64).await.map_err(|e| locate(e, volume, lsn, &key))?;
    let (header, len) = CommitHeader::decode(&front.bytes).map_err(|e| locate(e, volume, lsn, &key))?;
    check_lsn(&header, lsn, &key)?;
    Ok((header, front.bytes.slice(..len)))
}

/// The LSN after one that was read from outside.
pub(crate) fn after(lsn: Lsn) -> Result<Lsn> {
    let next = lsn.get().checked_add(1).and_then(Lsn::new);
    next.ok_or_else(|| Error::corrupt(format!("LSN {lsn} cannot be: it has none after it")))
}

fn check_lsn(header: &CommitHeader, lsn: Lsn, key: &Key) -> Result<()> {
    after(lsn)?;
    if header.lsn == lsn {
        return Ok(());
    }
    Err(damaged(Error::corrupt(format!("commit {key} says that it is LSN {}, and its place is LSN {lsn}", header.lsn))))
}

/// Says which commit an error is about.
fn locate(error: Error, volume: &VolumeName, lsn: Lsn, key: &Key) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::not_found(format!("volume {volume} has no LSN {lsn} in the store")),
        ErrorKind::Corrupt => {
            let newer = error.remedy().map(str::to_owned);
            let located = error.context(format_args!("LSN {lsn} of volume {volume}, object {key}"));
            if newer.is_some() { located } else { damaged(located) }
        }
        _ => error.context(format_args!("LSN {lsn} of volume {volume}")),
    }
}

fn damaged(error: Error) -> Error {
    error.with_remedy(
        "Restore the object if the store keeps versions or a copy; `quire export` saves what a replica has.",
    )
}

fn foreign(key: &Key) -> Error {
    Error::corrupt(format!("object {key} lies where only commits belong"))
        .with_remedy("Move it out of the volume's log: Quire did not write it.")
}
