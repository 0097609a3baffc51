//! Compaction: a snapshot's pages lie together again.
//!
//! Small commits, and the segments of which later commits own most pages anew, leave a snapshot in many places. A
//! compaction rewrites those pages, and only those: what lies well stays where it is (`plan.rs`), so a second compaction
//! finds nothing to do. It changes no commit: it writes segments of its own, and a checkpoint of a higher generation
//! that names them. Whoever opens the snapshot from then on reads by that one.
//!
//! It works in steps, each of which ends with a checkpoint that counts, so a compaction that is killed loses its last
//! step, and the next one goes on from there. Nobody waits for it, and it waits for nobody: of two at once the one whose
//! checkpoint comes first has made that generation, and the other one goes on from it.

mod order;
mod plan;
mod publish;
mod rewrite;
mod source;
mod survey;

use std::sync::Arc;

use quire_history::{Index, Lineage, Reader, gone_or};
use quire_proto::{
    CheckpointPlace, Error, ErrorKind, FRAME_TARGET_BYTES, Lsn, Marker, MarkerTarget, PageUpkeep, Result, VolumeName,
    VolumeState,
};

use order::Order;
use publish::Published;
use survey::{Survey, Window};

/// Others came first so often in a row: they are doing this work.
const MOST_LOST: u32 = 8;

/// What can be set on a compaction.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A step ends once it has written so many bytes of pages, or a few times the index, if that is more: each step
    /// writes one.
    pub budget_bytes: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { budget_bytes: 256 << 20 }
    }
}

/// What a compaction did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The snapshot.
    pub lsn: Lsn,
    /// The generation of its newest checkpoint now.
    pub generation: u32,
    /// How many checkpoints were written for it, of one generation each.
    pub steps: u32,
    /// How often somebody else had compacted meanwhile.
    pub lost: u32,
    /// How many pages were rewritten.
    pub pages: u64,
    /// How many bytes of segments were written.
    pub bytes_written: u64,
    /// What it was before.
    pub before: Extent,
    /// What it is now.
    pub after: Extent,
}

/// What the store needs to give a snapshot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extent {
    /// Objects that hold its pages: segments, and commits with frames of their own.
    pub objects: u64,
    /// The bytes of its segments, of its pages in commits, and of the index.
    pub bytes: u64,
}

/// Compacts the newest snapshot of a volume.
pub async fn compact(
    reader: Arc<Reader>,
    pages: Arc<dyn PageUpkeep>,
    volume: VolumeName,
    options: Options,
) -> Result<Compacted> {
    let mut job = Job { reader, pages, volume, options, order: None, first_window: 0, look_again: false };
    job.ensure_checkpoint().await?;
    let mut done: Option<Compacted> = None;
    let (mut lost, mut lost_in_a_row) = (0, 0);
    while lost_in_a_row < MOST_LOST {
        let Some((ended, extent)) = job.step().await? else {
            (lost, lost_in_a_row) = (lost + 1, lost_in_a_row + 1);
            continue;
        };
        let (Ended::Nothing(place) | Ended::Published(place, _)) = ended;
        let mut now = done.unwrap_or(Compacted {
            lsn: place.lsn,
            generation: place.generation,
            steps: 0,
            lost: 0,
            pages: 0,
            bytes_written: 0,
            before: extent,
            after: extent,
        });
        (now.lsn, now.generation, now.after, now.lost) = (place.lsn, place.generation, extent, lost);
        match ended {
            Ended::Nothing(_) => return Ok(now),
            Ended::Published(_, published) => {
                now.steps += 1;
                now.pages += published.pages;
                now.bytes_written += published.bytes;
                lost_in_a_row = 0;
            }
        }
        done = Some(now);
    }
    Err(Error::new(ErrorKind::Busy, format!("others are compacting volume {}", job.volume))
        .with_remedy("Let them finish, then compact again: what they have done is done."))
}

/// How a step ended.
#[derive(Clone, Copy)]
enum Ended {
    /// Nothing was worth rewriting.
    Nothing(CheckpointPlace),
    /// The checkpoint counts.
    Published(CheckpointPlace, Published),
}

/// What a compaction works with.
struct Job {
    reader: Arc<Reader>,
    pages: Arc<dyn PageUpkeep>,
    volume: VolumeName,
    options: Options,
    /// The order in which the pages of a snapshot belong.
    order: Option<(Lsn, Arc<Order>)>,
    /// In the windows before it nothing was worth rewriting when they were looked at.
    first_window: u32,
    /// What was rewritten since may have left segments behind that nobody needs but for a few pages of those windows.
    look_again: bool,
}

