//! A volume at one moment.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use quire_proto::{Attributes, ErrorKind, Lsn, PageCount, PageIdx, PageSize, Result, VolumeName};

use crate::log::Place;
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

/// Where the content of a page lies. One place has one content, for ever.
#[derive(Clone, Debug)]
pub struct PagePlace {
    replica: Weak<Replica>,
    place: Place,
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
        self.view.base.as_ref().filter(|base| base.volume == self.view.remote).map(|base| base.lsn)
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
        self.read_along(page, buf, || None)
    }

    /// As [`read`](Self::read), by somebody who may know what will be needed after a page that is not here: pages that are
    /// `wanted` come along with it. Without a word from him the engine has an eye on what was needed so far.
    pub fn read_along(
        &self,
        page: PageIdx,
        buf: &mut [u8],
        wanted: impl FnOnce() -> Option<Vec<PageIdx>>,
    ) -> Result<()> {
        let view = &*self.view;
        if !view.page_count.contains(page) {
            buf.fill(0);
            return Ok(());
        }
        match view.table.get(page) {
            Cell::At { place, verified: true } => self.replica.read_place(place, page, buf, false)?,
            Cell::At { place, verified: false } => return self.read_unverified(page, place, buf),
            Cell::Absent if self.is_in_base(page) => {
                return crate::fetch::read_absent(self, page, buf, wanted().as_deref());
            }
            Cell::Absent | Cell::Zero => buf.fill(0),
        }
        self.count_read();
        Ok(())
    }

    /// Where a page lies, if it is here.
    pub fn place_of(&self, page: PageIdx) -> Option<PagePlace> {
        match self.view.table.get(page) {
            Cell::At { place, .. } if self.view.page_count.contains(page) => {
                Some(PagePlace { replica: Arc::downgrade(&self.replica), place })
            }
            _ => None,
        }
    }

    /// Whether a page lies where one lay that was read before.
    pub fn lies_at(&self, page: PageIdx, at: &PagePlace) -> bool {
        let is_there = matches!(self.view.table.get(page), Cell::At { place, .. } if place == at.place);
        is_there && self.view.page_count.contains(page) && std::ptr::eq(at.replica.as_ptr(), &*self.replica)
    }

    /// As [`read`](Self::read), but a page that is here is checked as it lies on disk.
    pub(crate) fn read_as_on_disk(&self, page: PageIdx, buf: &mut [u8]) -> Result<()> {
        match self.view.table.get(page) {
            Cell::At { place, .. } if self.view.page_count.contains(page) => self.read_unverified(page, place, buf),
            _ => self.read(page, buf),
        }
    }

    /// Checks a page, then marks it as checked. A damaged page of the cache is
    /// fetched again: cache files are never synced, so a loss of power may
    /// leave anything in them.
    fn read_unverified(&self, page: PageIdx, place: Place, buf: &mut [u8]) -> Result<()> {
        let table = &self.view.table;
        match self.replica.read_place(place, page, buf, true) {
            Ok(()) => {
                table.mark_verified(page, place);
                crate::fetch::touched(self, page);
                self.count_read();
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Corrupt && self.replica.is_in_cache(place) => {
                tracing::warn!("{e}: it is fetched again");
                table.forget(page, place);
                crate::fetch::read_absent(self, page, buf, None)
            }
            Err(e) => Err(e),
        }
    }

    fn count_read(&self) {
        self.replica.engine().counters.pages_from_cache.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the base has the page: if not, and nobody has written it since, it is zeros.
    fn is_in_base(&self, page: PageIdx) -> bool {
        self.view.base.as_ref().is_some_and(|base| base.page_count.contains(page))
    }

    /// Whether a page can be read without the store.
    pub fn is_here(&self, page: PageIdx) -> bool {
        !self.is_in_base(page) || self.view.table.get(page) != Cell::Absent
    }

    /// How many pages can be read without the store.
    pub(crate) fn pages_here(&self) -> u64 {
        let count = self.view.page_count;
        let in_base = self.view.base.as_ref().map_or(0, |base| base.page_count.get()).min(count.get());
        let mut here = u64::from(count.get() - in_base);
        self.view.table.for_each(|page, _| here += u64::from(page.get() <= in_base));
        here
    }
}
