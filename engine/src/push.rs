//! Push: the unpushed local commits become one commit in the store.
//!
//! Crash-proof by intent (`PROTOCOL.md`, "Outcome of an append"): (1) the log
//! is made durable; (2) segments go up under fresh names; (3) the intent with
//! the exact commit bytes is made durable; (4) only then the commit is put;
//! (5) the outcome is written down. A push that died is taken up at (4) with
//! the same bytes, so it can be repeated for ever and counts once; but not at a
//! store that lacks its segments, which is another one: there it begins anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use parking_lot::MutexGuard;
use quire_history::{beginning, replaced};
use quire_proto::{
    Appended, Base, Body, CommitHash, CommitHeader, CommitId, CommitKind, EncodedFrame, Error, ErrorKind,
    FRAME_TARGET_BYTES, FrameIndex, INLINE_LIMIT_BYTES, LocalTip, Lsn, Marker, MarkerTarget, PageIdx, PageSet,
    PageSets, PageSize, Result, SealedCommit, VolumeName, VolumeState, encode_frame,
};

use crate::checkpoint;
use crate::engine::Shared;
use crate::hold;
use crate::log::Batch;
use crate::replica::{Core, Replica, StateChange};
use crate::snapshot::Snapshot;
use crate::standing;
use crate::state::{BaseState, CommitRecord, Intent, Pending, State};
use crate::table::{Cell, Table};
use crate::volume::Moved;

/// Frames that are read and compressed at the same time.
const ENCODING: usize = 4;
/// Changes of up to this many bytes are compressed before it is known whether they fit into the commit.
const SMALL_BYTES: u64 = 512 * 1024;
/// A fork's upload says so often that it is under way: a collector takes its place after an hour without a word.
const MARKED_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);
/// How many segments of a push that was begun before are looked for at the same time.
const CHECKING: usize = 16;
/// How often a push is repeated on top of commits that change nothing.
const MAX_RETARGETS: usize = 16;

/// Pushes what is unpushed. The caller has the lock of the traffic.
pub(crate) fn push(replica: &Arc<Replica>) -> Result<Moved> {
    hold::around(replica, || push_locked(replica)).inspect_err(|e| replica.note_error(e))
}

pub(crate) fn push_locked(replica: &Arc<Replica>) -> Result<Moved> {
    let engine = replica.engine();
    let mut moved = Moved::default();
    if let Some(outcome) = settle_intent(replica)? {
        moved.note_push(&outcome);
    }
    for _ in 0..MAX_RETARGETS {
        check_not_diverged(replica)?;
        let (state, snapshot) = {
            let mut core = replica.core();
            if core.state.pending.commits == 0 {
                drop(core);
                // What was pushed is cache from now on.
                engine.trim_cache();
                standing::check_once(replica)?;
                return Ok(moved);
            }
            core.since_freeze = Pending::default();
            (core.state.clone(), replica.snapshot())
        };
        replica.sync_log()?;
        let sealed = engine.bridge.wait(build(engine, &snapshot, &state))?;
        let intent = Intent {
            target: sealed.lsn(),
            object: sealed.object().to_vec(),
            carries: state.pending.clone(),
            tentative: None,
        };
        open_intent(replica, intent)?;
        match send_intent(replica)? {
            Some(outcome) => moved.note_push(&outcome),
            None => continue, // only voids were in the way: aim at the LSN after them
        }
    }
    Err(Error::unavailable(format!("volume {}: the head keeps moving", replica.name())))
}

/// With another commit where the next one belongs, nothing that is sent can win.
fn check_not_diverged(replica: &Replica) -> Result<()> {
    let (diverged, unpushed) = {
        let core = replica.core();
        (core.state.diverged.filter(|_| core.state.own_base().is_some()), core.state.unpushed())
    };
    match diverged {
        Some(lsn) => Err(diverged_error(replica, lsn, unpushed)),
        // A name that somebody else took first may have become free again.
        None => Ok(()),
    }
}

