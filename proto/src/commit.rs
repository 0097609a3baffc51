//! The commit: one atomic change of a volume, as an immutable object. Its
//! header links it to the commit before (hash chain) and to its base, and says
//! which pages it changed; its body says where the pages lie, or carries them.
//! Layout: `FORMAT.md`, "Commit".

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::segment::inline_frame;
use crate::{
    CommitHash, CommitId, Error, FrameIndex, FramePlace, FrameRef, LocalTip, Lsn, ObjectHash, PageCount, PageSet,
    PageSize, Reader, Result, VolumeName, Writer,
};

/// The first bytes of every commit object.
pub const COMMIT_MAGIC: [u8; 4] = *b"QCMT";
/// A header, prefix and checksum included, is never longer: one read of this
/// many bytes holds the header of any commit.
pub const MAX_HEADER_BYTES: usize = 12 * 1024;
/// Up to this many bytes of frames travel inside the commit object, so that a
/// small push is one PUT.
pub const INLINE_LIMIT_BYTES: usize = 64 * 1024;

const VERSION: u8 = 1;
/// Page sets longer than this go to the body.
const MAX_HEADER_SET_BYTES: usize = 4 * 1024;
const MAX_ATTRIBUTE_BYTES: usize = 1024;
const MAX_AUTHOR_BYTES: usize = 128;
const PREFIX_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// What a commit does to its volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitKind {
    /// Begins an incarnation of the volume from nothing.
    Create,
    /// Changes pages.
    Write,
    /// Changes nothing: it settles an outcome or closes a marker.
    Void,
    /// Ends the incarnation.
    Deleted,
    /// Ends the incarnation; it goes on under another name.
    Moved,
    /// Begins an incarnation from a snapshot of another volume.
    Fork,
    /// Makes an older snapshot of the volume its content again.
    Restore,
}

impl CommitKind {
    const ALL: [CommitKind; 7] = {
        use CommitKind::*;
        [Create, Write, Void, Deleted, Moved, Fork, Restore]
    };

    /// The kind's name as users see it.
    pub fn as_str(self) -> &'static str {
        match self {
            CommitKind::Create => "create",
            CommitKind::Write => "write",
            CommitKind::Void => "void",
            CommitKind::Deleted => "deleted",
            CommitKind::Moved => "moved",
            CommitKind::Fork => "fork",
            CommitKind::Restore => "restore",
        }
    }

    /// Whether a volume's incarnation begins here: nothing before it is read.
    pub fn begins(self) -> bool {
        matches!(self, CommitKind::Create | CommitKind::Fork)
    }

    /// Whether the volume's incarnation ended here.
    pub fn ends(self) -> bool {
        matches!(self, CommitKind::Deleted | CommitKind::Moved)
    }
}

/// Where the pages come from that a commit does not own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// Nowhere: they are zeros.
    Nothing,
    /// The commit before.
    Previous,
    /// An older snapshot of the same volume.
    Older {
        /// Its LSN.
        lsn: Lsn,
        /// The hash of its commit.
        hash: CommitHash,
    },
    /// A snapshot of another volume.
    Other {
        /// That volume.
        volume: VolumeName,
        /// Its LSN there.
        lsn: Lsn,
        /// The hash of its commit.
        hash: CommitHash,
    },
}

/// A fork that a rename reserved: it counts only if the commit after its base
/// has this id, and is void otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The id of the `moved` commit at (base volume, base LSN + 1).
    pub moved_id: CommitId,
    /// That commit's exact bytes, so that anyone can finish the rename.
    pub moved_object: Bytes,
}

/// Small facts about a volume that travel with each commit, for example
/// `content=sqlite` or `length=12345` of a file that does not fill its last page.
pub type Attributes = BTreeMap<String, String>;

/// The pages that a commit touches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PageSets {
    /// Pages whose content differs from the LSN before: for followers.
    pub changed: PageSet,
    /// Pages whose content the commit itself holds, if they are not exactly
    /// the changed ones: for reads.
    pub owned: Option<PageSet>,
}

