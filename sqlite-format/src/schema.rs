//! What is in a database: the rows of its first B-tree, `sqlite_schema`.

use quire_proto::{Error, PageIdx, PageSet, Result};

use crate::btree::Cells;
use crate::cell::Payload;
use crate::record::{Value, first_values, text};
use crate::walk::Walk;
use crate::{DatabaseHeader, Overflow, Pages, TextEncoding};

/// A row's names lie within its first bytes: SQLite's limit for a statement, which may be UTF-16.
const MAX_NAMES_BYTES: usize = 2_000_000;
/// All objects together; SQLite too keeps its schema in memory.
const MAX_SCHEMA_BYTES: usize = 256 << 20;

/// What owns pages. Views, triggers and virtual tables do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A table, with or without rowids; also one that a virtual table keeps its data in.
    Table,
    /// An index, also one that SQLite made for a constraint.
    Index,
}

/// A table or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaObject {
    /// What it is.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
    /// The table that it is or belongs to.
    pub table: String,
    /// The page at the top of its B-tree.
    pub root: PageIdx,
}

/// What is in a database, and where that is written.
#[derive(Clone, Debug, Default)]
pub struct Schema {
    /// The tables and indexes, in the order of the schema's rows.
    pub objects: Vec<SchemaObject>,
    /// The pages of `sqlite_schema` itself: page 1, what lies below it level by level, overflow pages.
    pub pages: Vec<PageIdx>,
    /// Where the schema is damaged; objects may be missing then.
    pub damaged: PageSet,
}

/// Reads the schema: all its pages, overflow included.
/// Damage leaves out the rows that it hides; page 1 itself must be whole.
pub fn read_schema(pages: &mut (impl Pages + ?Sized), header: &DatabaseHeader) -> Result<Schema> {
    read_within(MAX_SCHEMA_BYTES, pages, header)
}

fn read_within(max_bytes: usize, pages: &mut (impl Pages + ?Sized), header: &DatabaseHeader) -> Result<Schema> {
    let mut walk = Walk::new(pages, header);
    let mut schema = Schema::default();
    let leaves = take_tree(&mut walk, &mut schema.pages)?;
    let mut kept_bytes = 0;
    for leaf in leaves {
        for row in rows(&mut walk, leaf)? {
            let bytes = beginning(&mut walk, leaf, row, &mut schema.pages)?;
            match parse_row(&bytes, header.text_encoding) {
                Row::Object(object) => {
                    kept_bytes += size_of::<SchemaObject>() + object.name.len() + object.table.len();
                    schema.objects.push(object);
                }
                Row::Other => {}
                Row::Damaged => _ = walk.damaged.insert(leaf),
            }
            if kept_bytes > max_bytes {
                return Err(Error::corrupt(format!("the schema's names take more than {max_bytes} bytes")));
            }
        }
    }
    schema.damaged = walk.damaged;
    Ok(schema)
}

/// Takes the B-tree at page 1, notes its pages from the top, and returns its leaves.
fn take_tree(walk: &mut Walk<'_, impl Pages + ?Sized>, pages: &mut Vec<PageIdx>) -> Result<Vec<PageIdx>> {
    let no_schema = || Error::corrupt("page 1 holds no schema: it is not the top of a table");
    let root = match walk.take(PageIdx::FIRST, PageIdx::FIRST) {
        true => walk.node(PageIdx::FIRST, |node| !node.kind.is_index())?.ok_or_else(no_schema)?,
        false => return Err(no_schema()),
    };
    if root.kind.is_leaf() {
        pages.push(PageIdx::FIRST);
        return Ok(vec![PageIdx::FIRST]);
    }
    let interior = walk.interior_below(PageIdx::FIRST, false)?;
    let mut leaves = Vec::new();
    walk.leaves_below(&interior, false, |page| {
        leaves.push(page);
        Ok(())
    })?;
    pages.extend(interior.pages);
    pages.extend(&leaves);
    Ok(leaves)
}

/// The part of a row that lies on its leaf, and where the rest is.
struct LocalPart {
    bytes: Vec<u8>,
    overflow: Option<Overflow>,
}

