//! What must hold of any bytes in the place of a segment, for the fuzzer
//! (`fuzz/` at the root) and for the ordinary tests that replay what it found.

use quire_proto::fuzz::Check;

use crate::segment::footer_crc;
use crate::{SegmentTable, TRAILER_BYTES};

/// Every check with its name.
pub const TARGETS: [Check; 1] = [("segment", segment)];

/// A table that is accepted lists frames that fill the segment, and reads the
/// same from the end of the object alone. A checksum stops accidents, not an
/// attacker: the input is looked at once more with its checksum set right.
pub fn segment(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair(&mut repaired);
    for object in [data, &repaired] {
        let _ = SegmentTable::check_header(object);
        let Ok(table) = SegmentTable::decode(object, object.len() as u64) else { continue };
        let mut end = 5;
        for (n, &(first, _, offset, len_bytes)) in table.frames.iter().enumerate() {
            assert_eq!(offset, end);
            end += u64::from(len_bytes);
            assert!(n == 0 || table.frames[n - 1].0 < first);
        }
        let trailer_at = object.len() - TRAILER_BYTES as usize;
        let footer = SegmentTable::footer_bytes(&object[trailer_at..]).expect("it was read already");
        assert_eq!(end + footer + TRAILER_BYTES, object.len() as u64);
        let tail = &object[trailer_at - footer as usize..];
        assert_eq!(SegmentTable::decode(tail, object.len() as u64).expect("the same bytes"), table);
    }
}

fn repair(object: &mut [u8]) {
    let Some(trailer_at) = object.len().checked_sub(TRAILER_BYTES as usize) else { return };
    let Ok(footer) = SegmentTable::footer_bytes(&object[trailer_at..]) else { return };
    let Some(footer_at) = trailer_at.checked_sub(footer as usize) else { return };
    let crc = footer_crc(&object[footer_at..trailer_at + 4]);
    object[trailer_at + 4..trailer_at + 8].copy_from_slice(&crc.to_le_bytes());
}
