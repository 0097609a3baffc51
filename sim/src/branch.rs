//! The past and its branches: any LSN of the store's log shows what it showed,
//! a fork shows what it was forked from, and a restore is one more commit.

use quire_engine::{Error, ErrorKind, Lsn, Moment, VolumeName};
use rand::RngExt;
use rand::rngs::StdRng;

use crate::care::{Ground, ground};
use crate::content::{Stamp, stamp_of};
use crate::network::is_of_the_network;
use crate::world::World;

/// A fork that a client has made.
#[derive(Clone, Debug)]
pub(crate) struct Fork {
    pub(crate) name: VolumeName,
    pub(crate) stamp: Stamp,
    /// What it stands on, as long as the store does not know of it.
    pub(crate) on: Ground,
}

impl World {
    /// An LSN of the log, from 1 on, or one too many.
    fn some_lsn(&mut self, v: usize, rng: &mut StdRng) -> Lsn {
        self.read_store(v);
        Lsn::new(rng.random_range(1..=self.histories[v].head() + 1)).expect("it is not 0")
    }

    /// What a snapshot of the past shows; none if the name stood for nothing then.
    pub(crate) fn past_stamp(&mut self, v: usize, lsn: Lsn) -> Option<Stamp> {
        self.read_store(v);
        let history = &self.histories[v];
        let begun = (1..=lsn.get()).any(|lsn| history.at(lsn).is_some_and(|stored| !stored.is_void));
        (begun && lsn.get() <= history.head()).then(|| history.stamp(lsn.get()))
    }

    fn refused(&self, c: usize, faults: u64, e: &Error, allowed: bool) {
        let broken = self.clients[c].link.faults() > faults;
        // A listing that is late knows nothing of a volume.
        let by_network = is_of_the_network(e) || e.kind() == ErrorKind::NotFound;
        assert!(allowed || broken && by_network, "{e:?}");
        assert!(e.remedy().is_some() || e.kind() == ErrorKind::Corrupt, "no remedy: {e:?}");
    }

    /// Reads a snapshot of the past.
    pub(crate) fn read_past(&mut self, c: usize, v: usize, rng: &mut StdRng) {
        let lsn = self.some_lsn(v, rng);
        let client = &self.clients[c];
        let (engine, name, faults) = (client.engine(), client.replicas[v].name.clone(), client.link.faults());
        match engine.volume_at(&name, Moment::Lsn(lsn)) {
            Ok(old) => {
                // A write that was late may have landed meanwhile.
                let stamp = self.past_stamp(v, lsn).unwrap_or_else(|| panic!("{name} has nothing at LSN {lsn}"));
                assert_eq!(stamp_of(&old.snapshot()), stamp, "what LSN {lsn} of {name} shows");
                self.check_pages(c, &old.snapshot(), stamp, None, Some((v, lsn)), "a snapshot of the past");
                self.events.note("past read");
            }
            Err(e) => {
                let absent = self.past_stamp(v, lsn).is_none() && e.kind() == ErrorKind::NotFound;
                self.refused(c, faults, &e, absent || self.is_gone(e.kind(), Some((v, lsn))));
            }
        }
    }

    /// Forks what is visible, or a snapshot of the past, and looks at the fork.
    pub(crate) fn fork(&mut self, c: usize, v: usize, of_past: bool, rng: &mut StdRng) {
        let moment = of_past.then(|| self.some_lsn(v, rng));
        let new = self.fork_name();
        let client = &self.clients[c];
        let (engine, name, faults) = (client.engine(), client.replicas[v].name.clone(), client.link.faults());
        let visible = client.replicas[v].visible;
        let on = moment.map_or_else(|| ground(v, &client.replicas[v].volume().snapshot()), |lsn| Some((v, lsn)));
        let forked = match engine.fork(&name, moment.map(Moment::Lsn), &new) {
            Ok(forked) => forked,
            Err(e) => {
                let absent = match moment {
                    Some(lsn) => self.past_stamp(v, lsn).is_none(),
                    // Nothing was ever written, or its outcome is not known.
                    None => visible == 0 || !self.clients[c].replicas[v].maybe.is_empty(),
                };
                self.refused(c, faults, &e, absent || self.is_gone(e.kind(), on));
                assert!(
                    !engine.local_volumes().expect("the catalogue").contains(&new),
                    "a fork that failed left a volume: {e:?}"
                );
                return;
            }
        };
        let stamp = match moment {
            Some(lsn) => self.past_stamp(v, lsn).unwrap_or_else(|| panic!("{name} has nothing at LSN {lsn}")),
            None => stamp_of(&self.clients[c].replicas[v].volume().snapshot()),
        };
        let snapshot = forked.volume.snapshot();
        assert_eq!(stamp_of(&snapshot), stamp, "what the fork shows");
        self.check_pages(c, &snapshot, stamp, None, on, "a fork");
        self.events.note(if forked.lsn.is_some() { "forked in the store" } else { "forked here" });
        self.clients[c].forks.push(Fork { name: new, stamp, on: on.filter(|_| forked.lsn.is_none()) });
    }

