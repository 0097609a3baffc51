//! What is under test: built once for each test process, by the cargo that runs the tests, unless whoever runs them
//! has built it.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use quire_testkit::BUILT_VARIABLE;
use serde_json::Value;

/// The files that cargo has made.
pub(crate) struct Built {
    /// The command line.
    pub(crate) quire: PathBuf,
    /// The loadable SQLite extension.
    pub(crate) extension: PathBuf,
    /// The ordinary SQLite program of this package.
    pub(crate) app: PathBuf,
    /// Records what a program asks of its disk.
    pub(crate) recorder: PathBuf,
}

/// Builds what has changed.
pub(crate) fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| match std::env::var_os(BUILT_VARIABLE) {
        Some(folder) => in_folder(Path::new(&folder)),
        None => build(),
    })
}

fn in_folder(folder: &Path) -> Built {
    let file = |name: &str| {
        let path = folder.join(name);
        assert!(path.exists(), "{BUILT_VARIABLE}: there is no {}", path.display());
        path
    };
    Built {
        quire: file("quire"),
        extension: file(&format!("{DLL_PREFIX}quire_sqlite{DLL_SUFFIX}")),
        app: file("quire-e2e-app"),
        recorder: file("quire-powerloss-recorder"),
    }
}

fn build() -> Built {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--message-format=json-render-diagnostics"])
        .args(["--package=quire-cli", "--package=quire-sqlite", "--package=quire-e2e", "--package=quire-powerloss"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo cannot build the extension and the command line");
    let messages = String::from_utf8(output.stdout).unwrap();
    let artifacts: Vec<Value> = messages.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let file = |target: &str, wanted: &dyn Fn(&Path) -> bool| -> PathBuf {
        let of_target = artifacts.iter().filter(|artifact| artifact["target"]["name"] == target);
        let mut files = of_target.filter_map(|a| a["filenames"].as_array()).flatten().filter_map(Value::as_str);
        let found = files.find(|file| wanted(Path::new(file)));
        found.unwrap_or_else(|| panic!("cargo names no file of {target}")).into()
    };
    let any = |_: &Path| true;
    let library = |file: &Path| file.to_string_lossy().ends_with(DLL_SUFFIX);
    Built {
        quire: file("quire", &any),
        extension: file("quire_sqlite", &library),
        app: file("quire-e2e-app", &any),
        recorder: file("quire-powerloss-recorder", &any),
    }
}
