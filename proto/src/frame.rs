//! The frame: the unit of fetching. It holds a few pages, sorted, compressed
//! together, and says itself which pages they are, so that it can be checked
//! and used without its index. Layout: `FORMAT.md`, "Frame".

use std::cell::RefCell;

use bytes::Bytes;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{self, CParameter, ParamSwitch};

use crate::{Error, PageIdx, PageSet, PageSize, Reader, Result, Writer};

/// How many bytes of pages a frame aims at. Small frames make a cold point
/// read cheap, large ones compress better and make scans cheap; measured in
/// `docs/decisions/0002-frames-of-128-kib.md`.
pub const FRAME_TARGET_BYTES: usize = 128 * 1024;

/// No frame holds more bytes of pages: what a reader is ready to allocate for
/// one, whatever it says of itself.
pub const MAX_FRAME_BYTES: usize = 16 * 1024 * 1024;

/// No frame is longer than this as it is stored: it is never much longer than its pages.
pub const MAX_STORED_FRAME_BYTES: usize = MAX_FRAME_BYTES * 2;

/// Up to so many bytes, compression costs less time than the request that carries it.
const SMALL_BYTES: usize = 16 * 1024;
const CODING_RAW: u8 = 0;
const CODING_ZSTD: u8 = 1;
const CODING_STRIDED: u8 = 2;
/// The lengths of records that are looked for: a cell of an interior page of a SQLite table has 5 to 13 bytes.
const STRIDES: std::ops::RangeInclusive<u8> = 2..=16;
const CRC_BYTES: usize = 4;

/// A frame ready to be stored, with what an index says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedFrame {
    /// The lowest page in the frame.
    pub first: PageIdx,
    /// How many pages it holds.
    pub page_count: u32,
    /// The stored bytes, checksum included.
    pub bytes: Bytes,
}

/// The pages of a frame.
#[derive(Clone, Debug)]
pub struct DecodedFrame {
    /// Which pages, ascending.
    pub pages: PageSet,
    /// Their size.
    pub page_size: PageSize,
    /// Their contents, one after the other in the same order.
    pub data: Bytes,
}

impl DecodedFrame {
    /// Each page with its content.
    pub fn iter(&self) -> impl Iterator<Item = (PageIdx, &[u8])> {
        self.pages.iter().zip(self.data.chunks_exact(self.page_size.bytes()))
    }
}

/// Encodes the pages of `pages`, whose contents `data` holds in ascending
/// order. Panics if there is no page or the lengths disagree: both are bugs of the caller.
pub fn encode_frame(pages: &PageSet, page_size: PageSize, data: &[u8]) -> Result<EncodedFrame> {
    let first = pages.iter().next().expect("a frame holds at least one page");
    assert_eq!(data.len() as u64, pages.len() * page_size.bytes() as u64, "a frame's pages fill its data");
    if data.len() > MAX_FRAME_BYTES {
        return Err(Error::invalid(format!("{} bytes of pages in a frame, which holds at most 16 MiB", data.len())));
    }
    let packed = compress(data).map_err(|e| Error::from_io("compressing a frame", e))?;
    let (coding, payload) =
        if packed.len() < data.len() { (CODING_ZSTD, packed.as_slice()) } else { (CODING_RAW, data) };
    Ok(EncodedFrame { first, page_count: pages.len() as u32, bytes: written(coding, page_size, pages, payload) })
}

/// As [`encode_frame`], for pages full of records of one length that ascend, such as the upper levels of B-trees: where
/// each byte's distance from the one a record before packs better, that is what is packed. One million rows of a SQLite
/// table have 276 KiB of interior pages; they take 151 KiB without it, and 14 KiB with it.
pub fn encode_index_frame(pages: &PageSet, page_size: PageSize, data: &[u8]) -> Result<EncodedFrame> {
    let frame = encode_frame(pages, page_size, data)?;
    let Some(stride) = best_stride(data) else { return Ok(frame) };
    let mut payload = vec![stride];
    payload.extend(compress(&apart(data, stride.into())).map_err(|e| Error::from_io("compressing a frame", e))?);
    let bytes = written(CODING_STRIDED, page_size, pages, &payload);
    Ok(if bytes.len() < frame.bytes.len() { EncodedFrame { bytes, ..frame } } else { frame })
}

