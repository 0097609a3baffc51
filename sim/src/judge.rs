//! What must hold after a step: the answer of the operation against the
//! store's own log, then what the replica shows and says of itself.
//!
//! Where nothing interfered (no fault, nobody in between, no doubt from
//! before), the answer is known beforehand and must be exactly that. Else any
//! answer that is true is right.

use quire_engine::{Condition, Error, ErrorKind, Moved, Reset, Snapshot, Status, VolumeName};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::care::{Ground, ground};
use crate::content::{Stamp, stamp_of};
use crate::flight::{Answer, Before, Flight, Operation, Transaction};
use crate::network::is_of_the_network;
use crate::world::World;

impl World {
    /// Checks the answer to an operation, and takes its effect into the model.
    pub(crate) fn judge(
        &mut self,
        c: usize,
        v: usize,
        operation: &Operation,
        before: &Before,
        answer: Answer,
        in_between: bool,
    ) {
        self.read_store(v);
        self.trace(|| format!("  {operation:?} of client {c} volume {v} answers {answer:?}"));
        let undisturbed = !in_between
            && self.clients[c].link.faults() == before.faults
            && before.status.state != Condition::InDoubt
            && self.writes_since(c, v, before) == 0;
        let calm = undisturbed.then_some(before);
        match (operation, answer) {
            (Operation::Commit(transaction), answer) => self.judge_commit(c, v, transaction, before, calm, answer),
            (_, Answer::Moved(moved)) => self.judge_moved(c, v, operation, calm, before, moved),
            (_, Answer::Reset(reset)) => self.judge_reset(c, v, calm, before, reset),
            (_, Answer::Fetched(fetched)) => {
                let head = self.histories[v].head();
                match fetched {
                    Ok(lsn) if calm.is_some() => assert_eq!(lsn.map_or(0, |lsn| lsn.get()), head, "what fetch learnt"),
                    Ok(lsn) => assert!(lsn.map_or(0, |lsn| lsn.get()) <= head, "fetch learnt what is not there"),
                    Err(e) => self.tolerate(c, v, before, &e, &[]),
                }
            }
            (Operation::Care(care), Answer::CaredFor(done)) => {
                let broken = self.clients[c].link.faults() > before.faults;
                let allowed = self.judge_care((v, before.head), care, &done, in_between, broken);
                if let Err(e) = done {
                    self.tolerate(c, v, before, &e, allowed);
                }
            }
            (_, Answer::CaredFor(done)) => panic!("{operation:?} answered {done:?}"),
            (_, Answer::Hydrated(hydrated)) => {
                if let Err(e) = hydrated {
                    // Some of the caches are smaller than a volume.
                    self.tolerate(c, v, before, &e, &[ErrorKind::Full]);
                }
            }
            (_, Answer::NotBegun(e) | Answer::Committed(Err(e))) => panic!("{operation:?} answered {e:?}"),
            (_, Answer::Committed(Ok(()))) => panic!("{operation:?} committed"),
        }
        let volume = self.clients[c].replicas[v].volume();
        self.settle(c, v, stamp_of(&volume.snapshot()), &volume.status());
    }

    /// Commits that others have brought into the store since an operation began.
    fn writes_since(&self, c: usize, v: usize, before: &Before) -> u64 {
        let replica = &self.clients[c].replicas[v];
        let now = self.histories[v].head();
        let own = (before.head + 1..=now).filter(|lsn| {
            let stamp = self.histories[v].stamp(*lsn);
            stamp == replica.visible
                || replica.maybe.contains(&stamp)
                || self.histories[v].at(*lsn).is_some_and(|s| s.is_void)
        });
        now - before.head - own.count() as u64
    }

