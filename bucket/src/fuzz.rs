//! What must hold of any bytes that a store gives, for the fuzzer (`fuzz/` at
//! the root) and for the ordinary tests that replay what it found.

use quire_proto::VolumeName;
use quire_proto::fuzz::Check;

use crate::answers::Refusal;
use crate::{Key, keys, marker};

/// Every check with its name.
pub const TARGETS: [Check; 3] = [("marker", marker), ("refusal", refusal), ("key", key)];

/// Only the marker itself is one, whatever its checksum says.
pub fn marker(data: &[u8]) {
    let mut repaired = data.to_vec();
    if let Some((covered, crc)) = repaired.split_last_chunk_mut::<4>() {
        *crc = crc32fast::hash(covered).to_le_bytes();
    }
    for bytes in [data, &repaired] {
        if marker::check(bytes).is_ok() {
            assert_eq!(bytes, marker::encode(bytes[4]));
        }
    }
}

/// An error document gives a code and a message that stand in it.
pub fn refusal(data: &[u8]) {
    let Some((&status, body)) = data.split_first() else { return };
    let refusal = Refusal::parse(400 + u16::from(status), body);
    let text = String::from_utf8_lossy(body);
    assert!(text.contains(&refusal.code));
    assert!(refusal.message.chars().count() <= 200 || text.contains(&refusal.message));
    refusal.is_missing_bucket();
}

/// What a key is taken for has exactly this key.
pub fn key(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(key) = Key::parse(text) else { return };
    assert_eq!(key.as_str(), text);
    let volume = keys::volume_of(&key);
    let same = |name: &VolumeName| text.starts_with(keys::volume_prefix(name).as_str());
    assert!(volume.as_ref().is_none_or(same));
    // A listing lies below a volume's prefix, so its name was right.
    let Some(volume) = volume else { return };
    if let Some(lsn) = keys::lsn_of_commit(&key) {
        assert_eq!(keys::commit(&volume, lsn), key);
    }
    if let Some(segment) = keys::segment_of(&key) {
        assert_eq!(keys::segment(&volume, segment), key);
    }
}
