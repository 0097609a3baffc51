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
mod results;
mod scale;
mod social;
mod travel;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use crate::contender::Contender;
use crate::phase::{Job, Phase, Sizes};
use crate::remote::{Remote, Store};
use crate::results::Measured;
use crate::travel::Traffic;

/// Measured values by name.
type Metrics = BTreeMap<String, f64>;

/// Measures Quire beside plain SQLite.
#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Arguments {
    /// The extension to measure.
    #[arg(long)]
    extension: PathBuf,
    /// The command line, whose server is measured.
    #[arg(long)]
    program: PathBuf,
    /// Rows of about 100 bytes; 1,000,000 make a database of 106 MiB.
    #[arg(long, default_value_t = 1_000_000)]
    rows: i64,
    /// How often everything is repeated; medians are shown.
    #[arg(long, default_value_t = 3)]
    repetitions: usize,
    /// Where the databases are made: the disk to measure. Default: the folder for temporary files.
    #[arg(long)]
    work: Option<PathBuf>,
    /// Another extension to measure, as `name=PATH,vfs=NAME[,entry=SYMBOL][,env=VARIABLE=VALUE]...[,ask=SQL][,clone=SQL]
    /// [,pull=SQL][,push=SQL]`. `{data}` in a variable's value is a folder for its data. What it cannot do is left out: it
    /// pushes with `push`; a replica of what it pushed runs `clone` once, in which `{id}` is the last long word that `ask`
    /// said of the one who pushed, and catches up with `pull`.
    #[arg(long, value_parser = contender::parse_peer)]
    peer: Vec<Contender>,
    /// Only these phases, in their order; what they need must be among them. Default: all.
    #[arg(long, value_delimiter = ',', value_parser = phase::parse)]
    only: Vec<Phase>,
    /// Keeps the results in `benches/results/`, and makes `docs/performance.md` anew.
    #[arg(long)]
    record: bool,
    /// Measures nothing: only makes `docs/performance.md` from what is kept.
    #[arg(long)]
    document: bool,
    /// Prints every request to the store with the milliseconds since its phase began.
    #[arg(long)]
    trace: bool,
    /// Used internally: run one phase and print its metrics.
    #[arg(long, hide = true)]
    worker: Option<String>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(job) = &arguments.worker {
        return phase::work(job);
    }
    if arguments.document {
        return results::document();
    }
    let extension = arguments.extension.canonicalize().with_context(|| {
        format!("no extension at {}; build it with: cargo build --release", arguments.extension.display())
    })?;
    let sizes = Sizes::of_rows(arguments.rows);
    let mut contenders = contender::standard(&extension);
    contenders.extend(arguments.peer);
    let (date, machine, source) = (machine::now(), machine::describe(), machine::source());
    println!("{} rows, {} repetitions, medians; {machine}", sizes.rows, arguments.repetitions);
    let remote = Remote::start(arguments.trace)?;
    let wanted = |phase: Phase| arguments.only.is_empty() || arguments.only.contains(&phase);
    let phases: Vec<Phase> = Phase::all().filter(|phase| wanted(*phase)).collect();
    let mut measured = Measured { date, machine, source, rows: sizes.rows, ..Measured::default() };
    for repetition in 1..=arguments.repetitions {
        for contender in &contenders {
            eprintln!("repetition {repetition}: {}", contender.name);
            let folder = match &arguments.work {
                Some(work) => tempfile::tempdir_in(work),
                None => tempfile::tempdir(),
            }?;
            let mut house = House { folder: folder.path(), store: remote.fresh_store(), program: &arguments.program };
            let metrics = house.measure(&phases, contender, &sizes)?;
            measured.contenders.entry(contender.name.clone()).or_default().push(metrics);
        }
    }
    report::print(&measured);
    if arguments.record {
        results::keep(&measured)?;
        results::document()?;
    }
    Ok(())
}

/// Where one contender is measured: a fresh folder, and a fresh store.
struct House<'a> {
    folder: &'a Path,
    store: Store<'a>,
    program: &'a Path,
}

impl House<'_> {
    fn measure(&mut self, phases: &[Phase], contender: &Contender, sizes: &Sizes) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        for phase in phases.iter().copied().filter(|phase| phase.concerns(contender)) {
            let job = serde_json::to_string(&Job::new(phase, contender, sizes, self.folder))?;
            let mut worker = Command::new(std::env::current_exe()?);
            worker.args(["--extension", "unused", "--program", "unused", "--worker"]).arg(job);
            worker.stdin(Stdio::null()).stderr(Stdio::inherit());
            let data = self.folder.join(phase.data_dir());
            worker.env("QUIRE_DATA_DIR", &data);
            let fill = |value: &str| value.replace("{data}", &data.to_string_lossy());
            worker.envs(contender.variables.iter().map(|(name, value)| (name, fill(value))));
            self.store.give(&mut worker, phase, self.program, self.folder);
            let output = worker.output()?;
            ensure!(output.status.success(), "{}, phase {}: {}", contender.name, phase.name(), output.status);
            let measured: Metrics = serde_json::from_slice(&output.stdout)?;
            metrics.extend(measured);
            let traffic = self.store.traffic();
            if traffic.chain > 0 {
                metrics.insert(format!("{} trips", phase.name()), traffic.chain as f64);
            }
            if let Some((what, times)) = phase.traffic_of(sizes) {
                // Quire counts for itself, more exactly: without what it takes to open.
                Traffic::of_proxy(&traffic).add_to(&mut metrics, what, times);
            }
        }
        Ok(metrics)
    }
}
