//! Which replicas a data directory has: a small append-only file of records,
//! each of which gives or takes names. One record may change several names,
//! so that `reset` and `rename` are one atomic step. Layout: `FORMAT.md`, "Catalogue".

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use quire_proto::{Error, Reader, Result, VolumeName, Writer};

use crate::log::sync_dir;
use crate::recover::has_blank_sector;

const MAGIC: [u8; 4] = *b"QCAT";
const VERSION: u8 = 1;
const RECORD_HEADER_BYTES: usize = 12;
/// Rewritten at opening once it has this many records more than names.
const SLACK_RECORDS: usize = 1_000;

/// The number of a replica's folder in its data directory, random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ReplicaId(pub(crate) u64);

impl ReplicaId {
    pub(crate) fn random() -> Result<ReplicaId> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes)
            .map_err(|e| Error::unavailable("the operating system gave no random bytes").with_source(e.to_string()))?;
        Ok(ReplicaId(u64::from_le_bytes(bytes)))
    }
}

impl ReplicaId {
    /// The replica whose folder this is.
    pub(crate) fn of_folder(dir: &Path) -> Option<ReplicaId> {
        let name = dir.file_name()?.to_str()?;
        u64::from_str_radix(name, 16).ok().map(ReplicaId).filter(|id| id.folder() == name)
    }

    /// The name of its folder.
    pub(crate) fn folder(self) -> String {
        format!("{:016x}", self.0)
    }
}

/// The ending of a folder's name once it is a replica no more, or before it is one.
pub(crate) const REMOVED: &str = "removed";

/// Removes a replica's folder. It loses its name in one step: what a crash leaves of its files is no damaged replica,
/// and goes when the data directory is opened again.
pub(crate) fn remove_folder(dir: &Path) -> std::io::Result<()> {
    let removed = dir.with_extension(REMOVED);
    std::fs::rename(dir, &removed)?;
    // A thread that was about to make a file in there may have made it since.
    let tries = std::iter::repeat_with(|| std::fs::remove_dir_all(&removed)).take(100);
    let is_final =
        |done: &std::io::Result<()>| !matches!(done, Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty);
    tries.into_iter().find(is_final).unwrap_or_else(|| std::fs::remove_dir_all(&removed))
}

/// Whether this is what a removal that was cut short has left.
pub(crate) fn is_removed(dir: &Path) -> bool {
    dir.extension().is_some_and(|ending| ending == REMOVED)
}

/// One change of the catalogue.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    /// The name stands for this replica, which follows `remote` in the store.
    Put { name: VolumeName, id: ReplicaId, remote: VolumeName },
    /// The name stands for nothing any more.
    Remove { name: VolumeName },
}

/// A replica's entry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: ReplicaId,
    pub(crate) remote: VolumeName,
}

/// The names of a data directory.
pub(crate) struct Catalog {
    path: PathBuf,
    file: Option<File>,
    /// What the file holds is in doubt, a change that could not be taken back, say: it is written anew before the next one.
    torn: bool,
    /// What was found at opening may not be durable: a process that was killed wrote it.
    unsynced: bool,
    entries: BTreeMap<VolumeName, Entry>,
}

impl Catalog {
    /// Reads the catalogue of a data directory; none yet is an empty one.
    pub(crate) fn open(data_dir: &Path) -> Result<Catalog> {
        let path = data_dir.join("catalog.qcat");
        let mut catalog = Catalog { path, file: None, torn: false, unsynced: false, entries: BTreeMap::new() };
        let bytes = match std::fs::read(&catalog.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(catalog),
            bytes => bytes.map_err(|e| Error::from_io(format!("reading {}", catalog.path.display()), e))?,
        };
        let (records, good) = catalog.replay(&bytes)?;
        if good < bytes.len() || records > catalog.entries.len() + SLACK_RECORDS {
            catalog.rewrite()?;
        } else {
            catalog.unsynced = true;
        }
        Ok(catalog)
    }

    /// Applies the good records; returns how many, and where they end.
    fn replay(&mut self, bytes: &[u8]) -> Result<(usize, usize)> {
        let corrupt = |at: usize, problem: &str| {
            Error::corrupt(format!("{} at byte {at}: {problem}", self.path.display()))
                .with_remedy("Restore this file from a copy; the replicas beside it are intact.")
        };
        if bytes.len() < 5 || bytes.iter().all(|byte| *byte == 0) {
            return Ok((0, 0));
        }
        if bytes[..4] != MAGIC {
            return Err(corrupt(0, "it is not a catalogue"));
        }
        if bytes[4] != VERSION {
            return Err(corrupt(4, &format!("format version {}, and this program reads {VERSION}", bytes[4])));
        }
        let mut at = 5;
        let mut records = 0;
        while at < bytes.len() {
            let payload = match record_at(bytes, at) {
                Found::Whole(payload) => payload,
                Found::Torn => break,
                Found::Damaged => return Err(corrupt(at, "a record is damaged")),
            };
            for change in decode(payload).map_err(|e| corrupt(at, e.message()))? {
                apply(&mut self.entries, change);
            }
            records += 1;
            at += RECORD_HEADER_BYTES + payload.len();
        }
        Ok((records, at))
    }

