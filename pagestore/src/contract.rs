//! What every [`Pagestore`] must do, as a suite that runs over each
//! implementation and each kind of bucket: [`pagestore_contract!`](crate::pagestore_contract).

#![allow(missing_docs, reason = "the suite's functions are sentences")]
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a suite is for")]

use std::any::Any;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use quire_bucket::{Bucket, Created, keys};
use quire_proto::{
    EncodedFrame, Error, ErrorKind, FrameAddress, FrameIndex, FramePlace, Lsn, ObjectHash, PageSet, PageSize,
    Pagestore, Result, SegmentId, VolumeName, decode_frame, encode_frame,
};

use crate::{MAX_SEGMENT_BYTES, SegmentTable};

/// Where the suite runs: an empty store.
pub struct Subject {
    /// The store's objects, to look at and to damage.
    pub bucket: Bucket,
    /// The pagestore on them.
    pub store: Arc<dyn Pagestore>,
    /// What must live as long as the store.
    pub keep: Box<dyn Any + Send + Sync>,
}

/// Declares a test for each function of the suite. The argument is an
/// expression for a future of an empty [`Subject`].
#[macro_export]
macro_rules! pagestore_contract {
    ($subject:expr) => {
        $crate::pagestore_contract! { @each $subject;
            frames_come_back_in_the_order_asked_for
            a_large_push_takes_several_segments
            segments_are_readable_on_their_own
            no_frames_make_no_segment
            frames_out_of_order_are_refused
            a_damaged_frame_is_not_stored
            the_error_of_a_stream_ends_the_write
            a_damaged_byte_is_an_error_that_names_it
            a_missing_segment_is_not_found
            an_address_that_the_segment_does_not_have_is_an_error
            verifying_compares_lengths
            a_segment_is_read_from_its_first_byte_to_its_last
            a_segment_of_another_length_gives_what_it_has_and_then_an_error
            a_missing_segment_has_no_bytes
        }
    };
    (@each $subject:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                let subject = $subject.await;
                $crate::contract::$name(&subject).await;
            }
        )*
    };
}

const TARGET: Lsn = Lsn::FIRST;

fn volume() -> VolumeName {
    VolumeName::parse("team/app.db").unwrap()
}

/// A frame of `page_count` pages from `first` whose bytes do not compress.
fn frame(first: u32, page_count: u32) -> EncodedFrame {
    let mut pages = PageSet::new();
    pages.insert_range(first, first + page_count - 1);
    let mut noise = blake3::Hasher::new().update(&first.to_le_bytes()).finalize_xof();
    let mut data = vec![0; page_count as usize * PageSize::DEFAULT.bytes()];
    noise.fill(&mut data);
    encode_frame(&pages, PageSize::DEFAULT, &data).unwrap()
}

async fn write(s: &Subject, frames: impl IntoIterator<Item = Result<EncodedFrame>>) -> Result<FrameIndex> {
    let frames: Vec<_> = frames.into_iter().collect();
    s.store.write(&volume(), TARGET, stream::iter(frames).boxed()).await
}

fn addresses(index: &FrameIndex) -> Vec<FrameAddress> {
    let address = |frame: &quire_proto::FrameRef| match frame.place {
        FramePlace::Segment(n) => {
            let segment = index.segments()[n as usize].id;
            FrameAddress { segment, offset: frame.offset, len_bytes: frame.len_bytes }
        }
        FramePlace::Inline => panic!("a pagestore has no commit to put frames into"),
    };
    index.frames().iter().map(address).collect()
}

async fn segments_stored(s: &Subject) -> usize {
    s.bucket.list(&keys::segments_prefix(&volume())).count().await
}

pub async fn frames_come_back_in_the_order_asked_for(s: &Subject) {
    let frames = [frame(1, 3), frame(4, 1), frame(90, 16), frame(200, 2)];
    let index = write(s, frames.clone().map(Ok)).await.unwrap();
    let described: Vec<_> = index.frames().iter().map(|f| (f.first, f.page_count)).collect();
    assert_eq!(described, frames.each_ref().map(|f| (f.first, f.page_count)));
    let all = addresses(&index);
    assert!(all.iter().all(|address| address.segment.target == TARGET));
    let asked = [all[2], all[0], all[3], all[1], all[2]];
    let found = s.store.read(&volume(), &asked).await.unwrap();
    for (bytes, n) in found.iter().zip([2, 0, 3, 1, 2]) {
        assert_eq!(bytes, &frames[n].bytes);
        assert_eq!(decode_frame(bytes, frames[n].page_count).unwrap().pages.iter().next(), Some(frames[n].first));
    }
    assert!(s.store.read(&volume(), &[]).await.unwrap().is_empty());
}

