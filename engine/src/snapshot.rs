//! A volume at one moment.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use quire_proto::{Attributes, Lsn, PageCount, PageIdx, PageSize, Result, VolumeName};

use crate::replica::Replica;
use crate::state::{BaseState, State};
use crate::table::{Cell, Table};

/// A volume at one moment; never changes. Cheap to clone. While one lives,
/// the data files that it may read stay.
#[derive(Clone)]
pub struct Snapshot {
    replica: Arc<Replica>,
    view: Arc<View>,
}

/// What a snapshot knows, without its replica.
pub(crate) struct View {
    version: u64,
    page_size: Option<PageSize>,
    page_count: PageCount,
    base: Option<BaseState>,
    remote: VolumeName,
    attributes: Attributes,
    table: Table,
    /// See `Core::pin`: tells which data files this snapshot may read.
    _pin: Arc<()>,
}

impl View {
    pub(crate) fn new(version: u64, state: &State, table: Table, pin: Arc<()>) -> Arc<View> {
        Arc::new(View {
            version,
            page_size: state.page_size,
            page_count: state.page_count,
            base: state.base.clone(),
            remote: state.remote.clone(),
            attributes: state.attributes.clone(),
            table,
            _pin: pin,
        })
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }
}

impl Snapshot {
    pub(crate) fn new(replica: Arc<Replica>, view: Arc<View>) -> Snapshot {
        Snapshot { replica, view }
    }

    /// Counts up by exactly one at every change of the volume's visible
    /// content in this process; a writer that wrote and was dropped uses one up too.
    pub fn version(&self) -> u64 {
        self.view.version
    }

    /// The size of its pages; none before the first commit of a new volume.
    pub fn page_size(&self) -> Option<PageSize> {
        self.view.page_size
    }

    /// How many pages it has.
    pub fn page_count(&self) -> PageCount {
        self.view.page_count
    }

    /// The LSN in the store that it stands on.
    pub fn base_lsn(&self) -> Option<Lsn> {
        self.view.base.as_ref().map(|b| b.lsn)
    }

    /// A small fact that travels with the volume, such as `content` or `length`.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.view.attributes.get(key).map(String::as_str)
    }

    pub(crate) fn attributes(&self) -> &Attributes {
        &self.view.attributes
    }

    pub(crate) fn base(&self) -> Option<&BaseState> {
        self.view.base.as_ref()
    }

    pub(crate) fn remote(&self) -> &VolumeName {
        &self.view.remote
    }

    pub(crate) fn table(&self) -> &Table {
        &self.view.table
    }

    pub(crate) fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Copies a page into `buf`, which is one page long: zeros past the last
    /// page. A page that is not here is fetched from the store.
    pub fn read(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        let view = &*self.view;
        if !view.page_count.contains(page) {
            buf.fill(0);
            return Ok(());
        }
        match view.table.get(page) {
            Cell::Zero => buf.fill(0),
            Cell::Absent if view.base.is_none() => buf.fill(0),
            Cell::Absent => return crate::fetch::read_absent(self, page, buf),
            Cell::At { place, verified } => {
                self.replica.read_place(place, page, buf, !verified)?;
                if !verified {
                    view.table.mark_verified(page, place);
                }
            }
        }
        self.replica.engine().counters.pages_from_cache.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a page can be read without the store.
    pub(crate) fn is_here(&self, page: PageIdx) -> bool {
        self.view.base.is_none() || self.view.table.get(page) != Cell::Absent
    }
}