    fn rewrite(&mut self) -> Result<()> {
        let fresh = self.path.with_extension("qcat.new");
        let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
        for (name, entry) in &self.entries {
            let change = Change::Put { name: name.clone(), id: entry.id, remote: entry.remote.clone() };
            bytes.extend(encode(&[change]));
        }
        let written = File::create(&fresh).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        if let Err(e) = written.and_then(|()| std::fs::rename(&fresh, &self.path)) {
            let _ = std::fs::remove_file(&fresh);
            return Err(Error::from_io(format!("writing {}", fresh.display()), e));
        }
        self.file = None;
        self.torn = true;
        self.sync_folder()?;
        (self.torn, self.unsynced) = (false, false);
        Ok(())
    }

    fn sync_folder(&self) -> Result<()> {
        self.path.parent().map_or(Ok(()), sync_dir)
    }

    /// Makes what was found at opening durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.torn {
            return self.rewrite();
        }
        if self.unsynced {
            let wrong = |e| Error::from_io(format!("syncing {}", self.path.display()), e);
            let file = File::open(&self.path).map_err(wrong)?;
            let synced = file.sync_all().map_err(wrong).and_then(|()| self.sync_folder());
            self.torn = synced.is_err();
            synced?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Makes changes, all of them or none; they survive a loss of power.
    pub(crate) fn change(&mut self, changes: Vec<Change>) -> Result<()> {
        if self.torn {
            self.rewrite()?;
        }
        let wrong = |e| Error::from_io(format!("writing {}", self.path.display()), e);
        let mut bytes = Vec::new();
        let mut file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new().create(true).append(true).open(&self.path).map_err(wrong)?,
        };
        let before = file.metadata().map_err(wrong)?.len();
        if before == 0 {
            bytes.extend(MAGIC);
            bytes.push(VERSION);
        }
        bytes.extend(encode(&changes));
        let written = file
            .write_all(&bytes)
            .and_then(|()| file.sync_all())
            .map_err(wrong)
            .and_then(|()| if before == 0 || self.unsynced { self.sync_folder() } else { Ok(()) });
        if let Err(e) = written {
            // What was written of it must not stand before another record, nor count after a restart.
            self.torn = file.set_len(before).is_err();
            return Err(e);
        }
        self.file = Some(file);
        self.unsynced = false;
        changes.into_iter().for_each(|change| apply(&mut self.entries, change));
        Ok(())
    }

    pub(crate) fn get(&self, name: &VolumeName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// A name that stands for a replica of this volume of the store.
    pub(crate) fn name_of(&self, remote: &VolumeName) -> Option<VolumeName> {
        self.entries.iter().find(|(_, entry)| entry.remote == *remote).map(|(name, _)| name.clone())
    }

    /// Whether a name stands for this replica.
    pub(crate) fn has(&self, id: ReplicaId) -> bool {
        self.ids().any(|known| known == id)
    }

    /// All replicas.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ReplicaId> {
        self.entries.values().map(|entry| entry.id)
    }

    /// A free name for commits of `name` that are put aside.
    pub(crate) fn name_for_dropped(&self, name: &VolumeName) -> Result<VolumeName> {
        // The longest names take no suffix.
        let numbered = |n: u64| {
            VolumeName::parse(&format!("{name}.dropped-{n}")).or_else(|_| VolumeName::parse(&format!("dropped-{n}")))
        };
        (1..).map(numbered).find(|name| name.as_ref().map_or(true, |name| self.get(name).is_none())).unwrap_or_else(
            || Err(Error::invalid(format!("no name is left for the commits of {name} that are put aside"))),
        )
    }

    pub(crate) fn names(&self) -> Vec<VolumeName> {
        self.entries.keys().cloned().collect()
    }
}

fn apply(entries: &mut BTreeMap<VolumeName, Entry>, change: Change) {
    match change {
        Change::Put { name, id, remote } => entries.insert(name, Entry { id, remote }),
        Change::Remove { name } => entries.remove(&name),
    };
}

/// A record: its length, a checksum of that, a checksum of the changes, the changes.
fn encode(changes: &[Change]) -> Vec<u8> {
    let mut w = Writer::new();
    w.varint(changes.len() as u64);
    for change in changes {
        match change {
            Change::Put { name, id, remote } => {
                w.u8(1);
                w.block(name.as_str().as_bytes());
                w.u64(id.0);
                w.block(remote.as_str().as_bytes());
            }
            Change::Remove { name } => {
                w.u8(0);
                w.block(name.as_str().as_bytes());
            }
        }
    }
    let payload = w.into_vec();
    let len = (payload.len() as u32).to_le_bytes();
    [&len[..], &crc32fast::hash(&len).to_le_bytes(), &crc32fast::hash(&payload).to_le_bytes(), &payload].concat()
}

