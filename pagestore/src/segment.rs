//! The bytes of a segment: frames back to back between a short header and a
//! footer that lists them. Layout: `FORMAT.md`, "Segment". No I/O here.

use bytes::Bytes;
use quire_proto::{
    EncodedFrame, Error, Lsn, ObjectHash, PageIdx, Reader, Result, SegmentId, SegmentRef, VolumeName, Writer,
};
use ulid::Ulid;

/// The first bytes of every segment.
pub const SEGMENT_MAGIC: [u8; 4] = *b"QSEG";
/// A segment takes no further frame that would make it longer.
pub const MAX_SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// The last bytes of a segment, which say where its footer begins.
pub const TRAILER_BYTES: u64 = 12;

const VERSION: u8 = 1;
const END_MAGIC: [u8; 4] = *b"GESQ";
const HEADER_BYTES: usize = 5;
/// The most that a frame adds to the footer: three varints of 32 bits.
const ENTRY_BYTES: u64 = 15;
/// The most that the rest of the footer takes: a name, an LSN, a ULID, a count.
const FOOTER_BYTES: u64 = 1024;

/// A frame of a segment: first page, pages, offset, bytes.
pub(crate) type Entry = (PageIdx, u32, u64, u32);

/// Keeps the account of a segment while its bytes go by.
#[cfg_attr(feature = "bench", derive(Clone))]
pub(crate) struct SegmentBuilder {
    volume: VolumeName,
    id: SegmentId,
    frames: Vec<Entry>,
    len_bytes: u64,
    hasher: blake3::Hasher,
}

impl SegmentBuilder {
    /// Begins a segment; the bytes come first in the object.
    pub(crate) fn new(volume: &VolumeName, id: SegmentId) -> (SegmentBuilder, Bytes) {
        let mut builder = SegmentBuilder {
            volume: volume.clone(),
            id,
            frames: Vec::new(),
            len_bytes: 0,
            hasher: blake3::Hasher::new(),
        };
        let header = Bytes::copy_from_slice(&header());
        builder.count(&header);
        (builder, header)
    }

    /// Whether the frame fits. An empty segment takes any.
    pub(crate) fn has_room(&self, frame: &EncodedFrame) -> bool {
        let footer = FOOTER_BYTES + (self.frames.len() as u64 + 1) * ENTRY_BYTES + TRAILER_BYTES;
        self.frames.is_empty() || self.len_bytes + frame.bytes.len() as u64 + footer <= MAX_SEGMENT_BYTES
    }

    /// Notes a frame whose bytes come next in the object.
    pub(crate) fn push(&mut self, frame: &EncodedFrame) {
        self.frames.push((frame.first, frame.page_count, self.len_bytes, frame.bytes.len() as u32));
        self.count(&frame.bytes);
    }

    /// The last bytes of the object, and what an index says of it.
    pub(crate) fn finish(mut self) -> (Bytes, SegmentRef, Vec<Entry>) {
        let mut w = Writer::new();
        w.block(self.volume.as_str().as_bytes());
        w.varint(self.id.target.get());
        w.bytes(&self.id.ulid.to_bytes());
        w.varint(self.frames.len() as u64);
        let mut next = 1;
        for &(first, page_count, _, len_bytes) in &self.frames {
            w.varint(u64::from(first.get()) - next);
            w.varint(u64::from(page_count));
            w.varint(u64::from(len_bytes));
            next = u64::from(first.get()) + 1;
        }
        let footer_bytes = w.len() as u32;
        w.u32(footer_bytes);
        let crc = footer_crc(w.as_slice());
        w.u32(crc);
        w.bytes(&END_MAGIC);
        let footer = Bytes::from(w.into_vec());
        self.count(&footer);
        let hash = ObjectHash::new(*self.hasher.finalize().as_bytes());
        let segment = SegmentRef { id: self.id, len_bytes: self.len_bytes, hash };
        (footer, segment, self.frames)
    }

    fn count(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.len_bytes += bytes.len() as u64;
    }
}