/// Makes the intent durable. Commits that were made since the freeze stay unpushed.
fn open_intent(replica: &Arc<Replica>, intent: Intent) -> Result<()> {
    let mut core = replica.core();
    let rest = core.since_freeze.clone();
    let change = StateChange { durable: true, ..StateChange::default() };
    replica.change_state(&mut core, change, |state| state.open_intent(intent, rest))
}

/// What a settled push did.
pub(crate) struct Pushed {
    pub(crate) lsn: Lsn,
    pub(crate) commits: u64,
    pub(crate) pages: u64,
    pub(crate) bytes: u64,
}

/// Finishes a push that was begun before, if there is one, with its exact bytes.
/// `None`: there is none, or it is unpushed again: only voids were in its way, or the store does not have its segments.
pub(crate) fn settle_intent(replica: &Arc<Replica>) -> Result<Option<Pushed>> {
    let Some(sealed) = in_flight(replica)? else {
        drop_tentative(replica)?;
        return Ok(None);
    };
    let engine = replica.engine();
    let remote = replica.core().state.remote.clone();
    if engine.bridge.wait(was_sent_elsewhere(engine, &remote, &sealed))? {
        // If this store does not have what the push goes on from, that was begun at the right one, which may have it.
        standing::check_known(replica)?;
        tracing::warn!("volume {}: a push that was begun at another store begins anew", replica.name());
        let mut core = replica.core();
        let settle = core.undecided.as_ref().map(|_| false);
        let change = StateChange { durable: true, settle, ..StateChange::default() };
        replica.change_state(&mut core, change, State::intent_lost)?;
        return Ok(None);
    }
    send_intent(replica)
}

/// The commit of the push in flight.
fn in_flight(replica: &Replica) -> Result<Option<SealedCommit>> {
    let Some(intent) = replica.core().state.intent.clone() else { return Ok(None) };
    let sealed = SealedCommit::decode(intent.object.into());
    sealed.map(Some).map_err(|e| e.context(format!("volume {}: the push in flight", replica.name())))
}

/// Whether the store neither has the commit nor all of its segments. Those are durable before the commit is sent, so this
/// store has never been sent it, and must not be: it was made for another one, or so long ago that they were collected.
async fn was_sent_elsewhere(engine: &Arc<Shared>, remote: &VolumeName, sealed: &SealedCommit) -> Result<bool> {
    let stores = engine.stores().await?;
    let segments = sealed.body().index.segments().to_vec();
    let checks = segments.into_iter().map(|segment| async move {
        match stores.pagestore.verify(remote, segment.id, segment.len_bytes).await {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => Ok(false),
            Err(e) => Err(e),
        }
    });
    let mut checks = futures::stream::iter(checks).buffer_unordered(CHECKING);
    while let Some(is_there) = checks.next().await {
        if !is_there? {
            return match stores.metastore.header(remote, sealed.lsn()).await {
                Ok(_) => Ok(false),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(true),
                Err(e) => Err(e),
            };
        }
    }
    Ok(false)
}

/// Sends the push in flight, if there is one. `None`: there is none, or only voids were in its way and it is unpushed again.
fn send_intent(replica: &Arc<Replica>) -> Result<Option<Pushed>> {
    let Some(sealed) = in_flight(replica)? else { return Ok(None) };
    let engine = replica.engine();
    let remote = replica.core().state.remote.clone();
    let appended = engine.bridge.wait(async {
        let stores = engine.stores().await?;
        stores.metastore.append(&remote, &sealed).await
    });
    match appended.map_err(|refused| standing::why_refused(replica, refused))? {
        Appended::Won => won(replica, &sealed, sealed.header()).map(Some),
        Appended::Lost(other) if is_ours(&other.header, sealed.header()) => {
            won(replica, &sealed, &other.header).map(Some)
        }
        Appended::Lost(other) => {
            lost(replica, &other.header)?;
            Ok(None)
        }
    }
}