impl PageSets {
    /// Sets for a commit that owns just what it changed.
    pub fn same(pages: PageSet) -> PageSets {
        PageSets { changed: pages, owned: None }
    }

    /// Pages whose content the commit holds.
    pub fn owned(&self) -> &PageSet {
        self.owned.as_ref().unwrap_or(&self.changed)
    }

    fn encode(&self, w: &mut Writer) {
        self.changed.encode(w);
        w.u8(u8::from(self.owned.is_some()));
        if let Some(owned) = &self.owned {
            owned.encode(w);
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<PageSets> {
        let changed = PageSet::decode(r)?;
        let owned = match r.u8()? {
            0 => None,
            1 => Some(PageSet::decode(r)?),
            n => return Err(r.corrupt(format_args!("flag {n} where 0 or 1 belongs"))),
        };
        Ok(PageSets { changed, owned })
    }
}

/// What a commit says of itself, without its pages.
#[derive(Clone, Debug, PartialEq)]
pub struct CommitHeader {
    /// The LSN that it makes.
    pub lsn: Lsn,
    /// What it does.
    pub kind: CommitKind,
    /// The hash of the commit before; none for LSN 1.
    pub parent: Option<CommitHash>,
    /// Where its other pages come from.
    pub base: Base,
    /// The name of this attempt.
    pub id: CommitId,
    /// Who made it: a replica's name, informative.
    pub author: String,
    /// When, by the author's clock, in milliseconds since 1970 UTC: informative.
    pub time_ms: u64,
    /// The size of all pages of the snapshot.
    pub page_size: PageSize,
    /// How many pages the snapshot has.
    pub page_count: PageCount,
    /// The smallest page count since the base: pages past it that the commit
    /// does not own are zeros.
    pub min_count: PageCount,
    /// The last local commit that was rolled up into this one, or zero.
    pub local_tip: LocalTip,
    /// Where the volume went, for [`CommitKind::Moved`].
    pub moved_to: Option<VolumeName>,
    /// For the fork of a rename.
    pub condition: Option<Condition>,
    /// Facts about the volume.
    pub attributes: Attributes,
    /// The length of its segments, in bytes.
    pub segment_bytes: u64,
    /// The pages it touches, unless they are so scattered that only the body says.
    pub sets: Option<PageSets>,
    body: BodyLengths,
    hash: CommitHash,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct BodyLengths {
    sets: usize,
    index: usize,
    inline: usize,
    digest: Option<ObjectHash>,
}

impl BodyLengths {
    fn total(&self) -> Option<usize> {
        self.sets.checked_add(self.index)?.checked_add(self.inline)
    }
}

/// The body of a commit: where its pages lie.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Body {
    /// The pages that the commit touches.
    pub sets: PageSets,
    /// The frames that hold the owned ones.
    pub index: FrameIndex,
    /// The bytes of the inline frames, one after the other.
    pub inline: Bytes,
}

impl CommitHeader {
    /// A header to fill in and [seal](SealedCommit::seal). Its fields say: an
    /// ordinary commit on the one before, without pages.
    pub fn draft(lsn: Lsn, kind: CommitKind, id: CommitId, page_size: PageSize) -> CommitHeader {
        CommitHeader {
            lsn,
            kind,
            parent: None,
            base: if from_nothing(lsn, kind) { Base::Nothing } else { Base::Previous },
            id,
            author: String::new(),
            time_ms: 0,
            page_size,
            page_count: PageCount::ZERO,
            min_count: PageCount::ZERO,
            local_tip: LocalTip::ZERO,
            moved_to: None,
            condition: None,
            attributes: Attributes::new(),
            segment_bytes: 0,
            sets: None,
            body: BodyLengths::default(),
            hash: CommitHash::ZERO,
        }
    }

    /// The commit's hash: what the next commit names as its parent.
    pub fn hash(&self) -> CommitHash {
        self.hash
    }

    /// Whether the pages that it does not own are those of this commit of `volume`.
    pub fn goes_on_from(&self, volume: &VolumeName, commit: (Lsn, CommitHash)) -> bool {
        match &self.base {
            Base::Nothing => false,
            Base::Previous => self.parent == Some(commit.1),
            Base::Older { lsn, hash } => (*lsn, *hash) == commit,
            Base::Other { volume: other, lsn, hash } => other == volume && (*lsn, *hash) == commit,
        }
    }

    /// The length of its body, in bytes.
    pub fn body_bytes(&self) -> u64 {
        self.body.total().unwrap_or(usize::MAX) as u64
    }

    /// The length of its inline frames, in bytes.
    pub fn inline_bytes(&self) -> u64 {
        self.body.inline as u64
    }

    /// The front of the commit object: the header with its checksum.
    pub fn encode(&self) -> Result<Bytes> {
        match encode_header(self)? {
            (w, hash) if hash == self.hash => Ok(Bytes::from(w.into_vec())),
            _ => Err(Error::invalid(format!("the header of LSN {} was changed after it was sealed", self.lsn))),
        }
    }

    /// Reads the header at the front of a commit object, of which at least
    /// [`MAX_HEADER_BYTES`] or the whole are given. Returns its length, checksum included, too.
    pub fn decode(object: &[u8]) -> Result<(CommitHeader, usize)> {
        let mut r = Reader::new("commit", object);
        r.magic(COMMIT_MAGIC, VERSION)?;
        let kind = r.u8()?;
        let kind =
            *CommitKind::ALL.get(usize::from(kind)).ok_or_else(|| r.corrupt(format_args!("unknown kind {kind}")))?;
        let len = usize::from(u16::from_le_bytes(r.array()?));
        let end = PREFIX_BYTES + len;
        if end + CRC_BYTES > MAX_HEADER_BYTES {
            return Err(r.corrupt(format_args!("a header of {len} bytes is too long")));
        }
        let fields = r.bytes(len)?;
        r.checksum(object)?;
        let header = decode_fields(kind, fields, CommitHash::of(&object[..end]))?;
        Ok((header, end + CRC_BYTES))
    }
}

/// Whether such a commit has no base: a creation, or a void that has none before it.
fn from_nothing(lsn: Lsn, kind: CommitKind) -> bool {
    kind == CommitKind::Create || (kind == CommitKind::Void && lsn == Lsn::FIRST)
}

/// The front of a commit object, and the hash of the commit.
fn encode_header(header: &CommitHeader) -> Result<(Writer, CommitHash)> {
    let fields = encode_fields(header)?;
    if PREFIX_BYTES + fields.len() + CRC_BYTES > MAX_HEADER_BYTES {
        return Err(Error::invalid(format!("a commit header of {} bytes is too long", fields.len())));
    }
    let mut w = Writer::new();
    w.bytes(&COMMIT_MAGIC);
    w.u8(VERSION);
    w.u8(header.kind as u8);
    w.bytes(&(fields.len() as u16).to_le_bytes());
    w.bytes(&fields);
    let hash = CommitHash::of(w.as_slice());
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    Ok((w, hash))
}

fn encode_fields(h: &CommitHeader) -> Result<Vec<u8>> {
    if let Some(problem) = contradiction(h) {
        return Err(Error::invalid(format!("a commit that cannot be: {problem}")));
    }
    let mut w = Writer::new();
    w.varint(h.lsn.get());
    match (h.lsn, &h.parent) {
        (Lsn::FIRST, None) => {}
        (lsn, Some(parent)) if lsn > Lsn::FIRST => w.bytes(parent.as_bytes()),
        _ => return Err(Error::invalid("every commit but the first names its parent")),
    }
    match &h.base {
        Base::Nothing => w.u8(0),
        Base::Previous => w.u8(1),
        Base::Older { lsn, hash } => {
            w.u8(2);
            w.varint(lsn.get());
            w.bytes(hash.as_bytes());
        }
        Base::Other { volume, lsn, hash } => {
            w.u8(3);
            w.block(volume.as_str().as_bytes());
            w.varint(lsn.get());
            w.bytes(hash.as_bytes());
        }
    }
    w.bytes(h.id.as_bytes());
    if h.author.len() > MAX_AUTHOR_BYTES {
        return Err(Error::invalid(format!("the author {:?} is longer than {MAX_AUTHOR_BYTES} bytes", h.author)));
    }
    w.block(h.author.as_bytes());
    w.varint(h.time_ms);
    w.u8(h.page_size.log2());
    w.varint(h.page_count.get().into());
    w.varint(h.min_count.get().into());
    w.bytes(h.local_tip.as_bytes());
    w.block(h.moved_to.as_ref().map_or("", VolumeName::as_str).as_bytes());
    match &h.condition {
        None => w.u8(0),
        Some(condition) => {
            w.u8(1);
            w.bytes(condition.moved_id.as_bytes());
            w.block(&condition.moved_object);
        }
    }
    encode_attributes(&mut w, &h.attributes)?;
    w.varint(h.segment_bytes);
    w.varint(h.body.sets as u64);
    if let Some(sets) = &h.sets {
        sets.encode(&mut w);
    }
    w.varint(h.body.index as u64);
    w.varint(h.body.inline as u64);
    if let Some(digest) = &h.body.digest {
        w.bytes(digest.as_bytes());
    }
    Ok(w.into_vec())
}

fn decode_fields(kind: CommitKind, fields: &[u8], hash: CommitHash) -> Result<CommitHeader> {
    let mut r = Reader::new("commit header", fields);
    let lsn = r.lsn()?;
    let parent = if lsn > Lsn::FIRST { Some(CommitHash::new(r.array()?)) } else { None };
    let base = match r.u8()? {
        0 => Base::Nothing,
        1 => Base::Previous,
        2 => Base::Older { lsn: r.lsn()?, hash: CommitHash::new(r.array()?) },
        3 => Base::Other { volume: r.volume_name()?, lsn: r.lsn()?, hash: CommitHash::new(r.array()?) },
        tag => return Err(r.corrupt(format_args!("unknown base {tag}"))),
    };
    let id = CommitId::new(r.array()?);
    let author = r.text()?.to_owned();
    let time_ms = r.varint()?;
    let page_size = PageSize::from_log2(r.u8()?)?;
    let page_count = PageCount::new(r.varint32()?);
    let min_count = PageCount::new(r.varint32()?);
    let local_tip = LocalTip::new(r.array()?);
    let moved_to = match r.text()? {
        "" => None,
        name => Some(decode_name(name)?),
    };
    let condition = match r.u8()? {
        0 => None,
        1 => {
            let moved_id = CommitId::new(r.array()?);
            Some(Condition { moved_id, moved_object: Bytes::copy_from_slice(r.block()?) })
        }
        flag => return Err(r.corrupt(format_args!("unknown condition {flag}"))),
    };
    let attributes = decode_attributes(&mut r)?;
    let segment_bytes = r.varint()?;
    let length = |r: &mut Reader<'_>| -> Result<usize> {
        let n = r.varint()?;
        usize::try_from(n).map_err(|_| r.corrupt("a length that no memory holds"))
    };
    let mut body = BodyLengths { sets: length(&mut r)?, ..BodyLengths::default() };
    let sets = if body.sets == 0 { Some(PageSets::decode(&mut r)?) } else { None };
    body.index = length(&mut r)?;
    body.inline = length(&mut r)?;
    match body.total() {
        None => return Err(r.corrupt("a body that no memory holds")),
        Some(0) => {}
        Some(_) => body.digest = Some(ObjectHash::new(r.array()?)),
    }
    r.finish()?;
    let header = CommitHeader {
        lsn,
        kind,
        parent,
        base,
        id,
        author,
        time_ms,
        page_size,
        page_count,
        min_count,
        local_tip,
        moved_to,
        condition,
        attributes,
        segment_bytes,
        sets,
        body,
        hash,
    };
    match contradiction(&header) {
        None => Ok(header),
        Some(problem) => Err(Error::corrupt(format!("commit header: {problem}"))),
    }
}

pub(crate) fn encode_attributes(w: &mut Writer, attributes: &Attributes) -> Result<()> {
    let at = w.len();
    w.varint(attributes.len() as u64);
    for (key, value) in attributes {
        w.block(key.as_bytes());
        w.block(value.as_bytes());
    }
    if w.len() - at > MAX_ATTRIBUTE_BYTES {
        return Err(Error::invalid(format!("the attributes of a volume exceed {MAX_ATTRIBUTE_BYTES} bytes")));
    }
    Ok(())
}

pub(crate) fn decode_attributes(r: &mut Reader<'_>) -> Result<Attributes> {
    let mut attributes = Attributes::new();
    for _ in 0..r.count(2)? {
        let key = r.text()?.to_owned();
        attributes.insert(key, r.text()?.to_owned());
    }
    Ok(attributes)
}

/// What no commit may say, of what this one says.
fn contradiction(h: &CommitHeader) -> Option<&'static str> {
    let kind = h.kind;
    let checks = [
        (h.min_count <= h.page_count, "its smallest page count exceeds its page count"),
        ((kind == CommitKind::Moved) == h.moved_to.is_some(), "a new name belongs to `moved` and only there"),
        (kind == CommitKind::Fork || h.condition.is_none(), "only a fork has a condition"),
        (from_nothing(h.lsn, kind) == (h.base == Base::Nothing), "creations and only they have no base"),
        ((kind == CommitKind::Fork) == matches!(h.base, Base::Other { .. }), "forks and only they come from elsewhere"),
        ((kind == CommitKind::Restore) == matches!(h.base, Base::Older { .. }), "restores and only they go back"),
        (!matches!(h.base, Base::Older { lsn, .. } if lsn >= h.lsn), "a restore goes back, to an older snapshot"),
        (h.lsn > Lsn::FIRST || h.base != Base::Previous, "the first commit has none before it"),
    ];
    checks.iter().find(|(ok, _)| !ok).map(|(_, problem)| *problem)
}

