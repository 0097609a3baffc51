//! Folders: which name leads to which file, for the program now and on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Component, Path};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::image::Mood;

/// A file or folder, whatever its names are. Number 0 is the folder at the top.
pub(crate) type Node = usize;

/// A name in a folder.
pub(crate) type Entry = (Node, OsString);

/// Everything that has a name.
pub(crate) type Names = BTreeMap<Entry, Node>;

/// All folders.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folders {
    synced: Names,
    now: Names,
    changes: Vec<Change>,
}

/// One call: it has its whole effect or none.
type Change = Vec<(Entry, Option<Node>)>;

impl Folders {
    /// Nothing but what is safe.
    pub(crate) fn of(names: Names) -> Folders {
        Folders { synced: names.clone(), now: names, changes: Vec::new() }
    }

    /// What the program itself sees.
    pub(crate) fn current(&self) -> &Names {
        &self.now
    }

    /// What a path leads to.
    pub(crate) fn find(&self, path: &Path) -> Option<Node> {
        path.components().try_fold(0, |folder, part| match part {
            Component::Normal(name) => self.now.get(&(folder, name.to_owned())).copied(),
            _ => Some(folder),
        })
    }

    /// The entry that a path names, whose folder must exist.
    pub(crate) fn entry(&self, path: &Path) -> Option<Entry> {
        Some((self.find(path.parent()?)?, path.file_name()?.to_owned()))
    }

    /// Makes entries lead elsewhere, in one step.
    pub(crate) fn change(&mut self, change: Change) {
        change.iter().for_each(|(entry, node)| set(&mut self.now, entry, *node));
        self.changes.push(change);
    }

    /// The names in a folder are safe, and with them what the same calls did elsewhere.
    pub(crate) fn sync(&mut self, folder: Node) {
        // Of an entry elsewhere that becomes safe, what came before must not be done again later.
        let mut entries: BTreeSet<Entry> = BTreeSet::new();
        let mut is_safe = vec![false; self.changes.len()];
        for (change, is_safe) in self.changes.iter().zip(&mut is_safe).rev() {
            if change.iter().any(|(entry, _)| entry.0 == folder || entries.contains(entry)) {
                *is_safe = true;
                entries.extend(change.iter().map(|(entry, _)| entry.clone()));
            }
        }
        let mut rest = Vec::new();
        for (change, is_safe) in std::mem::take(&mut self.changes).into_iter().zip(is_safe) {
            if is_safe {
                change.iter().for_each(|(entry, node)| set(&mut self.synced, entry, *node));
            } else {
                rest.push(change);
            }
        }
        self.changes = rest;
    }

    /// What the disk might hold if the power went now. Spared entries are as the program sees them.
    pub(crate) fn after_power_loss(&self, is_spared: impl Fn(&Entry) -> bool, mood: Mood, rng: &mut StdRng) -> Names {
        let mut names = self.synced.clone();
        let mut ends: BTreeMap<Node, usize> = BTreeMap::new();
        let all = self.changes.len();
        let journal = mood.first_part(all, rng);
        let order = rng.random_range(0..3);
        for (n, change) in self.changes.iter().enumerate() {
            let is_kept = match order {
                0 => n < journal,
                1 => change
                    .iter()
                    .all(|((folder, _), _)| n < *ends.entry(*folder).or_insert_with(|| mood.first_part(all, rng))),
                _ => mood.keeps(rng),
            };
            if is_kept || change.iter().any(|(entry, _)| is_spared(entry)) {
                change.iter().for_each(|(entry, node)| set(&mut names, entry, *node));
            }
        }
        names
    }
}

fn set(names: &mut Names, entry: &Entry, node: Option<Node>) {
    match node {
        Some(node) => names.insert(entry.clone(), node),
        None => names.remove(entry),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn entry(folder: Node, name: &str) -> Entry {
        (folder, name.into())
    }

    /// All that can be left, as far as many attempts show.
    fn outcomes(folders: &Folders) -> BTreeSet<Names> {
        let mut rng = StdRng::seed_from_u64(1);
        let mut one = || {
            let mood = Mood::random(&mut rng);
            folders.after_power_loss(|_| false, mood, &mut rng)
        };
        (0..2000).map(|_| one()).collect()
    }

    fn names(names: &[(Node, &str, Node)]) -> Names {
        names.iter().map(|(folder, name, node)| (entry(*folder, name), *node)).collect()
    }

    #[test]
    fn a_name_is_safe_once_its_folder_is_synced_and_not_before() {
        let mut folders = Folders::default();
        folders.change(vec![(entry(0, "a"), Some(1))]);
        folders.change(vec![(entry(0, "b"), Some(2))]);
        let (a, b) = ((0, "a", 1), (0, "b", 2));
        assert_eq!(outcomes(&folders), [&[][..], &[a], &[b], &[a, b]].map(names).into());
        folders.sync(7);
        assert_eq!(outcomes(&folders).len(), 4, "another folder was synced");
        folders.sync(0);
        assert_eq!(outcomes(&folders), [names(&[a, b])].into());
        folders.change(vec![(entry(0, "a"), None)]);
        assert_eq!(outcomes(&folders), [&[a, b][..], &[b]].map(names).into());
    }

    #[test]
    fn a_rename_has_its_whole_effect_or_none() {
        let mut folders = Folders::of(names(&[(0, "old", 1), (0, "new", 2)]));
        folders.change(vec![(entry(0, "new"), None), (entry(0, "old"), Some(2))]);
        assert_eq!(outcomes(&folders), [&[(0, "old", 1), (0, "new", 2)][..], &[(0, "old", 2)]].map(names).into());
    }

    #[test]
    fn what_is_safe_never_comes_back_in_an_older_form() {
        let mut folders = Folders::default();
        folders.change(vec![(entry(1, "x"), Some(5))]);
        folders.change(vec![(entry(1, "x"), None), (entry(2, "y"), Some(5))]);
        folders.sync(2);
        assert_eq!(outcomes(&folders), [names(&[(2, "y", 5)])].into());
        assert_eq!(folders.current(), &names(&[(2, "y", 5)]));
    }
}
