//! The VFS's file calls in any order that SQLite might choose, against a plain
//! model: for the fuzzer (`fuzz/` at the root), and for the ordinary tests that
//! replay what it found.
//!
//! Three connections, two of them on one volume; each input is a row of
//! operations. What is read must be what the model says, byte for byte but for
//! the change counter; and a counter that a connection knows from before must
//! stand for what it stood for then, or SQLite would trust an outdated cache.

mod calls;
mod model;

use std::cell::OnceCell;
use std::ffi::{CString, c_int};
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use libsqlite3_sys as ffi;
use quire_engine::{Engine, PageIdx, VolumeName};
use quire_proto::fuzz::Check;
use quire_settings::{Key, Overrides, Source};
use tempfile::TempDir;

use self::calls::{File, Vfs, text};
use self::model::{Content, Staged, View, Volume};

/// Every check with its name.
pub const TARGETS: [Check; 1] = [("vfs", vfs)];

/// The volume of each connection.
const VOLUME_OF: [usize; 3] = [0, 0, 1];
/// Pages of a database; more would only be slower.
const MAX_PAGES: usize = 40;
const NAME: &str = "quire-fuzz";

/// One engine for all inputs of this thread; each input has volumes of its own.
struct House {
    engine: Engine,
    /// Another machine with the same store.
    there: Engine,
    vfs: Vfs,
    dir: TempDir,
}

thread_local! {
    static HOUSE: OnceCell<House> = const { OnceCell::new() };
}

impl House {
    fn build() -> House {
        let shm = Path::new("/dev/shm");
        let dir = match std::env::var_os("TMPDIR") {
            None if shm.is_dir() => tempfile::tempdir_in(shm),
            _ => tempfile::tempdir(),
        };
        let dir = dir.expect("a folder for the volumes");
        let [engine, there] = ["here", "there"].map(|name| House::engine(dir.path(), name));
        crate::register_linked_as(NAME, engine.clone()).expect("one registration a process");
        House { engine, there, vfs: Vfs::find(&text(NAME)), dir }
    }

    fn engine(dir: &Path, name: &str) -> Engine {
        let flag = || Source::Flag("fuzz");
        let store = format!("file://{}", dir.join("store").display());
        let overrides = Overrides::default().with(Key::DataDir, dir.join(name).to_str(), flag());
        let overrides = overrides.with(Key::Store, Some(&store), flag());
        let settings = quire_settings::load(&overrides).expect("settings of ours");
        quire_settings::open_engine(&settings).expect("a folder of ours")
    }
}

/// Runs one input.
pub fn vfs(data: &[u8]) {
    HOUSE.with(|house| Run::new(house.get_or_init(House::build), data).run());
}

/// One input on its way.
struct Run<'a> {
    house: &'a House,
    input: &'a [u8],
    names: [String; 2],
    volumes: [Volume; 2],
    files: [Option<File>; 3],
    views: [View; 3],
}

