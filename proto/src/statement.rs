//! The statement: what a collector says that it keeps of a volume's history.
//! Statements form a chain of create-only objects, and each may only keep less
//! than the one before it. Layout: `FORMAT.md`, "Statement".

use std::collections::BTreeSet;

use crate::{CheckpointPlace, Lsn, Reader, Result, Writer};

const MAGIC: [u8; 4] = *b"QKEP";
const VERSION: u8 = 1;

/// What is kept of a volume's history. Whatever it does not keep may be gone
/// once it is older than the grace that readers have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Every snapshot from here on is kept.
    pub horizon: Lsn,
    /// The snapshots before the horizon that are kept too.
    pub kept: BTreeSet<Lsn>,
    /// The checkpoints in force: of their LSNs, lower generations are not needed.
    pub indexes: BTreeSet<CheckpointPlace>,
    /// Commits before this one have been looked at by collectors: they are stubs now, or kept, or
    /// [`left`](Self::left). Only a note that saves requests.
    pub collected: Lsn,
    /// Commits before [`collected`](Self::collected) whose frames were still needed then.
    pub left: BTreeSet<Lsn>,
}

impl Statement {
    /// Keeps everything.
    pub fn all() -> Statement {
        Statement {
            horizon: Lsn::FIRST,
            kept: BTreeSet::new(),
            indexes: BTreeSet::new(),
            collected: Lsn::FIRST,
            left: BTreeSet::new(),
        }
    }

    /// Whether the snapshot of an LSN is kept.
    pub fn keeps(&self, lsn: Lsn) -> bool {
        lsn >= self.horizon || self.kept.contains(&lsn)
    }

    /// Whether a checkpoint is one that nobody needs who begins to read now.
    pub fn drops(&self, place: CheckpointPlace) -> bool {
        let superseded = self
            .indexes
            .range(place..)
            .next()
            .is_some_and(|other| other.lsn == place.lsn && other.generation > place.generation);
        superseded || !self.keeps(place.lsn)
    }

    /// Whether it keeps nothing before its horizon that `before` did not: only such a statement may follow.
    pub fn may_follow(&self, before: &Statement) -> bool {
        self.horizon >= before.horizon && self.kept.iter().all(|lsn| before.keeps(*lsn))
    }

    /// The object.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(&MAGIC);
        w.u8(VERSION);
        w.varint(self.horizon.get());
        encode_lsns(&mut w, &self.kept);
        w.varint(self.indexes.len() as u64);
        let mut before = 0;
        for place in &self.indexes {
            w.varint(place.lsn.get() - before);
            w.varint(u64::from(place.generation));
            before = place.lsn.get();
        }
        w.varint(self.collected.get());
        encode_lsns(&mut w, &self.left);
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        w.into_vec()
    }

    /// Reads a statement.
    pub fn decode(object: &[u8]) -> Result<Statement> {
        let mut r = Reader::new("statement", object);
        r.magic(MAGIC, VERSION)?;
        let horizon = r.lsn()?;
        let kept = decode_lsns(&mut r)?;
        let mut indexes = BTreeSet::new();
        let mut at = 0;
        for n in 0..r.count(2)? {
            at = ascend(&mut r, at, n > 0)?;
            let lsn = Lsn::new(at).ok_or_else(|| r.corrupt("LSN 0"))?;
            indexes.insert(CheckpointPlace { lsn, generation: r.varint32()? });
        }
        let collected = r.lsn()?;
        let left = decode_lsns(&mut r)?;
        r.checksum(object)?;
        r.finish()?;
        Ok(Statement { horizon, kept, indexes, collected, left })
    }
}

fn encode_lsns(w: &mut Writer, lsns: &BTreeSet<Lsn>) {
    w.varint(lsns.len() as u64);
    let mut before = 0;
    for lsn in lsns {
        w.varint(lsn.get() - before);
        before = lsn.get();
    }
}

fn decode_lsns(r: &mut Reader<'_>) -> Result<BTreeSet<Lsn>> {
    let mut lsns = BTreeSet::new();
    let mut at = 0;
    for _ in 0..r.count(1)? {
        at = ascend(r, at, false)?;
        lsns.extend(Lsn::new(at));
    }
    Ok(lsns)
}

fn ascend(r: &mut Reader<'_>, at: u64, may_stay: bool) -> Result<u64> {
    let step = r.varint()?;
    let next = at.checked_add(step).filter(|_| step > 0 || may_stay);
    next.ok_or_else(|| r.corrupt("its LSNs do not ascend"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n).unwrap()
    }

    fn place(n: u64, generation: u32) -> CheckpointPlace {
        CheckpointPlace { lsn: lsn(n), generation }
    }

    fn statement() -> Statement {
        Statement {
            horizon: lsn(1000),
            kept: [7, 300].map(lsn).into(),
            indexes: [place(7, 0), place(300, 2), place(1000, 1), place(1024, 0)].into(),
            collected: lsn(900),
            left: [8, 9, 40].map(lsn).into(),
        }
    }

    #[test]
    fn a_statement_comes_back() {
        for statement in [statement(), Statement::all()] {
            assert_eq!(Statement::decode(&statement.encode()).unwrap(), statement);
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let object = statement().encode();
        for (at, flip) in (0..object.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
            let mut bytes = object.clone();
            bytes[at] ^= flip;
            assert_eq!(Statement::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
            assert_eq!(Statement::decode(&object[..at]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn a_statement_says_which_checkpoints_are_not_needed() {
        let statement = statement();
        for needed in [place(7, 0), place(300, 2), place(300, 3), place(1000, 1), place(1024, 0), place(1280, 0)] {
            assert!(!statement.drops(needed), "{needed:?}");
        }
        for dropped in [place(300, 1), place(300, 0), place(256, 0), place(1000, 0), place(999, 5)] {
            assert!(statement.drops(dropped), "{dropped:?}");
        }
    }

    #[test]
    fn a_statement_may_only_keep_less() {
        let before = statement();
        assert!(before.may_follow(&before) && before.may_follow(&Statement::all()));
        let less = Statement { horizon: lsn(2000), kept: [300, 1500].map(lsn).into(), ..before.clone() };
        assert!(less.may_follow(&before));
        assert!(!Statement { horizon: lsn(999), ..before.clone() }.may_follow(&before));
        assert!(!Statement { kept: [8].map(lsn).into(), ..before.clone() }.may_follow(&before));
    }
}