    fn judge_commit(
        &mut self,
        c: usize,
        v: usize,
        transaction: &Transaction,
        before: &Before,
        calm: Option<&Before>,
        answer: Answer,
    ) {
        let to_store = self.clients[c].commits_to_store;
        let status = self.clients[c].replicas[v].volume().status();
        let stamp = transaction.stamp;
        // Somebody's commit, or void, has the next LSN.
        let is_old = self.histories[v].head() > before.status.base_lsn.map_or(0, |lsn| lsn.get());
        match answer {
            Answer::Committed(Ok(())) => {
                let replica = &mut self.clients[c].replicas[v];
                replica.visible = stamp;
                replica.maybe.clear();
                let place = self.histories[v].place(stamp);
                assert!(!to_store || place.is_some(), "commit {stamp} was acknowledged, and is not in the store");
                self.events.note(if to_store { "committed to the store" } else { "committed" });
            }
            Answer::NotBegun(e) => {
                self.ledger.bury(stamp);
                // A volume that is diverged may be in doubt besides: a push that was tried again in vain.
                let unsettled = matches!(before.status.state, Condition::InDoubt | Condition::Diverged);
                assert!(to_store || unsettled, "a local transaction cannot begin: {e:?}");
                let allowed: &[_] = if unsettled { &[ErrorKind::Conflict] } else { &[] };
                self.tolerate(c, v, before, &e, allowed);
                self.events.note("not begun in doubt");
            }
            Answer::Committed(Err(e)) => {
                assert!(to_store, "a local commit failed: {e:?}");
                if status.state == Condition::InDoubt {
                    self.clients[c].replicas[v].maybe.push(stamp);
                    assert_eq!(e.kind(), ErrorKind::Unavailable, "in doubt: {e:?}");
                    self.events.note("in doubt");
                } else {
                    // It failed for certain: from now on nobody may see it.
                    self.ledger.bury(stamp);
                    self.events.note("failed for certain");
                }
                // A reset that a late listing misled, and that was cut off, has set the work apart.
                let apart = before.status.state == Condition::Diverged;
                assert!(calm.is_none() || is_old || apart, "a commit to the store failed in fair weather: {e:?}");
                self.tolerate(c, v, before, &e, &[ErrorKind::Conflict, ErrorKind::AlreadyExists]);
            }
            _ => panic!("a commit has another answer"),
        }
    }

    fn judge_moved(
        &mut self,
        c: usize,
        v: usize,
        operation: &Operation,
        calm: Option<&Before>,
        before: &Before,
        moved: Result<Moved, Error>,
    ) {
        if let Some(calm) = calm {
            self.check_expected(c, v, operation, calm, &moved);
        }
        let history = &self.histories[v];
        match moved {
            Ok(moved) => {
                if let Some((lsn, _)) = moved.pushed {
                    let replica = &self.clients[c].replicas[v];
                    let pushed = history.stamp(lsn.get());
                    let is_mine = |top: Stamp| self.ledger.distance(top, pushed).is_some();
                    assert!(
                        is_mine(replica.visible) || replica.maybe.iter().any(|maybe| is_mine(*maybe)),
                        "LSN {lsn} was pushed, and holds commit {pushed}, not {}",
                        replica.visible
                    );
                    self.events.note("pushed");
                }
                if let Some((_, to)) = moved.pulled {
                    self.take_pulled(c, v, to.get());
                }
            }
            Err(e) => {
                if e.kind() == ErrorKind::Conflict {
                    self.events.note("diverged");
                }
                let unsettled = before.status.state == Condition::InDoubt;
                if unsettled && calm.is_none() {
                    self.events.note("still in doubt");
                }
                self.tolerate(c, v, before, &e, &[ErrorKind::Conflict, ErrorKind::AlreadyExists]);
            }
        }
    }

    /// The base moved to `to`. What was visible must not be lost by it.
    pub(crate) fn take_pulled(&mut self, c: usize, v: usize, to: u64) {
        let history = &self.histories[v];
        let replica = &mut self.clients[c].replicas[v];
        let status = replica.volume().status();
        if status.unpushed > 0 || status.base_lsn.map(|lsn| lsn.get()) != Some(to) {
            return;
        }
        let old = replica.visible;
        let is_kept = self.ledger.is_part_of_any(old, (0..=history.head()).map(|lsn| history.stamp(lsn)));
        assert!(is_kept, "a pull took commit {old} away, which is nowhere in the store");
        replica.visible = history.stamp(to);
        replica.maybe.clear();
        self.events.note("pulled");
    }

