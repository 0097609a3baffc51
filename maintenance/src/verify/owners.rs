//! Whose damaged pages are, in a SQLite database.

use quire_proto::{Error, ErrorKind, PageCount, PageIdx, PageSet, PageSize, Result};
use quire_sqlite_format::{Depth, Owners, Pages, Share, Shares, read_header, read_schema};

/// Whose the pages of each of these sets are, in a snapshot which itself may be damaged; none if it is no SQLite
/// database. Pages that cannot be placed in it are looked for in `older`, a snapshot before it.
pub fn owners<P: Pages>(pages: P, older: Option<P>, among: &[PageSet]) -> Result<Option<Vec<Vec<Share>>>> {
    let mut shares: Vec<Shares> = among.iter().map(|_| Shares::default()).collect();
    let mut rest = among.to_vec();
    let mut is_placed = place(pages, &mut rest, &mut shares)?;
    if let Some(older) = older
        && (!is_placed || rest.iter().any(|pages| !pages.is_empty()))
    {
        is_placed |= place(older, &mut rest, &mut shares)?;
    }
    if !is_placed {
        return Ok(None);
    }
    shares.iter_mut().zip(&rest).for_each(|(shares, unplaced)| shares.add_other(unplaced));
    Ok(Some(shares.into_iter().map(Shares::into_vec).collect()))
}

/// Places the pages of each set; leaves in it those that it could not. False: it is no SQLite database, or its first
/// page is lost.
fn place<P: Pages>(pages: P, among: &mut [PageSet], shares: &mut [Shares]) -> Result<bool> {
    let mut pages = Damaged(pages);
    let header = match read_header(&mut pages) {
        Ok(Some(header)) => header,
        Ok(None) => return Ok(false),
        Err(e) if e.kind() == ErrorKind::Corrupt => return Ok(false),
        Err(e) => return Err(e),
    };
    let schema = read_schema(&mut pages, &header)?;
    let owners = Owners::find(&mut pages, &header, &schema, Depth::Trees)?;
    for (pages, shares) in among.iter_mut().zip(shares) {
        *pages = shares.add(&owners, &schema, pages);
    }
    Ok(true)
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
