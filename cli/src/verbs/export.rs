//! `export`: a volume becomes a file.

use std::fs::{File, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use quire_engine::{Error, ErrorKind, PageIdx, PageSize, Result, Snapshot};
use serde::Serialize;
use tempfile::NamedTempFile;

use super::import::noted_length;
use crate::context::Context;
use crate::interrupt::Checkpoints;
use crate::output::size;
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
    if path.is_dir() {
        return Err(Error::invalid(format!("{} is a directory", path.display()))
            .with_remedy("Name the file to write, not the folder for it.")
            .into());
    }
    // Said before the work, and made sure of by the rename after it.
    if !force && path.symlink_metadata().is_ok() {
        return Err(exists(path).into());
    }
    let volume = ctx.opened(name)?.0;
    let snapshot = volume.snapshot();
    let page_size = snapshot.page_size().unwrap_or(PageSize::DEFAULT);
    let paged = snapshot.page_count().bytes(page_size);
    let len_bytes = match noted_length(&volume) {
        Some(length) => checked_length(&length, paged)?,
        None => paged,
    };

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let writing = |e| Error::from_io(format!("writing {}", path.display()), e);
    // From before there is a file to tidy up until it has its name.
    let interrupted = Checkpoints::new();
    let temporary = tempfile::Builder::new()
        .prefix(".quire-export-")
        .permissions(Permissions::from_mode(0o666)) // less the umask, as of any new file
        .tempfile_in(folder)
        .map_err(writing)?;
    let mut progress = Progress::new(format!("exporting {name}"));
    write_pages(&snapshot, page_size, len_bytes, temporary.as_file(), path, &interrupted, &mut progress)?;
    temporary.as_file().sync_all().map_err(writing)?;
    interrupted.check()?;
    keep(temporary, path, force)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(writing)?;
    drop(progress);

    let exported = Exported { name: name.to_string(), file: path.to_owned(), bytes: len_bytes };
    ctx.output.result(&exported, |exported| format!("exported {name} to {}, {}", path.display(), size(exported.bytes)))
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
