//! Whose each page is, kept as sets of pages.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use quire_proto::{PageCount, PageIdx, PageSet, Result};

use crate::trees::visit_trees;
use crate::walk::Walk;
use crate::{DatabaseHeader, Depth, Owner, Pages, Schema, TreeLevel};

/// Neighbouring pages of one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: PageIdx,
    /// The last page.
    pub last: PageIdx,
    /// Whose they are.
    pub owner: Owner,
}

/// The owner of each page of a snapshot. It takes about two bytes a page at
/// most, and much less where an owner's pages are neighbours.
#[derive(Debug)]
pub struct Owners {
    header: DatabaseHeader,
    /// The pages that the database uses; the file may be longer.
    page_count: PageCount,
    schema: PageSet,
    trees: Vec<Tree>,
    free: PageSet,
    damaged: PageSet,
}

#[derive(Clone, Debug, Default)]
struct Tree {
    interior: PageSet,
    leaves: PageSet,
    overflow: PageSet,
}

impl Tree {
    fn set(&mut self, level: TreeLevel) -> &mut PageSet {
        match level {
            TreeLevel::Interior => &mut self.interior,
            TreeLevel::Leaf => &mut self.leaves,
            TreeLevel::Overflow => &mut self.overflow,
        }
    }

    fn sets(&self) -> [(TreeLevel, &PageSet); 3] {
        [(TreeLevel::Interior, &self.interior), (TreeLevel::Leaf, &self.leaves), (TreeLevel::Overflow, &self.overflow)]
    }
}

impl Owners {
    /// Walks the database. Reads what [`Depth`] says, and the freelist's trunk pages.
    pub fn find(
        pages: &mut (impl Pages + ?Sized),
        header: &DatabaseHeader,
        schema: &Schema,
        depth: Depth,
    ) -> Result<Owners> {
        let mut walk = Walk::new(pages, header);
        let (mut own, mut trees) = (PageSet::new(), vec![Tree::default(); schema.objects.len()]);
        visit_trees(&mut walk, schema, depth, |page, owner| {
            match owner {
                Owner::BTree { object, level } => trees[object].set(level).insert(page),
                _ => own.insert(page),
            };
            Ok(())
        })?;
        let free = walk.freelist()?;
        let mut damaged = walk.damaged;
        damaged.union_with(&schema.damaged);
        Ok(Owners { header: header.clone(), page_count: walk.count, schema: own, trees, free, damaged })
    }

    /// Whose a page is. For many pages [`runs`](Owners::runs) is faster.
    pub fn owner(&self, page: PageIdx) -> Owner {
        let found = self.sets().find(|(_, set)| set.contains(page)).map(|(owner, _)| owner);
        found.unwrap_or_else(|| self.header.owner_by_place(page, self.page_count))
    }

    /// The pages of `among` in ascending order, neighbours of one owner together.
    pub fn runs<'a>(&'a self, among: &'a PageSet) -> impl Iterator<Item = Run> + 'a {
        let mut asked = among.ranges();
        let mut owned = Merged::new(self.sets()).peekable();
        let mut at = asked.next();
        std::iter::from_fn(move || {
            let (first, last) = at?;
            while owned.next_if(|run| run.1 < first).is_some() {}
            let (owner, end) = match owned.peek() {
                Some(&(start, end, owner)) if start <= first => (owner, end),
                Some(&(start, ..)) => self.gap(first, start - 1),
                None => self.gap(first, u32::MAX),
            };
            let end = end.min(last);
            at = if end < last { Some((end + 1, last)) } else { asked.next() };
            Some(Run { first: PageIdx::new(first)?, last: PageIdx::new(end)?, owner })
        })
    }

    /// Whose `first`, which no set has, and the pages after it are, up to `last` at most.
    fn gap(&self, first: u32, last: u32) -> (Owner, u32) {
        let Some(page) = PageIdx::new(first) else { return (Owner::Unknown, last) };
        let owner = self.header.owner_by_place(page, self.page_count);
        if owner != Owner::Unknown {
            return (owner, first);
        }
        let lock = Some(self.header.lock_page()).filter(|lock| *lock > page);
        let places = [lock, self.header.pointer_map_from(page)].into_iter().flatten();
        let next = places.min().filter(|next| self.page_count.contains(*next));
        (Owner::Unknown, next.map_or(last, |next| last.min(next.get() - 1)))
    }

    /// Pages that are not what others say of them, and pages that name what
    /// cannot be theirs; page 1 stands for the whole schema. What lies below
    /// them is unknown.
    pub fn damaged(&self) -> &PageSet {
        &self.damaged
    }

    fn sets(&self) -> impl Iterator<Item = (Owner, &PageSet)> {
        let trees = self
            .trees
            .iter()
            .enumerate()
            .flat_map(|(object, tree)| tree.sets().map(|(level, set)| (Owner::BTree { object, level }, set)));
        [(Owner::Schema, &self.schema), (Owner::Freelist, &self.free)].into_iter().chain(trees)
    }
}

/// A run of pages as plain numbers: first, last, owner.
type Owned = (u32, u32, Owner);

type Ranges<'a> = Box<dyn Iterator<Item = (u32, u32)> + 'a>;

/// The ranges of many sets that share no page, in ascending order.
struct Merged<'a> {
    sets: Vec<(Owner, Ranges<'a>)>,
    /// The next range of each set, with the set's number.
    next: BinaryHeap<Reverse<(u32, u32, usize)>>,
}

impl<'a> Merged<'a> {
    fn new(sets: impl Iterator<Item = (Owner, &'a PageSet)>) -> Merged<'a> {
        let mut merged = Merged { sets: Vec::new(), next: BinaryHeap::new() };
        for (owner, set) in sets.filter(|(_, set)| !set.is_empty()) {
            merged.sets.push((owner, Box::new(set.ranges())));
            merged.advance(merged.sets.len() - 1);
        }
        merged
    }

    fn advance(&mut self, set: usize) {
        let range = self.sets[set].1.next();
        self.next.extend(range.map(|(first, last)| Reverse((first, last, set))));
    }
}

impl Iterator for Merged<'_> {
    type Item = Owned;

    fn next(&mut self) -> Option<Owned> {
        let Reverse((first, last, set)) = self.next.pop()?;
        self.advance(set);
        Some((first, last, self.sets[set].0))
    }
}
