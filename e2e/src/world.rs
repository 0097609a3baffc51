//! The command line, in data directories over one store.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use quire_testkit::Served;
use serde_json::Value;

use crate::app::App;
use crate::built::built;
use crate::content::content;
use crate::files::text_of;

/// A folder with one store, in which any number of machines live.
pub struct World {
    root: tempfile::TempDir,
    store: String,
    variables: Vec<(String, String)>,
}

/// One data directory.
#[derive(Clone)]
pub struct Machine<'a> {
    world: &'a World,
    data_dir: PathBuf,
}

impl World {
    /// A world whose store is a folder in it.
    #[allow(clippy::new_without_default)] // it makes files
    pub fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        let store = format!("file://{}", root.path().join("store").display());
        World { root, store, variables: Vec::new() }
    }

    /// A world whose store is elsewhere, and needs these variables.
    pub fn with_store(store: &str, variables: Vec<(String, String)>) -> World {
        World { store: store.to_owned(), variables, ..World::new() }
    }

    /// A world whose store is a folder in it, with these variables.
    pub fn with_variables(variables: Vec<(String, String)>) -> World {
        World { variables, ..World::new() }
    }

    /// Serves the store; `port` 0 is any.
    pub fn serve(&self, port: u16) -> Served {
        self.serve_with(port, &[], Stdio::inherit())
    }

    /// As [`serve`](Self::serve), with more words, and with the server's log where one likes.
    pub fn serve_with(&self, port: u16, words: &[&str], log: Stdio) -> Served {
        self.serve_in(port, words, log, &[])
    }

    /// As [`serve_with`](Self::serve_with), with more variables in the server's environment.
    pub fn serve_in(&self, port: u16, words: &[&str], log: Stdio, variables: &[(&str, String)]) -> Served {
        let mut command = self.machine("server").command::<&str>(&[]);
        command.envs(variables.iter().map(|(name, value)| (name, value))).stderr(log);
        Served::start(command, port, words)
    }

    /// Its folder: the store is `store` in it, and a machine's data directory has the machine's name.
    pub fn folder(&self) -> &Path {
        self.root.path()
    }

    /// The machine of this name.
    pub fn machine(&self, name: &str) -> Machine<'_> {
        self.machine_at(self.path(name))
    }

    /// The machine whose data directory is this folder.
    pub fn machine_at(&self, data_dir: PathBuf) -> Machine<'_> {
        Machine { world: self, data_dir }
    }

    /// The path of a file in the world's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

impl Machine<'_> {
    /// Its folder.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// A program in an environment without settings other than this machine's.
    fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("QUIRE_") || name.starts_with("AWS_")) {
                command.env_remove(name);
            }
        }
        command
            .current_dir(self.world.root.path())
            .env("HOME", self.world.path("home"))
            .env("XDG_CONFIG_HOME", self.world.path("config"))
            .env("QUIRE_DATA_DIR", &self.data_dir)
            .env("QUIRE_STORE", &self.world.store)
            .envs(self.world.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// `quire` with these words.
    pub fn command<S: AsRef<OsStr>>(&self, words: &[S]) -> Command {
        let mut command = self.program(&built().quire);
        command.args(words);
        command
    }

    /// Runs `quire` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: &[S]) -> Ended {
        Ended::of(self.command(words).output().unwrap())
    }

    /// Runs words that must succeed.
    pub fn ok<S: AsRef<OsStr>>(&self, words: &[S]) -> String {
        let ended = self.run(words);
        let shown: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        assert_eq!(ended.status, Some(0), "quire {}: {}", shown.join(" "), ended.stderr);
        ended.stdout
    }

    /// Runs words that must succeed, with `--json`.
    pub fn json<S: AsRef<OsStr>>(&self, words: &[S]) -> Value {
        let words: Vec<&OsStr> = std::iter::once("--json".as_ref()).chain(words.iter().map(AsRef::as_ref)).collect();
        let stdout = self.ok(&words);
        serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"))
    }

    /// Makes a database of this many rows of 1 KiB, and imports it; gives its file.
    pub fn import_sample(&self, volume: &str, rows: u32) -> PathBuf {
        let file = self.world.path(&format!("{volume}.db"));
        let mut app = self.plain_app(&file);
        app.sql(&format!(
            "CREATE TABLE t (n INTEGER PRIMARY KEY, body BLOB); \
             WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {rows}) \
             INSERT INTO t SELECT n, randomblob(1000) FROM i"
        ));
        app.finish();
        self.ok(&["import", text_of(&file), volume]);
        file
    }

    /// Asserts that a volume, exported, holds what the file holds.
    #[track_caller]
    pub fn holds(&self, volume: &str, expected: &Path) {
        let copy = self.world.path("held.db");
        self.ok(&["export", "--force", volume, text_of(&copy)]);
        assert_eq!(content(&copy), content(expected));
        std::fs::remove_file(copy).unwrap();
    }

    /// Starts a SQLite program on a volume. `parameters` are those of the URI: `""` or `"&sync=commit"`.
    pub fn app_with(&self, volume: &str, parameters: &str) -> App {
        let mut command = self.program(&built().app);
        command.arg(&built().extension).arg(format!("file:{volume}?vfs=quire{parameters}"));
        App::start(command)
    }

    /// As [`app_with`](Self::app_with), and appends what it does in the world's folder to a recording.
    pub fn recorded_app(&self, volume: &str, parameters: &str, recording: &Path) -> App {
        let mut command = self.recorder(recording);
        command.arg(&built().app).arg(&built().extension).arg(format!("file:{volume}?vfs=quire{parameters}"));
        App::start(command)
    }

    /// As [`run`](Self::run), and appends what it does in the world's folder to a recording.
    pub fn recorded_run<S: AsRef<OsStr>>(&self, words: &[S], recording: &Path) -> Ended {
        let mut command = self.recorder(recording);
        command.arg(&built().quire).args(words);
        Ended::of(command.output().unwrap())
    }

    fn recorder(&self, recording: &Path) -> Command {
        let mut command = self.program(&built().recorder);
        command.arg(self.world.root.path()).arg(recording);
        command
    }

    /// Starts a SQLite program on a volume.
    pub fn app(&self, volume: &str) -> App {
        self.app_with(volume, "")
    }

    /// Starts a SQLite program on an ordinary file.
    pub fn plain_app(&self, file: &Path) -> App {
        let mut command = self.program(&built().app);
        command.arg("").arg(file);
        App::start(command)
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ended {
    /// Of a command that was run.
    pub fn of(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let ended = Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) };
        assert!(!ended.stderr.contains("panicked"), "{ended:?}");
        ended
    }

    /// Failed with this status, a cause that contains `cause`, and a remedy.
    #[track_caller]
    pub fn failed(&self, status: i32, cause: &str) {
        assert_eq!(self.status, Some(status), "{self:?}");
        let error = self.stderr.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(error.contains(cause), "{cause:?} is not the cause in {self:?}");
        assert!(self.stderr.contains("\nremedy: "), "{self:?}");
    }
}
