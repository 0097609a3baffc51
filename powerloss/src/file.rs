//! The bytes of one file: what is safe, and what was done to it since.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::image::Mood;

/// A disk writes this much at once, or not at all.
const SECTOR_BYTES: usize = 512;

/// A file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    synced: Vec<u8>,
    changes: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Resize { len: usize },
    Reserve { end: usize },
}

impl Change {
    /// How long a file of `len` bytes is after it.
    fn len_after(&self, len: usize) -> usize {
        match self {
            Change::Write { offset, bytes } => len.max(offset + bytes.len()),
            Change::Resize { len } => *len,
            Change::Reserve { end } => len.max(*end),
        }
    }
}

impl Content {
    /// A file that holds this, safely.
    pub(crate) fn of(bytes: Vec<u8>) -> Content {
        Content { synced: bytes, changes: Vec::new() }
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        self.changes.push(Change::Write { offset, bytes });
    }

    pub(crate) fn resize(&mut self, len: usize) {
        self.changes.push(Change::Resize { len });
    }

    pub(crate) fn reserve(&mut self, end: usize) {
        self.changes.push(Change::Reserve { end });
    }

    /// Everything so far is safe.
    pub(crate) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            let len = change.len_after(self.synced.len());
            self.synced.resize(len, 0);
            if let Change::Write { offset, bytes } = change {
                self.synced[offset..offset + bytes.len()].copy_from_slice(&bytes);
            }
        }
    }

    /// What the program itself reads.
    pub(crate) fn current(&self) -> Vec<u8> {
        let mut whole = self.clone();
        whole.sync();
        whole.synced
    }

    /// What the disk might hold if the power went now.
    pub(crate) fn after_power_loss(&self, mood: Mood, rng: &mut StdRng) -> Vec<u8> {
        let lengths: Vec<usize> = std::iter::once(self.synced.len())
            .chain(self.changes.iter().scan(self.synced.len(), |len, change| {
                *len = change.len_after(*len);
                Some(*len)
            }))
            .collect();
        // This many changes have had their effect on the length.
        let resized = mood.first_part(self.changes.len(), rng);
        let mut bytes = self.synced.clone();
        bytes.resize(lengths.iter().copied().max().unwrap_or(0), 0);
        for (n, change) in self.changes.iter().enumerate() {
            match change {
                Change::Write { offset, bytes: written } => keep_some(&mut bytes, *offset, written, mood, rng),
                Change::Resize { len } if n < resized => bytes[*len..].fill(0),
                Change::Resize { .. } | Change::Reserve { .. } => {}
            }
        }
        bytes.truncate(lengths[resized]);
        bytes
    }
}

/// Writes all, nothing, or some sectors.
fn keep_some(file: &mut [u8], offset: usize, written: &[u8], mood: Mood, rng: &mut StdRng) {
    let is_torn = mood.tears(rng);
    let is_kept = mood.keeps(rng);
    let mut at = offset;
    let end = offset + written.len();
    while at < end {
        let next = ((at / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if if is_torn { rng.random() } else { is_kept } {
            file[at..next].copy_from_slice(&written[at - offset..next - offset]);
        }
        at = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    /// All that can be left of a file, as far as many attempts show.
    fn outcomes(file: &Content) -> BTreeSet<Vec<u8>> {
        let mut rng = StdRng::seed_from_u64(1);
        (0..3000)
            .map(|_| {
                let mood = Mood::random(&mut rng);
                file.after_power_loss(mood, &mut rng)
            })
            .collect()
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go() {
        let mut file = Content::of(b"old".to_vec());
        file.write(0, b"new".to_vec());
        file.sync();
        assert_eq!(outcomes(&file), BTreeSet::from([b"new".to_vec()]));
        file.write(0, b"N".to_vec());
        file.write(2, b"W".to_vec());
        let all = [b"new".to_vec(), b"New".to_vec(), b"neW".to_vec(), b"NeW".to_vec()];
        assert_eq!(outcomes(&file), BTreeSet::from(all), "in any order, and nothing else");
        assert_eq!(file.current(), b"NeW");
    }

    #[test]
    fn length_and_bytes_are_lost_apart_from_each_other() {
        let mut file = Content::of(b"a".to_vec());
        file.write(1, b"b".to_vec());
        assert_eq!(outcomes(&file), BTreeSet::from([b"a".to_vec(), b"a\0".to_vec(), b"ab".to_vec()]));
        let mut file = Content::of(b"a".to_vec());
        file.reserve(3);
        assert_eq!(outcomes(&file), BTreeSet::from([b"a".to_vec(), b"a\0\0".to_vec()]));
    }

    #[test]
    fn a_file_that_was_cut_and_grew_does_not_show_what_was_cut_off() {
        let mut file = Content::of(b"abc".to_vec());
        file.resize(1);
        file.resize(2);
        assert_eq!(file.current(), b"a\0");
        assert_eq!(outcomes(&file), BTreeSet::from([b"abc".to_vec(), b"a".to_vec(), b"a\0".to_vec()]));
    }

    #[test]
    fn writes_are_torn_between_sectors_only() {
        let mut file = Content::of(vec![0; 1536]);
        file.write(256, vec![1; 1024]);
        let outcomes = outcomes(&file);
        assert_eq!(outcomes.len(), 8, "three sectors are there or not");
        for bytes in outcomes {
            for part in [0..256, 256..512, 512..1024, 1024..1280, 1280..1536] {
                assert!(bytes[part.clone()].iter().all(|byte| *byte == bytes[part.start]), "{part:?} is torn");
            }
        }
    }
}
