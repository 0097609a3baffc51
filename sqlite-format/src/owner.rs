//! What a page can be.

/// Whose a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// `sqlite_schema`, its overflow pages included.
    Schema,
    /// A table or an index.
    BTree {
        /// Its place in [`Schema::objects`](crate::Schema::objects).
        object: usize,
        /// What the page is there.
        level: TreeLevel,
    },
    /// The freelist, its trunk pages included.
    Freelist,
    /// Nobody: it says which page names which, in a database with auto-vacuum.
    PointerMap,
    /// Nobody: SQLite's locks lie there.
    LockByte,
    /// Nobody who could be found.
    Unknown,
}

/// What a page is in its B-tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TreeLevel {
    /// It has pages below it.
    Interior,
    /// It has none.
    Leaf,
    /// It continues what did not fit into one of the others.
    Overflow,
}
