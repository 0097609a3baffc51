//! The order in which pages are worth keeping together.

use quire_proto::{PageIdx, Result};

use crate::trees::visit_trees;
use crate::walk::Walk;
use crate::{DatabaseHeader, Depth, Owner, Pages, Schema};

/// Visits every page once, with its owner: the schema; for each object of the
/// schema the interior pages from the top, the leaves in the order of their
/// keys, the overflow pages; then the rest in page order.
///
/// Reads what [`Depth`] says, interior pages up to four times, and the trunk
/// pages of the freelist. At [`Depth::Trees`] overflow pages are part of the
/// rest. Memory: four bytes for each interior page of the largest tree, and
/// sets of the pages seen.
pub fn order(
    pages: &mut (impl Pages + ?Sized),
    header: &DatabaseHeader,
    schema: &Schema,
    depth: Depth,
    mut visit: impl FnMut(PageIdx, Owner) -> Result<()>,
) -> Result<()> {
    let file_pages = pages.page_count();
    let mut walk = Walk::new(pages, header);
    visit_trees(&mut walk, schema, depth, &mut visit)?;
    let free = walk.freelist()?;
    for page in (1..=file_pages.get()).filter_map(PageIdx::new) {
        if free.contains(page) {
            visit(page, Owner::Freelist)?;
        } else if !walk.taken.contains(page) {
            visit(page, header.owner_by_place(page, walk.count))?;
        }
    }
    Ok(())
}
