//! Records, which come back when they are encoded again.

use quire_proto::{Reader, Writer};

use super::put_u32;
use crate::groups;
use crate::log::{RECORD_HEADER_BYTES, begin_record, check_record, finish_record};
use crate::recover::StateRecord;
use crate::state::{CommitRecord, State};

/// Where the checked record stands: its checksum covers its place.
const SALT: u64 = 11;
const OFFSET: u64 = 4096;

/// A record of a log that is accepted is just what its parts make.
pub fn log_record(data: &[u8]) {
    let mut repaired = data.to_vec();
    if repaired.len() >= RECORD_HEADER_BYTES {
        let payload_bytes = (repaired.len() - RECORD_HEADER_BYTES) as u32;
        put_u32(&mut repaired, 8, payload_bytes);
        finish_record(&mut repaired, SALT, OFFSET);
    }
    for bytes in [data, &repaired] {
        let Ok((header, payload)) = check_record(bytes, SALT, OFFSET) else { continue };
        let mut again = Vec::new();
        begin_record(&mut again, header.kind, header.page, header.seq, payload.len());
        again.extend_from_slice(payload);
        finish_record(&mut again, SALT, OFFSET);
        assert_eq!(again, bytes[..again.len()]);
        assert!(check_record(bytes, SALT, OFFSET + 1).is_err(), "the same bytes at another place");
    }
}

/// The state of a replica comes back.
pub fn state_record(data: &[u8]) {
    let Ok(record) = StateRecord::decode(data) else { return };
    let again = record.encode();
    let back = StateRecord::decode(&again).expect("what was encoded can be read");
    assert_eq!((back.link, &back.absent, back.settled), (record.link, &record.absent, record.settled));
    assert_eq!(back.state, record.state);
    assert_eq!(back.encode(), again);
    // A push that loses leaves nothing of itself.
    let mut lost = record.state;
    let unpushed = lost.unpushed();
    lost.intent_lost();
    assert_eq!((lost.unpushed(), lost.intent.is_none()), (unpushed, true));
    let mut w = Writer::new();
    lost.encode(&mut w);
    assert_eq!(State::decode(&mut Reader::new("state", w.as_slice())).expect("a state of ours"), lost);
}

/// A commit's record comes back.
pub fn commit_record(data: &[u8]) {
    let Ok(record) = CommitRecord::decode(data) else { return };
    let again = record.encode();
    assert_eq!(CommitRecord::decode(&again).expect("what was encoded can be read"), record);
    assert_eq!(CommitRecord::synced_before(data), Some(record.synced));
}

/// A decision is just what its volumes make.
pub fn decision(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some((covered, crc)) = repaired.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
    for bytes in [data, &repaired] {
        let Ok(volumes) = groups::decode(bytes) else { continue };
        let again = groups::encode(&volumes);
        assert_eq!(groups::decode(&again).expect("what was encoded can be read"), volumes);
    }
}
