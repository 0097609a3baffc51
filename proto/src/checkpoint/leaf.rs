//! A leaf of a checkpoint: the runs of a range of pages, and the frames that they name.

use super::columns::{BACK, COMMIT, Ends, INHERITED, NEXT_FRAME, NEXT_SEGMENT, SEGMENT, ZERO, moved, unpack};
use super::{FrameLocation, FrameObject, LEAF_RUNS, LeafRef, PageRun, PageSource};
use crate::{Error, Lsn, PageIdx, Reader, Result, SegmentId};

/// A leaf, complete and checked.
#[derive(Clone, Debug)]
pub struct CheckpointLeaf {
    /// The page after the last.
    end: u64,
    /// In page order, without holes.
    runs: Vec<Run>,
    frames: Vec<Frame>,
    segments: Vec<SegmentId>,
}

/// A run; it ends where the next one begins.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: PageIdx,
    source: Source,
    changed: Lsn,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Zero,
    Inherited,
    /// The position of a frame.
    Frame(u32),
}

/// A frame location whose segment is a position: half as large, as readers keep many leaves.
#[derive(Clone, Copy, Debug)]
struct Frame {
    owner: Lsn,
    segment: Option<u32>,
    offset: u64,
    len_bytes: u32,
    page_count: u32,
}

impl CheckpointLeaf {
    /// Reads the bytes of a leaf.
    pub fn decode(place: &LeafRef, bytes: &[u8]) -> Result<CheckpointLeaf> {
        let columns = unpack(place.part.reader("checkpoint leaf", bytes)?)?;
        let mut r = Reader::new("checkpoint leaf", &columns);
        // Each run has an entry in three columns at least.
        let n = r.count(3)?;
        if n > LEAF_RUNS {
            return Err(r.corrupt(format_args!("{n} runs where at most {LEAF_RUNS} belong")));
        }
        let end = u64::from(place.last.get()) + 1;
        let firsts = decode_firsts(&mut r, n, place.first, end)?;
        let (sources, frame_count) = decode_sources(&mut r, n, place.has_origin)?;
        let (frames, segment_count) = decode_frames(&mut r, frame_count)?;
        let mut runs = Vec::with_capacity(n);
        let mut changed = 0;
        for (first, source) in firsts.into_iter().zip(sources) {
            if let Source::Frame(n) = source {
                changed = frames[n as usize].owner.get();
            }
            changed = moved(changed, r.varint()?);
            let changed = Lsn::new(changed).filter(|changed| *changed <= place.lsn);
            let changed = changed.ok_or_else(|| r.corrupt(format_args!("page {first} changed at no LSN there is")))?;
            runs.push(Run { first, source, changed });
        }
        let segments = (0..segment_count).map(|_| SegmentId::decode(&mut r)).collect::<Result<_>>()?;
        r.finish()?;
        let leaf = CheckpointLeaf { end, runs, frames, segments };
        leaf.check_frames(place.lsn)?;
        Ok(leaf)
    }

    /// Checks the frames, and that none is said to hold more pages than it does.
    fn check_frames(&self, lsn: Lsn) -> Result<()> {
        let problem = |page, problem| Err(Error::corrupt(format!("checkpoint leaf, page {page}: {problem}")));
        let mut room: Vec<u32> = self.frames.iter().map(|frame| frame.page_count).collect();
        for (run, Run { first, source, .. }) in self.runs().zip(&self.runs) {
            let Source::Frame(n) = *source else { continue };
            let n = n as usize;
            if let Some(contradiction) = self.location(&self.frames[n]).contradiction(lsn) {
                return problem(first, contradiction);
            }
            match room[n].checked_sub(run.count) {
                Some(left) => room[n] = left,
                None => return problem(first, "a frame with more pages than it holds"),
            }
        }
        Ok(())
    }

    /// The run that holds `page`; none if the leaf does not.
    pub fn find(&self, page: PageIdx) -> Option<PageRun> {
        if u64::from(page.get()) >= self.end {
            return None;
        }
        self.runs.partition_point(|run| run.first <= page).checked_sub(1).map(|n| self.run(n))
    }