/// Asks the store what became of a commit whose process, or whose reply, was
/// lost (`sync=commit`): nothing is written on top of a doubt. Without a doubt it does nothing. `Some`: it is there.
pub(crate) fn settle_doubt(replica: &Arc<Replica>) -> Result<Option<Pushed>> {
    if !replica.is_in_doubt() {
        return Ok(None);
    }
    let _traffic = replica.traffic.lock();
    let settled = settle_intent(replica).inspect_err(|e| replica.note_error(e));
    hold::settle(replica);
    settled
}

/// A commit that awaits its push and has none never left this machine: it has
/// failed for certain.
fn drop_tentative(replica: &Arc<Replica>) -> Result<()> {
    let mut core = replica.core();
    if core.undecided.is_none() {
        return Ok(());
    }
    let change = StateChange { settle: Some(false), ..StateChange::default() };
    replica.change_state(&mut core, change, |_| {})
}

/// Whether a commit that took our LSN carries the very commits that we
/// carried: another copy of this data directory pushed them.
fn is_ours(other: &CommitHeader, mine: &CommitHeader) -> bool {
    other.local_tip == mine.local_tip && other.local_tip != LocalTip::ZERO && other.parent == mine.parent
}

/// The content of `commit` is in the store, by the commit that has this header: itself, as a rule.
fn won(replica: &Arc<Replica>, commit: &SealedCommit, header: &CommitHeader) -> Result<Pushed> {
    let engine = replica.engine();
    let pushed = {
        let mut core = replica.core();
        let intent = core.state.intent.clone();
        let tentative = intent.as_ref().is_some_and(|i| i.tentative.is_some());
        let settles = tentative && core.undecided.is_some();
        let change = StateChange { settle: settles.then_some(true), content: settles, ..StateChange::default() };
        replica.change_state(&mut core, change, |state| {
            if settles {
                // The commit is in the roll-up that won.
                state.pending = Default::default();
            }
            state.intent_won(header);
        })?;
        if settles {
            engine.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        Pushed {
            lsn: header.lsn,
            commits: intent.map_or(0, |i| i.carries.commits + u64::from(tentative)),
            pages: commit.body().sets.owned().len(),
            bytes: commit.object().len() as u64 + header.segment_bytes,
        }
    };
    engine.counters.pushes.fetch_add(1, Ordering::Relaxed);
    if header.hash() == commit.hash() {
        engine.remember(replica.core().state.remote.clone(), commit.clone());
    }

    {
        let mut notes = replica.notes.lock();
        notes.store_lsn = Some(header.lsn);
        notes.last_error = None;
    }
    // The lineage grows by what was pushed; a fault here only makes it be read again.
    let known = replica.lineage.lock().clone();
    let remote = replica.core().state.remote.clone();
    if let Some(known) = known.filter(|known| header.goes_on_from(known.volume(), known.head()))
        && let Ok(Some(longer)) =
            engine.bridge.wait(async { known.extended(engine.reader().await?, &remote, vec![header.clone()]).await })
    {
        *replica.lineage.lock() = Some(longer);
    }
    checkpoint::tidy(replica, header, pushed.pages);
    Ok(pushed)
}

/// Another commit has our LSN. Over voids the push is repeated; anything else
/// means that both sides moved on.
fn lost(replica: &Arc<Replica>, header: &CommitHeader) -> Result<()> {
    let mut core = replica.core();
    let settle = core.undecided.as_ref().map(|_| false);
    let own_base = core.state.own_base().map(|base| base.hash);
    let is_void = header.kind == CommitKind::Void && own_base.is_none_or(|hash| Some(hash) == header.parent);
    let change = StateChange { durable: true, settle, ..StateChange::default() };
    replica.change_state(&mut core, change, |state| {
        state.intent_lost();
        if is_void
            && own_base.is_some()
            && let Some(base) = &mut state.base
        {
            (base.lsn, base.hash) = (header.lsn, header.hash());
        }
        let follows = own_base.map_or(header.kind.begins(), |hash| Some(hash) == header.parent);
        if follows && state.is_tip(header) {
            // Another copy of this data directory has pushed all but the transaction that is rolled back.
            state.found_in_store(header);
        } else if !is_void && state.is_ahead() {
            // With nothing left to push, such as after a transaction that is rolled back, it is only behind.
            state.diverged = Some(header.lsn);
        }
    })?;
    let diverged = core.state.diverged;
    let unpushed = core.state.unpushed();
    drop(core);
    replica.notes.lock().store_lsn = Some(header.lsn);
    match diverged {
        None => Ok(()),
        Some(_) if own_base.is_some() && own_base == header.parent && header.kind.ends() => {
            Err(standing::ended(replica, header))
        }
        Some(lsn) => Err(diverged_error(replica, lsn, unpushed)),
    }
}

/// Notes that the store is at `lsn`, and this replica moved on without it. The error says so.
pub(crate) fn diverge(replica: &Arc<Replica>, mut core: MutexGuard<'_, Core>, lsn: Lsn) -> Error {
    match replica.change_state(&mut core, StateChange::default(), |state| state.diverged = Some(lsn)) {
        Ok(()) => diverged_error(replica, lsn, core.state.unpushed()),
        Err(e) => e,
    }
}

/// Both the store and this replica moved on.
fn diverged_error(replica: &Replica, lsn: Lsn, unpushed: u64) -> Error {
    let name = replica.name();
    Error::new(
        ErrorKind::Conflict,
        format!(
            "volume {name} has diverged: the store is at LSN {lsn}, and {unpushed} local commits are not on top of it"
        ),
    )
    .with_remedy(format!(
        "Both sides are intact. `quire reset {name}` (or SELECT quire_reset()) goes to the store's head and keeps the \
         local commits as {name}.dropped-N."
    ))
}

/// The roll-up of everything unpushed in `state`, of which `snapshot` is the
/// content; its segments are durable in the store when it returns.
async fn build(engine: &Arc<Shared>, snapshot: &Snapshot, state: &State) -> Result<SealedCommit> {
    let (target, parent) = match state.own_base() {
        Some(base) => (base.lsn.next(), Some(base.hash)),
        None => free_place(engine, snapshot.replica(), state).await?,
    };
    let (kind, base) = match &state.base {
        None => (CommitKind::Create, Base::Nothing),
        Some(base) if base.volume == state.remote => (CommitKind::Write, Base::Previous),
        Some(base) => {
            mark(engine, base, &state.remote, target).await?;
            let (volume, lsn, hash) = (base.volume.clone(), base.lsn, base.hash);
            (CommitKind::Fork, Base::Other { volume, lsn, hash })
        }
    };
    let page_size = state.page_size.ok_or_else(|| Error::invalid("a volume without pages has nothing to push"))?;
    let pending = &state.pending;
    let mut owned = pending.changed.clone();
    owned.truncate(state.page_count);
    let base_count = state.base.as_ref().map_or(0, |b| b.page_count.get());
    let mut changed = owned.clone();
    // A fork changes everything: there was nothing under its name.
    let kept = if kind == CommitKind::Fork { 0 } else { pending.min_count.get() };
    changed.insert_range(kept.saturating_add(1), base_count.max(state.page_count.get()));
    let sets = if changed == owned { PageSets::same(owned) } else { PageSets { changed, owned: Some(owned) } };

    let upload = frames(engine, snapshot, sets.owned(), page_size, target);
    let (index, inline) = match &state.base {
        Some(base) if kind == CommitKind::Fork => {
            saying_again(MARKED_AGAIN_AFTER, upload, || mark(engine, base, &state.remote, target)).await?
        }
        _ => upload.await?,
    };
    let mut header = CommitHeader::draft(target, kind, CommitId::random()?, page_size);
    (header.parent, header.base) = (parent, base);
    header.author = engine.author().to_owned();
    header.time_ms = engine.now_ms();
    header.page_count = state.page_count;
    header.min_count =
        if kind == CommitKind::Create { Default::default() } else { pending.min_count.min(state.page_count) };
    header.local_tip = state.tip;
    header.attributes = state.attributes.clone();
    SealedCommit::seal(header, Body { sets, index, inline })
}

/// Where a new volume begins: the name must be free in the store, or another copy
/// of this data directory has brought the very same commits there. Then the push
/// aims at the same place, and finds out that it has won.
async fn free_place(engine: &Arc<Shared>, replica: &Arc<Replica>, state: &State) -> Result<(Lsn, Option<CommitHash>)> {
    let stores = engine.stores().await?;
    let found = stores.metastore.head(&state.remote).await?;
    let VolumeState::Live(head) = &found else {
        return Ok((found.next(), found.head().map(SealedCommit::hash)));
    };
    let begin = beginning(engine.reader().await?, &state.remote, head.header()).await?;
    if state.is_tip(&begin) {
        return Ok((begin.lsn, begin.parent));
    }
    let core = replica.core();
    if !core.state.is_ahead() || core.state.is_tip(&begin) {
        // A transaction that is rolled back (`sync=commit`) leaves nothing that could diverge.
        return Err(came_first(replica));
    }
    Err(diverge(replica, core, head.lsn()))
}

/// Tells the store that `target` is going to be a fork of `base`, before anything relies on it, and makes sure that
/// the base is there: what was collected before cannot be forked any more, what is marked will not be collected.
pub(crate) async fn mark(engine: &Shared, base: &BaseState, volume: &VolumeName, target: Lsn) -> Result<()> {
    let stores = engine.stores().await?;
    let marker = Marker {
        base: (base.volume.clone(), base.lsn, base.hash),
        target: MarkerTarget::Commit(volume.clone(), target),
    };
    stores.metastore.mark(&marker).await?;
    let there = stores.metastore.commit(&base.volume, base.lsn).await?;
    if there.hash() == base.hash { Ok(()) } else { Err(replaced(&base.volume, base.lsn)) }
}

/// Does work that may take long, and says every so often that it is under way.
async fn saying_again<T, F: Future<Output = Result<()>>>(
    every: Duration,
    work: impl Future<Output = Result<T>>,
    say: impl Fn() -> F,
) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(every, &mut work).await {
            Ok(done) => return done,
            Err(_) => match say().await {
                Err(e) if e.kind() == ErrorKind::Unavailable => {
                    tracing::warn!("that a push goes on was not heard: {e}")
                }
                said => said?,
            },
        }
    }
}

