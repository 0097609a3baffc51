//! The pages that every query passes.

use quire_proto::{PageIdx, Result};

use crate::levels::MAX_LEVELS;
use crate::walk::Walk;
use crate::{DatabaseHeader, Pages, Schema};

/// The pages that a replica wants first, in the order in which SQLite comes to
/// them: the schema's, the root of each B-tree, then level by level the interior
/// pages of all of them, up to `budget` pages. Leaves are among them only where
/// they are roots.
///
/// Reads the roots; of each larger tree the first page of each level, one leaf,
/// and the interior pages that lie two levels or more above the leaves. Pages
/// that it finds damaged are left out.
pub fn upper_levels(
    pages: &mut (impl Pages + ?Sized),
    header: &DatabaseHeader,
    schema: &Schema,
    budget: usize,
) -> Result<Vec<PageIdx>> {
    let mut walk = Walk::new(pages, header);
    let mut upper: Vec<PageIdx> =
        schema.pages.iter().copied().filter(|&page| walk.take(page, PageIdx::FIRST)).collect();
    // The trees that go on below `upper`: their lowest level so far, and whether they are index B-trees.
    let mut trees = Vec::new();
    for root in schema.objects.iter().map(|object| object.root) {
        if upper.len() >= budget {
            break;
        }
        if !walk.take(root, PageIdx::FIRST) {
            continue;
        }
        let Some(node) = walk.node(root, |_| true)? else { continue };
        upper.push(root);
        if !node.kind.is_leaf() {
            trees.push((vec![root], node.kind.is_index()));
        }
    }
    for _ in 1..MAX_LEVELS {
        let mut deeper = Vec::new();
        for (level, index) in trees {
            let room = budget.saturating_sub(upper.len());
            if room == 0 {
                break;
            }
            let below = walk.next_level(&level, index, room)?;
            upper.extend(&below);
            if !below.is_empty() {
                deeper.push((below, index));
            }
        }
        trees = deeper;
    }
    upper.truncate(budget);
    Ok(upper)
}
