//! A B-tree from the top, level by level.
//!
//! All leaves of a B-tree lie at the same depth, so one page of a level tells
//! what its neighbours are. That holds for every tree that SQLite has written;
//! where it does not, a tree is damaged, and pages of it stay unknown.

use quire_proto::{PageIdx, Result};

use crate::Pages;
use crate::walk::Walk;

/// SQLite's own bound; a tree of this depth would not fit into a file.
pub(crate) const MAX_LEVELS: usize = 20;

/// The interior pages of a B-tree.
pub(crate) struct Interior {
    /// Level by level.
    pub(crate) pages: Vec<PageIdx>,
    /// Where the lowest level begins, that above the leaves.
    lowest: usize,
}

impl Interior {
    /// The pages that lie above leaves.
    pub(crate) fn lowest(&self) -> &[PageIdx] {
        &self.pages[self.lowest..]
    }
}

impl<P: Pages + ?Sized> Walk<'_, P> {
    /// Takes the interior pages below `root`, which is one too. Reads all but
    /// those of the lowest level, of which it reads the first, and one leaf.
    pub(crate) fn interior_below(&mut self, root: PageIdx, index: bool) -> Result<Interior> {
        let mut interior = Interior { pages: vec![root], lowest: 0 };
        for _ in 1..MAX_LEVELS {
            let below = self.next_level(interior.lowest(), index, usize::MAX)?;
            if below.is_empty() {
                break;
            }
            interior.lowest = interior.pages.len();
            interior.pages.extend(below);
        }
        Ok(interior)
    }

    /// Takes the leaves, in the order of their keys. Reads the pages above them.
    pub(crate) fn leaves_below(
        &mut self,
        interior: &Interior,
        index: bool,
        mut visit: impl FnMut(PageIdx) -> Result<()>,
    ) -> Result<()> {
        for &page in interior.lowest() {
            for child in self.children(page, index)? {
                if self.take(child, page) {
                    visit(child)?;
                }
            }
        }
        Ok(())
    }

    /// Takes the pages below `level` if they are interior ones, up to `limit`
    /// of them. Reads the pages of `level` then; if leaves lie below, only the
    /// first and one of its children.
    pub(crate) fn next_level(&mut self, level: &[PageIdx], index: bool, limit: usize) -> Result<Vec<PageIdx>> {
        let mut below = Vec::new();
        if !self.has_interior_below(level, index)? {
            return Ok(below);
        }
        for &page in level {
            if below.len() >= limit {
                break;
            }
            for child in self.children(page, index)? {
                if self.take(child, page) {
                    below.push(child);
                }
            }
        }
        below.truncate(limit);
        Ok(below)
    }

    /// Asks one page below `level`; others if that is damaged, which lie far
    /// from it, because damage comes in runs.
    fn has_interior_below(&mut self, level: &[PageIdx], index: bool) -> Result<bool> {
        for page in spread(level) {
            let children = self.children(page, index)?;
            for child in spread(&children) {
                if !self.exists(child) || self.taken.contains(child) {
                    continue;
                }
                if let Some(child) = self.node(child, |node| node.kind.is_index() == index)? {
                    return Ok(!child.kind.is_leaf());
                }
            }
        }
        Ok(false)
    }
}

/// The first of `pages`, the last, and one between them.
fn spread(pages: &[PageIdx]) -> impl Iterator<Item = PageIdx> {
    let places = [0, pages.len().saturating_sub(1), pages.len() / 2];
    let new = (0..places.len()).filter(move |&i| !places[..i].contains(&places[i]));
    new.filter_map(move |i| pages.get(places[i]).copied())
}
