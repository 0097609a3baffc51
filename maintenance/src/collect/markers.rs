//! Who holds what: the markers beside the snapshots of a volume, and what
//! became of their authors.

use std::collections::{BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use quire_proto::{
    Appended, Base, Body, CheckpointPlace, CommitHeader, CommitId, CommitKind, ErrorKind, Lsn, Marked, Marker,
    MarkerTarget, Result, SealedCommit, Statement, VolumeName,
};
use ulid::Ulid;

use super::Stores;

/// How many targets are looked at at the same time.
const TARGETS_AT_ONCE: usize = 16;

/// Somebody holds a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The snapshot.
    pub lsn: Lsn,
    /// Who.
    pub holder: Holder,
}

/// Who holds a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// The commit of a volume whose base it is: a fork, a restore, a renamed volume.
    Commit(VolumeName, Lsn),
    /// Somebody who is going to make this commit, or has given up.
    OpenCommit(VolumeName, Lsn),
    /// Somebody who is going to write this checkpoint, or has given up.
    OpenCheckpoint(CheckpointPlace),
    /// Work of this author that is not in the store.
    Replica(String),
    /// This author, who reads it.
    Reader(String),
    /// A marker that this program cannot read.
    Unknown(String),
}

/// The markers of a volume, sorted out.
pub(super) struct Markers {
    holds: Vec<Hold>,
    spent: Vec<(Lsn, Ulid)>,
}

enum Verdict {
    Holds(Holder),
    Spent,
}

impl Markers {
    /// Lists the markers and looks at each target. Where an author has said nothing for `abandoned_ms` and seems to have
    /// given up, his marker is closed: what he wanted to make is made, or its place taken, so that he learns it should he
    /// come back.
    pub(super) async fn list(
        stores: &Stores,
        volume: &VolumeName,
        statement: &Statement,
        head: &CommitHeader,
        (now_ms, abandoned_ms): (u64, Option<u64>),
    ) -> Result<Markers> {
        let marked: Vec<Marked> = stores.log.markers(volume).try_collect().await?;
        // After the markers: a target that is made meanwhile is seen.
        let places: BTreeSet<CheckpointPlace> =
            stores.log.checkpoints(volume).map_ok(|(place, _)| place).try_collect().await?;
        let look = Look { stores, volume, statement, head, places: &places, now_ms };
        let abandoned = abandoned_ms.map_or(Vec::new(), |ms| abandoned(&marked, now_ms.saturating_sub(ms)));
        let mut verdicts: Vec<(Marked, Verdict)> = stream::iter(marked)
            .map(|marked| async { look.verdict(&marked).await.map(|verdict| (marked, verdict)) })
            .buffered(TARGETS_AT_ONCE)
            .try_collect()
            .await?;
        for (marked, verdict) in &mut verdicts {
            if abandoned.contains(&marked.ulid)
                && let Verdict::Holds(Holder::OpenCommit(..) | Holder::OpenCheckpoint(..)) = verdict
                && let Ok(marker) = &marked.marker
            {
                *verdict = look.close(marker).await?;
            }
        }
        let mut markers = Markers { holds: Vec::new(), spent: Vec::new() };
        for (marked, verdict) in verdicts {
            match verdict {
                Verdict::Holds(holder) => markers.holds.push(Hold { lsn: marked.lsn, holder }),
                Verdict::Spent => markers.spent.push((marked.lsn, marked.ulid)),
            }
        }
        Ok(markers)
    }

    /// The snapshots that the next statement must keep, given what the one before it kept. Of what that one did not keep,
    /// only the base of a commit that is there: it was marked before that statement came, and every collector that goes by
    /// the statement has seen the marker. Any other marker may be one that was refused, and left there by somebody who
    /// was killed; keeping its snapshot again would invite others, while a collector may be letting it go.
    pub(super) fn held(&self, before: &Statement) -> BTreeSet<Lsn> {
        let is_held = |hold: &&Hold| before.keeps(hold.lsn) || matches!(hold.holder, Holder::Commit(..));
        let held = self.holds.iter().filter(is_held);
        held.map(|hold| hold.lsn).collect()
    }

    /// Whether somebody holds a snapshot.
    pub(super) fn holds(&self, lsn: Lsn) -> bool {
        self.holds.iter().any(|hold| hold.lsn == lsn)
    }

