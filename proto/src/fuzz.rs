//! What must hold of any bytes whatever, for the fuzzer (`fuzz/` at the root)
//! and for the ordinary tests that replay what it found.
//!
//! A checksum stops accidents, not an attacker, and it would stop the fuzzer
//! at the door. So each check looks at the input as it is, and once more with
//! its checksums and hashes set right.

use std::ops::Range;

use bytes::Bytes;
use prost::Message;

use crate::checkpoint::repaired as repaired_checkpoint;
use crate::{
    CheckpointHead, CheckpointLeaf, CheckpointWriter, CommitHash, CommitHeader, EncodedFrame, FrameIndex, FramePlace,
    MAX_HEADER_BYTES, ObjectHash, PageIdx, PageRun, PageSet, Reader, Result, Rollup, SealedCommit, VolumeName, Writer,
    decode_frame, encode_frame, encode_index_frame, wire,
};

/// A check and its name.
pub type Check = (&'static str, fn(&[u8]));

/// Every check with its name.
pub const TARGETS: [Check; 9] = [
    ("commit", commit),
    ("header", header),
    ("frame", frame),
    ("page_set", page_set),
    ("frame_index", frame_index),
    ("rollup", rollup),
    ("checkpoint", checkpoint),
    ("wire", wire),
    ("name", name),
];

const PREFIX_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// A commit object that is accepted keeps all it says when it is sealed again.
pub fn commit(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_digest(&mut repaired);
    repair_header(&mut repaired);
    for object in [data.to_vec(), repaired] {
        let object = Bytes::from(object);
        let Ok(commit) = SealedCommit::decode(object.clone()) else { continue };
        assert_eq!(commit.object(), &object);
        let (header, body) = (commit.header(), commit.body());
        assert!(object.starts_with(commit.header_bytes()));
        walk(&body.sets.changed);
        walk(body.sets.owned());
        for frame in body.index.frames().iter().filter(|frame| frame.place == FramePlace::Inline) {
            let _ = decode_frame(&commit.inline_frame(frame), frame.page_count);
        }
        // Longer texts than a writer takes can be read, and are refused here.
        let Ok(again) = SealedCommit::seal(header.clone(), body.clone()) else { continue };
        let back = SealedCommit::decode(again.object().clone()).expect("what was sealed can be read");
        assert_eq!(back.body(), body);
        let thrice = SealedCommit::seal(back.header().clone(), back.body().clone()).expect("it was sealed before");
        assert_eq!(thrice.object(), again.object(), "every field came back");
    }
}

/// A header never claims more than its bound, and its hash is that of its bytes.
pub fn header(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_header(&mut repaired);
    for object in [data, &repaired] {
        let Ok((header, len)) = CommitHeader::decode(object) else { continue };
        assert!(len <= MAX_HEADER_BYTES && len <= object.len());
        assert_eq!(header.hash(), CommitHash::of(&object[..len - CRC_BYTES]));
        assert!(header.min_count <= header.page_count);
        if let Some(sets) = &header.sets {
            walk(&sets.changed);
            walk(sets.owned());
        }
    }
}

/// A frame that is accepted holds whole pages, and they come back when it is encoded again.
pub fn frame(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some((covered, crc)) = repaired.split_last_chunk_mut::<CRC_BYTES>() {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
    for bytes in [data.to_vec(), repaired] {
        let Ok(frame) = decode_frame(&bytes.into(), u32::MAX) else { continue };
        assert_eq!(frame.iter().count() as u64, frame.pages.len());
        for encode in [encode_frame, encode_index_frame] {
            let again = encode(&frame.pages, frame.page_size, &frame.data).expect("it was encoded before");
            let back = decode_frame(&again.bytes, again.page_count).expect("what was encoded can be read");
            assert_eq!((&back.pages, back.page_size, &back.data), (&frame.pages, frame.page_size, &frame.data));
        }
    }
}

/// A page set that is accepted comes back when it is encoded again.
pub fn page_set(data: &[u8]) {
    let Ok(set) = PageSet::decode(&mut Reader::new("page set", data)) else { return };
    walk(&set);
    let mut w = Writer::new();
    set.encode(&mut w);
    let mut r = Reader::new("page set", w.as_slice());
    assert_eq!(PageSet::decode(&mut r).expect("what was encoded can be read"), set);
    assert_eq!(r.remaining(), 0);
}

/// An index that is accepted comes back, and its frames lie in their objects.
pub fn frame_index(data: &[u8]) {
    let Some((inline, data)) = data.split_first_chunk::<2>() else { return };
    let inline_bytes = u16::from_le_bytes(*inline).into();
    let Ok(index) = FrameIndex::decode(&mut Reader::new("index", data), inline_bytes) else { return };
    for (n, frame) in index.frames().iter().enumerate() {
        let room = match frame.place {
            FramePlace::Inline => inline_bytes,
            FramePlace::Segment(n) => index.segments()[n as usize].len_bytes,
        };
        assert!(frame.offset + u64::from(frame.len_bytes) <= room);
        assert_eq!(index.position(frame.first), Some(n));
    }
    assert!(index.segment_bytes() >= index.segments().iter().map(|s| s.len_bytes).max().unwrap_or(0));
    index.inline_bytes();
    let mut w = Writer::new();
    index.encode(&mut w);
    let mut r = Reader::new("index", w.as_slice());
    assert_eq!(FrameIndex::decode(&mut r, inline_bytes).expect("what was encoded can be read"), index);
    assert_eq!(r.remaining(), 0);
}

/// A roll-up that is accepted is the one that its headers make.
pub fn rollup(data: &[u8]) {
    for object in [data.to_vec(), repaired_rollup(data)] {
        let Ok(rollup) = Rollup::decode(&object) else { continue };
        let parts = blocks(&object[5..object.len() - CRC_BYTES]);
        assert_eq!(Rollup::encode(parts.iter().copied()).expect("its own headers"), object);
        let headers = rollup.into_headers();
        assert!(headers.windows(2).all(|pair| pair[1].parent == Some(pair[0].hash())));
    }
}

/// A checkpoint that is accepted covers its pages, and keeps what it says of them when it is written again.
pub fn checkpoint(data: &[u8]) {
    for object in [data.to_vec(), repaired_checkpoint(data)] {
        let Ok(head) = CheckpointHead::decode(&object) else { continue };
        let Ok(runs) = runs_of(&head, &object) else { continue };
        let pages: u64 = runs.iter().map(|run| u64::from(run.count)).sum();
        assert_eq!(pages, u64::from(head.info().page_count.get()));
        let Ok(segments) = head.decode_segments(part(&object, head.segments_range())) else { continue };
        let Ok(boot) = head.boot_pages() else { continue };
        let boot = boot.iter().zip(head.boot()).map(|(frame, boot)| EncodedFrame {
            first: frame.pages.iter().next().expect("a frame has pages"),
            page_count: boot.page_count,
            bytes: boot.bytes.clone(),
        });
        let mut writer = CheckpointWriter::new(head.info().clone());
        // A segment may be missing from the list, and each of two leaves may give a frame as many pages as it holds.
        let pushed = runs.iter().try_for_each(|run| writer.push(*run));
        let Ok(again) = pushed.and_then(|()| writer.finish(segments, &boot.collect::<Vec<_>>())) else { continue };
        let back = CheckpointHead::decode(&again).expect("what was written can be read");
        assert_eq!((back.info(), back.boot()), (head.info(), head.boot()));
        assert_eq!(runs_of(&back, &again).expect("what was written can be read"), runs);
    }
}

/// The runs of all leaves, neighbours that are one run as one.
fn runs_of(head: &CheckpointHead, object: &[u8]) -> Result<Vec<PageRun>> {
    let mut runs: Vec<PageRun> = Vec::new();
    for place in head.leaves() {
        assert_eq!((head.leaf_for(place.first), head.leaf_for(place.last)), (Some(place), Some(place)));
        let leaf = CheckpointLeaf::decode(&place, part(object, place.range()))?;
        for run in leaf.runs() {
            assert_eq!((leaf.find(run.first), leaf.find(run.last())), (Some(run), Some(run)));
            match runs.last_mut() {
                Some(last) if (last.source, last.changed) == (run.source, run.changed) => last.count += run.count,
                _ => runs.push(run),
            }
        }
    }
    Ok(runs)
}

/// A part of an object; nothing if it is outside.
fn part(object: &[u8], range: Range<u64>) -> &[u8] {
    object.get(range.start as usize..range.end as usize).unwrap_or_default()
}

/// A message that is accepted comes back.
pub fn wire(data: &[u8]) {
    fn there_and_back<M: Message + Default + PartialEq + std::fmt::Debug>(data: &[u8]) {
        let Ok(message) = M::decode(data) else { return };
        let back = M::decode(message.encode_to_vec().as_slice()).expect("what was encoded can be read");
        assert_eq!(back, message);
    }
    macro_rules! one_of {
        ($which:expr, $data:expr, $($message:ident)*) => {{
            let checks = [$(there_and_back::<wire::$message> as fn(&[u8])),*];
            checks[usize::from($which) % checks.len()]($data)
        }};
    }
    let Some((&which, data)) = data.split_first() else { return };
    one_of!(which, data, HeadRequest HeadResponse AppendRequest Problem GetCommitRequest CommitObject
        OpenRequest GetHeadersRequest GetHeadersResponse WatchRequest WatchResponse ListVolumesRequest ListVolumesResponse
        WriteFramesRequest WriteFramesResponse ReadFramesRequest MarkedObject PutCheckpointRequest);
}

/// A name that is accepted is the same name again, typed or encoded.
pub fn name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(name) = VolumeName::parse(text) {
        assert_eq!(VolumeName::parse(name.as_str()).expect("its own spelling"), name);
        let encoded = name.encoded();
        assert!(encoded.is_ascii() && encoded.len() <= 640);
        assert_eq!(VolumeName::decode(&encoded).expect("its own encoding"), name);
    }
    if let Ok(name) = VolumeName::decode(text) {
        assert_eq!(name.encoded(), text);
    }
}

/// The ways to look at a set agree. A set of all pages takes no longer than a small one.
fn walk(set: &PageSet) {
    let mut last = 0;
    let (mut pages, mut ranges) = (0, 0u32);
    for (from, to) in set.ranges() {
        assert!(from <= to && from > 0 && (ranges == 0 || u64::from(from) > u64::from(last) + 1), "a maximal range");
        pages += u64::from(to - from) + 1;
        (last, ranges) = (to, ranges + 1);
    }
    assert_eq!(pages, set.len());
    assert_eq!(set.last(), PageIdx::new(last));
    assert_eq!(set.is_empty(), ranges == 0);
}

/// Where a commit's header fields end, if there is room for them and their checksum.
fn fields_end(object: &[u8]) -> Option<usize> {
    let end = PREFIX_BYTES + usize::from(u16::from_le_bytes([*object.get(6)?, *object.get(7)?]));
    (object.len() >= end + CRC_BYTES).then_some(end)
}

fn repair_header(object: &mut [u8]) {
    if let Some(end) = fields_end(object) {
        let crc = crc32fast::hash(&object[..end]);
        object[end..end + CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    }
}

/// A header's last field is the digest of the body, if there is one.
fn repair_digest(object: &mut [u8]) {
    if let Some(end) = fields_end(object)
        && end >= PREFIX_BYTES + ObjectHash::LEN
        && object.len() > end + CRC_BYTES
    {
        let digest = ObjectHash::of(&object[end + CRC_BYTES..]);
        object[end - ObjectHash::LEN..end].copy_from_slice(digest.as_bytes());
    }
}

fn repaired_rollup(data: &[u8]) -> Vec<u8> {
    if data.len() < 5 + CRC_BYTES {
        return data.to_vec();
    }
    let mut w = Writer::new();
    w.bytes(&data[..5]);
    let mut parent: Option<CommitHash> = None;
    for block in blocks(&data[5..data.len() - CRC_BYTES]) {
        let mut block = block.to_vec();
        // The fields begin with the LSN; the parent's hash follows.
        let lsn_bytes = block.iter().skip(PREFIX_BYTES).take_while(|byte| **byte >= 0x80).count() + 1;
        let parent_at = PREFIX_BYTES + lsn_bytes;
        if let (Some(parent), Some(field)) = (parent, block.get_mut(parent_at..parent_at + CommitHash::LEN)) {
            field.copy_from_slice(parent.as_bytes());
        }
        repair_header(&mut block);
        parent = fields_end(&block).map(|end| CommitHash::of(&block[..end]));
        w.block(&block);
    }
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    w.into_vec()
}

fn blocks(bytes: &[u8]) -> Vec<&[u8]> {
    let mut r = Reader::new("blocks", bytes);
    let mut blocks = Vec::new();
    while let Ok(block) = r.block() {
        blocks.push(block);
    }
    blocks
}