/// What stands at the front of some bytes of a catalogue.
enum Found<'a> {
    /// A whole record, with this payload.
    Whole(&'a [u8]),
    /// One that a crash cut off: it was never acknowledged.
    Torn,
    /// One that was whole once.
    Damaged,
}

/// The record at byte `at` of a catalogue. Only the last one can be torn: the power may have taken any of the sectors that
/// it was written to.
fn record_at(bytes: &[u8], at: usize) -> Found<'_> {
    let rest = &bytes[at..];
    let Some((header, rest)) = rest.split_first_chunk::<RECORD_HEADER_BYTES>() else { return Found::Torn };
    let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if crc32fast::hash(&header[..4]) != u32_at(4) {
        // Where a record behind it would begin is not known; a change is short.
        return if has_blank_sector(bytes, at..bytes.len()) { Found::Torn } else { Found::Damaged };
    }
    let len = u32_at(0) as usize;
    match rest.get(..len) {
        None => Found::Torn,
        Some(payload) if crc32fast::hash(payload) == u32_at(8) => Found::Whole(payload),
        Some(_) if rest[len..].iter().any(|byte| *byte != 0) => Found::Damaged,
        Some(_) if has_blank_sector(bytes, at..at + RECORD_HEADER_BYTES + len) => Found::Torn,
        Some(_) => Found::Damaged,
    }
}

fn decode(payload: &[u8]) -> Result<Vec<Change>> {
    let mut r = Reader::new("catalogue record", payload);
    let mut changes = Vec::new();
    for _ in 0..r.count(2)? {
        let put = r.u8()?;
        let name = VolumeName::parse(r.text()?)?;
        changes.push(match put {
            0 => Change::Remove { name },
            1 => Change::Put { name, id: ReplicaId(r.u64()?), remote: VolumeName::parse(r.text()?)? },
            flag => return Err(r.corrupt(format_args!("unknown change {flag}"))),
        });
    }
    r.finish()?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recover::SECTOR_BYTES;

    fn put(name: &str, id: u64) -> Change {
        let name = VolumeName::parse(name).unwrap();
        Change::Put { remote: name.clone(), name, id: ReplicaId(id) }
    }

    fn names(dir: &Path) -> Vec<String> {
        Catalog::open(dir).unwrap().names().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_survive_reopening_and_change_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut catalog = Catalog::open(dir.path()).unwrap();
        catalog.change(vec![put("a", 1)]).unwrap();
        catalog.change(vec![put("a.dropped-1", 1), put("a", 2)]).unwrap();
        assert_eq!(names(dir.path()), ["a", "a.dropped-1"]);
        let gone = Change::Remove { name: VolumeName::parse("a").unwrap() };
        catalog.change(vec![gone]).unwrap();
        assert_eq!(names(dir.path()), ["a.dropped-1"]);
    }

    #[test]
    fn a_torn_tail_is_dropped_and_damage_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.qcat");
        let mut catalog = Catalog::open(dir.path()).unwrap();
        catalog.change(vec![put("a", 1)]).unwrap();
        let one = std::fs::metadata(&path).unwrap().len() as usize;
        catalog.change(vec![put("b", 2)]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in one..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(names(dir.path()), ["a"], "cut to {len} bytes");
            let mut again = Catalog::open(dir.path()).unwrap();
            again.change(vec![put("c", 3)]).unwrap();
            assert_eq!(names(dir.path()), ["a", "c"]);
        }
        let grown = [&bytes[..], &[0; 5000]].concat();
        std::fs::write(&path, &grown).unwrap();
        assert_eq!(names(dir.path()), ["a", "b"], "a file that grew and never got its bytes");
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            assert!(Catalog::open(dir.path()).is_err(), "byte {at}");
        }
    }

    #[test]
    fn any_sectors_of_the_last_record_may_be_lost_with_the_power() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.qcat");
        let mut catalog = Catalog::open(dir.path()).unwrap();
        let all: Vec<String> = (0..60).map(|n| format!("volume-{n:02}-{}", "x".repeat(n))).collect();
        let mut before = 0;
        for (n, name) in all.iter().enumerate() {
            catalog.change(vec![put(name, n as u64)]).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let sectors = before / SECTOR_BYTES..(bytes.len() - 1) / SECTOR_BYTES + 1;
            for lost in 1..1_usize << sectors.len() {
                let mut torn = bytes.clone();
                for (_, sector) in sectors.clone().enumerate().filter(|(k, _)| lost >> k & 1 == 1) {
                    let (from, to) = (sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
                    torn[from.max(before)..to.min(bytes.len())].fill(0);
                }
                let other = tempfile::tempdir().unwrap();
                std::fs::write(other.path().join("catalog.qcat"), torn).unwrap();
                assert_eq!(names(other.path()), all[..n], "record {n}, sectors {lost:b} of {sectors:?}");
            }
            before = bytes.len();
        }
    }
}
