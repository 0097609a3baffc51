//! Running other programs: what was run is in every error, and none of them
//! can hang a run for ever.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How often a running program is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Runs a program with this terminal; an error unless it exits with 0.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(status.success(), "{} ended with {status}", line(command));
    Ok(())
}

/// Runs a program and gives what it printed; its errors go to this terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", line(command)))?;
    ensure!(output.status.success(), "{} ended with {}", line(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether a program can be run with this argument at all.
pub(crate) fn answers(program: impl AsRef<Path>, argument: &str) -> bool {
    let mut command = Command::new(program.as_ref());
    let command = command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs a program with its output in a file; it is killed if it takes longer than `limit`.
pub(crate) fn run_logged(command: &mut Command, log: &Path, limit: Duration) -> Result<ExitStatus> {
    let file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    let command = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            bail!("{} did not end within {} s and was killed", line(command), limit.as_secs());
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Lets the program use this data directory and this store, and no setting of the person who runs the chore.
pub(crate) fn with_store<'a>(command: &'a mut Command, data_dir: &Path, store: &str) -> &'a mut Command {
    for (key, _) in std::env::vars_os() {
        if key.to_string_lossy().starts_with("QUIRE_") {
            command.env_remove(key);
        }
    }
    command.env("XDG_CONFIG_HOME", data_dir).env("QUIRE_DATA_DIR", data_dir).env("QUIRE_STORE", store)
}

/// The command as one would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("xtask-{}-{name}.log", std::process::id()))
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_named() {
        let log = log("hangs");
        let error = run_logged(Command::new("sleep").arg("3600"), &log, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().starts_with("sleep 3600 did not end"), "{error}");
        std::fs::remove_file(log).unwrap();
    }

    #[test]
    fn a_failure_names_the_command_and_keeps_its_output() {
        let log = log("fails");
        let script = "echo out; echo err >&2; exit 3";
        let status = run_logged(Command::new("sh").args(["-c", script]), &log, Duration::from_secs(60)).unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\nerr\n");
        std::fs::remove_file(log).unwrap();
        let error = run(Command::new("false").arg("whatever")).unwrap_err();
        assert!(error.to_string().starts_with("false whatever ended with"), "{error}");
    }
}
