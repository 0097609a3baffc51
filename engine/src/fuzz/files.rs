//! Whole files, as opening a replica meets them.

use std::fs;
use std::path::Path;

use quire_proto::{ErrorKind, Reader};

use super::{MAX_PAGES, Scratch, put_u32, u32_at};
use crate::catalog::Catalog;
use crate::log::{FILE_HEADER_BYTES, FileId, RECORD_HEADER_BYTES, RecordKind, Room, finish_record, parse_record};
use crate::recover::{Recovered, StateRecord, recover};
use crate::state::{CommitRecord, State};
use crate::table::{Cell, Table};
use crate::tablefile::{self, CHUNK_BYTES};

/// A table file that is accepted comes back when it is saved.
pub fn table_file(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_table(&mut repaired);
    for bytes in [data, &repaired] {
        if most_pages_of_table(bytes) > MAX_PAGES {
            continue;
        }
        let Ok(table) = tablefile::parse(bytes) else { continue };
        let dir = Scratch::new();
        tablefile::save(&dir.0, &table).expect("a folder of ours");
        let back = tablefile::load(&dir.0)
            .expect("a folder of ours")
            .expect("it is there")
            .expect("what was saved can be read");
        assert_eq!((&back.state, back.position, back.next_file), (&table.state, table.position, table.next_file));
        assert_eq!(cells(&back.table), cells(&table.table));
    }
}

/// A catalogue that is accepted names the same the next time, also if opening has mended its end.
pub fn catalogue(data: &[u8]) {
    let mut repaired = data.to_vec();
    repair_catalogue(&mut repaired);
    for bytes in [data, &repaired] {
        let dir = Scratch::new();
        fs::write(dir.0.join("catalog.qcat"), bytes).expect("a folder of ours");
        let entries = |catalog: &Catalog| -> Vec<_> {
            catalog.names().into_iter().map(|name| (catalog.get(&name).cloned(), name)).collect()
        };
        match Catalog::open(&dir.0) {
            Ok(first) => {
                let again = Catalog::open(&dir.0).expect("it was opened before");
                assert_eq!(entries(&again), entries(&first));
            }
            Err(e) => {
                assert!(e.kind() == ErrorKind::Corrupt && e.remedy().is_some(), "{e:?}");
                assert!(e.to_string().contains("catalog.qcat"), "{e:?}");
            }
        }
    }
}

/// A replica's folder opens, always to the same, or is damaged: then the error
/// names a file. The input is a row of files, each as one byte (0: the table
/// file, odd: a log file, else a cache file), its length as `u16` and its bytes.
pub fn replica(data: &[u8]) {
    for repair in [false, true] {
        let dir = Scratch::new();
        if !lay_out(&dir.0, data, repair) {
            continue;
        }
        let first = match recover(&dir.0, "fuzz") {
            Ok(None) => continue,
            Ok(Some(first)) => first,
            Err(e) => {
                let names_a_file = [".qlog", ".qtab"].iter().any(|end| e.to_string().contains(end));
                assert!(e.kind() == ErrorKind::Corrupt && e.remedy().is_some() && names_a_file, "{e:?}");
                continue;
            }
        };
        read_all(&first);
        let again = recover(&dir.0, "fuzz").expect("it was opened before").expect("it is there");
        assert_eq!(again.state, first.state);
        assert_eq!(cells(&again.table), cells(&first.table));
    }
}

/// Writes the files; false if they claim more pages than a check has memory for.
fn lay_out(dir: &Path, mut data: &[u8], repair: bool) -> bool {
    for room in [Room::Log, Room::Cache] {
        fs::create_dir_all(room.dir(dir)).expect("a folder of ours");
    }
    let mut next = 1;
    while let Some(([which, low, high], rest)) = data.split_first_chunk::<3>() {
        let len = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let mut file = rest[..len].to_vec();
        data = &rest[len..];
        let path = match which {
            0 => {
                if repair {
                    repair_table(&mut file);
                }
                if most_pages_of_table(&file) > MAX_PAGES {
                    return false;
                }
                dir.join("table.qtab")
            }
            which => {
                let id = FileId(next);
                next += 1;
                if repair {
                    repair_data_file(&mut file, id);
                }
                if most_pages_of_log(&file) > MAX_PAGES {
                    return false;
                }
                (if which % 2 == 1 { Room::Log } else { Room::Cache }).path(dir, id)
            }
        };
        fs::write(path, file).expect("a folder of ours");
    }
    true
}