/// The rows of a leaf; none if it is damaged.
fn rows(walk: &mut Walk<'_, impl Pages + ?Sized>, leaf: PageIdx) -> Result<Vec<LocalPart>> {
    let Some(usable) = walk.read(leaf)? else { return Ok(Vec::new()) };
    let part = |payload: Payload| LocalPart { bytes: usable[payload.local].to_vec(), overflow: payload.overflow };
    let rows: Result<Vec<_>> = Cells::parse(leaf, usable, usable.len())
        .and_then(|cells| cells.map(|cell| Ok(cell?.payload.map(part))).collect());
    match rows {
        Ok(rows) => Ok(rows.into_iter().flatten().collect()),
        Err(_) => {
            walk.damaged.insert(leaf);
            Ok(Vec::new())
        }
    }
}

/// The beginning of a row, with all of its names. Its overflow pages are noted.
fn beginning(
    walk: &mut Walk<'_, impl Pages + ?Sized>,
    leaf: PageIdx,
    row: LocalPart,
    pages: &mut Vec<PageIdx>,
) -> Result<Vec<u8>> {
    let mut bytes = row.bytes;
    let Some(chain) = row.overflow else { return Ok(bytes) };
    walk.overflow(chain, leaf, true, |page, content| {
        pages.push(page);
        if bytes.len() < MAX_NAMES_BYTES {
            bytes.extend_from_slice(content);
        }
        Ok(())
    })?;
    Ok(bytes)
}

enum Row {
    Object(SchemaObject),
    /// A view, a trigger, a virtual table.
    Other,
    Damaged,
}

fn parse_row(bytes: &[u8], encoding: TextEncoding) -> Row {
    let Some([Value::Text(kind), Value::Text(name), Value::Text(table), root]) = first_values(bytes) else {
        return Row::Damaged;
    };
    let kind = match text(kind, encoding).as_str() {
        "table" => ObjectKind::Table,
        "index" => ObjectKind::Index,
        "view" | "trigger" => return Row::Other,
        _ => return Row::Damaged,
    };
    let root = match root {
        Value::Integer(root) => u32::try_from(root).ok(),
        _ => None,
    };
    match root.map(PageIdx::new) {
        Some(Some(root)) => {
            Row::Object(SchemaObject { kind, name: text(name, encoding), table: text(table, encoding), root })
        }
        Some(None) => Row::Other,
        None => Row::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use quire_proto::ErrorKind;

    use super::*;
    use crate::fuzz::Image;

    #[test]
    fn a_schema_past_its_bound_is_an_error() {
        for path in quire_testkit::fuzz::seeds("sqlite_pages") {
            let bytes = std::fs::read(path).unwrap();
            let header = DatabaseHeader::parse(&bytes).unwrap();
            let mut pages = Image::new(bytes, header.page_size);
            let schema = read_within(MAX_SCHEMA_BYTES, &mut pages, &header).unwrap();
            let names = schema.objects.iter().map(|object| object.name.len() + object.table.len());
            let bytes = names.sum::<usize>() + schema.objects.len() * size_of::<SchemaObject>();
            assert_eq!(read_within(bytes, &mut pages, &header).unwrap().objects, schema.objects);
            assert_eq!(read_within(bytes - 1, &mut pages, &header).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn rows_of_no_object_are_passed_over_and_others_are_damage() {
        let row = |kind: &str, root: &[u8]| {
            let types = [13 + 2 * kind.len() as u8, 15, 15, root.len() as u8];
            let bytes = [&[5][..], &types, kind.as_bytes(), b"n", b"t", root].concat();
            parse_row(&bytes, TextEncoding::Utf8)
        };
        assert!(matches!(row("table", &[7]), Row::Object(object) if object.root.get() == 7 && object.table == "t"));
        assert!(matches!(row("index", &[1, 0]), Row::Object(object) if object.kind == ObjectKind::Index));
        assert!(matches!(row("table", &[0]), Row::Other), "a virtual table");
        assert!(matches!(row("view", &[0]), Row::Other));
        assert!(matches!(row("trigger", &[0]), Row::Other));
        assert!(matches!(row("table", &[0xff]), Row::Damaged), "a root of -1");
        assert!(matches!(row("table", &[1, 0, 0, 0, 0, 0]), Row::Damaged), "a root past the last page number");
        assert!(matches!(row("tables", &[7]), Row::Damaged));
        assert!(matches!(parse_row(&[5, 23], TextEncoding::Utf8), Row::Damaged));
    }
}