    /// Nothing at or before this LSN may be touched: it is not known yet what happens to a hold on it, or a statement
    /// does not know of it.
    pub(super) fn blocked(&self, statement: &Statement) -> Option<Lsn> {
        let unclear = self.holds.iter().filter(|hold| !hold.holder.is_settled() || !statement.keeps(hold.lsn));
        unclear.map(|hold| hold.lsn).max()
    }

    /// Removes the markers that hold nothing any more.
    pub(super) async fn remove_spent(&self, stores: &Stores, volume: &VolumeName) -> Result<()> {
        let spent = stream::iter(self.spent.iter().copied().map(Ok));
        spent
            .try_for_each_concurrent(TARGETS_AT_ONCE, |(lsn, ulid)| async move {
                stores.log.drop_marker(volume, lsn, ulid).await
            })
            .await
    }

    pub(super) fn into_holds(self) -> Vec<Hold> {
        self.holds
    }
}

/// The markers of which nothing was said after a time: who works for long says his again.
fn abandoned(marked: &[Marked], before_ms: u64) -> Vec<Ulid> {
    let mut last_said: HashMap<Vec<u8>, u64> = HashMap::new();
    let readable = || marked.iter().filter_map(|marked| Some((marked, marked.marker.as_ref().ok()?.encode())));
    for (marked, marker) in readable() {
        let last = last_said.entry(marker).or_default();
        *last = marked.stored_ms.max(*last);
    }
    readable().filter(|(_, marker)| last_said[marker] <= before_ms).map(|(marked, _)| marked.ulid).collect()
}

impl Holder {
    fn is_settled(&self) -> bool {
        matches!(self, Holder::Commit(..) | Holder::Replica(_) | Holder::Reader(_))
    }
}

/// Removes the markers on a snapshot that nobody but their authors could: of work that is not in the store, of readers,
/// and those that cannot be read. Returns how many there were.
pub async fn give_up(stores: &Stores, volume: &VolumeName, lsn: Lsn) -> Result<u64> {
    let mut given_up = 0;
    let mut markers = stores.log.markers(volume);
    while let Some(marked) = markers.try_next().await? {
        let is_others =
            matches!(&marked.marker, Ok(Marker { target: MarkerTarget::Commit(..) | MarkerTarget::Checkpoint(_), .. }));
        if marked.lsn == lsn && !is_others {
            stores.log.drop_marker(volume, marked.lsn, marked.ulid).await?;
            given_up += 1;
        }
    }
    Ok(given_up)
}

struct Look<'a> {
    stores: &'a Stores,
    volume: &'a VolumeName,
    statement: &'a Statement,
    head: &'a CommitHeader,
    places: &'a BTreeSet<CheckpointPlace>,
    /// By the store's clock.
    now_ms: u64,
}

