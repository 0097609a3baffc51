//! `quire serve`, in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::Value;

use crate::child::spawn;

/// A running server. It is killed when this is dropped, or with the process.
pub struct Served {
    child: Child,
    /// Where it listens, as a store.
    pub url: String,
    /// Where it shows how it is.
    pub http: String,
}

impl Served {
    /// Runs the command line `program` so that it serves on `port`, of which 0 is any, with these words besides.
    pub fn start(mut program: Command, port: u16, words: &[&str]) -> Served {
        let listen = format!("127.0.0.1:{port}");
        program
            .args(["--json", "serve", "--listen", &listen, "--http", "127.0.0.1:0"])
            .args(words)
            .stdout(Stdio::piped());
        let mut child = spawn(program).unwrap_or_else(|e| panic!("quire serve: {e}"));
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("what it says first");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let [url, http] = ["url", "http"].map(|field| told[field].as_str().expect("an address").to_owned());
        Served { child, url, http }
    }

    /// Where it listens: `host:port`.
    pub fn address(&self) -> &str {
        self.url.rsplit_once('/').map_or(&self.url, |(_, address)| address)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).expect("an address ends with its port")
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.wait();
    }

    /// How it ends.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("it is waited for once")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