fn written(coding: u8, page_size: PageSize, pages: &PageSet, payload: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.u8(coding);
    w.u8(page_size.log2());
    pages.encode(&mut w);
    w.bytes(payload);
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    w.into_vec().into()
}

/// The stride at which most bytes that are not zero go on as they did before.
fn best_stride(data: &[u8]) -> Option<u8> {
    let goes_on = |stride: u8| {
        let (once, twice) = (usize::from(stride), 2 * usize::from(stride));
        let at = twice..data.len();
        at.filter(|&i| {
            let (a, b, c) = (data[i - twice], data[i - once], data[i]);
            (a | b | c) != 0 && b.wrapping_sub(a) == c.wrapping_sub(b)
        })
        .count()
    };
    STRIDES.max_by_key(|stride| goes_on(*stride)).filter(|stride| goes_on(*stride) > 0)
}

/// Each byte less the one a stride before.
fn apart(data: &[u8], stride: usize) -> Vec<u8> {
    let before = std::iter::repeat_n(&0, stride).chain(data);
    data.iter().zip(before).map(|(byte, before)| byte.wrapping_sub(*before)).collect()
}

/// The other way round.
fn together(data: &mut [u8], stride: usize) {
    for i in stride..data.len() {
        data[i] = data[i].wrapping_add(data[i - stride]);
    }
}

/// Compresses with this thread's compressors, whose settings are measured in
/// `docs/decisions/0003-zstd-greedy.md`.
fn compress(data: &[u8]) -> std::io::Result<Vec<u8>> {
    thread_local! {
        static SMALL: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
        static LARGE: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    }
    let (compressor, parameters): (_, &[CParameter]) = if data.len() <= SMALL_BYTES {
        (&SMALL, &[CParameter::CompressionLevel(15)])
    } else {
        let greedy = &[
            CParameter::Strategy(zstd_safe::Strategy::ZSTD_greedy),
            CParameter::WindowLog(17),
            CParameter::HashLog(14),
            CParameter::ChainLog(14),
            CParameter::SearchLog(1),
            CParameter::MinMatch(4),
            // Else this finder looks at 16 places whatever the search log says.
            CParameter::UseRowMatchFinder(ParamSwitch::Disable),
        ];
        (&LARGE, greedy)
    };
    compressor.with_borrow_mut(|compressor| {
        if compressor.is_none() {
            let mut new = Compressor::default();
            parameters.iter().try_for_each(|&parameter| new.set_parameter(parameter))?;
            *compressor = Some(new);
        }
        compressor.as_mut().expect("made above").compress(data)
    })
}

/// Checks a frame's checksum without decoding it.
pub fn check_frame(frame: &[u8]) -> Result<()> {
    checked(frame).map(|_| ())
}

/// Checks and decodes a frame. `most_pages` bounds what an honest frame holds,
/// from its index, so that a forged one cannot claim memory.
pub fn decode_frame(frame: &Bytes, most_pages: u32) -> Result<DecodedFrame> {
    let checked = checked(frame)?;
    let mut r = Reader::new("frame", checked);
    let coding = r.u8()?;
    let page_size = PageSize::from_log2(r.u8()?)?;
    let pages = PageSet::decode(&mut r)?;
    if pages.is_empty() || pages.len() > u64::from(most_pages) {
        return Err(r.corrupt(format_args!("{} pages where 1 to {most_pages} are said to be", pages.len())));
    }
    if pages.len() > (MAX_FRAME_BYTES / page_size.bytes()) as u64 {
        return Err(r.corrupt(format_args!(
            "{} pages of {} bytes are more than 16 MiB",
            pages.len(),
            page_size.bytes()
        )));
    }
    let raw_bytes = pages.len() as usize * page_size.bytes();
    let payload_at = checked.len() - r.remaining();
    let data = match coding {
        CODING_RAW => frame.slice(payload_at..checked.len()),
        CODING_ZSTD => zstd::bulk::decompress(&checked[payload_at..], raw_bytes)
            .map_err(|e| r.corrupt("its pages do not decompress").with_source(e))?
            .into(),
        CODING_STRIDED => {
            let stride = usize::from(r.u8()?);
            if stride == 0 {
                return Err(r.corrupt("records of no length"));
            }
            let mut data = zstd::bulk::decompress(&checked[payload_at + 1..], raw_bytes)
                .map_err(|e| r.corrupt("its pages do not decompress").with_source(e))?;
            together(&mut data, stride);
            data.into()
        }
        other => {
            return Err(r.corrupt(format_args!("unknown coding {other}")).with_remedy(NEWER));
        }
    };
    if data.len() != raw_bytes {
        return Err(r.corrupt(format_args!("{} bytes of pages where {raw_bytes} belong", data.len())));
    }
    Ok(DecodedFrame { pages, page_size, data })
}