fn decode_name(text: &str) -> Result<VolumeName> {
    VolumeName::parse(text).map_err(|e| Error::corrupt("commit header: a bad volume name").with_source(e))
}

/// A whole commit with the exact bytes that are stored: what is appended,
/// retried and compared.
#[derive(Clone, Debug)]
pub struct SealedCommit {
    header: CommitHeader,
    body: Body,
    object: Bytes,
    object_hash: ObjectHash,
}

impl SealedCommit {
    /// Encodes a commit. `header` says everything but the lengths and hashes,
    /// which are set here; its page sets come from `body`.
    pub fn seal(mut header: CommitHeader, body: Body) -> Result<SealedCommit> {
        let mut sets = Writer::new();
        body.sets.encode(&mut sets);
        let mut bytes = Writer::new();
        header.body = BodyLengths::default();
        if sets.len() > MAX_HEADER_SET_BYTES {
            header.sets = None;
            header.body.sets = sets.len();
            bytes.bytes(sets.as_slice());
        } else {
            header.sets = Some(body.sets.clone());
        }
        if !body.index.frames().is_empty() {
            let at = bytes.len();
            body.index.encode(&mut bytes);
            header.body.index = bytes.len() - at;
        }
        header.segment_bytes = body.index.segment_bytes();
        header.body.inline = body.inline.len();
        bytes.bytes(&body.inline);
        if !bytes.is_empty() {
            header.body.digest = Some(ObjectHash::of(bytes.as_slice()));
        }

        let (mut w, hash) = encode_header(&header)?;
        header.hash = hash;
        w.bytes(bytes.as_slice());
        let object = Bytes::from(w.into_vec());
        let object_hash = ObjectHash::of(&object);
        Ok(SealedCommit { header, body, object, object_hash })
    }

