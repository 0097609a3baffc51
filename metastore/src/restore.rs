//! Restoring: an older snapshot becomes the content again, by a commit whose
//! base it is. Its pages stay where they are; nothing of the log goes.

use quire_proto::{
    Appended, Base, Body, CommitHeader, CommitId, CommitKind, Error, ErrorKind, Lsn, Marker, MarkerTarget, Metastore,
    PageSet, PageSets, Result, SealedCommit, VolumeName, VolumeState,
};

use crate::delete::{not_live, went_on};
use crate::embedded::Embedded;
use crate::log;

pub(crate) async fn restore(
    store: &Embedded,
    volume: &VolumeName,
    lsn: Lsn,
    expected: Lsn,
    author: &str,
) -> Result<SealedCommit> {
    let head = match store.head(volume).await? {
        VolumeState::Live(head) => head,
        ended => return Err(not_live(volume, &ended)),
    };
    if head.lsn() != expected {
        // An answer that was lost is asked for again: this is what was made then.
        let header = head.header();
        let made = matches!(header.base, Base::Older { lsn: older, .. } if older == lsn)
            && header.lsn.prev() == Some(expected)
            && header.author == author;
        return if made { Ok(*head) } else { Err(went_on(volume, header)) };
    }
    if lsn >= head.lsn() {
        return Err(Error::invalid(format!(
            "volume {volume} is at LSN {}: there is no going back to {lsn}",
            head.lsn()
        ))
        .with_remedy(format!("`quire log {volume}` shows the LSNs before it.")));
    }
    let target = head.lsn().next();
    // Before the old snapshot is read, so that it is not collected meanwhile.
    let older = log::read_front(&store.bucket, volume, lsn).await?.header;
    store
        .mark(&Marker {
            base: (volume.clone(), lsn, older.hash()),
            target: MarkerTarget::Commit(volume.clone(), target),
        })
        .await?;
    // Whole: what is kept now will not be collected before the restore is there.
    store.commit(volume, lsn).await?;
    let since = store.headers(volume, lsn, head.header()).await?;
    if since[0].kind.ends() || since[1..].iter().any(|header| header.kind.begins()) {
        return Err(Error::invalid(format!("LSN {lsn} belongs to an earlier volume that had the name {volume}"))
            .with_remedy(format!("`quire fork {volume}@{lsn} NEW` gives it another name.")));
    }
    let restored = commit(store, volume, &since, target, author).await?;
    match store.append(volume, &restored).await? {
        Appended::Won => Ok(restored),
        Appended::Lost(winner) => Err(went_on(volume, &winner.header)),
    }
}

/// The commit that makes the first of these snapshots the content again, on top of the last.
async fn commit(
    store: &Embedded,
    volume: &VolumeName,
    since: &[CommitHeader],
    target: Lsn,
    author: &str,
) -> Result<SealedCommit> {
    let (older, head) = (&since[0], &since[since.len() - 1]);
    let mut header = CommitHeader::draft(target, CommitKind::Restore, CommitId::random()?, older.page_size);
    header.parent = Some(head.hash());
    header.base = Base::Older { lsn: older.lsn, hash: older.hash() };
    header.author = author.to_owned();
    header.time_ms = (store.options.now_ms)();
    header.page_count = older.page_count;
    header.min_count = older.page_count;
    header.attributes = older.attributes.clone();
    let sets = PageSets { changed: changed(store, volume, since).await?, owned: Some(PageSet::new()) };
    SealedCommit::seal(header, Body { sets, ..Body::default() })
}

/// The pages that differ, or may, between the first of these snapshots and the last.
async fn changed(store: &Embedded, volume: &VolumeName, since: &[CommitHeader]) -> Result<PageSet> {
    let most_pages = since.iter().map(|header| header.page_count).max().unwrap_or_default();
    if since.iter().any(|header| header.page_size != since[0].page_size) {
        return Ok(PageSet::first(most_pages));
    }
    let mut changed = PageSet::new();
    for header in &since[1..] {
        match &header.sets {
            Some(sets) => changed.union_with(&sets.changed),
            None => match store.commit(volume, header.lsn).await {
                Ok(commit) => changed.union_with(&commit.body().sets.changed),
                // Nobody knows any more: it may have been any page.
                Err(e) if e.kind() == ErrorKind::Gone => return Ok(PageSet::first(most_pages)),
                Err(e) => return Err(e),
            },
        }
    }
    Ok(changed)
}
