//! Which process this is. Handles must not be used by a fork's child, and every call of SQLite's asks: so the answer is
//! a word in memory that the kernel empties for the child, not a system call.

#[cfg(target_os = "linux")]
use std::sync::{
    LazyLock,
    atomic::{AtomicU32, Ordering},
};

use quire_engine::{Error, ErrorKind, Result};

/// Refuses a fork's child: process `opener` has opened what `what` names.
pub(crate) fn check(opener: u32, what: impl FnOnce() -> String) -> Result<()> {
    let this = id();
    if opener == this {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Denied, format!("{}: opened by process {opener}, used in its fork {this}", what()))
        .with_remedy("Open the database in the process that uses it, after fork(2)."))
}

/// The number of this process.
pub(crate) fn id() -> u32 {
    #[cfg(target_os = "linux")]
    if let Some(word) = *WORD {
        let known = word.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        word.store(std::process::id(), Ordering::Relaxed);
    }
    std::process::id()
}

/// Zero in a process that has not looked yet, and in a child that was forked since. None: this kernel has no such memory.
#[cfg(target_os = "linux")]
static WORD: LazyLock<Option<&'static AtomicU32>> = LazyLock::new(|| {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    const LEN: usize = 4096;
    // SAFETY: the mapping is new, is never unmapped once it is given away, and is large and aligned enough for the word.
    unsafe {
        let at =
            mmap_anonymous(std::ptr::null_mut(), LEN, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).ok()?;
        if madvise(at, LEN, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(at, LEN);
            return None;
        }
        Some(&*at.cast::<AtomicU32>())
    }
});