pub async fn a_large_push_takes_several_segments(s: &Subject) {
    const PAGES: u32 = 512;
    let firsts = || (0..40).map(|n| n * PAGES + 1);
    let index = write(s, firsts().map(|first| Ok(frame(first, PAGES)))).await.unwrap();
    assert_eq!(index.segments().len(), 2);
    for segment in index.segments() {
        assert!(segment.len_bytes <= MAX_SEGMENT_BYTES, "{segment:?}");
        s.store.verify(&volume(), segment.id, segment.len_bytes).await.unwrap();
        let object = s.bucket.get(&keys::segment(&volume(), segment.id)).await.unwrap();
        assert_eq!(segment.hash, ObjectHash::of(&object.bytes));
    }
    let found = s.store.read(&volume(), &addresses(&index)).await.unwrap();
    for (bytes, first) in found.iter().zip(firsts()) {
        assert_eq!(bytes, &frame(first, PAGES).bytes, "the frame of page {first}");
    }
}

pub async fn segments_are_readable_on_their_own(s: &Subject) {
    let index = write(s, [frame(1, 3), frame(7, 2)].map(Ok)).await.unwrap();
    let segment = index.segments()[0];
    let object = s.bucket.get(&keys::segment(&volume(), segment.id)).await.unwrap().bytes;
    assert_eq!((object.len() as u64, ObjectHash::of(&object)), (segment.len_bytes, segment.hash));
    SegmentTable::check_header(&object).unwrap();
    let table = SegmentTable::decode(&object, segment.len_bytes).unwrap();
    assert_eq!((table.volume, table.target, table.ulid), (volume(), segment.id.target, segment.id.ulid));
    let from_index: Vec<_> = index.frames().iter().map(|f| (f.first, f.page_count, f.offset, f.len_bytes)).collect();
    assert_eq!(table.frames, from_index);
}

pub async fn no_frames_make_no_segment(s: &Subject) {
    assert_eq!(write(s, []).await.unwrap(), FrameIndex::default());
    assert_eq!(segments_stored(s).await, 0);
}

