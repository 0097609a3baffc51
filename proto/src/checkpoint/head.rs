//! The head of a checkpoint: what it is of, where its leaves are, and the pages
//! that are needed first.

use std::ops::Range;

use super::boot::{self, Boot};
use super::directory::{self, Directory, LeafRef, Part};
use super::{CHECKPOINT_MAGIC, VERSION};
use crate::commit::{decode_attributes, encode_attributes};
use crate::{
    Attributes, CommitHash, CommitId, DecodedFrame, EncodedFrame, Error, Lsn, ObjectHash, PageCount, PageIdx, PageSize,
    Reader, Result, SegmentRef, VolumeName, Writer,
};

const PREFIX_BYTES: usize = 9;
const CRC_BYTES: usize = 4;
/// No head is longer. That of the largest volume there is, each page in a run of its own, has 21 MiB.
const MAX_HEAD_BYTES: usize = 32 * 1024 * 1024;

/// What a checkpoint says of its snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointInfo {
    /// The LSN of the snapshot.
    pub lsn: Lsn,
    /// Which checkpoint of this LSN it is: the highest counts.
    pub generation: u32,
    /// The hash of the commit that made the LSN.
    pub commit: CommitHash,
    /// A hash of what the checkpoint was made from.
    pub inputs: ObjectHash,
    /// The LSN that began the volume's incarnation.
    pub began: Lsn,
    /// The id of the commit that made it.
    pub incarnation: CommitId,
    /// The size of the snapshot's pages.
    pub page_size: PageSize,
    /// How many pages it has.
    pub page_count: PageCount,
    /// Facts about the volume, as its commit has them.
    pub attributes: Attributes,
    /// Where inherited pages are.
    pub origin: Option<Origin>,
}

/// The snapshot that a volume was forked from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its volume.
    pub volume: VolumeName,
    /// Its LSN there.
    pub lsn: Lsn,
    /// The hash of its commit.
    pub hash: CommitHash,
}

/// The head of a checkpoint, complete and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckpointHead {
    info: CheckpointInfo,
    hash: ObjectHash,
    len_bytes: usize,
    leaves: Directory,
    segments: Part,
    boot: Vec<Boot>,
}

impl CheckpointHead {
    /// How long the head is, from the first bytes of the object: if fewer than
    /// these were fetched, fetch this many, then [decode](Self::decode).
    pub fn len_of(front: &[u8]) -> Result<usize> {
        let mut r = Reader::new("checkpoint", front);
        r.magic(CHECKPOINT_MAGIC, VERSION)?;
        let fields = r.u32()?;
        match usize::try_from(fields).ok().and_then(|n| n.checked_add(PREFIX_BYTES + CRC_BYTES)) {
            Some(len) if len <= MAX_HEAD_BYTES => Ok(len),
            _ => Err(r.corrupt(format_args!("a head of {fields} bytes is too long"))),
        }
    }

    /// Reads the head at the front of a checkpoint.
    pub fn decode(front: &[u8]) -> Result<CheckpointHead> {
        let len = CheckpointHead::len_of(front)?;
        let mut whole = Reader::new("checkpoint head", front);
        let covered = whole.bytes(len - CRC_BYTES)?;
        whole.checksum(front)?;
        let mut r = Reader::new("checkpoint head", &covered[PREFIX_BYTES..]);
        let info = decode_info(&mut r)?;
        let mut at = len as u64;
        let leaves = Directory::decode(&mut r, info.page_count, &mut at)?;
        let segments = Part::decode(&mut r, &mut at)?;
        let boot = boot::decode(&mut r, info.page_size)?;
        r.finish()?;
        Ok(CheckpointHead { info, hash: ObjectHash::of(covered), len_bytes: len, leaves, segments, boot })
    }

    /// What the checkpoint is of.
    pub fn info(&self) -> &CheckpointInfo {
        &self.info
    }

    /// The identity of the checkpoint: BLAKE3 of the head, whose digests cover the rest.
    pub fn hash(&self) -> ObjectHash {
        self.hash
    }

    /// How long the head is, in bytes: the first leaf follows it.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// How long the whole object is, in bytes.
    pub fn object_bytes(&self) -> u64 {
        self.segments.range().end
    }

    /// The leaf that holds `page`; none past the snapshot's end.
    pub fn leaf_for(&self, page: PageIdx) -> Option<LeafRef> {
        self.leaf(self.leaves.position(page)?)
    }

