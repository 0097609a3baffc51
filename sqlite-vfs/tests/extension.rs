//! The loadable extension, in processes of its own.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// The extension stands beside the tests.
fn extension() -> PathBuf {
    let name = format!("{}quire_sqlite{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    std::env::current_exe().unwrap().parent().unwrap().join(name)
}

fn command(program: &str, dir: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("QUIRE_")) {
        command.env_remove(name);
    }
    command
        .current_dir(dir)
        .env("QUIRE_DATA_DIR", dir.join("data"))
        .env("XDG_CONFIG_HOME", dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs SQL in the sqlite3 shell: standard output, standard error, and whether it succeeded.
fn shell(dir: &Path, variables: &[(&str, &str)], lines: &str) -> (String, String, bool) {
    let mut shell = command("sqlite3", dir);
    let load = format!(".load {}", extension().with_extension("").display());
    let child = shell.args(["-batch", "-bail", "-init", "/dev/null", "-cmd", &load]).envs(variables.iter().copied());
    let mut child = child.stdin(Stdio::piped()).spawn().unwrap();
    use std::io::Write;
    // A shell that refused to load is gone already.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

/// A Python whose `sqlite3` module can load extensions; some builds leave that out.
fn python() -> &'static str {
    let check = "import sqlite3; sqlite3.Connection.enable_load_extension";
    let can_load = |python: &&str| Command::new(python).args(["-c", check]).output().is_ok_and(|o| o.status.success());
    ["/usr/bin/python3", "python3"].into_iter().find(can_load).unwrap()
}

/// Runs Python that has the extension loaded: standard output and standard error.
fn script(dir: &Path, variables: &[(&str, &str)], lines: &str) -> (String, String) {
    let begin = r#"
import os, sqlite3, sys
loader = sqlite3.connect(":memory:")
loader.enable_load_extension(True)
loader.load_extension(sys.argv[1])
"#;
    let mut python = command(python(), dir);
    python.envs(variables.iter().copied()).args(["-c", &format!("{begin}{lines}")]).arg(extension());
    let output = python.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn the_shell_works_on_a_volume_and_another_data_directory_clones_it() {
    let dir = dir();
    let (out, err, ok) = shell(
        dir.path(),
        &[],
        ".open file:app?vfs=quire\n.vfsname\nCREATE TABLE t(x);\nINSERT INTO t VALUES(1),(2);\nSELECT quire_push();\n",
    );
    assert!(ok && out.starts_with("quire\npushed 2 commits as LSN 1"), "{out}{err}");
    let store = format!("file://{}", dir.path().join("data/store").display());
    let other = dir.path().join("other");
    let variables = [("QUIRE_DATA_DIR", other.to_str().unwrap()), ("QUIRE_STORE", &store)];
    let (out, err, ok) = shell(dir.path(), &variables, ".open file:app?vfs=quire\nSELECT sum(x) FROM t;\n");
    assert!(ok && out == "3\n", "{out}{err}");
    let (out, _, _) = shell(dir.path(), &variables, ".open file:app?vfs=quire\nSELECT count(*) FROM t;\n");
    assert_eq!(out, "2\n");
    let mut left: Vec<_> =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["data", "other"], "no file appears beside the data directories");
}

#[test]
fn loading_it_again_in_one_process_changes_nothing() {
    let dir = dir();
    let load = format!(".load {}\n", extension().display());
    let (out, err, ok) = shell(
        dir.path(),
        &[],
        &format!("{load}{load}.open file:a?vfs=quire\n{load}SELECT count(*) FROM quire_status;\n"),
    );
    assert!(ok && out == "1\n", "{out}{err}");
}

#[test]
fn a_variable_makes_it_the_default_vfs() {
    let dir = dir();
    let on = [("QUIRE_DEFAULT_VFS", "1")];
    let (out, err, ok) = shell(dir.path(), &on, ".open app.db\nCREATE TABLE t(x);\nSELECT name FROM quire_status;\n");
    let path = std::fs::canonicalize(dir.path()).unwrap().join("app.db");
    assert!(ok && out == format!("fs{}\n", path.display()), "{out}{err}");
    assert!(!path.exists());
    let (_, err, _) = shell(dir.path(), &[("QUIRE_DEFAULT_VFS", "yes")], "");
    assert!(err.contains("QUIRE_DEFAULT_VFS") && err.contains("0 and 1"), "{err}");
}

#[test]
fn a_wrong_setting_is_an_error_that_names_it() {
    let dir = dir();
    for (name, value, wanted) in [
        ("QUIRE_STORE", "ftp://host/x", "QUIRE_STORE"),
        ("QUIRE_SYNC", "sometimes", "QUIRE_SYNC"),
        ("QUIRE_LOG", "quire=[", "QUIRE_LOG"),
        ("QUIRE_CACHE_SIZES", "1GiB", "QUIRE_CACHE_SIZE?"),
    ] {
        let (out, err, _) = shell(dir.path(), &[(name, value)], ".open file:a?vfs=quire\nCREATE TABLE t(x);\n");
        assert!(err.contains(wanted) && !err.contains("panicked"), "{name}={value}: {out}{err}");
    }
    assert!(!dir.path().join("data").exists());
}

#[test]
fn sql_may_load_the_extension_again_on_a_connection_that_has_its_functions() {
    let dir = dir();
    let lines = format!(
        ".open file:a?vfs=quire\nSELECT load_extension('{}');\nCREATE TABLE t(x);\nSELECT quire_push();\n",
        extension().display()
    );
    let (out, err, ok) = shell(dir.path(), &[], &lines);
    assert!(ok && out.contains("pushed"), "{out}{err}");
}

#[test]
fn temporary_files_go_to_the_folder_that_a_program_names() {
    let dir = dir();
    let folder = dir.path().display();
    let lines = format!(
        ".open file:a?vfs=quire\nPRAGMA temp_store_directory='{folder}';\nPRAGMA temp_store_directory;\n\
         PRAGMA temp_store_directory='{folder}/missing';\n"
    );
    let (out, err, ok) = shell(dir.path(), &[("QUIRE_DEFAULT_VFS", "1")], &lines);
    assert!(!ok && out.contains(&folder.to_string()) && err.contains("not a writable directory"), "{out}{err}");
}

#[test]
fn a_second_process_is_told_which_one_has_the_data_directory() {
    let dir = dir();
    let second = format!(".load {}\n.open file:b?vfs=quire\nCREATE TABLE t(x);\n", extension().display());
    std::fs::write(dir.path().join("second.sql"), second).unwrap();
    std::fs::write(
        dir.path().join("second.sh"),
        "echo first is $PPID\nsqlite3 -batch -init /dev/null <second.sql 2>&1\n",
    )
    .unwrap();
    let script =
        ".open file:a?vfs=quire\nCREATE TABLE t(x);\n.shell exec sh second.sh\nSELECT 'on' FROM sqlite_schema;\n";
    let (out, err, ok) = shell(dir.path(), &[], script);
    assert!(ok && out.ends_with("on\n"), "{out}{err}");
    let first = out.lines().find_map(|line| line.strip_prefix("first is ")).unwrap();
    assert!(out.contains("locked") && out.contains(&format!("process {first}")), "{out}{err}");
    let (out, err, ok) = shell(dir.path(), &[], ".open file:a?vfs=quire\nSELECT count(*) FROM t;\n");
    assert!(ok && out == "0\n", "the data directory is free again: {out}{err}");
}

#[test]
fn a_transaction_over_two_volumes_is_refused_where_a_commit_means_that_it_is_in_the_store() {
    let dir = dir();
    let at_once = [("QUIRE_SYNC", "commit")];
    let (out, err, ok) = shell(
        dir.path(),
        &at_once,
        ".open file:a?vfs=quire\nATTACH 'file:b?vfs=quire' AS b;\nCREATE TABLE t(x);\nCREATE TABLE b.t(x);\n",
    );
    assert!(ok, "{out}{err}");
    let both = "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT;";
    let attach = ".open file:a?vfs=quire\nATTACH 'file:b?vfs=quire' AS b;\n";
    let (out, err, ok) = shell(dir.path(), &at_once, &format!("{attach}{both}\n"));
    assert!(!ok && err.contains("sync=commit") && err.contains("transaction of its own"), "{out}{err}");
    let one_by_one = "INSERT INTO main.t VALUES(2);\nINSERT INTO b.t VALUES(2);\n";
    let (out, err, ok) = shell(dir.path(), &at_once, &format!("{attach}{one_by_one}"));
    assert!(ok, "{out}{err}");
    let store = format!("file://{}", dir.path().join("data/store").display());
    let other = dir.path().join("other");
    let variables = [("QUIRE_DATA_DIR", other.to_str().unwrap()), ("QUIRE_STORE", &store)];
    let asked = "SELECT (SELECT group_concat(x) FROM main.t), (SELECT group_concat(x) FROM b.t);\n";
    let (out, err, ok) = shell(dir.path(), &variables, &format!("{attach}{asked}"));
    assert!(ok && out == "2|2\n", "what was acknowledged is in the store, and nothing else: {out}{err}");
}

#[test]
fn a_volume_can_be_opened_again_while_its_last_sync_still_waits_for_the_store() {
    let dir = dir();
    let (_, err, ok) = shell(dir.path(), &[], ".open file:a?vfs=quire\nCREATE TABLE t(x);\n");
    assert!(ok, "{err}");
    // A store that takes the call and does not answer.
    let lines = r#"
import socket
store = socket.create_server(("127.0.0.1", 0))
os.environ["AWS_ENDPOINT"] = "http://127.0.0.1:%d" % store.getsockname()[1]
def opened():
    return sqlite3.connect("file:a?vfs=quire", uri=True, isolation_level=None)
db = opened()
db.execute("INSERT INTO t VALUES(1)")
called = store.accept()
db.close()
for n in (2, 3):
    db = opened()
    db.execute("INSERT INTO t VALUES(?)", (n,))
    print(db.execute("SELECT group_concat(x) FROM t").fetchone()[0], flush=True)
    db.close()
os._exit(0)
"#;
    let store = [
        ("QUIRE_STORE", "s3://bucket/a"),
        ("QUIRE_SYNC", "20ms"),
        ("AWS_ACCESS_KEY_ID", "k"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    let (out, err) = script(dir.path(), &store, lines);
    assert_eq!(out, "1,2\n1,2,3\n", "{err}");
}

#[test]
fn a_forks_child_is_refused_wherever_the_parent_had_the_lock() {
    let dir = dir();
    let lines = r#"
def in_child(db, statements):
    child = os.fork()
    if child == 0:
        went_on = 0
        for sql in statements:
            try:
                print(sql, db.execute(sql).fetchall(), file=sys.stderr)
                went_on += 1
            except sqlite3.Error as e:
                print(sql, e, file=sys.stderr)
        os._exit(went_on)
    assert os.waitpid(child, 0)[1] == 0, "the child went on"
db = sqlite3.connect("file:forked?vfs=quire", uri=True, isolation_level=None)
db.execute("PRAGMA locking_mode=EXCLUSIVE")
db.execute("CREATE TABLE t(x)")
db.execute("INSERT INTO t VALUES(zeroblob(100000))")
large = "INSERT INTO t SELECT zeroblob(3000000) FROM (VALUES(1),(2),(3))"
calls = ["SELECT quire_push()", "SELECT quire_fork('f')", "SELECT quire_reset()", "PRAGMA quire_push"]
calls += ["SELECT * FROM quire_volumes", "SELECT * FROM quire_status"]
in_child(db, ["INSERT INTO t VALUES(zeroblob(200000))", large] + calls)
db.execute("INSERT INTO t VALUES(zeroblob(300000))")
db.execute("BEGIN EXCLUSIVE")
db.execute("INSERT INTO t VALUES(zeroblob(400000))")
in_child(db, ["COMMIT"] + calls)
in_child(db, [large] + calls)
db.execute("COMMIT")
db.close()
db = sqlite3.connect("file:forked?vfs=quire", uri=True)
print(db.execute("SELECT group_concat(length(x)) FROM t").fetchone()[0], db.execute("PRAGMA integrity_check").fetchone()[0])
"#;
    let (out, err) = script(dir.path(), &[], lines);
    assert_eq!(out, "100000,300000,400000 ok\n", "{err}");
}

#[test]
fn a_forks_child_is_refused_and_the_parent_goes_on() {
    let dir = dir();
    let lines = r#"
db = sqlite3.connect("file:forked?vfs=quire", uri=True, isolation_level=None)
db.execute("CREATE TABLE t(x)")
db.execute("BEGIN")
db.execute("INSERT INTO t VALUES(1)")
child = os.fork()
if child == 0:
    refused = 0
    for sql in ("INSERT INTO t VALUES(2)", "COMMIT", "SELECT * FROM t"):
        try:
            db.execute(sql)
        except sqlite3.Error:
            refused += 1
    db.close()
    os._exit(0 if refused >= 2 else 1)
assert os.waitpid(child, 0)[1] == 0, "the child went on"
db.execute("INSERT INTO t VALUES(3)")
db.execute("COMMIT")
db.close()
db = sqlite3.connect("file:forked?vfs=quire", uri=True)
print(db.execute("SELECT group_concat(x) FROM t").fetchone()[0])
"#;
    let (out, err) = script(dir.path(), &[], lines);
    assert_eq!(out, "1,3\n", "{err}");
    assert!(err.contains("fork"), "{err}");
}

#[test]
fn the_extension_has_no_sqlite_in_it() {
    let bytes = std::fs::read(extension()).unwrap();
    // The name of a table that SQLite makes itself.
    let needle = b"sqlite_sequence";
    assert!(!bytes.windows(needle.len()).any(|window| window == needle));
}
