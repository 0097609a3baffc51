//! Numbers as SQLite stores them; nothing here reads past its input.

use quire_proto::PageIdx;

/// The big-endian number of two bytes at `at`.
pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The big-endian number of four bytes at `at`.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The page number at `at`; 0 names no page.
pub(crate) fn page_at(bytes: &[u8], at: usize) -> Option<PageIdx> {
    PageIdx::new(u32_at(bytes, at)?)
}

/// The variable-length number at `at`, and where the next byte lies: seven bits
/// a byte, the highest first, and all eight of a ninth.
pub(crate) fn varint_at(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, &byte) in bytes.get(at..)?.iter().take(9).enumerate() {
        if i == 8 {
            return Some((value << 8 | u64::from(byte), at + 9));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if byte < 0x80 {
            return Some((value, at + i + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_ends_with_its_ninth_byte() {
        assert_eq!(varint_at(&[0x7f], 0), Some((127, 1)));
        assert_eq!(varint_at(&[9, 0x81, 0x00], 1), Some((128, 3)));
        assert_eq!(varint_at(&[0xff; 12], 0), Some((u64::MAX, 9)));
        assert_eq!(varint_at(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01], 0), Some((1, 9)));
    }

    #[test]
    fn a_number_that_is_cut_off_is_none() {
        assert_eq!(varint_at(&[0x80; 8], 0), None);
        assert_eq!(varint_at(&[1], 2), None);
        assert_eq!(u16_at(&[1], 0), None);
        assert_eq!(u32_at(&[1, 2, 3, 4], 1), None);
        assert_eq!(page_at(&[0; 4], 0), None);
    }
}