    /// What a push, pull or sync must answer when nothing interfered.
    fn check_expected(&self, c: usize, v: usize, operation: &Operation, before: &Before, moved: &Result<Moved, Error>) {
        let history = &self.histories[v];
        let status = &before.status;
        let (unpushed, base) = (status.unpushed, status.base_lsn.map_or(0, |lsn| lsn.get()));
        let visible = self.clients[c].replicas[v].visible;
        let pushes = matches!(operation, Operation::Push) || (matches!(operation, Operation::Sync) && unpushed > 0);
        let not_void = |lsn: &u64| history.at(*lsn).is_some_and(|stored| !stored.is_void);
        let next = (base + 1..=before.head).find(not_void);
        let foreign = next.is_some();
        let twin_pushed = unpushed > 0 && foreign && history.place(visible) == next;
        if status.state == Condition::Diverged && (!foreign || twin_pushed) {
            // A reset that was cut off, or that an older listing misled, has set the work apart. A pull finds out that
            // the store has nothing else, a push does not ask.
            return;
        }
        let said = |moved: &Result<Moved, Error>| match moved {
            Ok(moved) => Ok((moved.pushed.map(|(lsn, n)| (lsn.get(), n)), moved.pulled.map(|(_, to)| to.get()))),
            Err(e) => Err(e.kind()),
        };
        let expected = if (status.state == Condition::Diverged || unpushed > 0 && foreign) && !twin_pushed {
            // Who learns it after the statement has passed his base is told that as well.
            let ground = status.base_lsn.map(|lsn| (v, lsn));
            let too_late = moved.as_ref().is_err_and(|e| self.is_gone(e.kind(), ground));
            Err(if too_late { ErrorKind::Gone } else { ErrorKind::Conflict })
        } else if twin_pushed {
            // Another copy of this data directory was first; that is found out sooner or later in one call.
            assert!(moved.is_ok(), "its own commits are in the store at LSN {}: {:?}", base + 1, moved.as_ref().err());
            return;
        } else if pushes {
            Ok(((unpushed > 0).then_some((before.head + 1, unpushed)), None))
        } else {
            Ok((None, (base < before.head).then_some(before.head)))
        };
        assert_eq!(
            said(moved),
            expected,
            "{operation:?} at base {base} of {}, {unpushed} unpushed: {moved:?}",
            before.head
        );
    }

    fn judge_reset(&mut self, c: usize, v: usize, calm: Option<&Before>, before: &Before, reset: Result<Reset, Error>) {
        let head = self.histories[v].head();
        let reset = match reset {
            Ok(reset) => reset,
            Err(e) => {
                assert!(calm.is_none() || before.head == 0, "a reset in fair weather failed: {e:?}");
                let allowed: &[_] = if before.head == 0 || !self.histories[v].only_voids_after(0) {
                    &[ErrorKind::NotFound, ErrorKind::AlreadyExists]
                } else {
                    &[ErrorKind::NotFound]
                };
                return self.tolerate(c, v, before, &e, allowed);
            }
        };
        let lsn = reset.lsn.map_or(0, |lsn| lsn.get());
        assert!(lsn <= head && (calm.is_none() || lsn == head), "a reset went to LSN {lsn} of {head}");
        if let Some(calm) = calm {
            assert_eq!(reset.kept_as.is_some(), calm.status.unpushed > 0, "what was unpushed is kept");
        }
        let history = &self.histories[v];
        let replica = &mut self.clients[c].replicas[v];
        if reset.kept_as.is_none() && replica.volume().status().unpushed > 0 {
            return; // a transaction was faster: it stands on the head
        }
        let old = std::mem::replace(&mut replica.visible, history.stamp(lsn));
        let maybe = std::mem::take(&mut replica.maybe);
        self.events.note("reset");
        match reset.kept_as {
            Some(kept) => {
                let stamp = self.check_kept(c, v, &kept, old, &maybe);
                self.clients[c].replicas[v].kept.push((kept, stamp, maybe));
            }
            None => {
                let is_there = self.ledger.is_part_of_any(old, (0..=head).map(|lsn| history.stamp(lsn)));
                assert!(is_there, "a reset gave up commit {old}, which is nowhere in the store");
            }
        }
    }

    /// Unpushed work goes on under another name.
    fn check_kept(&mut self, c: usize, v: usize, kept: &VolumeName, old: Stamp, maybe: &[Stamp]) -> Stamp {
        let engine = self.clients[c].engine.clone().expect("it is open");
        let volume = engine.volume(kept).unwrap_or_else(|e| panic!("what was kept as {kept}: {e:?}"));
        let snapshot = volume.snapshot();
        let stamp = stamp_of(&snapshot);
        assert!(stamp == old || maybe.contains(&stamp), "{kept} is commit {stamp}, not {old}");
        // A transaction in doubt, and nothing else, may have turned out to have failed.
        let nothing_left = stamp == old && !maybe.is_empty();
        assert!(volume.status().unpushed > 0 || nothing_left, "{kept} has nothing that is not in the store");
        self.check_pages(c, &snapshot, stamp, None, ground(v, &snapshot), "what a reset kept");
        self.events.note("unpushed work kept");
        stamp
    }

