//! `export`: a volume becomes a file.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use quire_engine::{Error, ErrorKind, PageIdx, PageSize, Result, Snapshot};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::import::noted_length;
use super::import_database::logs_beside;
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::output::{size, word};
use crate::progress::Progress;
use crate::stop::Outcome;

/// How much goes to the file system at once.
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Serialize)]
struct Exported {
    name: String,
    file: PathBuf,
    bytes: u64,
}

/// Writes the visible snapshot beside `path`, and renames it once it is whole and durable.
pub(crate) fn export(ctx: &Context, name: &str, path: &Path, force: bool) -> Outcome {
    refuse_what_is_no_file(path)?;
    // Said before the work, and made sure of by the rename after it.
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists(path).into());
    }
    refuse_beside_a_log(path)?;
    if !folder_of(path).is_dir() {
        let folder = folder_of(path).display();
        return Err(Error::not_found(format!("writing {}: there is no folder {folder}", path.display()))
            .with_remedy(format!("Make it first: mkdir -p {}", word(folder)))
            .into());
    }
    let volume = ctx.opened(name)?.0;
    let snapshot = volume.snapshot();
    let page_size = snapshot.page_size().unwrap_or(PageSize::DEFAULT);
    let paged = snapshot.page_count().bytes(page_size);
    let len_bytes = match noted_length(&volume) {
        Some(length) => checked_length(&length, paged)?,
        None => paged,
    };

    let folder = folder_of(path);
    let writing = |e| Error::from_io(format!("writing {}", path.display()), e);
    // From before there is a file to tidy up until it has its name.
    let interrupted = Checkpoints::new();
    let temporary = tempfile::Builder::new()
        .prefix(".quire-export-")
        .permissions(Permissions::from_mode(0o666)) // less the umask, as of any new file
        .tempfile_in(folder)
        .map_err(|e| writing(without_path(e)))?;
    let mut progress = Progress::new(format!("exporting {name}"));
    write_pages(&snapshot, page_size, len_bytes, temporary.as_file(), path, &interrupted, &mut progress)?;
    temporary.as_file().sync_all().map_err(writing)?;
    interrupted.check()?;
    refuse_beside_a_log(path)?;
    keep(temporary, path, force)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(writing)?;
    drop(progress);

    let exported = Exported { name: name.to_string(), file: path.to_owned(), bytes: len_bytes };
    ctx.output.result(&exported, |exported| format!("exported {name} to {}, {}", path.display(), size(exported.bytes)))
}

/// Refuses what no file may take the place of, and what only looks like one.
fn refuse_what_is_no_file(path: &Path) -> Result<()> {
    let what = match path.symlink_metadata() {
        _ if path == Path::new("-") => "standard output for other programs: a volume is written whole or not at all",
        Ok(there) if there.is_dir() => "a directory",
        Ok(there) if there.is_symlink() => "a link to something else",
        Ok(there) if !there.is_file() => "a device or a pipe",
        _ => return Ok(()),
    };
    Err(Error::invalid(format!("{} is {what}", path.display())).with_remedy(match path.is_dir() {
        true => "Name the file to write, not the folder for it.",
        false => "Name an ordinary file, such as ./copy.db.",
    }))
}

/// SQLite plays what it finds in a write-ahead log or a journal into the file of that name, whichever database it was
/// written for.
fn refuse_beside_a_log(path: &Path) -> Result<()> {
    for log in logs_beside(path) {
        let mut magic = [0; 8];
        // One that begins with zeros is what a transaction that has ended may leave.
        if File::open(&log).and_then(|mut log| log.read_exact(&mut magic)).is_ok() && magic != [0; 8] {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} lies there: SQLite would play it into what is exported", log.display()),
            )
            .with_remedy(
                "Nothing was changed. End the program that has the database of that name open, or open it once with \
                 sqlite3; if there is none any more, remove the log. Or choose another file.",
            ));
        }
    }
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Without the name of the temporary file, which says nothing to the user.
fn without_path(error: std::io::Error) -> std::io::Error {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    match error.kind() {
        kind @ (PermissionDenied | ReadOnlyFilesystem) => kind.into(),
        _ => error,
    }
}

fn checked_length(length: &str, paged: u64) -> Result<u64> {
    length.parse().ok().filter(|length| *length <= paged).ok_or_else(|| {
        Error::corrupt(format!("the volume's length is stored as {length:?}, but its pages hold {paged} bytes"))
    })
}

fn write_pages(
    snapshot: &Snapshot,
    page_size: PageSize,
    len_bytes: u64,
    file: &File,
    path: &Path,
    interrupted: &Checkpoints,
    progress: &mut Progress,
) -> Outcome {
    let writing = |e| Error::from_io(format!("writing {}", path.display()), e);
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut page = vec![0; page_size.bytes()];
    let mut done = 0;
    while done < len_bytes {
        interrupted.check()?;
        let index = PageIdx::of_offset(done, page_size)
            .ok_or_else(|| Error::corrupt(format!("byte {done} is past the last page")))?;
        snapshot.read(index, &mut page)?;
        let len = (len_bytes - done).min(page.len() as u64) as usize;
        out.write_all(&page[..len]).map_err(writing)?;
        done += len as u64;
        progress.bytes(done, len_bytes);
    }
    out.flush().map_err(writing)?;
    Ok(())
}

fn keep(temporary: NamedTempFile, path: &Path, force: bool) -> Result<()> {
    let kept = if force { temporary.persist(path) } else { temporary.persist_noclobber(path) };
    match kept {
        Ok(_) => Ok(()),
        Err(e) if e.error.kind() == std::io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(e) => Err(Error::from_io(format!("writing {}", path.display()), e.error)),
    }
}

fn exists(path: &Path) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("{} exists already", path.display()))
        .with_remedy("Nothing was changed. Choose another file, or replace this one with --force.")
}
