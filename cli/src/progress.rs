//! Progress on a terminal, for whatever takes longer than a second.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use quire_engine::Engine;

use crate::output::size;

/// Nothing is shown before this.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(120);

/// The progress of work that counts its steps.
pub(crate) struct Progress {
    label: String,
    started: Instant,
    on_terminal: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Work that begins now.
    pub(crate) fn new(label: impl Into<String>) -> Progress {
        Progress { label: label.into(), started: Instant::now(), on_terminal: io::stderr().is_terminal(), bar: None }
    }

    /// `done` of `total` bytes are through.
    pub(crate) fn bytes(&mut self, done: u64, total: u64) {
        self.advance(done, total, "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}");
    }

    /// `done` of `total` pages are through.
    pub(crate) fn pages(&mut self, done: u64, total: u64) {
        self.advance(done, total, "{msg} {wide_bar} {human_pos}/{human_len} pages {eta}");
    }

    fn advance(&mut self, done: u64, total: u64, template: &str) {
        if !self.on_terminal || self.started.elapsed() < PATIENCE {
            return;
        }
        let bar = self.bar.get_or_insert_with(|| {
            let bar = ProgressBar::new(total).with_position(done).with_elapsed(self.started.elapsed());
            bar.set_style(style(ProgressStyle::with_template(template), ProgressStyle::default_bar));
            bar.set_message(self.label.clone());
            bar
        });
        bar.set_length(total);
        bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The traffic with the store while something runs that does not count its steps.
pub(crate) struct TrafficMeter {
    thread: Option<(Sender<()>, JoinHandle<()>)>,
}

impl TrafficMeter {
    /// Shows the traffic of `engine` from now on.
    pub(crate) fn new(label: impl Into<String>, engine: &Engine) -> TrafficMeter {
        if !io::stderr().is_terminal() {
            return TrafficMeter { thread: None };
        }
        let (done, waiting) = mpsc::channel();
        let (label, engine) = (label.into(), engine.clone());
        let thread = std::thread::spawn(move || {
            let before = engine.stats();
            if waiting.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let spinner = ProgressBar::new_spinner().with_elapsed(PATIENCE);
            spinner.set_style(style(
                ProgressStyle::with_template("{spinner} {msg} {elapsed}"),
                ProgressStyle::default_spinner,
            ));
            while waiting.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let now = engine.stats();
                let (sent, got) = (now.bytes_out - before.bytes_out, now.bytes_in - before.bytes_in);
                spinner.set_message(format!("{label}: {} sent, {} received", size(sent), size(got)));
                spinner.tick();
            }
            spinner.finish_and_clear();
        });
        TrafficMeter { thread: Some((done, thread)) }
    }
}

impl Drop for TrafficMeter {
    fn drop(&mut self) {
        if let Some((done, thread)) = self.thread.take() {
            drop(done);
            // A broken meter is no reason to fail what it measured.
            let _ = thread.join();
        }
    }
}

fn style<E>(wanted: Result<ProgressStyle, E>, plain: fn() -> ProgressStyle) -> ProgressStyle {
    wanted.unwrap_or_else(|_| plain())
}
