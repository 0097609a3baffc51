//! Random histories: several clients, each with its own and often outdated
//! memory, create, write, void, delete, rename and leave renames half done on
//! a few names. A model of plain lists says what each call must answer.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::collections::BTreeMap;

use quire_bucket::Bucket;
use quire_metastore::contract::commits::{commit, moved, reservation, write};
use quire_metastore::{Embedded, Options};
use quire_proto::{
    Appended, Base, CommitKind, ErrorKind, Lsn, Metastore, Result, SealedCommit, VolumeName, VolumeState,
};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

const NAMES: usize = 4;
const CLIENTS: usize = 3;
const HISTORIES: u64 = 12;
const STEPS: usize = 250;

/// The logs as they must be.
#[derive(Default)]
struct Model {
    logs: BTreeMap<VolumeName, Vec<SealedCommit>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Free,
    Live,
    Ended,
}

impl Model {
    fn log(&self, name: &VolumeName) -> &[SealedCommit] {
        self.logs.get(name).map_or(&[], Vec::as_slice)
    }

    fn push(&mut self, name: &VolumeName, commit: &SealedCommit) {
        let log = self.logs.entry(name.clone()).or_default();
        assert_eq!(commit.lsn().get(), log.len() as u64 + 1);
        log.push(commit.clone());
    }

    /// The commit that decides about a reservation, if it is there.
    fn judge(&self, fork: &SealedCommit) -> Option<&SealedCommit> {
        let Base::Other { volume, lsn, .. } = &fork.header().base else { panic!("a fork without base") };
        self.log(volume).get(lsn.get() as usize)
    }

    /// What looking at a name does: an undecided reservation is carried out.
    fn look(&mut self, name: &VolumeName) {
        let Some(fork) = self.log(name).last().cloned() else { return };
        let (Some(condition), Base::Other { volume, .. }) = (&fork.header().condition, &fork.header().base) else {
            return;
        };
        if self.judge(&fork).is_none() {
            self.push(volume, &SealedCommit::decode(condition.moved_object.clone()).unwrap());
        }
    }

    /// What the name stands for after its first `n` commits.
    fn stands_at(&self, name: &VolumeName, n: usize) -> Stands {
        for commit in self.log(name)[..n].iter().rev() {
            match (commit.header().kind, &commit.header().condition) {
                (CommitKind::Void, _) => {}
                (CommitKind::Deleted | CommitKind::Moved, _) => return Stands::Ended,
                (CommitKind::Fork, Some(condition)) => {
                    if self.judge(commit).is_some_and(|judge| judge.header().id == condition.moved_id) {
                        return Stands::Live;
                    }
                }
                _ => return Stands::Live,
            }
        }
        Stands::Free
    }

    fn stands(&self, name: &VolumeName) -> Stands {
        self.stands_at(name, self.log(name).len())
    }

    /// Checks an append's answer, and takes the commit into the log if it won.
    fn append(&mut self, name: &VolumeName, commit: &SealedCommit, answer: Result<Appended>) {
        let at = commit.lsn().get() as usize;
        if let Some(there) = self.log(name).get(at - 1) {
            match answer.unwrap() {
                Appended::Won => assert_eq!(there.object(), commit.object()),
                Appended::Lost(winner) => assert_eq!(winner.object_hash, there.object_hash()),
            }
            return;
        }
        self.look(name);
        let live = self.stands(name) == Stands::Live;
        let allowed = match commit.header().kind {
            CommitKind::Void => true,
            CommitKind::Create | CommitKind::Fork => !live,
            _ => live,
        };
        match answer {
            Ok(Appended::Won) => {
                assert!(allowed, "{:?} on {name}", commit.header());
                self.push(name, commit);
            }
            Ok(Appended::Lost(winner)) => panic!("{:?} is in nobody's log", winner.header),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Invalid, "{e}");
                assert!(!allowed, "{e}");
            }
        }
    }
}

struct History {
    rng: StdRng,
    model: Model,
    names: Vec<VolumeName>,
    clients: Vec<Embedded>,
}

impl History {
    /// A commit of the name's log after which a volume lived there; often the newest.
    fn live_commit(&mut self, name: &VolumeName) -> Option<SealedCommit> {
        let log = self.model.log(name);
        let newest = log.len().checked_sub(1)?;
        let at = if self.rng.random_bool(0.7) { newest } else { self.rng.random_range(0..=newest) };
        (self.model.stands_at(name, at + 1) == Stands::Live).then(|| self.model.log(name)[at].clone())
    }

    async fn step(&mut self) {
        let name = self.names.choose(&mut self.rng).unwrap().clone();
        let client = self.clients.choose(&mut self.rng).unwrap().clone();
        let newest = self.model.log(&name).last().cloned();
        match self.rng.random_range(0..10) {
            0 | 1 => self.append(&client, &name, commit(newest.as_ref(), CommitKind::Create)).await,
            2..=4 => {
                if let Some(before) = self.live_commit(&name) {
                    self.append(&client, &name, write(&before)).await;
                }
            }
            5 => self.append(&client, &name, commit(newest.as_ref(), CommitKind::Void)).await,
            6 => self.delete(&client, &name).await,
            7 => self.rename(&client, &name).await,
            8 => self.reserve(&client, &name).await,
            _ => self.head(&client, &name).await,
        }
    }

