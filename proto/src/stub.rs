//! The stub: what is left of a commit whose pages history has collected. It
//! has the commit's place for ever, so that nobody who slept can take it, and
//! says who had won. Layout: `FORMAT.md`, "Stub".

use bytes::Bytes;

use crate::{CommitHeader, MAX_HEADER_BYTES, ObjectHash, Reader, Result, Writer};

const MAGIC: [u8; 4] = *b"QSTB";
const VERSION: u8 = 1;

/// What is left of a collected commit: all of it but its body.
#[derive(Clone, Debug)]
pub struct Stub {
    /// The commit's header. Its hash stays, so the chain of hashes does.
    pub header: CommitHeader,
    /// The header's exact bytes.
    pub front: Bytes,
    /// The hash of the whole object that was there.
    pub object_hash: ObjectHash,
    /// When the store got the commit, by its own clock, in milliseconds since 1970.
    pub stored_ms: u64,
}

impl Stub {
    /// No stub is longer, in bytes.
    pub const MAX_BYTES: usize = MAX_HEADER_BYTES + 64;

    /// The stub of the commit object that begins with `front`, its header.
    pub fn encode(front: &[u8], object_hash: ObjectHash, stored_ms: u64) -> Vec<u8> {
        let mut w = Writer::new();
        w.bytes(&MAGIC);
        w.u8(VERSION);
        w.bytes(object_hash.as_bytes());
        w.varint(stored_ms);
        w.block(front);
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        w.into_vec()
    }

    /// Whether an object is a stub, sound or not.
    pub fn is_one(object: &[u8]) -> bool {
        object.starts_with(&MAGIC)
    }

    /// Reads a stub.
    pub fn decode(object: &Bytes) -> Result<Stub> {
        let mut r = Reader::new("stub", object);
        r.magic(MAGIC, VERSION)?;
        let object_hash = ObjectHash::new(r.array()?);
        let stored_ms = r.varint()?;
        let front = object.slice_ref(r.block()?);
        r.checksum(object)?;
        let (header, len) = CommitHeader::decode(&front)?;
        if len != front.len() {
            return Err(r.corrupt(format_args!("{} bytes for a header of {len}", front.len())));
        }
        r.finish()?;
        Ok(Stub { header, front, object_hash, stored_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, CommitId, CommitKind, Lsn, PageSize, SealedCommit};

    fn commit() -> SealedCommit {
        let page_size = PageSize::try_new(512).unwrap();
        let header = CommitHeader::draft(Lsn::FIRST, CommitKind::Create, CommitId::new([3; 16]), page_size);
        SealedCommit::seal(header, Body::default()).unwrap()
    }

    #[test]
    fn a_stub_keeps_the_header_and_its_hash() {
        let commit = commit();
        let stub = Bytes::from(Stub::encode(commit.object(), commit.object_hash(), 77));
        assert!(Stub::is_one(&stub) && !Stub::is_one(commit.object()));
        let stub = Stub::decode(&stub).unwrap();
        assert_eq!((stub.header.hash(), stub.object_hash, stub.stored_ms), (commit.hash(), commit.object_hash(), 77));
        assert_eq!(&stub.front, commit.object());
    }

    #[test]
    fn every_flipped_byte_and_every_cut_is_noticed() {
        let object = Stub::encode(commit().object(), commit().object_hash(), 77);
        for at in 0..object.len() {
            let mut bytes = object.clone();
            bytes[at] ^= 0x41;
            Stub::decode(&bytes.into()).expect_err("a flipped byte");
            Stub::decode(&Bytes::copy_from_slice(&object[..at])).expect_err("a truncated stub");
        }
    }
}
