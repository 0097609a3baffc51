//! The segment as it was first written: the file of `golden/` must keep its
//! meaning for ever.
//!
//! `cargo test -p quire-pagestore --test golden -- --ignored` writes it if it
//! is missing; it never changes one that is there.

#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use futures::{StreamExt, stream};
use quire_bucket::{Bucket, keys};
use quire_pagestore::{Embedded, SegmentTable};
use quire_proto::{
    EncodedFrame, Lsn, PageIdx, PageSet, PageSize, Pagestore, Result, VolumeName, check_frame, decode_frame,
    encode_frame,
};

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/segment.bin")
}

fn volume() -> VolumeName {
    VolumeName::parse("caf\u{e9}/menu").unwrap()
}

/// What its frames hold: pages 1 and 3, and page 700.
fn frames() -> [(PageSet, Vec<u8>); 2] {
    let pages = |numbers: &[u32]| numbers.iter().copied().filter_map(PageIdx::new).collect::<PageSet>();
    [(pages(&[1, 3]), vec![0x51; 1024]), (pages(&[700]), vec![0x52; 512])]
}

#[test]
fn the_segment_keeps_its_meaning() {
    let object = bytes::Bytes::from(fs::read(path()).unwrap());
    SegmentTable::check_header(&object).unwrap();
    let table = SegmentTable::decode(&object, object.len() as u64).unwrap();
    assert_eq!((table.volume, table.target), (volume(), Lsn::new(12).unwrap()));
    assert_eq!(table.frames.len(), 2);
    for ((first, page_count, offset, len), (pages, data)) in table.frames.into_iter().zip(frames()) {
        let frame = object.slice(offset as usize..offset as usize + len as usize);
        check_frame(&frame).unwrap();
        let decoded = decode_frame(&frame, page_count).unwrap();
        assert_eq!((decoded.pages.iter().next(), &decoded.pages), (Some(first), &pages));
        assert_eq!((decoded.page_size.bytes(), &decoded.data[..]), (512, &data[..]));
    }
}

/// The name is random, so what is written now is compared with the file but for that.
#[tokio::test]
async fn segments_are_still_written_like_this() {
    let then = fs::read(path()).unwrap();
    let now = written().await.unwrap();
    // Everything before the footer is header and frames; a table says where that is.
    let table = |object: &[u8]| SegmentTable::decode(object, object.len() as u64).unwrap();
    let (old, new) = (table(&then), table(&now));
    assert_eq!((old.volume, old.target), (new.volume, new.target));
    assert_eq!(then[..5], now[..5]);
    let pages = |frames: &[(PageIdx, u32, u64, u32)]| frames.iter().map(|f| (f.0, f.1)).collect::<Vec<_>>();
    assert_eq!(pages(&old.frames), pages(&new.frames));
}

async fn written() -> Result<Vec<u8>> {
    let bucket = Bucket::open("memory://")?;
    let encoded: Vec<Result<EncodedFrame>> =
        frames().iter().map(|(pages, data)| encode_frame(pages, PageSize::try_new(512)?, data)).collect();
    let store = Embedded::new(bucket.clone());
    let index = store.write(&volume(), Lsn::try_new(12)?, stream::iter(encoded).boxed()).await?;
    let object = bucket.get(&keys::segment(&volume(), index.segments()[0].id)).await?;
    Ok(object.bytes.to_vec())
}

#[tokio::test]
#[ignore = "writes the file if it is missing"]
async fn write_missing_file() {
    match File::create_new(path()) {
        Ok(mut file) => file.write_all(&written().await.unwrap()).unwrap(),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::AlreadyExists),
    }
}
