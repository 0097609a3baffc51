//! `cargo xtask soak`: the tests that search at random, run for hours. The
//! code is that of the ordinary suite; only the lengths differ.

use anyhow::{Result, bail, ensure};

use crate::suite;

/// A search that can go on for as long as anybody likes.
struct Search {
    name: &'static str,
    about: &'static str,
    /// The variable that says how long it goes on, and its value here.
    length: (&'static str, &'static str),
    /// Which tests: `FOLDER/NAME`, or `FOLDER` for all that are there.
    tests: &'static [&'static str],
}

const SEARCHES: &[Search] = &[
    Search {
        name: "kills",
        about: "1,000 kills for each way of working, in the engine and through SQLite",
        length: ("QUIRE_KILLS", "1000"),
        tests: &["engine/kill", "e2e/kill"],
    },
    Search {
        name: "model",
        about: "200,000 steps of two replicas against plain maps of pages",
        length: ("QUIRE_STEPS", "200000"),
        tests: &["engine/model"],
    },
    Search {
        name: "races",
        about: "3,000 rounds of processes that push to one volume",
        length: ("QUIRE_ROUNDS", "3000"),
        tests: &["engine/race"],
    },
    Search {
        name: "served",
        about: "SQLite's side through a server of a bucket, as `cargo xtask test` does through one of a folder",
        length: ("QUIRE_TEST_SERVED", "s3"),
        tests: &["sqlite-vfs"],
    },
    Search {
        name: "order",
        about: "1,000 rounds of 16 writers on a store that misbehaves: is there one order of all calls?",
        length: ("QUIRE_ROUNDS", "1000"),
        tests: &["sim/races"],
    },
    Search {
        name: "simulation",
        about: "ten million steps of clients on a network that loses, delays and damages",
        length: ("QUIRE_STEPS", "10000000"),
        tests: &["sim/simulation"],
    },
    Search {
        name: "lives",
        about: "50,000 steps of the lives of volumes, cared for by workers that are cut off",
        length: ("QUIRE_STEPS", "50000"),
        tests: &["maintenance/life"],
    },
    Search {
        name: "databases",
        about: "5,000 steps of the lives of databases, in a folder and on S3, cared for by programs that are killed",
        length: ("QUIRE_STEPS", "5000"),
        tests: &["e2e/life"],
    },
    Search {
        name: "space",
        about: "10,000 pushes of one row each: what they take in the store, cared for and not",
        length: ("QUIRE_PUSHES", "10000"),
        tests: &["maintenance/space"],
    },
    Search {
        name: "log",
        about: "a log of 100,000 commits: what opening it and catching up with it cost",
        length: ("QUIRE_COMMITS", "100000"),
        tests: &["engine/checkpoints"],
    },
    Search {
        name: "power",
        about: "60 rounds of a dozen losses of power under each way of working",
        length: ("QUIRE_ROUNDS", "60"),
        tests: &["e2e/power"],
    },
    Search {
        name: "steps",
        about: "each command that changes something, killed after every single thing that it asks of the disk",
        length: ("QUIRE_ROUNDS", "1000000000"),
        tests: &["e2e/steps"],
    },
    Search {
        name: "flips",
        about: "every byte of a small replica and of its store flipped, every file cut at every length",
        length: ("QUIRE_ROUNDS", "1000000000"),
        tests: &["engine/flips", "engine/flips_store"],
    },
];

/// Runs the searches of these names, or all of them.
pub(crate) fn run(names: &[&str]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !SEARCHES.iter().any(|search| search.name == **name)) {
        let known: Vec<String> = SEARCHES.iter().map(|s| format!("  {:<12} {}", s.name, s.about)).collect();
        bail!("there is no search {unknown}; there are:\n{}", known.join("\n"));
    }
    let chosen = SEARCHES.iter().filter(|search| names.is_empty() || names.contains(&search.name));
    let parts = suite::Parts::start()?;
    let programs = parts.test_programs()?;
    let mut failed = Vec::new();
    for Search { name, about, length: (variable, value), tests } in chosen {
        println!("\n== soak {name}: {about}");
        for test in *tests {
            let is_wanted = |program: &&suite::TestProgram| program.is_named(test);
            let mut wanted = programs.iter().filter(is_wanted).peekable();
            ensure!(wanted.peek().is_some(), "there is no test {test}");
            for program in wanted {
                if let Err(error) = parts.run(program, &[(variable, (*value).to_owned())]) {
                    println!("{error:#}");
                    failed.push(*name);
                }
            }
        }
    }
    failed.dedup();
    ensure!(failed.is_empty(), "these searches found something: {}", failed.join(", "));
    Ok(())
}