pub async fn frames_out_of_order_are_refused(s: &Subject) {
    for frames in [[frame(5, 1), frame(4, 1)], [frame(5, 1), frame(5, 1)]] {
        let error = write(s, frames.map(Ok)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    assert_eq!(segments_stored(s).await, 0);
}

pub async fn a_damaged_frame_is_not_stored(s: &Subject) {
    let mut damaged = frame(8, 4);
    let mut bytes = damaged.bytes.to_vec();
    bytes[100] ^= 1;
    damaged.bytes = bytes.into();
    let error = write(s, [Ok(frame(1, 1)), Ok(damaged)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("page 8"), "{error}");
    assert_eq!(segments_stored(s).await, 0);
}

pub async fn the_error_of_a_stream_ends_the_write(s: &Subject) {
    let error = write(s, [Ok(frame(1, 1)), Err(Error::invalid("the source failed"))]).await.unwrap_err();
    assert!(error.to_string().contains("the source failed"), "{error}");
    assert_eq!(segments_stored(s).await, 0);
}

pub async fn a_damaged_byte_is_an_error_that_names_it(s: &Subject) {
    let index = write(s, [frame(1, 3), frame(7, 2)].map(Ok)).await.unwrap();
    let segment = index.segments()[0].id;
    let key = keys::segment(&volume(), segment);
    let mut object = s.bucket.get(&key).await.unwrap().bytes.to_vec();
    let [whole, hit] = index.frames() else { panic!("two frames") };
    object[hit.offset as usize + 50] ^= 0x80;
    s.bucket.delete(&key).await.unwrap();
    assert_eq!(s.bucket.create(&key, object.into()).await.unwrap(), Created::Won);

    let all = addresses(&index);
    assert_eq!(s.store.read(&volume(), &all[..1]).await.unwrap()[0].len(), whole.len_bytes as usize);
    let error = s.store.read(&volume(), &all).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let said = error.to_string();
    assert!(said.contains(key.as_str()) && said.contains(&format!("offset {}", hit.offset)), "{said}");
    assert!(error.remedy().is_some());
}

pub async fn a_missing_segment_is_not_found(s: &Subject) {
    let index = write(s, [Ok(frame(1, 3))]).await.unwrap();
    let there = addresses(&index)[0];
    let missing = FrameAddress { segment: SegmentId::random(TARGET).unwrap(), ..there };
    for error in [
        s.store.read(&volume(), &[there, missing]).await.unwrap_err(),
        s.store.verify(&volume(), missing.segment, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.to_string().contains(keys::segment(&volume(), missing.segment).as_str()), "{error}");
        assert!(error.remedy().is_some());
    }
}

pub async fn an_address_that_the_segment_does_not_have_is_an_error(s: &Subject) {
    let index = write(s, [Ok(frame(1, 3))]).await.unwrap();
    let there = addresses(&index)[0];
    let past = FrameAddress { offset: index.segments()[0].len_bytes - 10, ..there };
    let misplaced = FrameAddress { offset: there.offset + 1, ..there };
    for (address, kind) in [
        (past, ErrorKind::Corrupt),
        (misplaced, ErrorKind::Corrupt),
        (FrameAddress { offset: u64::MAX, ..there }, ErrorKind::Invalid),
        (FrameAddress { len_bytes: 0, ..there }, ErrorKind::Invalid),
    ] {
        let error = s.store.read(&volume(), &[address]).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{address:?}: {error}");
    }
}

pub async fn verifying_compares_lengths(s: &Subject) {
    let index = write(s, [Ok(frame(1, 3))]).await.unwrap();
    let segment = index.segments()[0];
    s.store.verify(&volume(), segment.id, segment.len_bytes).await.unwrap();
    let error = s.store.verify(&volume(), segment.id, segment.len_bytes + 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.remedy().is_some());
}

async fn scanned(s: &Subject, segment: SegmentId, len_bytes: u64) -> (Vec<u8>, Option<Error>) {
    let (mut bytes, mut pieces) = (Vec::new(), s.store.scan(&volume(), segment, len_bytes));
    while let Some(piece) = pieces.next().await {
        match piece {
            Ok(piece) => bytes.extend_from_slice(&piece),
            Err(e) => {
                assert!(pieces.next().await.is_none(), "nothing comes after an error");
                return (bytes, Some(e));
            }
        }
    }
    (bytes, None)
}

pub async fn a_segment_is_read_from_its_first_byte_to_its_last(s: &Subject) {
    // Several pieces, the last of which is a short one.
    let index = write(s, (0..3).map(|n| Ok(frame(n * 1024 + 1, 900)))).await.unwrap();
    let segment = index.segments()[0];
    let (bytes, error) = scanned(s, segment.id, segment.len_bytes).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((bytes.len() as u64, ObjectHash::of(&bytes)), (segment.len_bytes, segment.hash));
}

pub async fn a_segment_of_another_length_gives_what_it_has_and_then_an_error(s: &Subject) {
    let index = write(s, [Ok(frame(1, 3))]).await.unwrap();
    let segment = index.segments()[0];
    let key = keys::segment(&volume(), segment.id);
    let object = s.bucket.get(&key).await.unwrap().bytes;
    let longer = [&object[..], b"more"].concat();
    for stored in [&object[..], &object[..100], &[], &longer[..]] {
        s.bucket.delete(&key).await.unwrap();
        assert_eq!(s.bucket.create(&key, stored.to_vec().into()).await.unwrap(), Created::Won);
        let (bytes, error) = scanned(s, segment.id, segment.len_bytes).await;
        assert_eq!(bytes, &stored[..stored.len().min(object.len())]);
        assert_eq!(error.is_some(), stored.len() != object.len());
        if let Some(error) = error {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains(key.as_str()) && error.remedy().is_some(), "{error:?}");
        }
    }
}

pub async fn a_missing_segment_has_no_bytes(s: &Subject) {
    let (bytes, error) = scanned(s, SegmentId::random(TARGET).unwrap(), 100).await;
    assert_eq!((bytes.len(), error.unwrap().kind()), (0, ErrorKind::NotFound));
}