fn header() -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = SEGMENT_MAGIC;
    [a, b, c, d, VERSION]
}

/// The checksum covers the header too, which a reader of the footer may not have seen.
pub(crate) fn footer_crc(footer_and_length: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header());
    crc.update(footer_and_length);
    crc.finalize()
}

/// What a segment says of itself, so that it can be read without the commit
/// that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentTable {
    /// The volume that it was written for.
    pub volume: VolumeName,
    /// The LSN for which it was written.
    pub target: Lsn,
    /// With it, its name.
    pub ulid: Ulid,
    /// Its frames in page order: first page, pages, offset in bytes, length in bytes.
    pub frames: Vec<(PageIdx, u32, u64, u32)>,
}

impl SegmentTable {
    /// How long the footer is, in bytes, from the [`TRAILER_BYTES`] at the end
    /// of the object: read this many before them to [decode](Self::decode) it.
    pub fn footer_bytes(trailer: &[u8]) -> Result<u64> {
        let mut r = Reader::new("segment trailer", trailer);
        let (len, _crc) = (r.u32()?, r.u32()?);
        if r.array()? != END_MAGIC {
            return Err(r.corrupt("it does not end with a segment's magic bytes"));
        }
        r.finish()?;
        Ok(u64::from(len))
    }

    /// Reads the table from the end of a segment: the whole object, or just
    /// its footer and trailer.
    pub fn decode(end: &[u8], object_bytes: u64) -> Result<SegmentTable> {
        let r = Reader::new("segment footer", end);
        let too_short = || r.corrupt(format_args!("{} bytes are too few", end.len()));
        let trailer_at = end.len().checked_sub(TRAILER_BYTES as usize).ok_or_else(too_short)?;
        let footer_bytes = SegmentTable::footer_bytes(&end[trailer_at..])?;
        let footer_at = usize::try_from(footer_bytes).ok().and_then(|n| trailer_at.checked_sub(n));
        let footer_at = footer_at.ok_or_else(too_short)?;
        let crc_at = trailer_at + 4;
        let said = Reader::new("segment footer", &end[crc_at..]).u32()?;
        let found = footer_crc(&end[footer_at..crc_at]);
        if said != found {
            return Err(r.corrupt(format_args!("checksum {found:08x} where {said:08x} belongs")));
        }
        let frames_end = object_bytes.checked_sub(footer_bytes + TRAILER_BYTES).ok_or_else(too_short)?;
        decode_footer(&end[footer_at..trailer_at], frames_end)
    }

    /// Checks the first bytes of a segment.
    pub fn check_header(object: &[u8]) -> Result<()> {
        Reader::new("segment", object).magic(SEGMENT_MAGIC, VERSION)
    }
}