impl Look<'_> {
    async fn verdict(&self, marked: &Marked) -> Result<Verdict> {
        let marker = match &marked.marker {
            Ok(marker) => marker,
            Err(e) => return Ok(Verdict::Holds(Holder::Unknown(e.to_string()))),
        };
        match &marker.target {
            MarkerTarget::Commit(target, lsn) => self.commit(marker, target, *lsn).await,
            MarkerTarget::Checkpoint(place) => Ok(self.checkpoint(*place)),
            // Where it is kept, nobody else can look.
            MarkerTarget::Replica { author, .. } => Ok(Verdict::Holds(Holder::Replica(author.clone()))),
            MarkerTarget::Reader { span_ms, .. } if marked.stored_ms.saturating_add(*span_ms) < self.now_ms => {
                Ok(Verdict::Spent)
            }
            MarkerTarget::Reader { author, .. } => Ok(Verdict::Holds(Holder::Reader(author.clone()))),
        }
    }

    /// Whether the commit that was to rely on the snapshot does.
    async fn commit(&self, marker: &Marker, target: &VolumeName, at: Lsn) -> Result<Verdict> {
        let header = match self.stores.log.header(target, at).await {
            Ok(header) => header,
            // Only the store's own word counts: another error ends the collection.
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(Verdict::Holds(Holder::OpenCommit(target.clone(), at)));
            }
            Err(e) => {
                return Err(e.context(format_args!("a marker on LSN {} of volume {}", marker.base.1, self.volume)));
            }
        };
        let (base_volume, base_lsn, base_hash) = &marker.base;
        let relies = match &header.base {
            Base::Other { volume, lsn, hash } => (volume, lsn, hash) == (base_volume, base_lsn, base_hash),
            // Whoever reads what is kept reads past it only if it is after the horizon, where a checkpoint stands.
            Base::Older { lsn, hash } => {
                target == base_volume && (lsn, hash) == (base_lsn, base_hash) && at > self.statement.horizon
            }
            Base::Previous | Base::Nothing => false,
        };
        Ok(if relies { Verdict::Holds(Holder::Commit(target.clone(), at)) } else { Verdict::Spent })
    }

    /// Whether a checkpoint may still be written that somebody will read.
    fn checkpoint(&self, place: CheckpointPlace) -> Verdict {
        let made = self.places.range(place..).next().is_some_and(|there| there.lsn == place.lsn);
        match made || !self.statement.keeps(place.lsn) {
            true => Verdict::Spent,
            false => Verdict::Holds(Holder::OpenCheckpoint(place)),
        }
    }

    /// Takes the place of what an author has not made, so that he cannot any more.
    async fn close(&self, marker: &Marker) -> Result<Verdict> {
        match &marker.target {
            MarkerTarget::Commit(target, at) => {
                if self.void(target, *at).await? {
                    return self.commit(marker, target, *at).await;
                }
                // What its author had found is gone: its log, whose next commit would not be this one.
                Ok(Verdict::Spent)
            }
            MarkerTarget::Checkpoint(place) => {
                let (_, lsn, hash) = &marker.base;
                // An author has seen what he marks: a commit that is not there is of a store that was put back.
                if place.lsn != *lsn || *lsn > self.head.lsn {
                    return Ok(Verdict::Spent);
                }
                let header = self.stores.log.header(self.volume, *lsn).await?;
                if header.hash() != *hash {
                    return Ok(Verdict::Spent);
                }
                quire_history::checkpoint_again(&self.stores.reader, self.volume, &header, place.generation).await?;
                Ok(Verdict::Spent)
            }
            MarkerTarget::Replica { author, .. } => Ok(Verdict::Holds(Holder::Replica(author.clone()))),
            MarkerTarget::Reader { author, .. } => Ok(Verdict::Holds(Holder::Reader(author.clone()))),
        }
    }

    /// Puts a void at an LSN, if it is the next one. False if it cannot be, as those before it are missing.
    async fn void(&self, target: &VolumeName, at: Lsn) -> Result<bool> {
        let state = self.stores.log.head(target).await?;
        if state.next() != at {
            return Ok(state.next() > at);
        }
        let head = state.head().map(|head| head.header().clone());
        let page_size = head.as_ref().map_or(self.head.page_size, |head| head.page_size);
        let mut void = CommitHeader::draft(at, CommitKind::Void, CommitId::random()?, page_size);
        if let Some(head) = head {
            void.parent = Some(head.hash());
            void.page_count = head.page_count;
            void.min_count = head.page_count;
            void.attributes = head.attributes;
        }
        let void = SealedCommit::seal(void, Body::default())?;
        match self.stores.log.append(target, &void).await? {
            Appended::Won | Appended::Lost(_) => Ok(true),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use quire_proto::CommitHash;

    use super::*;

    #[test]
    fn nobody_has_given_up_who_has_said_it_again() {
        let lsn = |n| Lsn::new(n).unwrap();
        let name = |text| VolumeName::parse(text).unwrap();
        let marked = |ulid: u128, stored_ms, fork| Marked {
            lsn: lsn(3),
            ulid: Ulid::from(ulid),
            stored_ms,
            marker: Ok(Marker {
                base: (name("v"), lsn(3), CommitHash::of(b"base")),
                target: MarkerTarget::Commit(name(fork), lsn(1)),
            }),
        };
        let all = [marked(1, 100, "slow"), marked(2, 100, "gone"), marked(3, 200, "slow")];
        assert_eq!(abandoned(&all, 150), [Ulid::from(2_u128)]);
        assert_eq!(abandoned(&all, 200).len(), 3);
        assert_eq!(abandoned(&all, 99), []);
    }
}
