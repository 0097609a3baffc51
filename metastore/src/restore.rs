//! Restoring: an older snapshot becomes the content again, by a commit whose
//! base it is. Its pages stay where they are; nothing of the log goes.

use quire_proto::{
    Appended, Base, Body, CommitHeader, CommitId, CommitKind, Error, Lsn, Marker, MarkerTarget, Metastore, PageSet,
    PageSets, Result, SealedCommit, VolumeName, VolumeState, changed_since,
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
    let changed = match older.kind.ends() {
        true => None,
        false => changed_since(store, volume, &older, head.header()).await?,
    };
    let Some(changed) = changed else {
        return Err(Error::invalid(format!("LSN {lsn} belongs to an earlier volume that had the name {volume}"))
            .with_remedy(format!("`quire fork {volume}@{lsn} NEW` gives it another name.")));
    };
    let restored = commit(store, &older, head.header(), changed, author)?;
    match store.append(volume, &restored).await? {
        Appended::Won => Ok(restored),
        Appended::Lost(winner) => Err(went_on(volume, &winner.header)),
    }
}

/// The commit that makes an older snapshot the content again.
fn commit(
    store: &Embedded,
    older: &CommitHeader,
    head: &CommitHeader,
    changed: PageSet,
    author: &str,
) -> Result<SealedCommit> {
    let id = CommitId::random()?;
    let mut header = CommitHeader::draft(head.lsn.next(), CommitKind::Restore, id, older.page_size);
    header.parent = Some(head.hash());
    header.base = Base::Older { lsn: older.lsn, hash: older.hash() };
    header.author = author.to_owned();
    header.time_ms = (store.options.now_ms)();
    header.page_count = older.page_count;
    header.min_count = older.page_count;
    header.attributes = older.attributes.clone();
    let sets = PageSets { changed, owned: Some(PageSet::new()) };
    SealedCommit::seal(header, Body { sets, ..Body::default() })
}
