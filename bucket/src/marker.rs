//! The store's marker: proof that the store honours create-only writes, and
//! the version of its layout. Everything else relies on both, so nothing is
//! written before they are known.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use quire_proto::{Error, ErrorKind, Reader, Result, Writer};
use tokio::sync::OnceCell;

use crate::create::Put;
use crate::store::{Listing, Trust};
use crate::{Bucket, Key, keys};

const MAGIC: [u8; 4] = *b"QSTO";
/// The layout that this crate reads and writes.
const VERSION: u8 = 1;
/// Room for more markers; `v` begins the volumes.
const MARKER_KEY: &str = ".quire/store";
/// The marker's key as a file system sees it that does not tell cases apart.
const FOLDED_MARKER_KEY: &str = ".quire/STORE";

/// What is known about the store so far.
pub(crate) struct Marker {
    /// The version has been looked at, and this crate speaks it.
    version: OnceCell<()>,
    /// Some object lies where this crate looks for it.
    found: AtomicBool,
    /// Create-only writes work.
    proof: OnceCell<()>,
    assumed: bool,
    /// Lists the folders that were found to be stores, a URL on each line.
    folders: Option<PathBuf>,
}

impl Marker {
    pub(crate) fn new(assumed: bool, folders: Option<PathBuf>) -> Marker {
        Marker { version: OnceCell::new(), found: AtomicBool::new(false), proof: OnceCell::new(), assumed, folders }
    }

    /// For another bucket of the same store.
    pub(crate) fn again(&self, assumed: bool) -> Marker {
        Marker::new(assumed, self.folders.clone())
    }

    fn remembers(&self, url: &str) -> bool {
        let read = self.folders.as_ref().map(std::fs::read_to_string);
        read.is_some_and(|text| text.is_ok_and(|text| text.lines().any(|line| line == url)))
    }

    fn remember(&self, url: &str) -> io::Result<()> {
        let Some(file) = self.folders.as_ref().filter(|_| !self.remembers(url)) else { return Ok(()) };
        // One write, at the end: others may be adding to it.
        OpenOptions::new().create(true).append(true).open(file)?.write_all(format!("{url}\n").as_bytes())
    }
}

impl Bucket {
    /// Whether this store is known to honour create-only writes. A caller that
    /// remembers this for the URL may open it with `assume_proven` next time,
    /// and saves the probe before the first write.
    pub fn is_proven(&self) -> bool {
        let marker = &self.inner.marker;
        self.inner.store.trust == Trust::Memory || marker.assumed || marker.proof.initialized()
    }

    /// Called where the store seems to be empty: perhaps its objects lie where
    /// a newer version puts them.
    pub(crate) async fn check_version(&self) -> Result<()> {
        self.check_folder()?;
        if self.inner.store.trust == Trust::Memory || self.inner.marker.found.load(Relaxed) {
            return Ok(());
        }
        let checked = self.inner.marker.version.get_or_try_init(|| async { self.read_version(&marker_key()).await });
        checked.await.map(|_| ())
    }

    /// Called for what was found: the store is not empty, nor its layout another.
    pub(crate) fn found(&self) {
        let found = &self.inner.marker.found;
        if !found.load(Relaxed) {
            found.store(true, Relaxed);
            self.remember_folder();
        }
    }

    /// A folder that was a store before, and has nothing of one now, is where a disk should be mounted that is not.
    pub(crate) fn check_folder(&self) -> Result<()> {
        let (Listing::Folder(root), marker) = (&self.inner.store.listing, &self.inner.marker) else { return Ok(()) };
        let was_there = || marker.found.load(Relaxed) || marker.proof.initialized() || marker.remembers(self.url());
        if root.join(MARKER_KEY).exists() || root.join("v").exists() || !was_there() {
            return Ok(());
        }
        let mut remedy = "Nothing was lost. Mount the disk that it is on, or correct the URL.".to_owned();
        if let Some(file) = &marker.folders {
            let file = file.display();
            remedy += &format!(" If it is gone for good and shall begin anew, remove its line from {file}.");
        }
        Err(Error::unavailable(format!("store {} was in its folder before, and is not there now", self.url()))
            .with_remedy(remedy))
    }

