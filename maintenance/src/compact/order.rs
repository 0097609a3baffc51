//! In which order pages belong: those of a SQLite database by their B-trees, the pages above the leaves all together;
//! all others as they are numbered.

use std::sync::Arc;

use quire_history::{Lineage, Reader};
use quire_proto::{EncodedFrame, Error, ErrorKind, PageIdx, PageSize, Result};
use quire_sqlite_format::{Depth, Owner, TreeLevel, read_header, read_schema};

use super::source::StorePages;

/// The pages of larger volumes stay in page order, so that memory stays bounded.
pub(super) const MOST_PAGES: u32 = 4 << 20;

/// The order of a snapshot's pages.
pub(super) enum Order {
    /// As they are numbered.
    ByPage,
    /// This one, in which pages may be missing: they come last.
    Listed(Vec<PageIdx>),
}

/// The order in which the pages of a snapshot belong. A database that is too damaged to be understood is in page order.
pub(super) async fn order(reader: Arc<Reader>, lineage: Arc<Lineage>, page_size: PageSize) -> Result<Order> {
    in_background(move || {
        let mut pages = StorePages::new(reader, lineage, page_size);
        match list(&mut pages) {
            Ok(Some(listed)) => Ok(Order::Listed(listed)),
            Ok(None) => Ok(Order::ByPage),
            Err(e) if e.kind() == ErrorKind::Corrupt => Ok(Order::ByPage),
            Err(e) => Err(e),
        }
    })
    .await
}

/// The pages that whoever opens the snapshot needs at once.
pub(super) async fn boot_frames(
    reader: Arc<Reader>,
    lineage: Arc<Lineage>,
    page_size: PageSize,
) -> Result<Vec<EncodedFrame>> {
    in_background(move || quire_history::boot_frames(&mut StorePages::new(reader, lineage, page_size))).await
}

fn list(pages: &mut StorePages) -> Result<Option<Vec<PageIdx>>> {
    let Some(header) = read_header(pages)? else { return Ok(None) };
    let schema = read_schema(pages, &header)?;
    let (mut upper, mut others) = (Vec::new(), Vec::new());
    quire_sqlite_format::order(pages, &header, &schema, Depth::Trees, |page, owner| {
        let is_upper = matches!(owner, Owner::Schema | Owner::BTree { level: TreeLevel::Interior, .. });
        if is_upper {
            upper.push(page)
        } else {
            others.push(page)
        }
        Ok(())
    })?;
    upper.extend(others);
    Ok(Some(upper))
}

/// Runs what waits for the store, page by page, beside the tasks.
async fn in_background<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(e) => Err(Error::unavailable("the program is ending").with_source(e.to_string())),
        },
    }
}
