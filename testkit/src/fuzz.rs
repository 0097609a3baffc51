//! The fuzzer's inputs in ordinary tests: what it found once stays found, and
//! mutations of its seeds run each time.
//!
//! `QUIRE_ROUNDS` says how many mutations, `QUIRE_SEED` replays a run. An
//! input that fails is kept: its path is printed, and once it is mended the
//! file goes to `fuzz/regressions/<target>/`.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::seed;

/// Inputs stay shorter than this.
const MAX_BYTES: usize = 64 << 10;

/// The golden files that a target's inputs look like: their paths from the
/// root begin with one of these.
const GOLDEN: [(&str, &[&str]); 12] = [
    ("commit", &["proto/tests/golden/commit-"]),
    ("header", &["proto/tests/golden/commit-"]),
    ("frame", &["proto/tests/golden/frame-"]),
    ("page_set", &["proto/tests/golden/pages-"]),
    ("rollup", &["proto/tests/golden/rollup"]),
    ("checkpoint", &["proto/tests/golden/checkpoint-"]),
    ("segment", &["pagestore/tests/golden/segment"]),
    ("state_record", &["engine/tests/golden/state-"]),
    ("commit_record", &["engine/tests/golden/commit"]),
    ("table_file", &["engine/tests/golden/table"]),
    ("catalogue", &["engine/tests/golden/catalog"]),
    ("decision", &["engine/tests/golden/decision"]),
];

/// A target's seeds: the golden files of its format, and those written for it
/// (`fuzz/seeds/<target>/`).
pub fn seeds(target: &str) -> Vec<PathBuf> {
    let mut seeds = files(&root().join("fuzz/seeds").join(target));
    for prefix in GOLDEN.iter().filter(|(name, _)| *name == target).flat_map(|(_, prefixes)| prefixes.iter()) {
        let prefix = root().join(prefix);
        let folder = prefix.parent().expect("a path below the root");
        let name = prefix.file_name().expect("a file's name").to_string_lossy().into_owned();
        let matches = |path: &PathBuf| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&name));
        seeds.extend(files(folder).into_iter().filter(matches));
    }
    seeds
}

/// Inputs on which a target failed once (`fuzz/regressions/<target>/`).
pub fn regressions(target: &str) -> Vec<PathBuf> {
    files(&root().join("fuzz/regressions").join(target))
}

/// Runs a check on all regressions and seeds of a target, and on so many mutations of them.
pub fn replay(target: &str, check: fn(&[u8]), rounds: u64) {
    let paths: Vec<PathBuf> = regressions(target).into_iter().chain(seeds(target)).collect();
    assert!(!paths.is_empty(), "target {target} has no seeds");
    let known: Vec<Vec<u8>> =
        paths.iter().map(|path| fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))).collect();
    for (path, bytes) in paths.iter().zip(&known) {
        let failed = catch_unwind(AssertUnwindSafe(|| check(bytes)));
        failed.unwrap_or_else(|panic| {
            eprintln!("target {target} fails on {}", path.display());
            resume_unwind(panic)
        });
    }
    let mut rng = StdRng::seed_from_u64(seed());
    let rounds = std::env::var("QUIRE_ROUNDS").map_or(rounds, |text| text.parse().expect("QUIRE_ROUNDS is a number"));
    for _ in 0..rounds {
        let bytes = mutated(&known, &mut rng);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&bytes))) {
            let path = std::env::temp_dir().join(format!("quire-{target}-{:016x}", rng.random::<u64>()));
            let _ = fs::write(&path, &bytes);
            eprintln!("target {target} fails on {}", path.display());
            resume_unwind(panic);
        }
    }
}

/// One of `known` with a few changes such as a fuzzer makes.
fn mutated(known: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let mut bytes = known[rng.random_range(0..known.len())].clone();
    for _ in 0..rng.random_range(1..=4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][rng.random_range(0..6)],
            2 => bytes.truncate(at),
            3 => {
                let end = rng.random_range(at..=bytes.len().min(at + 64));
                bytes.drain(at..end);
            }
            4 => {
                let other = &known[rng.random_range(0..known.len())];
                let from = rng.random_range(0..=other.len());
                let to = rng.random_range(from..=other.len().min(from + 64));
                bytes.splice(at..at, other[from..to].iter().copied());
            }
            _ if at + 8 <= bytes.len() => {
                let number = [0, 1, u64::from(u32::MAX), u64::MAX, 1 << 63, rng.random()][rng.random_range(0..6)];
                let len = [1, 2, 4, 8][rng.random_range(0..4)];
                bytes[at..at + len].copy_from_slice(&number.to_le_bytes()[..len]);
            }
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes.truncate(MAX_BYTES);
    bytes
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testkit lies in the workspace")
}

/// The files of a folder, in order; none if it is not there.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.sort();
    files
}
