//! Every page of every B-tree, tree by tree.

use quire_proto::{PageIdx, PageSet, Result};

use crate::levels::Interior;
use crate::walk::Walk;
use crate::{BTreePage, Owner, Pages, Schema, TreeLevel};

/// How far a walk goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Interior pages are read, and of each tree one leaf; leaves are known
    /// from the pages above them. Overflow pages of rows and keys stay unknown.
    Trees,
    /// Leaves and overflow pages are read too.
    Whole,
}

/// Visits the schema's pages, then for each of its objects the interior pages
/// from the top, the leaves in the order of their keys, and the overflow pages
/// in the order of the keys that they belong to.
pub(crate) fn visit_trees(
    walk: &mut Walk<'_, impl Pages + ?Sized>,
    schema: &Schema,
    depth: Depth,
    mut visit: impl FnMut(PageIdx, Owner) -> Result<()>,
) -> Result<()> {
    for &page in &schema.pages {
        if walk.take(page, PageIdx::FIRST) {
            visit(page, Owner::Schema)?;
        }
    }
    for (object, root) in schema.objects.iter().map(|object| object.root).enumerate() {
        visit_tree(walk, root, depth, |page, level| visit(page, Owner::BTree { object, level }))?;
    }
    Ok(())
}

/// A tree of which not even the root can be read is taken for a leaf.
fn visit_tree(
    walk: &mut Walk<'_, impl Pages + ?Sized>,
    root: PageIdx,
    depth: Depth,
    mut visit: impl FnMut(PageIdx, TreeLevel) -> Result<()>,
) -> Result<()> {
    if !walk.take(root, PageIdx::FIRST) {
        return Ok(());
    }
    let Some(node) = walk.node(root, |_| true)? else { return visit(root, TreeLevel::Leaf) };
    let index = node.kind.is_index();
    if node.kind.is_leaf() {
        visit(root, TreeLevel::Leaf)?;
        return match depth {
            Depth::Trees => Ok(()),
            Depth::Whole => visit_overflow(walk, root, &node, &mut visit),
        };
    }
    let interior = walk.interior_below(root, index)?;
    interior.pages.iter().try_for_each(|&page| visit(page, TreeLevel::Interior))?;
    let mut leaves = PageSet::new();
    walk.leaves_below(&interior, index, |page| {
        if depth == Depth::Whole {
            leaves.insert(page);
        }
        visit(page, TreeLevel::Leaf)
    })?;
    match depth {
        Depth::Trees => Ok(()),
        Depth::Whole => visit_all_overflow(walk, &interior, leaves, index, &mut visit),
    }
}

/// The overflow pages of keys on interior pages, and of what is on the tree's `leaves`.
fn visit_all_overflow(
    walk: &mut Walk<'_, impl Pages + ?Sized>,
    interior: &Interior,
    mut leaves: PageSet,
    index: bool,
    visit: &mut impl FnMut(PageIdx, TreeLevel) -> Result<()>,
) -> Result<()> {
    if index {
        for &page in &interior.pages {
            if let Some(node) = walk.interior(page, index)? {
                visit_overflow(walk, page, &node, visit)?;
            }
        }
    }
    for &page in interior.lowest() {
        for child in walk.children(page, index)? {
            // One that is named twice is read once.
            if !leaves.remove(child) {
                continue;
            }
            if let Some(leaf) = walk.node(child, |node| node.kind.is_index() == index && node.kind.is_leaf())? {
                visit_overflow(walk, child, &leaf, visit)?;
            }
        }
    }
    Ok(())
}

/// The overflow pages of what is on one page.
fn visit_overflow(
    walk: &mut Walk<'_, impl Pages + ?Sized>,
    page: PageIdx,
    node: &BTreePage,
    visit: &mut impl FnMut(PageIdx, TreeLevel) -> Result<()>,
) -> Result<()> {
    node.overflow
        .iter()
        .try_for_each(|&chain| walk.overflow(chain, page, false, |page, _| visit(page, TreeLevel::Overflow)))
}
