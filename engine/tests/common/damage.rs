//! Damage to files, case by case: flipped bits and lost ends.
//!
//! An ordinary run takes a sample of the cases, spread evenly with a seeded
//! beginning. `QUIRE_ROUNDS` is how many cases a test takes at most, so a large
//! number means every byte and every length; `QUIRE_SEED` replays a run.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use quire_testkit::seed;

use super::{scratch, setting};

/// No case takes longer unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// Cases that run at once.
const WORKERS: usize = 4;
/// More memory than any case needs, and far less than a length taken at its word. (A sanitizer takes more for itself.)
const MEMORY_LIMIT_MIB: u64 = 512;

/// The files of a folder, by their paths in it, with their contents.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

pub fn read_tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                tree.insert(path.strip_prefix(dir).unwrap().to_owned(), std::fs::read(&path).unwrap());
            }
        }
    }
    tree
}

/// Makes `dir` hold these files and no others.
pub fn write_tree(dir: &Path, tree: &Tree) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    for (path, bytes) in tree {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// What happens to a file.
#[derive(Clone, Copy, Debug)]
pub enum Damage {
    /// One bit of the byte here is another.
    Flip { at: usize, bit: u8 },
    /// Only so many bytes are left.
    Cut { len: usize },
}

impl Damage {
    pub fn of(self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        match self {
            Damage::Flip { at, bit } => bytes[at] ^= 1 << bit,
            Damage::Cut { len } => bytes.truncate(len),
        }
        bytes
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Flip { at, bit } => write!(f, "bit {bit} of byte {at} flipped"),
            Damage::Cut { len } => write!(f, "cut to {len} bytes"),
        }
    }
}

/// A file and what happens to it.
pub type Case = (PathBuf, Damage);

/// One bit of every byte. Zeros far from a file's beginning are all alike: of them every eighth.
pub fn flips(tree: &Tree) -> Vec<Case> {
    let of_file = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        let counts = |at: &usize| *at < 600 || bytes[*at] != 0 || at.is_multiple_of(8);
        let flip = |at| (path.clone(), Damage::Flip { at, bit: ((at + at / 8) % 8) as u8 });
        (0..bytes.len()).filter(counts).map(flip).collect::<Vec<_>>()
    };
    tree.iter().flat_map(of_file).collect()
}

/// Every length that a file can be cut to.
pub fn cuts(tree: &Tree) -> Vec<Case> {
    let of_file = |(path, bytes): (&PathBuf, &Vec<u8>)| {
        (0..bytes.len()).map(|len| (path.clone(), Damage::Cut { len })).collect::<Vec<_>>()
    };
    tree.iter().flat_map(of_file).collect()
}

/// At most `most` of the cases, unless `QUIRE_ROUNDS` says another number.
pub fn sample(cases: Vec<Case>, most: u64) -> Vec<Case> {
    let step = (cases.len() as u64).div_ceil(setting("QUIRE_ROUNDS", most).max(1)).max(1);
    let first = seed() % step;
    println!("{} cases, every {step}th from {first} on", cases.len());
    cases.into_iter().skip(first as usize).step_by(step as usize).collect()
}

/// Runs every case, several at once, each in a folder of its worker that `prepare` has filled: alone, a case mostly
/// waits for one thread of an engine to wake the next. Counts how often `run` said yes and how often no.
pub fn run_all(
    cases: Vec<Case>,
    prepare: impl Fn(&Path) + Sync,
    run: impl Fn(&Path, &Case) -> bool + Sync,
) -> (u64, u64) {
    let left = Mutex::new(cases.into_iter());
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let root = scratch();
                prepare(root.path());
                loop {
                    let Some(case) = left.lock().unwrap().next() else { return };
                    let outcome = catch_unwind(AssertUnwindSafe(|| run(root.path(), &case)));
                    let said_yes = outcome.unwrap_or_else(|panic| {
                        left.lock().unwrap().by_ref().for_each(drop); // the test has failed: nobody goes on
                        resume_unwind(panic)
                    });
                    counts[usize::from(said_yes)].fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    let [no, yes] = counts.map(AtomicU64::into_inner);
    (yes, no)
}

/// Runs one case; one that hangs fails the test by its name.
pub fn watched<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || done.send(work()));
    match wait.recv_timeout(PATIENCE) {
        Ok(outcome) => outcome,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: it hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => {
                eprintln!("{what}: it panics");
                resume_unwind(panic)
            }
            Ok(_) => unreachable!("a worker sends or panics"),
        },
    }
}

/// None of the cases before took the lengths that it found at their word.
pub fn memory_stayed_small() {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    let limit_kib = setting("QUIRE_MEMORY_LIMIT_MIB", MEMORY_LIMIT_MIB) << 10;
    assert!(kib < limit_kib, "{kib} KiB at the peak");
}
