//! `cargo xtask sqlite`: SQLite's own test scripts, with every database on
//! Quire. `sqlite-vfs/scripts/prelude.tcl` puts it there, and counts; a script
//! in which no database was on Quire has failed, whatever it says itself.
//!
//! Where Quire must differ is told in `sqlite-vfs/scripts/differences.txt`. A
//! failing case that is not there fails the run, and so does an explained one
//! that does not fail any more.

mod differences;
mod script;
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::differences::Differences;
use self::script::{Bench, Outcome};
use crate::paths::{self, Profile};
use crate::suite;

/// Scripts that run at the same time.
const WORKERS: usize = 2;

/// What `cargo xtask sqlite` was asked for.
struct Wanted {
    release: &'static source::Release,
    all: bool,
    names: Vec<String>,
}

/// Fetches and builds SQLite's test program once, builds the extension, and runs scripts.
pub(crate) fn run(options: &[&str]) -> Result<()> {
    let wanted = parse(options)?;
    suite::cargo(&["build", "--package", "quire-sqlite"])?;
    let source = source::built(wanted.release)?;
    let differences = Differences::read(&folder().join("differences.txt"))?;
    let scripts = chosen(&wanted, &source.folder)?;
    let bench = Bench::new(&source, &paths::extension(Profile::Debug), &folder().join("prelude.tcl"))?;
    println!("\n== SQLite {}: {} of its test scripts on Quire", wanted.release.version, scripts.len());
    let start = Instant::now();
    let outcomes = run_all(&bench, &scripts);
    let bad = report(&scripts, &outcomes, &differences);
    println!("{:.0} s; logs are below {}", start.elapsed().as_secs_f64(), bench.folder().display());
    ensure!(bad.is_empty(), "{} surprises in SQLite's test scripts:\n{}", bad.len(), bad.join("\n"));
    Ok(())
}

fn parse(options: &[&str]) -> Result<Wanted> {
    let mut wanted = Wanted { release: &source::RELEASES[0], all: false, names: Vec::new() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--all" => wanted.all = true,
            "--sqlite" => {
                let version = options.next().context("--sqlite takes a version")?;
                wanted.release = source::release(version)?;
            }
            flag if flag.starts_with('-') => bail!("unknown option {flag}; there are --all and --sqlite VERSION"),
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

fn folder() -> PathBuf {
    paths::root().join("sqlite-vfs/scripts")
}

/// The scripts to run, by their paths in the source: those named, or those of `scripts.txt`.
fn chosen(wanted: &Wanted, source: &Path) -> Result<Vec<PathBuf>> {
    let list = folder().join("scripts.txt");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    // An indented line is for --all only.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let listed = lines.filter(|line| wanted.all || !line.starts_with(' ')).flat_map(str::split_whitespace);
    let patterns: Vec<&str> = match wanted.names.is_empty() {
        true => listed.collect(),
        false => wanted.names.iter().map(String::as_str).collect(),
    };
    let (dropped, taken): (Vec<&str>, Vec<&str>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
    let mut scripts = Vec::new();
    for room in ["test", "ext/fts5/test", "ext/rtree"] {
        for entry in fs::read_dir(source.join(room))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "test") {
                scripts.push(path);
            }
        }
    }
    let name = |path: &PathBuf| script::name(path);
    for pattern in &taken {
        let found = scripts.iter().any(|path| differences::matches(pattern, &name(path)));
        ensure!(found, "{pattern}: SQLite {} has no such test script", wanted.release.version);
    }
    let is_in = |list: &[&str], path: &PathBuf| {
        list.iter().any(|pattern| differences::matches(pattern.trim_start_matches('!'), &name(path)))
    };
    scripts.retain(|path| is_in(&taken, path) && !is_in(&dropped, path));
    scripts.sort_by_key(name);
    Ok(scripts)
}

/// Runs the scripts, a few at a time; prints each when it is through.
fn run_all(bench: &Bench, scripts: &[PathBuf]) -> BTreeMap<String, Outcome> {
    let next = Mutex::new(scripts.iter());
    let outcomes = Mutex::new(BTreeMap::new());
    let take = || next.lock().ok().and_then(|mut scripts| scripts.next());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(scripts.len()) {
            scope.spawn(|| {
                while let Some(path) = take() {
                    let outcome = bench.run(path);
                    println!("script {:<22} {}", script::name(path), outcome.line());
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(script::name(path), outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

/// Prints the sums, and gives what nobody has explained.
fn report(scripts: &[PathBuf], outcomes: &BTreeMap<String, Outcome>, differences: &Differences) -> Vec<String> {
    let mut bad = Vec::new();
    let (mut cases, mut explained, mut omitted, mut seconds) = (0, 0, 0, Duration::ZERO);
    for path in scripts {
        let name = script::name(path);
        let Some(outcome) = outcomes.get(&name) else {
            bad.push(format!("{name}: did not run"));
            continue;
        };
        (cases, omitted, seconds) = (cases + outcome.cases, omitted + outcome.omitted, seconds + outcome.took);
        let judged = differences.judge(&name, &outcome.failed);
        explained += judged.explained;
        bad.extend(judged.unexplained.iter().map(|case| format!("{name}: {case} failed")));
        bad.extend(judged.gone.iter().map(|pattern| format!("{name}: {pattern} is explained, but does not fail")));
        bad.extend(outcome.off_quire().map(|why| format!("{name}: {why}")));
    }
    println!(
        "\n{} scripts, {cases} cases: {} passed, {explained} failed as explained, {} surprises; {omitted} were skipped",
        scripts.len(),
        cases.saturating_sub(explained + bad.len()),
        bad.len()
    );
    println!("{:.0} s of scripts", seconds.as_secs_f64());
    bad
}
