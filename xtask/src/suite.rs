//! `cargo xtask test`: the workspace's own tests, then the client suite and
//! the commit matrix; and `cargo xtask bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use quire_testkit::{BUILT_VARIABLE, S3Server, SHARED_S3_VARIABLE};
use serde_json::Value;

use crate::paths::{self, Profile};
use crate::{clients, matrix, process, sqlite};

/// Tests of the engine that run once more with a server between engine and store; those of SQLite's faces all do. The
/// others look at the store's requests, refuse calls of the system that a connection needs too, or take long.
const SERVED: [&str; 7] = ["stores", "race", "past", "faults", "local", "kill", "cut_short"];

fn through_a_server() -> [(&'static str, String); 1] {
    [("QUIRE_TEST_SERVED", "1".to_owned())]
}

/// What the tests share: one build, and one S3 server, which each test program would start for itself otherwise.
pub(crate) struct Parts {
    server: S3Server,
}

impl Parts {
    /// One build with all targets: the tests, the extension and the client programs share it.
    pub(crate) fn start() -> Result<Parts> {
        cargo(&["build", "--workspace", "--all-targets"])?;
        Ok(Parts { server: S3Server::start() })
    }

    /// Runs cargo for tests that use the parts.
    fn cargo(&self, words: &[&str], more: &[(&str, String)]) -> Result<()> {
        cargo_with(words, &[&self.variables()[..], more].concat())
    }

    fn variables(&self) -> [(&'static str, String); 2] {
        [
            (SHARED_S3_VARIABLE, self.server.port().to_string()),
            (BUILT_VARIABLE, paths::folder(Profile::Debug).display().to_string()),
        ]
    }

    /// The programs of all tests. That of one package alone would be built anew, with the features that it asks for.
    pub(crate) fn test_programs(&self) -> Result<Vec<TestProgram>> {
        let words = ["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"];
        let messages = process::output(cargo_command().args(words))?;
        let messages = messages.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        let program = |message: &Value| {
            let folder = Path::new(message["manifest_path"].as_str()?).parent()?;
            let program = message["executable"].as_str().filter(|_| message["profile"]["test"] == true)?;
            let name = format!("{}/{}", folder.file_name()?.to_str()?, message["target"]["name"].as_str()?);
            Some(TestProgram { name, folder: folder.to_owned(), program: program.into() })
        };
        Ok(messages.iter().filter_map(program).collect())
    }

    /// Runs all tests of a program.
    pub(crate) fn run(&self, test: &TestProgram, more: &[(&str, String)]) -> Result<()> {
        println!("\n== {}", test.name);
        let mut command = Command::new(&test.program);
        command.arg("--nocapture").current_dir(&test.folder).env("CARGO_MANIFEST_DIR", &test.folder);
        process::run(command.envs(self.variables()).envs(more.iter().map(|(name, value)| (name, value))))
    }
}

/// What cargo has made of the tests in one file.
pub(crate) struct TestProgram {
    /// `FOLDER/NAME`.
    name: String,
    /// Its package's.
    folder: PathBuf,
    program: PathBuf,
}

impl TestProgram {
    /// Whether it is `FOLDER/NAME`, or in `FOLDER`.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        self.name == name || self.name.split_once('/').is_some_and(|(folder, _)| folder == name)
    }
}

/// Everything that has to hold before a change lands.
pub(crate) fn run() -> Result<()> {
    let parts = Parts::start()?;
    if process::output(cargo_command().args(["nextest", "--version"])).is_ok() {
        parts.cargo(&["nextest", "run", "--workspace", "--no-fail-fast"], &[])?;
        parts.cargo(&["test", "--workspace", "--doc"], &[])?;
        let tests = SERVED.map(|name| format!("binary({name})")).join(" or ");
        let served = format!("(package(quire-engine) and ({tests})) or package(quire-sqlite)");
        parts.cargo(&["nextest", "run", "--workspace", "--no-fail-fast", "-E", &served], &through_a_server())?;
    } else {
        parts.cargo(&["test", "--workspace", "--no-fail-fast"], &[])?;
        let tests = SERVED.map(|name| format!("--test={name}"));
        let words =
            ["test", "--no-fail-fast", "--package=quire-engine"].into_iter().chain(tests.iter().map(String::as_str));
        parts.cargo(&words.collect::<Vec<_>>(), &through_a_server())?;
        parts.cargo(&["test", "--no-fail-fast", "--package=quire-sqlite", "--tests"], &through_a_server())?;
    }
    clients::run_built()?;
    matrix::run_built()?;
    sqlite::run_built()
}

/// The benchmarks, with what users would run: release builds and the loadable extension.
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    let packages = ["--package=quire-sqlite", "--package=quire-cli", "--package=quire-benches"];
    cargo(&[&["build", "--release"], &packages[..]].concat())?;
    let mut benches = Command::new(paths::program(Profile::Release, "quire-benches"));
    benches.arg("--extension").arg(paths::extension(Profile::Release));
    process::run(benches.arg("--program").arg(paths::program(Profile::Release, "quire")).args(options))
}

/// Runs cargo with these arguments, showing them.
pub(crate) fn cargo(words: &[&str]) -> Result<()> {
    cargo_with(words, &[])
}

fn cargo_with(words: &[&str], variables: &[(&str, String)]) -> Result<()> {
    println!("\n== cargo {}", words.join(" "));
    process::run(cargo_command().args(words).envs(variables.iter().map(|(name, value)| (name, value))))
}

fn cargo_command() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(paths::root());
    command
}