    /// Reads and checks a whole commit object.
    pub fn decode(object: Bytes) -> Result<SealedCommit> {
        let (header, body_at) = CommitHeader::decode(&object)?;
        let whole = Reader::new("commit body", &object[body_at..]);
        let lengths = header.body;
        if lengths.total() != Some(whole.remaining()) {
            return Err(whole.corrupt(format_args!(
                "{} bytes where {} belong",
                whole.remaining(),
                lengths.total().unwrap_or(usize::MAX)
            )));
        }
        if lengths.digest.is_some_and(|digest| digest != ObjectHash::of(&object[body_at..])) {
            return Err(whole.corrupt("its hash is not the one in the header"));
        }
        let index_at = body_at + lengths.sets;
        let inline_at = index_at + lengths.index;
        let sets = match &header.sets {
            Some(sets) => sets.clone(),
            None => {
                let mut r = Reader::new("commit page sets", &object[body_at..index_at]);
                let sets = PageSets::decode(&mut r)?;
                r.finish()?;
                sets
            }
        };
        let index = if lengths.index == 0 {
            FrameIndex::default()
        } else {
            let mut r = Reader::new("commit frame index", &object[index_at..inline_at]);
            let index = FrameIndex::decode(&mut r, lengths.inline as u64)?;
            r.finish()?;
            index
        };
        let frame_pages: u64 = index.frames().iter().map(|f| u64::from(f.page_count)).sum();
        if frame_pages != sets.owned().len() || index.segment_bytes() != header.segment_bytes {
            return Err(whole.corrupt("its frame index disagrees with its page sets"));
        }
        if sets.owned().last().is_some_and(|page| !header.page_count.contains(page)) {
            return Err(whole.corrupt("it owns a page past its page count"));
        }
        let body = Body { sets, index, inline: object.slice(inline_at..) };
        let object_hash = ObjectHash::of(&object);
        Ok(SealedCommit { header, body, object, object_hash })
    }