impl Job {
    /// Makes sure that the newest snapshot has a checkpoint.
    async fn ensure_checkpoint(&self) -> Result<()> {
        let state = self.reader.metastore().head(&self.volume).await?;
        let VolumeState::Live(head) = state else {
            return Err(Error::not_found(format!("there is no volume {} in the store", self.volume))
                .with_remedy("`quire ls` shows the volumes there are."));
        };
        let newest = self.newest().await?;
        if newest.is_some_and(|place| place.lsn >= head.lsn()) {
            return Ok(());
        }
        let (reader, volume) = (self.reader.clone(), self.volume.clone());
        let lineage = Lineage::load(reader.clone(), volume.clone(), head.lsn(), head.hash(), true).await?;
        let boot = order::boot_frames(reader.clone(), lineage, head.header().page_size);
        let boot = self.unless_gone(head.lsn(), boot.await).await?;
        quire_history::checkpoint(&reader, &volume, head.header(), &boot).await.map(|_| ())
    }

    /// What it means that a page of a snapshot could not be read.
    async fn unless_gone<T>(&self, lsn: Lsn, read: Result<T>) -> Result<T> {
        match read {
            Err(e) if e.kind() == ErrorKind::Gone => Err(gone_or(&self.reader, &self.volume, lsn, e).await),
            read => read,
        }
    }

    async fn newest(&self) -> Result<Option<CheckpointPlace>> {
        self.reader.metastore().checkpoint(&self.volume, None).await
    }

    /// One step, from the newest checkpoint of the volume to the next generation of it; with what the snapshot took in
    /// the store when it began. None if somebody else has written that checkpoint, or a newer one.
    async fn step(&mut self) -> Result<Option<(Ended, Extent)>> {
        let from = self.newest().await?;
        let from = from.ok_or_else(|| Error::not_found(format!("volume {} has no checkpoint", self.volume)))?;
        match self.step_from(from).await {
            // What a checkpoint names that is not the newest any more may be gone.
            Err(_) if self.newest().await? != Some(from) => Ok(None),
            ended => ended,
        }
    }

    async fn step_from(&mut self, from: CheckpointPlace) -> Result<Option<(Ended, Extent)>> {
        let Job { reader, volume, .. } = &*self;
        let index = Index::at(reader, volume, from).await.map_err(|e| match e.kind() {
            ErrorKind::Corrupt => e
                .context(format_args!("the checkpoint of LSN {} of volume {volume}", from.lsn))
                .with_remedy("Move it out of the volume's folder `ck`, then compact again: it is written anew."),
            _ => e,
        })?;
        let info = index.info();
        let group = (FRAME_TARGET_BYTES / info.page_size.bytes()).max(1);
        let budget = self.options.budget_bytes.max(4 * index.head().object_bytes());
        let survey = Survey::of(reader, &index, budget).await?;
        let extent = survey.extent;
        let order = self.order(&index).await?;
        let windows = Window::count(info.page_count, order.is_some());
        let (window, groups) = loop {
            if self.first_window >= windows {
                self.first_window = 0;
                if !std::mem::take(&mut self.look_again) {
                    return Ok(Some((Ended::Nothing(from), extent)));
                }
            }
            let window = Window::load(&self.reader, &index, self.first_window, order.is_some()).await?;
            let sequence = window.sequence(order.as_deref());
            let groups = plan::plan(&sequence, &window.facts(&survey, group), group);
            if !groups.is_empty() {
                break (window, groups);
            }
            self.first_window += 1;
        };
        let next = from.generation.checked_add(1).ok_or_else(|| Error::invalid("no generation is left"))?;
        let to = CheckpointPlace { lsn: from.lsn, generation: next };
        let base = (self.volume.clone(), from.lsn, index.info().commit);
        self.reader.metastore().mark(&Marker { base, target: MarkerTarget::Checkpoint(to) }).await?;
        // What it names was kept when the mark was made only if it was still the newest then.
        if self.newest().await? != Some(from) {
            return Ok(None);
        }
        let rewritten = rewrite::rewrite(self, &index, to, &window, groups, budget).await?;
        let Some(published) = publish::publish(self, &index, to, rewritten).await? else { return Ok(None) };
        self.look_again = true;
        Ok(Some((Ended::Published(to, published), extent)))
    }

    /// In which order the pages of the snapshot belong; none for page order.
    async fn order(&mut self, index: &Index) -> Result<Option<Arc<Order>>> {
        let info = index.info();
        if info.page_count.get() > order::MOST_PAGES {
            return Ok(None);
        }
        if let Some((lsn, order)) = &self.order
            && *lsn == info.lsn
        {
            return Ok(Some(order.clone()));
        }
        let (reader, volume) = (self.reader.clone(), self.volume.clone());
        let lineage = Lineage::load(reader.clone(), volume, info.lsn, info.commit, true).await?;
        let order = order::order(reader, lineage, info.page_size).await;
        let order = Arc::new(self.unless_gone(info.lsn, order).await?);
        self.order = Some((info.lsn, order.clone()));
        self.first_window = 0;
        Ok(Some(order))
    }
}