/// Brings the owned pages into the store: inline if they are few, else all but the first frame as segments.
async fn frames(
    engine: &Arc<Shared>,
    snapshot: &Snapshot,
    owned: &PageSet,
    page_size: PageSize,
    target: Lsn,
) -> Result<(FrameIndex, Bytes)> {
    if owned.is_empty() {
        return Ok((FrameIndex::default(), Bytes::new()));
    }
    let per_frame = (FRAME_TARGET_BYTES / page_size.bytes()).max(1);
    let is_small = owned.len() * page_size.bytes() as u64 <= SMALL_BYTES;
    let encoded = futures::stream::iter(groups(owned.clone(), per_frame)).map(|pages| {
        let snapshot = snapshot.clone();
        async move {
            let encoding = tokio::task::spawn_blocking(move || encode(&snapshot, &pages, page_size));
            encoding.await.unwrap_or_else(|e| Err(Error::new(ErrorKind::Io, format!("compressing pages: {e}"))))
        }
    });
    let mut encoded = encoded.buffered(ENCODING);
    let mut small: Vec<EncodedFrame> = Vec::new();
    if is_small {
        let mut bytes = 0;
        while let Some(frame) = encoded.next().await {
            let frame = frame?;
            bytes += frame.bytes.len();
            small.push(frame);
        }
        if bytes <= INLINE_LIMIT_BYTES {
            let index = FrameIndex::inline(small.iter().map(|f| (f.first, f.page_count, f.bytes.len() as u32)));
            let mut inline = BytesMut::with_capacity(bytes);
            small.iter().for_each(|f| inline.extend_from_slice(&f.bytes));
            return Ok((index, inline.freeze()));
        }
    }
    let stores = engine.stores().await?;
    let mut stream = futures::stream::iter(small.into_iter().map(Ok)).chain(encoded).boxed();
    // Who opens the volume needs its first page next: it comes with the commit, for no further round trip.
    let mut first = if owned.contains(PageIdx::FIRST) { stream.try_next().await? } else { None };
    if let Some(large) = first.take_if(|first| first.bytes.len() > INLINE_LIMIT_BYTES) {
        stream = futures::stream::iter([Ok(large)]).chain(stream).boxed();
    }
    let mut index = FrameIndex::inline(first.iter().map(|f| (f.first, f.page_count, f.bytes.len() as u32)));
    index.append(stores.pagestore.write(snapshot.remote(), target, stream).await?);
    Ok((index, first.map_or_else(Bytes::new, |first| first.bytes)))
}

