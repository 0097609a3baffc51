//! The client suite: programs that use SQLite through other people's libraries
//! work on Quire volumes. What each of them does is told in `clients/README.md`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::paths::{self, Profile};
use crate::{process, suite, tools};

/// The roles in their order, with the data directory that each works in.
const ROLES: [(&str, &str); 4] =
    [("write", "data-writer"), ("clone", "data-replica"), ("append", "data-writer"), ("pull", "data-replica")];

/// Far above what a role takes (a second at most), so that only a hang reaches it.
const ROLE_LIMIT: Duration = Duration::from_secs(120);

/// One program that works on a volume.
struct Client {
    name: &'static str,
    /// The program with its first arguments; installs what it needs.
    prepare: fn() -> Result<Command>,
    /// Takes no URI: gets a path, and Quire as the default VFS.
    by_default_vfs: bool,
}

const CLIENTS: [Client; 8] = [
    Client { name: "shell", prepare: shell, by_default_vfs: false },
    Client { name: "python-sqlite3", prepare: python_sqlite3, by_default_vfs: false },
    Client { name: "pysqlite3", prepare: pysqlite3, by_default_vfs: false },
    Client { name: "apsw", prepare: apsw, by_default_vfs: false },
    Client { name: "node-sqlite", prepare: node_sqlite, by_default_vfs: false },
    Client { name: "npm-sqlite3", prepare: npm_sqlite3, by_default_vfs: false },
    Client { name: "better-sqlite3", prepare: better_sqlite3, by_default_vfs: true },
    Client { name: "rusqlite", prepare: rusqlite, by_default_vfs: false },
];

/// Builds what the suite needs, and runs it.
pub(crate) fn run() -> Result<()> {
    suite::cargo(&["build", "--workspace", "--all-targets"])?;
    run_built()
}

/// Runs every client, also after failures, against the debug build.
pub(crate) fn run_built() -> Result<()> {
    println!("\n== client suite: {} clients, {} roles each", CLIENTS.len(), ROLES.len());
    let folder = paths::fresh_folder("clients/run")?;
    let start = Instant::now();
    let mut failed = Vec::new();
    for client in &CLIENTS {
        if let Err(error) = run_client(client, &folder) {
            println!("test client {} ... FAILED\n{error:#}\n", client.name);
            failed.push(client.name);
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    let (passed, failures) = (CLIENTS.len() - failed.len(), failed.len());
    println!("\nclient suite: {verdict}. {passed} passed; {failures} failed; {:.1} s", start.elapsed().as_secs_f64());
    ensure!(failed.is_empty(), "failed clients: {} (their logs are below {})", failed.join(", "), folder.display());
    paths::remove_folder(&folder)
}

fn run_client(client: &Client, folder: &Path) -> Result<()> {
    let home = folder.join(client.name);
    let working = home.join("working-directory");
    fs::create_dir_all(&working)?;
    let database = match client.by_default_vfs {
        true => working.join("tracks.db").display().to_string(),
        false => format!("clients/{}", client.name),
    };
    for (role, data_dir) in ROLES {
        let mut command = (client.prepare)().context("the client cannot be installed")?;
        command.arg(paths::extension(Profile::Debug)).arg(&database).arg(role).current_dir(&working);
        process::with_store(&mut command, &home.join(data_dir), &format!("file://{}", home.join("store").display()));
        if client.by_default_vfs {
            command.env("QUIRE_DEFAULT_VFS", "1");
        }
        let log = home.join(format!("{role}.log"));
        let start = Instant::now();
        let status = process::run_logged(&mut command, &log, ROLE_LIMIT)?;
        if !status.success() {
            bail!("role {role} ended with {status}:\n{}", fs::read_to_string(&log)?);
        }
        // A client that fell back to an ordinary file would have left one here.
        if let Some(stray) = fs::read_dir(&working)?.next() {
            bail!("role {role} left the file {}", stray?.path().display());
        }
        println!("test client {} {role} ... ok ({:.2} s)", client.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

fn shell() -> Result<Command> {
    tools::sqlite3_shell()?;
    Ok(Command::new(program("shell.sh")))
}

fn python_sqlite3() -> Result<Command> {
    Ok(python(tools::python()?, "sqlite3"))
}

fn pysqlite3() -> Result<Command> {
    Ok(python(tools::python_environment()?, "pysqlite3"))
}

fn apsw() -> Result<Command> {
    Ok(python(tools::python_environment()?, "apsw"))
}

fn node_sqlite() -> Result<Command> {
    Ok(node(tools::node24()?, "node:sqlite"))
}

fn npm_sqlite3() -> Result<Command> {
    native_module("sqlite3")
}

fn better_sqlite3() -> Result<Command> {
    native_module("better-sqlite3")
}

fn rusqlite() -> Result<Command> {
    Ok(Command::new(paths::example(Profile::Debug, "client-rusqlite")))
}

fn native_module(module: &str) -> Result<Command> {
    let mut command = node(PathBuf::from("node"), module);
    command.env("NODE_PATH", tools::npm_modules()?);
    Ok(command)
}

fn python(python: PathBuf, module: &str) -> Command {
    let mut command = Command::new(python);
    // Python must not write compiled files beside the program.
    command.arg("-B").arg(program("client.py")).arg(module);
    command
}

fn node(node: PathBuf, module: &str) -> Command {
    let mut command = Command::new(node);
    command.arg(program("client.cjs")).arg(module);
    command
}

fn program(file: &str) -> PathBuf {
    paths::root().join("clients").join(file)
}
