//! The page table as a file, so that opening a replica replays only the log's
//! end. It is a cache of the log: written after the log is durable up to the
//! place it names, replaced atomically, and ignored when damaged.
//! Layout: `FORMAT.md`, "Table file".

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use quire_proto::{Error, Reader, Result, Writer};

use crate::log::{FileId, Place, sync_dir};
use crate::state::State;
use crate::table::{CHUNK_PAGES, Cell, Chunk, Table};

const MAGIC: [u8; 4] = *b"QTAB";
const VERSION: u8 = 1;
pub(crate) const CHUNK_BYTES: usize = 4 + CHUNK_PAGES * 8 + 4;

/// What the file holds.
pub(crate) struct StoredTable {
    pub(crate) state: State,
    pub(crate) table: Table,
    /// The log is replayed from here; everything before it was durable.
    pub(crate) position: Place,
    /// The next free data file id.
    pub(crate) next_file: u32,
}

pub(crate) fn path(replica: &Path) -> PathBuf {
    replica.join("table.qtab")
}

/// Where it is written at first: who is killed meanwhile leaves it, and it is not needed.
pub(crate) fn unfinished(replica: &Path) -> PathBuf {
    replica.join("table.qtab.new")
}

/// Writes the table file, replacing the one before.
pub(crate) fn save(replica: &Path, stored: &StoredTable) -> Result<()> {
    let fresh = unfinished(replica);
    let mut head = Writer::new();
    head.bytes(&MAGIC);
    head.u8(VERSION);
    head.u32(stored.position.file.0);
    head.u32(stored.position.offset);
    head.u32(stored.next_file);
    let mut state = Writer::new();
    stored.state.encode(&mut state);
    head.block(state.as_slice());
    // Once: what is fetched meanwhile may bring more.
    let chunks: Vec<_> = stored.table.chunks().collect();
    head.u32(chunks.len() as u32);
    head.u32(crc32fast::hash(head.as_slice()));
    let written = write(&fresh, head.as_slice(), &chunks);
    if let Err(e) = written.and_then(|()| std::fs::rename(&fresh, path(replica))) {
        // A disk that is full needs the space.
        let _ = std::fs::remove_file(&fresh);
        return Err(Error::from_io(format!("writing {}", fresh.display()), e));
    }
    sync_dir(replica)
}

fn write(path: &Path, head: &[u8], chunks: &[(u32, &Chunk)]) -> std::io::Result<()> {
    let mut out = BufWriter::with_capacity(256 << 10, File::create(path)?);
    out.write_all(&(head.len() as u32).to_le_bytes())?;
    out.write_all(head)?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    for (n, cells) in chunks {
        chunk.clear();
        chunk.extend_from_slice(&n.to_le_bytes());
        cells.bits().iter().for_each(|bits| chunk.extend_from_slice(&bits.to_le_bytes()));
        let crc = crc32fast::hash(&chunk);
        chunk.extend_from_slice(&crc.to_le_bytes());
        out.write_all(&chunk)?;
    }
    out.into_inner().map_err(|e| e.into_error())?.sync_data()
}

/// Reads the table file, if there is one, which may be damaged. One that only cannot be read at the moment is an error:
/// without it what is cached would be lost.
pub(crate) fn load(replica: &Path) -> Result<Option<Result<StoredTable>>> {
    let path = path(replica);
    let bytes = match std::fs::read(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(|e| {
            Error::from_io(format!("reading {}", path.display()), e)
                .with_remedy("Try again. If it stays so, remove this file: it is made anew from the log beside it.")
        })?,
    };
    Ok(Some(parse(&bytes).map_err(|e| e.context(path.display()))))
}