/// The pages of a set in groups of at most `per_frame`, in order.
fn groups(pages: PageSet, per_frame: usize) -> impl Iterator<Item = Vec<PageIdx>> + Send {
    let ranges: Vec<(u32, u32)> = pages.ranges().collect();
    let mut ranges = ranges.into_iter();
    let mut current = ranges.next();
    std::iter::from_fn(move || {
        let mut group = Vec::with_capacity(per_frame);
        while group.len() < per_frame {
            let Some((first, last)) = current else { break };
            group.extend(PageIdx::new(first));
            current = if first < last { Some((first + 1, last)) } else { ranges.next() };
        }
        (!group.is_empty()).then_some(group)
    })
}

fn encode(snapshot: &Snapshot, pages: &[PageIdx], page_size: PageSize) -> Result<EncodedFrame> {
    let mut data = vec![0; pages.len() * page_size.bytes()];
    for (page, buf) in pages.iter().zip(data.chunks_exact_mut(page_size.bytes())) {
        match snapshot.table().get(*page) {
            // Checked once more before it leaves the machine for good.
            Cell::At { place, .. } => snapshot.replica().read_place(place, *page, buf, true)?,
            Cell::Zero => buf.fill(0),
            Cell::Absent => return Err(Error::corrupt(format!("page {page} is to be pushed, and is not here"))),
        }
    }
    encode_frame(&pages.iter().copied().collect(), page_size, &data)
}