    /// Its runs in page order.
    pub fn runs(&self) -> impl Iterator<Item = PageRun> + '_ {
        (0..self.runs.len()).map(|n| self.run(n))
    }

    fn run(&self, n: usize) -> PageRun {
        let Run { first, source, changed } = self.runs[n];
        let end = self.runs.get(n + 1).map_or(self.end, |next| next.first.get().into());
        let count = (end - u64::from(first.get())) as u32;
        let source = match source {
            Source::Zero => PageSource::Zero,
            Source::Inherited => PageSource::Inherited,
            Source::Frame(n) => PageSource::Frame(self.location(&self.frames[n as usize])),
        };
        PageRun { first, count, source, changed }
    }

    fn location(&self, frame: &Frame) -> FrameLocation {
        let object = frame.segment.map_or(FrameObject::Commit, |n| FrameObject::Segment(self.segments[n as usize]));
        let Frame { owner, offset, len_bytes, page_count, .. } = *frame;
        FrameLocation { owner, object, offset, len_bytes, page_count }
    }
}

/// The first page of each run; together they must fill the leaf.
fn decode_firsts(r: &mut Reader<'_>, n: usize, first: PageIdx, end: u64) -> Result<Vec<PageIdx>> {
    let mut firsts = Vec::with_capacity(n);
    let mut next = u64::from(first.get());
    for _ in 0..n {
        let count = r.varint32()?;
        let first = u32::try_from(next).ok().and_then(PageIdx::new).filter(|_| count > 0 && next < end);
        firsts.push(first.ok_or_else(|| r.corrupt("a run that is empty or outside the leaf"))?);
        next += u64::from(count);
    }
    if next != end {
        return Err(r.corrupt(format_args!("its runs end before page {next}, and the leaf before page {end}")));
    }
    Ok(firsts)
}

/// The source of each run, and how many frames they introduce.
fn decode_sources(r: &mut Reader<'_>, n: usize, has_origin: bool) -> Result<(Vec<Source>, usize)> {
    let mut sources = Vec::with_capacity(n);
    let mut frames: u32 = 0;
    for _ in 0..n {
        sources.push(match r.varint()? {
            ZERO => Source::Zero,
            INHERITED if has_origin => Source::Inherited,
            INHERITED => return Err(r.corrupt("a page is inherited, and there is no origin")),
            NEXT_FRAME => {
                frames += 1;
                Source::Frame(frames - 1)
            }
            code => match u64::from(frames).checked_sub(code - BACK + 1) {
                Some(frame) => Source::Frame(frame as u32),
                None => return Err(r.corrupt("a frame that no run has introduced")),
            },
        });
    }
    Ok((sources, frames as usize))
}

/// The frames, and how many segments they introduce.
fn decode_frames(r: &mut Reader<'_>, n: usize) -> Result<(Vec<Frame>, u32)> {
    if n > r.remaining() / 5 {
        return Err(r.corrupt(format_args!("{n} frames do not fit {} bytes", r.remaining())));
    }
    let mut frames = Vec::with_capacity(n);
    let mut owner = 0;
    for _ in 0..n {
        owner = moved(owner, r.varint()?);
        let owner = Lsn::new(owner).ok_or_else(|| r.corrupt("LSN 0"))?;
        frames.push(Frame { owner, segment: None, offset: 0, len_bytes: 0, page_count: 0 });
    }
    let mut segments: u32 = 0;
    for frame in &mut frames {
        frame.segment = match r.varint()? {
            COMMIT => None,
            NEXT_SEGMENT => {
                segments += 1;
                Some(segments - 1)
            }
            code if code - SEGMENT < u64::from(segments) => Some((code - SEGMENT) as u32),
            _ => return Err(r.corrupt("a segment that no frame has introduced")),
        };
    }
    for frame in &mut frames {
        frame.len_bytes = r.varint32()?;
    }
    for frame in &mut frames {
        frame.page_count = r.varint32()?;
    }
    let mut ends = Ends::default();
    for frame in &mut frames {
        let expected = ends.last(frame.segment, frame.owner);
        frame.offset = moved(expected, r.varint()?);
        ends.note(frame.segment, frame.owner, frame.offset, frame.len_bytes);
    }
    Ok((frames, segments))
}