    /// What the commit says of itself.
    pub fn header(&self) -> &CommitHeader {
        &self.header
    }

    /// The LSN that it makes.
    pub fn lsn(&self) -> Lsn {
        self.header.lsn
    }

    /// The commit's hash.
    pub fn hash(&self) -> CommitHash {
        self.header.hash
    }

    /// Where its pages lie.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The exact bytes of the object.
    pub fn object(&self) -> &Bytes {
        &self.object
    }

    /// The hash of the exact bytes: two appends are the same only if it is equal.
    pub fn object_hash(&self) -> ObjectHash {
        self.object_hash
    }

    /// The front of the object: exactly the header with its checksum.
    pub fn header_bytes(&self) -> &[u8] {
        let body_bytes = self.header.body.total().unwrap_or(0);
        &self.object[..self.object.len() - body_bytes]
    }

    /// The bytes of one of its inline frames. Panics if the frame is not inline.
    pub fn inline_frame(&self, frame: &FrameRef) -> Bytes {
        assert_eq!(frame.place, FramePlace::Inline, "only inline frames are in the commit");
        inline_frame(&self.body.inline, frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EncodedFrame, PageIdx, SegmentId, SegmentRef, encode_frame};
    use proptest::prelude::*;

    fn page_set(pages: &[u32]) -> PageSet {
        pages.iter().copied().filter_map(PageIdx::new).collect()
    }

    fn frame(pages: &[u32]) -> EncodedFrame {
        let data = vec![3; pages.len() * 512];
        encode_frame(&page_set(pages), PageSize::try_new(512).unwrap(), &data).unwrap()
    }

    fn small_commit() -> SealedCommit {
        let frame = frame(&[2, 7]);
        let mut header = CommitHeader::draft(
            Lsn::new(9).unwrap(),
            CommitKind::Write,
            CommitId::new([5; 16]),
            PageSize::try_new(512).unwrap(),
        );
        header.parent = Some(CommitHash::of(b"parent"));
        header.author = "tests".into();
        header.time_ms = 1_795_000_000_000;
        header.page_count = PageCount::new(7);
        header.min_count = PageCount::new(6);
        header.attributes.insert("content".into(), "sqlite".into());
        let index = FrameIndex::inline([(frame.first, frame.page_count, frame.bytes.len() as u32)]);
        SealedCommit::seal(header, Body { sets: PageSets::same(page_set(&[2, 7])), index, inline: frame.bytes })
            .unwrap()
    }

    fn assert_comes_back(commit: &SealedCommit) {
        let back = SealedCommit::decode(commit.object().clone()).unwrap();
        assert_eq!(back.header(), commit.header());
        assert_eq!(back.body(), commit.body());
        assert_eq!(back.object_hash(), commit.object_hash());
        let (header, len) = CommitHeader::decode(commit.object()).unwrap();
        assert_eq!(&header, commit.header());
        assert_eq!(commit.header_bytes().len(), len);
    }

    #[test]
    fn an_inline_commit_comes_back() {
        let commit = small_commit();
        assert_comes_back(&commit);
        let frame = commit.body().index.frames()[0];
        assert_eq!(crate::decode_frame(&commit.inline_frame(&frame), 2).unwrap().pages, page_set(&[2, 7]));
    }

    #[test]
    fn a_void_may_be_the_first_commit_of_a_name() {
        let header = CommitHeader::draft(Lsn::FIRST, CommitKind::Void, CommitId::new([1; 16]), PageSize::DEFAULT);
        assert_comes_back(&SealedCommit::seal(header, Body::default()).unwrap());
    }

    #[test]
    fn scattered_page_sets_move_to_the_body_and_the_header_stays_bounded() {
        let pages: Vec<u32> = (0..200_000).map(|n| n * 3 + 1).collect();
        let set = page_set(&pages);
        let mut header = CommitHeader::draft(Lsn::FIRST, CommitKind::Create, CommitId::new([1; 16]), PageSize::DEFAULT);
        header.page_count = PageCount::new(1_000_000);
        let segment = SegmentRef {
            id: SegmentId::random(Lsn::FIRST).unwrap(),
            len_bytes: 1 << 40,
            hash: ObjectHash::of(b"segment"),
        };
        let mut index = FrameIndex::default();
        let frames = pages
            .chunks(16)
            .enumerate()
            .map(|(n, c)| (PageIdx::new(c[0]).unwrap(), c.len() as u32, n as u64 * 100, 100));
        index.push_segment(segment, frames);
        let commit =
            SealedCommit::seal(header, Body { sets: PageSets::same(set), index, inline: Bytes::new() }).unwrap();
        assert!(commit.header().sets.is_none());
        assert!(commit.header_bytes().len() < 300);
        assert_comes_back(&commit);
    }

    #[test]
    fn every_flipped_byte_of_a_commit_is_noticed() {
        let object = small_commit().object().to_vec();
        for at in 0..object.len() {
            let mut bytes = object.clone();
            bytes[at] ^= 0x41;
            SealedCommit::decode(bytes.into()).expect_err("a flipped byte");
        }
        for len in 0..object.len() {
            SealedCommit::decode(object[..len].to_vec().into()).expect_err("a truncated commit");
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        let mut object = small_commit().object().to_vec();
        object[4] = 2;
        let error = SealedCommit::decode(object.into()).unwrap_err();
        assert!(error.to_string().contains("version 2"), "{error}");
        assert!(error.remedy().unwrap().contains("upgrade"));
    }

    proptest! {
        #[test]
        fn forged_headers_are_errors(kind in 0u8..9, fields: Vec<u8>) {
            let mut bytes = [COMMIT_MAGIC.as_slice(), &[VERSION, kind], &(fields.len() as u16).to_le_bytes(), &fields].concat();
            let crc = crc32fast::hash(&bytes);
            bytes.extend(crc.to_le_bytes());
            let _ = SealedCommit::decode(bytes.into());
        }

        #[test]
        fn mutated_fields_with_a_good_checksum_never_panic(at: prop::sample::Index, value: u8) {
            let commit = small_commit();
            let header_len = commit.header_bytes().len();
            let mut bytes = commit.object().to_vec();
            let at = 8 + at.index(header_len - 12);
            bytes[at] = value;
            let crc = crc32fast::hash(&bytes[..header_len - 4]);
            bytes[header_len - 4..header_len].copy_from_slice(&crc.to_le_bytes());
            let _ = SealedCommit::decode(bytes.into());
        }
    }
}