/// Commits a transaction into the store (`sync=commit`): it counts only if the
/// push that carries it wins. If the outcome stays unknown, a void is put in
/// its place: either that wins and the transaction has failed for certain, or
/// it loses and the store says what happened.
pub(crate) fn commit_to_store(
    replica: &Arc<Replica>,
    seq: u64,
    mut commit: CommitRecord,
    batch: &mut Batch,
    spilled: &Table,
) -> Result<Snapshot> {
    let _traffic = replica.traffic.lock();
    let engine = replica.engine();
    // What a crash left unsettled comes first. (A transaction cannot begin while a push is in doubt.)
    settle_intent(replica).inspect_err(|e| replica.note_error(e))?;
    check_not_diverged(replica)?;
    commit.group = Some(*CommitId::random()?.as_bytes());
    let (future, snapshot, carries) = replica.append_tentative(batch, spilled, commit, seq)?;
    let sealed = match engine.bridge.wait(build(engine, &snapshot, &future)) {
        Ok(sealed) => sealed,
        Err(e) => {
            replica.note_error(&e);
            if let Err(later) = drop_tentative(replica) {
                tracing::warn!("volume {}: {later}", replica.name());
            }
            return Err(e);
        }
    };
    {
        let intent = Intent { target: sealed.lsn(), object: sealed.object().to_vec(), carries, tentative: Some(seq) };
        let change = StateChange { durable: true, ..StateChange::default() };
        let opened =
            replica.change_state(&mut replica.core(), change, |state| state.open_intent(intent, Pending::default()));
        if let Err(e) = opened {
            if let Err(later) = drop_tentative(replica) {
                tracing::warn!("volume {}: {later}", replica.name());
            }
            return Err(e);
        }
    }
    match send_intent(replica) {
        Ok(Some(_)) => Ok(replica.snapshot()),
        Ok(None) => Err(came_first(replica)),
        // With the push still in flight it is in doubt: the store may have another history than the right one.
        Err(e) if e.kind() == ErrorKind::Conflict && replica.core().state.intent.is_none() => Err(e),
        Err(e) => match void_in_its_place(replica, &sealed) {
            Ok(Some(snapshot)) => Ok(snapshot),
            Ok(None) => {
                replica.note_error(&e);
                Err(e)
            }
            Err(doubt) => {
                tracing::warn!("volume {}: {doubt}", replica.name());
                let doubtful = Error::new(
                    ErrorKind::Unavailable,
                    format!("volume {}: whether the commit reached the store is not known", replica.name()),
                )
                .with_source(e)
                .with_remedy("Run `quire push` or SELECT quire_push() once the store can be reached: it settles it.");
                replica.note_error(&doubtful);
                Err(doubtful)
            }
        },
    }
}

