//! The end of a run: the network works again. No state is a dead end, every
//! replica comes to the store's head, and a client that has seen nothing finds
//! exactly what was acknowledged.

use quire_engine::{Condition, ErrorKind, Lsn, Moment};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::branch::Fork;
use crate::care::ground;
use crate::client::Replica;
use crate::content::stamp_of;
use crate::network::Weather;
use crate::step::{Action, Step};
use crate::world::{World, volume_name};

/// So many snapshots of the past are read at the end.
const SOME_OF_THE_PAST: usize = 6;

impl World {
    /// Heals the network, brings everybody to the head, and checks it all.
    pub(crate) fn heal(&mut self, seed: u64) {
        self.land_all();
        self.runtime.block_on(self.network.settle());
        for c in 0..self.clients.len() {
            for v in 0..self.setup.volumes {
                self.bring_to_head(c, v, seed);
            }
        }
        // Again: others may have pushed after it.
        for c in 0..self.clients.len() {
            for v in 0..self.setup.volumes {
                self.catch_up(c, v, seed);
            }
        }
        for c in 0..self.clients.len() {
            self.clients[c].link.order(seed, Weather::Fair, None);
            self.check_forks(c);
        }
        self.check_with_fresh_eyes(seed);
        for history in &self.histories {
            self.runtime.block_on(history.check_all(&self.raw));
        }
    }

    /// Pushes; if that is a conflict, resets, which must then be possible.
    fn bring_to_head(&mut self, c: usize, v: usize, seed: u64) {
        self.fair(c, v, Action::Push, seed);
        let status = self.clients[c].replicas[v].volume().status();
        assert_ne!(status.state, Condition::InDoubt, "a push with the store at hand settles every doubt");
        if status.state == Condition::Diverged {
            self.fair(c, v, Action::Reset, seed);
        }
        let status = self.clients[c].replicas[v].volume().status();
        assert_eq!(status.unpushed, 0, "it can neither be pushed nor reset: {status:?}");
    }

    fn catch_up(&mut self, c: usize, v: usize, seed: u64) {
        self.fair(c, v, Action::Pull, seed);
        self.fair(c, v, Action::ReadAll, seed);
        let replica = &mut self.clients[c].replicas[v];
        let status = replica.volume().status();
        assert!(status.state == Condition::Clean, "after a pull: {status:?}");
        assert_eq!(replica.visible, self.histories[v].stamp(self.histories[v].head()), "it is at the head");
        for (snapshot, stamp) in std::mem::take(&mut replica.held) {
            self.check_pages(c, &snapshot, stamp, None, ground(v, &snapshot), "a snapshot held to the end");
        }
    }

    fn fair(&mut self, c: usize, v: usize, action: Action, seed: u64) {
        self.step(&Step { client: c, volume: v, action, weather: Weather::Fair, pause: None, seed });
        assert!(self.clients[c].replicas[v].volume.is_some(), "it can be opened");
    }

    /// A client that has seen nothing.
    fn check_with_fresh_eyes(&mut self, seed: u64) {
        let dir = self.fresh_dir();
        let replicas = (0..self.setup.volumes).map(|v| Replica::new(volume_name(v))).collect();
        let fresh = self.open_client(dir, false, self.setup.cache_size, replicas);
        let c = self.clients.len();
        self.clients.push(fresh);
        for v in 0..self.setup.volumes {
            let engine = self.clients[c].engine.clone().expect("it is open");
            let (name, head) = (volume_name(v), self.histories[v].head());
            match engine.existing(&name) {
                Err(e) => {
                    let is_free = self.histories[v].only_voids_after(0);
                    assert!(is_free && e.kind() == ErrorKind::NotFound, "a fresh client of {name}: {e:?}");
                }
                Ok(volume) => {
                    let snapshot = volume.snapshot();
                    let stamp = stamp_of(&snapshot);
                    assert_eq!(stamp, self.histories[v].stamp(head), "what a fresh client sees of {name}");
                    self.check_pages(c, &snapshot, stamp, None, None, "what a fresh client reads");
                    let verified = volume.verify(&mut |_, _| {}).unwrap_or_else(|e| panic!("verifying {name}: {e:?}"));
                    assert_eq!(verified.pages, u64::from(snapshot.page_count().get()));
                    self.clients[c].replicas[v].volume = Some(volume);
                    self.log(c, v);
                    self.check_past(c, v, seed);
                }
            }
        }
        for Fork { name, stamp, .. } in std::mem::take(&mut self.forks_in_store) {
            let engine = self.clients[c].engine();
            let volume = engine.existing(&name).unwrap_or_else(|e| panic!("a fresh client of fork {name}: {e:?}"));
            assert_eq!(stamp_of(&volume.snapshot()), stamp, "what a fresh client sees of fork {name}");
            self.check_pages(c, &volume.snapshot(), stamp, None, None, "what a fresh client reads of a fork");
        }
    }

    /// Snapshots of the past read as they were, or say that they are gone, as the store says that it keeps them.
    fn check_past(&mut self, c: usize, v: usize, seed: u64) {
        let mut rng = StdRng::seed_from_u64(crate::mix(seed ^ v as u64));
        let (engine, name, head) = (self.clients[c].engine(), volume_name(v), self.histories[v].head());
        for lsn in (0..SOME_OF_THE_PAST).filter_map(|_| Lsn::new(rng.random_range(1..=head))) {
            let (kept, shown) = (!self.is_let_go(Some((v, lsn))), self.past_stamp(v, lsn));
            match (engine.volume_at(&name, Moment::Lsn(lsn)), shown) {
                (Ok(old), Some(stamp)) if kept => {
                    assert_eq!(stamp_of(&old.snapshot()), stamp, "what LSN {lsn} of {name} shows in the end");
                    self.check_pages(c, &old.snapshot(), stamp, None, None, "what is kept of the past");
                }
                (Err(e), None) if e.kind() == ErrorKind::NotFound => {}
                (Err(e), _) if !kept && e.kind() == ErrorKind::Gone => self.events.note("past gone"),
                (Ok(_), _) => panic!("LSN {lsn} of {name} is read, and must not be; is it kept? {kept}"),
                (Err(e), _) => panic!("LSN {lsn} of {name}, of {head}; is it kept? {kept}: {e:?}"),
            }
        }
    }
}
