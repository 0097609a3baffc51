//! The roll-up: the headers of [`ROLLUP_SPAN`] neighbouring commits in one
//! object, so that a replica far behind reads one object instead of many.
//! Derived from immutable commits; whoever reads one checks its links.
//! Layout: `FORMAT.md`, "Roll-up".

use crate::{CommitHeader, Lsn, MAX_HEADER_BYTES, Reader, Result, SealedCommit, Writer};

/// At every LSN that this number divides there may be a roll-up.
pub const ROLLUP_SPAN: u64 = 64;

const MAGIC: [u8; 4] = *b"QROL";
const VERSION: u8 = 1;

/// The headers of the commits `last - 63 ..= last`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollup {
    /// Ascending by LSN, each the parent of the next.
    headers: Vec<CommitHeader>,
}

impl Rollup {
    /// The roll-up that would hold `lsn`: its last LSN.
    pub fn place(lsn: Lsn) -> Lsn {
        let last = lsn.get().div_ceil(ROLLUP_SPAN).saturating_mul(ROLLUP_SPAN);
        Lsn::new(last).unwrap_or(lsn)
    }

    /// The lowest LSN in the roll-up at `last`.
    pub fn first(last: Lsn) -> Lsn {
        Lsn::new(last.get().saturating_sub(ROLLUP_SPAN - 1)).unwrap_or(Lsn::FIRST)
    }

    /// The object for whole commits, of which only the headers go in. They
    /// must be exactly a roll-up's worth, in order and linked.
    pub fn encode<'a>(commits: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<u8>> {
        let mut w = Writer::new();
        w.bytes(&MAGIC);
        w.u8(VERSION);
        for header in commits {
            w.block(header);
        }
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        let object = w.into_vec();
        Rollup::decode(&object)?;
        Ok(object)
    }

    /// Reads a roll-up and checks its links.
    pub fn decode(object: &[u8]) -> Result<Rollup> {
        let mut r = Reader::new("roll-up", object);
        if r.array()? != MAGIC || r.u8()? != VERSION {
            return Err(r.corrupt("it is not one, or of another version"));
        }
        let (body, crc) = object.split_at(object.len() - 4);
        if r.remaining() < 4 || crc32fast::hash(body).to_le_bytes() != crc {
            return Err(r.corrupt("its checksum is wrong"));
        }
        let mut headers: Vec<CommitHeader> = Vec::new();
        while r.remaining() > 4 {
            let bytes = r.block()?;
            let (header, len) = CommitHeader::decode(&bytes[..bytes.len().min(MAX_HEADER_BYTES)])?;
            let linked =
                headers.last().is_none_or(|h| header.lsn.prev() == Some(h.lsn) && header.parent == Some(h.hash()));
            if len != bytes.len() || !linked {
                return Err(r.corrupt(format_args!("the header of LSN {} is out of place", header.lsn)));
            }
            headers.push(header);
        }
        let whole = headers.len() as u64 == ROLLUP_SPAN
            && headers.last().is_some_and(|h| h.lsn.get().is_multiple_of(ROLLUP_SPAN));
        if whole { Ok(Rollup { headers }) } else { Err(r.corrupt("it does not hold what belongs in one")) }
    }

    /// Whether the commit after it, or the head itself, confirms it: its last
    /// hash must be `hash`.
    pub fn ends_with(&self, hash: crate::CommitHash) -> bool {
        self.headers.last().is_some_and(|h| h.hash() == hash)
    }

    /// The headers, ascending by LSN.
    pub fn into_headers(self) -> Vec<CommitHeader> {
        self.headers
    }
}

impl From<&SealedCommit> for CommitHeader {
    fn from(commit: &SealedCommit) -> CommitHeader {
        commit.header().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, CommitId, CommitKind, PageSize};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_forged_rollup_is_an_error(headers: Vec<Vec<u8>>) {
            let mut w = Writer::new();
            w.bytes(&MAGIC);
            w.u8(VERSION);
            headers.iter().for_each(|header| w.block(header));
            let crc = crc32fast::hash(w.as_slice());
            w.u32(crc);
            Rollup::decode(w.as_slice()).expect_err("not 64 linked headers");
        }
    }

    fn chain(n: u64) -> Vec<SealedCommit> {
        let mut commits: Vec<SealedCommit> = Vec::new();
        for lsn in (1..=n).filter_map(Lsn::new) {
            let kind = if lsn == Lsn::FIRST { CommitKind::Create } else { CommitKind::Write };
            let mut header = CommitHeader::draft(lsn, kind, CommitId::new([lsn.get() as u8; 16]), PageSize::DEFAULT);
            header.parent = commits.last().map(SealedCommit::hash);
            commits.push(SealedCommit::seal(header, Body::default()).unwrap());
        }
        commits
    }

    #[test]
    fn a_rollup_comes_back_and_every_flip_is_noticed() {
        let commits = chain(128);
        let object = Rollup::encode(commits[64..].iter().map(SealedCommit::header_bytes)).unwrap();
        let rollup = Rollup::decode(&object).unwrap();
        assert!(rollup.ends_with(commits[127].hash()));
        assert_eq!(rollup.into_headers().len(), 64);
        for at in 0..object.len() {
            let mut bytes = object.clone();
            bytes[at] ^= 1;
            Rollup::decode(&bytes).expect_err("a flipped bit");
            Rollup::decode(&object[..at]).expect_err("a truncated roll-up");
        }
    }

    #[test]
    fn nothing_comes_after_the_largest_lsn() {
        let last = Lsn::new(Lsn::MAX).unwrap();
        let mut header = CommitHeader::draft(last, CommitKind::Write, CommitId::new([1; 16]), PageSize::DEFAULT);
        header.parent = Some(crate::CommitHash::ZERO);
        let commit = SealedCommit::seal(header, Body::default()).unwrap();
        Rollup::encode([commit.header_bytes(), commit.header_bytes()]).expect_err("no such LSN");
    }

    #[test]
    fn places_are_computable() {
        let at = |n| Rollup::place(Lsn::new(n).unwrap()).get();
        assert_eq!((at(1), at(64), at(65), at(128)), (64, 64, 128, 128));
        assert_eq!(Rollup::first(Lsn::new(128).unwrap()).get(), 65);
    }

    #[test]
    fn a_rollup_of_unlinked_commits_is_refused() {
        let commits = chain(63);
        Rollup::encode(commits.iter().map(SealedCommit::header_bytes)).expect_err("63 are not 64");
    }
}
