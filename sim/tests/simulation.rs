//! Random histories on a network that misbehaves, checked step by step.
//!
//! `QUIRE_STEPS=N` makes a longer run, of as many episodes as it takes: memory
//! and disk stay those of one. `QUIRE_SEED=N` replays: the first episode of a
//! run has that seed, the others follow from it. A failure prints the seed of
//! its episode, with which a run begins exactly there, and the shortest
//! history that still fails; `QUIRE_HISTORY`, as printed, makes just that one,
//! and with `QUIRE_TRACE=1` it tells each step and what came of it.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::time::{Duration, Instant};

use quire_sim::{Episode, Fault, Report, Treason, attempt, mix, setting, shortest};

const DEFAULT_STEPS: u64 = 20_000;
const EPISODE_STEPS: usize = 600;
/// A line is printed after so many.
const PROGRESS_STEPS: u64 = 100_000;
/// For finding the shortest history.
const SHRINKING: Duration = Duration::from_secs(90);
/// In the default run each of these happens many times.
const EXPECTED: [&str; 29] = [
    "adopted",
    "checkpointed",
    "clock set back",
    "clock set forward",
    "committed",
    "committed to the store",
    "copied and run twice",
    "could not be opened",
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

/// A run of one episode; if it fails, what a person needs to look into it.
fn run(seed: u64, episode: &Episode) -> Report {
    attempt(episode).unwrap_or_else(|failing| {
        let first = failing.message.clone();
        let shortest = shortest(failing, SHRINKING);
        panic!("QUIRE_SEED={seed} fails: {first}\nThe shortest history that fails: {shortest}");
    })
}

#[test]
fn random_histories_keep_every_promise() {
    let steps = setting("QUIRE_STEPS", DEFAULT_STEPS);
    if let Ok(history) = std::env::var("QUIRE_HISTORY") {
        let seeds = history.split(',').map(|seed| u64::from_str_radix(seed, 16).unwrap());
        Episode::random(quire_testkit::seed(), 0).with_steps(seeds).run();
        return;
    }
    let (start, mut seed) = (Instant::now(), quire_testkit::seed());
    let mut all = Report::default();
    while all.steps < steps {
        let before = all.steps;
        all.add(&run(seed, &Episode::random(seed, EPISODE_STEPS)));
        seed = mix(seed);
        if all.steps / PROGRESS_STEPS > before / PROGRESS_STEPS {
            println!("{} steps after {:.0} s; next is QUIRE_SEED={seed}", all.steps, start.elapsed().as_secs_f64());
        }
    }
    let rate = all.steps as f64 / start.elapsed().as_secs_f64();
    println!("{} steps, {rate:.0} a second; {} LSNs; {}; {:?}", all.steps, all.lsns, all.faults, all.events.0);
    if steps >= DEFAULT_STEPS {
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| all.faults.count(**fault) == 0).collect();
        assert!(missing.is_empty(), "these faults never happened: {missing:?}");
        let missing: Vec<_> = EXPECTED.iter().filter(|event| all.count(event) == 0).collect();
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
