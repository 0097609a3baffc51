//! Which system calls change a disk, and what they do to it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use libc::{c_int, c_long};
use quire_powerloss::Event;

use crate::tracee::{Call, Tracee};

/// All calls that are looked at.
pub(crate) const CALLS: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fcntl,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_mkdirat,
    libc::SYS_linkat,
    libc::SYS_renameat2,
    libc::SYS_renameat,
    libc::SYS_unlinkat,
    libc::SYS_mmap,
    // These are refused where they could change a recorded file.
    libc::SYS_pwritev2,
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
    libc::SYS_splice,
    libc::SYS_truncate,
    libc::SYS_symlinkat,
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
];

/// Where programs write what they say.
const STDOUT: u32 = 1;

/// A call that was made, before it is known what came of it.
pub(crate) enum Pending {
    /// It succeeds as a whole: then this has happened.
    Whole(Event),
    /// It opens a descriptor: below the recorded folder, or elsewhere.
    Open { path: Option<PathBuf>, create: bool, truncate: bool },
    /// It copies a descriptor, of a recorded file or of another one.
    Duplicate { from: u32 },
    /// It writes as many of these bytes as it returns, where the descriptor stands.
    Write { fd: u32, bytes: Vec<u8> },
    /// It writes as many of these bytes as it returns.
    WriteAt { fd: u32, offset: u64, bytes: Vec<u8> },
}

/// What lies below the recorded folder and is open.
pub(crate) struct Recorded {
    root: PathBuf,
    open: HashSet<u32>,
}

impl Recorded {
    /// `root` without symbolic links in it.
    pub(crate) fn new(root: PathBuf) -> Recorded {
        Recorded { root, open: HashSet::new() }
    }

