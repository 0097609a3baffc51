//! `config`, `version`, `completions`: what this binary is and how it is set.

use clap_complete::Shell;
use serde::Serialize;

use crate::args::command;
use crate::context::Context;
use crate::output::{Output, facts, table};
use crate::stop::{Outcome, Stop};

#[derive(Serialize)]
struct Setting {
    key: &'static str,
    value: String,
    source: String,
    environment: &'static str,
    meaning: &'static str,
    allowed: &'static str,
}

/// Every setting with its value and its source.
pub(crate) fn config(ctx: &Context) -> Outcome {
    let settings: Vec<Setting> = ctx
        .settings
        .explain()
        .into_iter()
        .map(|explained| Setting {
            key: explained.key.name(),
            value: explained.value,
            source: explained.source.to_string(),
            environment: explained.key.env(),
            meaning: explained.key.meaning(),
            allowed: explained.key.allowed(),
        })
        .collect();
    ctx.output.result(&settings, |settings| {
        table(
            ["SETTING", "VALUE", "SOURCE"],
            settings.iter().map(|s| [s.key.to_owned(), s.value.clone(), s.source.clone()]),
        )
    })
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
    sqlite: &'static str,
}

/// The versions of this binary and of the SQLite in it.
pub(crate) fn version(json: bool) -> Outcome {
    let version = Version { version: env!("CARGO_PKG_VERSION"), sqlite: rusqlite::version() };
    Output { json }.result(&version, |version| {
        facts([("quire", Some(version.version.to_owned())), ("sqlite", Some(version.sqlite.to_owned()))])
    })
}

/// The completion script of a shell.
pub(crate) fn completions(shell: Shell) -> Outcome {
    // Into memory first: the generator panics on a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "quire", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script).map_err(Stop::from_output)
}