/// Every page can be read, or its error names the file.
fn read_all(replica: &Recovered) {
    let Some(size) = replica.state.page_size else { return };
    let mut page = vec![0; size.bytes()];
    replica.table.for_each(|index, cell| {
        if let Cell::At { place, .. } = cell {
            let file = replica.files.get(&place.file).expect("cells of missing files were dropped");
            if let Err(e) = file.read_page(place, index.get(), &mut page, true) {
                assert!(e.kind() == ErrorKind::Corrupt && e.to_string().contains(".qlog"), "{e:?}");
            }
        }
    });
}

fn cells(table: &Table) -> Vec<(u32, Cell)> {
    let mut cells = Vec::new();
    table.for_each(|page, cell| {
        let cell = match cell {
            Cell::At { place, .. } => Cell::At { place, verified: false },
            cell => cell,
        };
        cells.push((page.get(), cell));
    });
    cells
}

fn repair_table(file: &mut [u8]) {
    let Some(head_bytes) = u32_at(file, 0) else { return };
    let Some(head_end) = (head_bytes as usize).checked_add(4).filter(|end| *end >= 8 && *end <= file.len()) else {
        return;
    };
    let crc = crc32fast::hash(&file[4..head_end - 4]);
    put_u32(file, head_end - 4, crc);
    for chunk in file[head_end..].chunks_exact_mut(CHUNK_BYTES) {
        let crc = crc32fast::hash(&chunk[..CHUNK_BYTES - 4]);
        put_u32(chunk, CHUNK_BYTES - 4, crc);
    }
}

/// The highest page that a table file speaks of, or more.
fn most_pages_of_table(file: &[u8]) -> u32 {
    let Ok(head) = tablefile::parse_head(&mut Reader::new("table file", file)) else { return 0 };
    let head_end = u32_at(file, 0).map_or(0, |n| n as usize + 4);
    let chunks = file.get(head_end..).unwrap_or_default().chunks(CHUNK_BYTES);
    let last = chunks.filter_map(|chunk| u32_at(chunk, 0)).max().unwrap_or(0);
    most_pages_of_state(&head.state).max(last.saturating_mul(512))
}

fn repair_catalogue(file: &mut [u8]) {
    let mut at = 5;
    while let Some(len) = u32_at(file, at) {
        let payload_at = at + 12;
        let end = payload_at.saturating_add(len as usize);
        if end > file.len() {
            return;
        }
        let crc = crc32fast::hash(&len.to_le_bytes());
        put_u32(file, at + 4, crc);
        let crc = crc32fast::hash(&file[payload_at..end]);
        put_u32(file, at + 8, crc);
        at = end;
    }
}

/// Gives the file its own number, and every record its checksum.
fn repair_data_file(file: &mut [u8], id: FileId) {
    let header = FILE_HEADER_BYTES as usize;
    if file.len() < header {
        return;
    }
    file[8..16].copy_from_slice(&u64::from(id).to_le_bytes());
    let crc = crc32fast::hash(&file[..28]);
    put_u32(file, 28, crc);
    let mut salt = [0; 8];
    salt.copy_from_slice(&file[16..24]);
    let mut at = header;
    while let Some(record) = parse_record(&file[at..]) {
        let end = at + RECORD_HEADER_BYTES + record.payload_bytes as usize;
        if end > file.len() {
            return;
        }
        finish_record(&mut file[at..end], u64::from_le_bytes(salt), at as u64);
        at = end;
    }
}

/// The highest page that a log file speaks of, wherever its records begin.
fn most_pages_of_log(file: &[u8]) -> u32 {
    let mut most = 0;
    for at in 0..file.len() {
        let Some(record) = parse_record(&file[at..]) else { continue };
        let payload_at = at + RECORD_HEADER_BYTES;
        let Some(payload) = file.get(payload_at..payload_at + record.payload_bytes as usize) else { continue };
        most = most.max(record.page);
        match record.kind {
            RecordKind::State => {
                if let Ok(record) = StateRecord::decode(payload) {
                    let absent = record.absent.last().map_or(0, |page| page.get());
                    most = most.max(most_pages_of_state(&record.state)).max(absent);
                }
            }
            RecordKind::Commit => {
                if let Ok(record) = CommitRecord::decode(payload) {
                    let changed = record.changed.last().map_or(0, |page| page.get());
                    most = most.max(record.page_count.get()).max(record.low_count.get()).max(changed);
                }
            }
            _ => {}
        }
    }
    most
}

fn most_pages_of_state(state: &State) -> u32 {
    let carried = state.intent.as_ref().map(|intent| &intent.carries);
    let sets = carried.into_iter().chain([&state.pending]).filter_map(|pending| pending.changed.last());
    sets.map(|page| page.get()).chain([state.page_count.get()]).max().unwrap_or(0)
}
