//! Boot frames: pages that whoever opens the volume needs at once travel in the head.

use bytes::Bytes;

use super::MAX_BOOT_BYTES;
use crate::{DecodedFrame, EncodedFrame, Error, PageCount, PageSize, Reader, Result, Writer, decode_frame};

/// Boot frames hold no more bytes of pages than this, so that opening a volume takes little memory.
const MAX_BOOT_PAGE_BYTES: u64 = 1024 * 1024;

/// A boot frame as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// How many pages it holds.
    pub page_count: u32,
    /// The frame, its own checksum included.
    pub bytes: Bytes,
}

impl Boot {
    /// Decodes the frame. It must be of a snapshot of so many pages of this size.
    pub(super) fn pages(&self, page_size: PageSize, page_count: PageCount) -> Result<DecodedFrame> {
        let frame = decode_frame(&self.bytes, self.page_count)?;
        match frame.pages.last() {
            Some(last) if page_count.contains(last) && frame.page_size == page_size => Ok(frame),
            _ => Err(Error::corrupt("its pages are not of this snapshot")),
        }
    }
}

pub(super) fn encode(w: &mut Writer, boot: &[EncodedFrame]) {
    w.varint(boot.len() as u64);
    for frame in boot {
        w.varint(frame.page_count.into());
        w.block(&frame.bytes);
    }
}

pub(super) fn decode(r: &mut Reader<'_>, page_size: PageSize) -> Result<Vec<Boot>> {
    let n = r.count(2)?;
    let mut boot = Vec::new();
    let (mut bytes, mut page_bytes) = (0, 0);
    for _ in 0..n {
        let page_count = r.varint32()?;
        let frame = r.block()?;
        bytes += frame.len();
        page_bytes += u64::from(page_count) << page_size.log2();
        if page_count == 0 || bytes > MAX_BOOT_BYTES || page_bytes > MAX_BOOT_PAGE_BYTES {
            return Err(r.corrupt("boot frames without a page, of more than 64 KiB, or of more than 1 MiB of pages"));
        }
        boot.push(Boot { page_count, bytes: Bytes::copy_from_slice(frame) });
    }
    Ok(boot)
}
