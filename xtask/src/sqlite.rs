//! `cargo xtask sqlite`: SQLite's own test scripts, with every database on
//! Quire, and other tests that compare Quire with ordinary files: SQLite's
//! `speedtest1`, CPython's tests of its `sqlite3`, random statements.
//!
//! `sqlite-vfs/scripts/prelude.tcl` puts a script's databases there, and
//! counts; a script in which no database was on Quire has failed, whatever it
//! says itself. For the others `witness.c` counts.
//!
//! Where Quire must differ is told in `sqlite-vfs/scripts/differences.txt`. A
//! failing case that is not there fails the run, and so does an explained one
//! that does not fail any more.

mod bench;
mod cpython;
mod debian;
mod differences;
mod queries;
mod room;
mod script;
mod source;
mod speedtest;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::bench::{Bench, scripts_folder};
use self::differences::Differences;
use self::script::Outcome;
use crate::paths::{self, Profile};
use crate::suite;

/// Tests that run at the same time.
const WORKERS: usize = 2;

/// The size of `speedtest1`, unless another one is asked for.
const SPEEDTEST_SIZE: u32 = 25;

/// What `cargo xtask sqlite` was asked for.
struct Wanted {
    release: &'static source::Release,
    all: bool,
    size: u32,
    names: Vec<String>,
}

/// Something with cases, of which each passes or fails.
enum Test {
    Script(PathBuf),
    Speedtest,
    Cpython,
    Queries,
}

impl Test {
    fn name(&self) -> String {
        match self {
            Test::Script(path) => script::name(path),
            Test::Speedtest => "speedtest1".to_owned(),
            Test::Cpython => "cpython".to_owned(),
            Test::Queries => "queries".to_owned(),
        }
    }

    fn run(&self, bench: &Bench, size: u32) -> Outcome {
        let (name, start) = (self.name(), Instant::now());
        let outcome = match self {
            Test::Script(path) => script::run(bench, &name, path),
            Test::Speedtest => speedtest::run(bench, &name, size),
            Test::Cpython => cpython::run(bench, &name),
            Test::Queries => queries::run(bench, &name),
        };
        let outcome = outcome.and_then(|outcome| bench.clear(&name).map(|()| outcome));
        Outcome { took: start.elapsed(), ..outcome.unwrap_or_else(|error| Outcome::not_run(&error)) }
    }
}

/// Builds the extension, and runs the tests that are wanted.
pub(crate) fn run(options: &[&str]) -> Result<()> {
    let wanted = parse(options)?;
    suite::cargo(&["build", "--package", "quire-sqlite"])?;
    run_wanted(&wanted)
}

/// Runs the subset, against the debug build.
pub(crate) fn run_built() -> Result<()> {
    run_wanted(&parse(&["--size", "10"])?)
}

/// Fetches and builds SQLite's test program once, and runs tests.
fn run_wanted(wanted: &Wanted) -> Result<()> {
    let source = source::built(wanted.release)?;
    let differences = Differences::read(&scripts_folder().join("differences.txt"))?;
    let tests = chosen(wanted, &source.source)?;
    let bench = Bench::new(source, &paths::extension(Profile::Debug))?;
    println!("\n== SQLite {}: {} of its test scripts, and others, on Quire", wanted.release.version, tests.len());
    let start = Instant::now();
    let outcomes = run_all(&bench, &tests, wanted.size);
    let bad = report(&tests, &outcomes, &differences);
    println!("{:.0} s; logs are below {}", start.elapsed().as_secs_f64(), bench.logs().display());
    ensure!(bad.is_empty(), "{} surprises in SQLite's test scripts:\n{}", bad.len(), bad.join("\n"));
    Ok(())
}

