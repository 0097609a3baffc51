//! `cargo xtask fuzz`: each fuzz target for a while (`fuzz/`). The corpus stays
//! below `target/fuzz`, so that a later run goes on where this one stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use quire_testkit::fuzz::{regressions, seeds};

use crate::process::output;
use crate::{paths, tools};

/// How long a target runs if nothing else is said.
const SECONDS: u64 = 10;
/// No input is worth more memory than this: inputs are far shorter than a megabyte.
const MEMORY_LIMIT_MB: u64 = 1024;
/// No input takes longer.
const TIMEOUT_SECONDS: u64 = 20;

/// Runs the targets that are named, or all, for `--seconds N` each.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let mut seconds = SECONDS;
    let mut named = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        match *word {
            "--seconds" => {
                let number = rest.next().context("--seconds needs a number")?;
                seconds = number.parse().with_context(|| format!("--seconds {number}"))?;
            }
            target => named.push(target),
        }
    }
    let cargo_fuzz = tools::cargo_tool("cargo-fuzz")?;
    let list = output(cargo(&cargo_fuzz).arg("list"))?;
    let all: Vec<&str> = list.lines().collect();
    if let Some(unknown) = named.iter().find(|name| !all.contains(name)) {
        bail!("there is no fuzz target {unknown}; there are: {}", all.join(", "));
    }
    let chosen: Vec<&str> = all.into_iter().filter(|target| named.is_empty() || named.contains(target)).collect();
    crate::process::run(cargo(&cargo_fuzz).arg("build").args(folders()))?;
    let mut failed = Vec::new();
    for target in chosen {
        println!("\n== fuzz {target}: {seconds} s");
        if let Err(error) = fuzz(&cargo_fuzz, target, seconds) {
            println!("{error:#}");
            failed.push(target);
        }
    }
    ensure!(failed.is_empty(), "these targets failed: {}; what was found is in target/fuzz/found", failed.join(", "));
    Ok(())
}

fn fuzz(cargo_fuzz: &Path, target: &str, seconds: u64) -> Result<()> {
    let corpus = folder(&format!("corpus/{target}"))?;
    for (n, seed) in seeds(target).into_iter().chain(regressions(target)).enumerate() {
        fs::copy(&seed, corpus.join(format!("seed-{n}"))).with_context(|| format!("copying {}", seed.display()))?;
    }
    let found = folder(&format!("found/{target}"))?;
    let scratch = paths::fresh_folder(&format!("fuzz/scratch-{target}"))?;
    let done = crate::process::run(
        cargo(cargo_fuzz)
            .env("TMPDIR", &scratch)
            .arg("run")
            .args(folders())
            .arg(target)
            .arg(&corpus)
            .arg("--")
            .arg(format!("-artifact_prefix={}/", found.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={TIMEOUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_LIMIT_MB}"))
            .args(["-malloc_limit_mb=256", "-print_final_stats=1", "-max_len=65536", "-len_control=50"]),
    );
    paths::remove_folder(&scratch)?;
    done
}

/// A call of cargo-fuzz. Instrumentation is not in stable Rust; the first variable lets the installed compiler do it.
/// C code is built by another compiler, whose instrumentation this runtime misreads: zstd's tables look like stack.
fn cargo(cargo_fuzz: &Path) -> Command {
    let mut command = Command::new(cargo_fuzz);
    command.env("RUSTC_BOOTSTRAP", "1").env("CFLAGS", "-fno-sanitize=all").env_remove("CARGO_TARGET_DIR");
    command.current_dir(paths::root()).arg("fuzz");
    command
}

/// Where it builds, and how.
fn folders() -> [std::ffi::OsString; 4] {
    let target = paths::target().join("fuzz/build");
    ["--fuzz-dir=fuzz".into(), "--codegen-units=16".into(), "--target-dir".into(), target.into()]
}

fn folder(name: &str) -> Result<PathBuf> {
    let folder = paths::target().join("fuzz").join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}