impl<'a> Run<'a> {
    fn new(house: &'a House, data: &'a [u8]) -> Run<'a> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Run {
            house,
            input: data,
            names: [format!("a{n}"), format!("b{n}")],
            volumes: [Volume::new(512), Volume::new(512)],
            files: Default::default(),
            views: Default::default(),
        }
    }

    /// The next byte of the input; zero where it has ended.
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.input.split_first() else { return 0 };
        self.input = rest;
        byte
    }

    fn number(&mut self, below: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % below.max(1)
    }

    fn run(mut self) {
        while !self.input.is_empty() {
            let op = self.byte();
            let c = usize::from(op >> 5) % 3;
            self.open(c);
            match op & 31 {
                0..3 => self.lock_shared(c),
                3..6 => self.lock_reserved(c),
                6..11 => self.write_page(c),
                11 => self.write_part(c),
                12 => self.truncate(c),
                13..17 => self.read(c),
                17 => self.roll_back(c, ffi::SQLITE_LOCK_SHARED),
                18..20 => self.roll_back(c, ffi::SQLITE_LOCK_NONE),
                20..24 => self.commit(c),
                24 => self.announce_and_go_on(c),
                25 => self.commit_together(),
                26 => self.journal(c),
                27 => self.pragma(c),
                28 => self.travel(c),
                29 => self.close(c),
                _ => (0..3).for_each(|c| self.close(c)),
            }
        }
        for c in 0..3 {
            self.close(c);
        }
        // What was committed is there after all handles are gone.
        for c in [0, 2] {
            self.open(c);
            self.lock_shared(c);
            self.close(c);
        }
        self.clean_up();
    }

    fn clean_up(&self) {
        for name in &self.names {
            let volume = VolumeName::parse(name).expect("a name of ours");
            // One that nothing was committed to is not there.
            let _ = self.house.engine.remove_replica(&volume, true);
            let _ = self.house.there.remove_replica(&volume, true);
            let _ = std::fs::remove_dir_all(self.house.dir.path().join("store/v").join(name));
        }
    }

    fn volume(&mut self, c: usize) -> &mut Volume {
        &mut self.volumes[VOLUME_OF[c]]
    }

    fn file(&mut self, c: usize) -> &mut File {
        self.files[c].as_mut().expect("opened before every operation")
    }

    fn open(&mut self, c: usize) {
        if self.files[c].is_none() {
            let opened = self.house.vfs.open_database(&self.names[VOLUME_OF[c]]);
            self.files[c] = Some(opened.unwrap_or_else(|code| panic!("opening failed with {code}")));
        }
    }

    fn close(&mut self, c: usize) {
        self.files[c] = None;
        self.views[c] = View::default();
        self.forget_writer(c);
    }

    fn forget_writer(&mut self, c: usize) {
        let volume = self.volume(c);
        if volume.writer == Some(c) {
            volume.writer = None;
        }
    }

    /// What a connection reads now.
    fn content(&self, c: usize) -> Content {
        match (&self.views[c].staged, &self.views[c].snapshot) {
            (Some(staged), _) => Rc::new(staged.bytes.clone()),
            (None, Some(snapshot)) => snapshot.clone(),
            (None, None) => self.volumes[VOLUME_OF[c]].committed.clone(),
        }
    }

    /// Begins a read transaction as SQLite does: by a look at the change counter.
    fn lock_shared(&mut self, c: usize) {
        if self.views[c].level >= ffi::SQLITE_LOCK_SHARED {
            return;
        }
        assert_eq!(self.file(c).lock(ffi::SQLITE_LOCK_SHARED), ffi::SQLITE_OK);
        let content = self.volume(c).committed.clone();
        self.views[c].level = ffi::SQLITE_LOCK_SHARED;
        self.views[c].snapshot = Some(content.clone());
        self.look_at_counter(c);
        let (bytes, whole) = self.file(c).read(content.len() + 100, 0);
        assert!(!whole, "nothing lies past the end");
        self.compare(c, bytes, 0);
    }

    /// SQLite keeps its cache if the counter is the one that it goes by; else it reads page 1, and goes by that one's.
    fn look_at_counter(&mut self, c: usize) {
        let content = self.content(c);
        let (bytes, whole) = self.file(c).read(16, 24);
        assert_eq!(whole, !content.is_empty());
        if !whole {
            return;
        }
        match &self.views[c].cache {
            Some((counter, cached)) if *counter == counter_in(&bytes) => {
                assert!(model::same(cached, &content), "connection {c} trusts an outdated cache: counter {counter}");
            }
            _ => {
                let page_bytes = self.volume(c).page_bytes;
                let counter = counter_in(&self.file(c).read(page_bytes, 0).0[24..]);
                self.views[c].cache = Some((counter, content));
            }
        }
    }

    fn lock_reserved(&mut self, c: usize) {
        self.lock_shared(c);
        if self.views[c].staged.is_some() {
            return;
        }
        let code = self.file(c).lock(ffi::SQLITE_LOCK_RESERVED);
        let content = self.content(c);
        let volume = self.volume(c);
        let is_outdated = !Rc::ptr_eq(&volume.committed, &content);
        match (volume.writer, is_outdated) {
            (Some(_), _) => assert_eq!(code & 0xff, ffi::SQLITE_BUSY),
            (None, true) => assert_eq!(code, ffi::SQLITE_BUSY_SNAPSHOT),
            (None, false) => {
                assert_eq!(code, ffi::SQLITE_OK);
                volume.writer = Some(c);
                self.views[c].staged = Some(Staged::on(&content));
                assert_eq!(self.file(c).lock(ffi::SQLITE_LOCK_EXCLUSIVE), ffi::SQLITE_OK);
                self.views[c].level = ffi::SQLITE_LOCK_EXCLUSIVE;
            }
        }
        assert!(self.file(c).is_reserved(), "no journal is taken for one that a crash left");
    }

    /// Stages bytes in the volume and in the model.
    fn stage(&mut self, c: usize, bytes: &[u8], offset: usize) {
        assert_eq!(self.file(c).write(bytes, offset as u64), ffi::SQLITE_OK, "{:?}", crate::last_error());
        let snapshot = self.views[c].snapshot.clone().unwrap_or_default();
        let page_bytes = self.volume(c).page_bytes;
        let Some(staged) = &mut self.views[c].staged else { return };
        if staged.is_announced {
            // A write after the announcement: the transaction was rolled back in between.
            *staged = Staged::on(&snapshot);
        }
        staged.is_past_first_page |= offset + bytes.len() > page_bytes;
        staged.write(bytes, offset);
    }

    /// Page 1, with a change counter one above the one that was read.
    fn write_first_page(&mut self, c: usize, seed: u8, declared: usize, wal: bool) {
        let page_bytes = self.volume(c).page_bytes;
        let mut page = pattern(page_bytes, 1, seed);
        page[..16].copy_from_slice(b"SQLite format 3\0");
        page[16..18].copy_from_slice(&(declared as u16).to_be_bytes());
        page[18..20].fill(if wal { 2 } else { 1 });
        let counter = self.views[c].next_counter();
        page[24..28].copy_from_slice(&counter.to_be_bytes());
        page[92..96].copy_from_slice(&counter.to_be_bytes());
        self.stage(c, &page, 0);
        if let Some(staged) = &mut self.views[c].staged {
            staged.bytes[18..20].fill(1);
        }
    }

    fn write_page(&mut self, c: usize) {
        if self.views[c].staged.is_none() {
            return;
        }
        let (page, seed) = (self.number(MAX_PAGES), self.byte());
        let page_bytes = self.volume(c).page_bytes;
        if page == 0 || self.content(c).is_empty() {
            self.write_first_page(c, seed, page_bytes, false);
        } else {
            self.stage(c, &pattern(page_bytes, page + 1, seed), page * page_bytes);
        }
    }

    /// SQLite writes parts of pages only into the file of a VACUUM.
    fn write_part(&mut self, c: usize) {
        let size = self.content(c).len();
        if self.views[c].staged.is_none() || size == 0 {
            return;
        }
        let (offset, seed) = (self.number(size), self.byte());
        let len = (1 + self.number(700)).min(size - offset);
        if offset >= 100 && len > 0 {
            self.stage(c, &pattern(len, offset, seed), offset);
        }
    }

    fn truncate(&mut self, c: usize) {
        let pages = self.number(MAX_PAGES);
        let page_bytes = self.volume(c).page_bytes;
        if self.content(c).is_empty() || self.views[c].staged.as_ref().is_none_or(|staged| staged.is_announced) {
            return;
        }
        let bytes = pages.max(1) * page_bytes;
        assert_eq!(self.file(c).truncate(bytes as u64), ffi::SQLITE_OK);
        if let Some(staged) = &mut self.views[c].staged {
            staged.is_past_first_page |= staged.bytes.len() != bytes;
            staged.bytes.resize(bytes, 0);
        }
    }

    fn read(&mut self, c: usize) {
        let content = self.content(c);
        assert_eq!(self.file(c).size(), content.len() as u64);
        let offset = self.number(content.len() + 600);
        let len = 1 + self.number(1200);
        // This is how SQLite looks for changes between transactions; see `look_at_counter`.
        if (offset, len) == (24, 16) {
            return;
        }
        let (bytes, whole) = self.file(c).read(len, offset as u64);
        assert_eq!(whole, offset + len <= content.len());
        self.compare(c, bytes, offset);
    }

    fn compare(&self, c: usize, mut bytes: Vec<u8>, offset: usize) {
        let (mut wanted, _) = model::read(&self.content(c), bytes.len(), offset);
        model::without_counters(&mut bytes, offset);
        model::without_counters(&mut wanted, offset);
        if let Some(at) = bytes.iter().zip(&wanted).position(|(read, wanted)| read != wanted) {
            panic!("connection {c}: byte {} is {} where {} belongs", offset + at, bytes[at], wanted[at]);
        }
    }

    fn roll_back(&mut self, c: usize, level: c_int) {
        if self.views[c].level < level {
            return;
        }
        assert_eq!(self.file(c).unlock(level), ffi::SQLITE_OK);
        self.forget_writer(c);
        let view = &mut self.views[c];
        view.level = level;
        view.staged = None;
        if level == ffi::SQLITE_LOCK_NONE {
            view.snapshot = None;
        }
    }

    /// Everything that comes before the commit: page 1 with the next change
    /// counter, and the announcement. Sometimes page 1 says another page size, as after VACUUM.
    fn prepare(&mut self, c: usize, super_journal: Option<&CString>) -> usize {
        let (seed, how) = (self.byte(), self.byte());
        let page_bytes = self.volume(c).page_bytes;
        let declared = match how & 31 {
            0 if super_journal.is_none() => 1024,
            1 if super_journal.is_none() => 512,
            _ => page_bytes,
        };
        self.write_first_page(c, seed, declared, how & 32 != 0);
        let name = super_journal.map_or(std::ptr::null(), |name| name.as_ptr());
        assert_eq!(self.file(c).control(ffi::SQLITE_FCNTL_SYNC, name.cast_mut().cast()), ffi::SQLITE_OK);
        if how & 64 != 0 {
            assert_eq!(self.file(c).sync(), ffi::SQLITE_OK);
        }
        declared
    }

    fn commit(&mut self, c: usize) {
        if self.views[c].staged.is_none() {
            return;
        }
        let declared = self.prepare(c, None);
        let snapshot = self.views[c].snapshot.clone().unwrap_or_default();
        let only_counts = declared == self.volume(c).page_bytes
            && self.views[c].staged.as_ref().is_some_and(|staged| {
                !staged.is_past_first_page && !snapshot.is_empty() && model::same(&staged.bytes, &snapshot)
            });
        self.phase_two(c, declared);
        if only_counts {
            // No commit is made: a transaction on the snapshot before is not outdated.
            self.volume(c).committed = snapshot.clone();
            self.views[c].snapshot = Some(snapshot);
        }
        match self.byte() % 4 {
            // `locking_mode=EXCLUSIVE`: no unlock comes.
            0 => {}
            1 => self.roll_back(c, ffi::SQLITE_LOCK_SHARED),
            _ => self.roll_back(c, ffi::SQLITE_LOCK_NONE),
        }
    }

    fn phase_two(&mut self, c: usize, page_bytes: usize) {
        let code = self.file(c).control(ffi::SQLITE_FCNTL_COMMIT_PHASETWO, std::ptr::null_mut());
        assert_eq!(code, ffi::SQLITE_OK, "{:?}", crate::last_error());
        let Some(mut staged) = self.views[c].staged.take() else { return };
        staged.bytes.resize(staged.bytes.len().next_multiple_of(page_bytes), 0);
        let content: Content = Rc::new(staged.bytes);
        let counter = self.views[c].next_counter();
        let volume = self.volume(c);
        volume.committed = content.clone();
        volume.page_bytes = page_bytes;
        let view = &mut self.views[c];
        // The connection's cache has what it wrote, under the counter that it wrote.
        view.cache = Some((counter, content.clone()));
        view.snapshot = Some(content.clone());
        view.staged = Some(Staged::on(&content));
    }

    /// In exclusive mode a transaction that was rolled back after its
    /// announcement shows only by the next one's writes.
    fn announce_and_go_on(&mut self, c: usize) {
        if self.views[c].staged.is_none() || self.content(c).is_empty() {
            return;
        }
        self.prepare(c, None);
        if let Some(staged) = &mut self.views[c].staged {
            staged.is_announced = true;
        }
        // SQLite plays its journal back: the first page it writes is page 1 as it was, or any other.
        let page_bytes = self.volume(c).page_bytes;
        let Some(snapshot) = self.views[c].snapshot.clone().filter(|snapshot| snapshot.len() > page_bytes) else {
            return self.roll_back(c, ffi::SQLITE_LOCK_NONE);
        };
        self.stage(c, &snapshot[page_bytes..2 * page_bytes], page_bytes);
        self.roll_back(c, ffi::SQLITE_LOCK_NONE);
    }

    /// One transaction over both volumes, decided by its super-journal.
    fn commit_together(&mut self) {
        let stop = self.byte() % 4;
        for c in [0, 2] {
            self.open(c);
            self.lock_reserved(c);
        }
        if [0, 2].iter().any(|c| self.views[*c].staged.is_none()) {
            return;
        }
        let name = text(&format!("{}-mj0A1B2C93F", self.names[0]));
        let flags = ffi::SQLITE_OPEN_SUPER_JOURNAL | ffi::SQLITE_OPEN_CREATE;
        let mut journal = self.house.vfs.open_journal(&name, flags).expect("a super-journal");
        for n in 0..2 {
            let member = text(&format!("{}-journal", self.names[n]));
            let at = journal.size();
            assert_eq!(journal.write(member.as_bytes_with_nul(), at), ffi::SQLITE_OK);
        }
        let mut declared = [0; 3];
        for c in [0, 2].into_iter().take(if stop == 0 { 1 } else { 2 }) {
            declared[c] = self.prepare(c, Some(&name));
        }
        drop(journal);
        assert!(self.house.vfs.exists(&name), "a super-journal outlives its handles");
        let is_decided = stop > 1;
        if is_decided {
            assert_eq!(self.house.vfs.delete(&name, true), ffi::SQLITE_OK);
            for c in [0, 2] {
                self.phase_two(c, declared[c]);
            }
        }
        for c in [0, 2] {
            self.roll_back(c, ffi::SQLITE_LOCK_NONE);
        }
        if !is_decided {
            assert_eq!(self.house.vfs.delete(&name, false), ffi::SQLITE_OK);
        }
        assert!(!self.house.vfs.exists(&name));
    }

    /// A rollback journal: a small file that ends with its last handle.
    fn journal(&mut self, c: usize) {
        let name = text(&format!("{}-journal", self.names[VOLUME_OF[c]]));
        let vfs = self.house.vfs;
        assert!(!vfs.exists(&name) && vfs.open_journal(&name, ffi::SQLITE_OPEN_MAIN_JOURNAL).is_err());
        let flags = ffi::SQLITE_OPEN_MAIN_JOURNAL | ffi::SQLITE_OPEN_CREATE;
        // Whoever does not begin one of its own shares it.
        let mut handles =
            [flags, ffi::SQLITE_OPEN_MAIN_JOURNAL].map(|flags| vfs.open_journal(&name, flags).expect("a journal"));
        let mut content = Staged::default();
        for _ in 0..self.byte() % 8 {
            let (op, at, len, seed) = (self.byte(), self.number(3000), self.number(1500), self.byte());
            let file = &mut handles[usize::from(op >> 7)];
            match op & 3 {
                0 if at <= content.bytes.len() => {
                    assert_eq!(file.truncate(at as u64), ffi::SQLITE_OK);
                    content.bytes.truncate(at);
                }
                1 => assert_eq!(file.read(len, at as u64), model::read(&content.bytes, len, at)),
                _ if len > 0 => {
                    let bytes = pattern(len, at, seed);
                    assert_eq!(file.write(&bytes, at as u64), ffi::SQLITE_OK);
                    content.write(&bytes, at);
                }
                _ => {}
            }
            assert_eq!(file.size(), content.bytes.len() as u64);
        }
        assert!(vfs.exists(&name));
        if self.byte().is_multiple_of(2) {
            assert_eq!(vfs.delete(&name, false), ffi::SQLITE_OK);
            assert!(!vfs.exists(&name), "deleted, with handles open");
        }
        drop(handles);
        assert!(!vfs.exists(&name), "it ends with its last handle");
    }

    fn pragma(&mut self, c: usize) {
        let which = self.byte();
        let file = self.file(c);
        match which % 5 {
            0 => assert_eq!(file.pragma(c"journal_mode", Some(c"wal")), (ffi::SQLITE_OK, Some("delete".into()))),
            1 => assert_eq!(file.pragma(c"cache_size", Some(c"5")), (ffi::SQLITE_NOTFOUND, None)),
            2 => assert_eq!(file.pragma(c"quire_nonsense", None).0, ffi::SQLITE_ERROR),
            3 => assert_eq!(file.pragma(c"quire_push", Some(c"x")).0, ffi::SQLITE_ERROR),
            _ => assert_eq!(file.pragma(c"quire_version", None).0, ffi::SQLITE_OK),
        }
        let mut level: c_int = -1;
        assert_eq!(file.control(ffi::SQLITE_FCNTL_LOCKSTATE, (&raw mut level).cast()), ffi::SQLITE_OK);
        assert_eq!(level, self.views[c].level);
    }

    /// A push changes nothing that a connection sees; a pull brings what another machine has made of it.
    fn travel(&mut self, c: usize) {
        let (page, seed) = (self.number(MAX_PAGES), self.byte());
        if self.volume(c).committed.is_empty() || self.volume(c).writer.is_some() {
            return;
        }
        let (code, row) = self.file(c).pragma(c"quire_push", None);
        assert_eq!(code, ffi::SQLITE_OK, "{row:?}");
        let page_bytes = self.volume(c).page_bytes;
        let pages = self.volume(c).committed.len() / page_bytes;
        if seed > 0 && pages > 1 {
            let page = 1 + page % (pages - 1);
            let bytes = pattern(page_bytes, page + 1, seed);
            self.commit_elsewhere(&self.names[VOLUME_OF[c]], page, &bytes);
            let mut content = Staged::on(&self.volume(c).committed);
            content.write(&bytes, page * page_bytes);
            self.volume(c).committed = Rc::new(content.bytes);
        }
        let (code, row) = self.file(c).pragma(c"quire_pull", None);
        assert_eq!(code, ffi::SQLITE_OK, "{row:?}");
    }

    /// Another machine changes one page that is not the first, as a one-row update does.
    fn commit_elsewhere(&self, name: &str, page: usize, bytes: &[u8]) {
        let name = VolumeName::parse(name).expect("a name of ours");
        let there = self.house.there.volume(&name).expect("it was pushed");
        there.pull().expect("a store that is whole");
        let mut writer = there.writer(&there.snapshot(), "there").expect("nobody else writes there");
        let page = PageIdx::new(page as u32 + 1).expect("a page");
        writer.write(page, bytes).and_then(|()| writer.commit(false)).expect("a commit");
        there.push().expect("nobody else has pushed");
    }
}

fn counter_in(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Bytes that say where they belong.
fn pattern(len: usize, place: usize, seed: u8) -> Vec<u8> {
    (0..len).map(|n| (n * 31 + place * 7) as u8 ^ seed).collect()
}
