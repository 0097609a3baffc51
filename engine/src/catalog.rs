//! Which replicas a data directory has: a small append-only file of records,
//! each of which gives or takes names. One record may change several names,
//! so that `reset` and `rename` are one atomic step. Layout: `FORMAT.md`, "Catalogue".

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use quire_proto::{Error, Reader, Result, VolumeName, Writer};

use crate::log::sync_dir;

const MAGIC: [u8; 4] = *b"QCAT";
const VERSION: u8 = 1;
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
    entries: BTreeMap<VolumeName, Entry>,
}

impl Catalog {
    /// Reads the catalogue of a data directory; none yet is an empty one.
    pub(crate) fn open(data_dir: &Path) -> Result<Catalog> {
        let path = data_dir.join("catalog.qcat");
        let mut catalog = Catalog { path, file: None, entries: BTreeMap::new() };
        let bytes = match std::fs::read(&catalog.path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(catalog),
            bytes => bytes.map_err(|e| Error::from_io(format!("reading {}", catalog.path.display()), e))?,
        };
        let (records, good) = catalog.replay(&bytes)?;
        if good < bytes.len() || records > catalog.entries.len() + SLACK_RECORDS {
            catalog.rewrite()?;
        }
        Ok(catalog)
    }

    /// Applies the good records; returns how many, and where they end.
    fn replay(&mut self, bytes: &[u8]) -> Result<(usize, usize)> {
        let corrupt = |at: usize, problem: &str| {
            Error::corrupt(format!("{} at byte {at}: {problem}", self.path.display()))
                .with_remedy("Restore this file from a copy; the replicas beside it are intact.")
        };
        if bytes.len() < 5 {
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
            let Some(payload) = record_at(&bytes[at..]) else {
                // A torn tail has nothing good after it.
                if (at + 1..bytes.len()).any(|later| record_at(&bytes[later..]).is_some_and(|p| !p.is_empty())) {
                    return Err(corrupt(at, "a record is damaged"));
                }
                return Ok((records, at));
            };
            for change in decode(payload).map_err(|e| corrupt(at, e.message()))? {
                apply(&mut self.entries, change);
            }
            records += 1;
            at += 8 + payload.len();
        }
        Ok((records, at))
    }

    fn rewrite(&mut self) -> Result<()> {
        let fresh = self.path.with_extension("qcat.new");
        let wrong = |e| Error::from_io(format!("writing {}", fresh.display()), e);
        let mut bytes = [MAGIC.as_slice(), &[VERSION]].concat();
        for (name, entry) in &self.entries {
            let change = Change::Put { name: name.clone(), id: entry.id, remote: entry.remote.clone() };
            bytes.extend(encode(&[change]));
        }
        let mut file = File::create(&fresh).map_err(wrong)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(wrong)?;
        std::fs::rename(&fresh, &self.path).map_err(wrong)?;
        self.file = None;
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<()> {
        self.path.parent().map_or(Ok(()), sync_dir)
    }

    /// Makes changes together. With `durable` they survive a loss of power.
    pub(crate) fn change(&mut self, changes: Vec<Change>, durable: bool) -> Result<()> {
        let wrong = |e| Error::from_io(format!("writing {}", self.path.display()), e);
        let mut bytes = Vec::new();
        if self.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).open(&self.path).map_err(wrong)?;
            if file.metadata().map_err(wrong)?.len() < 5 {
                file.set_len(0).map_err(wrong)?;
                bytes.extend(MAGIC);
                bytes.push(VERSION);
            }
            self.file = Some(file);
        }
        bytes.extend(encode(&changes));
        if let Some(file) = &mut self.file {
            let before = file.metadata().map_err(wrong)?.len();
            let written = file.write_all(&bytes).and_then(|()| if durable { file.sync_all() } else { Ok(()) });
            if let Err(e) = written {
                // A half-written record must not stand before a good one.
                let _ = file.set_len(before);
                return Err(wrong(e));
            }
        }
        changes.into_iter().for_each(|change| apply(&mut self.entries, change));
        if durable { self.sync_folder() } else { Ok(()) }
    }

    pub(crate) fn get(&self, name: &VolumeName) -> Option<&Entry> {
        self.entries.get(name)
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

/// A record: length, checksum, changes.
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
    let mut record = Vec::with_capacity(8 + payload.len());
    record.extend((payload.len() as u32).to_le_bytes());
    record.extend(crc32fast::hash(&payload).to_le_bytes());
    record.extend(payload);
    record
}

/// The payload of the record at the front of `bytes`, if it is whole.
fn record_at(bytes: &[u8]) -> Option<&[u8]> {
    let mut r = Reader::new("catalogue record", bytes);
    let len = r.u32().ok()?;
    let crc = r.u32().ok()?;
    let payload = r.bytes(len as usize).ok()?;
    (crc32fast::hash(payload) == crc).then_some(payload)
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
        catalog.change(vec![put("a", 1)], true).unwrap();
        catalog.change(vec![put("a.dropped-1", 1), put("a", 2)], false).unwrap();
        assert_eq!(names(dir.path()), ["a", "a.dropped-1"]);
        let gone = Change::Remove { name: VolumeName::parse("a").unwrap() };
        catalog.change(vec![gone], true).unwrap();
        assert_eq!(names(dir.path()), ["a.dropped-1"]);
    }

    #[test]
    fn a_torn_tail_is_dropped_and_damage_before_good_records_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalog.qcat");
        let mut catalog = Catalog::open(dir.path()).unwrap();
        catalog.change(vec![put("a", 1)], false).unwrap();
        let one = std::fs::metadata(&path).unwrap().len() as usize;
        catalog.change(vec![put("b", 2)], false).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for len in one..bytes.len() {
            std::fs::write(&path, &bytes[..len]).unwrap();
            assert_eq!(names(dir.path()), ["a"], "cut to {len} bytes");
            let mut again = Catalog::open(dir.path()).unwrap();
            again.change(vec![put("c", 3)], false).unwrap();
            assert_eq!(names(dir.path()), ["a", "c"]);
        }
        let mut bad = bytes.clone();
        bad[12] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(Catalog::open(dir.path()).is_err());
    }
}