pub(crate) fn parse(bytes: &[u8]) -> Result<StoredTable> {
    let mut r = Reader::new("table file", bytes);
    let Head { state, position, next_file, chunks } = parse_head(&mut r)?;
    let mut table = Table::default();
    for _ in 0..chunks {
        let chunk = r.bytes(CHUNK_BYTES)?;
        let (covered, crc) = chunk.split_at(CHUNK_BYTES - 4);
        if crc32fast::hash(covered).to_le_bytes() != crc {
            return Err(r.corrupt("the checksum of a chunk is wrong"));
        }
        let mut chunk = Reader::new("table chunk", covered);
        let n = chunk.u32()?;
        if n as usize > u32::MAX as usize / CHUNK_PAGES {
            return Err(r.corrupt("a chunk lies past the last page there can be"));
        }
        let cells = chunk.bytes(CHUNK_PAGES * 8)?;
        table.set_chunk(n, |m| {
            let mut bits = [0; 8];
            bits.copy_from_slice(&cells[m * 8..m * 8 + 8]);
            match Cell::from_bits(u64::from_le_bytes(bits)) {
                // Bytes from disk are verified at their first touch again.
                Cell::At { place, .. } => Cell::At { place, verified: false }.to_bits(),
                cell => cell.to_bits(),
            }
        });
    }
    r.finish()?;
    Ok(StoredTable { state, table, position, next_file })
}

/// What stands before the chunks of a table file.
pub(crate) struct Head {
    pub(crate) state: State,
    position: Place,
    next_file: u32,
    chunks: u32,
}

/// Reads the beginning of a table file.
pub(crate) fn parse_head(r: &mut Reader<'_>) -> Result<Head> {
    let head_bytes = r.u32()? as usize;
    let head = r.bytes(head_bytes)?;
    let Some((covered, crc)) = head.split_last_chunk::<4>() else {
        return Err(r.corrupt("it is cut off"));
    };
    if crc32fast::hash(covered).to_le_bytes() != *crc {
        return Err(r.corrupt("its checksum is wrong"));
    }
    let mut head = Reader::new("table file", covered);
    if head.array()? != MAGIC || head.u8()? != VERSION {
        return Err(head.corrupt("it is not one, or of another version"));
    }
    let position = Place { file: FileId(head.u32()?), offset: head.u32()? };
    let next_file = head.u32()?;
    let mut state_bytes = Reader::new("replica state", head.block()?);
    let state = State::decode(&mut state_bytes)?;
    state_bytes.finish()?;
    let chunks = head.u32()?;
    head.finish()?;
    Ok(Head { state, position, next_file, chunks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quire_proto::{PageIdx, VolumeName};

    #[test]
    fn a_table_file_comes_back_and_every_flip_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::default();
        let page = PageIdx::new(700).unwrap();
        let place = Place { file: FileId(3), offset: 77 };
        table.set(page, Cell::At { place, verified: true });
        let state = State::new(VolumeName::parse("x").unwrap());
        let position = Place { file: FileId(5), offset: 1234 };
        save(dir.path(), &StoredTable { state: state.clone(), table, position, next_file: 6 }).unwrap();
        let back = load(dir.path()).unwrap().unwrap().unwrap();
        assert_eq!((back.state, back.position, back.next_file), (state, position, 6));
        assert_eq!(back.table.get(page), Cell::At { place, verified: false });
        let bytes = std::fs::read(path(dir.path())).unwrap();
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(parse(&bad).is_err(), "byte {at}");
            assert!(parse(&bytes[..at]).is_err(), "cut to {at} bytes");
        }
    }

    #[test]
    fn what_is_fetched_while_the_file_is_written_does_not_spoil_it() {
        const CHUNKS: u32 = 400;
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let mut table = Table::default();
            table.cover(quire_proto::PageCount::new(CHUNKS * CHUNK_PAGES as u32));
            let first = PageIdx::FIRST;
            assert!(table.fill(first, Place { file: FileId(1), offset: 32 }));
            let (begun, begins) = std::sync::mpsc::channel();
            std::thread::scope(|scope| {
                let filled = &table;
                scope.spawn(move || {
                    for chunk in 1..CHUNKS {
                        let page = PageIdx::new(chunk * CHUNK_PAGES as u32 + 1).unwrap();
                        assert!(filled.fill(page, Place { file: FileId(1), offset: 32 * chunk }));
                        let _ = begun.send(());
                    }
                });
                begins.recv().unwrap();
                let (state, position) =
                    (State::new(VolumeName::parse("x").unwrap()), Place { file: FileId(1), offset: 32 });
                save(dir.path(), &StoredTable { state, table: table.clone(), position, next_file: 2 }).unwrap();
            });
            let back = load(dir.path()).unwrap().unwrap();
            let back = back.unwrap_or_else(|e| panic!("round {round}: {e}"));
            assert_ne!(back.table.get(first), Cell::Absent);
        }
    }
}
