//! The key of every kind of object. Layout and reasons: `FORMAT.md`.

use quire_proto::{CheckpointPlace, Lsn, Result, SegmentId, VolumeName};
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

/// All checkpoints of a volume, those of the newest LSNs first, and of one LSN the highest generation first.
pub fn checkpoints_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/ck")
}

/// A checkpoint.
pub fn checkpoint(volume: &VolumeName, place: CheckpointPlace) -> Key {
    in_volume(volume, &format!("/ck/{}/{:08x}", inverted(place.lsn), u32::MAX - place.generation))
}

/// The checkpoint that a key names; `None` for any other key.
pub fn checkpoint_of(key: &Key) -> Option<CheckpointPlace> {
    let (_, object) = split_volume(key)?;
    let (lsn, generation) = object.strip_prefix("ck/")?.rsplit_once('/')?;
    Some(CheckpointPlace { lsn: lsn_of_inverted(lsn)?, generation: generation_of(generation)? })
}

/// All markers on snapshots of a volume.
pub fn markers_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/mark")
}

/// A marker on snapshot `lsn` of a volume.
pub fn marker(volume: &VolumeName, lsn: Lsn, id: Ulid) -> Key {
    in_volume(volume, &format!("/mark/{}/{id}", inverted(lsn)))
}

/// The marker that a key names; `None` for any other key.
pub fn marker_of(key: &Key) -> Option<(Lsn, Ulid)> {
    let (_, object) = split_volume(key)?;
    let (lsn, ulid) = object.strip_prefix("mark/")?.rsplit_once('/')?;
    Some((lsn_of_inverted(lsn)?, ulid_of(ulid)?))
}

/// All statements of what is kept of a volume, the newest first.
pub fn statements_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/keep")
}

/// A statement, by its number.
pub fn statement(volume: &VolumeName, number: Lsn) -> Key {
    in_volume(volume, &format!("/keep/{}", inverted(number)))
}

/// The number of the statement that a key names; `None` for any other key.
pub fn number_of_statement(key: &Key) -> Option<Lsn> {
    lsn_of_inverted(split_volume(key)?.1.strip_prefix("keep/")?)
}

/// All that was said of what to keep of a volume, the newest first.
pub fn retentions_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/want")
}

/// What was said of what to keep, by its number.
pub fn retention(volume: &VolumeName, number: Lsn) -> Key {
    in_volume(volume, &format!("/want/{}", inverted(number)))
}

/// The number of what was said of what to keep; `None` for any other key.
pub fn number_of_retention(key: &Key) -> Option<Lsn> {
    lsn_of_inverted(split_volume(key)?.1.strip_prefix("want/")?)
}

/// An object that is written to see the store's clock.
pub fn clock(volume: &VolumeName, id: Ulid) -> Key {
    in_volume(volume, &format!("/now/{id}"))
}

/// All segments of a volume that pushes wrote.
pub fn segments_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/seg")
}

/// All segments of a volume that compactions wrote.
pub fn compacted_prefix(volume: &VolumeName) -> Key {
    in_volume(volume, "/iseg")
}

/// One segment.
pub fn segment(volume: &VolumeName, id: SegmentId) -> Key {
    let target = inverted(id.target);
    match id.generation {
        0 => in_volume(volume, &format!("/seg/{target}/{}", id.ulid)),
        generation => in_volume(volume, &format!("/iseg/{target}/{:08x}/{}", u32::MAX - generation, id.ulid)),
    }
}

/// The segment that a key names; `None` for any other key.
pub fn segment_of(key: &Key) -> Option<SegmentId> {
    let (_, object) = split_volume(key)?;
    let (place, ulid) = object.rsplit_once('/')?;
    let (target, generation) = match place.strip_prefix("iseg/") {
        Some(place) => {
            let (target, generation) = place.rsplit_once('/')?;
            (target, generation_of(generation).filter(|generation| *generation > 0)?)
        }
        None => (place.strip_prefix("seg/")?, 0),
    };
    Some(SegmentId { target: lsn_of_inverted(target)?, generation, ulid: ulid_of(ulid)? })
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

/// Only the one true spelling counts.
fn generation_of(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok().filter(|n| format!("{n:08x}") == text).map(|n| u32::MAX - n)
}

fn ulid_of(text: &str) -> Option<Ulid> {
    Ulid::from_string(text).ok().filter(|ulid| ulid.to_string() == text)
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
        let id = SegmentId { target: lsn(1), generation: 1, ulid: Ulid::from_bytes([255; 16]) };
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
        fn newer_commits_sort_first_and_keys_come_back(a in 1..=Lsn::MAX, b in 1..=Lsn::MAX, name in "[a-z!\u{e9}]{1,5}(/[a-z!]{1,3})?") {
            let v = volume(&name);
            let (ka, kb) = (commit(&v, lsn(a)), commit(&v, lsn(b)));
            prop_assert_eq!(a.cmp(&b), kb.cmp(&ka));
            prop_assert_eq!(lsn_of_commit(&ka), Some(lsn(a)));
            prop_assert_eq!(volume_of(&ka), Some(v.clone()));
            prop_assert_eq!(volume_of(&volume_prefix(&v)), Some(v.clone()));
            let id = SegmentId { target: lsn(a), generation: b as u32, ulid: Ulid::from_bytes([b as u8; 16]) };
            prop_assert_eq!(segment_of(&segment(&v, id)), Some(id));
            let place = |n, generation| CheckpointPlace { lsn: lsn(n), generation };
            let (pa, pb) = (place(a, b as u32), place(b, a as u32));
            prop_assert_eq!(pa.cmp(&pb), checkpoint(&v, pb).cmp(&checkpoint(&v, pa)));
            prop_assert_eq!(checkpoint_of(&checkpoint(&v, pa)), Some(pa));
            prop_assert_eq!(marker_of(&marker(&v, lsn(a), id.ulid)), Some((lsn(a), id.ulid)));
            prop_assert_eq!(number_of_statement(&statement(&v, lsn(a))), Some(lsn(a)));
            prop_assert_eq!(number_of_retention(&retention(&v, lsn(a))), Some(lsn(a)));
        }
    }
}
