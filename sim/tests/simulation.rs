//! Random histories on a network that misbehaves, checked step by step.
//!
//! `QUIRE_STEPS=N` makes a longer run, of as many episodes as it takes, several
//! at a time (`QUIRE_THREADS=N`, as many as there are cores): memory and disk
//! stay those of these. `QUIRE_SEED=N` replays: the first episode of a run has
//! that seed, the others follow from it. A failure prints the seed of its
//! episode, with which a run begins exactly there, and the shortest
//! history that still fails; `QUIRE_HISTORY`, as printed, makes just that one,
//! and with `QUIRE_TRACE=1` it tells each step and what came of it.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::sync::Mutex;
use std::time::{Duration, Instant};

use quire_sim::{Episode, Failure, Fault, Report, Treason, attempt, mix, setting, shortest};

const DEFAULT_STEPS: u64 = 20_000;
const EPISODE_STEPS: usize = 600;
/// A line is printed after so many.
const PROGRESS_STEPS: u64 = 100_000;
/// So many episodes may fail before a run gives up.
const MOST_FAILURES: usize = 50;
/// For finding the shortest history.
const SHRINKING: Duration = Duration::from_secs(90);
/// In the default run each of these happens many times.
const EXPECTED: [&str; 28] = [
    "adopted",
    "checkpointed",
    "clock set back",
    "clock set forward",
    "committed",
    "committed to the store",
    "copied and run twice",
    "crashed",
    "diverged",
    "doubt settled",
    "evicted",
    "failed for certain",
    "forked here",
    "forked in the store",
    "in doubt",
    "killed inside an operation",
    "not begun in doubt",
    "old snapshot read",
    "others in between",
    "past read",
    "pulled",
    "pushed",
    "reopened",
    "reopened without tables",
    "reset",
    "restored",
    "rolled back",
    "unpushed work kept",
];

/// These happen some five times in it: in a run of ten times its length they must.
const RARE: [&str; 2] = ["checkpointed before", "could not be opened"];

/// A run of many episodes, several at a time.
struct LongRun {
    start: Instant,
    steps: u64,
    state: Mutex<State>,
}

struct State {
    /// Of the episode that begins next.
    seed: u64,
    /// Steps of all episodes that have begun.
    begun: u64,
    all: Report,
    /// What was found, each kind once, with what a person needs to look into it.
    found: Vec<(Failure, String)>,
    /// Episodes that failed.
    failed: usize,
}

impl LongRun {
    fn new(seed: u64, steps: u64) -> LongRun {
        let state = State { seed, begun: 0, all: Report::default(), found: Vec::new(), failed: 0 };
        LongRun { start: Instant::now(), steps, state: Mutex::new(state) }
    }

    /// Makes episodes until there are enough steps, or too many have failed. One does not end the run: what is found
    /// at its beginning must not hide what would be found later.
    fn work(&self) {
        while let Some(seed) = self.next_seed() {
            match attempt(&Episode::random(seed, EPISODE_STEPS)) {
                Ok(report) => self.add(&report),
                Err(failing) => self.fail(seed, failing),
            }
        }
    }

    fn next_seed(&self) -> Option<u64> {
        let mut state = self.state.lock().unwrap();
        if state.begun >= self.steps || state.failed >= MOST_FAILURES {
            return None;
        }
        state.begun += EPISODE_STEPS as u64;
        let next = mix(state.seed);
        Some(std::mem::replace(&mut state.seed, next))
    }

    fn add(&self, report: &Report) {
        let mut state = self.state.lock().unwrap();
        let before = state.all.steps;
        state.all.add(report);
        let (steps, seconds) = (state.all.steps, self.start.elapsed().as_secs_f64());
        if steps / PROGRESS_STEPS > before / PROGRESS_STEPS {
            println!(
                "{steps} steps, {} faults after {seconds:.0} s; next is QUIRE_SEED={}",
                state.all.faults.total(),
                state.seed
            );
        }
    }

    fn fail(&self, seed: u64, failing: Failure) {
        let what = format!("QUIRE_SEED={seed} fails: {}", failing.message);
        println!("{what}");
        {
            let mut state = self.state.lock().unwrap();
            state.failed += 1;
            if state.found.iter().any(|(known, _)| known.is_like(&failing)) {
                return;
            }
            state.found.push((failing.clone(), what));
        }
        let shortest = shortest(failing, SHRINKING);
        println!("The shortest history that fails: {shortest}");
    }

    /// Everything that happened. Panics if something did that must not.
    fn end(self) -> Report {
        let State { all, found, failed, .. } = self.state.into_inner().unwrap();
        let found: Vec<String> = found.into_iter().map(|(_, what)| what).collect();
        assert!(found.is_empty(), "after {} steps, {failed} episodes failed: {}", all.steps, found.join("\n"));
        all
    }
}

#[test]
fn random_histories_keep_every_promise() {
    let steps = setting("QUIRE_STEPS", DEFAULT_STEPS);
    if let Ok(history) = std::env::var("QUIRE_HISTORY") {
        let seeds = history.split(',').map(|seed| u64::from_str_radix(seed, 16).unwrap());
        Episode::random(quire_testkit::seed(), 0).with_steps(seeds).run();
        return;
    }
    let run = LongRun::new(quire_testkit::seed(), steps);
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    std::thread::scope(|scope| (0..setting("QUIRE_THREADS", cores)).for_each(|_| drop(scope.spawn(|| run.work()))));
    let seconds = run.start.elapsed().as_secs_f64();
    let all = run.end();
    let rate = all.steps as f64 / seconds;
    println!("{} steps, {rate:.0} a second; {} LSNs; {}; {:?}", all.steps, all.lsns, all.faults, all.events.0);
    if steps >= DEFAULT_STEPS {
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| all.faults.count(**fault) == 0).collect();
        assert!(missing.is_empty(), "these faults never happened: {missing:?}");
        let rare = RARE.iter().filter(|_| steps >= 10 * DEFAULT_STEPS);
        let missing: Vec<_> = EXPECTED.iter().chain(rare).filter(|event| all.count(event) == 0).collect();
        assert!(missing.is_empty(), "these never happened: {missing:?}");
    }
}

/// The checks can fail: a store that breaks its word is found out, soon.
#[test]
fn a_store_that_breaks_its_word_is_found_out() {
    for treason in [Treason::Overwrites, Treason::Forgets, Treason::Hides] {
        let seed = quire_testkit::seed();
        let found = (0..40).find_map(|n| {
            let mut episode = Episode::random(mix(seed ^ n), EPISODE_STEPS);
            (episode.setup.treason, episode.setup.folder) = (Some(treason), false);
            attempt(&episode).err()
        });
        let found = found.unwrap_or_else(|| panic!("nobody noticed that the store {treason:?}"));
        println!("{treason:?}: {}", found.message);
    }
}

/// What is shortened still fails, and is short.
#[test]
fn a_failing_history_is_shortened() {
    let seed = quire_testkit::seed();
    let failing = (0..40).find_map(|n| {
        let mut episode = Episode::random(mix(seed ^ n), EPISODE_STEPS);
        (episode.setup.treason, episode.setup.folder) = (Some(Treason::Overwrites), false);
        attempt(&episode).err()
    });
    let shortest = shortest(failing.expect("it fails"), Duration::from_secs(20));
    assert!(attempt(&shortest.episode).is_err(), "it fails every time: {shortest}");
    assert!(shortest.episode.steps.len() < EPISODE_STEPS / 4, "{shortest}");
}
