//! The parts of a checkpoint after its head, and the directory that finds and verifies them.

use std::ops::Range;

use crate::{Lsn, ObjectHash, PageCount, PageIdx, Reader, Result, SegmentId, SegmentRef, Writer};

/// A stretch of the object, and what its bytes must hash to: BLAKE3 cut to 128
/// bits, so that the directory of a large volume stays small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    offset: u64,
    len_bytes: u32,
    digest: [u8; Part::DIGEST_BYTES],
}

impl Part {
    const DIGEST_BYTES: usize = 16;

    /// The part that these bytes are, wherever it will be.
    pub(super) fn of(bytes: &[u8]) -> Part {
        let mut digest = [0; Part::DIGEST_BYTES];
        digest.copy_from_slice(&blake3::hash(bytes).as_bytes()[..Part::DIGEST_BYTES]);
        Part { offset: 0, len_bytes: bytes.len() as u32, digest }
    }

    pub(super) fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len_bytes)
    }

    /// Bytes that came from there, as what they are said to be.
    pub(super) fn reader<'a>(&self, what: &'static str, bytes: &'a [u8]) -> Result<Reader<'a>> {
        let r = Reader::new(what, bytes);
        let found = Part { offset: self.offset, ..Part::of(bytes) };
        if bytes.len() as u64 == u64::from(self.len_bytes) && found == *self {
            return Ok(r);
        }
        let (len, at) = (self.len_bytes, self.offset);
        Err(r.corrupt(format_args!("{} bytes, and not the {len} at {at} of which the head has the hash", bytes.len())))
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.len_bytes.into());
        w.bytes(&self.digest);
    }

    /// Reads of the part that begins at `at`, and moves `at` to its end.
    pub(super) fn decode(r: &mut Reader<'_>, at: &mut u64) -> Result<Part> {
        let part = Part { offset: *at, len_bytes: r.varint32()?, digest: r.array()? };
        *at = part.range().end;
        Ok(part)
    }
}

/// Where a leaf is, and what the head knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafRef {
    /// Its first page.
    pub first: PageIdx,
    /// Its last page.
    pub last: PageIdx,
    pub(super) part: Part,
    pub(super) lsn: Lsn,
    pub(super) has_origin: bool,
}

impl LeafRef {
    /// Where it is in the object, in bytes.
    pub fn range(&self) -> Range<u64> {
        self.part.range()
    }
}

/// The leaves of an object in page order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Directory {
    /// The first page of each. It ends where the next one begins.
    leaves: Vec<(PageIdx, Part)>,
    page_count: PageCount,
}

impl Directory {
    pub(super) fn len(&self) -> usize {
        self.leaves.len()
    }

    /// Adds a leaf of the next `pages` pages.
    pub(super) fn push(&mut self, pages: u32, part: Part) -> Option<()> {
        let first = PageIdx::new(self.page_count.get().checked_add(1)?)?;
        self.page_count = PageCount::new(self.page_count.get().checked_add(pages).filter(|_| pages > 0)?);
        self.leaves.push((first, part));
        Some(())
    }

    /// The first page, the last page and the place of leaf `n`.
    pub(super) fn get(&self, n: usize) -> Option<(PageIdx, PageIdx, Part)> {
        let (first, part) = self.leaves.get(n)?;
        let last = match self.leaves.get(n + 1) {
            Some((next, _)) => next.get() - 1,
            None => self.page_count.get(),
        };
        Some((*first, PageIdx::new(last)?, *part))
    }

    /// The leaf that holds `page`.
    pub(super) fn position(&self, page: PageIdx) -> Option<usize> {
        let n = self.leaves.partition_point(|(first, _)| *first <= page);
        n.checked_sub(1).filter(|_| self.page_count.contains(page))
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.leaves.len() as u64);
        for (first, last, part) in (0..self.len()).filter_map(|n| self.get(n)) {
            w.varint(u64::from(last.get() - first.get()) + 1);
            part.encode(w);
        }
    }

    /// Reads the directory of leaves that begin at `at`, and moves `at` to their end.
    pub(super) fn decode(r: &mut Reader<'_>, page_count: PageCount, at: &mut u64) -> Result<Directory> {
        let n = r.count(2 + Part::DIGEST_BYTES)?;
        let mut directory = Directory { leaves: Vec::with_capacity(n), page_count: PageCount::ZERO };
        for _ in 0..n {
            let pages = r.varint32()?;
            let part = Part::decode(r, at)?;
            directory.push(pages, part).ok_or_else(|| r.corrupt(format_args!("a leaf of {pages} pages")))?;
        }
        if directory.page_count != page_count {
            let found = directory.page_count;
            return Err(r.corrupt(format_args!("leaves of {found} pages where {page_count} belong")));
        }
        Ok(directory)
    }
}

/// The list of segments, ascending.
pub(super) fn encode_segments<'a>(segments: impl ExactSizeIterator<Item = &'a SegmentRef>) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(segments.len() as u64);
    for segment in segments {
        segment.id.encode(&mut w);
        w.varint(segment.len_bytes);
        w.bytes(segment.hash.as_bytes());
    }
    w.into_vec()
}

pub(super) fn decode_segments(mut r: Reader<'_>) -> Result<Vec<SegmentRef>> {
    let n = r.count(1 + 16 + 1 + ObjectHash::LEN)?;
    let mut segments: Vec<SegmentRef> = Vec::with_capacity(n);
    for _ in 0..n {
        let id = SegmentId::decode(&mut r)?;
        if segments.last().is_some_and(|before| before.id >= id) {
            return Err(r.corrupt(format_args!("segment {id} is out of order")));
        }
        segments.push(SegmentRef { id, len_bytes: r.varint()?, hash: ObjectHash::new(r.array()?) });
    }
    r.finish()?;
    Ok(segments)
}

/// Sets the digests in `head` right for what the object really holds behind it.
#[cfg(feature = "fuzz")]
pub(super) fn repair_digests(object: &mut [u8], head_bytes: usize, parts: impl Iterator<Item = Part>) {
    let mut from = 0;
    for part in parts {
        let range = part.range();
        let Some(bytes) = object.get(range.start as usize..range.end as usize) else { return };
        let digest = Part::of(bytes).digest;
        let stored = object[from..head_bytes].windows(digest.len()).position(|stored| stored == part.digest);
        let Some(at) = stored else { return };
        object[from + at..from + at + digest.len()].copy_from_slice(&digest);
        from += at + digest.len();
    }
}
