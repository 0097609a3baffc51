//! Collection: what history need not keep is let go.
//!
//! Order protects what is needed, never anybody's clock. A collector
//!
//! 1. finds out what is to be kept: what the owner wants, and what forks,
//!    restores and others hold by their [markers](quire_proto::Marker);
//! 2. makes sure that a sound checkpoint stands at each end of it, so that no
//!    older commit is needed to read it;
//! 3. publishes that as a [statement](quire_proto::Statement), which may only
//!    keep less than the one before it;
//! 4. lists the markers *then*: whoever marked before the statement is seen
//!    here, whoever marks after it sees the statement and fails;
//! 5. lets go what a statement that is older than the grace does not keep:
//!    checkpoints, then segments that nothing kept names, then the bodies of
//!    commits, of which a [stub](quire_proto::Stub) stays.
//!
//! Each step may be repeated, and any number of collectors may run at once:
//! what one may let go, the others may too.

mod live;
mod markers;
mod plan;
mod sweep;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::TryStreamExt;
use quire_history::Reader;
use quire_proto::{
    CheckpointPlace, CommitHeader, Error, ErrorKind, LogUpkeep, Lsn, PageUpkeep, Result, Stated, Statement, VolumeName,
};
pub use quire_proto::{Retention, Span};

use live::Live;
use markers::Markers;
pub use markers::{Hold, Holder, give_up};
use plan::{Plan, Trusted};
use sweep::Sweep;

/// After so many attempts to publish a statement somebody else is collecting.
const MOST_ATTEMPTS: usize = 8;

/// A write to which nothing was added for so long has been cut off.
const UNFINISHED_MS: u64 = 3_600_000;

/// What can be set on a collection.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long whoever has opened a snapshot may go on reading it after a statement that does not keep it, in
    /// milliseconds by the store's clock.
    pub grace_ms: u64,
    /// A marker whose author has not come back for so long is closed, in milliseconds by the store's clock.
    pub abandoned_ms: u64,
    /// Only find out what would go: nothing is written, nothing let go. Given is the time, in milliseconds since
    /// 1970, as seeing that of the store's clock takes a write.
    pub report_at_ms: Option<u64>,
}

impl Options {
    fn report_only(&self) -> bool {
        self.report_at_ms.is_some()
    }

    async fn now_ms(&self, stores: &Stores, volume: &VolumeName) -> Result<u64> {
        match self.report_at_ms {
            Some(now_ms) => Ok(now_ms),
            None => stores.log.clock_ms(volume).await,
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        const HOUR_MS: u64 = 3_600_000;
        Options { grace_ms: 24 * HOUR_MS, abandoned_ms: HOUR_MS, report_at_ms: None }
    }
}

/// The stores, for whoever collects.
#[derive(Clone)]
pub struct Stores {
    /// The logs.
    pub log: Arc<dyn LogUpkeep>,
    /// The pages.
    pub pages: Arc<dyn PageUpkeep>,
    /// Reads the history in both.
    pub reader: Arc<Reader>,
}

impl Stores {
    /// Collects in these stores.
    pub fn new(log: Arc<dyn LogUpkeep>, pages: Arc<dyn PageUpkeep>) -> Stores {
        let reader = Arc::new(Reader::new(log.clone(), pages.clone()));
        Stores { log, pages, reader }
    }

