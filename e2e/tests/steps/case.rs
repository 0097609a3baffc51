//! A command, and what counts as its end.

use quire_e2e::{Machine, World};
use serde_json::{Map, Value};

/// A command that changes something.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) act: Act,
    /// The volumes that it is about. Those whose names begin with "file" are no databases.
    pub(crate) volumes: &'static [&'static str],
    pub(crate) cache_size: &'static str,
    /// What is run after it, until `quire status` is clean.
    pub(crate) then: &'static [&'static [&'static str]],
    /// Only so small a part of the rounds looks at it, because it is long.
    pub(crate) one_in: usize,
}

/// What is done.
pub(crate) enum Act {
    /// The command line.
    Quire {
        words: &'static [&'static str],
        /// The exit status.
        status: i32,
        /// The cause with which it is refused once it has been done.
        done: Option<&'static str>,
    },
    /// A program that runs these lines. Running one twice leaves what running it once does.
    Sql { parameters: &'static str, lines: Vec<String> },
}

/// How a repetition went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Repeated {
    /// As the first time.
    Did,
    /// It said that there is nothing left to do.
    WasDone,
}

/// The smallest cache that there may be, in many small files.
pub(crate) const SMALL_CACHE: &str = "1MiB";

/// Brings everything to the store.
pub(crate) const PUSH: &[&[&str]] = &[&["push"]];

impl Case {
    /// A command about volume `first` that succeeds, also when it is run again.
    pub(crate) fn quire(name: &'static str, words: &'static [&'static str]) -> Case {
        let act = Act::Quire { words, status: 0, done: None };
        Case { name, act, volumes: &["first"], cache_size: "2GiB", then: &[], one_in: 1 }
    }

    /// A command that is refused for this cause once it has been done.
    pub(crate) fn once(name: &'static str, words: &'static [&'static str], done: &'static str) -> Case {
        Case { act: Act::Quire { words, status: 0, done: Some(done) }, ..Case::quire(name, words) }
    }

    /// Lines of SQL on volume `first`, pushed afterwards.
    pub(crate) fn sql(name: &'static str, lines: Vec<String>) -> Case {
        Case { act: Act::Sql { parameters: "", lines }, then: PUSH, ..Case::quire(name, &[]) }
    }

    /// The machine on which it is run.
    pub(crate) fn machine<'a>(&self, world: &'a World) -> Machine<'a> {
        world.machine("machine")
    }

    /// Runs it once more.
    pub(crate) fn repeat(&self, world: &World) -> Repeated {
        let machine = self.machine(world);
        match &self.act {
            Act::Quire { words, status, done } => {
                let ended = machine.run(words);
                if ended.status == Some(*status) {
                    return Repeated::Did;
                }
                match done {
                    Some(cause) => ended.failed(1, cause),
                    None => panic!("run again, it ended otherwise: {ended:?}"),
                }
                Repeated::WasDone
            }
            Act::Sql { parameters, lines } => {
                let mut app = machine.app_with(self.volumes[0], parameters);
                lines.iter().for_each(|line| drop(app.sql(line)));
                app.finish();
                Repeated::Did
            }
        }
    }

    /// Brings everything to its end.
    pub(crate) fn wind_up(&self, world: &World) {
        for words in self.then {
            self.machine(world).ok(words);
        }
    }

    /// What `quire status` says, but for what depends on how often something was done.
    pub(crate) fn status(&self, world: &World) -> Vec<Map<String, Value>> {
        let rows = self.machine(world).json(&["status"]);
        let counted: &[&str] = match &self.act {
            Act::Quire { .. } => &[],
            Act::Sql { parameters: "&sync=commit", .. } => &["pages", "lsn", "base_lsn", "store_lsn"],
            Act::Sql { .. } => &["pages"],
        };
        let strip = |row: &Value| {
            let mut row = row.as_object().unwrap().clone();
            ["volume_id", "cached_pages", "store"].iter().chain(counted).for_each(|key| drop(row.remove(*key)));
            row
        };
        rows.as_array().unwrap().iter().map(strip).collect()
    }
}
