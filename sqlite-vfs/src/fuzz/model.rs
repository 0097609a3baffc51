//! What volumes and connections hold, as plain vectors.

use std::rc::Rc;

use crate::header::HEADER_BYTES;

/// Where SQLite counts its changes, and what goes with it: the VFS decides what is read there.
const COUNTERS: [std::ops::Range<usize>; 2] = [24..28, 92..100];

/// The content of a database.
pub(super) type Content = Rc<Vec<u8>>;

/// A volume: what was committed last.
pub(super) struct Volume {
    pub(super) committed: Content,
    pub(super) page_bytes: usize,
    /// The connection that holds the writer's lock.
    pub(super) writer: Option<usize>,
}

impl Volume {
    /// One that nothing was committed to.
    pub(super) fn new(page_bytes: usize) -> Volume {
        Volume { committed: Content::default(), page_bytes, writer: None }
    }
}

/// A connection's view.
#[derive(Default)]
pub(super) struct View {
    pub(super) level: i32,
    /// What its read transaction sees.
    pub(super) snapshot: Option<Content>,
    /// What its write transaction has made of it.
    pub(super) staged: Option<Staged>,
    /// What SQLite's cache would hold, and the change counter that it goes by.
    pub(super) cache: Option<(u32, Content)>,
}

impl View {
    /// The change counter that SQLite would write next.
    pub(super) fn next_counter(&self) -> u32 {
        self.cache.as_ref().map_or(0, |(counter, _)| *counter).wrapping_add(1)
    }
}

/// An open write transaction.
#[derive(Clone, Default)]
pub(super) struct Staged {
    pub(super) bytes: Vec<u8>,
    pub(super) is_announced: bool,
    /// Whether anything but page 1 was written, or cut off: then a commit is made, whatever the bytes are.
    pub(super) is_past_first_page: bool,
}

impl Staged {
    /// A transaction that has changed nothing yet.
    pub(super) fn on(content: &[u8]) -> Staged {
        Staged { bytes: content.to_vec(), ..Staged::default() }
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[offset..end].copy_from_slice(bytes);
    }
}

/// What a read of `len` bytes at `offset` gives, and whether all of it lies before the end.
pub(super) fn read(content: &[u8], len: usize, offset: usize) -> (Vec<u8>, bool) {
    let mut bytes = content.get(offset.min(content.len())..).unwrap_or_default().to_vec();
    bytes.truncate(len);
    let whole = bytes.len() == len;
    bytes.resize(len, 0);
    (bytes, whole)
}

/// Takes out of a read at `offset` what the VFS decides.
pub(super) fn without_counters(bytes: &mut [u8], offset: usize) {
    for range in COUNTERS {
        for at in range {
            if let Some(byte) = at.checked_sub(offset).and_then(|at| bytes.get_mut(at)) {
                *byte = 0;
            }
        }
    }
}

/// Whether two contents differ at most in what the VFS decides.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    let clean = |content: &[u8]| {
        let mut header = content[..content.len().min(HEADER_BYTES)].to_vec();
        without_counters(&mut header, 0);
        header
    };
    a.len() == b.len() && clean(a) == clean(b) && a.get(HEADER_BYTES..) == b.get(HEADER_BYTES..)
}
