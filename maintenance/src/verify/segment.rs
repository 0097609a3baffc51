//! Reading a segment whole: its hash, and each frame in it.

use bytes::{Buf, BytesMut};
use futures::StreamExt;
use quire_proto::{
    Error, FrameRef, MAX_STORED_FRAME_BYTES, ObjectHash, PageIdx, PageSet, PageSize, Pagestore, Result, SegmentRef,
    VolumeName, decode_frame,
};

use super::is_damage;

/// What the commit says of the frames of a segment.
pub(super) struct Expected<'a> {
    /// The frames in it, with their numbers, by their offsets.
    pub(super) frames: Vec<(usize, FrameRef)>,
    /// The pages that the commit owns.
    pub(super) owned: &'a PageSet,
    /// Their size.
    pub(super) page_size: PageSize,
}

/// What was found.
#[derive(Default)]
pub(super) struct Scanned {
    /// What is wrong, if anything is.
    pub(super) problem: Option<String>,
    /// The numbers of the frames that cannot be read.
    pub(super) bad: Vec<usize>,
    /// How many bytes were read.
    pub(super) bytes: u64,
}

/// Reads a segment whose frames are not known, for its hash.
pub(super) async fn hash(store: &dyn Pagestore, volume: &VolumeName, segment: &SegmentRef) -> Result<Scanned> {
    let expected = Expected { frames: Vec::new(), owned: &PageSet::new(), page_size: PageSize::DEFAULT };
    scan(store, volume, segment, expected).await
}

/// Reads a segment. An error is one of the way to the store, not of the segment.
pub(super) async fn scan(
    store: &dyn Pagestore,
    volume: &VolumeName,
    segment: &SegmentRef,
    expected: Expected<'_>,
) -> Result<Scanned> {
    let mut scanned = Scanned::default();
    let mut pieces = store.scan(volume, segment.id, segment.len_bytes);
    let mut hasher = blake3::Hasher::new();
    // What has come of the next frame, and where in the segment it begins.
    let (mut held, mut at) = (BytesMut::new(), 0);
    let mut frames = expected.frames.iter().peekable();
    while let Some(piece) = pieces.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(e) if is_damage(&e) => {
                scanned.problem = Some(e.to_string());
                break;
            }
            Err(e) => return Err(e),
        };
        hasher.update(&piece);
        scanned.bytes += piece.len() as u64;
        held.extend_from_slice(&piece);
        while let Some((n, frame)) = frames.peek() {
            let end = frame.offset + u64::from(frame.len_bytes);
            let is_possible = frame.offset >= at && frame.len_bytes as usize <= MAX_STORED_FRAME_BYTES;
            if is_possible && end > at + held.len() as u64 {
                break;
            }
            let checked = if is_possible {
                held.advance((frame.offset - at) as usize);
                at = end;
                check(frame, held.split_to(frame.len_bytes as usize).freeze(), &expected)
            } else {
                Err(Error::corrupt("it cannot be where its index says"))
            };
            if let Err(e) = checked {
                scanned.bad.push(*n);
                let place = format!("the frame of page {} at offset {}: {e}", frame.first, frame.offset);
                scanned.problem.get_or_insert(place);
            }
            frames.next();
        }
        // What lies before the next frame is of no more use.
        let before = frames.peek().map_or(u64::MAX, |(_, frame)| frame.offset);
        let passed = before.saturating_sub(at).min(held.len() as u64);
        held.advance(passed as usize);
        at += passed;
    }
    scanned.bad.extend(frames.map(|(n, _)| n));
    if scanned.problem.is_none() && ObjectHash::new(*hasher.finalize().as_bytes()) != segment.hash {
        scanned.problem = Some("its bytes are not those of which its commit has the hash".to_owned());
    }
    Ok(scanned)
}

/// Whether a frame decodes to the pages that its index says.
pub(super) fn check(frame: &FrameRef, bytes: bytes::Bytes, expected: &Expected<'_>) -> Result<()> {
    let decoded = decode_frame(&bytes, frame.page_count)?;
    let sound = decoded.page_size == expected.page_size
        && decoded.pages.len() == u64::from(frame.page_count)
        && decoded.pages.iter().next() == Some(frame.first)
        && expected.owned.contains_all(&decoded.pages);
    if sound { Ok(()) } else { Err(Error::corrupt("it holds other pages than its index says")) }
}

/// The pages that a commit has in some of its frames, given by their numbers.
pub(super) fn pages_of(frames: &[FrameRef], numbers: &[usize], owned: &PageSet) -> PageSet {
    let mut pages = PageSet::new();
    for &n in numbers {
        let first = frames[n].first;
        let last = frames.get(n + 1).map_or(u32::MAX, |next| next.first.get() - 1);
        pages.insert_range(first.get(), last.min(owned.last().map_or(0, PageIdx::get)));
    }
    let mut others = pages.clone();
    others.subtract(owned);
    pages.subtract(&others);
    pages
}