    /// What resets kept is there after a restart, too. Then it goes.
    pub(crate) fn give_up_kept(&mut self, c: usize) {
        for v in 0..self.setup.volumes {
            for (kept, stamp, maybe) in std::mem::take(&mut self.clients[c].replicas[v].kept) {
                self.check_kept(c, v, &kept, stamp, &maybe);
                let engine = self.clients[c].engine.as_ref().expect("it is open");
                engine.remove_replica(&kept, true).unwrap_or_else(|e| panic!("removing {kept}: {e:?}"));
            }
        }
    }

    /// What a volume shows that has just been opened, if nothing was here before.
    pub(crate) fn adopt(&mut self, c: usize, v: usize) {
        self.read_store(v);
        let history = &self.histories[v];
        let replica = &mut self.clients[c].replicas[v];
        let status = replica.volume().status();
        let lsn = status.base_lsn.map_or(0, |lsn| lsn.get());
        if replica.visible == 0 && replica.maybe.is_empty() && lsn > 0 && status.unpushed == 0 {
            replica.visible = history.stamp(lsn);
            self.events.note("adopted");
        }
        // What was in doubt is settled by opening, if the store can be asked.
        let stamp = stamp_of(&replica.volume().snapshot());
        self.settle(c, v, stamp, &status);
    }

    /// Checks what a replica shows and says.
    pub(crate) fn look(&mut self, c: usize, v: usize, rng: &mut StdRng, thorough: bool) {
        self.read_store(v);
        let client = &self.clients[c];
        let volume = client.replicas[v].volume();
        let snapshot = volume.snapshot();
        let status = volume.status();
        let stamp = stamp_of(&snapshot);
        self.settle(c, v, stamp, &status);
        if status.state != Condition::InDoubt {
            self.check_status(c, v, stamp, &status);
        }
        let flight = self.flights.iter().find(|flight| (flight.client, flight.volume) == (c, v));
        if flight.is_some_and(Flight::fetches) {
            return; // a page that it fetches would be waited for
        }
        self.note_evictions(c, v, stamp, &status);
        let some = if thorough { None } else { Some(rng) };
        self.check_pages(c, &snapshot, stamp, some, ground(v, &snapshot), "the visible snapshot");
    }

    /// The visible commit is the one that must be; a doubt that is over has one outcome.
    pub(crate) fn settle(&mut self, c: usize, v: usize, stamp: Stamp, status: &Status) {
        self.trace(|| format!("  client {c} volume {v} shows commit {stamp}: {status:?}"));
        // A transaction may be visible before its call has ended: it has won, and what waits is a request that its
        // push makes besides; or one request of several waits, and the others' errors were enough to go on.
        let is_flying = self.flights.iter().any(|flight| {
            let commits = matches!(&flight.operation, Operation::Commit(transaction) if transaction.stamp == stamp);
            commits && (flight.client, flight.volume) == (c, v)
        });
        // What a pull brought may be visible before: what waits is a request for what others of the client stand on.
        let pulls =
            |f: &Flight| (f.client, f.volume) == (c, v) && matches!(f.operation, Operation::Pull | Operation::Sync);
        if stamp != self.clients[c].replicas[v].visible && self.flights.iter().any(pulls) {
            self.take_pulled(c, v, status.base_lsn.map_or(0, |lsn| lsn.get()));
        }
        let may_be_visible =
            is_flying && (!self.clients[c].commits_to_store || self.histories[v].place(stamp).is_some());
        let replica = &mut self.clients[c].replicas[v];
        let (name, old) = (&replica.name, replica.visible);
        assert!(
            stamp == old || replica.maybe.contains(&stamp) || may_be_visible,
            "{name} shows commit {stamp}, not {old} (or {:?}): {status:?}",
            replica.maybe
        );
        if replica.maybe.is_empty() || status.state == Condition::InDoubt {
            return;
        }
        let flying = self.flights.iter().any(|f| (f.client, f.volume) == (c, v));
        if flying {
            return;
        }
        replica.visible = stamp;
        for failed in std::mem::take(&mut replica.maybe) {
            if failed != stamp {
                self.ledger.bury(failed);
            }
        }
        self.events.note("doubt settled");
    }

