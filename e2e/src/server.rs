//! `quire serve`, in a process of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus, Stdio};

use serde_json::Value;

use crate::world::World;

/// A server on a world's store. It ends with this value.
pub struct Server {
    child: Child,
    /// Where it listens, as a store.
    pub url: String,
    /// Where it shows how it is.
    pub http: String,
}

impl Server {
    /// Serves the store of a world; `port` 0 is any.
    pub fn start(world: &World, port: u16) -> Server {
        Server::start_with(world, port, &[], Stdio::inherit())
    }

    /// As [`start`](Self::start), with more words, and with its log where one likes.
    pub fn start_with(world: &World, port: u16, words: &[&str], log: Stdio) -> Server {
        Server::start_in(world, port, words, log, &[])
    }

    /// As [`start_with`](Self::start_with), with more variables in its environment.
    pub fn start_in(world: &World, port: u16, words: &[&str], log: Stdio, variables: &[(&str, String)]) -> Server {
        let listen = format!("127.0.0.1:{port}");
        let mut command =
            world.machine("server").command(&["--json", "serve", "--listen", &listen, "--http", "127.0.0.1:0"]);
        let mut child = command
            .args(words)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let [url, http] = ["url", "http"].map(|field| told[field].as_str().unwrap().to_owned());
        Server { child, url, http }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Ends it in the middle of whatever it does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ends.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
