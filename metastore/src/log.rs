//! Reading single commits of a volume's log, each checked against its place.

use bytes::Bytes;
use quire_bucket::{Bucket, Key, Meta, keys};
use quire_proto::{CommitHeader, Error, ErrorKind, Lsn, Result, SealedCommit, Stub, VolumeName, Winner};

/// The newest LSN of a volume: one listing of one key.
pub(crate) async fn newest(bucket: &Bucket, volume: &VolumeName) -> Result<Option<Lsn>> {
    let place = |e: Error| e.context(format_args!("looking for the newest commit of volume {volume}"));
    let found = bucket.list_first(&keys::commits_prefix(volume), 1).await.map_err(place)?;
    let lsn = |meta: &Meta| keys::lsn_of_commit(&meta.key).ok_or_else(|| foreign(&meta.key));
    found.first().map(lsn).transpose()
}

/// What lies at the place of a commit.
pub(crate) enum Stored {
    /// All of it.
    Whole(SealedCommit),
    /// What history has left of it.
    Stub(Stub),
}

impl Stored {
    /// What is known of the commit in either case.
    pub(crate) fn winner(&self) -> Winner {
        match self {
            Stored::Whole(commit) => Winner { header: commit.header().clone(), object_hash: commit.object_hash() },
            Stored::Stub(stub) => Winner { header: stub.header.clone(), object_hash: stub.object_hash },
        }
    }
}

/// What lies at the place of the commit at `lsn`, and since when.
pub(crate) async fn stored(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<(Stored, u64)> {
    let key = keys::commit(volume, lsn);
    let object = bucket.get(&key).await.map_err(|e| locate(e, volume, lsn, &key))?;
    let (stored, since_ms) = match Stub::is_one(&object.bytes) {
        true => Stub::decode(&object.bytes).map(|stub| {
            let since_ms = stub.stored_ms;
            (Stored::Stub(stub), since_ms)
        }),
        false => SealedCommit::decode(object.bytes).map(|commit| (Stored::Whole(commit), object.last_modified_ms)),
    }
    .map_err(|e| locate(e, volume, lsn, &key))?;
    match &stored {
        Stored::Whole(commit) => check_lsn(commit.header(), lsn, &key)?,
        Stored::Stub(stub) => check_lsn(&stub.header, lsn, &key)?,
    }
    Ok((stored, since_ms))
}

/// The commit at `lsn`, whole; `Gone` if history has collected it.
pub(crate) async fn read(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<SealedCommit> {
    match stored(bucket, volume, lsn).await?.0 {
        Stored::Whole(commit) => Ok(commit),
        Stored::Stub(_) => Err(gone(volume, lsn)),
    }
}

/// History has collected a snapshot.
pub(crate) fn gone(volume: &VolumeName, lsn: Lsn) -> Error {
    Error::new(ErrorKind::Gone, format!("LSN {lsn} of volume {volume} has been collected"))
        .with_remedy(format!("`quire keep {volume}` shows what is kept of its history; the newest snapshot always is."))
}

/// What is known of a commit without its body.
pub(crate) struct Front {
    pub(crate) header: CommitHeader,
    /// The header's exact bytes.
    pub(crate) bytes: Bytes,
    /// When the store got the commit, in milliseconds since 1970.
    pub(crate) stored_ms: u64,
    /// All of the commit, if it is that small.
    pub(crate) whole: Option<SealedCommit>,
}

/// The front of the commit at `lsn`, collected or not, in one read of bounded size.
pub(crate) async fn read_front(bucket: &Bucket, volume: &VolumeName, lsn: Lsn) -> Result<Front> {
    let key = keys::commit(volume, lsn);
    let object = bucket.get_start(&key, Stub::MAX_BYTES as u64).await.map_err(|e| locate(e, volume, lsn, &key))?;
    let front = match Stub::is_one(&object.bytes) {
        true => Stub::decode(&object.bytes).map(|stub| Front {
            header: stub.header,
            bytes: stub.front,
            stored_ms: stub.stored_ms,
            whole: None,
        }),
        false => CommitHeader::decode(&object.bytes).map(|(header, len)| Front {
            header,
            bytes: object.bytes.slice(..len),
            stored_ms: object.last_modified_ms,
            whole: if object.bytes.len() as u64 == object.len_bytes {
                SealedCommit::decode(object.bytes).ok()
            } else {
                None
            },
        }),
    }
    .map_err(|e| locate(e, volume, lsn, &key))?;
    check_lsn(&front.header, lsn, &key)?;
    Ok(front)
}

fn check_lsn(header: &CommitHeader, lsn: Lsn, key: &Key) -> Result<()> {
    if header.lsn == lsn {
        return Ok(());
    }
    Err(damaged(Error::corrupt(format!("commit {key} says that it is LSN {}, and its place is LSN {lsn}", header.lsn))))
}

/// Says which commit an error is about.
fn locate(error: Error, volume: &VolumeName, lsn: Lsn, key: &Key) -> Error {
    match error.kind() {
        // One with a remedy is about more than this object: there is no store.
        ErrorKind::NotFound if error.remedy().is_none() => {
            Error::not_found(format!("volume {volume} has no LSN {lsn} in the store")).with_remedy(format!(
                "`quire log {volume}` shows those it has; if it should have this one, check that the store is the right one."
            ))
        }
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