    /// Base and unpushed commits make up exactly what is visible.
    fn check_status(&self, c: usize, v: usize, stamp: Stamp, status: &Status) {
        let history = &self.histories[v];
        let base = status.base_lsn.map_or(0, |lsn| lsn.get());
        assert!(base <= history.head(), "it stands on LSN {base}, and the store has {}", history.head());
        let below = history.stamp(base);
        let distance = self.ledger.distance(stamp, below);
        // A transaction that is on its way to the store counts as unpushed, and is not visible.
        let flies = |flight: &&Flight| (flight.client, flight.volume) == (c, v) && flight.commits();
        let under_way = u64::from(self.flights.iter().any(|flight| flies(&flight)));
        assert!(
            distance.is_some_and(|n| (n..=n + under_way).contains(&status.unpushed)),
            "commit {stamp} is {distance:?} above LSN {base}, which is commit {below}: {status:?}"
        );
        let needs_remedy = status.state == Condition::Diverged || status.last_error.is_some();
        assert!(!needs_remedy || status.remedy.is_some(), "no command goes on from here: {status:?}");
    }

    fn note_evictions(&mut self, c: usize, v: usize, stamp: Stamp, status: &Status) {
        let replica = &mut self.clients[c].replicas[v];
        let (old_stamp, old) = std::mem::replace(&mut replica.cached, (stamp, status.cached_pages));
        if old_stamp == stamp && status.cached_pages < old {
            self.events.note("evicted");
        }
    }

    /// Checks all pages of a snapshot, or a few. A page that the network keeps away is passed over, and one that is
    /// gone because of what the snapshot stands on.
    pub(crate) fn check_pages(
        &self,
        c: usize,
        snapshot: &Snapshot,
        stamp: Stamp,
        some: Option<&mut StdRng>,
        on: Ground,
        what: &str,
    ) {
        let content = self.ledger.content(stamp);
        content.check_shape(snapshot, what);
        let pages: Vec<u32> = match some {
            None => (1..=content.count + 1).collect(),
            Some(rng) => (0..4).map(|_| rng.random_range(1..=content.count + 2)).collect(),
        };
        let link = &self.clients[c].link;
        for page in pages {
            let faults = link.faults();
            if let Err(e) = content.check_page(snapshot, page, what) {
                let excused = link.faults() > faults && is_of_the_network(&e) || self.is_gone(e.kind(), on);
                assert!(excused, "{what}, commit {stamp}, page {page}: {e:?}");
            }
        }
    }

    pub(crate) fn verify(&mut self, c: usize, v: usize) {
        let (link, volume) = (&self.clients[c].link, self.clients[c].replicas[v].volume());
        let faults = link.faults();
        match volume.verify(&mut |_, _| {}) {
            Ok(verified) => assert_eq!(verified.pages, u64::from(volume.snapshot().page_count().get())),
            Err(e) => {
                let gone = self.is_gone(e.kind(), ground(v, &volume.snapshot()));
                assert!(gone || link.faults() > faults && is_of_the_network(&e), "verifying: {e:?}");
            }
        }
    }

    pub(crate) fn log(&mut self, c: usize, v: usize) {
        self.read_store(v);
        let (link, volume) = (&self.clients[c].link, self.clients[c].replicas[v].volume());
        let faults = link.faults();
        match volume.log() {
            Ok(log) if link.faults() == faults => {
                let lsns = log.iter().map(|entry| entry.lsn.get());
                // A write that was late may land meanwhile.
                let head = log.first().map_or(0, |entry| entry.lsn.get());
                assert!(head >= self.histories[v].head() && lsns.eq((1..=head).rev()), "the log has gaps: {log:?}");
            }
            Ok(_) => {}
            Err(e) => assert!(link.faults() > faults && is_of_the_network(&e), "reading the log: {e:?}"),
        }
    }

    /// An error is one of these, or the network's doing; and it says what to do.
    fn tolerate(&self, c: usize, v: usize, before: &Before, e: &Error, allowed: &[ErrorKind]) {
        let broken = self.clients[c].link.faults() > before.faults;
        // A push that was in flight may have moved the base first.
        let now = self.clients[c].replicas[v].volume().status().base_lsn;
        let bases = [before.status.base_lsn, now];
        let gone = e.kind() == ErrorKind::Gone
            && bases.iter().flatten().any(|base| self.was_let_go((v, *base), before.stated));
        assert!(gone || allowed.contains(&e.kind()) || (broken && is_of_the_network(e)), "{e:?}");
        assert!(e.remedy().is_some() || e.kind() == ErrorKind::Corrupt, "no remedy: {e:?}");
    }
}