    /// All leaves in page order.
    pub fn leaves(&self) -> impl Iterator<Item = LeafRef> + '_ {
        (0..self.leaves.len()).filter_map(|n| self.leaf(n))
    }

    fn leaf(&self, n: usize) -> Option<LeafRef> {
        let (first, last, part) = self.leaves.get(n)?;
        Some(LeafRef { first, last, part, lsn: self.info.lsn, has_origin: self.info.origin.is_some() })
    }

    /// The boot frames as they are stored.
    pub fn boot(&self) -> &[Boot] {
        &self.boot
    }

    /// The pages of the boot frames, decoded and checked: at most 1 MiB of
    /// them, with their content in this snapshot.
    pub fn boot_pages(&self) -> Result<Vec<DecodedFrame>> {
        let CheckpointInfo { lsn, page_size, page_count, .. } = &self.info;
        let decoded = self.boot.iter().enumerate().map(|(n, boot)| {
            let pages = boot.pages(*page_size, *page_count);
            pages.map_err(|e| e.context(format_args!("checkpoint of LSN {lsn}: boot frame {n}")))
        });
        decoded.collect()
    }

    /// Where the list of segments is in the object, in bytes.
    pub fn segments_range(&self) -> Range<u64> {
        self.segments.range()
    }

    /// Reads the list of all segments that the leaves name, ascending: for
    /// verification and collection, which outlive the commits that said so.
    pub fn decode_segments(&self, bytes: &[u8]) -> Result<Vec<SegmentRef>> {
        directory::decode_segments(self.segments.reader("checkpoint segments", bytes)?)
    }
}

/// The head of an object that goes on with these leaves, in order, and the list of segments.
pub(super) fn encode(
    info: &CheckpointInfo,
    leaves: &Directory,
    segments: &Part,
    boot: &[EncodedFrame],
) -> Result<Vec<u8>> {
    let mut w = Writer::new();
    encode_info(&mut w, info)?;
    leaves.encode(&mut w);
    segments.encode(&mut w);
    boot::encode(&mut w, boot);
    let fields = w.into_vec();
    if fields.len() > MAX_HEAD_BYTES - PREFIX_BYTES - CRC_BYTES {
        return Err(Error::invalid(format!("a checkpoint's head of {} bytes is too long", fields.len())));
    }
    let mut w = Writer::new();
    w.bytes(&CHECKPOINT_MAGIC);
    w.u8(VERSION);
    w.u32(fields.len() as u32);
    w.bytes(&fields);
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    Ok(w.into_vec())
}

fn encode_info(w: &mut Writer, info: &CheckpointInfo) -> Result<()> {
    w.varint(info.lsn.get());
    w.varint(info.generation.into());
    w.bytes(info.commit.as_bytes());
    w.bytes(info.inputs.as_bytes());
    w.varint(info.began.get());
    w.bytes(info.incarnation.as_bytes());
    w.u8(info.page_size.log2());
    w.varint(info.page_count.get().into());
    encode_attributes(w, &info.attributes)?;
    match &info.origin {
        None => w.u8(0),
        Some(origin) => {
            w.u8(1);
            w.block(origin.volume.as_str().as_bytes());
            w.varint(origin.lsn.get());
            w.bytes(origin.hash.as_bytes());
        }
    }
    Ok(())
}

fn decode_info(r: &mut Reader<'_>) -> Result<CheckpointInfo> {
    let lsn = r.lsn()?;
    let generation = r.varint32()?;
    let commit = CommitHash::new(r.array()?);
    let inputs = ObjectHash::new(r.array()?);
    let began = r.lsn()?;
    if began > lsn {
        return Err(r.corrupt(format_args!("LSN {lsn} of a volume that began at LSN {began}")));
    }
    let incarnation = CommitId::new(r.array()?);
    let page_size = PageSize::from_log2(r.u8()?)?;
    let page_count = PageCount::new(r.varint32()?);
    let attributes = decode_attributes(r)?;
    let origin = match r.u8()? {
        0 => None,
        1 => {
            let volume = r.volume_name()?;
            Some(Origin { volume, lsn: r.lsn()?, hash: CommitHash::new(r.array()?) })
        }
        flag => return Err(r.corrupt(format_args!("flag {flag} where 0 or 1 belongs"))),
    };
    Ok(CheckpointInfo {
        lsn,
        generation,
        commit,
        inputs,
        began,
        incarnation,
        page_size,
        page_count,
        attributes,
        origin,
    })
}

/// The object with its checksum and digests set right, as far as it can be read.
#[cfg(feature = "fuzz")]
pub(crate) fn repaired(object: &[u8]) -> Vec<u8> {
    let mut object = object.to_vec();
    repair_checksum(&mut object);
    if let Ok(head) = CheckpointHead::decode(&object) {
        let parts = head.leaves().map(|leaf| leaf.part).chain([head.segments]);
        directory::repair_digests(&mut object, head.len_bytes, parts);
        repair_checksum(&mut object);
    }
    object
}

#[cfg(feature = "fuzz")]
fn repair_checksum(object: &mut [u8]) {
    if let Ok(len) = CheckpointHead::len_of(object)
        && let Some((covered, crc)) = object.get_mut(..len).and_then(|head| head.split_last_chunk_mut::<CRC_BYTES>())
    {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
}
