//! The marker: somebody is about to rely on objects that he did not write (a
//! fork, a restore, a checkpoint). It lies beside the snapshot that they
//! belong to, for the collector, and is written before they are first read.
//! Layout: `FORMAT.md`, "Marker".

use crate::{CheckpointPlace, CommitHash, Lsn, Reader, Result, VolumeName, Writer};

const MAGIC: [u8; 4] = *b"QMRK";
const VERSION: u8 = 1;

/// What is going to rely on which snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The snapshot: its volume, its LSN, and the hash of its commit.
    pub base: (VolumeName, Lsn, CommitHash),
    /// What will rely on it. A retry under another name needs another marker.
    pub target: MarkerTarget,
}

/// The object that is going to rely on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MarkerTarget {
    /// The commit that will name it as its base, if it wins its LSN.
    Commit(VolumeName, Lsn),
    /// A checkpoint of the same volume.
    Checkpoint(CheckpointPlace),
    /// The work of a replica that is not in the store, and that no push is going to put there on top of it: both sides
    /// moved on, or it is a fork that has not been pushed. Its author takes the marker back.
    Replica {
        /// The replica's number in its data directory.
        id: u64,
        /// Whose it is, for people.
        author: String,
    },
    /// Somebody reads the snapshot: a lease, for so long after the store got it. Whoever reads on says it again, under
    /// another name.
    Reader {
        /// In milliseconds.
        span_ms: u64,
        /// Whose it is, for people.
        author: String,
    },
}

impl Marker {
    /// The object.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(&MAGIC);
        w.u8(VERSION);
        let (volume, lsn, hash) = &self.base;
        w.block(volume.as_str().as_bytes());
        w.varint(lsn.get());
        w.bytes(hash.as_bytes());
        match &self.target {
            MarkerTarget::Commit(volume, lsn) => {
                w.u8(0);
                w.block(volume.as_str().as_bytes());
                w.varint(lsn.get());
            }
            MarkerTarget::Checkpoint(place) => {
                w.u8(1);
                w.varint(place.lsn.get());
                w.varint(u64::from(place.generation));
            }
            MarkerTarget::Replica { id, author } => {
                w.u8(2);
                w.varint(*id);
                w.block(author.as_bytes());
            }
            MarkerTarget::Reader { span_ms, author } => {
                w.u8(3);
                w.varint(*span_ms);
                w.block(author.as_bytes());
            }
        }
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        w.into_vec()
    }

    /// Reads a marker.
    pub fn decode(object: &[u8]) -> Result<Marker> {
        let mut r = Reader::new("marker", object);
        r.magic(MAGIC, VERSION)?;
        let base = (r.volume_name()?, r.lsn()?, CommitHash::new(r.array()?));
        let target = match r.u8()? {
            0 => MarkerTarget::Commit(r.volume_name()?, r.lsn()?),
            1 => MarkerTarget::Checkpoint(CheckpointPlace { lsn: r.lsn()?, generation: r.varint32()? }),
            2 => MarkerTarget::Replica { id: r.varint()?, author: r.text()?.to_owned() },
            3 => MarkerTarget::Reader { span_ms: r.varint()?, author: r.text()?.to_owned() },
            kind => {
                return Err(r
                    .corrupt(format_args!("a target of the unknown kind {kind}"))
                    .with_remedy("It was written by a newer version of Quire: upgrade this one."));
            }
        };
        r.checksum(object)?;
        r.finish()?;
        Ok(Marker { base, target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    fn markers() -> [Marker; 4] {
        let name = |text| VolumeName::parse(text).unwrap();
        let lsn = |n| Lsn::new(n).unwrap();
        let base = (name("team/app"), lsn(300), CommitHash::of(b"base"));
        [
            MarkerTarget::Commit(name("\u{e9}"), lsn(1)),
            MarkerTarget::Checkpoint(CheckpointPlace { lsn: lsn(300), generation: 7 }),
            MarkerTarget::Replica { id: u64::MAX, author: "ann@host".to_owned() },
            MarkerTarget::Reader { span_ms: 7_200_000, author: "ann@host".to_owned() },
        ]
        .map(|target| Marker { base: base.clone(), target })
    }

    #[test]
    fn a_marker_comes_back() {
        for marker in markers() {
            assert_eq!(Marker::decode(&marker.encode()).unwrap(), marker);
        }
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        for object in markers().map(|marker| marker.encode()) {
            for (at, flip) in (0..object.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
                let mut bytes = object.clone();
                bytes[at] ^= flip;
                assert_eq!(Marker::decode(&bytes).unwrap_err().kind(), ErrorKind::Corrupt);
                assert_eq!(Marker::decode(&object[..at]).unwrap_err().kind(), ErrorKind::Corrupt);
            }
        }
    }
}
