//! Which pages whoever opens a volume needs at once: of a SQLite database page
//! 1, the schema, and the upper levels of its B-trees; of any other volume the first.

use quire_proto::{EncodedFrame, ErrorKind, MAX_BOOT_BYTES, PageIdx, PageSet, Result, encode_index_frame};
use quire_sqlite_format::{Pages, read_header, read_schema, upper_levels};

/// So many pages are considered at most.
const MOST_PAGES: usize = 256;
/// Pages of one boot frame: few, so that the bound on their bytes is used well.
const FRAME_BYTES: usize = 32 * 1024;

/// The boot frames of a snapshot: the pages that are needed first, as far as they fit.
pub fn boot_frames(pages: &mut (impl Pages + ?Sized)) -> Result<Vec<EncodedFrame>> {
    let chosen = match choose(pages) {
        // A damaged database boots with what is known to be needed.
        Err(e) if e.kind() == ErrorKind::Corrupt => Vec::from_iter(PageIdx::new(1)),
        chosen => chosen?,
    };
    let size = pages.page_size();
    let mut frames: Vec<EncodedFrame> = Vec::new();
    let mut bytes = 0;
    for group in chosen.chunks((FRAME_BYTES / size.bytes()).max(1)) {
        let set: PageSet = group.iter().copied().filter(|page| pages.page_count().contains(*page)).collect();
        let mut data = vec![0; set.len() as usize * size.bytes()];
        for (page, buf) in set.iter().zip(data.chunks_exact_mut(size.bytes())) {
            pages.read(page, buf)?;
        }
        if set.is_empty() {
            continue;
        }
        let frame = encode_index_frame(&set, size, &data)?;
        bytes += frame.bytes.len();
        if bytes > MAX_BOOT_BYTES {
            break;
        }
        frames.push(frame);
    }
    Ok(frames)
}

fn choose(pages: &mut (impl Pages + ?Sized)) -> Result<Vec<PageIdx>> {
    let Some(header) = read_header(pages)? else { return Ok(Vec::from_iter(PageIdx::new(1))) };
    let schema = read_schema(pages, &header)?;
    let mut chosen = upper_levels(pages, &header, &schema, MOST_PAGES)?;
    let mut seen = PageSet::new();
    chosen.retain(|page| seen.insert(*page));
    Ok(chosen)
}
