//! The shortest history: steps are dropped from a run that fails, ever smaller
//! parts of it, for as long as the rest still fails (Zeller's delta debugging).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use crate::episode::{Episode, Report};

/// Two failures are the same if their messages begin so.
const SAME_CHARS: usize = 24;

/// A run that fails, and how.
#[derive(Clone)]
pub struct Failure {
    /// The run.
    pub episode: Episode,
    /// What its panic said.
    pub message: String,
}

/// Makes a run; its panic is its failure.
pub fn attempt(episode: &Episode) -> Result<Report, Failure> {
    let panic = match catch_unwind(AssertUnwindSafe(|| episode.run())) {
        Ok(report) => return Ok(report),
        Err(panic) => panic,
    };
    let text = panic.downcast_ref::<String>().cloned();
    let message = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Err(Failure { episode: episode.clone(), message: message.unwrap_or_else(|| "a panic without words".to_owned()) })
}

impl Failure {
    /// Whether both panics say the same, but for numbers: another failure is
    /// another finding.
    pub fn is_like(&self, other: &Failure) -> bool {
        let words = |failure: &Failure| {
            let text: String = failure.message.chars().filter(|c| !c.is_ascii_digit()).take(SAME_CHARS).collect();
            text
        };
        words(self) == words(other)
    }
}

/// Drops steps from a failing run, until none can be spared or time is up.
pub fn shortest(mut failing: Failure, time: Duration) -> Failure {
    let start = Instant::now();
    let mut part = failing.episode.steps.len().div_ceil(2);
    while part > 0 {
        let mut at = 0;
        while at < failing.episode.steps.len() {
            if start.elapsed() > time {
                return failing;
            }
            let mut fewer = failing.episode.clone();
            fewer.steps.drain(at..(at + part).min(failing.episode.steps.len()));
            match attempt(&fewer) {
                Err(shorter) if shorter.is_like(&failing) => failing = shorter,
                _ => at += part,
            }
        }
        part /= 2;
    }
    failing
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { episode, message } = self;
        writeln!(f, "{message}")?;
        writeln!(f, "episode {} with {:?}, {} steps:", episode.seed, episode.setup, episode.steps.len())?;
        for (n, step) in episode.steps.iter().enumerate() {
            let pause = step.pause.map_or_else(String::new, |pause| format!(", {pause:?}"));
            writeln!(
                f,
                "{n:4}. client {} volume {}: {:?}, {:?}{pause}, seed {:#x}",
                step.client % episode.setup.clients,
                step.volume % episode.setup.volumes,
                step.action,
                step.weather,
                step.seed
            )?;
        }
        let seeds: Vec<String> = episode.steps.iter().map(|step| format!("{:x}", step.seed)).collect();
        writeln!(f, "replay it with QUIRE_SEED={} QUIRE_HISTORY={}", episode.seed, seeds.join(","))
    }
}