fn parse(options: &[&str]) -> Result<Wanted> {
    let release = &source::RELEASES[0];
    let mut wanted = Wanted { release, all: false, size: SPEEDTEST_SIZE, names: Vec::new() };
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--all" => wanted.all = true,
            "--sqlite" => {
                let version = options.next().context("--sqlite takes a version")?;
                wanted.release = source::release(version)?;
            }
            "--size" => {
                let size = options.next().and_then(|size| size.parse().ok()).filter(|size| *size > 0);
                wanted.size = size.context("--size takes a number, as speedtest1 does")?;
            }
            flag if flag.starts_with('-') => {
                bail!("unknown option {flag}; there are --all, --sqlite VERSION and --size N (of speedtest1)")
            }
            name => wanted.names.push(name.to_owned()),
        }
    }
    Ok(wanted)
}

/// The tests to run: those named, or those of `scripts.txt`.
fn chosen(wanted: &Wanted, source: &Path) -> Result<Vec<Test>> {
    let list = scripts_folder().join("scripts.txt");
    let text = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    // An indented line is for --all only.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let listed = lines.filter(|line| wanted.all || !line.starts_with(' ')).flat_map(str::split_whitespace);
    let patterns: Vec<&str> = match wanted.names.is_empty() {
        true => listed.collect(),
        false => wanted.names.iter().map(String::as_str).collect(),
    };
    let (dropped, taken): (Vec<&str>, Vec<&str>) = patterns.iter().partition(|pattern| pattern.starts_with('!'));
    // The long ones first, so that no worker waits for the other at the end.
    let mut tests = vec![Test::Speedtest, Test::Queries, Test::Cpython];
    tests.extend(scripts(source)?.into_iter().map(Test::Script));
    for pattern in &taken {
        if tests.iter().any(|test| differences::matches(pattern, &test.name())) {
            continue;
        }
        // The list is for all known releases, and a later one may have more scripts.
        ensure!(wanted.names.is_empty(), "{pattern}: SQLite {} has no such test script", wanted.release.version);
        println!("SQLite {} has no test script {pattern}", wanted.release.version);
    }
    let is_in = |list: &[&str], name: &str| {
        list.iter().any(|pattern| differences::matches(pattern.trim_start_matches('!'), name))
    };
    tests.retain(|test| is_in(&taken, &test.name()) && !is_in(&dropped, &test.name()));
    Ok(tests)
}

/// All scripts of SQLite's source, by their names.
fn scripts(source: &Path) -> Result<Vec<PathBuf>> {
    let mut scripts = Vec::new();
    for room in ["test", "ext/fts5/test", "ext/rtree"] {
        for entry in fs::read_dir(source.join(room))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "test") {
                scripts.push(path);
            }
        }
    }
    scripts.sort_by_key(|path| script::name(path));
    Ok(scripts)
}

/// Runs the tests, a few at a time; prints each when it is through.
fn run_all(bench: &Bench, tests: &[Test], size: u32) -> BTreeMap<String, Outcome> {
    let next = Mutex::new(tests.iter());
    let outcomes = Mutex::new(BTreeMap::new());
    let take = || next.lock().ok().and_then(|mut tests| tests.next());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(tests.len()) {
            scope.spawn(|| {
                while let Some(test) = take() {
                    let outcome = test.run(bench, size);
                    println!("script {:<22} {}", test.name(), outcome.line());
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.insert(test.name(), outcome);
                    }
                }
            });
        }
    });
    outcomes.into_inner().unwrap_or_default()
}

/// Prints the sums, and gives what nobody has explained.
fn report(tests: &[Test], outcomes: &BTreeMap<String, Outcome>, differences: &Differences) -> Vec<String> {
    let mut bad = Vec::new();
    let (mut cases, mut explained, mut omitted, mut seconds) = (0, 0, 0, Duration::ZERO);
    for test in tests {
        let name = test.name();
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
        "\n{} tests, {cases} cases: {} passed, {explained} failed as explained, {} surprises; {omitted} were skipped",
        tests.len(),
        cases.saturating_sub(explained + bad.len()),
        bad.len()
    );
    println!("{:.0} s of scripts", seconds.as_secs_f64());
    bad
}
