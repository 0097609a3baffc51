//! Where pages come from.

use quire_proto::{PageCount, PageIdx, PageSize, Result};

/// The pages of one snapshot.
///
/// A read may be slow, so each function of this crate says which pages it
/// reads. It may read the same page again: what was fetched once should be
/// kept. An error of kind [`Corrupt`](quire_proto::ErrorKind::Corrupt) is taken
/// as a damaged page, and the walk goes on without it; any other ends the walk.
pub trait Pages {
    /// How many pages there are.
    fn page_count(&self) -> PageCount;

    /// The size of each.
    fn page_size(&self) -> PageSize;

    /// Reads a page that exists; `buf` has the length of a page.
    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()>;
}
