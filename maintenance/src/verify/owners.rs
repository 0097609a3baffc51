//! Whose damaged pages are, in a SQLite database.

use quire_proto::{Error, ErrorKind, PageCount, PageIdx, PageSet, PageSize, Result};
use quire_sqlite_format::{Depth, Owners, Pages, Share, Shares, read_header, read_schema};

/// Whose some pages of a snapshot are, which itself may be damaged; none if it is no SQLite database. Pages that
/// cannot be placed in it are looked for in `older`, a snapshot before it.
pub fn owners<P: Pages>(pages: P, older: Option<P>, among: &PageSet) -> Result<Option<Vec<Share>>> {
    let mut shares = Shares::default();
    let mut unplaced = place(pages, among, &mut shares)?;
    if let (Some(older), Some(rest)) = (older, unplaced.as_ref().map_or(Some(among), Some))
        && !rest.is_empty()
    {
        let known_before = unplaced.is_some();
        match place(older, rest, &mut shares)? {
            Some(rest) => unplaced = Some(rest),
            None if known_before => {}
            None => return Ok(None),
        }
    }
    let Some(unplaced) = unplaced else { return Ok(None) };
    shares.add_other(&unplaced);
    Ok(Some(shares.into_vec()))
}

/// Places pages; gives back those that it could not. None: it is no SQLite database, or its first page is lost.
fn place<P: Pages>(pages: P, among: &PageSet, shares: &mut Shares) -> Result<Option<PageSet>> {
    let mut pages = Damaged(pages);
    let header = match read_header(&mut pages) {
        Ok(Some(header)) => header,
        Ok(None) => return Ok(None),
        Err(e) if e.kind() == ErrorKind::Corrupt => return Ok(None),
        Err(e) => return Err(e),
    };
    let schema = read_schema(&mut pages, &header)?;
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Trees)?;
    Ok(Some(shares.add(&owners, &schema, among)))
}

/// A snapshot some of whose pages are missing, which to whoever walks it is the same as damaged.
struct Damaged<P>(P);

impl<P: Pages> Pages for Damaged<P> {
    fn page_count(&self) -> PageCount {
        self.0.page_count()
    }

    fn page_size(&self) -> PageSize {
        self.0.page_size()
    }

    fn read(&mut self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        self.0.read(page, buf).map_err(|e| match e.kind() {
            ErrorKind::NotFound | ErrorKind::Gone => Error::corrupt(e.to_string()),
            _ => e,
        })
    }
}
