//! SQLite's `speedtest1`, on an ordinary file and on Quire: what it has read in
//! the end, as a hash, must be the same. It is built from the same source as
//! the scripts, with `sqlite-vfs/scripts/preload.c`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::bench::{Bench, scripts_folder, witness_file};
use super::script::Outcome;
use super::source::Built;
use crate::process::run as run_command;

/// What is run: a name, SQLite's set of tests, and the options. `cte`, `fp` and `parsenumber` do not use the database,
/// and are left out.
const SETS: [(&str, &str, &[&str]); 6] = [
    ("main", "main", &[]),
    ("small-pages", "main", &["--pagesize", "512", "--autovacuum", "--cachesize", "100", "--utf16le"]),
    ("large-pages", "main", &["--pagesize", "65536", "--big-transactions", "--without-rowid", "--nosync"]),
    ("exclusive", "main", &["--exclusive", "--journal", "persist", "--incrvacuum", "--primarykey", "--temp", "5"]),
    ("orm", "orm", &["--reserve", "8"]),
    ("rtree", "rtree", &[]),
];

/// How much faster the others are than `rtree` at the same size, about.
const RTREE_IS_SLOW: u32 = 5;

/// SQLite and the program must both know of R-trees.
const RTREE: &str = "-DSQLITE_ENABLE_RTREE";

/// What the program prints before the hash of all that it has read.
const HASH: &str = "Verification Hash: ";

/// Runs it with each set of options, at a size as its own `--size` (100 is what its authors measure with).
pub(super) fn run(bench: &Bench, name: &str, size: u32) -> Result<Outcome> {
    let program = built(&bench.source, bench.logs())?;
    let (mut failed, mut databases) = (Vec::new(), 0);
    for (label, set, options) in SETS {
        let size = if set == "rtree" { size.div_ceil(RTREE_IS_SLOW) } else { size };
        let once = |place: &str| -> Result<(String, PathBuf)> {
            let log = format!("{name}-{label}-{place}");
            let home = bench.home(&format!("{name}/{label}-{place}"))?;
            let mut command = Command::new(&program);
            command.args(["--verify", "--size", &size.to_string(), "--testset", set]).args(options).arg("speed.db");
            if place == "quire" {
                command.envs(bench.preloaded());
            }
            let (status, printed) = bench.run(&mut command, &home, &log)?;
            ensure!(status.success(), "{log} ended with {status}, its output is below {}", bench.logs().display());
            let hash = printed.lines().find_map(|line| line.strip_prefix(HASH));
            Ok((hash.with_context(|| format!("{log} printed no hash"))?.to_owned(), home))
        };
        let (wanted, plain) = once("plain")?;
        let (got, quire) = once("quire")?;
        ensure!(
            plain.join("speed.db").exists() && !quire.join("speed.db").exists(),
            "{label}: the file must be there without Quire, and only then"
        );
        databases += witnessed(&quire)?;
        if got != wanted {
            failed.push(label.to_owned());
        }
    }
    Ok(Outcome { cases: SETS.len(), failed, on_quire: Some(databases), ..Outcome::default() })
}

/// How many databases a program has opened; all of them must have been on Quire.
fn witnessed(home: &Path) -> Result<usize> {
    let file = witness_file(home);
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    if let Some(stray) = text.lines().find(|line| !line.starts_with("quire")) {
        bail!("a database was not on Quire: {stray}");
    }
    Ok(text.lines().count())
}

/// SQLite's part takes a minute to compile and is kept.
fn built(source: &Built, folder: &Path) -> Result<PathBuf> {
    let object = source.built_once("sqlite3-preload.o", |object| {
        let mut compiler = Command::new("cc");
        compiler.args(["-c", "-O2", "-DSQLITE_EXTRA_INIT=scripts_preload", RTREE]);
        run_command(compiler.args(source.include()).arg(source.source.join("sqlite3.c")).arg("-o").arg(object))
    })?;
    let program = folder.join("speedtest1");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", RTREE]).args(source.include()).arg(source.source.join("test/speedtest1.c"));
    compiler.arg(scripts_folder().join("preload.c")).arg(object).arg("-o").arg(&program);
    run_command(compiler.args(["-lm", "-lpthread", "-ldl"]))?;
    Ok(program)
}