    /// Best effort; where there is no data directory there is nothing that could be lost.
    fn remember_folder(&self) {
        if self.inner.store.trust != Trust::FileSystem {
            return;
        }
        if let Err(e) = self.inner.marker.remember(self.url())
            && e.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("remembering store {}: {e}", self.url());
        }
    }

    /// Called before every write: the first one of a bucket's life makes sure
    /// that `create` means what it says here.
    pub(crate) async fn prove(&self, first: &Key) -> Result<()> {
        self.check_folder()?;
        if self.is_proven() {
            return Ok(());
        }
        self.inner.marker.proof.get_or_try_init(|| self.probe_somewhere(first)).await?;
        self.remember_folder();
        Ok(())
    }

    /// Probes at the store's own marker, or, for a user who may only touch one
    /// volume, at a marker inside that volume.
    async fn probe_somewhere(&self, first: &Key) -> Result<()> {
        match self.probe(&marker_key()).await {
            Err(e) if e.kind() == ErrorKind::Denied => match keys::volume_of(first) {
                Some(volume) => self.probe(&keys::volume_marker(&volume)).await.map_err(|_| e),
                None => Err(e),
            },
            outcome => outcome,
        }
    }

    async fn probe(&self, key: &Key) -> Result<()> {
        // Reading and writing at the same time costs one round trip, not two.
        let (version, taken) = tokio::join!(self.read_version(key), self.refuses_to_overwrite(key));
        version?;
        if taken? {
            return self.check_case(key).await;
        }
        // The key was free, or this store overwrites: the second write tells.
        // The bytes are equal, so that overwriting did no harm.
        if self.refuses_to_overwrite(key).await? {
            return self.check_case(key).await;
        }
        // Best effort: the refusal below matters more than the marker.
        let _ = self.delete(key).await;
        Err(Error::invalid(format!(
            "store {} overwrites objects although it is told to write only where none is (If-None-Match), \
             so two writers would silently destroy each other's commits",
            self.url()
        ))
        .with_remedy("Use a store that honours conditional writes: a folder, S3, GCS, Azure Blob, or a server such as SeaweedFS or MinIO."))
    }

    /// Writes the marker create-only; whether the store said that it is taken.
    async fn refuses_to_overwrite(&self, key: &Key) -> Result<bool> {
        let inner = &self.inner;
        // A file system's link(2) never replaces a file; what has a marker
        // need not write another file to show it.
        if inner.store.trust == Trust::FileSystem && self.marker_exists(key).await? {
            return Ok(true);
        }
        let path = inner.path(key)?;
        let bytes = encode(VERSION);
        let put = inner.limits.retry(&inner.tally, 0, || inner.put_if_absent(key, &path, &bytes)).await?;
        Ok(put == Put::Refused)
    }

    async fn marker_exists(&self, key: &Key) -> Result<bool> {
        match self.head(key).await {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn read_version(&self, key: &Key) -> Result<()> {
        let inner = &self.inner;
        let path = inner.path(key)?;
        match inner.limits.retry(&inner.tally, 0, || inner.get_once(key, &path, None)).await {
            Ok(object) => check(&object.bytes).map_err(|e| e.context(format_args!("store {}", self.url()))),
            // Nobody has written here yet, or this user may not know.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Denied) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// A file system that folds cases would take `App` and `app` for one volume.
    async fn check_case(&self, key: &Key) -> Result<()> {
        if !matches!(self.inner.store.listing, Listing::Folder(_)) || *key != marker_key() {
            return Ok(());
        }
        let folded = Key::trusted(FOLDED_MARKER_KEY.to_owned());
        if !self.marker_exists(&folded).await? {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "the file system of store {} does not tell capital letters from small ones",
            self.url()
        ))
        .with_remedy("Put the store on a case-sensitive file system, or use an object store."))
    }
}

fn marker_key() -> Key {
    Key::trusted(MARKER_KEY.to_owned())
}

pub(crate) fn encode(version: u8) -> Bytes {
    let mut w = Writer::new();
    w.bytes(&MAGIC);
    w.u8(version);
    let crc = crc32fast::hash(w.as_slice());
    w.u32(crc);
    w.into_vec().into()
}

pub(crate) fn check(bytes: &[u8]) -> Result<()> {
    decode(bytes).map_err(|e| match e.remedy() {
        Some(_) => e,
        None => e.with_remedy("Delete this one object; the next write makes it anew."),
    })
}

fn decode(bytes: &[u8]) -> Result<()> {
    let mut r = Reader::new("its marker .quire/store", bytes);
    if r.array()? != MAGIC {
        return Err(r
            .corrupt("it was not written by Quire")
            .with_remedy("Give the store a folder or prefix of its own."));
    }
    // The version comes first: a newer marker may go on differently.
    let version = r.u8()?;
    if version > VERSION {
        return Err(Error::invalid(format!(
            "its marker {MARKER_KEY} has format version {version}, and this program knows up to {VERSION}"
        ))
        .with_remedy("Use a newer version of Quire for this store."));
    }
    let crc = r.u32()?;
    if version == 0 || crc != crc32fast::hash(&bytes[..5]) {
        return Err(r.corrupt("its checksum is wrong"));
    }
    r.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_of_version_1_never_changes() {
        assert_eq!(encode(1)[..], [b'Q', b'S', b'T', b'O', 1, 0x1a, 0x54, 0xba, 0x71]);
    }

    #[test]
    fn damage_and_newer_versions_are_told_apart() {
        check(&encode(VERSION)).expect("our own");
        let e = check(&encode(VERSION + 1)).expect_err("newer");
        assert_eq!(e.kind(), ErrorKind::Invalid);
        for at in 0..9 {
            let mut bytes = encode(VERSION).to_vec();
            bytes[at] ^= 0x80;
            assert!(check(&bytes).expect_err("a flipped bit").remedy().is_some());
            assert!(check(&bytes[..at]).expect_err("a truncated marker").remedy().is_some());
        }
    }
}