fn came_first(replica: &Replica) -> Error {
    Error::new(
        ErrorKind::Conflict,
        format!("volume {}: another commit came first; the transaction is rolled back", replica.name()),
    )
    .with_remedy("Pull, then run the transaction again.")
}

/// Settles a push of unknown outcome by putting a void at its LSN. `Some`: the
/// push had won after all. `None`: it has not, and never will.
fn void_in_its_place(replica: &Arc<Replica>, sent: &SealedCommit) -> Result<Option<Snapshot>> {
    let engine = replica.engine();
    let mine = sent.header();
    let mut void = CommitHeader::draft(mine.lsn, CommitKind::Void, CommitId::random()?, mine.page_size);
    void.parent = mine.parent;
    void.author = mine.author.clone();
    void.time_ms = engine.now_ms();
    let (remote, base) = {
        let core = replica.core();
        (core.state.remote.clone(), core.state.own_base().cloned())
    };
    if let Some(base) = base {
        // A void says what the commit before it said.
        let before = engine.bridge.wait(engine.commit(&remote, base.lsn))?;
        void.page_size = before.header().page_size;
        void.attributes = before.header().attributes.clone();
        void.page_count = base.page_count;
        void.min_count = base.page_count;
    } else if mine.lsn == Lsn::FIRST {
        return Err(Error::unavailable("a first commit cannot be voided"));
    }
    let void = SealedCommit::seal(void, Body::default())?;
    let appended = engine.bridge.wait(async {
        let stores = engine.stores().await?;
        stores.metastore.append(&remote, &void).await
    })?;
    match appended {
        Appended::Won => lost(replica, void.header()).map(|()| None),
        Appended::Lost(other) if other.object_hash == sent.object_hash() => {
            won(replica, sent, mine)?;
            Ok(Some(replica.snapshot()))
        }
        Appended::Lost(other) => lost(replica, &other.header).map(|()| None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_works_for_long_says_so_again_and_a_word_that_is_not_heard_stops_nothing() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let said = std::cell::Cell::new(0);
        let enough = tokio::sync::Notify::new();
        let say = async |e: Option<ErrorKind>| {
            said.set(said.get() + 1);
            if said.get() == 3 {
                enough.notify_one();
            }
            e.map_or(Ok(()), |kind| Err(Error::new(kind, "the network")))
        };
        let work = || async {
            enough.notified().await;
            Ok(7)
        };
        let unheard = saying_again(Duration::from_millis(1), work(), || say(Some(ErrorKind::Unavailable)));
        assert_eq!(runtime.block_on(unheard).ok(), Some(7));
        assert!(said.get() >= 3);
        said.set(10);
        let gone = saying_again(Duration::from_millis(1), work(), || say(Some(ErrorKind::Gone)));
        assert_eq!(runtime.block_on(gone).map_err(|e| e.kind()), Err(ErrorKind::Gone));
    }
}