fn decode_footer(footer: &[u8], frames_end: u64) -> Result<SegmentTable> {
    let mut r = Reader::new("segment footer", footer);
    let volume =
        VolumeName::parse(r.text()?).map_err(|e| Error::corrupt("segment footer: a bad volume name").with_source(e))?;
    let target = Lsn::new(r.varint()?).ok_or_else(|| r.corrupt("LSN 0"))?;
    let ulid = Ulid::from_bytes(r.array()?);
    let n = r.count(3)?;
    let mut frames = Vec::with_capacity(n);
    let mut next: u64 = 1;
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..n {
        let first = next.checked_add(r.varint()?).and_then(|n| u32::try_from(n).ok()).and_then(PageIdx::new);
        let first = first.ok_or_else(|| r.corrupt("a frame begins past the last page number"))?;
        let (page_count, len_bytes) = (r.varint32()?, r.varint32()?);
        frames.push((first, page_count, offset, len_bytes));
        next = u64::from(first.get()) + 1;
        offset = offset.saturating_add(u64::from(len_bytes));
    }
    if offset != frames_end {
        return Err(r.corrupt(format_args!("its frames end at {offset}, and the footer begins at {frames_end}")));
    }
    r.finish()?;
    Ok(SegmentTable { volume, target, ulid, frames })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u32, page_count: u32, bytes: Vec<u8>) -> EncodedFrame {
        EncodedFrame { first: PageIdx::new(first).unwrap(), page_count, bytes: bytes.into() }
    }

    fn id() -> SegmentId {
        SegmentId { target: Lsn::new(7).unwrap(), generation: 0, ulid: Ulid::from_bytes([9; 16]) }
    }

    fn segment(frames: &[EncodedFrame]) -> (Vec<u8>, SegmentRef, Vec<Entry>) {
        let (mut builder, header) = SegmentBuilder::new(&VolumeName::parse("team/app.db").unwrap(), id());
        let mut object = header.to_vec();
        for frame in frames {
            builder.push(frame);
            object.extend_from_slice(&frame.bytes);
        }
        let (footer, segment, entries) = builder.finish();
        object.extend_from_slice(&footer);
        (object, segment, entries)
    }

    proptest! {
        #[test]
        fn a_segment_is_readable_on_its_own(
            pages in proptest::collection::btree_map(1u32.., (1u32..99, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
        ) {
            let frames: Vec<_> = pages.into_iter().map(|(first, (n, bytes))| frame(first, n, bytes)).collect();
            let (object, segment, entries) = segment(&frames);
            prop_assert_eq!(segment.len_bytes, object.len() as u64);
            prop_assert_eq!(segment.hash, ObjectHash::of(&object));
            SegmentTable::check_header(&object).unwrap();
            let table = SegmentTable::decode(&object, object.len() as u64).unwrap();
            prop_assert_eq!(&table.frames, &entries);
            prop_assert_eq!((table.target, table.ulid), (id().target, id().ulid));
            let trailer_at = object.len() - TRAILER_BYTES as usize;
            let footer = SegmentTable::footer_bytes(&object[trailer_at..]).unwrap() as usize;
            let end = &object[trailer_at - footer..];
            prop_assert_eq!(SegmentTable::decode(end, object.len() as u64).unwrap(), table);
            for ((_, _, offset, len), frame) in entries.into_iter().zip(&frames) {
                prop_assert_eq!(&object[offset as usize..][..len as usize], &frame.bytes[..]);
            }
        }

        #[test]
        fn any_bytes_are_a_table_or_an_error(footer: Vec<u8>, object_bytes: u64) {
            let mut w = Writer::new();
            w.bytes(&footer);
            w.u32(footer.len() as u32);
            let crc = footer_crc(w.as_slice());
            w.u32(crc);
            w.bytes(&END_MAGIC);
            let _ = SegmentTable::decode(w.as_slice(), object_bytes);
            let _ = SegmentTable::decode(&footer, object_bytes);
        }
    }

    #[test]
    fn every_flipped_byte_of_a_footer_is_noticed() {
        let (object, _, _) = segment(&[frame(1, 2, vec![1; 10]), frame(3, 1, vec![2; 20])]);
        let footer_at = HEADER_BYTES + 30;
        for at in footer_at..object.len() {
            let mut bytes = object.clone();
            bytes[at] ^= 0x21;
            SegmentTable::decode(&bytes, bytes.len() as u64).expect_err("a flipped byte");
            SegmentTable::decode(&object[..at], at as u64).expect_err("a truncated segment");
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let (mut object, _, _) = segment(&[]);
        object[4] = 2;
        let error = SegmentTable::check_header(&object).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        assert!(error.remedy().unwrap().contains("upgrade"));
    }

    #[test]
    fn a_full_segment_takes_no_further_frame_and_an_empty_one_takes_any() {
        let (mut builder, _) = SegmentBuilder::new(&VolumeName::parse("v").unwrap(), id());
        let large = frame(1, 1, vec![0; MAX_SEGMENT_BYTES as usize]);
        assert!(builder.has_room(&large));
        let half = frame(1, 1, vec![0; MAX_SEGMENT_BYTES as usize / 2]);
        builder.push(&half);
        assert!(!builder.has_room(&half));
        assert!(builder.has_room(&frame(2, 1, vec![0; 1000])));
    }
}