const NEWER: &str = "It may have been written by a newer version of Quire: upgrade this one.";

fn checked(frame: &[u8]) -> Result<&[u8]> {
    let Some((body, crc)) = frame.split_last_chunk::<CRC_BYTES>() else {
        return Err(Error::corrupt(format!("frame: {} bytes are too few", frame.len())));
    };
    let found = crc32fast::hash(body);
    let said = u32::from_le_bytes(*crc);
    if found == said {
        Ok(body)
    } else {
        Err(Error::corrupt(format!("frame: checksum {found:08x} where {said:08x} belongs")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use quire_testkit::rows::interior_pages;

    fn any_frame() -> impl Strategy<Value = (PageSet, PageSize, Vec<u8>)> {
        (9u8..=12, proptest::collection::btree_set(1u32..1000, 1..20), any::<bool>(), any::<u64>()).prop_map(
            |(log2, pages, noise, seed)| {
                let size = PageSize::from_log2(log2).unwrap();
                let set: PageSet = pages.into_iter().filter_map(PageIdx::new).collect();
                let mut state = seed | 1;
                let data = (0..set.len() as usize * size.bytes())
                    .map(|_| {
                        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        if noise { (state >> 56) as u8 } else { 7 }
                    })
                    .collect();
                (set, size, data)
            },
        )
    }

    proptest! {
        #[test]
        fn frames_come_back((pages, size, data) in any_frame()) {
            let frame = encode_frame(&pages, size, &data).unwrap();
            for frame in [frame, encode_index_frame(&pages, size, &data).unwrap()] {
                let back = decode_frame(&frame.bytes, frame.page_count).unwrap();
                prop_assert_eq!(&back.pages, &pages);
                prop_assert_eq!(back.page_size, size);
                prop_assert_eq!(&back.data[..], &data[..]);
            }
        }

        #[test]
        fn a_flipped_bit_is_always_noticed((pages, size, data) in any_frame(), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encode_frame(&pages, size, &data).unwrap().bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let error = decode_frame(&bytes.into(), u32::MAX).unwrap_err();
            prop_assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        }

        #[test]
        fn what_is_apart_comes_together(data: Vec<u8>, stride in 1usize..40) {
            let mut back = apart(&data, stride);
            together(&mut back, stride);
            prop_assert_eq!(back, data);
        }

        #[test]
        fn a_forged_frame_is_an_error(mut bytes: Vec<u8>) {
            let crc = crc32fast::hash(&bytes);
            bytes.extend(crc.to_le_bytes());
            let _ = decode_frame(&bytes.into(), 128);
        }
    }

    #[test]
    fn the_upper_levels_of_a_tree_pack_well() {
        for rowid_bytes in [2, 3, 4, 5] {
            let (pages, data) = (PageSet::first(crate::PageCount::new(8)), interior_pages(8, rowid_bytes));
            let plain = encode_frame(&pages, PageSize::DEFAULT, &data).unwrap();
            let frame = encode_index_frame(&pages, PageSize::DEFAULT, &data).unwrap();
            assert_eq!(decode_frame(&frame.bytes, 8).unwrap().data, data);
            let (with, without) = (frame.bytes.len(), plain.bytes.len());
            assert!(with * 5 < without, "{with} and {without} bytes for rowids of {rowid_bytes}");
        }
    }

    #[test]
    fn a_frame_that_claims_all_pages_there_can_be_takes_no_memory() {
        let mut w = Writer::new();
        w.u8(CODING_ZSTD);
        w.u8(PageSize::MAX.log2());
        PageSet::first(crate::PageCount::new(u32::MAX)).encode(&mut w);
        // The header of a zstd frame that says how much it holds: 2^63 bytes.
        w.bytes(&[0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0]);
        let crc = crc32fast::hash(w.as_slice());
        w.u32(crc);
        let error = decode_frame(&w.into_vec().into(), u32::MAX).unwrap_err();
        assert!(error.message().contains("more than 16 MiB"), "{error}");
    }
}
