//! What is in the store, read past the network's faults, and checked as it
//! grows: the first invariant (no gap, one commit an LSN, never changed) and
//! the second (a commit's segments are there before it).

use std::collections::HashMap;

use bytes::Bytes;
use quire_bucket::{Bucket, keys};
use quire_proto::{
    Base, CommitHash, CommitHeader, CommitKind, ErrorKind, Lsn, ObjectHash, SealedCommit, Stub, VolumeName,
};

use crate::content::{STAMP, Stamp, parse_stamp};
use crate::ledger::Ledger;

/// The log of one volume in the store.
#[derive(Debug)]
pub(crate) struct History {
    volume: VolumeName,
    commits: Vec<Stored>,
    places: HashMap<Stamp, u64>,
    /// The least that anybody ever asked to keep: so many commits; none if all is to be kept.
    pub(crate) least_kept: Option<u64>,
}

/// One commit of the log.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    /// What the volume shows from here on.
    pub(crate) stamp: Stamp,
    /// Changes nothing.
    pub(crate) is_void: bool,
    hash: CommitHash,
    object: ObjectHash,
}

impl History {
    /// Nothing yet.
    pub(crate) fn new(volume: VolumeName) -> History {
        History { volume, commits: Vec::new(), places: HashMap::new(), least_kept: None }
    }

    /// Its name.
    pub(crate) fn volume(&self) -> &VolumeName {
        &self.volume
    }

    /// The newest LSN, 0 if there is none.
    pub(crate) fn head(&self) -> u64 {
        self.commits.len() as u64
    }

    /// The commit at `lsn`, from 1 on.
    pub(crate) fn at(&self, lsn: u64) -> Option<&Stored> {
        self.commits.get(usize::try_from(lsn.checked_sub(1)?).ok()?)
    }

    /// What the volume shows at `lsn`; 0 is before the first commit.
    pub(crate) fn stamp(&self, lsn: u64) -> Stamp {
        self.at(lsn).map_or(0, |stored| stored.stamp)
    }

    /// Where a local commit was the newest of a push.
    pub(crate) fn place(&self, stamp: Stamp) -> Option<u64> {
        self.places.get(&stamp).copied()
    }

    /// Whether only commits that change nothing follow `lsn`.
    pub(crate) fn only_voids_after(&self, lsn: u64) -> bool {
        self.commits.iter().skip(lsn as usize).all(|stored| stored.is_void)
    }

    /// Takes in what has come to the log since.
    pub(crate) async fn read_on(&mut self, raw: &Bucket, ledger: &Ledger) {
        while let Some(commit) = read(raw, &self.volume, self.head() + 1).await {
            self.take(raw, &commit, ledger).await;
        }
    }

    async fn take(&mut self, raw: &Bucket, commit: &Object, ledger: &Ledger) {
        let (volume, lsn, header) = (&self.volume, self.head() + 1, &commit.header);
        let before = self.commits.last();
        assert_eq!(header.parent, before.map(|before| before.hash), "LSN {lsn} of {volume} has another parent");
        for segment in commit.whole.iter().flat_map(|whole| whole.body().index.segments()) {
            let there = raw.head(&keys::segment(volume, segment.id)).await;
            let there = there.unwrap_or_else(|e| panic!("LSN {lsn} of {volume} came before its segment: {e}"));
            assert_eq!(there.len_bytes, segment.len_bytes, "a segment of LSN {lsn} of {volume} is not complete");
        }
        let is_void = header.kind == CommitKind::Void;
        let claimed = parse_stamp(header.attributes.get(STAMP).map(String::as_str));
        let below = self.stamp(lsn - 1);
        let stamp = if is_void { below } else { claimed };
        if let Base::Older { lsn: older, .. } = &header.base {
            assert_eq!(stamp, self.stamp(older.get()), "LSN {lsn} of {volume} restores LSN {older}");
        } else if !is_void {
            assert!(ledger.is_alive(stamp), "LSN {lsn} of {volume} is commit {stamp}, which was rolled back");
            assert!(
                ledger.distance(stamp, below).is_some_and(|n| n > 0),
                "LSN {lsn} of {volume} is commit {stamp}, which was not made on top of {below}"
            );
            let twice = self.places.insert(stamp, lsn);
            assert_eq!(twice, None, "commit {stamp} of {volume} is at LSN {lsn}, too");
        }
        let (hash, object) = (header.hash(), commit.hash);
        self.commits.push(Stored { stamp, is_void, hash, object });
    }

    /// Every commit is still what it was, and the log has no gap.
    pub(crate) async fn check_all(&self, raw: &Bucket) {
        use futures::TryStreamExt;
        let volume = &self.volume;
        let listed: Vec<_> = raw.list(&keys::commits_prefix(volume)).try_collect().await.expect("the store lists");
        let lsns: Vec<u64> =
            listed.iter().rev().filter_map(|meta| keys::lsn_of_commit(&meta.key)).map(Lsn::get).collect();
        assert!(lsns.iter().copied().eq(1..=self.head()), "the log of {volume} has the LSNs {lsns:?}");
        for (n, stored) in self.commits.iter().enumerate() {
            // Of a stub, too: it says what the whole object was.
            let there = read(raw, volume, n as u64 + 1).await.map(|commit| commit.hash);
            assert_eq!(there, Some(stored.object), "LSN {} of {volume} is not what it was", n + 1);
        }
    }
}

/// What lies at a commit's place.
struct Object {
    header: CommitHeader,
    /// Of the whole commit, though there may be only a stub of it.
    hash: ObjectHash,
    whole: Option<SealedCommit>,
}

impl Object {
    fn decode(bytes: Bytes) -> quire_proto::Result<Object> {
        if Stub::is_one(&bytes) {
            let stub = Stub::decode(&bytes)?;
            return Ok(Object { header: stub.header, hash: stub.object_hash, whole: None });
        }
        let commit = SealedCommit::decode(bytes)?;
        Ok(Object { header: commit.header().clone(), hash: commit.object_hash(), whole: Some(commit) })
    }
}

async fn read(raw: &Bucket, volume: &VolumeName, lsn: u64) -> Option<Object> {
    let lsn = Lsn::new(lsn)?;
    match raw.get(&keys::commit(volume, lsn)).await {
        Ok(object) => Some(Object::decode(object.bytes).unwrap_or_else(|e| panic!("LSN {lsn} of {volume}: {e}"))),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => panic!("LSN {lsn} of {volume}: {e}"),
    }
}
