//! `import`: a file becomes a volume.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use quire_engine::{Error, ErrorKind, PageCount, PageIdx, PageSize, Result, Volume};
use serde::Serialize;

use super::create::refuse_unless_empty;
use super::import_database::import_database;
use crate::context::{Context, new_name};
use crate::interrupt::Checkpoints;
use crate::output::{count, size, word};
use crate::progress::Progress;
use crate::stop::Outcome;

/// What a SQLite database begins with.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// How much of a file is read at once.
const CHUNK_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct Imported {
    name: String,
    content: &'static str,
    bytes: u64,
    pages: u32,
    page_size: usize,
}

/// Takes a file in as a volume, in one commit.
pub(crate) fn import(ctx: &Context, path: &Path, name: &str, page_size: Option<u32>, bytes: bool) -> Outcome {
    let name = new_name(name)?;
    let chosen_size = page_size.map(PageSize::try_new).transpose()?;
    let (mut file, len_bytes) = open_regular(path)?;
    let database = !bytes && is_database(&mut file, path)?;
    if database && chosen_size.is_some() {
        return Err(Error::invalid(format!(
            "--page-size: {} is a SQLite database, which keeps its own",
            path.display()
        ))
        .with_remedy("Leave out --page-size, or take the file byte for byte with --bytes.")
        .into());
    }
    let engine = ctx.engine()?;
    let is_new = !engine.local_volumes()?.contains(&name);
    let volume = engine.volume(&name)?;
    refuse_unless_empty(&volume)?;
    let done = if database {
        import_database(ctx, path, &volume)
    } else {
        let page_size = chosen_size.or(volume.snapshot().page_size()).unwrap_or(PageSize::DEFAULT);
        import_bytes(path, &mut file, len_bytes, &volume, page_size)
    };
    if let Err(stop) = done {
        if is_new {
            // What was copied so far is of no use and takes disk space. There may be no replica yet.
            let _ = engine.remove_replica(&name, true);
        }
        return Err(stop);
    }
    let snapshot = volume.snapshot();
    let page_size = snapshot.page_size().unwrap_or(PageSize::DEFAULT);
    let imported = Imported {
        name: name.to_string(),
        content: if database { "sqlite" } else { "file" },
        bytes: if database { snapshot.page_count().bytes(page_size) } else { len_bytes },
        pages: snapshot.page_count().get(),
        page_size: page_size.bytes(),
    };
    ctx.output.result(&imported, |imported| {
        let what = if database { "a SQLite database" } else { "a file" };
        let pages = count(imported.pages.into(), "page");
        format!(
            "imported {what} of {} as {name}, {pages} of {} bytes; to bring it to the store: quire push {}",
            size(imported.bytes),
            imported.page_size,
            word(&name)
        )
    })
}

/// The length in bytes that an import of a file has noted: its last page may not be full. None
/// for a database, and for a file that SQLite has written to since.
pub(crate) fn noted_length(volume: &Volume) -> Option<String> {
    let is_file = volume.attribute("content").as_deref() == Some("file");
    volume.attribute("length").filter(|_| is_file)
}

fn open_regular(path: &Path) -> Result<(File, u64)> {
    let reading = |e| Error::from_io(format!("reading {}", path.display()), e);
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            Error::not_found(format!("there is no file {}", path.display())).with_remedy("Check the path.")
        }
        _ => reading(e),
    })?;
    if !metadata.is_file() {
        let what = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(Error::invalid(format!("{} is {what}", path.display()))
            .with_remedy("A volume is made from one file: pack a directory, or save the stream, into a file first."));
    }
    let file = File::open(path).map_err(reading)?;
    Ok((file, metadata.len()))
}

fn is_database(file: &mut File, path: &Path) -> Result<bool> {
    let mut head = [0; SQLITE_MAGIC.len()];
    let full = match file.read_exact(&mut head) {
        Ok(()) => true,
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => false,
        Err(e) => return Err(Error::from_io(format!("reading {}", path.display()), e)),
    };
    file.seek(SeekFrom::Start(0)).map_err(|e| Error::from_io(format!("reading {}", path.display()), e))?;
    Ok(full && head == *SQLITE_MAGIC)
}

/// Takes exactly `len_bytes` bytes: a file that shrinks meanwhile is an error,
/// what is appended to it meanwhile is not taken.
fn import_bytes(path: &Path, file: &mut File, len_bytes: u64, volume: &Volume, page_size: PageSize) -> Outcome {
    PageCount::of_bytes(len_bytes, page_size)?;
    let interrupted = Checkpoints::new();
    let mut progress = Progress::new(format!("importing {}", volume.name()));
    let mut writer = volume.writer(&volume.snapshot(), "quire import")?;
    writer.set_page_size(page_size)?;
    writer.set_attribute("content", "file");
    writer.set_attribute("length", &len_bytes.to_string());
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut done = 0;
    while done < len_bytes {
        interrupted.check()?;
        let len = (len_bytes - done).min(CHUNK_BYTES as u64) as usize;
        file.read_exact(&mut chunk[..len]).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                Error::new(ErrorKind::Io, format!("{} became shorter while it was read", path.display()))
                    .with_remedy("Nothing was imported; try again once nobody writes to it.")
            }
            _ => Error::from_io(format!("reading {}", path.display()), e),
        })?;
        // The last page is filled up with zeros; the length says where the file ends.
        let padded = len.next_multiple_of(page_size.bytes());
        chunk[len..padded].fill(0);
        for (n, page) in chunk[..padded].chunks_exact(page_size.bytes()).enumerate() {
            let offset = done + (n * page_size.bytes()) as u64;
            let index = PageIdx::of_offset(offset, page_size)
                .ok_or_else(|| Error::invalid(format!("byte {offset} is past the last page")))?;
            writer.write(index, page)?;
        }
        done += len as u64;
        progress.bytes(done, len_bytes);
    }
    writer.commit(true)?;
    Ok(())
}
