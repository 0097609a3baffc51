//! A real browser without a window, driven by Playwright.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use crate::venv::{run, target_folder};

/// The driver, with its exact version: `playwright-core` of npm downloads no browser of its own.
const DRIVER: &str = "playwright-core@1.65.1";

/// A command that runs `script` with node, where `playwright-core` is to be had; the environment variable `BROWSER` names
/// the browser. What is missing is installed: Debian's Chromium if this is root. Test processes that run at the same time
/// wait for each other.
pub fn browser_script(script: &Path) -> Command {
    let folder = target_folder().join("testkit-npm");
    fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let lock = folder.join("lock");
    let lock = File::create(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));
    lock.lock().expect("a lock on the folder of test programs");
    let installed = folder.join(format!("installed-{DRIVER}"));
    if !installed.exists() {
        run(Command::new("npm")
            .args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"])
            .args([folder.as_os_str(), DRIVER.as_ref()]));
        File::create(&installed).unwrap_or_else(|e| panic!("{}: {e}", installed.display()));
    }
    let is_there = || Command::new("chromium").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there() {
        let mut install = Command::new("apt-get");
        install.args(["install", "--yes", "--quiet", "--no-install-recommends", "chromium"]);
        if !install.output().is_ok_and(|output| output.status.success()) {
            // A machine that has never asked what there is.
            run(Command::new("apt-get").args(["update", "-q"]));
            run(&mut install);
        }
        assert!(is_there(), "chromium is needed: install Debian's package");
    }
    // An import looks beside the script, so it is laid beside the modules.
    let name = script.file_name().unwrap_or_else(|| panic!("{} is no script", script.display()));
    let beside = folder.join(name);
    fs::copy(script, &beside).unwrap_or_else(|e| panic!("{}: {e}", script.display()));
    let mut command = Command::new("node");
    command.arg(beside).env("BROWSER", "chromium");
    command
}