    async fn append(&mut self, client: &Embedded, name: &VolumeName, commit: SealedCommit) {
        let answer = client.append(name, &commit).await;
        self.model.append(name, &commit, answer);
    }

    async fn head(&mut self, client: &Embedded, name: &VolumeName) {
        let state = client.head(name).await.unwrap();
        self.model.look(name);
        let stands = match &state {
            VolumeState::Free { .. } => Stands::Free,
            VolumeState::Live(_) => Stands::Live,
            VolumeState::Ended { .. } => Stands::Ended,
        };
        assert_eq!(stands, self.model.stands(name), "{name}");
        assert_eq!(state.head().map(SealedCommit::object), self.model.log(name).last().map(SealedCommit::object));
        if let VolumeState::Ended { by, .. } = &state {
            assert!(by.header().kind.ends(), "{:?}", by.header());
        }
    }

    async fn delete(&mut self, client: &Embedded, name: &VolumeName) {
        let Some(expected) = self.live_commit(name) else { return };
        let answer = client.delete(name, expected.lsn(), "tests").await;
        self.model.look(name);
        let newest = self.model.log(name).last().cloned();
        match answer {
            Ok(deleted) if newest.as_ref().is_some_and(|newest| newest.lsn() < deleted.lsn()) => {
                assert_eq!((self.model.stands(name), deleted.lsn().prev()), (Stands::Live, Some(expected.lsn())));
                self.model.push(name, &deleted);
            }
            // The same deletion once more.
            Ok(deleted) => assert_eq!(deleted.object(), self.model.log(name)[expected.lsn().get() as usize].object()),
            Err(e) if e.kind() == ErrorKind::Conflict => assert_ne!(newest.unwrap().lsn(), expected.lsn()),
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
                assert_ne!(self.model.stands(name), Stands::Live, "{e}");
            }
        }
    }

    async fn rename(&mut self, client: &Embedded, old: &VolumeName) {
        let new = self.names.choose(&mut self.rng).unwrap().clone();
        let answer = client.rename(old, &new, "tests").await;
        if *old == new {
            assert_eq!(answer.unwrap_err().kind(), ErrorKind::Invalid);
            return;
        }
        self.model.look(old);
        self.model.look(&new);
        let (source, target) = (self.model.stands(old), self.model.stands(&new));
        match answer {
            Ok(fork) if fork.lsn().get() as usize > self.model.log(&new).len() => {
                assert!(source == Stands::Live && target != Stands::Live, "{old} is {source:?}, {new} {target:?}");
                self.model.push(&new, &fork);
                self.model.look(&new);
                assert_eq!(self.model.stands(&new), Stands::Live);
            }
            // The same rename once more, by whoever it was begun.
            Ok(fork) => {
                assert_eq!((source, target), (Stands::Ended, Stands::Live));
                assert_eq!(fork.object(), self.model.log(&new).last().unwrap().object());
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                assert_eq!((source, target), (Stands::Live, Stands::Live), "{e}");
            }
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::NotFound, "{e}");
                assert_ne!(source, Stands::Live, "{e}");
            }
        }
    }

    /// A rename whose client dies after the reservation; it may have had an
    /// outdated head.
    async fn reserve(&mut self, client: &Embedded, old: &VolumeName) {
        let new = self.names.choose(&mut self.rng).unwrap().clone();
        let Some(head) = self.live_commit(old).filter(|_| *old != new) else { return };
        let before = self.model.log(&new).last().cloned();
        let fork = reservation(before.as_ref(), old, &head, &moved(&head, &new));
        self.append(client, &new, fork).await;
    }

    /// Everything that is stored, as a client finds it that has seen nothing.
    async fn check(&mut self, bucket: &Bucket) {
        let client = Embedded::new(bucket.clone(), Options::default());
        for name in self.names.clone() {
            self.head(&client, &name).await;
            let log = self.model.log(&name);
            let Some(last) = log.last() else { continue };
            let headers = client.headers(&name, Lsn::FIRST, last.header()).await.unwrap();
            assert!(headers.iter().eq(log.iter().map(SealedCommit::header)), "{name}");
        }
    }
}

#[tokio::test]
async fn random_histories_answer_as_the_model_says() {
    let seed = quire_testkit::seed();
    for n in 0..HISTORIES {
        let bucket = Bucket::open("memory://").unwrap();
        let client = || Embedded::new(bucket.clone(), Options::default());
        let mut history = History {
            rng: StdRng::seed_from_u64(seed.wrapping_add(n)),
            model: Model::default(),
            names: (0..NAMES).map(|n| VolumeName::parse(&format!("volume/{n}")).unwrap()).collect(),
            clients: (0..CLIENTS).map(|_| client()).collect(),
        };
        for _ in 0..STEPS {
            history.step().await;
        }
        history.check(&bucket).await;
    }
}