    /// What a call is going to do. `None`: nothing to anything that is recorded.
    pub(crate) fn begin(&self, tracee: &Tracee, call: Call) -> io::Result<Option<Pending>> {
        let [a, b, c, d, ..] = call.arguments;
        let fd = a as u32;
        let is_recorded = |fd: u64| self.open.contains(&(fd as u32));
        let path = |folder: u64, address: u64| self.path(tracee, folder as c_int, address);
        let here = libc::AT_FDCWD as u64;
        let whole = |event: Event| Ok(Some(Pending::Whole(event)));
        let refuse = |what: &str| Err(io::Error::other(format!("the recorder does not know {what} of recorded files")));
        match call.number {
            libc::SYS_openat => self.open(path(a, b)?, c),
            libc::SYS_fcntl if !matches!(b as c_int, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) => Ok(None),
            libc::SYS_dup | libc::SYS_dup3 | libc::SYS_fcntl => Ok(Some(Pending::Duplicate { from: fd })),
            libc::SYS_write if fd == STDOUT => whole(Event::Said { bytes: tracee.bytes(b, c)? }),
            libc::SYS_mmap => {
                let is_written = c as c_int & libc::PROT_WRITE != 0 && d as c_int & libc::MAP_SHARED != 0;
                if is_written && is_recorded(call.arguments[4]) { refuse("writable maps") } else { Ok(None) }
            }
            libc::SYS_mkdirat => Ok(path(a, b)?.map(|path| Pending::Whole(Event::MadeFolder { path }))),
            libc::SYS_linkat => self.moved(path(c, d)?, path(a, b)?, |path, from| Event::Linked { path, from }),
            libc::SYS_renameat => self.moved(path(c, d)?, path(a, b)?, |path, from| Event::Renamed { path, from }),
            libc::SYS_renameat2 if call.arguments[4] as u32 & !libc::RENAME_NOREPLACE != 0 => refuse("exchanges"),
            libc::SYS_renameat2 => self.moved(path(c, d)?, path(a, b)?, |path, from| Event::Renamed { path, from }),
            libc::SYS_unlinkat => {
                let is_folder = c as c_int & libc::AT_REMOVEDIR != 0;
                let gone = |path| if is_folder { Event::RemovedFolder { path } } else { Event::Unlinked { path } };
                Ok(path(a, b)?.map(gone).map(Pending::Whole))
            }
            libc::SYS_truncate if path(here, a)?.is_some() => refuse("truncate by name"),
            libc::SYS_symlinkat if path(b, c)?.is_some() => refuse("symbolic links"),
            libc::SYS_openat2 => refuse("openat2"),
            libc::SYS_io_uring_setup => refuse("io_uring"),
            libc::SYS_copy_file_range if is_recorded(c) => refuse("copy_file_range"),
            libc::SYS_splice if is_recorded(c) => refuse("splice"),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => self.open(path(here, a)?, b),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => self.open(path(here, a)?, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u64),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_dup2 => Ok(Some(Pending::Duplicate { from: fd })),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => Ok(path(here, a)?.map(|path| Pending::Whole(Event::MadeFolder { path }))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rmdir => Ok(path(here, a)?.map(|path| Pending::Whole(Event::RemovedFolder { path }))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => Ok(path(here, a)?.map(|path| Pending::Whole(Event::Unlinked { path }))),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link => self.moved(path(here, b)?, path(here, a)?, |path, from| Event::Linked { path, from }),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => self.moved(path(here, b)?, path(here, a)?, |path, from| Event::Renamed { path, from }),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink if path(here, b)?.is_some() => refuse("symbolic links"),
            _ if !self.open.contains(&fd) => Ok(None),
            libc::SYS_close => whole(Event::Closed { fd }),
            libc::SYS_write => Ok(Some(Pending::Write { fd, bytes: tracee.bytes(b, c)? })),
            libc::SYS_writev => Ok(Some(Pending::Write { fd, bytes: gather(tracee, b, c)? })),
            libc::SYS_pwrite64 => Ok(Some(Pending::WriteAt { fd, offset: d, bytes: tracee.bytes(b, c)? })),
            libc::SYS_pwritev => Ok(Some(Pending::WriteAt { fd, offset: d, bytes: gather(tracee, b, c)? })),
            libc::SYS_ftruncate => whole(Event::Resized { fd, len: b }),
            libc::SYS_fallocate if b != 0 => refuse("fallocate with flags"),
            libc::SYS_fallocate => whole(Event::Reserved { fd, end: c + d }),
            libc::SYS_fsync | libc::SYS_fdatasync => whole(Event::Synced { fd }),
            libc::SYS_pwritev2 => refuse("pwritev2"),
            libc::SYS_sendfile => refuse("sendfile"),
            _ => Ok(None),
        }
    }

    /// What a call has done that returned `result`.
    pub(crate) fn end(&mut self, tracee: &Tracee, pending: Pending, result: i64) -> io::Result<Option<Event>> {
        let Ok(result) = u64::try_from(result) else { return Ok(None) };
        Ok(Some(match pending {
            Pending::Whole(event) => {
                if let Event::Closed { fd } = &event {
                    self.open.remove(fd);
                }
                event
            }
            Pending::Open { path: Some(path), create, truncate } => {
                self.open.insert(result as u32);
                Event::Opened { fd: result as u32, path, create, truncate }
            }
            Pending::Duplicate { from } if self.open.contains(&from) => {
                self.open.insert(result as u32);
                Event::Duplicated { fd: result as u32, from }
            }
            Pending::Open { .. } | Pending::Duplicate { .. } => {
                self.open.remove(&(result as u32));
                return Ok(None);
            }
            // Also where the descriptor appends: it stands after what was written.
            Pending::Write { fd, bytes } => wrote(fd, tracee.position(fd)? - result, bytes, result),
            Pending::WriteAt { fd, offset, bytes } => wrote(fd, offset, bytes, result),
        }))
    }

    fn open(&self, path: Option<PathBuf>, flags: u64) -> io::Result<Option<Pending>> {
        let flags = flags as c_int;
        if path.is_some() && flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return Err(io::Error::other("the recorder does not know files without a name"));
        }
        let (create, truncate) = (flags & libc::O_CREAT != 0, flags & libc::O_TRUNC != 0);
        Ok(Some(Pending::Open { path, create, truncate }))
    }

    fn moved(
        &self,
        path: Option<PathBuf>,
        from: Option<PathBuf>,
        event: impl FnOnce(PathBuf, PathBuf) -> Event,
    ) -> io::Result<Option<Pending>> {
        match (path, from) {
            (Some(path), Some(from)) => Ok(Some(Pending::Whole(event(path, from)))),
            (None, None) => Ok(None),
            _ => Err(io::Error::other("the recorder does not know moves into or out of the recorded folder")),
        }
    }

    /// A path below the recorded folder, without its front part; `None` if it lies elsewhere.
    fn path(&self, tracee: &Tracee, folder: c_int, address: u64) -> io::Result<Option<PathBuf>> {
        let path = PathBuf::from(OsString::from_vec(tracee.string(address)?));
        let path = if path.is_absolute() { path } else { tracee.folder(folder)?.join(path) };
        // The last part need not exist. If its folder does not, the call is going to fail.
        let whole = match (path.parent().map(Path::canonicalize), path.file_name()) {
            (Some(Ok(folder)), Some(name)) => folder.join(name),
            _ => path,
        };
        Ok(whole.strip_prefix(&self.root).ok().map(Path::to_owned))
    }
}

fn wrote(fd: u32, offset: u64, mut bytes: Vec<u8>, len: u64) -> Event {
    bytes.truncate(len as usize);
    Event::Wrote { fd, offset, bytes }
}

/// The bytes that an array of pointers and lengths leads to.
fn gather(tracee: &Tracee, address: u64, count: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in tracee.bytes(address, 16 * count)?.chunks_exact(16) {
        let word = |at: usize| part[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        bytes.extend(tracee.bytes(word(0), word(8))?);
    }
    Ok(bytes)
}