    /// Every name under which anything was ever stored.
    pub async fn volumes(&self) -> Result<Vec<VolumeName>> {
        self.log.volumes("").try_collect().await
    }
}

/// Changes what is to be kept of a volume, and returns it with what the newest statement keeps already. Nothing goes before
/// somebody collects.
pub async fn keep(
    stores: &Stores,
    volume: &VolumeName,
    change: impl Fn(&mut Retention) + Send,
) -> Result<(Retention, Statement)> {
    stores.log.head(volume).await?.head().ok_or_else(|| {
        Error::not_found(format!("the store has no volume {volume}")).with_remedy("`quire ls` lists what there is.")
    })?;
    for _ in 0..MOST_ATTEMPTS {
        let (number, before) = stores.log.retention(volume).await?;
        // Also what was asked for before: whoever asked may have been killed before a collector had to hear of it.
        let mut asked = Retention { named: BTreeSet::new(), ..before.clone() };
        change(&mut asked);
        let statement = stores.log.statement(volume).await?;
        check_kept(volume, &statement, &asked.named)?;
        let mut retention = before.clone();
        change(&mut retention);
        retention.named.retain(|lsn| statement.keeps(*lsn));
        if retention == before && asked.named.is_empty() {
            return Ok((retention, statement));
        }
        if retention == before || stores.log.retain(volume, number + 1, &retention).await? {
            let statement = claim(stores, volume, &asked.named).await?;
            return Ok((retention, statement));
        }
    }
    Err(Error::new(ErrorKind::Busy, format!("volume {volume}: others are changing what is kept of it"))
        .with_remedy("Look at what is kept now, then try again."))
}

/// Makes sure that snapshots stay which are wanted now. A collector that has not heard of it, as it looked at what is
/// wanted before, may be about to publish: its number is taken, so that it has to look again.
async fn claim(stores: &Stores, volume: &VolumeName, lsns: &BTreeSet<Lsn>) -> Result<Statement> {
    for _ in 0..MOST_ATTEMPTS {
        let Stated { number, statement, .. } = newest(stores, volume).await?;
        check_kept(volume, &statement, lsns)?;
        if stores.log.state(volume, number + 1, &statement).await? {
            return Ok(statement);
        }
    }
    Err(overtaken(volume))
}

fn check_kept(volume: &VolumeName, statement: &Statement, lsns: &BTreeSet<Lsn>) -> Result<()> {
    match lsns.iter().find(|lsn| !statement.keeps(**lsn)) {
        None => Ok(()),
        Some(lsn) => Err(Error::new(ErrorKind::Gone, format!("LSN {lsn} of volume {volume} is not kept any more"))
            .with_remedy(format!("`quire gc {volume} --dry-run` shows what is."))),
    }
}

/// How much of something, and how many bytes in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// How many objects.
    pub objects: u64,
    /// How long they are together, in bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What a collection did with a volume, or would do.
#[derive(Clone, Debug)]
pub struct Collected {
    /// What its owner wants kept.
    pub retention: Retention,
    /// The newest LSN.
    pub head: Lsn,
    /// Every snapshot from here on is kept.
    pub horizon: Lsn,
    /// The older snapshots that are kept too.
    pub kept: BTreeSet<Lsn>,
    /// Who holds what.
    pub holds: Vec<Hold>,
    /// Nothing at or before this LSN was touched: somebody whose outcome is not known yet may need it.
    pub blocked: Option<Lsn>,
    /// There is more that is no longer kept, and goes when so many milliseconds have passed. Of a report: not all that
    /// is to go would go at once, but then.
    pub waits_ms: Option<u64>,
    /// Commits that became stubs; the bytes are those saved. Of a report: how many may become one.
    pub commits: Amount,
    /// Checkpoints that went.
    pub checkpoints: Amount,
    /// Segments that went.
    pub segments: Amount,
    /// Segments that stay.
    pub segments_left: Amount,
    /// Commits before the horizon that are neither kept nor let go: frames in them are still needed until a compaction
    /// moves them.
    pub commits_left: u64,
}

/// Collects the history of one volume; none if nothing was ever stored under that name.
pub async fn collect(stores: &Stores, volume: &VolumeName, options: &Options) -> Result<Option<Collected>> {
    // What one attempt has compared, the next one need not.
    let mut trusted = Trusted::new();
    for _ in 0..MOST_ATTEMPTS {
        let before = newest(stores, volume).await?;
        match attempt(stores, volume, options, &before, &mut trusted).await {
            Ok(Attempt::Done(collected)) => return Ok(collected.map(|collected| *collected)),
            Ok(Attempt::Overtaken) => {}
            // Another collector has gone on meanwhile, and let go what this one still wanted to look at.
            Err(e) if newest(stores, volume).await?.number == before.number => return Err(e),
            Err(_) => {}
        }
    }
    Err(overtaken(volume))
}

/// Other collectors are faster.
fn overtaken(volume: &VolumeName) -> Error {
    Error::new(ErrorKind::Busy, format!("volume {volume}: other collectors are at work"))
        .with_remedy("Nothing is wrong; collect again later.")
}

enum Attempt {
    Done(Option<Box<Collected>>),
    /// Somebody else published the next statement.
    Overtaken,
}

async fn attempt(
    stores: &Stores,
    volume: &VolumeName,
    options: &Options,
    before: &Stated,
    trusted: &mut Trusted,
) -> Result<Attempt> {
    let state = stores.log.head(volume).await?;
    let Some(head) = state.head().map(|head| head.header().clone()) else { return Ok(Attempt::Done(None)) };
    let (wanted, retention) = stores.log.retention(volume).await?;
    let now_ms = options.now_ms(stores, volume).await?;
    let abandoned_ms = (!options.report_only()).then_some(options.abandoned_ms);
    let markers = Markers::list(stores, volume, &before.statement, &head, (now_ms, abandoned_ms)).await?;
    let mut plan = Plan::make(stores, volume, &head, &retention, &before.statement, &markers, now_ms).await?;
    let mut places: Vec<(CheckpointPlace, u64)> = stores.log.checkpoints(volume).try_collect().await?;
    let report_only = options.report_only();
    let unwritten = plan.ensure_checkpoints(stores, volume, &before.statement, &places, trusted, report_only).await?;
    if !report_only {
        // With those that were written.
        places = stores.log.checkpoints(volume).try_collect().await?;
    }
    if !plan.is_up_to_date(&places) {
        // Somebody has written another one meanwhile, which would count.
        return Ok(Attempt::Overtaken);
    }
    let statement = plan.statement(&places, &before.statement);
    if stores.log.retention(volume).await?.0 != wanted {
        // Somebody has said something else while checkpoints were written.
        return Ok(Attempt::Overtaken);
    }
    if !report_only
        && drops_more(&statement, &before.statement, &places)
        && !stores.log.state(volume, before.number + 1, &statement).await?
    {
        return Ok(Attempt::Overtaken);
    }
    let collected = sweep(stores, volume, options, head.lsn, retention, (statement, unwritten)).await?;
    Ok(Attempt::Done(Some(Box::new(collected))))
}

/// Lets go what statements allow, after looking once more at who holds something. What is planned comes with the snapshots
/// whose checkpoints are not written yet.
async fn sweep(
    stores: &Stores,
    volume: &VolumeName,
    options: &Options,
    head: Lsn,
    retention: Retention,
    (planned, unwritten): (Statement, Vec<CommitHeader>),
) -> Result<Collected> {
    let notes = newest(stores, volume).await?;
    let now_ms = options.now_ms(stores, volume).await?;
    let due = ripe(stores, volume, now_ms, options.grace_ms).await?;
    // A report says what goes in the end, as if the grace had passed.
    let (stated, ripe) = match options.report_only() {
        true => (&planned, &planned),
        false => (&notes.statement, &due),
    };
    let header = stores.log.header(volume, head).await?;
    // By the statement that things go by: a newer one may already do without what this one needs.
    let markers = Markers::list(stores, volume, ripe, &header, (now_ms, None)).await?;
    let places: Vec<(CheckpointPlace, u64)> = stores.log.checkpoints(volume).try_collect().await?;
    // What a report has not found stated would be stated now.
    let stated_ms = if drops_more(stated, &notes.statement, &places) { now_ms } else { notes.stored_ms };
    let left_ms = options.grace_ms.saturating_sub(now_ms.saturating_sub(stated_ms));
    let waits_ms = (left_ms > 0 && drops_more(stated, &due, &places)).then_some(left_ms);
    let blocked = markers.blocked(ripe);
    let mut live = Live::find(stores, volume, ripe, &places, blocked).await?;
    for header in &unwritten {
        match live.add_unwritten(stores, volume, header).await {
            // Its holder blocks what is below it.
            Err(e) if e.kind() == ErrorKind::Gone && header.lsn < ripe.horizon => {}
            added => added?,
        }
    }
    let sweep = Sweep { stores, volume, head, ripe, blocked, live: &live, places: &places, options };
    let mut collected = Collected {
        retention,
        head,
        horizon: planned.horizon,
        kept: planned.kept.clone(),
        blocked,
        waits_ms,
        commits: Amount::default(),
        checkpoints: Amount::default(),
        segments: Amount::default(),
        segments_left: Amount::default(),
        commits_left: 0,
        holds: Vec::new(),
    };
    sweep.checkpoints(&mut collected).await?;
    sweep.segments(&mut collected).await?;
    let progress = sweep.commits(&notes.statement, &mut collected).await?;
    if !options.report_only() {
        markers.remove_spent(stores, volume).await?;
        if (progress.collected, &progress.left) != (notes.statement.collected, &notes.statement.left) {
            // A note only: whoever is first has looked at as much, or will the next time.
            stores.log.state(volume, notes.number + 1, &progress).await?;
        }
    }
    if !options.report_only()
        && let Err(e) = stores.log.drop_unfinished(volume, now_ms.saturating_sub(UNFINISHED_MS)).await
    {
        tracing::warn!("volume {volume}: what writes have left that were cut off stays: {e}");
    }
    collected.holds = markers.into_holds();
    Ok(collected)
}

/// The newest statement; number 0 keeps everything.
async fn newest(stores: &Stores, volume: &VolumeName) -> Result<Stated> {
    let newest = stores.log.statements(volume).try_next().await?;
    Ok(newest.unwrap_or_else(|| Stated { number: 0, stored_ms: 0, statement: Statement::all() }))
}

/// What is kept by the newest statement that is older than the grace.
async fn ripe(stores: &Stores, volume: &VolumeName, now_ms: u64, grace_ms: u64) -> Result<Statement> {
    let mut statements = stores.log.statements(volume);
    while let Some(stated) = statements.try_next().await? {
        if stated.stored_ms.saturating_add(grace_ms) <= now_ms {
            return Ok(stated.statement);
        }
    }
    Ok(Statement::all())
}

/// Whether a statement lets go of anything that the one before it keeps.
fn drops_more(statement: &Statement, before: &Statement, places: &[(CheckpointPlace, u64)]) -> bool {
    statement.horizon != before.horizon
        || statement.kept != before.kept
        || places.iter().any(|(place, _)| statement.drops(*place) && !before.drops(*place))
}
