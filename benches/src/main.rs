//! `cargo xtask bench`: what Quire costs, as ratios to plain SQLite measured
//! in the same run on the same machine. Absolute times say more about the
//! machine; a ratio says something about the code.
//!
//! Every phase of every engine runs in a process of its own (this program,
//! started again with `--worker`), so that caches are cold where they should
//! be, peak memory is the phase's own, and reopening is part of each test.
//! Repetitions go round the engines, so a slow minute of the machine hits all
//! of them; medians are printed. Quire is measured through the loadable
//! extension, as its users have it.

mod contender;
mod data;
mod local;
mod machine;
mod phase;
mod remote;
mod report;
mod travel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::contender::Contender;
use crate::phase::{Phase, Sizes};
use crate::remote::Remote;

/// Measured values by name.
type Metrics = BTreeMap<String, f64>;

/// Measures Quire beside plain SQLite.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The extension to measure.
    #[arg(long)]
    extension: PathBuf,
    /// Rows of about 100 bytes; 1,000,000 make a database of 106 MiB.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// How often everything is repeated; medians are shown.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Where the databases are made: the disk to measure. Default: the folder for temporary files.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Another extension to measure, as `name=PATH,vfs=NAME[,push=SQL]`.
    #[arg(long, value_parser = contender::parse_peer)]
    peer: Vec<Contender>,
    /// Used internally: run one phase and print its metrics.
    #[arg(long, hide = true)]
    worker: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = &arguments.worker {
        return phase::work(job);
    }
    let extension = arguments.extension.canonicalize().with_context(|| {
        format!("no extension at {}; build it with: cargo build --release", arguments.extension.display())
    })?;
    let sizes = Sizes::of_rows(arguments.rows);
    let mut contenders = contender::standard(&extension);
    contenders.extend(arguments.peer);
    println!("{} rows, {} repetitions, medians; {}", sizes.rows, arguments.repetitions, machine::describe());
    let remote = Remote::start()?;
    let mut measured: BTreeMap<String, Vec<Metrics>> = BTreeMap::new();
    for repetition in 1..=arguments.repetitions {
        for contender in &contenders {
            eprintln!("repetition {repetition}: {}", contender.name);
            let folder = match &arguments.work {
                Some(work) => tempfile::tempdir_in(work),
                None => tempfile::tempdir(),
            }?;
            let metrics = measure(contender, &sizes, folder.path(), &remote)?;
            measured.entry(contender.name.clone()).or_default().push(metrics);
        }
    }
    let medians = measured.into_iter().map(|(name, runs)| (name, report::median(&runs))).collect();
    report::print(&contenders, &medians);
    Ok(())
}

/// Runs all phases of one contender in a fresh folder, with a fresh store.
fn measure(contender: &Contender, sizes: &Sizes, folder: &Path, remote: &Remote) -> Result<Metrics> {
    let mut metrics = Metrics::new();
    let store = remote.fresh_store();
    for phase in Phase::ALL {
        if !phase.concerns(contender) {
            continue;
        }
        let job = phase::job(phase, contender, sizes, folder);
        let mut worker = Command::new(std::env::current_exe()?);
        worker.arg("--extension").arg("unused").arg("--worker").arg(job).stdin(Stdio::null()).stderr(Stdio::inherit());
        worker.env("QUIRE_DATA_DIR", folder.join(phase.data_dir()));
        remote.serve(&mut worker, &store, phase);
        let output = worker.output()?;
        ensure!(output.status.success(), "{}, phase {}: {}", contender.name, phase.name(), output.status);
        let measured: Metrics = serde_json::from_slice(&output.stdout)?;
        metrics.extend(measured);
    }
    Ok(metrics)
}
