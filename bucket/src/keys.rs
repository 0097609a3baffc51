//! The key of every kind of object. Layout and reasons: `FORMAT.md`.

use quire_proto::{Lsn, Result, SegmentId, VolumeName};
use ulid::Ulid;

use crate::Key;

/// Everything of one volume: `v/<name>/!`. Granting this prefix grants exactly
/// this volume: `!` occurs in no name, so `app` and `app/db` cannot mix.
pub fn volume_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "")
}

/// The marker for users who may only touch this volume (see `marker.rs`).
pub(crate) fn volume_marker(volume: &VolumeName) -> Key {
    in_volume(volume, "/store")
}

/// The log of a volume, newest commit first; nothing else lies there.
pub fn commits_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/c")
}

/// The commit that made `lsn`.
pub fn commit(volume: &VolumeName, lsn: Lsn) -> Key {
    in_volume(volume, &format!("/c/{}", inverted(lsn)))
}

/// The LSN of a commit's key; `None` for any other key.
pub fn lsn_of_commit(key: &Key) -> Option<Lsn> {
    let (_, object) = split_volume(key)?;
    lsn_of_inverted(object.strip_prefix("c/")?)
}

/// The roll-up whose last header is that of LSN `last`.
pub fn rollup(volume: &VolumeName, last: Lsn) -> Key {
    in_volume(volume, &format!("/roll/{}", inverted(last)))
}

/// All segments of a volume.
pub fn segments_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/seg")
}

/// One segment.
pub fn segment(volume: &VolumeName, id: SegmentId) -> Key {
    in_volume(volume, &format!("/seg/{}/{}", inverted(id.target), id.ulid))
}

/// The segment that a key names; `None` for any other key.
pub fn segment_of(key: &Key) -> Option<SegmentId> {
    let (_, object) = split_volume(key)?;
    let (target, ulid) = object.strip_prefix("seg/")?.rsplit_once('/')?;
    let id = SegmentId { target: lsn_of_inverted(target)?, ulid: Ulid::from_string(ulid).ok()? };
    (id.ulid.to_string() == ulid).then_some(id)
}

/// The volume that an object, or a volume's own folder, belongs to.
pub fn volume_of(key: &Key) -> Option<VolumeName> {
    let name = match split_volume(key) {
        Some((name, _)) => name,
        None => key.as_str().strip_prefix("v/")?.strip_suffix("/!")?,
    };
    VolumeName::decode(name).ok()
}

/// The folder below which all volumes lie whose names begin with `text`: its
/// parts up to the last `/`. The caller still compares the names.
pub fn volumes_prefix(text: &str) -> Result<Key> {
    match text.rsplit_once('/') {
        None => Ok(Key::trusted("v".to_owned())),
        Some((folder, _)) => Key::parse(&format!("v/{}", VolumeName::parse(folder)?.encoded())),
    }
}

fn in_volume(volume: &VolumeName, object: &str) -> Key {
    Key::trusted(format!("v/{}/!{object}", volume.encoded()))
}

fn split_volume(key: &Key) -> Option<(&str, &str)> {
    key.as_str().strip_prefix("v/")?.split_once("/!/")
}

/// 2^64-1-LSN in 16 lower-case hex digits, so that the newest sorts first,
/// split so that no folder of a file system holds more than 4,096 of them.
fn inverted(lsn: Lsn) -> String {
    let hex = format!("{:016x}", u64::MAX - lsn.get());
    format!("{}/{}", &hex[..13], &hex[13..])
}

fn lsn_of_inverted(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let number = u64::from_str_radix(&format!("{high}{low}"), 16).ok()?;
    // Only the one true spelling counts: no signs, no capitals, no other split.
    Lsn::new(u64::MAX - number).filter(|lsn| inverted(*lsn) == text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn volume(name: &str) -> VolumeName {
        VolumeName::parse(name).unwrap()
    }

    fn lsn(n: u64) -> Lsn {
        Lsn::new(n).unwrap()
    }

    #[test]
    fn the_first_commit_of_a_volume_has_this_key() {
        assert_eq!(commit(&volume("team/caf\u{e9}"), lsn(1)).as_str(), "v/team/caf%C3%A9/!/c/fffffffffffff/ffe");
    }

    #[test]
    fn a_longest_name_still_fits_a_key() {
        let name = [vec!["p".repeat(200); 3].join("/"), "p".repeat(37)].join("/");
        let id = SegmentId { target: lsn(1), ulid: Ulid::from_bytes([255; 16]) };
        Key::parse(segment(&volume(&name), id).as_str()).expect("640 bytes of name fit");
    }

    #[test]
    fn other_spellings_are_not_commits() {
        for text in [
            "v/a/!/c/FFFFFFFFFFFFF/FFE",
            "v/a/!/c/ffffffffffff/fffe",
            "v/a/!/c/ffffffffffffffe",
            "v/a/!/c/fffffffffffff/fff",
            "v/a/!/seg/fffffffffffff/ffe",
            "c/fffffffffffff/ffe",
        ] {
            assert_eq!(lsn_of_commit(&Key::parse(text).unwrap()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn newer_commits_sort_first_and_keys_come_back(a in 1u64.., b in 1u64.., name in "[a-z!\u{e9}]{1,5}(/[a-z!]{1,3})?") {
            let v = volume(&name);
            let (ka, kb) = (commit(&v, lsn(a)), commit(&v, lsn(b)));
            prop_assert_eq!(a.cmp(&b), kb.cmp(&ka));
            prop_assert_eq!(lsn_of_commit(&ka), Some(lsn(a)));
            prop_assert_eq!(volume_of(&ka), Some(v.clone()));
            prop_assert_eq!(volume_of(&volume_prefix(&v)), Some(v.clone()));
            let id = SegmentId { target: lsn(a), ulid: Ulid::from_bytes([b as u8; 16]) };
            prop_assert_eq!(segment_of(&segment(&v, id)), Some(id));
        }
    }
}
