//! The programs that the chores use: found, or installed where they belong
//! (Debian packages by apt as root, everything else below `target/clients`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::process::{answers, output, run};

/// The `sqlite3` shell.
pub(crate) fn sqlite3_shell() -> Result<PathBuf> {
    debian_program("sqlite3", "-version", &["sqlite3"])
}

/// What SQLite's test program is built with.
pub(crate) fn tcl() -> Result<()> {
    if !Path::new("/usr/include/tcl").exists() {
        install_debian(&["tcl-dev"])?;
    }
    Ok(())
}

/// A Python whose `sqlite3` module can load extensions. Some builds of Python
/// leave that out, so the system's own is asked first.
pub(crate) fn python() -> Result<PathBuf> {
    let find = || {
        let candidates = ["/usr/bin/python3", "python3", "/usr/local/bin/python3", "/opt/homebrew/bin/python3"];
        let attribute = "import sqlite3; sqlite3.Connection.enable_load_extension";
        candidates.iter().map(PathBuf::from).find(|python| runs(python, attribute))
    };
    if let Some(python) = find() {
        return Ok(python);
    }
    install_debian(&["python3"])?;
    find().context("no python3 here has sqlite3.Connection.enable_load_extension")
}

/// The system's Python with Debian's `apsw`, which uses Debian's SQLite.
pub(crate) fn debian_apsw() -> Result<PathBuf> {
    let python = PathBuf::from("/usr/bin/python3");
    if !runs(&python, "import apsw") {
        install_debian(&["python3-apsw"])?;
    }
    Ok(python)
}

fn runs(python: &Path, script: &str) -> bool {
    Command::new(python).args(["-c", script]).output().is_ok_and(|output| output.status.success())
}

/// A Python environment with the packages of `clients/requirements.txt`.
pub(crate) fn python_environment() -> Result<PathBuf> {
    let folder = clients_folder().join("venv");
    let python = folder.join("bin/python");
    let wanted = paths::root().join("clients/requirements.txt");
    install_once(&folder, &wanted, || {
        paths::remove_folder(&folder)?;
        let system = self::python()?;
        if !runs(&system, "import ensurepip") {
            install_debian(&["python3-venv"])?;
        }
        run(Command::new(&system).args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--requirement"]).arg(&wanted))
    })?;
    Ok(python)
}

/// A folder with the native npm modules of `clients/npm`, to be used as `NODE_PATH`
/// by the system's node, for which they are built.
pub(crate) fn npm_modules() -> Result<PathBuf> {
    Ok(npm_install("npm")?.join("node_modules"))
}

/// A node that has `node:sqlite`.
pub(crate) fn node24() -> Result<PathBuf> {
    Ok(npm_install("node24")?.join("node_modules/node/bin/node"))
}

fn npm_install(name: &str) -> Result<PathBuf> {
    let folder = clients_folder().join(name);
    let wanted = paths::root().join("clients").join(name).join("package.json");
    install_once(&folder, &wanted, || {
        fs::create_dir_all(&folder)?;
        fs::copy(&wanted, folder.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&folder);
        // Native modules without a ready-made build compile against node's own headers, where it has them.
        if let Some(prefix) = node_prefix().filter(|prefix| prefix.join("include/node/node.h").exists()) {
            npm.env("npm_config_nodedir", prefix);
        }
        run(&mut npm).context("npm is needed for the Node clients")
    })?;
    Ok(folder)
}

fn node_prefix() -> Option<PathBuf> {
    let node = output(Command::new("node").args(["-p", "process.execPath"])).ok()?;
    Some(Path::new(node.trim()).parent()?.parent()?.to_path_buf())
}

fn clients_folder() -> PathBuf {
    paths::target().join("clients")
}

/// Runs `install` unless it succeeded before with the same list of what is wanted.
fn install_once(folder: &Path, wanted: &Path, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let wish = fs::read(wanted).with_context(|| format!("cannot read {}", wanted.display()))?;
    let stamp = folder.join("installed");
    if fs::read(&stamp).is_ok_and(|done| done == wish) {
        return Ok(());
    }
    println!("installing {} into {}", wanted.display(), folder.display());
    install()?;
    fs::write(&stamp, wish).with_context(|| format!("cannot write {}", stamp.display()))
}

/// A subcommand of cargo: the installed one, or one that is built below the target folder.
pub(crate) fn cargo_tool(name: &str) -> Result<PathBuf> {
    if answers(name, "--version") {
        return Ok(PathBuf::from(name));
    }
    let folder = paths::target().join("tools");
    let program = folder.join("bin").join(name);
    if !program.exists() {
        println!("installing {name} into {}", folder.display());
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        run(Command::new(cargo).args(["install", name, "--locked", "--root"]).arg(&folder))?;
    }
    Ok(program)
}

fn debian_program(program: &str, probe: &str, packages: &[&str]) -> Result<PathBuf> {
    if !answers(program, probe) {
        install_debian(packages)?;
    }
    Ok(PathBuf::from(program))
}

fn install_debian(packages: &[&str]) -> Result<()> {
    let names = packages.join(" ");
    if output(Command::new("id").arg("-u")).ok().as_deref().map(str::trim) != Some("0") {
        bail!("{names} is missing: install it, for example with: sudo apt-get install {names}");
    }
    let apt = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    run(apt().args(["update", "-q"]))?;
    run(apt().args(["install", "-y", "-q", "--no-install-recommends"]).args(packages))
}
