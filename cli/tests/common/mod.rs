//! The real binary, in data directories and stores of its own.
#![allow(clippy::unwrap_used, dead_code)] // helpers of tests may panic like tests; no test file uses all of them

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A folder with one store, in which any number of machines live.
pub(crate) struct World {
    root: tempfile::TempDir,
}

/// One data directory.
pub(crate) struct Machine<'a> {
    world: &'a World,
    name: &'static str,
}

impl World {
    pub(crate) fn new() -> World {
        World { root: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn machine(&self, name: &'static str) -> Machine<'_> {
        Machine { world: self, name }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn store_url(&self) -> String {
        format!("file://{}", self.path("store").display())
    }

    /// Writes a file and gives its path.
    pub(crate) fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Machine<'_> {
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.world.path(self.name)
    }

    /// `quire` in an environment without any other setting.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quire"));
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("QUIRE_")) {
                command.env_remove(name);
            }
        }
        command
            .args(words)
            .current_dir(self.world.root.path())
            .env("HOME", self.world.path("home"))
            .env("XDG_CONFIG_HOME", self.world.path("config"))
            .env("QUIRE_DATA_DIR", self.data_dir())
            .env("QUIRE_STORE", self.world.store_url())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ended {
        Ended::of(self.command(words).output().unwrap())
    }

    /// Runs words that must succeed.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        let ended = self.run(words);
        let shown: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        assert_eq!(ended.status, Some(0), "quire {}: {}", shown.join(" "), ended.stderr);
        ended.stdout
    }

    /// Runs words that must succeed, with `--json`.
    pub(crate) fn json<S: AsRef<OsStr>>(&self, words: &[S]) -> Value {
        let words: Vec<&OsStr> = std::iter::once("--json".as_ref()).chain(words.iter().map(AsRef::as_ref)).collect();
        let stdout = self.ok(&words);
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
    }
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Ended {
        Ended {
            status: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Failed with this status, a cause that contains `cause`, and a remedy; and did not panic.
    pub(crate) fn failed(&self, status: i32, cause: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        let error = self.stderr.lines().next().unwrap_or_default();
        assert!(error.starts_with("error: ") && error.contains(cause), "{cause:?} is not in {self:?}");
        assert!(self.stderr.contains("\nremedy: "), "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// Bytes that do not compress, the same for the same seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    use rand::{RngExt, SeedableRng};
    let mut bytes = vec![0; len];
    rand::rngs::StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// The names in a folder.
pub(crate) fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
