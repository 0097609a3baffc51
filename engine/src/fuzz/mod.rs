//! What must hold of any bytes in the place of the local files, for the fuzzer
//! (`fuzz/` at the root) and for the ordinary tests that replay what it found.
//!
//! A checksum stops accidents, and it would stop the fuzzer at the door. So
//! each check looks at the input as it is, and once more with its checksums
//! set right.

mod files;
mod records;

pub use files::{catalogue, replica, table_file};
pub use records::{commit_record, decision, log_record, state_record};

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use quire_proto::fuzz::Check;

/// Every check with its name.
pub const TARGETS: [Check; 7] = [
    ("log_record", log_record),
    ("state_record", state_record),
    ("commit_record", commit_record),
    ("decision", decision),
    ("table_file", table_file),
    ("catalogue", catalogue),
    ("replica", replica),
];

/// Pages that a check lets a forged record claim: a set of all pages that there
/// can be takes gigabytes of table, as it must.
const MAX_PAGES: u32 = 1 << 16;

/// A folder for one input, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // In memory where there is one: thousands of inputs a second are written and synced.
        let root = match std::env::var_os("TMPDIR") {
            None if Path::new("/dev/shm").is_dir() => PathBuf::from("/dev/shm"),
            _ => std::env::temp_dir(),
        };
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = root.join(format!("quire-fuzz-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a folder for the input");
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes))
}

fn put_u32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}
