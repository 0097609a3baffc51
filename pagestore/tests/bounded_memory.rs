//! A push of any size passes through little memory, and so do segments that are read whole: measured by counting what
//! the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::{StreamExt, stream};
use quire_bucket::Bucket;
use quire_pagestore::Embedded;
use quire_proto::{EncodedFrame, Lsn, PageIdx, PageSet, PageSize, Pagestore, VolumeName, encode_frame};

const MIB: usize = 1024 * 1024;
const PUSH_BYTES: usize = 320 * MIB;
const MOST_BYTES: usize = 48 * MIB;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        PEAK.fetch_max(IN_USE.fetch_add(layout.size(), Relaxed) + layout.size(), Relaxed);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the pointer came from `alloc` above with the same layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_push_to_a_folder_and_reading_it_whole_stay_within_48_mib() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Bucket::open(&format!("file://{}", folder.path().display())).unwrap();
    let store = Embedded::new(bucket);
    let pages = PageSet::from_iter((1..=16).filter_map(PageIdx::new));
    let mut noise = vec![0; 16 * 4096];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    let sample = encode_frame(&pages, PageSize::DEFAULT, &noise).unwrap();
    let count = (PUSH_BYTES / sample.bytes.len()) as u32;
    // Each frame has bytes of its own, as if it had just been encoded.
    let frames = (0..count).map(|n| {
        let bytes = sample.bytes.to_vec().into();
        Ok(EncodedFrame { first: PageIdx::try_new(n * 16 + 1)?, page_count: 16, bytes })
    });

    PEAK.store(IN_USE.load(Relaxed), Relaxed);
    let before = IN_USE.load(Relaxed);
    let volume = VolumeName::parse("big").unwrap();
    let index = store.write(&volume, Lsn::FIRST, stream::iter(frames).boxed()).await.unwrap();
    let grown = PEAK.load(Relaxed) - before;
    assert_eq!(index.frames().len(), count as usize);
    assert!(index.segments().len() > PUSH_BYTES / (64 * MIB));
    assert!(grown <= MOST_BYTES, "the push of {PUSH_BYTES} bytes grew memory by {grown} bytes");

    // Neither does reading whole segments, four at a time.
    PEAK.store(IN_USE.load(Relaxed), Relaxed);
    let before = IN_USE.load(Relaxed);
    let scans = index.segments().iter().map(|segment| {
        store.scan(&volume, segment.id, segment.len_bytes).fold(0, async |bytes, piece| bytes + piece.unwrap().len())
    });
    let read: usize = stream::iter(scans.collect::<Vec<_>>()).buffer_unordered(4).fold(0, async |a, b| a + b).await;
    let grown = PEAK.load(Relaxed) - before;
    assert_eq!(read as u64, index.segment_bytes());
    assert!(grown <= MOST_BYTES, "reading {read} bytes grew memory by {grown} bytes");
}
