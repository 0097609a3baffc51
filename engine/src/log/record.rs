//! One record of a log or cache file: a header of 24 bytes and a payload,
//! covered by a checksum that also covers the file's salt and the record's
//! place. A record that was copied elsewhere, or that a recycled block still
//! holds from an earlier life, therefore never passes. Layout: `FORMAT.md`.

use quire_proto::{Error, Result};

/// The length of a record's header.
pub(crate) const HEADER_BYTES: usize = 24;
/// No record is longer: bounds what a forged length can make a reader allocate.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 256 << 20;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// The replica's whole state besides its page table.
    State = 1,
    /// A page of a transaction.
    Page,
    /// A transaction's commit: its pages count from here on.
    Commit,
    /// A live page that compaction moved.
    Moved,
    /// Whether the commit with this sequence number counts.
    Settled,
    /// A page that was fetched from the store.
    Fetched,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<RecordKind> {
        use RecordKind::*;
        [State, Page, Commit, Moved, Settled, Fetched].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A record's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) kind: RecordKind,
    /// The page, for the kinds that hold one.
    pub(crate) page: u32,
    /// The transaction's sequence number, or the owner's LSN of a fetched page.
    pub(crate) seq: u64,
    pub(crate) payload_bytes: u32,
}

/// Reserves room for a record at the end of `buf`; the payload is appended
/// next, and [`finish`] closes it once its place in a file is known.
pub(crate) fn begin(buf: &mut Vec<u8>, kind: RecordKind, page: u32, seq: u64, payload_bytes: usize) {
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&[kind as u8, 0, 0, 0]);
    buf.extend_from_slice(&(payload_bytes as u32).to_le_bytes());
    buf.extend_from_slice(&page.to_le_bytes());
    buf.extend_from_slice(&seq.to_le_bytes());
}

/// Writes the checksum of the record that `record` holds whole, for its place
/// at `offset` in the file with `salt`.
pub(crate) fn finish(record: &mut [u8], salt: u64, offset: u64) {
    let crc = checksum(&record[4..], salt, offset);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(after_crc: &[u8], salt: u64, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let mut place = [0; 16];
    place[..8].copy_from_slice(&salt.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    hasher.update(&place);
    hasher.update(after_crc);
    hasher.finalize()
}

/// Reads a header without checking anything but its form. `None`: not a record.
pub(crate) fn parse_header(bytes: &[u8]) -> Option<RecordHeader> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    let payload_bytes = u32_at(8);
    if header[5..8] != [0; 3] || payload_bytes as usize > MAX_PAYLOAD_BYTES {
        return None;
    }
    let seq = u64::from(u32_at(16)) | u64::from(u32_at(20)) << 32;
    Some(RecordHeader { kind: RecordKind::from_byte(header[4])?, page: u32_at(12), seq, payload_bytes })
}

/// Checks the record at the front of `bytes` and splits it into header and payload.
pub(crate) fn check(bytes: &[u8], salt: u64, offset: u64) -> Result<(RecordHeader, &[u8])> {
    let header = parse_header(bytes).ok_or_else(|| Error::corrupt("no record begins here"))?;
    let end = HEADER_BYTES + header.payload_bytes as usize;
    let record = bytes.get(..end).ok_or_else(|| Error::corrupt("the record is cut off"))?;
    let said = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
    let found = checksum(&record[4..], salt, offset);
    if said != found {
        return Err(Error::corrupt(format!("record checksum {found:08x} where {said:08x} belongs")));
    }
    Ok((header, &record[HEADER_BYTES..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(payload: &[u8]) -> Vec<u8> {
        let mut buf = Vec::new();
        begin(&mut buf, RecordKind::Page, 7, 1 << 40, payload.len());
        buf.extend_from_slice(payload);
        finish(&mut buf, 11, 4096);
        buf
    }

    proptest! {
        #[test]
        fn records_come_back(payload: Vec<u8>) {
            let buf = record(&payload);
            let (header, back) = check(&buf, 11, 4096).unwrap();
            prop_assert_eq!((header.kind, header.page, header.seq), (RecordKind::Page, 7, 1 << 40));
            prop_assert_eq!(back, &payload[..]);
            prop_assert!(check(&buf, 12, 4096).is_err(), "another file's salt");
            prop_assert!(check(&buf, 11, 4097).is_err(), "another place");
        }

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes: Vec<u8>) {
            let _ = check(&bytes, 0, 0);
        }
    }

    #[test]
    fn every_flip_is_noticed() {
        let buf = record(b"some page");
        for at in 0..buf.len() {
            let mut bad = buf.clone();
            bad[at] ^= 4;
            check(&bad, 11, 4096).expect_err("a flipped bit");
        }
    }
}