    /// Writes a checkpoint of what a replica stands on.
    pub(crate) fn checkpoint(&mut self, c: usize, v: usize) {
        let (link, volume) = (&self.clients[c].link, self.clients[c].replicas[v].volume());
        let faults = link.faults();
        match volume.checkpoint() {
            Ok(made) => {
                assert_eq!(Some(made.lsn), volume.status().base_lsn, "a checkpoint of what it stands on");
                self.events.note(if made.bytes > 0 { "checkpointed" } else { "checkpointed before" });
            }
            Err(e) => {
                let gone = self.is_gone(e.kind(), ground(v, &volume.snapshot()));
                self.refused(c, faults, &e, gone || volume.status().base_lsn.is_none());
            }
        }
    }

    /// Makes an older snapshot the content again.
    pub(crate) fn restore(&mut self, c: usize, v: usize, rng: &mut StdRng) {
        let lsn = self.some_lsn(v, rng);
        let client = &self.clients[c];
        let (engine, name, faults) = (client.engine(), client.replicas[v].name.clone(), client.link.faults());
        match engine.restore(&name, Moment::Lsn(lsn)) {
            Ok(restored) => {
                let stamp = self.past_stamp(v, lsn);
                assert_eq!(Some(self.histories[v].stamp(restored.lsn.get())), stamp, "what was restored");
                self.take_pulled(c, v, self.clients[c].base_lsn(v));
                self.events.note("restored");
            }
            Err(e) => {
                self.read_store(v);
                // A listing that is late knows an older head.
                let late = self.clients[c].link.faults() > faults;
                let is_newest = (late || lsn.get() >= self.histories[v].head()) && e.kind() == ErrorKind::Invalid;
                let not_there = self.past_stamp(v, lsn).is_none() && e.kind() == ErrorKind::NotFound;
                let gone = self.is_gone(e.kind(), Some((v, lsn)));
                self.refused(c, faults, &e, is_newest || not_there || gone || e.kind() == ErrorKind::Conflict);
                // It may be in the store, and here, all the same.
                self.take_pulled(c, v, self.clients[c].base_lsn(v));
            }
        }
        let volume = self.clients[c].replicas[v].volume();
        self.settle(c, v, stamp_of(&volume.snapshot()), &volume.status());
    }

    /// Every fork is what it was forked from: here, then in the store, for whoever comes.
    pub(crate) fn check_forks(&mut self, c: usize) {
        for Fork { name, stamp, on } in std::mem::take(&mut self.clients[c].forks) {
            let engine = self.clients[c].engine();
            let volume = engine.existing(&name).unwrap_or_else(|e| panic!("fork {name}: {e:?}"));
            assert_eq!(stamp_of(&volume.snapshot()), stamp, "what fork {name} shows");
            self.check_pages(c, &volume.snapshot(), stamp, None, on, "a fork after a while");
            match volume.push() {
                Ok(_) => self.forks_in_store.push(Fork { name, stamp, on: None }),
                Err(e) if self.is_gone(e.kind(), on) => self.events.note("fork whose ground was gone"),
                Err(e) => panic!("pushing fork {name}: {e:?}"),
            }
        }
    }
}
