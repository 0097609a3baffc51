//! `cargo xtask sanitize`: the tests of the engine and of the VFS under LLVM's
//! sanitizers: AddressSanitizer with its search for leaks, and ThreadSanitizer.

use std::process::Command;

use anyhow::{Result, bail, ensure};

use crate::{paths, process};

struct Sanitizer {
    name: &'static str,
    /// Besides what the sanitizer itself needs.
    arguments: &'static [&'static str],
    options: (&'static str, &'static str),
    /// A file with what it reports wrongly, and why.
    suppressions: Option<&'static str>,
}

const SANITIZERS: [Sanitizer; 2] = [
    Sanitizer {
        name: "address",
        arguments: &[],
        options: ("ASAN_OPTIONS", "detect_stack_use_after_return=1"),
        suppressions: None,
    },
    Sanitizer {
        name: "thread",
        // A standard library that is not instrumented hides what orders its users' threads.
        arguments: &["-Zbuild-std"],
        options: ("TSAN_OPTIONS", "halt_on_error=1"),
        suppressions: Some("xtask/thread-sanitizer.txt"),
    },
];

/// A tenth of what the random tests do otherwise: instrumented code is slow, and takes memory for itself.
const LENGTHS: [(&str, &str); 3] =
    [("QUIRE_STEPS", "2000"), ("QUIRE_ROUNDS", "20"), ("QUIRE_MEMORY_LIMIT_MIB", "8192")];
/// Not among them: `memory`, which measures, and `extension`, whose programs are not instrumented.
const TESTS: [&str; 17] = [
    "cache",
    "cut_short",
    "databases",
    "disk",
    "faults",
    "flips",
    "flips_store",
    "functions",
    "fuzz",
    "hostile",
    "kill",
    "local",
    "model",
    "race",
    "standing",
    "stores",
    "transactions",
];
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Runs the sanitizers of these names, or both.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| SANITIZERS.iter().all(|known| known.name != **name)) {
        bail!("there is no sanitizer {unknown}; there are: address, thread");
    }
    let mut failed = Vec::new();
    for sanitizer in SANITIZERS.iter().filter(|known| names.is_empty() || names.contains(&known.name)) {
        println!("\n== {} sanitizer", sanitizer.name);
        if let Err(error) = sanitizer.run() {
            println!("{error:#}");
            failed.push(sanitizer.name);
        }
    }
    ensure!(failed.is_empty(), "something was found by: {}", failed.join(", "));
    Ok(())
}

impl Sanitizer {
    fn run(&self) -> Result<()> {
        if !self.arguments.is_empty() {
            process::run(Command::new("rustup").args(["component", "add", "rust-src"]))?;
        }
        let (variable, mut options) = (self.options.0, self.options.1.to_owned());
        if let Some(file) = self.suppressions {
            options.push_str(&format!(":suppressions=\"{}\"", paths::root().join(file).display()));
        }
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        process::run(
            Command::new(cargo)
                .current_dir(paths::root())
                // These switches are not in stable Rust; the variable lets the installed compiler take them.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("RUSTFLAGS", format!("-Zsanitizer={}", self.name))
                // C code is built by another compiler, whose instrumentation this runtime misreads.
                .env("CFLAGS", "-fno-sanitize=all")
                .env(variable, options)
                .envs(LENGTHS)
                .args(["test", "--no-fail-fast", "--package=quire-engine", "--package=quire-sqlite", "--lib"])
                .args(TESTS.map(|test| format!("--test={test}")))
                .args(["--target", TARGET, "--target-dir"])
                .arg(paths::target().join("sanitize").join(self.name))
                .args(self.arguments),
        )
    }
}
