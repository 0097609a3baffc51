//! Identities: commits, hashes, segments.

use std::fmt;

use ulid::Ulid;

use crate::{CheckpointPlace, Error, Lsn, Reader, Result, Writer};

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// How many bytes it has.
            pub const LEN: usize = $len;
            /// All bytes zero: stands for "none" where the format says so.
            pub const ZERO: $name = $name([0; $len]);

            /// From its bytes.
            pub const fn new(bytes: [u8; $len]) -> Self {
                $name(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

byte_id!(
    /// The random 128-bit name of one attempt to commit. Two attempts never
    /// share one, even with the same content.
    CommitId,
    16
);
byte_id!(
    /// BLAKE3 of a commit's header: the link of the hash chain.
    CommitHash,
    32
);
byte_id!(
    /// BLAKE3 of a whole stored object.
    ObjectHash,
    32
);
byte_id!(
    /// The chained digest of a replica's local commits (BLAKE3 cut to 128
    /// bits): by it a replica knows its own work again in the store.
    LocalTip,
    16
);

impl CommitId {
    /// A fresh id from the operating system's random source.
    pub fn random() -> Result<CommitId> {
        random_bytes().map(CommitId)
    }
}

impl CommitHash {
    /// The hash of a header's bytes.
    pub fn of(bytes: &[u8]) -> CommitHash {
        CommitHash(*blake3::hash(bytes).as_bytes())
    }
}

impl ObjectHash {
    /// The hash of an object's bytes.
    pub fn of(bytes: &[u8]) -> ObjectHash {
        ObjectHash(*blake3::hash(bytes).as_bytes())
    }
}

impl LocalTip {
    /// The tip after a commit that `parts` describe, on top of `self`.
    #[must_use]
    pub fn extend(&self, parts: &[&[u8]]) -> LocalTip {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        for part in parts {
            hasher.update(part);
        }
        let mut tip = [0; 16];
        tip.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        LocalTip(tip)
    }
}

/// The name of a segment: what it was written for, and a random ULID. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The LSN that the push wanted to make, or that of the compacted snapshot.
    pub target: Lsn,
    /// 0 for a push; else the generation of the checkpoint for which a compaction wrote it.
    pub generation: u32,
    /// Unique within everything.
    pub ulid: Ulid,
}

impl SegmentId {
    /// A fresh name for a push that aims at `target`.
    ///
    /// The ULID carries no clock: its 128 bits are all random, so that no
    /// order can be read into names.
    pub fn random(target: Lsn) -> Result<SegmentId> {
        Ok(SegmentId { target, generation: 0, ulid: Ulid::from_bytes(random_bytes()?) })
    }

    /// A fresh name for a compaction that wants to write this checkpoint.
    pub fn compacted(place: CheckpointPlace) -> Result<SegmentId> {
        Ok(SegmentId { generation: place.generation, ..SegmentId::random(place.lsn)? })
    }

    /// As a commit names it: by a push.
    pub(crate) fn encode_pushed(&self, w: &mut Writer) {
        w.varint(self.target.get());
        w.bytes(&self.ulid.to_bytes());
    }

    pub(crate) fn decode_pushed(r: &mut Reader<'_>) -> Result<SegmentId> {
        let target = Lsn::new(r.varint()?).ok_or_else(|| r.corrupt("a segment for LSN 0"))?;
        Ok(SegmentId { target, generation: 0, ulid: Ulid::from_bytes(r.array()?) })
    }

    /// As a checkpoint names it.
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.varint(self.target.get());
        w.varint(u64::from(self.generation));
        w.bytes(&self.ulid.to_bytes());
    }

    pub(crate) fn decode(r: &mut Reader<'_>) -> Result<SegmentId> {
        let target = Lsn::new(r.varint()?).ok_or_else(|| r.corrupt("a segment for LSN 0"))?;
        Ok(SegmentId { target, generation: r.varint32()?, ulid: Ulid::from_bytes(r.array()?) })
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}/{}", self.target, self.ulid),
            generation => write!(f, "{}.{generation}/{}", self.target, self.ulid),
        }
    }
}

fn random_bytes() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|e| Error::unavailable("the operating system gave no random bytes").with_source(e.to_string()))?;
    Ok(bytes)
}
